//! Where the tarballs of a packument stand, as its check has found them: what is derived from the same bytes need not read all of
//! them again.

use super::document::Sink;
use super::json::{Spelling, Text};
use crate::{Malformed, Meter};

/// The most tarballs that are remembered of one packument. A document with more of them is read again.
const MOST: usize = 64 << 10;

/// The tarballs of one packument, in the order of the document, each as often as it is there.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: Vec<Place>,
    /// Some did not fit in.
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    version: Spelling,
    url: Spelling,
}

impl Places {
    /// The tarball of a version.
    pub(super) fn put(&mut self, version: Text<'_>, url: Text<'_>) {
        match (version.spelling(), url.spelling()) {
            (Some(version), Some(url)) if self.all.len() < MOST => {
                self.all.push(Place { version, url });
            }
            _ => self.is_cut = true,
        }
    }

    /// All of them; `None` if there were too many.
    pub(super) fn complete(mut self) -> Option<Self> {
        self.all.shrink_to_fit();
        (!self.is_cut).then_some(self)
    }

    /// Tells `sink` of the tarballs of `body`, the document that they were found in.
    ///
    /// # Errors
    /// There are more than may be read, or they are not of this document.
    pub(super) fn tell<'a>(
        &self,
        body: &'a [u8],
        meter: &Meter,
        sink: &mut impl Sink<'a>,
    ) -> Result<(), Malformed> {
        for place in &self.all {
            meter.count()?;
            let (Some(version), url @ Some(_)) = (place.version.of(body), place.url.of(body))
            else {
                return Err(Malformed(
                    "it is not the document that was checked".to_owned(),
                ));
            };
            sink.version(version);
            sink.tarball(url);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::read_packument;
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Told(Vec<(String, Option<String>)>);

    impl<'a> Sink<'a> for Told {
        fn version(&mut self, key: Text<'a>) {
            self.0.push((key.value().unwrap().into_owned(), None));
        }
        fn tarball(&mut self, url: Option<Text<'a>>) {
            let value = url.map(|url| url.value().unwrap().into_owned());
            match self.0.last_mut() {
                Some((_, known @ None)) => *known = value,
                _ => panic!("a tarball of no version"),
            }
        }
    }

    struct Finding<'a>(Option<Text<'a>>, Places);

    impl<'a> Sink<'a> for Finding<'a> {
        fn version(&mut self, key: Text<'a>) {
            self.0 = Some(key);
        }
        fn tarball(&mut self, url: Option<Text<'a>>) {
            self.1.put(self.0.unwrap(), url.unwrap());
        }
    }

    fn find(body: &str) -> Option<Places> {
        let mut finding = Finding(None, Places::default());
        read_packument(body.as_bytes(), &Meter::default(), &mut finding).unwrap();
        finding.1.complete()
    }

    #[test]
    fn they_are_told_as_the_document_tells_them() {
        let body = r#"{"versions":{"1.0.0":{"dist":{"tarball":"https:\/\/a\/\u0062"}},"2\u002e0.0":{"dist":{"tarball":"c"}}}}"#;
        let (mut read, mut told) = (Told::default(), Told::default());
        read_packument(body.as_bytes(), &Meter::default(), &mut read).unwrap();
        let places = find(body).unwrap();
        places
            .tell(body.as_bytes(), &Meter::default(), &mut told)
            .unwrap();
        assert_eq!(told, read);
        assert_eq!(
            told.0[0],
            ("1.0.0".to_owned(), Some("https://a/b".to_owned()))
        );
        assert_eq!(told.0[1].0, "2.0.0");
    }

    #[test]
    fn those_of_another_document_are_refused() {
        let places = find(r#"{"versions":{"1.0.0":{"dist":{"tarball":"c"}}}}"#).unwrap();
        let told = places.tell(b"{}", &Meter::default(), &mut Told::default());
        assert!(told.is_err());
    }

    #[test]
    fn too_many_are_not_remembered() {
        let body = |count: usize| {
            let all = vec![r#""tarball":"c""#; count].join(",");
            format!(r#"{{"versions":{{"1.0.0":{{"dist":{{{all}}}}}}}}}"#)
        };
        assert!(find(&body(MOST)).is_some());
        assert!(find(&body(MOST + 1)).is_none());
    }
}
