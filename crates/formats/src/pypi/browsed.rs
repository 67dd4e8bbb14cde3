//! The versions of a project with what people are told of them: dates, and which are yanked.

use super::Pypi;
use super::derive::{target_of_anchor, target_of_file, text_of, utf8};
use super::names;
use super::page::{Subject, Syntax, subject, syntax};
use super::target::{Resolver, Target};
use super::{simple_html, simple_json};
use crate::format::browsed::file_name;
use crate::instant::instant;
use crate::links::percent_decode;
use crate::{Browsed, Document, Links, Malformed, PartOf, Release, Releases};

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
        _name: &str,
        links: &Links<'_>,
    ) -> Result<Option<Releases>, Malformed> {
        let Ok(Subject::Project(project)) = subject(document.key_path) else {
            return Ok(None);
        };
        links.begin(document.body.len());
        let mut found = Releases::default();
        let withholds_files = match syntax(document)? {
            Syntax::Json => {
                let resolver = Resolver::new(links, document.url, None);
                simple_json::read_project(utf8(document.body)?, links.meter(), &mut |file| {
                    let target = target_of_file(&file, project, &resolver);
                    let mut release = release(&file.url, target, project);
                    release.published = file.upload_time.as_deref().and_then(instant);
                    release.yanked = file.yanked.as_deref().map(str::to_owned);
                    keep(release, links, &mut found);
                })?
                .withholds_files()
            }
            Syntax::Html => {
                let html = text_of(document);
                let base = simple_html::base(&html)?;
                let resolver = Resolver::new(links, document.url, base.as_deref());
                let (head, _) = simple_html::read(&html, links.meter(), &mut |anchor| {
                    let target = target_of_anchor(&anchor, project, &resolver);
                    let mut release = release(&anchor.href, target, project);
                    release.yanked = anchor.attribute("data-yanked").map(str::to_owned);
                    keep(release, links, &mut found);
                })?;
                head.withholds_files()
            }
        };
        if withholds_files {
            found.releases.clear();
        }
        // A page has other links, too: to the list of all projects, to other projects' files.
        let is_file = |release: &Release| !(release.version.is_empty() && release.path.is_empty());
        found.releases.retain(is_file);
        links.end()?;
        Ok(Some(found))
    }
}

/// Takes a file in, if there is room for it.
fn keep(release: Release, links: &Links<'_>, found: &mut Releases) {
    if links.meter().hold(release.weight()) {
        found.releases.push(release);
    }
}

/// A file of a project by its link, and by where that leads.
fn release(url: &str, target: Option<Target<'_>>, project: &str) -> Release {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let file = percent_decode(file_name(plain)).unwrap_or_default();
    let path = target
        .filter(|target| names::may_belong_to(&target.file_name, project))
        .and_then(|target| percent_decode(&target.path));
    Release {
        version: version_of(&file, project).unwrap_or_default().to_owned(),
        path: path.unwrap_or_default(),
        ..Release::default()
    }
}

/// The version that a file or sidecar of the project `name` is, by its own name.
fn version_of<'p>(file: &'p str, name: &str) -> Option<&'p str> {
    names::version_of(names::subject_of(file).unwrap_or(file), name)
}

#[cfg(test)]
mod tests {
    use larder_core::PackageType;
    use url::Url;

    use super::*;
    use crate::testing::{links, remote};

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
        let repository = remote("all", PackageType::Pypi, "https://index.example.com/");
        let found = Pypi.releases(&document, "foo-bar", &links(&repository));
        found.unwrap().unwrap().releases
    }

    #[test]
    fn pages_of_both_kinds_say_what_is_yanked() {
        let html = releases(
            "text/html",
            r#"<a href="../../foo_bar-1.0.tar.gz#sha256=00" data-yanked="bro&lt;ken">x</a><a href="/">home</a><a href="other-1.0.tar.gz">z</a><a href="foo%5Fbar-1.1-py3-none-any.whl">y</a>"#,
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
                (found[1].path.as_str(), found[1].version.as_str()),
                ("simple/foo-bar/foo_bar-1.1-py3-none-any.whl", "1.1")
            );
            assert_eq!(found.len(), 2);
            assert_eq!(found[1].yanked, None);
        }
        assert_eq!(json[0].published.map(|at| at.0), Some(1_577_836_800_500));
    }

    #[test]
    fn a_quarantined_project_has_no_releases() {
        let html = r#"<meta name="pypi:project-status" content="quarantined"><a href="foo_bar-1.0.tar.gz">x</a>"#;
        let json = r#"{"files":[{"filename":"foo_bar-1.0.tar.gz","url":"foo_bar-1.0.tar.gz","hashes":{}}],"project-status":{"status":"quarantined"}}"#;
        assert!(releases("text/html", html).is_empty());
        assert!(releases("application/vnd.pypi.simple.v1+json", json).is_empty());
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
            ("p/torch-1.2.3-45.tar.gz.asc", "1.2.3-45"),
        ] {
            assert_eq!(
                version_of(file_name(path), "Torch"),
                Some(version),
                "{path}"
            );
        }
        assert_eq!(version_of("torch-1.0.tar.gz", "touch"), None);
    }
}
