//! The versions of a package with what people are told of them: tags, dates, deprecations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Npm;
use super::name::PackageName;
use super::path::Route;
use crate::instant::instant;
use crate::{Browsed, Document, Links, Malformed, PartOf, Release, Releases};

#[derive(Deserialize)]
struct Packument<'d> {
    #[serde(borrow, default, rename = "dist-tags")]
    tags: Option<BTreeMap<Cow<'d, str>, &'d RawValue>>,
    #[serde(borrow, default)]
    versions: Option<BTreeMap<Cow<'d, str>, &'d RawValue>>,
    #[serde(borrow, default)]
    time: Option<BTreeMap<Cow<'d, str>, &'d RawValue>>,
}

#[derive(Deserialize)]
struct Version<'d> {
    #[serde(borrow, default)]
    deprecated: Option<&'d RawValue>,
}

/// The text of a value, if it is one.
fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Registries write a text, and some `true`; an empty text takes a deprecation back.
fn deprecation(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "true" => Some(String::new()),
        _ => text(raw).filter(|text| !text.is_empty()),
    }
}

impl Browsed for Npm {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let (Route::Packument(name)
        | Route::Manifest(name, _)
        | Route::Tarball(name, _)
        | Route::DistTags(name)) = Route::parse(path).ok()?
        else {
            return None;
        };
        Some(PartOf::Package {
            name: name.as_str().to_owned(),
            folder: None,
        })
    }

    fn releases(
        &self,
        document: &Document<'_>,
        _name: &str,
        links: &Links<'_>,
    ) -> Result<Option<Releases>, Malformed> {
        let Ok(Route::Packument(package)) = Route::parse(document.key_path) else {
            return Ok(None);
        };
        let meter = links.meter();
        links.begin(document.body.len());
        let read: Packument<'_> = serde_json::from_slice(document.body)
            .map_err(|error| Malformed(format!("the packument cannot be read: {error}")))?;
        let mut found = Releases::default();
        for (tag, version) in read.tags.into_iter().flatten() {
            meter.count()?;
            if let Some(version) = text(version) {
                meter.keep(size_of::<(String, String)>() + tag.len() + version.len())?;
                found.tags.push((tag.into_owned(), version));
            }
        }
        let times = read.time.unwrap_or_default();
        for (version, raw) in read.versions.into_iter().flatten() {
            meter.count()?;
            let release = release(package, &version, raw, &times);
            meter.keep(release.weight())?;
            found.releases.push(release);
        }
        Ok(Some(found))
    }
}

fn release(
    package: PackageName<'_>,
    version: &str,
    raw: &RawValue,
    times: &BTreeMap<Cow<'_, str>, &RawValue>,
) -> Release {
    let read: Option<Version<'_>> = serde_json::from_str(raw.get()).ok();
    Release {
        version: version.to_owned(),
        // Wherever its link leads, this is where larder has it.
        path: package.tarball(version),
        published: times
            .get(version)
            .and_then(|raw| text(raw))
            .and_then(|time| instant(&time)),
        yanked: None,
        deprecated: read.and_then(|read| read.deprecated.and_then(deprecation)),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::fixture::{links, remote};
    use super::*;

    #[test]
    fn a_packument_has_tags_dates_and_deprecations() {
        let body = br#"{"name":"n","dist-tags":{"latest":"2.0.0","odd":7},
            "versions":{"1.0.0":{"deprecated":"use 2","dist":{"tarball":"https://r.example.com/download/n/1.0.0/0123abcd"}},
                        "1.1.0":{"deprecated":true},"1.2.0":{"deprecated":""},"2.0.0":7},
            "time":{"1.0.0":"2020-01-01T00:00:00.000Z","modified":"2021-01-01T00:00:00.000Z","1.1.0":3}}"#;
        let url = Url::parse("https://r.example.com/n").unwrap();
        let document = Document {
            body,
            content_type: "application/json",
            url: &url,
            key_path: "n",
            variant: "",
            memo: None,
        };
        let repository = remote("https://r.example.com/");
        let found = Npm.releases(&document, "n", &links(&repository));
        let found = found.unwrap().unwrap();
        assert_eq!(found.tags, [("latest".to_owned(), "2.0.0".to_owned())]);
        let deprecated: Vec<_> = found
            .releases
            .iter()
            .map(|release| release.deprecated.as_deref())
            .collect();
        assert_eq!(deprecated, [Some("use 2"), Some(""), None, None]);
        assert_eq!(found.releases[0].path, "n/-/n-1.0.0.tgz");
        // date -u -d 2020-01-01 +%s
        assert_eq!(
            found.releases[0].published.map(|at| at.0),
            Some(1_577_836_800_000)
        );
        assert_eq!(found.releases[1].published, None);
    }

    #[test]
    fn paths_tell_their_package() {
        let name = |path| match Npm.part_of(path) {
            Some(PartOf::Package { name, .. }) => Some(name),
            _ => None,
        };
        assert_eq!(name("@a/b/-/b-1.0.0.tgz").as_deref(), Some("@a/b"));
        assert_eq!(name("n").as_deref(), Some("n"));
        assert_eq!(name("-/ping"), None);
    }
}
