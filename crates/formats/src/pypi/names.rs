//! Names of projects and of distribution files (packaging.python.org: "Names and normalization", wheel and sdist file names).
//!
//! Knows spellings only: no paths, no documents.

use super::version;

/// Suffixes of the files that installers look for beside a distribution file.
pub(super) const SIDECARS: [&str; 3] = [".metadata", ".asc", ".sig"];

/// Suffixes of distribution files, of today and of former times.
const DISTRIBUTIONS: [&str; 17] = [
    ".whl", ".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz", ".egg", ".exe", ".msi", ".rpm",
    ".deb", ".dmg", ".tar.z", ".tar.lz", ".tar", ".tbz", ".txz",
];

/// Whether `name` follows the grammar `^([A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9])$`, in either case.
pub(super) fn is_valid(name: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || is_separator(b))
}

/// The normal form: lower case, each run of `-`, `_` and `.` a single `-`.
pub(super) fn normalize(name: &str) -> String {
    // Separators and case are ASCII, so every other byte is copied as it is.
    String::from_utf8(folded(name).collect()).unwrap_or_default()
}

/// Whether `name` normalises to `project`, which is in normal form.
pub(super) fn is_name_of(name: &str, project: &str) -> bool {
    folded(name).eq(project.bytes())
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.')
}

fn folded(name: &str) -> impl Iterator<Item = u8> + '_ {
    let mut after_separator = false;
    name.bytes().filter_map(move |byte| {
        let separator = is_separator(byte);
        let skip = separator && after_separator;
        after_separator = separator;
        (!skip).then(|| {
            if separator {
                b'-'
            } else {
                byte.to_ascii_lowercase()
            }
        })
    })
}

/// Whether the file name ends as distribution files do.
pub(super) fn is_distribution(file: &str) -> bool {
    split_extension(file).is_some()
}

/// The distribution file that `file` (a name or a path) stands beside; `None` if it is no sidecar.
pub(super) fn subject_of(file: &str) -> Option<&str> {
    SIDECARS
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))
        .filter(|subject| is_distribution(subject))
}

/// The stem and the suffix (as listed, in lower case) of a distribution file's name.
fn split_extension(file: &str) -> Option<(&str, &'static str)> {
    DISTRIBUTIONS.iter().find_map(|&suffix| {
        let at = file.len().checked_sub(suffix.len()).filter(|&at| at > 0)?;
        let stem = file.get(..at)?;
        (!stem.ends_with('/') && file.get(at..)?.eq_ignore_ascii_case(suffix))
            .then_some((stem, suffix))
    })
}

/// What a distribution file's name may be read as, as it is spelt there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading<'f> {
    pub(super) project: &'f str,
    pub(super) version: &'f str,
    /// Whether the version begins as versions do.
    pub(super) is_likely: bool,
}

/// Most readings of a name: there is one for each `-`.
const MOST_READINGS: usize = 16;

/// All readings of a distribution file's name, the likeliest first; none if it is no such name. Wheels and eggs have one. In other names either
/// half may hold a `-` (`python-3parclient-4.2`, `app-1.2.3-45`): likeliest is the longest version by PEP 440, then the shortest one that a digit
/// begins, then the shortest.
pub(super) fn readings(file: &str) -> Vec<Reading<'_>> {
    let Some((stem, suffix)) = split_extension(file) else {
        return Vec::new();
    };
    let mut found = match suffix {
        ".whl" | ".egg" => {
            let split = stem.split_once('-').map(|(project, rest)| Reading {
                project,
                // Behind it stand the tags of what it was built for.
                version: rest.split('-').next().unwrap_or(rest),
                is_likely: true,
            });
            split.into_iter().collect()
        }
        ".deb" => Vec::new(),
        // Behind the last `-` stand the release and the architecture.
        ".rpm" => stem
            .rsplit_once('-')
            .map_or_else(Vec::new, |(stem, _)| by_likelihood(stem)),
        _ => by_likelihood(stem),
    };
    found.retain(|reading| is_valid(reading.project));
    found.truncate(MOST_READINGS);
    found
}

