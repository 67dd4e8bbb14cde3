//! Packages by the index that is held, and by the names of their files, `name-version-rN.apk`.

use super::{Alpine, apkindex, packages_adb, path};
use crate::format::browsed::{file_name, folder};
use crate::{Browsed, Document, Links, Malformed, PartOf, Releases};

impl Browsed for Alpine {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let (name, _) = split(path)?;
        Some(PartOf::Package {
            name: name.to_owned(),
            folder: folder(path),
        })
    }

    fn releases(
        &self,
        document: &Document<'_>,
        name: &str,
        links: &Links<'_>,
    ) -> Result<Option<Releases>, Malformed> {
        links.begin(document.body.len());
        let read = if path::is_v3_index(document.key_path) {
            packages_adb::releases
        } else {
            apkindex::releases
        };
        Ok(Some(Releases {
            tags: Vec::new(),
            releases: read(document, name, links)?,
        }))
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
    use larder_core::{PackageType, UnixMillis};
    use url::Url;

    use super::*;
    use crate::testing::{links, remote};

    /// What an index says of a package: version, path and time of each file.
    fn told(key_path: &str, body: &[u8], name: &str) -> Vec<(String, String, Option<i64>)> {
        let url = Url::parse("https://example.com/alpine/index").unwrap();
        let repository = remote("alpine", PackageType::Alpine, "https://example.com/alpine/");
        let document = crate::testing::document(body, &url, key_path);
        let told = Alpine.releases(&document, name, &links(&repository));
        let releases = told.unwrap().unwrap().releases.into_iter();
        let at = |at: UnixMillis| at.0;
        releases
            .map(|one| (one.version, one.path, one.published.map(at)))
            .collect()
    }

    /// As `apk index` writes it: a gzip member with a tar of the one file that counts.
    fn index(records: &str) -> Vec<u8> {
        use std::io::Write as _;
        let mut header = [0_u8; 512];
        header[..8].copy_from_slice(b"APKINDEX");
        header[124..135].copy_from_slice(format!("{:011o}", records.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut tar = [&header[..], records.as_bytes()].concat();
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&tar).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn an_index_tells_versions_and_when_they_were_built() {
        let records = "P:jam\nV:1.0-r0\nA:x86_64\nt:1600000000\n\n\
                       P:jam\nV:1.1-r2\nA:noarch\nt:1650000000\n\n\
                       P:jam\nV:1.2-r0\nA:x86_64\nt:soon\n\n\
                       P:jam\nV:1.3-r0\nA:x86_64\nt:0\n\n\
                       P:jam\nV:1.0-r0\nA:x86_64\nt:1600000000\n\n\
                       P:jam-doc\nV:1.0-r0\nA:x86_64\nt:1600000000\n\n";
        let body = index(records);
        let file =
            |version: &str, path: &str, at: Option<i64>| (version.to_owned(), path.to_owned(), at);
        // Where apk asks for them: those without an architecture in a folder of their own.
        assert_eq!(
            told("v3/main/x86_64/APKINDEX.tar.gz", &body, "jam"),
            [
                file(
                    "1.1-r2",
                    "v3/main/noarch/jam-1.1-r2.apk",
                    Some(1_650_000_000_000)
                ),
                file(
                    "1.0-r0",
                    "v3/main/x86_64/jam-1.0-r0.apk",
                    Some(1_600_000_000_000)
                ),
                file("1.2-r0", "v3/main/x86_64/jam-1.2-r0.apk", None),
                file("1.3-r0", "v3/main/x86_64/jam-1.3-r0.apk", None),
            ]
        );
        assert_eq!(told("v3/main/x86_64/APKINDEX.tar.gz", &body, "ja"), []);
        let beside = told("own/APKINDEX.tar.gz", &body, "jam-doc");
        assert_eq!(
            beside,
            [file(
                "1.0-r0",
                "own/jam-doc-1.0-r0.apk",
                Some(1_600_000_000_000)
            )]
        );
    }

    /// Of `apk mkpkg --info build-time:1600000000`, and of a package without one; as `apk adbdump` shows the index.
    #[test]
    fn an_index_of_version_3_tells_them_too() {
        let body = include_bytes!("testdata/v3/built.adb");
        let file = |version: &str, at| {
            let path = format!("v3/x86_64/jam-{version}.apk");
            (version.to_owned(), path, at)
        };
        assert_eq!(
            told("v3/x86_64/Packages.adb", body, "jam"),
            [
                file("1.0-r0", Some(1_600_000_000_000)),
                file("1.1-r0", None)
            ]
        );
        let elsewhere = include_bytes!("testdata/v3/absolute.adb");
        assert_eq!(told("v3/x86_64/Packages.adb", elsewhere, "plain"), []);
    }

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
