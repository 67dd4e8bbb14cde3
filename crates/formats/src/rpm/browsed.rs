//! Packages by the names of their files, `name-version-release.arch.rpm`.

use super::{Rpm, path};
use crate::format::browsed::{file_name, folder};
use crate::{Browsed, PartOf};

/// Folders that packages stand in below the root of their repository.
const BELOW: [&str; 3] = ["Packages", "RPMS", "rpms"];

impl Browsed for Rpm {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let (name, _) = split(path)?;
        Some(PartOf::Package {
            name: name.to_owned(),
            folder: root(path),
        })
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
    use super::*;

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
}