/// The readings of a name that does not tell where the version begins.
fn by_likelihood(stem: &str) -> Vec<Reading<'_>> {
    let mut by_standard = Vec::new();
    let mut by_digit = Vec::new();
    let mut others = Vec::new();
    for (at, dash) in stem.match_indices('-') {
        let (project, version) = (&stem[..at], &stem[at + dash.len()..]);
        let begins = version.bytes().next().is_some_and(|b| b.is_ascii_digit());
        let is_standard = version::is_valid(version);
        let readings = match (is_standard, begins) {
            (true, _) => &mut by_standard,
            (false, true) => &mut by_digit,
            (false, false) => &mut others,
        };
        readings.push(Reading {
            project,
            version,
            is_likely: is_standard || begins,
        });
    }
    let later_first = by_digit.into_iter().rev().chain(others.into_iter().rev());
    by_standard.into_iter().chain(later_first).collect()
}

/// The project that a distribution file's name most likely speaks of, as it is spelt there; `None` if it cannot be told.
pub(super) fn project_of(file: &str) -> Option<&str> {
    readings(file).first().map(|reading| reading.project)
}

/// The version that a file of the project `name` is, by the file's own name; `None` if that is of another project.
pub(super) fn version_of<'f>(file: &'f str, name: &str) -> Option<&'f str> {
    let name = normalize(name);
    let mut readings = readings(file).into_iter();
    readings
        .find(|reading| is_name_of(reading.project, &name))
        .map(|reading| reading.version)
}

/// Whether a file of this name may stand on the page of `project`: wheels and eggs must name it, of other files the name
/// must start with it.
pub(super) fn may_belong_to(file: &str, project: &str) -> bool {
    match split_extension(file) {
        Some((stem, ".whl" | ".egg")) => stem
            .split_once('-')
            .is_some_and(|(name, _)| is_name_of(name, project)),
        Some((stem, _)) => starts_with_project(stem, project),
        None => starts_with_project(file, project),
    }
}

fn starts_with_project(stem: &str, project: &str) -> bool {
    let mut folded = folded(stem);
    project.bytes().all(|byte| folded.next() == Some(byte))
        && matches!(folded.next(), None | Some(b'-'))
}

/// Whether this is a well-formed wheel of another project: nobody needs it on `project`'s page, and clients that trust the
/// page more than the name would install it.
pub(super) fn is_planted_wheel(file: &str, project: &str) -> bool {
    let Some((stem, ".whl")) = split_extension(file) else {
        return false;
    };
    let dashes = stem.bytes().filter(|&b| b == b'-').count();
    (4..=5).contains(&dashes) && !may_belong_to(file, project)
}

