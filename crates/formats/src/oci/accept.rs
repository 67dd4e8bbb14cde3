//! Which kinds of manifest a client takes. What a registry gives for a tag depends on it, so tags are kept once for each class.

use std::sync::LazyLock;

use http::HeaderMap;
use http::header::ACCEPT;

/// The media types of manifests, with the word that stands for each in a class. The first four make the class: which of them
/// are accepted decides what is given for a tag. The others are older forms, given only where nothing else is there.
const TYPES: [(&str, &str); 7] = [
    ("index", "application/vnd.oci.image.index.v1+json"),
    (
        "list",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ),
    ("manifest", "application/vnd.oci.image.manifest.v1+json"),
    (
        "schema2",
        "application/vnd.docker.distribution.manifest.v2+json",
    ),
    (
        "signed",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ),
    (
        "schema1",
        "application/vnd.docker.distribution.manifest.v1+json",
    ),
    ("artifact", "application/vnd.oci.artifact.manifest.v1+json"),
];

/// The four types that every present client knows.
const USUAL: usize = 0b1111;
const ALL: usize = (1 << TYPES.len()) - 1;

/// For each set of types: the words and the media types in it.
static SETS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let of = |set: usize| {
        let chosen = || {
            TYPES
                .iter()
                .enumerate()
                .filter(move |(bit, _)| set & (1 << bit) != 0)
        };
        let words: Vec<&str> = chosen().map(|(_, (word, _))| *word).collect();
        let types: Vec<&str> = chosen().map(|(_, (_, media_type))| *media_type).collect();
        (words.join("+"), types.join(", "))
    };
    (0..=ALL).map(of).collect()
});

/// A set of manifest types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted(usize);

impl Accepted {
    /// The types that a request names, in however many `Accept` lines; the usual four if it names none.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|line| line.to_str().ok());
        let named = lines
            .flat_map(|line| line.split(','))
            .fold(0, |set, range| set | bit(range));
        Self(if named == 0 { USUAL } else { named })
    }

    /// Every type: for what a digest names, which no negotiation changes.
    pub(super) fn everything() -> Self {
        Self(ALL)
    }

    /// The types of a class.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        let mut classes = SETS.iter().map(|(words, _)| words);
        classes.position(|words| words == class).map(Self)
    }

    /// The class under which a tag is kept. The older forms are part of it only where nothing else is accepted.
    pub(super) fn class(self) -> &'static str {
        let set = if self.0 & USUAL == 0 {
            self.0
        } else {
            self.0 & USUAL
        };
        &SETS[set].0
    }

    /// The field for the upstream.
    pub(super) fn field(self) -> &'static str {
        &SETS[self.0].1
    }
}

/// The type that a media range names, unless it is refused with `q=0`.
fn bit(range: &str) -> usize {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let refused = parts.any(|parameter| {
        let weight = parameter
            .strip_prefix("q=")
            .or_else(|| parameter.strip_prefix("Q="));
        weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
    });
    let at = TYPES
        .iter()
        .position(|(_, known)| media_type.eq_ignore_ascii_case(known));
    at.filter(|_| !refused).map_or(0, |at| 1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(lines: &[&str]) -> Accepted {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        Accepted::of(&headers)
    }

    #[test]
    fn oci_05_types_are_taken_from_every_line() {
        let lines: Vec<&str> = TYPES[..5]
            .iter()
            .map(|(_, media_type)| *media_type)
            .collect();
        for spread in [lines.clone(), vec![lines.join(", ").leak() as &str]] {
            let field = accepted(&spread).field();
            assert_eq!(field.split(", ").collect::<Vec<_>>(), lines);
        }
    }

    #[test]
    fn oci_04_classes_differ_by_what_a_tag_can_be() {
        let of = |at: usize| TYPES[at].1;
        let containerd = format!("{}, {}, {}, {}, */*", of(3), of(1), of(2), of(0));
        let usual = accepted(&[&containerd]);
        assert_eq!(usual.class(), "index+list+manifest+schema2");
        assert_eq!(Accepted::of_class(usual.class()), Some(usual));
        assert_eq!(Accepted::of_class("full"), None);
        // podman names the oldest forms as well, curl names nothing: each can be given the same.
        assert_eq!(
            accepted(&[of(2), of(3), of(4), of(5), of(1), of(0)]).class(),
            usual.class()
        );
        assert_eq!(accepted(&["*/*"]), usual);
        assert_eq!(accepted(&[]), usual);
        assert_eq!(accepted(&["application/json"]).field(), usual.field());
        assert_eq!(accepted(&[of(3)]).class(), "schema2");
        assert_eq!(
            accepted(&[&format!("{}; q=0.5, {};q=0", of(3), of(0))]).class(),
            "schema2"
        );
        assert_eq!(accepted(&[of(4)]).class(), "signed");
        assert_eq!(accepted(&[of(6)]).field(), of(6));
    }

    #[test]
    fn nobody_is_ever_asked_for_anything_at_all() {
        for set in 1..=ALL {
            let field = Accepted(set).field();
            assert!(!field.is_empty() && !field.contains('*'), "{field}");
        }
    }
}
