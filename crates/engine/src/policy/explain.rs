//! A ruling, and what else is known of a file, in words: what is so, which line of the configuration decided, and why.

use larder_core::{
    Access, AccessDenied, CachePolicy, ClassRule, Digest, Mutability, QuarantineRuling, Repository,
    UnixMillis, Verdict, shown, time_to_live,
};

use crate::policy::clearance::counted;
use crate::policy::denied::list;

/// How a request for a path is seen, step by step. Every step says what decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The repository that was asked.
    pub repository: Point,
    /// Decoded path below it.
    pub path: String,
    /// What a GET would come to at present.
    pub verdict: Point,
    /// The pattern that lets the path in or keeps it out.
    pub pattern: Point,
    /// Its class.
    pub class: Point,
    /// How long a copy is fresh.
    pub ttl: Point,
    /// What is held, and whether it is fresh.
    pub freshness: Point,
    /// What quarantine says.
    pub quarantine: Point,
    /// The member of a virtual repository that answers.
    pub member: Point,
    /// The digest of the bytes.
    pub digest: Point,
}

/// One thing that is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// What is so.
    pub value: PointValue,
    /// Until when, where that has an end.
    pub until: Option<UnixMillis>,
    /// The key of the configuration that decided (`remotes.NAME.KEY[PLACE]`); `None` if none did.
    pub decided_by: Option<String>,
    /// Why, in a sentence.
    pub because: String,
}

/// What is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointValue {
    /// It is not known, or does not apply.
    None,
    /// In words.
    Text(String),
    /// A time in seconds.
    Seconds(u64),
}

impl Point {
    pub(crate) fn new(value: impl Into<String>, because: impl Into<String>) -> Self {
        Self {
            value: PointValue::Text(value.into()),
            ..Self::none(because)
        }
    }

    /// Nothing, and why.
    pub(crate) fn none(because: impl Into<String>) -> Self {
        Self {
            value: PointValue::None,
            until: None,
            decided_by: None,
            because: because.into(),
        }
    }

    pub(crate) fn by(self, key: impl Into<String>) -> Self {
        Self {
            decided_by: Some(key.into()),
            ..self
        }
    }

    pub(crate) fn until(self, until: Option<UnixMillis>) -> Self {
        Self { until, ..self }
    }
}

/// A key of a repository's entry in the configuration.
pub(crate) fn key_of(repository: &Repository, key: &str) -> String {
    format!("remotes.{}.{key}", repository.name)
}

fn place_of(repository: &Repository, rule: &str, place: usize) -> String {
    format!("{}[{place}]", key_of(repository, rule))
}

/// The repository itself.
pub(crate) fn repository(repository: &Repository) -> Point {
    let (kind, package) = (repository.kind().as_str(), repository.package.as_str());
    Point::new(
        repository.name.as_str(),
        format!("a {kind} repository of the package type {package}"),
    )
    .by(format!("remotes.{}", repository.name))
}

fn text_of(repository: &Repository, rule: &str, place: usize) -> String {
    let pattern = list(&repository.access, rule).get(place);
    pattern.map_or_else(String::new, |pattern| shown(pattern.as_str()).into_owned())
}

/// The pattern that keeps a path out.
pub(crate) fn denied(repository: &Repository, denied: &AccessDenied) -> Point {
    let rule = denied.rule;
    let Some(place) = denied.pattern else {
        return Point::none(format!("none of {rule} matches the path"))
            .by(key_of(repository, rule));
    };
    let because = if denied.pattern_limit {
        "the pattern takes too many steps on this path, which refuses it"
    } else {
        "the pattern matches the path, which refuses it"
    };
    Point::new(text_of(repository, rule, place), because).by(place_of(repository, rule, place))
}

