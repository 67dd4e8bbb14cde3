//! The versions of a chart with what people are told of them: dates, and which are deprecated.

use super::entries;
use super::rewrite::{Resolver, instant};
use super::scan::Span;
use super::versions::{Edit, Entries, Entry};
use super::{Helm, is_index};
use crate::{Browsed, Document, DocumentFormat as _, Links, Malformed, PartOf, Release, Releases};

impl Browsed for Helm {
    /// By the file's name.
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let name = self
            .likely_name(path)
            .filter(|_| path.strip_suffix(".tgz").is_some())?;
        Some(PartOf::Package {
            name: name.to_owned(),
            folder: None,
        })
    }

    fn releases(
        &self,
        document: &Document<'_>,
        name: &str,
        links: &Links<'_>,
    ) -> Result<Option<Releases>, Malformed> {
        if !is_index(document.key_path) {
            return Ok(None);
        }
        let resolver = Resolver::new(document, links);
        let entries = entries::of(document.body)?;
        let mut found = Releases::default();
        for (number, entry) in entries.versions.iter().enumerate() {
            links.meter().count()?;
            if text(&entries, entry.name).as_deref() == Some(name) {
                let edits = entries.edits_of(number);
                for release in files(&entries, entry, edits, &resolver) {
                    links.meter().keep(release.weight())?;
                    found.releases.push(release);
                }
            }
        }
        links.end()?;
        Ok(Some(found))
    }
}

fn text(entries: &Entries<'_>, span: Option<Span>) -> Option<String> {
    let (_, text) = span?.decode(&entries.text)?;
    Some(text.into_owned())
}

/// The files of one version: what its links lead to, as far as larder carries them.
fn files(
    entries: &Entries<'_>,
    entry: &Entry,
    edits: &[Edit],
    resolver: &Resolver<'_>,
) -> Vec<Release> {
    let Some(version) = text(entries, entry.version) else {
        return Vec::new();
    };
    let release = |path| Release {
        version: version.clone(),
        path,
        published: text(entries, entry.created).and_then(|at| instant(&at)),
        yanked: None,
        deprecated: entry.is_deprecated.then(String::new),
    };
    let files: Vec<Release> = edits
        .iter()
        .filter(|edit| edit.is_link)
        .filter_map(|edit| resolver.url_and_key(&text(entries, Some(edit.span()))?))
        .map(|(_, path)| release(path))
        .collect();
    if files.is_empty() {
        return vec![release(String::new())];
    }
    files
}

#[cfg(test)]
mod tests {
    use larder_core::PackageType;
    use url::Url;

    use super::*;
    use crate::format::browsed::file_name;
    use crate::testing::{links, remote};

    fn releases(body: &str, name: &str) -> Vec<Release> {
        let repository = remote("all", PackageType::Helm, "https://charts.example.com/");
        let url = Url::parse("https://charts.example.com/index.yaml").unwrap();
        let document = Document {
            body: body.as_bytes(),
            content_type: "text/yaml",
            url: &url,
            key_path: "index.yaml",
            variant: "",
            memo: None,
        };
        let found = Helm.releases(&document, name, &links(&repository));
        found.unwrap().unwrap().releases
    }

    #[test]
    fn an_index_says_what_is_deprecated() {
        let body = r#"apiVersion: v1
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
        let found = releases(body, "jam");
        let told: Vec<_> = found
            .iter()
            .map(|release| (&*release.version, release.deprecated.is_some()))
            .collect();
        assert_eq!(told, [("1.0.0", true), ("2.0.0", false)]);
        assert_eq!(found[0].published.map(|at| at.0), Some(1_577_836_800_000));
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
        for (path, chart) in [
            ("kube-1password-1.0.0.tgz", "kube-1password"),
            ("jam-v1.0.0-2024.tgz", "jam"),
            ("jam-20240102.tgz", "jam"),
        ] {
            let Some(PartOf::Package { name, .. }) = Helm.part_of(path) else {
                panic!("{path} is of no chart");
            };
            assert_eq!(name, chart, "{path}");
        }
        assert_eq!(Helm.part_of("index.yaml"), None);
    }

    /// Whatever its files are called.
    #[test]
    fn a_version_has_the_files_that_its_links_lead_to() {
        let body = "apiVersion: v1
entries:
  kube:
  - {name: kube, version: v1.0.0, urls: [rel/v1/chart.tgz, 'https://cdn.example.net/kube%2B.tgz']}
  -   version: 0.9.0+b
      name: kube
      deprecated: yes
      urls: ['oci://charts.example.com/kube']
  kube-1password:
  - {name: kube-1password, version: 1.0.0, urls: [kube-1password-1.0.0.tgz]}
";
        let found = releases(body, "kube");
        let told: Vec<(&str, &str)> = found
            .iter()
            .map(|release| (&*release.version, file_name(&release.path)))
            .collect();
        assert_eq!(
            told,
            [
                ("v1.0.0", "chart.tgz"),
                ("v1.0.0", "kube+.tgz"),
                ("0.9.0+b", "")
            ]
        );
        assert_eq!(found[0].path, "rel/v1/chart.tgz");
        assert!(found[2].deprecated.is_some() && found[0].deprecated.is_none());
        assert!(found[1].path.starts_with("_ext/"), "{}", found[1].path);
        assert_eq!(releases(body, "kube-1"), []);
    }
}
