//! Packages by the index that is held, and by the names of their files, `name-version-release.arch.rpm`.

use super::{Rpm, path, primary};
use crate::format::browsed::{file_name, folder};
use crate::{Browsed, Document, Links, Malformed, PartOf, Releases};

/// Folders that packages stand in below the root of their repository, as far as a path tells.
const BELOW: [&str; 3] = ["Packages", "RPMS", "rpms"];

impl Browsed for Rpm {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let (name, _) = split(path)?;
        Some(PartOf::Package {
            name: name.to_owned(),
            folder: root(path),
        })
    }

    fn releases(
        &self,
        document: &Document<'_>,
        name: &str,
        links: &Links<'_>,
    ) -> Result<Option<Releases>, Malformed> {
        // The master names documents only, of which this one names packages.
        if path::is_master(document.key_path) {
            return Ok(None);
        }
        Ok(Some(Releases {
            tags: Vec::new(),
            releases: primary::releases(document, links, name)?,
        }))
    }

    fn version_of<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        split(path)
            .filter(|(own, _)| *own == name)
            .map(|(_, version)| version)
    }
}

/// Name and version with release of a package's file.
fn split(path: &str) -> Option<(&str, &str)> {
    if !path::is_package(path) {
        return None;
    }
    let stem = file_name(path).strip_suffix(".rpm")?;
    let (stem, _) = stem.rsplit_once('.')?;
    let (before, _) = stem.rsplit_once('-')?;
    let (name, _) = before.rsplit_once('-')?;
    (!name.is_empty()).then_some((name, stem.get(name.len() + 1..)?))
}

/// The folder that is likely to be the root of the repository: above `Packages/` and the like, or else the file's own.
fn root(path: &str) -> Option<String> {
    let own = folder(path)?;
    let segments: Vec<&str> = own.split('/').collect();
    let at = segments.iter().rposition(|part| BELOW.contains(part));
    let root = match at {
        Some(at) => segments.get(..at).unwrap_or_default().join("/"),
        None => own,
    };
    (!root.is_empty()).then_some(root)
}

#[cfg(test)]
mod tests {
    use larder_core::{PackageType, UnixMillis};
    use url::Url;

    use super::*;
    use crate::Release;
    use crate::testing::{links, remote};

    #[test]
    fn files_tell_their_package_version_and_repository() {
        let path = "9/BaseOS/Packages/b/bash-completion-2.11-5.el9.noarch.rpm";
        assert_eq!(
            Rpm.part_of(path),
            Some(PartOf::Package {
                name: "bash-completion".to_owned(),
                folder: Some("9/BaseOS".to_owned())
            })
        );
        assert_eq!(Rpm.version_of(path, "bash-completion"), Some("2.11-5.el9"));
        assert_eq!(Rpm.version_of(path, "bash"), None);
        assert_eq!(
            Rpm.part_of("Packages/a-1-1.x86_64.rpm"),
            Some(PartOf::Package {
                name: "a".to_owned(),
                folder: None
            })
        );
        assert_eq!(Rpm.part_of("repodata/repomd.xml"), None);
    }

    /// Dates and versions as createrepo_c writes them; no file's name has to tell them.
    #[test]
    fn the_primary_tells_packages_versions_and_dates() {
        let body = br#"<metadata packages="3">
            <package type="rpm"><name>odd</name><version epoch="0" ver="1.0" rel="2"/><time file="1700000000" build="1600000000"/>
              <location href="getPackage/odd.rpm"/></package>
            <package type="rpm"><name>odd</name><version epoch="1" ver="0.9" rel="1.el9"/><location href="x86_64/odd-0.9-1.el9.x86_64.rpm"/></package>
            <package type="rpm"><name>other</name><version ver="3" rel="1"/><location href="x86_64/odd-3-1.x86_64.rpm"/></package>
          </metadata>"#;
        let url = Url::parse("https://mirror.example.com/os/repodata/primary.xml").unwrap();
        let repository = remote("rpms", PackageType::Rpm, "https://mirror.example.com/");
        let told = |key_path: &str, name: &str| {
            let document = crate::testing::document(body, &url, key_path);
            let told = Rpm.releases(&document, name, &links(&repository));
            told.unwrap().map(|told| told.releases)
        };
        let release = |version: &str, path: &str, at: Option<i64>| Release {
            version: version.to_owned(),
            path: path.to_owned(),
            published: at.map(UnixMillis),
            ..Release::default()
        };
        assert_eq!(
            told("os/repodata/primary.xml", "odd").unwrap(),
            [
                release("1.0-2", "os/getPackage/odd.rpm", Some(1_700_000_000_000)),
                release("1:0.9-1.el9", "os/x86_64/odd-0.9-1.el9.x86_64.rpm", None),
            ]
        );
        assert_eq!(told("os/repodata/primary.xml", "none").unwrap(), []);
        assert_eq!(told("os/repodata/repomd.xml", "odd"), None);
    }
}
