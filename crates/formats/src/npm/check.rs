//! Whether a document is what was asked for. Cheap: one scan, nothing is built.

use super::document::{Sink, read_any, read_manifest, read_packument};
use super::json::Text;
use super::name::{PackageName, is_version};
use super::places::Places;
use crate::{Document, Malformed, Meter};

/// A packument names its package, and has `versions` unless the package was unpublished. Of that the full form says so in `time`, which
/// the abbreviated one has not got. Where its tarballs stand is kept for what is derived from it.
pub(super) fn check_packument(
    document: &Document<'_>,
    package: PackageName<'_>,
    abbreviated: bool,
    meter: &Meter,
) -> Result<(), Malformed> {
    let mut seen = Seen::default();
    read_packument(document.body, meter, &mut seen)?;
    let places = std::mem::take(&mut seen.places).complete();
    if let (Some(memo), Some(places)) = (document.memo, places) {
        memo.keep(places);
    }
    check_name(seen.name, package)?;
    match seen.versions {
        Some(true) => Ok(()),
        None if seen.unpublished || abbreviated => Ok(()),
        None => Err(Malformed("it has no \"versions\"".to_owned())),
        Some(false) => Err(Malformed("its \"versions\" is no object".to_owned())),
    }
}

/// A manifest names its package and version: the one asked for, unless that was a tag.
pub(super) fn check_manifest(
    body: &[u8],
    package: PackageName<'_>,
    asked: &str,
) -> Result<(), Malformed> {
    let mut seen = Seen::default();
    read_manifest(body, &mut seen)?;
    check_name(seen.name, package)?;
    let Some(version) = seen.version.and_then(|text| text.value()) else {
        return Err(Malformed(
            "it has no \"version\", or one that is no string".to_owned(),
        ));
    };
    // Build metadata does not tell versions apart; registries leave it out.
    let core = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
    if is_version(asked) && core(asked) != core(&version) {
        return Err(Malformed(format!(
            "its \"version\" is {version:?}, but {asked:?} was asked for"
        )));
    }
    Ok(())
}

/// Tags, keys, attestations, search results: some JSON object.
pub(super) fn check_other(body: &[u8]) -> Result<(), Malformed> {
    read_any(body)
}

fn check_name(name: Option<Text<'_>>, package: PackageName<'_>) -> Result<(), Malformed> {
    let Some(name) = name else {
        return Err(Malformed(
            "it has no \"name\", or one that is no string".to_owned(),
        ));
    };
    if name.is(package.as_str()) {
        return Ok(());
    }
    let name: String = name.value().unwrap_or_default().chars().take(100).collect();
    Err(Malformed(format!(
        "its \"name\" is {name:?}, but {:?} was asked for",
        package.as_str()
    )))
}

/// What the last occurrence of each key said.
#[derive(Default)]
struct Seen<'a> {
    name: Option<Text<'a>>,
    version: Option<Text<'a>>,
    versions: Option<bool>,
    unpublished: bool,
    /// The key of `versions` that is read.
    at: Option<Text<'a>>,
    places: Places,
}

