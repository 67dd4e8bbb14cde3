//! The paths of an Alpine mirror. All are decoded; names are case-sensitive.

/// An index of apk 2 and later: a signed tar archive.
const INDEX: &str = "APKINDEX.tar.gz";
/// An index of apk 3: a signed database.
const INDEX_V3: &str = "Packages.adb";
/// Unsigned helpers at a mirror's root that change in place.
const HELPERS: &[&str] = &["last-updated", "MIRRORS.txt", "latest-releases.yaml"];

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path is an index, of either version.
pub(super) fn is_index(path: &str) -> bool {
    matches!(file_name(path), INDEX | INDEX_V3)
}

/// Whether a path is an index of apk 3.
pub(super) fn is_v3_index(path: &str) -> bool {
    file_name(path) == INDEX_V3
}

/// Whether a path changes in place: the contract's `APKINDEX\.tar\.gz$` and `Packages\.adb$`, unanchored at their start, and the helpers.
pub(super) fn changes(path: &str) -> bool {
    path.ends_with(INDEX) || path.ends_with(INDEX_V3) || HELPERS.contains(&file_name(path))
}

/// Whether a path is a package.
pub(super) fn is_package(path: &str) -> bool {
    file_name(path).strip_suffix(".apk").is_some_and(|stem| !stem.is_empty())
}

/// The index that names a package: the one in its folder. Which version the repository has cannot be told from a path; that of apk 3
/// names packages by other means, so only the other is of use.
pub(super) fn index_of(path: &str) -> Option<String> {
    is_package(path).then(|| beside(path, INDEX))
}

/// The path of the file `name` in the folder of `path`.
pub(super) fn beside(path: &str, name: &str) -> String {
    let folder = path.rfind('/').map_or("", |slash| &path[..=slash]);
    format!("{folder}{name}")
}
