//! Any HTTP file server: every path is a file, kept as received; nothing is rewritten, nothing is built in (docs/reference/protocols/generic-http.md).
//!
//! The smallest format, and the place of the two rules that file-like formats share: which query parameters travel on, and
//! what a sidecar is.

use larder_core::{BuiltIn, ErrorCode, Repository, shown};

use crate::{
    Browsed, DocumentFormat, Form, Format, Hosted, Operation, PathFacts, Profile, Protocol, Read,
    Refusal, RequestParts, SourceBase, SourceSpec, UploadHead,
};

/// Generic file servers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Generic;

impl Format for Generic {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        let source = file(request);
        Operation::Read(Read {
            facts: self.facts(request.repository, &source.key_path),
            source,
            form: Form::Verbatim,
            bypass_cache: false,
        })
    }

    fn facts(&self, repository: &Repository, path: &str) -> PathFacts {
        let built_in = if is_folder(repository, path) {
            BuiltIn::Mutable
        } else {
            BuiltIn::None
        };
        // What stands before a sidecar's ending is no folder.
        PathFacts {
            built_in,
            ..PathFacts::default()
        }
        .beside(subject(path))
    }

    fn profile(&self) -> &'static Profile {
        const PROFILE: Profile = Profile {
            passes_folders_on: true,
            keeps_coding: true,
            forwards_queries: true,
            ..Profile::PLAIN
        };
        &PROFILE
    }

    fn hosted(&self) -> Option<&dyn Hosted> {
        Some(self)
    }
}

impl DocumentFormat for Generic {}

impl Browsed for Generic {}

impl Protocol for Generic {}

impl Hosted for Generic {
    /// A folder cannot be written: it is there as long as files are in it.
    fn accept(&self, head: &UploadHead<'_>) -> Result<(), Refusal> {
        if !(head.path.is_empty() || head.path.ends_with('/')) {
            return Ok(());
        }
        let path = match head.path {
            "" => "the root".into(),
            path => shown(path),
        };
        let message = format!(
            "{path} of repository {} is a folder, and folders are there as long as files are in them; name a file, without a slash at the end",
            head.repository
        );
        Err(Refusal {
            status: 400,
            code: ErrorCode::InvalidPath,
            message,
        })
    }
}

/// Whether a path is a folder (contract, section 3, "Folders and roots"): it is the root, or ends in a slash. What the configured
/// `immutable_patterns` name without that slash and not with it is a file, and a slash behind it opens no way around them.
fn is_folder(repository: &Repository, path: &str) -> bool {
    let Some(file) = path.strip_suffix('/') else {
        return path.is_empty();
    };
    let named = |path: &str| {
        let patterns = repository.access.immutable.as_deref().unwrap_or_default();
        patterns
            .iter()
            .any(|pattern| pattern.matches(path) != Ok(false))
    };
    named(path) || !named(file)
}

/// The file that a request names, below the repository's root, with its query.
pub(crate) fn file(request: &RequestParts<'_>) -> SourceSpec {
    SourceSpec {
        base: SourceBase::Files,
        path: request.path.encoded().to_owned(),
        query: request.query.and_then(forwarded_query),
        key_path: request.path.as_str().to_owned(),
        accept: None,
        variant: "",
        is_document: false,
    }
}

/// The raw query without the parameters that are addressed to a mirror (`ns` from containerd, `countme` from dnf); `None` if
/// nothing is left (contract, section 1, "Query strings").
pub(crate) fn forwarded_query(query: &str) -> Option<String> {
    let dropped = |parameter: &&str| !matches!(parameter.split('=').next(), Some("ns" | "countme"));
    let kept: Vec<&str> = query.split('&').filter(dropped).collect();
    let kept = kept.join("&");
    (!kept.is_empty()).then_some(kept)
}

/// The file that a signature, provenance or metadata file belongs to (contract, section 3, "Sidecars").
pub(crate) fn subject(path: &str) -> Option<&str> {
    let (stem, suffix) = path.rsplit_once('.')?;
    let belongs = match suffix {
        "asc" | "sig" => true,
        // Only beside the file types that have them: elsewhere these are names like any other.
        "prov" => has_ending(stem, &[".tgz"]),
        "metadata" => has_ending(stem, &[".whl", ".tar.gz", ".zip"]),
        _ => false,
    };
    (belongs && !stem.is_empty() && !stem.ends_with('/')).then_some(stem)
}

/// Paths are case-sensitive.
fn has_ending(path: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| path.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{read, remote};

    #[test]
    fn a_file_is_read_verbatim_and_its_query_is_part_of_the_source() {
        let repository = remote(
            "files",
            larder_core::PackageType::Generic,
            "https://files.example/pub/",
        );
        let read = read(
            &Generic,
            &repository,
            "pool/g%2B%2B.deb",
            Some("v=1&sig=a%2Fb"),
        );
        assert_eq!(read.form, Form::Verbatim);
        assert_eq!(read.source.path, "pool/g%2B%2B.deb");
        assert_eq!(read.source.key_path, "pool/g++.deb");
        assert_eq!(read.source.query.as_deref(), Some("v=1&sig=a%2Fb"));
        assert!(!read.source.is_document && !read.bypass_cache);
    }

    #[test]
    fn folders_are_mutable_and_a_slash_makes_no_folder_of_a_file_that_the_patterns_name() {
        let patterns = |texts: &[&str]| {
            Some(
                texts
                    .iter()
                    .map(|text| larder_core::Pattern::compile(text).unwrap())
                    .collect(),
            )
        };
        let mut repository = remote(
            "files",
            larder_core::PackageType::Generic,
            "https://files.example/pub/",
        );
        let mutable = |repository: &Repository, path| {
            Generic.facts(repository, path).built_in == BuiltIn::Mutable
        };
        for (immutable, folders, files) in [
            (
                None,
                &["", "a/", "a/b.tgz/"][..],
                &["a", "a/b.tgz", "a/index.html"][..],
            ),
            (patterns(&[]), &["", "a/", "a/b.tgz/"], &["a"]),
            (
                patterns(&[r"\.tgz$"]),
                &["", "a/"],
                &["a", "a/b.tgz", "a/b.tgz/"],
            ),
            (patterns(&["^a"]), &["", "a/", "a/b/"], &["a/b"]),
        ] {
            repository.access.immutable = immutable;
            assert!(
                folders.iter().all(|path| mutable(&repository, path)),
                "{:?}",
                repository.access
            );
            assert!(
                !files.iter().any(|path| mutable(&repository, path)),
                "{:?}",
                repository.access
            );
        }
    }

    #[test]
    fn parameters_for_mirrors_are_dropped() {
        assert_eq!(forwarded_query("ns=registry.example"), None);
        assert_eq!(
            forwarded_query("a=1&countme=3&b&ns=x&nsx=2"),
            Some("a=1&b&nsx=2".to_owned())
        );
        assert_eq!(forwarded_query(""), None);
    }

    #[test]
    fn sidecars_follow_their_subject() {
        for (path, of) in [
            ("a/x.tar.gz.asc", Some("a/x.tar.gz")),
            ("x.sig", Some("x")),
            ("c-1.0.0.tgz.prov", Some("c-1.0.0.tgz")),
            ("p-1.whl.metadata", Some("p-1.whl")),
            ("notes.prov", None),
            ("repo/metadata", None),
            ("x.metadata", None),
            (".asc", None),
            ("a/.sig", None),
            ("x.tgz", None),
        ] {
            assert_eq!(subject(path), of, "{path}");
        }
    }
}
