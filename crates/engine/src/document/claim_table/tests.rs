use super::*;
use crate::claim::Stated;
use larder_core::sha256;
use proptest::prelude::*;

fn claim(path: &str, body: &str) -> Claim {
    Claim {
        path: path.to_owned(),
        url: format!("https://files.example.com/{path}"),
        digests: vec![sha256(body.as_bytes())],
        identity: None,
        package: None,
        size: Some(body.len() as u64),
        published_at: Some(UnixMillis(-5)),
        names_files: false,
    }
}

#[test]
fn what_names_further_files_is_told_from_what_does_not() {
    let lists = |path: &str, identity: Option<&str>| Claim {
        identity: identity.map(str::to_owned),
        names_files: true,
        ..claim(path, "x")
    };
    let table = ClaimTable::build(vec![
        claim("a", "x"),
        claim("b", "x"),
        lists("b", None),
        lists("c", Some("Q1one")),
    ]);
    let found: Vec<_> = table
        .iter()
        .map(|(path, claim)| (path, claim.names_files, claim.identity))
        .collect();
    let identity = Some("Q1one".to_owned());
    assert_eq!(
        found,
        [("a", false, None), ("b", true, None), ("c", true, identity)]
    );
}

/// Public Helm repositories list one URL under two digests, of which one is the file's.
#[test]
fn of_several_digests_for_one_path_any_will_do_and_the_first_claim_says_where_it_is() {
    let (first, mut second) = (claim("b", "first"), claim("b", "second"));
    second.url = "https://elsewhere.example.com/b".to_owned();
    second.published_at = Some(UnixMillis(7));
    let table = ClaimTable::build(vec![first.clone(), claim("a", "x"), second, first]);
    let found = table.find("b").unwrap();
    assert_eq!(found.digests, vec![sha256(b"first"), sha256(b"second")]);
    assert_eq!(
        (found.url.as_str(), found.size),
        ("https://files.example.com/b", None)
    );
    assert_eq!(found.published_at, Some(UnixMillis(7)), "the later date");
    assert_eq!(table.iter().count(), 2);
}

#[test]
fn claims_behind_a_path_whether_it_is_claimed_or_not() {
    let table = ClaimTable::build(["b", "a", "b/c", "d"].map(|path| claim(path, path)).into());
    let behind = |path: &str| {
        let claims = table.iter_after(path);
        claims.map(|(path, _)| path.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(behind(""), ["a", "b", "b/c", "d"]);
    assert_eq!(behind("a"), ["b", "b/c", "d"]);
    assert_eq!(behind("aa"), ["b", "b/c", "d"]);
    assert_eq!(behind("b"), ["b/c", "d"]);
    assert_eq!(behind("d"), [""; 0]);
    assert_eq!(behind("e"), [""; 0]);
    assert_eq!(ClaimTable::build(Vec::new()).iter_after("").count(), 0);
}

#[test]
fn of_one_claims_digests_only_the_strongest_counts() {
    let md5 =
        larder_core::Digest::from_name_and_hex("md5", "d41d8cd98f00b204e9800998ecf8427e").unwrap();
    let both = Claim {
        digests: vec![md5.clone(), sha256(b"x")],
        ..claim("a", "x")
    };
    let weak = Claim {
        digests: vec![md5.clone()],
        ..claim("a", "x")
    };
    assert_eq!(
        ClaimTable::build(vec![both.clone()])
            .find("a")
            .unwrap()
            .digests,
        vec![sha256(b"x")]
    );
    // Each claim is about a file of its own.
    assert_eq!(
        ClaimTable::build(vec![both, weak])
            .find("a")
            .unwrap()
            .digests,
        vec![sha256(b"x"), md5]
    );
}

#[test]
fn of_several_identities_for_one_path_any_will_do() {
    let of = |identity: &str| Claim {
        digests: Vec::new(),
        identity: Some(identity.to_owned()),
        ..claim("a.apk", "x")
    };
    let table = ClaimTable::build(vec![of("Q1one"), of("Q1two"), of("Q1one")]);
    let stated = Stated::Identities(vec!["Q1one".to_owned(), "Q1two".to_owned()]);
    assert_eq!(table.find("a.apk").unwrap().stated(), Some(stated));
}

#[test]
fn a_file_is_of_every_package_that_names_it() {
    let of = |package: Option<&str>, identity: Option<&str>| Claim {
        package: package.map(str::to_owned),
        identity: identity.map(str::to_owned),
        digests: Vec::new(),
        ..claim("chart.tgz", "x")
    };
    let found = |claims: &[Claim]| {
        ClaimTable::build(claims.to_vec())
            .find("chart.tgz")
            .unwrap()
    };
    let both = found(&[
        of(Some("b c"), None),
        of(None, None),
        of(Some("a"), None),
        of(Some("b c"), None),
    ]);
    assert_eq!(both.packages, ["b c", "a"]);
    let one = found(&[of(Some("a"), Some("Q1one"))]);
    assert_eq!(
        (one.packages, one.identity.as_deref()),
        (vec!["a".to_owned()], Some("Q1one"))
    );
    for odd in [Some("a\tb"), None] {
        let none = found(&[of(odd, None)]);
        assert_eq!((none.packages.len(), none.identity), (0, None));
        assert_eq!(none.url, "https://files.example.com/chart.tgz");
    }
}

#[test]
fn a_claim_with_a_control_character_is_left_out() {
    let table = ClaimTable::build(vec![
        claim("a\tb", "x"),
        claim("a\nb", "x"),
        claim("c", "x"),
    ]);
    assert_eq!(table.iter().count(), 1);
}

#[test]
fn an_empty_table_finds_nothing() {
    assert_eq!(ClaimTable::build(Vec::new()).find("a"), None);
}

proptest! {
    #[test]
    fn every_path_is_found_and_no_other(paths in proptest::collection::btree_set("[a-z/%+.-]{1,12}", 0..60), other in "[A-Z]{1,5}") {
        let table = ClaimTable::build(paths.iter().rev().map(|p| claim(p, p)).collect());
        for path in &paths {
            prop_assert_eq!(&table.find(path).unwrap().digests, &vec![sha256(path.as_bytes())]);
        }
        prop_assert_eq!(table.find(&other), None);
    }
}
