//! Where things stand in a packument and in a single version's manifest: one pass over the bytes, used by everything that
//! reads them.

use super::json::{Scanner, Text};
use crate::{Malformed, Meter};

/// Is told what a packument holds, in the order of the document. A key that is there twice is told twice: the last one
/// counts, as it does for `JSON.parse`.
pub(super) trait Sink<'a> {
    /// Top-level `name`; `None` if it is no string.
    fn name(&mut self, _name: Option<Text<'a>>) {}
    /// Top-level `version`, of a manifest only.
    fn version_text(&mut self, _version: Option<Text<'a>>) {}
    /// `versions` begins; its value is an object or something else.
    fn versions(&mut self, _is_object: bool) {}
    /// A key of `versions`; its `dist` follows, if it has one.
    fn version(&mut self, _key: Text<'a>) {}
    /// `dist` of the version (or manifest) begins: what was told of an earlier one does not count.
    fn dist(&mut self) {}
    /// `dist.tarball`; `None` if it is no string.
    fn tarball(&mut self, _url: Option<Text<'a>>) {}
    /// `dist.integrity`.
    fn integrity(&mut self, _sri: Option<Text<'a>>) {}
    /// `dist.shasum`.
    fn shasum(&mut self, _hex: Option<Text<'a>>) {}
    /// `time` begins.
    fn time(&mut self) {}
    /// An entry of `time`; `None` if it is no string.
    fn time_of(&mut self, _key: Text<'a>, _time: Option<Text<'a>>) {}
}

/// Reads a packument, full or abbreviated. Refuses what is not one well-formed JSON object.
pub(super) fn read_packument<'a, S: Sink<'a>>(
    body: &'a [u8],
    meter: &Meter,
    sink: &mut S,
) -> Result<(), Malformed> {
    read_object(body, |scanner, key| {
        if key.is("versions") {
            let is_object = scanner.peek() == Some(b'{');
            sink.versions(is_object);
            object_or_skip(scanner, |scanner, key| {
                meter.count()?;
                sink.version(key);
                object_or_skip(scanner, |scanner, key| read_dist(scanner, key, sink))
            })
        } else if key.is("time") {
            sink.time();
            object_or_skip(scanner, |scanner, key| {
                meter.count()?;
                sink.time_of(key, scanner.string_or_skip()?);
                Ok(())
            })
        } else if key.is("name") {
            sink.name(scanner.string_or_skip()?);
            Ok(())
        } else if key.is("dist-tags") {
            object_or_skip(scanner, |scanner, _| {
                meter.count()?;
                scanner.skip()
            })
        } else {
            scanner.skip()
        }
    })
}

/// Reads the manifest of one version.
pub(super) fn read_manifest<'a, S: Sink<'a>>(
    body: &'a [u8],
    sink: &mut S,
) -> Result<(), Malformed> {
    read_object(body, |scanner, key| {
        if key.is("name") {
            sink.name(scanner.string_or_skip()?);
        } else if key.is("version") {
            sink.version_text(scanner.string_or_skip()?);
        } else {
            read_dist(scanner, key, sink)?;
        }
        Ok(())
    })
}

/// Reads any JSON object, for its form only.
pub(super) fn read_any(body: &[u8]) -> Result<(), Malformed> {
    read_object(body, |scanner, _| scanner.skip())
}

fn read_object<'a>(
    body: &'a [u8],
    member: impl FnMut(&mut Scanner<'a>, Text<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut scanner = Scanner::new(body)?;
    match scanner.peek() {
        Some(b'{') => {}
        Some(b'<') => {
            return Err(Malformed(
                "it is HTML or XML, perhaps a login or error page, where JSON should be".to_owned(),
            ));
        }
        Some(_) => return Err(Malformed("it does not begin with a JSON object".to_owned())),
        None => return Err(Malformed("it is empty".to_owned())),
    }
    scanner.object(member)?;
    scanner.finish()
}

fn object_or_skip<'a>(
    scanner: &mut Scanner<'a>,
    member: impl FnMut(&mut Scanner<'a>, Text<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    if scanner.peek() == Some(b'{') {
        scanner.object(member)
    } else {
        scanner.skip()
    }
}

/// Reads a member of a version; only `dist` is of interest.
fn read_dist<'a, S: Sink<'a>>(
    scanner: &mut Scanner<'a>,
    key: Text<'a>,
    sink: &mut S,
) -> Result<(), Malformed> {
    if !key.is("dist") {
        return scanner.skip();
    }
    sink.dist();
    object_or_skip(scanner, |scanner, key| {
        if key.is("tarball") {
            sink.tarball(scanner.string_or_skip()?);
        } else if key.is("integrity") {
            sink.integrity(scanner.string_or_skip()?);
        } else if key.is("shasum") {
            sink.shasum(scanner.string_or_skip()?);
        } else {
            scanner.skip()?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down everything it is told.
    #[derive(Default)]
    struct Log(Vec<String>);

    impl Log {
        fn put(&mut self, what: &str, text: Option<Text<'_>>) {
            self.0.push(format!(
                "{what} {}",
                text.and_then(|t| t.value().map(String::from))
                    .unwrap_or("-".to_owned())
            ));
        }
    }

    impl<'a> Sink<'a> for Log {
        fn name(&mut self, name: Option<Text<'a>>) {
            self.put("name", name);
        }
        fn version_text(&mut self, version: Option<Text<'a>>) {
            self.put("version_text", version);
        }
        fn versions(&mut self, is_object: bool) {
            self.0.push(format!("versions {is_object}"));
        }
        fn version(&mut self, key: Text<'a>) {
            self.put("version", Some(key));
        }
        fn dist(&mut self) {
            self.0.push("dist".to_owned());
        }
        fn tarball(&mut self, url: Option<Text<'a>>) {
            self.put("tarball", url);
        }
        fn integrity(&mut self, sri: Option<Text<'a>>) {
            self.put("integrity", sri);
        }
        fn shasum(&mut self, hex: Option<Text<'a>>) {
            self.put("shasum", hex);
        }
        fn time(&mut self) {
            self.0.push("time".to_owned());
        }
        fn time_of(&mut self, key: Text<'a>, time: Option<Text<'a>>) {
            self.put(&format!("time_of {}", key.value().unwrap()), time);
        }
    }

    fn packument(text: &str) -> Vec<String> {
        let mut log = Log::default();
        read_packument(text.as_bytes(), &Meter::default(), &mut log).unwrap();
        log.0
    }

    #[test]
    fn only_the_documents_own_versions_are_read() {
        let text = r#"{"name":"x","nested":{"versions":{"9.9.9":{"dist":{"tarball":"no"}}}},"dist":{"tarball":"no"},
            "versions":{"1.0.0":{"versions":{"2.0.0":{"dist":{"tarball":"no"}}},"deep":{"dist":{"tarball":"no"}},
            "dist":{"dist":{"tarball":"no"},"signatures":[{"tarball":"no"}],"tarball":"yes","shasum":"s","integrity":"i"}}},
            "time":{"1.0.0":"t","unpublished":{"name":"x"}}}"#;
        let expected = [
            "name x",
            "versions true",
            "version 1.0.0",
            "dist",
            "tarball yes",
            "shasum s",
            "integrity i",
            "time",
            "time_of 1.0.0 t",
            "time_of unpublished -",
        ];
        assert_eq!(packument(text), expected);
    }

    #[test]
    fn keys_are_compared_by_value() {
        let text = r#"{"versio\u006es":{"1.0.0":{"\u0064ist":{"tarb\u0061ll":"yes"}}}}"#;
        assert_eq!(
            packument(text),
            ["versions true", "version 1.0.0", "dist", "tarball yes"]
        );
    }

    #[test]
    fn values_of_an_unexpected_type_are_told_as_such() {
        assert_eq!(
            packument(r#"{"name":1,"versions":[{"dist":{"tarball":"no"}}],"time":null}"#),
            ["name -", "versions false", "time"]
        );
        assert_eq!(
            packument(
                r#"{"versions":{"1.0.0":null,"2.0.0":{"dist":"x"},"3.0.0":{"dist":{"tarball":["x"]}}}}"#
            ),
            [
                "versions true",
                "version 1.0.0",
                "version 2.0.0",
                "dist",
                "version 3.0.0",
                "dist",
                "tarball -"
            ]
        );
    }

    #[test]
    fn a_manifest_has_its_dist_at_the_top() {
        let mut log = Log::default();
        let text = r#"{"name":"x","version":"1.0.0","versions":{"2.0.0":{"dist":{"tarball":"no"}}},"dist":{"tarball":"yes"}}"#;
        read_manifest(text.as_bytes(), &mut log).unwrap();
        assert_eq!(
            log.0,
            ["name x", "version_text 1.0.0", "dist", "tarball yes"]
        );
    }

    #[test]
    fn hazard_r3_key_counts_are_bounded() {
        let most = 1000;
        let budget = crate::Budget {
            entries: most,
            ..crate::Budget::default()
        };
        for key in ["versions", "time", "dist-tags"] {
            let read = |keys: usize| {
                let text = format!("{{\"{key}\":{{{}}}}}", vec!["\"\":0"; keys].join(","));
                let meter = Meter::new(budget, text.len());
                read_packument(text.as_bytes(), &meter, &mut Log::default())
            };
            assert_eq!(read(most), Ok(()));
            assert_eq!(
                read(most + 1).unwrap_err().0,
                "it has more than 1000 entries"
            );
        }
    }

    #[test]
    fn documents_that_are_no_json_object_are_named() {
        for (text, part) in [
            ("", "empty"),
            (" \n", "empty"),
            ("<!DOCTYPE html>", "HTML"),
            ("[]", "begin"),
            ("null", "begin"),
            ("not json", "begin"),
            ("{}{}", "end of the document"),
            ("{\"a\":1", "byte 6"),
        ] {
            let error = read_any(text.as_bytes()).unwrap_err();
            assert!(error.0.contains(part), "{text}: {error}");
        }
    }
}
