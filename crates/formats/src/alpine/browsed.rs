//! Packages by the names of their files, `name-version-rN.apk`.

use super::{Alpine, path};
use crate::format::browsed::{file_name, folder};
use crate::{Browsed, PartOf};

impl Browsed for Alpine {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let (name, _) = split(path)?;
        Some(PartOf::Package {
            name: name.to_owned(),
            folder: folder(path),
        })
    }

    fn version_of<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        split(path)
            .filter(|(own, _)| *own == name)
            .map(|(_, version)| version)
    }
}

/// Name and version of a package's file.
fn split(path: &str) -> Option<(&str, &str)> {
    if !path::is_package(path) {
        return None;
    }
    let stem = file_name(path).strip_suffix(".apk")?;
    let (before, _) = stem.rsplit_once('-')?;
    let (name, _) = before.rsplit_once('-')?;
    let version = stem.get(name.len() + 1..)?;
    (!name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()))
        .then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tell_their_package_and_version() {
        let path = "v3.20/main/x86_64/lib-a-b-1.2.3_git2-r4.apk";
        assert_eq!(
            Alpine.part_of(path),
            Some(PartOf::Package {
                name: "lib-a-b".to_owned(),
                folder: Some("v3.20/main/x86_64".to_owned())
            })
        );
        assert_eq!(Alpine.version_of(path, "lib-a-b"), Some("1.2.3_git2-r4"));
        assert_eq!(Alpine.version_of(path, "lib-a"), None);
        assert_eq!(Alpine.part_of("v3.20/main/x86_64/APKINDEX.tar.gz"), None);
        assert_eq!(Alpine.part_of("x.apk"), None);
    }
}
