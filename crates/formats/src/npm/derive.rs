//! Tarball links that lead back to larder; every other byte stays as the upstream sent it.

use super::document::{Sink, read_manifest, read_packument};
use super::json::Text;
use super::name::PackageName;
use super::places::Places;
use super::tarball::{Tarballs, Unplaced};
use crate::splice::{Splicer, json_escape_into};
use crate::{Document, Links, Malformed};

/// A packument with `versions.*.dist.tarball` replaced, wherever that occurs: of duplicate keys some clients read the first.
pub(super) fn rewrite_packument<'d>(
    document: &Document<'d>,
    package: PackageName<'_>,
    links: &Links<'_>,
) -> Result<Splicer<'d>, Malformed> {
    let mut rewriter = Rewriter::new(document, package, links, None);
    match document.memo.and_then(|memo| memo.get::<Places>()) {
        Some(places) => places.tell(document.body, links.meter(), &mut rewriter)?,
        None => read_packument(document.body, links.meter(), &mut rewriter)?,
    }
    rewriter.finish()
}

/// A manifest with `dist.tarball` replaced. Its `version` may stand behind `dist`, so it is read first.
pub(super) fn rewrite_manifest<'d>(
    document: &Document<'d>,
    package: PackageName<'_>,
    links: &Links<'_>,
) -> Result<Splicer<'d>, Malformed> {
    let mut version = VersionOf(None);
    read_manifest(document.body, &mut version)?;
    let mut rewriter = Rewriter::new(document, package, links, version.0);
    read_manifest(document.body, &mut rewriter)?;
    rewriter.finish()
}

struct Rewriter<'a, 'l> {
    links: &'l Links<'l>,
    tarballs: Tarballs<'l>,
    splicer: Splicer<'a>,
    /// Whose `dist` is being read.
    version: Option<Text<'a>>,
}

impl<'a, 'l> Rewriter<'a, 'l> {
    fn new(
        document: &Document<'a>,
        package: PackageName<'l>,
        links: &'l Links<'l>,
        version: Option<Text<'a>>,
    ) -> Self
    where
        'a: 'l,
    {
        links.begin(document.body.len());
        Self {
            links,
            tarballs: Tarballs::new(package, links, document.url),
            splicer: Splicer::new(document.body),
            version,
        }
    }

    fn finish(self) -> Result<Splicer<'a>, Malformed> {
        self.links.end()?;
        Ok(self.splicer)
    }
}

impl<'a> Sink<'a> for Rewriter<'a, '_> {
    fn version(&mut self, key: Text<'a>) {
        self.version = Some(key);
    }

    fn tarball(&mut self, url: Option<Text<'a>>) {
        let Some(url) = url else { return };
        let (Some(version), Some(link)) = (self.version.and_then(|text| text.value()), url.value())
        else {
            return;
        };
        match self.tarballs.place(&version, &link) {
            Ok(placed) => {
                let href = self.links.href(&placed.path);
                self.splicer
                    .replace_with(url.range(), |text| json_escape_into(&href, text));
            }
            Err(Unplaced {
                url: place,
                why,
                is_relative,
            }) => {
                self.links.leave_out(place.as_ref(), why);
                // A relative one that stayed would lead into another repository of larder's.
                if let Some(place) = place.filter(|_| is_relative) {
                    self.splicer
                        .replace_with(url.range(), |text| json_escape_into(place.as_str(), text));
                }
            }
        }
    }
}

struct VersionOf<'a>(Option<Text<'a>>);

