//! From a source to the key under which it is remembered: path and query, which of the upstream's forms, and whose.

use std::borrow::Cow;

use larder_core::{SourceKey, sha256};
use larder_formats::{Format, SourceBase, SourceSpec};
use larder_storage::RecordKey;

use crate::repositories::RepositoryState;

/// A longer query stands in the key as its SHA-256: whoever makes queries up does not choose how much is written for each.
pub(crate) const LONGEST_QUERY: usize = 256;
/// Marks a variant whose query is a digest, so that no query that reads like one meets it.
const HASHED: &str = "#";
/// Stands in front of the mark of an upstream; no format has it in the name of a variant.
const ORIGIN: char = '@';

/// The key of a source of this repository.
pub(crate) fn key_of(entry: &RepositoryState, format: &dyn Format, spec: &SourceSpec) -> SourceKey {
    let origin = &entry.origins[usize::from(spec.base == SourceBase::Index)];
    let query = spec
        .query
        .as_deref()
        .map(|query| format.query_in_key(query));
    make(
        entry,
        &spec.key_path,
        query.as_deref(),
        spec.variant,
        origin,
    )
}

/// The key of a file by the name that a document gives it, query and all.
pub(crate) fn key_of_named(entry: &RepositoryState, name: &str) -> SourceKey {
    let (path, query) = name
        .split_once('?')
        .map_or((name, None), |(path, query)| (path, Some(query)));
    make(entry, path, query, "", &entry.origins[0])
}

/// The format's own part of a key's variant.
pub(crate) fn format_variant(variant: &str) -> &str {
    variant.split(['?', '#', ORIGIN]).next().unwrap_or_default()
}

/// Whether both keys are of one upstream's copies.
pub(crate) fn same_origin(one: &str, other: &str) -> bool {
    let origin = |variant: &str| {
        variant
            .split_once(ORIGIN)
            .map(|(_, origin)| origin.to_owned())
    };
    origin(one) == origin(other)
}

/// The key of a file that is kept under its own path, such as a link to another host.
pub(crate) fn key_of_file(entry: &RepositoryState, path: &str) -> SourceKey {
    make(entry, path, None, "", &entry.origins[0])
}

/// Whether both keys are of the same path and query, whichever form and whichever upstream they are of.
pub(crate) fn names_the_same(one: &SourceKey, other: &SourceKey) -> bool {
    one.repository == other.repository
        && one.path == other.path
        && marks_of(&one.variant) == marks_of(&other.variant)
}

/// As that, of two keys of one repository.
pub(crate) fn are_forms(one: &RecordKey, other: &RecordKey) -> bool {
    one.0 == other.0 && marks_of(&one.1) == marks_of(&other.1)
}

/// Whether both keys are of the same path, whichever query they have.
pub(crate) fn are_of_one_path(one: &SourceKey, other: &SourceKey) -> bool {
    one.repository == other.repository
        && path_of(&one.path, &one.variant) == path_of(&other.path, &other.variant)
}

/// The path in a key's path, without the query.
pub(crate) fn path_of<'p>(path: &'p str, variant: &str) -> &'p str {
    let own: usize = marks_of(variant)
        .trim_end_matches(HASHED)
        .trim_start_matches('?')
        .parse()
        .unwrap_or(0);
    path.match_indices('?')
        .nth(own)
        .map_or(path, |(at, _)| &path[..at])
}

/// The query in a key's path; `Err` where only its digest is kept.
pub(crate) fn query_of<'p>(path: &'p str, variant: &str) -> Result<Option<&'p str>, Hashed> {
    if marks_of(variant).ends_with(HASHED) {
        return Err(Hashed);
    }
    let query = &path[path_of(path, variant).len()..];
    Ok(query.strip_prefix('?'))
}

/// A query that is known by its digest alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hashed;

/// Whether a key's variant is of one of the upstreams that the repository has at present.
pub(crate) fn is_of_present_upstream(entry: &RepositoryState, variant: &str) -> bool {
    let origin = variant.split_once(ORIGIN).map_or("", |(_, origin)| origin);
    entry.origins.iter().any(|present| **present == *origin)
}

/// A variant without the mark of an upstream, and that mark.
pub(crate) fn split_origin(variant: &str) -> (&str, &str) {
    variant.split_once(ORIGIN).unwrap_or((variant, ""))
}

/// A variant with the mark of an upstream.
pub(crate) fn with_origin(variant: &str, origin: &str) -> String {
    if origin.is_empty() {
        variant.to_owned()
    } else {
        format!("{variant}{ORIGIN}{origin}")
    }
}

/// Whether a key's path is that of a link to another host, which larder has signed.
pub(crate) fn is_link(entry: &RepositoryState, path: &str) -> bool {
    entry.format.profile().links_elsewhere && path.starts_with("_ext/")
}

/// The part of a variant that tells that a path has no query, though there are question marks in it.
pub(crate) fn marks_in(path: &str) -> String {
    // A question mark in the path itself must not be taken for the start of a query (hazard S22).
    match path.matches('?').count() {
        0 => String::new(),
        marks => format!("?{marks}"),
    }
}

/// The part of a variant that tells the query from the path.
fn marks_of(variant: &str) -> &str {
    let before_origin = variant.split(ORIGIN).next().unwrap_or_default();
    let at = before_origin
        .find(['?', '#'])
        .unwrap_or(before_origin.len());
    &before_origin[at..]
}

fn make(
    entry: &RepositoryState,
    path: &str,
    query: Option<&str>,
    variant: &'static str,
    origin: &str,
) -> SourceKey {
    let is_long = query.is_some_and(|query| query.len() > LONGEST_QUERY);
    let key_path = match query {
        Some(query) if is_long => format!("{path}?{}", sha256(query.as_bytes()).to_hex()).into(),
        Some(query) => format!("{path}?{query}").into(),
        None => path.into(),
    };
    let marks = marks_in(path);
    let variant = if marks.is_empty() && !is_long && origin.is_empty() {
        Cow::Borrowed(variant)
    } else {
        let hashed = if is_long { HASHED } else { "" };
        let origin = if origin.is_empty() {
            String::new()
        } else {
            format!("{ORIGIN}{origin}")
        };
        Cow::Owned([variant, &marks, hashed, &origin].concat())
    };
    SourceKey {
        repository: entry.repository.name.clone(),
        path: key_path,
        variant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_s_path_is_told_from_its_query() {
        for (path, variant, own, query) in [
            ("g/q.txt", "", "g/q.txt", Ok(None)),
            ("g/q.txt?v=1", "", "g/q.txt", Ok(Some("v=1"))),
            ("g/q.txt?v=1?w", "@0123", "g/q.txt", Ok(Some("v=1?w"))),
            ("g/q?.txt", "?1", "g/q?.txt", Ok(None)),
            ("g/q?.txt?v=1", "json?1@0123", "g/q?.txt", Ok(Some("v=1"))),
            ("g/q.txt?00ff", "#", "g/q.txt", Err(Hashed)),
            ("g/q?.txt?00ff", "?1#@0123", "g/q?.txt", Err(Hashed)),
        ] {
            assert_eq!(path_of(path, variant), own, "{path} {variant}");
            assert_eq!(query_of(path, variant), query, "{path} {variant}");
        }
    }
}
