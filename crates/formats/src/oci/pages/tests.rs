//! What links lead to, and what of a query goes back to the registry.

use larder_core::PackageType;

use super::*;
use crate::testing::remote;

fn with_list<T>(
    base: &str,
    key: u8,
    path: &str,
    known: &'static [&'static str],
    run: impl FnOnce(&List<'_>) -> T,
) -> T {
    let (repository, key) = (
        remote("images", PackageType::Docker, base),
        LinkKey::from_bytes([key; 32]),
    );
    run(&List {
        repository: &repository,
        key: &key,
        path,
        known,
    })
}

fn tags<T>(run: impl FnOnce(&List<'_>) -> T) -> T {
    with_list("https://r.example/", 7, "a/tags/list", TAG_PARAMETERS, run)
}

#[test]
fn oci_14_the_next_page_is_taken_from_any_link_and_never_its_host() {
    for (link, query) in [
        (
            r#"</v2/library/nginx/tags/list?last=1.9&n=100>; rel="next""#,
            Some("last=1.9&n=100"),
        ),
        (
            r"<https://other.example/v2/a/tags/list?n=2&last=a%2Fb%3D>;rel=next",
            Some("n=2&last=a%2Fb%3D"),
        ),
        (
            r#"</first?n=1>; rel="prev", </v2/a/tags/list?next_page=xyz>; rel="next""#,
            Some("next_page=xyz"),
        ),
        (
            r#"</v2/a/tags/list?last=b&n=2>; rel="last next""#,
            Some("last=b&n=2"),
        ),
        (
            r#"</v2/a/tags/list?last=b>; title="a, b; \"rel=prev"; REL=NEXT"#,
            Some("last=b"),
        ),
        (
            r"</v2/a,b/tags/list?last=a>; rel=prev, </v2/a/tags/list?last=b>; rel=next",
            Some("last=b"),
        ),
        (r#"</v2/a/tags/list?last=b>; rel="prev"; rel="next""#, None),
        (r#"</v2/a/tags/list?last=b>; rel="nextish""#, None),
        (r#"</v2/a/tags/list?last=b>; title="rel=next""#, None),
        (r#"</v2/a/tags/list?n=2>; rel="prev""#, None),
        (r#"</v2/a/tags/list>; rel="next""#, None),
        ("nonsense", None),
    ] {
        assert_eq!(
            tags(|list| list.next_page(link, None)).as_deref(),
            query,
            "{link}"
        );
    }
}

/// As any client does that follows the registry's own link (RFC 8288): its query comes back as it was written, or in other words for
/// the same.
#[test]
fn whatever_stands_in_a_registry_s_link_comes_back_to_it() {
    for (base, path, known, target) in [
        (
            "https://r.example/",
            "a/tags/list",
            TAG_PARAMETERS,
            "/v2/a/tags/list",
        ),
        (
            "https://r.example/",
            "a/tags/list",
            TAG_PARAMETERS,
            "https://r.example/v2/a/tags/list",
        ),
        (
            "https://r.example/hub/",
            "a/tags/list",
            TAG_PARAMETERS,
            "/hub/v2/a/tags/list",
        ),
        (
            "https://r.example/v2/",
            "a/tags/list",
            TAG_PARAMETERS,
            "/v2/a/tags/list",
        ),
        (
            "https://r.example/v2/mirror/",
            "a/tags/list",
            TAG_PARAMETERS,
            "/v2/mirror/a/tags/list",
        ),
        (
            "https://r.example/",
            "a/referrers/sha256:00",
            REFERRER_PARAMETERS,
            "/v2/a/referrers/sha256:00",
        ),
        // Relative to the page (RFC 8288, section 3.1).
        ("https://r.example/", "a/tags/list", TAG_PARAMETERS, ""),
        ("https://r.example/", "a/tags/list", TAG_PARAMETERS, "list"),
        (
            "https://r.example/",
            "a/tags/list",
            TAG_PARAMETERS,
            "../../a/tags/list",
        ),
        // As registries write that do not know their own address, or below which path they are.
        (
            "https://r.example/",
            "a/tags/list",
            TAG_PARAMETERS,
            "http://r.example/v2/a/tags/list",
        ),
        (
            "https://r.example/",
            "a/tags/list",
            TAG_PARAMETERS,
            "http://registry:5000/v2/a/tags/list",
        ),
        (
            "https://r.example/",
            "a/tags/list",
            TAG_PARAMETERS,
            "//other.example/v2/a/tags/list",
        ),
        (
            "https://r.example/hub/",
            "a/tags/list",
            TAG_PARAMETERS,
            "/v2/hub/a/tags/list",
        ),
    ] {
        for query in [
            "n=2&last=b&cursor=a%2Fb%3D",
            "page=2",
            "artifactType=x%2Fy&token=c3%3D&token=d",
            "last&state",
        ] {
            with_list(base, 7, path, known, |list| {
                let link = list
                    .next_page(&format!("<{target}?{query}#x>; rel=\"next\""), None)
                    .unwrap();
                assert_eq!(list.query(&link).as_deref(), Some(query), "{link}");
                assert_eq!(
                    list.query(&format!("ns=docker.example&{link}")).as_deref(),
                    Some(query)
                );
                // Go's `url.Values.Encode` sorts.
                let mut sorted: Vec<&str> = link.split('&').collect();
                sorted.sort_unstable();
                let back = list.query(&sorted.join("&")).unwrap();
                let pairs = |text: &str| {
                    let mut pairs: Vec<_> = form_urlencoded::parse(text.as_bytes())
                        .into_owned()
                        .collect();
                    pairs.sort();
                    pairs
                };
                assert_eq!(pairs(&back), pairs(query));
            });
        }
    }
}

#[test]
fn parameters_that_no_link_has_named_go_nowhere() {
    let link =
        tags(|list| list.next_page("</v2/a/tags/list?n=2&cursor=x>; rel=next", None)).unwrap();
    for made_up in [
        "n=2&cursor=x",
        "n=2&cursor=x&_page=AAAAAAAAAAAAAAAAAAAAAA",
        "n=2&cursor=x&_page=",
        &link.replace("=x", "=y"),
        &format!("{link}&more=1"),
    ] {
        assert_eq!(
            tags(|list| list.query(made_up)).as_deref(),
            Some("n=2"),
            "{made_up}"
        );
    }
    // What anybody may send is not signed.
    assert_eq!(
        tags(|list| list.query(&link.replace("n=2", "n=5"))).as_deref(),
        Some("n=5&cursor=x")
    );
    // Another list's signature, another repository's key.
    for (key, path) in [(7, "b/tags/list"), (8, "a/tags/list")] {
        let given = with_list("https://r.example/", key, path, TAG_PARAMETERS, |list| {
            list.query(&link)
        });
        assert_eq!(given.as_deref(), Some("n=2"));
    }
}

#[test]
fn a_link_that_leads_elsewhere_brings_nothing_of_its_own() {
    for target in [
        "/v2/b/tags/list",
        "/v2/aa/tags/list",
        "../tags/lists",
        "/x",
        "https://u:p@r.example/v2/a/tags/list",
    ] {
        let link = format!("<{target}?last=x&cursor=1>; rel=next");
        assert_eq!(
            tags(|list| list.next_page(&link, None)).as_deref(),
            Some("last=x"),
            "{target}"
        );
    }
}

/// Each larder signs the link of the one behind it, and gives back what that has signed.
#[test]
fn links_lead_through_one_larder_behind_another() {
    let mut query = "n=1&cursor=a%2Fb".to_owned();
    for key in [7, 8, 9] {
        let link = format!("</v2/up/a/tags/list?{query}>; rel=\"next\"");
        let (next, back, made_up) = with_list(
            "http://larder.example/",
            key,
            "a/tags/list",
            TAG_PARAMETERS,
            |list| {
                let next = list.next_page(&link, Some("n=1")).unwrap_or_default();
                let back = list.query(&next);
                let made_up = list.query(&next.replace("cursor=a", "cursor=c"));
                (next, back, made_up)
            },
        );
        assert_eq!(back.as_deref(), Some(&*query), "{next}");
        assert_eq!(made_up.as_deref(), Some("n=1"));
        query = next;
    }
}

/// Who follows it would come back for ever.
#[test]
fn a_link_to_the_page_itself_is_none() {
    for (own, target) in [
        (Some("n=2"), "?n=2"),
        (Some("n=2"), "/v2/a/tags/list?n=1000"),
        (None, "?n=1000"),
        (Some("n=2&last=b"), "?last=b&n=2"),
        (Some("n=2&last=a%2Fb"), "?last=a/b"),
        (Some("cursor=x&n=2"), "?n=2&cursor=x"),
        // What would lead on cannot be taken.
        (Some("n=2"), "/v2/b/tags/list?n=2&cursor=x"),
    ] {
        let link = format!("<{target}>; rel=next");
        assert!(goes_on(&link), "{link}");
        assert_eq!(
            tags(|list| list.next_page(&link, own)),
            None,
            "{own:?} {link}"
        );
    }
    let link = "<?n=2&last=c>; rel=next";
    assert_eq!(
        tags(|list| list.next_page(link, Some("n=2&last=b"))).as_deref(),
        Some("n=2&last=c")
    );
}

#[test]
fn what_only_a_registry_understands_does_not_stand_in_keys() {
    assert_eq!(in_key("n=2&last=b"), "n=2&last=b");
    let (one, other) = (in_key("n=2&token=c4n4ry"), in_key("n=3&token=c4n4ry"));
    assert!(one != other && !one.contains("c4n4ry"), "{one}");
}
