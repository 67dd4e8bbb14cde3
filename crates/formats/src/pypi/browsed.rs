//! The versions of a project with what people are told of them: dates, and which are yanked.

use super::Pypi;
use super::claims::instant;
use super::derive::{text_of, utf8};
use super::names;
use super::page::{Subject, Syntax, subject, syntax};
use super::{simple_html, simple_json};
use crate::format::browsed::file_name;
use crate::links::percent_decode;
use crate::{Browsed, Document, Malformed, Meter, PartOf, Release, Releases};

impl Browsed for Pypi {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let package = |name: String| PartOf::Package { name, folder: None };
        if let Ok(subject) = subject(path) {
            return match subject {
                Subject::Project(name) => Some(package(names::normalize(name))),
                Subject::List => None,
            };
        }
        let file = file_name(path);
        let project = names::project_of(names::subject_of(file).unwrap_or(file))?;
        Some(package(names::normalize(project)))
    }

    fn releases(
        &self,
        document: &Document<'_>,
        name: &str,
        meter: &Meter,
    ) -> Result<Releases, Malformed> {
        let mut found = Releases::default();
        let release = |url: &str, published, yanked: Option<&str>| {
            let plain = url.split(['?', '#']).next().unwrap_or_default();
            let file = percent_decode(file_name(plain))?;
            Some(Release {
                version: self.version_of(&file, name).unwrap_or_default().to_owned(),
                file,
                published,
                yanked: yanked.map(str::to_owned),
                deprecated: None,
            })
        };
        match syntax(document)? {
            Syntax::Json => {
                simple_json::read_project(utf8(document.body)?, meter, &mut |file| {
                    let published = file.upload_time.as_deref().and_then(instant);
                    let file = release(&file.url, published, file.yanked.as_deref());
                    found.releases.extend(file);
                })?;
            }
            Syntax::Html => {
                simple_html::read(&text_of(document), meter, &mut |anchor| {
                    let yanked = anchor.attribute("data-yanked");
                    found.releases.extend(release(&anchor.href, None, yanked));
                })?;
            }
        }
        Ok(found)
    }

    fn version_of<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        let file = file_name(path);
        let file = names::subject_of(file).unwrap_or(file);
        let (project, rest) = names::split_version(file)?;
        (names::normalize(project) == names::normalize(name)).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn releases(content_type: &str, body: &str) -> Vec<Release> {
        let url = Url::parse("https://index.example.com/simple/foo-bar/").unwrap();
        let document = Document {
            body: body.as_bytes(),
            content_type,
            url: &url,
            key_path: "simple/foo-bar/",
            variant: "",
            memo: None,
        };
        let found = Pypi.releases(&document, "foo-bar", &document.meter());
        found.unwrap().releases
    }

    #[test]
    fn pages_of_both_kinds_say_what_is_yanked() {
        let html = releases(
            "text/html",
            r#"<a href="../../foo_bar-1.0.tar.gz#sha256=00" data-yanked="bro&lt;ken">x</a><a href="foo%5Fbar-1.1-py3-none-any.whl">y</a>"#,
        );
        let json = releases(
            "application/vnd.pypi.simple.v1+json",
            r#"{"files":[{"filename":"foo_bar-1.0.tar.gz","url":"https://f.example.com/foo_bar-1.0.tar.gz","hashes":{},"yanked":"bro<ken",
                "upload-time":"2020-01-01T00:00:00.5Z"},
                {"filename":"foo_bar-1.1-py3-none-any.whl","url":"foo_bar-1.1-py3-none-any.whl","hashes":{},"yanked":false}]}"#,
        );
        for found in [&html, &json] {
            assert_eq!(found[0].yanked.as_deref(), Some("bro<ken"));
            assert_eq!(found[0].version, "1.0");
            assert_eq!(
                (found[1].file.as_str(), found[1].version.as_str()),
                ("foo_bar-1.1-py3-none-any.whl", "1.1")
            );
            assert_eq!(found[1].yanked, None);
        }
        assert_eq!(json[0].published.map(|at| at.0), Some(1_577_836_800_500));
    }

    #[test]
    fn paths_tell_their_project_and_version() {
        let name = |path| match Pypi.part_of(path) {
            Some(PartOf::Package { name, .. }) => Some(name),
            _ => None,
        };
        assert_eq!(name("simple/foo-bar/").as_deref(), Some("foo-bar"));
        assert_eq!(
            name("packages/a/Foo_Bar-1.0.tar.gz").as_deref(),
            Some("foo-bar")
        );
        assert_eq!(name("simple/"), None);
        for (path, version) in [
            (
                "p/torch-2.4.0+cu121-cp312-cp312-linux_x86_64.whl",
                "2.4.0+cu121",
            ),
            ("p/torch-1.0.tar.gz", "1.0"),
            ("p/torch-1.0-py3-none-any.whl.metadata", "1.0"),
        ] {
            assert_eq!(Pypi.version_of(path, "Torch"), Some(version), "{path}");
        }
        assert_eq!(Pypi.version_of("p/torch-1.0.tar.gz", "touch"), None);
    }
}
