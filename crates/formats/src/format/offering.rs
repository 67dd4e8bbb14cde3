//! Where an upstream itself says what it offers.

/// Where an upstream's own lists of what it offers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offering {
    /// Nowhere. Why, as a clause.
    Nowhere(&'static str),
    /// There is a list for each of these things, and none was named ("a project").
    Unnamed(&'static str),
    /// Nothing of this kind ("a project") can have that name.
    Misnamed(&'static str),
    /// In the first of these documents that the upstream has.
    In(Vec<OfferingIndex>),
}

/// A document that says what is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferingIndex {
    /// Decoded path within the repository, as a client would ask for it.
    pub path: String,
    /// The `Accept` with which clients that want no more than this ask for it; `None`: none.
    pub accept: Option<&'static str>,
    /// Whether a name is that of its folder: where the upstream has none at the root, one has to be stated.
    pub in_folder: bool,
    /// Whether it is an index of everything, of which a name is that of one thing.
    pub is_of_all: bool,
}

impl Offering {
    /// One document, which is asked for without an `Accept`.
    pub(crate) fn at(path: impl Into<String>) -> Self {
        Self::In(vec![OfferingIndex {
            path: path.into(),
            accept: None,
            in_folder: false,
            is_of_all: false,
        }])
    }

    /// The first of these files in the folder with this name, or at the root; they are asked for without an `Accept`.
    pub(crate) fn in_folder(name: Option<&str>, files: &[&str]) -> Self {
        let folder = match name.unwrap_or_default().trim_matches('/') {
            "" => String::new(),
            name => format!("{name}/"),
        };
        let index = |file| OfferingIndex {
            path: format!("{folder}{file}"),
            accept: None,
            in_folder: true,
            is_of_all: false,
        };
        Self::In(files.iter().map(index).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_core::{PackageType, Repository};

    use super::*;
    use crate::format_of;
    use crate::testing::{read, remote};

    fn repository(package: PackageType) -> Repository {
        remote("all", package, "https://upstream.example/")
    }

    fn places(package: PackageType, name: Option<&str>) -> Vec<String> {
        let repository = repository(package);
        let format = format_of(package);
        let Offering::In(places) = format.offering(&repository, name) else {
            panic!("{package:?} has no index for {name:?}");
        };
        for place in &places {
            let document = read(format, &repository, &place.path, None);
            assert_eq!(document.source.key_path, place.path, "asked for as it is");
        }
        places.into_iter().map(|place| place.path).collect()
    }

    #[test]
    fn each_type_s_index_is_where_its_clients_ask_for_it() {
        use PackageType::{Alpine, Docker, Helm, Npm, Pypi, Rpm};
        for (package, name, expected) in [
            (
                Pypi,
                Some("Flask_SQL.Alchemy"),
                &["simple/flask-sql-alchemy/"][..],
            ),
            (Npm, Some("lodash"), &["lodash"]),
            (Npm, Some("@types/node"), &["@types/node"]),
            (Helm, None, &["index.yaml"]),
            (Rpm, None, &["repodata/repomd.xml"]),
            (Rpm, Some("/9/BaseOS/"), &["9/BaseOS/repodata/repomd.xml"]),
            (
                Alpine,
                Some("v3/main/x86_64"),
                &[
                    "v3/main/x86_64/APKINDEX.tar.gz",
                    "v3/main/x86_64/Packages.adb",
                ],
            ),
            (Alpine, None, &["APKINDEX.tar.gz", "Packages.adb"]),
            (Docker, Some("library/nginx"), &["library/nginx/tags/list"]),
        ] {
            assert_eq!(places(package, name), expected, "{package:?} {name:?}");
        }
    }

    #[test]
    fn a_name_is_needed_where_there_is_an_index_of_each() {
        use PackageType::{Docker, Generic, Npm, Pypi};
        let of =
            |package: PackageType, name| format_of(package).offering(&repository(package), name);
        for (package, what, none) in [
            (Pypi, "a project", ["a/b", "-a", ""]),
            (Npm, "a package", ["a/b/c", "-/ping", "@a"]),
            (Docker, "an image", ["A", "a//b", "a/../b"]),
        ] {
            assert_eq!(of(package, None), Offering::Unnamed(what));
            for name in none {
                assert_eq!(
                    of(package, Some(name)),
                    Offering::Misnamed(what),
                    "{package:?} {name:?}"
                );
            }
        }
        assert!(matches!(of(Generic, Some("a")), Offering::Nowhere(_)));
    }

    #[test]
    fn under_quarantine_the_packument_with_the_times_is_asked_for() {
        let mut repository = repository(PackageType::Npm);
        let accept = |repository: &Repository| match format_of(PackageType::Npm)
            .offering(repository, Some("lodash"))
        {
            Offering::In(places) => places[0].accept,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            accept(&repository),
            Some("application/vnd.npm.install-v1+json")
        );
        repository.quarantine.hold = Some(Duration::from_hours(24));
        assert_eq!(accept(&repository), None);
    }

    #[test]
    fn an_apk_index_offers_each_package_where_clients_ask_for_it() {
        let alpine = format_of(PackageType::Alpine);
        let offered = |index: &str, names: &[&str]| -> Vec<String> {
            let is_named = |path: &str| names.contains(&path);
            let is_offered = |path: &&&str| alpine.is_offered(index, path, &is_named);
            let offered = names.iter().filter(is_offered);
            offered.map(|path| (*path).to_owned()).collect()
        };
        let index = "v3/main/x86_64/APKINDEX.tar.gz";
        let (own, none) = ("v3/main/x86_64/a-1-r0.apk", "v3/main/noarch/n-1-r0.apk");
        let names = [own, none, "v3/main/x86_64/n-1-r0.apk"];
        assert_eq!(offered(index, &names), [own, none]);
        // By a rule of its own for names (`pkgname-spec`).
        let names = ["v3/pool/a.apk", "v3/x86_64/pool/a.apk"];
        assert_eq!(offered("v3/x86_64/Packages.adb", &names), [names[0]]);
        // In no architecture's folder: it is named by its own URL.
        let names = ["mine/x86_64/a-1-r0.apk", "mine/pool/a-1-r0.apk"];
        assert_eq!(offered("mine/pool/Packages.adb", &names), [names[1]]);
        assert_eq!(offered("APKINDEX.tar.gz", &["a-1-r0.apk"]), ["a-1-r0.apk"]);
    }
}