/// Whether `name` can be a file's name at all: not empty, no separator of any system, no control character, no dot in front.
pub(super) fn is_safe_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !name
            .chars()
            .any(|c| matches!(c, '/' | '\\') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Packaging specification "Names and normalization": all of these are the same project.
    #[test]
    fn names_normalise_as_the_specification_shows() {
        for name in [
            "friendly-bard",
            "Friendly-Bard",
            "FRIENDLY-BARD",
            "friendly.bard",
            "friendly_bard",
            "friendly--bard",
            "FrIeNdLy-._.-bArD",
        ] {
            assert_eq!(normalize(name), "friendly-bard");
            assert!(is_name_of(name, "friendly-bard"));
        }
        assert!(!is_name_of("friendly-bards", "friendly-bard"));
    }

    #[test]
    fn the_name_grammar_refuses_edges_and_foreign_characters() {
        for name in ["a", "0", "A.b-c_d", "zope.interface"] {
            assert!(is_valid(name), "{name}");
        }
        for name in [
            "", "-a", "a-", ".a", "a.", "_", "a b", "a/b", "é", "a\n", "a%2fb", "..",
        ] {
            assert!(!is_valid(name), "{name:?}");
        }
    }

    #[test]
    fn file_names_tell_their_project() {
        for (file, project) in [
            ("beautifulsoup4-4.12.3-py3-none-any.whl", "beautifulsoup4"),
            (
                "Foo_Bar-1.0-1-cp312-cp312-manylinux_2_17_x86_64.whl",
                "foo-bar",
            ),
            ("torch-2.4.0+cu121-cp312-cp312-linux_x86_64.whl", "torch"),
            ("typing_extensions-4.12.0.tar.gz", "typing-extensions"),
            ("python-3parclient-4.2.tar.gz", "python-3parclient"),
            ("zope.interface-7.0.zip", "zope-interface"),
            ("setuptools-0.6c11-py2.7.egg", "setuptools"),
            ("PIL-1.1.7.win32-py2.7.exe", "pil"),
            ("pywin32-221.win-amd64-py2.7.exe", "pywin32"),
            ("foo-v1.tar.bz2", "foo"),
            ("foo-1.0-1.noarch.rpm", "foo"),
            ("FOO-1.0.TAR.GZ", "foo"),
            ("app-1.2.3-45.tar.gz", "app"),
            ("foo-1.0-1.tar.gz", "foo"),
            ("foo-2004b-1.tar.gz", "foo"),
            ("foo-1.0-beta-2.zip", "foo"),
            ("x-1-1.0-1.tar.gz", "x-1"),
            ("foo-2-1.0.tar.gz", "foo-2"),
        ] {
            let told = project_of(file).map(normalize);
            assert_eq!(told.as_deref(), Some(project), "{file}");
        }
        for file in [
            "foo.whl",
            "README.txt",
            "-1.0.tar.gz",
            "foo.tar.gz",
            "python-foo_1.0_all.deb",
            ".whl",
            "",
        ] {
            assert_eq!(project_of(file), None, "{file}");
        }
    }

    #[test]
    fn a_name_with_several_dashes_has_several_readings() {
        fn told(file: &str) -> Vec<(&str, &str, bool)> {
            let readings = readings(file).into_iter();
            readings
                .map(|reading| (reading.project, reading.version, reading.is_likely))
                .collect()
        }
        assert_eq!(
            told("foo-bar-2-1.0.tar.gz"),
            [
                ("foo-bar-2", "1.0", true),
                ("foo-bar", "2-1.0", true),
                ("foo", "bar-2-1.0", false),
            ]
        );
        assert_eq!(told("foo-bar-1.0-py3-none-any.whl"), [("foo", "bar", true)]);
        assert_eq!(told("foo.tar.gz"), []);
        let dashes = format!("{}1.0.zip", "a-".repeat(100));
        let readings = told(&dashes);
        assert_eq!(readings.len(), MOST_READINGS);
        assert_eq!(readings[0].1, "1.0");
    }

    #[test]
    fn the_project_tells_where_the_version_begins() {
        for (file, project, version) in [
            ("app-1.2.3-45.tar.gz", "app", Some("1.2.3-45")),
            ("foo-2-1.0.tar.gz", "Foo", Some("2-1.0")),
            ("foo-2-1.0.tar.gz", "foo.2", Some("1.0")),
            ("foo-1.0-1-py3-none-any.whl", "foo", Some("1.0")),
            ("foo-1.0-1.noarch.rpm", "foo", Some("1.0")),
            ("foo-1.0.tar.gz", "fo", None),
        ] {
            assert_eq!(version_of(file, project), version, "{file} of {project}");
        }
    }

    #[test]
    fn sidecars_have_a_subject() {
        assert_eq!(
            subject_of("packages/x-1.0-py3-none-any.whl.metadata"),
            Some("packages/x-1.0-py3-none-any.whl")
        );
        assert_eq!(subject_of("x-1.0.tar.gz.asc"), Some("x-1.0.tar.gz"));
        assert_eq!(subject_of("x-1.0.tar.gz.sig"), Some("x-1.0.tar.gz"));
        for file in [
            "x-1.0.tar.gz",
            "notes.txt.asc",
            ".metadata",
            "packages/.whl.metadata",
            "simple/foo/",
        ] {
            assert_eq!(subject_of(file), None, "{file}");
        }
    }

    #[test]
    fn planted_wheels_are_told_from_odd_names() {
        assert!(is_planted_wheel("requests-9.0-py3-none-any.whl", "evil"));
        assert!(!is_planted_wheel(
            "Requests-9.0-py3-none-any.whl",
            "requests"
        ));
        assert!(!is_planted_wheel("odd.whl", "evil"));
        assert!(may_belong_to("python-foo-1.0-beta.tar.gz", "python-foo"));
        assert!(!may_belong_to("requests-9.0.tar.gz", "evil"));
        assert!(!may_belong_to("evilish-9.0.tar.gz", "evil"));
    }

    #[test]
    fn file_names_hold_no_separators() {
        for name in ["", ".hidden", "a/b", "a\\b", "a\nb", "a\u{0}"] {
            assert!(!is_safe_file_name(name), "{name:?}");
        }
        assert!(is_safe_file_name("torch-2.4.0+cpu.whl"));
    }
}