/// The pattern that gives a path its class, and so lets it in.
pub(crate) fn pattern(repository: &Repository, access: Access) -> Point {
    let package = repository.package.as_str();
    let matched = |rule, place| {
        Point::new(
            text_of(repository, rule, place),
            "the pattern matches the path",
        )
        .by(place_of(repository, rule, place))
    };
    let mut point = match access.classed_by() {
        ClassRule::BuiltIn => Point::none(format!(
            "the built-in patterns of {package} repositories admit the path"
        )),
        ClassRule::MutablePattern(place) => matched("mutable_patterns", place),
        ClassRule::ImmutablePattern(place) => matched("immutable_patterns", place),
        ClassRule::NoImmutablePatterns => {
            Point::none("the repository has no immutable_patterns, so that it admits every path")
        }
    };
    if let Some(place) = access.allowed_by() {
        let allow = "allow_patterns";
        let (key, text) = (
            place_of(repository, allow, place),
            text_of(repository, allow, place),
        );
        point.because = format!("{}; {key} ('{text}') lets it in", point.because);
    }
    point
}

/// The class of a path, or of what came from there where that is another one.
pub(crate) fn class(repository: &Repository, access: Access, class: Mutability) -> Point {
    let word = if class.is_mutable() {
        "mutable"
    } else {
        "immutable"
    };
    if class != access.mutability() {
        return Point::new(word, "the upstream redirects this path to a folder");
    }
    match access.classed_by() {
        ClassRule::BuiltIn => Point::new(
            word,
            format!(
                "what {} upstreams have under this name changes (built in)",
                repository.package.as_str()
            ),
        ),
        ClassRule::MutablePattern(place) => Point::new(
            word,
            "a pattern of mutable_patterns says so",
        )
        .by(place_of(repository, "mutable_patterns", place)),
        ClassRule::ImmutablePattern(place) => Point::new(
            word,
            "a pattern of immutable_patterns says so",
        )
        .by(place_of(repository, "immutable_patterns", place)),
        ClassRule::NoImmutablePatterns => Point::new(
            word,
            "no mutable pattern matches, and whatever is not mutable is immutable",
        ),
    }
}

/// The key that decides how long a copy of this class is fresh.
pub(crate) fn ttl_key(repository: &Repository, class: Mutability) -> Option<String> {
    match class {
        Mutability::Mutable {
            named_by_digest: true,
            ..
        } => None,
        Mutability::Mutable { .. } => Some(key_of(repository, "cache.mutable_ttl")),
        Mutability::Immutable => Some(key_of(repository, "cache.immutable_ttl")),
    }
}

/// How long a copy of this class is fresh.
pub(crate) fn ttl(repository: &Repository, class: Mutability, cache: &CachePolicy) -> Point {
    let decided_by = ttl_key(repository, class);
    let (value, because) = match time_to_live(class, cache) {
        Some(ttl) => (
            PointValue::Seconds(ttl.as_secs()),
            "a copy is fresh for that long after the last contact",
        ),
        None if decided_by.is_none() => (
            PointValue::Text("unlimited".to_owned()),
            "its name carries the digest of its bytes",
        ),
        None => (
            PointValue::Text("unlimited".to_owned()),
            "0: what is immutable is fresh for ever",
        ),
    };
    Point {
        value,
        until: None,
        decided_by,
        because: because.to_owned(),
    }
}

/// What quarantine says of something of this class; `ruling` is `None` where no date is known yet.
pub(crate) fn quarantine(
    repository: &Repository,
    class: Mutability,
    ruling: Option<&QuarantineRuling>,
) -> Point {
    let key = |key: &str| key_of(repository, key);
    if repository.quarantine.hold.is_none() {
        return Point::new("off", "the repository holds nothing back").by(key("quarantine_new"));
    }
    if class.is_mutable() {
        return Point::new("clear", "what changes is never held back").by(key("quarantine_new"));
    }
    let Some(ruling) = ruling else {
        return Point::none("its publish date is known once the upstream has been asked")
            .by(key("quarantine_new"));
    };
    let days = repository.quarantine.hold.unwrap_or_default().as_secs() / 86_400;
    let (word, until) = match ruling.verdict {
        Verdict::Clear => ("clear", None),
        Verdict::Held { until } => ("held", until),
    };
    let Some((from, at)) = ruling.counted else {
        return Point::new(word, "it states no publish date").by(key("quarantine_missing_date"));
    };
    let because = format!(
        "{}, and new files are held back for {days} days",
        counted(repository, from, at)
    );
    Point::new(word, because)
        .until(until)
        .by(key("quarantine_days"))
}

/// A digest that is known, and who says so.
pub(crate) fn digest(digest: &Digest, because: &'static str) -> Point {
    Point::new(digest.to_string(), because)
}