impl<'a> Sink<'a> for Seen<'a> {
    fn name(&mut self, name: Option<Text<'a>>) {
        self.name = name;
    }
    fn version_text(&mut self, version: Option<Text<'a>>) {
        self.version = version;
    }
    fn versions(&mut self, is_object: bool) {
        self.versions = Some(is_object);
    }
    fn version(&mut self, key: Text<'a>) {
        self.at = Some(key);
    }
    fn tarball(&mut self, url: Option<Text<'a>>) {
        if let (Some(version), Some(url)) = (self.at, url) {
            self.places.put(version, url);
        }
    }
    fn time(&mut self) {
        self.unpublished = false;
    }
    fn time_of(&mut self, key: Text<'a>, _time: Option<Text<'a>>) {
        self.unpublished |= key.is("unpublished");
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{document, root};
    use super::*;

    fn packument(body: &str, package: &str) -> Result<(), String> {
        check_packument(
            &document(body.as_bytes(), &root(), None),
            PackageName::parse(package).unwrap(),
            false,
            &Meter::default(),
        )
        .map_err(|e| e.0)
    }

    fn manifest(body: &str, asked: &str) -> Result<(), String> {
        check_manifest(body.as_bytes(), PackageName::parse("x").unwrap(), asked).map_err(|e| e.0)
    }

    #[test]
    fn real_documents_pass() {
        assert_eq!(
            packument(include_str!("testdata/full.json"), "@babel/helper"),
            Ok(())
        );
        assert_eq!(
            packument(include_str!("testdata/abbreviated.json"), "@babel/helper"),
            Ok(())
        );
        assert_eq!(
            packument(include_str!("testdata/verdaccio.json"), "left-pad"),
            Ok(())
        );
        assert_eq!(
            packument(include_str!("testdata/github.json"), "@octo/tool"),
            Ok(())
        );
        assert_eq!(
            packument(include_str!("testdata/unpublished.json"), "gone"),
            Ok(())
        );
        assert_eq!(
            manifest(include_str!("testdata/manifest.json"), "latest"),
            Err("its \"name\" is \"left-pad\", but \"x\" was asked for".to_owned())
        );
    }

    #[test]
    fn the_name_must_be_the_one_asked_for() {
        assert_eq!(
            packument(r#"{"name":"@s\/x","versions":{}}"#, "@s/x"),
            Ok(())
        );
        assert!(
            packument(r#"{"name":"y","versions":{}}"#, "x")
                .unwrap_err()
                .contains("\"y\"")
        );
        assert!(packument(r#"{"name":"X","versions":{}}"#, "x").is_err());
        assert!(packument(r#"{"name":["x"],"versions":{}}"#, "x").is_err());
        assert!(
            packument(r#"{"_id":"x","versions":{}}"#, "x")
                .unwrap_err()
                .contains("no \"name\"")
        );
        assert!(packument(r#"{"error":"not found"}"#, "x").is_err());
    }

    #[test]
    fn versions_may_be_absent_only_after_unpublishing() {
        assert_eq!(
            packument(r#"{"name":"x","time":{"unpublished":{"name":"me"}}}"#, "x"),
            Ok(())
        );
        assert!(
            packument(
                r#"{"name":"x","time":{"created":"2020-01-01T00:00:00Z"}}"#,
                "x"
            )
            .unwrap_err()
            .contains("versions")
        );
        assert!(packument(r#"{"name":"x"}"#, "x").is_err());
        for versions in ["null", "[]", "\"x\"", "1"] {
            assert!(
                packument(&format!("{{\"name\":\"x\",\"versions\":{versions}}}"), "x")
                    .unwrap_err()
                    .contains("no object")
            );
        }
    }

    /// What the public registry answers for an unpublished package to who accepts the abbreviated form.
    #[test]
    fn the_abbreviated_form_of_an_unpublished_package_has_no_versions() {
        let check = |body: &str| {
            check_packument(
                &document(body.as_bytes(), &root(), None),
                PackageName::parse("x").unwrap(),
                true,
                &Meter::default(),
            )
        };
        assert_eq!(
            check(r#"{"name":"x","modified":"2020-01-01T00:00:00.000Z"}"#),
            Ok(())
        );
        for body in [
            r#"{"name":"y"}"#,
            r#"{"modified":"2020-01-01T00:00:00.000Z"}"#,
            r#"{"name":"x","versions":[]}"#,
            "{}",
            "<html>",
        ] {
            assert!(check(body).is_err(), "{body}");
        }
    }

    #[test]
    fn of_duplicate_keys_the_last_counts() {
        assert_eq!(
            packument(r#"{"name":"y","name":"x","versions":1,"versions":{}}"#, "x"),
            Ok(())
        );
        assert!(packument(r#"{"name":"x","name":"y","versions":{}}"#, "x").is_err());
        assert!(packument(r#"{"name":"x","versions":{},"versions":1}"#, "x").is_err());
        assert!(packument(r#"{"name":"x","time":{"unpublished":{}},"time":{}}"#, "x").is_err());
    }

    #[test]
    fn a_manifest_is_of_the_version_asked_for() {
        let body = r#"{"name":"x","version":"1.2.3"}"#;
        for asked in ["1.2.3", "1.2.3+build", "latest", "next"] {
            assert_eq!(manifest(body, asked), Ok(()), "{asked}");
        }
        assert!(manifest(body, "1.2.4").unwrap_err().contains("1.2.4"));
        assert!(
            manifest(r#"{"name":"x"}"#, "latest")
                .unwrap_err()
                .contains("version")
        );
    }

    #[test]
    fn hazard_w11_html_pages_and_broken_json_are_refused() {
        for body in [
            "<html><body>Please log in</body></html>",
            "",
            "[]",
            "{\"name\":\"x\",\"versions\":{}",
            "{\"name\":\"x\",\"versions\":{}}<!-- -->",
        ] {
            assert!(packument(body, "x").is_err(), "{body}");
            assert!(check_other(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(check_other(br#"{"keys":[]}"#), Ok(()));
    }
}
