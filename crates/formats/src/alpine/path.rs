//! The paths of an Alpine mirror. All are decoded; names are case-sensitive.

/// An index of apk 2 and later: a signed tar archive.
pub(super) const INDEX: &str = "APKINDEX.tar.gz";
/// An index of apk 3: a signed database.
pub(super) const INDEX_V3: &str = "Packages.adb";
/// Unsigned helpers at a mirror's root that change in place.
const HELPERS: &[&str] = &["last-updated", "MIRRORS.txt", "latest-releases.yaml"];
/// What Alpine is built for: folders whose indexes may name packages without an architecture.
const ARCHITECTURES: [&str; 9] = [
    "x86_64",
    "aarch64",
    "armv7",
    "armhf",
    "x86",
    "ppc64le",
    "s390x",
    "riscv64",
    "loongarch64",
];
/// The folder of packages that are for all of them.
const NO_ARCHITECTURE: &str = "noarch";
/// Folders above a package in which an index of apk 3 is looked for.
const MAX_FOLDERS: usize = 3;

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
    file_name(path)
        .strip_suffix(".apk")
        .is_some_and(|stem| !stem.is_empty())
}

/// The index that names a package, if none is held: the one of version 2 in its folder.
pub(super) fn index_of(path: &str) -> Option<String> {
    is_package(path).then(|| beside(path, INDEX))
}

/// The index that names it where there is none of version 2.
pub(super) fn v3_index_of(path: &str) -> Option<String> {
    is_package(path).then(|| beside(path, INDEX_V3))
}

/// All indexes that may name a package, the likeliest first. Which version a repository has cannot be told from a path; packages
/// without an architecture are named by the indexes of any; and an index of apk 3 may put its packages into folders of its own.
pub(super) fn indexes_of(path: &str) -> Vec<String> {
    if !is_package(path) {
        return Vec::new();
    }
    let mut all = vec![beside(path, INDEX), beside(path, INDEX_V3)];
    if let Some(repository) = above(path).filter(|above| path[above.len()..].starts_with("noarch/"))
    {
        let folders = ARCHITECTURES
            .iter()
            .flat_map(|arch| [INDEX, INDEX_V3].map(|index| format!("{repository}{arch}/{index}")));
        all.extend(folders);
    }
    let mut folder = path;
    for _ in 0..MAX_FOLDERS {
        let Some(next) = above(folder) else { break };
        all.push(format!("{next}{INDEX_V3}"));
        folder = &path[..next.len()];
    }
    all
}

/// The folder above the one that a file stands in, with its slash; `None` if there is none.
pub(super) fn above(path: &str) -> Option<&str> {
    let (folder, _) = path.rsplit_once('/')?;
    Some(folder.rfind('/').map_or("", |slash| &folder[..=slash]))
}

/// The root of the repository of which this is the folder of an architecture, if it is one; both with their slashes.
pub(super) fn root_above(folder: &str) -> Option<&str> {
    let within = folder.strip_suffix('/')?;
    let name = file_name(within);
    let is_known = name == NO_ARCHITECTURE || ARCHITECTURES.contains(&name);
    is_known.then(|| &within[..within.len() - name.len()])
}

/// The path of the file `name` in the folder of `path`.
pub(super) fn beside(path: &str, name: &str) -> String {
    let folder = path.rfind('/').map_or("", |slash| &path[..=slash]);
    format!("{folder}{name}")
}
