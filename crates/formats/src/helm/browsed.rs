//! The versions of a chart with what people are told of them: dates, and which are deprecated.

use super::scan::Span;
use super::{Helm, entries, is_index};
use crate::format::browsed::file_name;
use crate::{Browsed, Document, DocumentFormat as _, Malformed, Meter, PartOf, Release, Releases};

impl Browsed for Helm {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let name = *self.possible_names(path).first()?;
        file_name(path).strip_suffix(".tgz")?;
        Some(PartOf::Package {
            name: name.to_owned(),
            folder: None,
        })
    }

    fn releases(
        &self,
        document: &Document<'_>,
        name: &str,
        meter: &Meter,
    ) -> Result<Releases, Malformed> {
        let mut found = Releases::default();
        if !is_index(document.key_path) {
            return Ok(found);
        }
        let entries = entries::of(document.body)?;
        let text = |span: Option<Span>| {
            let (_, text) = span?.decode(&entries.text)?;
            Some(text.into_owned())
        };
        for entry in &entries.versions {
            meter.count()?;
            if text(entry.name).as_deref() != Some(name) {
                continue;
            }
            let Some(version) = text(entry.version) else {
                continue;
            };
            let lines = entries.text.get(entry.lines()).unwrap_or_default();
            let created = text(entry.created).and_then(|at| at.parse::<jiff::Timestamp>().ok());
            found.releases.push(Release {
                file: format!("{name}-{version}.tgz"),
                version,
                published: created.map(|at| larder_core::UnixMillis(at.as_millisecond())),
                yanked: None,
                deprecated: is_deprecated(lines, entry.column as usize + 2).then(String::new),
            });
        }
        Ok(found)
    }

    fn version_of<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        let version = file_name(path)
            .strip_suffix(".tgz")?
            .strip_prefix(name)?
            .strip_prefix('-')?;
        let first = version.strip_prefix('v').unwrap_or(version);
        first
            .starts_with(|c: char| c.is_ascii_digit())
            .then_some(version)
    }
}

/// Whether the lines of a version, whose keys stand in this column, say `deprecated: true`.
fn is_deprecated(lines: &str, column: usize) -> bool {
    lines.lines().any(|line| {
        let own = line.get(column..).unwrap_or_default();
        let is_key = line.bytes().take(column).all(|b| matches!(b, b' ' | b'-'));
        let value = own.strip_prefix("deprecated:").map(str::trim);
        is_key && value == Some("true")
    })
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn an_index_says_what_is_deprecated() {
        let body = br#"apiVersion: v1
entries:
  jam:
  - apiVersion: v2
    created: "2020-01-01T00:00:00Z"
    deprecated: true
    description: "deprecated: <b>"
    name: jam
    urls:
    - charts/jam-1.0.0.tgz
    version: 1.0.0
  - apiVersion: v2
    description: |
      deprecated: true
    name: jam
    urls:
    - charts/jam-2.0.0.tgz
    version: 2.0.0
  tea:
  - name: tea
    version: 1.0.0
    urls: [tea-1.0.0.tgz]
generated: "2020-01-01T00:00:00Z"
"#;
        let url = Url::parse("https://charts.example.com/index.yaml").unwrap();
        let document = Document {
            body,
            content_type: "text/yaml",
            url: &url,
            key_path: "index.yaml",
            variant: "",
            memo: None,
        };
        let found = Helm.releases(&document, "jam", &document.meter()).unwrap();
        let told: Vec<_> = found
            .releases
            .iter()
            .map(|release| (&*release.version, release.deprecated.is_some()))
            .collect();
        assert_eq!(told, [("1.0.0", true), ("2.0.0", false)]);
        assert_eq!(
            found.releases[0].published.map(|at| at.0),
            Some(1_577_836_800_000)
        );
    }

    #[test]
    fn files_tell_their_chart_and_version() {
        assert_eq!(
            Helm.part_of("charts/jam-pot-1.0.0.tgz"),
            Some(PartOf::Package {
                name: "jam-pot".to_owned(),
                folder: None
            })
        );
        assert_eq!(
            Helm.version_of("charts/jam-pot-1.0.0.tgz", "jam-pot"),
            Some("1.0.0")
        );
        assert_eq!(Helm.version_of("charts/jam-pot-1.0.0.tgz", "jam"), None);
        assert_eq!(Helm.part_of("index.yaml"), None);
    }
}