impl<'a> Sink<'a> for VersionOf<'a> {
    fn version_text(&mut self, version: Option<Text<'a>>) {
        self.0 = version;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use url::Url;

    use super::super::check::check_packument;
    use super::super::fixture::{PUBLIC, ROOT, document, links, remote};
    use super::*;
    use crate::{Memo, Meter};

    /// Where the document of a package is.
    fn url(package: &str) -> Url {
        Url::parse(ROOT).unwrap().join(package).unwrap()
    }

    /// Rewritten by itself, and after a check that has found where things stand: that must not make a difference.
    fn packument(body: &str, package: &str) -> String {
        let (repository, url) = (remote(ROOT), url(package));
        let name = PackageName::parse(package).unwrap();
        let rewrite = |memo| {
            let document = document(body.as_bytes(), &url, memo);
            if memo.is_some() {
                // Whether it is accepted is another matter.
                let _ = check_packument(&document, name, false, &Meter::default());
            }
            let out = rewrite_packument(&document, name, &links(&repository)).unwrap();
            String::from_utf8(out.finish()).unwrap()
        };
        let memo = Memo::default();
        let (alone, checked) = (rewrite(None), rewrite(Some(&memo)));
        assert!(memo.get::<Places>().is_some());
        assert_eq!(alone, checked);
        alone
    }

    fn manifest(body: &str, package: &str) -> String {
        let (repository, url) = (remote(ROOT), url(package));
        let out = rewrite_manifest(
            &document(body.as_bytes(), &url, None),
            PackageName::parse(package).unwrap(),
            &links(&repository),
        )
        .unwrap();
        String::from_utf8(out.finish()).unwrap()
    }

    #[test]
    fn npm_5_only_tarballs_differ() {
        for (body, package) in [
            (include_str!("testdata/full.json"), "@babel/helper"),
            (include_str!("testdata/abbreviated.json"), "@babel/helper"),
            (include_str!("testdata/verdaccio.json"), "left-pad"),
        ] {
            // In these documents the registry's own address stands in tarballs and in attestation URLs only.
            let expected = body
                .replace(
                    &format!("\"{ROOT}{package}/-/"),
                    &format!("\"{PUBLIC}{package}/-/"),
                )
                .replace(
                    "\"http://registry.example.com/npm/left-pad/-/",
                    &format!("\"{PUBLIC}left-pad/-/"),
                );
            assert_ne!(expected, body);
            assert_eq!(packument(body, package), expected);
        }
    }

    #[test]
    fn npm_3_2_attestation_urls_are_left_alone() {
        let body = include_str!("testdata/abbreviated.json");
        let attestations = "\"url\":\"https://registry.example.com/npm/-/npm/v1/attestations/@babel%2fhelper@7.0.0\"";
        assert!(body.contains(attestations));
        assert!(packument(body, "@babel/helper").contains(attestations));
    }

    #[test]
    fn npm_3_5_foreign_layouts_get_the_conventional_path() {
        let rewritten = packument(include_str!("testdata/github.json"), "@octo/tool");
        assert!(
            rewritten.contains(&format!(
                "\"tarball\":\"{PUBLIC}@octo/tool/-/tool-1.0.0.tgz\""
            )),
            "{rewritten}"
        );
        assert!(!rewritten.contains("/download/"));
    }

    #[test]
    fn npm_13_manifests_of_versions_and_tags_are_rewritten() {
        let body = include_str!("testdata/manifest.json");
        let expected = body.replace(
            &format!("{ROOT}left-pad/-/"),
            &format!("{PUBLIC}left-pad/-/"),
        );
        assert_ne!(expected, body);
        assert_eq!(manifest(body, "left-pad"), expected);
        let behind = r#"{"dist":{"tarball":"https://registry.example.com/npm/x/-/x-1.0.0.tgz"},"name":"x","version":"1.0.0"}"#;
        assert!(manifest(behind, "x").contains(PUBLIC));
    }

    #[test]
    fn npm_14_what_may_not_be_carried_is_left_alone() {
        let body = r#"{"name":"n","versions":{"1.0.0":{"dist":{"tarball":"https://192.168.0.1/n-1.0.0.tgz"}},"latest":{"dist":{"tarball":"https://registry.example.com/npm/n/-/n-latest.tgz"}},
            "1.0.1":{},"1.0.2":{"dist":null},"1.0.3":{"dist":{"tarball":["https://registry.example.com/npm/n/-/n-1.0.3.tgz"]}}}}"#;
        assert_eq!(packument(body, "n"), body);
    }

    #[test]
    fn hazard_x8_relative_tarballs_never_stay_relative() {
        let body = r#"{"name":"n","versions":{"1.0.4":{"dist":{"tarball":"n-1.0.4.tgz"}},"latest":{"dist":{"tarball":"../n-latest.tgz"}},"1.0.5":{"dist":{"tarball":"//10.0.0.1/n.tgz"}}}}"#;
        let expected = body
            .replace("\"n-1.0.4.tgz", &format!("\"{PUBLIC}n/-/n-1.0.4.tgz"))
            .replace(
                "\"../n-latest.tgz",
                "\"https://registry.example.com/n-latest.tgz",
            )
            .replace("\"//10.0.0.1", "\"https://10.0.0.1");
        assert_eq!(packument(body, "n"), expected);
    }

    #[test]
    fn spelling_of_everything_else_is_kept() {
        let body = "{ \"name\" :\"n\",\r\n\"x\":1.50E+01, \"x\":[ -0, 1e3 ],\"\\u0076ersions\":{\"1.0.0\": {\"\\u0064ist\" : {\"tarball\"\t:\t\"https:\\/\\/registry.example.com\\/npm\\/n\\/-\\/n-1.0.0.tgz\" , \"z\":\"\\ud800\"}}}}\n";
        let expected = body.replace(
            "https:\\/\\/registry.example.com\\/npm\\/n\\/-\\/n-1.0.0.tgz",
            &format!("{PUBLIC}n/-/n-1.0.0.tgz"),
        );
        assert_eq!(packument(body, "n"), expected);
    }

    #[test]
    fn every_duplicate_leads_back() {
        let dist = r#""dist":{"tarball":"https://registry.example.com/npm/n/-/n-1.0.0.tgz","tarball":"https://registry.example.com/npm/n/-/n-1.0.0.tgz"}"#;
        let body = format!(
            r#"{{"versions":{{"1.0.0":{{{dist},{dist}}},"1.0.0":{{{dist}}}}},"versions":{{"1.0.0":{{{dist}}}}}}}"#
        );
        let rewritten = packument(&body, "n");
        assert_eq!(rewritten.matches(PUBLIC).count(), 8);
        assert!(!rewritten.contains(ROOT));
    }

    #[test]
    fn malformed_documents_are_refused() {
        let repository = remote(ROOT);
        let links = links(&repository);
        let name = PackageName::parse("n").unwrap();
        for body in [
            &b"{\"versions\":{\"1.0.0\":{\"dist\":{\"tarball\":\"https://registry"[..],
            b"<html>",
            b"",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf{}",
        ] {
            let url = url("n");
            let document = document(body, &url, None);
            assert!(rewrite_packument(&document, name, &links).is_err());
            assert!(rewrite_manifest(&document, name, &links).is_err());
        }
    }

    /// What the rewriting must amount to, said over values instead of bytes.
    fn expected(mut document: Value) -> Value {
        let versions = document.get_mut("versions").and_then(Value::as_object_mut);
        for (version, manifest) in versions.into_iter().flatten() {
            if let Some(tarball) = manifest
                .get_mut("dist")
                .and_then(|dist| dist.get_mut("tarball"))
                && tarball
                    .as_str()
                    .is_some_and(|url| url.starts_with("https://"))
                && version.starts_with(|c: char| c.is_ascii_digit())
            {
                *tarball = json!(format!("{PUBLIC}n/-/n-{version}.tgz"));
            }
        }
        document
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // A scheme that nobody carries, lest it be read as a relative link where a tarball's stands.
            "(x:(\\PC{0,8}|[\"\\\\\n\u{1}]{0,4}))?".prop_map(Value::from),
            Just(json!("https://registry.example.com/npm/n/-/n-1.0.0.tgz")),
        ];
        let key = || {
            prop_oneof![
                Just("versions".to_owned()),
                Just("dist".to_owned()),
                Just("tarball".to_owned()),
                "[a-z\"\\\\]{0,3}"
            ]
        };
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(key(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_packument() -> impl Strategy<Value = Value> {
        let version = prop_oneof![
            "[0-9]{1,2}\\.[0-9]\\.[0-9](-[a-z]{1,3}\\.[0-9])?",
            Just("__proto__".to_owned()),
            Just("latest".to_owned())
        ];
        let link = prop_oneof![
            "https://registry\\.example\\.com/npm/n/-/n-[0-9]\\.[0-9]\\.[0-9]\\.tgz"
                .prop_map(Value::from),
            "https://cdn\\.example\\.org/[a-z]{1,5}(\\?q=[a-z])?".prop_map(Value::from),
            any_json(),
        ];
        let manifest = (link, any_json(), any::<bool>()).prop_map(|(link, other, has_dist)| {
            if has_dist {
                json!({"a": other, "dist": {"b": other, "tarball": link, "z": other}})
            } else {
                other
            }
        });
        let versions = prop::collection::btree_map(version, manifest, 0..6)
            .prop_map(|map| Value::Object(map.into_iter().collect()));
        (versions, any_json(), any_json())
            .prop_map(|(versions, a, z)| json!({"a": a, "name": "n", "versions": versions, "z": z}))
    }

    proptest! {
        #[test]
        fn npm_5_rewriting_changes_tarballs_and_nothing_else(document in any_packument(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
            let rewritten: Value = serde_json::from_str(&packument(&text, "n")).unwrap();
            prop_assert_eq!(rewritten, expected(document));
        }

        #[test]
        fn rewriting_twice_for_one_base_is_rewriting_once(document in any_packument()) {
            let text = document.to_string();
            let once = packument(&text, "n");
            prop_assert_eq!(packument(&once, "n"), once);
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..64), cut in 0_usize..2000) {
            let repository = remote(ROOT);
            let links = links(&repository);
            let name = PackageName::parse("@babel/helper").unwrap();
            let url = url("n");
            let _ = rewrite_packument(&document(&body, &url, None), name, &links);
            let whole = include_bytes!("testdata/full.json");
            let cut = cut.min(whole.len() - 2);
            let cut = document(&whole[..cut], &url, None);
            prop_assert!(rewrite_packument(&cut, name, &links).is_err());
            prop_assert!(rewrite_manifest(&cut, name, &links).is_err());
        }
    }
}
