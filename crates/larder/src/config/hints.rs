//! What to say about a key or a word that is not known: what it means here, or else the one that is spelt almost like it.

use super::node::{Entry, Value};
use super::schema;
use super::synonyms::{self, look_up};

/// How a word is compared: in lower case, words joined by `_`. `baseURL` reads as `baseurl`.
fn normal(word: &str) -> String {
    word.trim()
        .to_ascii_lowercase()
        .replace(['-', ' ', '.'], "_")
}

/// The same with the words of `camelCase` told apart: `remoteUrl` reads as `remote_url`.
fn words(word: &str) -> String {
    let mut apart = String::with_capacity(word.len() + 4);
    let mut after_small = false;
    for c in word.chars() {
        if c.is_ascii_uppercase() && after_small {
            apart.push('_');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        apart.push(c);
    }
    normal(&apart)
}

/// What to say about an unknown key of the top level.
pub(super) fn of_top(entry: &Entry) -> String {
    let below = entry.node.entries();
    if entry.key.starts_with("//") {
        return "comments begin with `#`".to_owned();
    }
    let is_repository_key =
        |key: &str| schema::REPOSITORY.contains(&key) && !matches!(key, "proxy");
    if below
        .iter()
        .any(|entry| is_repository_key(&entry.key) && entry.key != "type")
    {
        let key = &entry.key;
        if key.starts_with("x-") {
            return "no key is for anchors alone: put the anchor (`&name`) at the first repository that uses it".to_owned();
        }
        return format!(
            "it looks like a repository: put `remotes:` above it and indent it, `remotes: {{{key}: …}}`"
        );
    }
    if is_repository_key(&entry.key) {
        return format!(
            "`{}` is a key of a repository: indent it below the repository's name, which stands under `remotes:`",
            entry.key
        );
    }
    if matches!(entry.node.value, Value::Null)
        && synonyms::look_up(synonyms::TOP, &normal(&entry.key)).is_none()
    {
        let near = nearest(&entry.key, schema::TOP.iter().copied());
        let near = near.map_or_else(String::new, |near| {
            format!("the nearest known key is `{near}`; ")
        });
        return format!(
            "{near}if it is a repository's name, put it under `remotes:`, and its keys below it, indented"
        );
    }
    of_key(&entry.key, schema::TOP)
}

/// What to say about an unknown key where `known` ones may stand.
pub(super) fn of_key(key: &str, known: &[&str]) -> String {
    let word = normal(key);
    let is_remote = known.contains(&"base_url");
    let elsewhere = schema::NESTED.iter().find(|(section, keys)| {
        // Those of a remote are fewer.
        let keys = if *section == "limits" && is_remote {
            schema::UPSTREAM
        } else {
            keys
        };
        known.contains(section) && keys.contains(&word.as_str())
    });
    if let Some((section, _)) = elsewhere {
        return format!("it belongs under `{section}:`");
    }
    if let Some(near) = known
        .iter()
        .find(|near| near.replace('_', "") == word.replace('_', ""))
    {
        return format!("the nearest known key is `{near}`");
    }
    let table = if is_remote {
        Some(synonyms::REPOSITORY)
    } else {
        known.contains(&"remotes").then_some(synonyms::TOP)
    };
    if let Some(said) =
        table.and_then(|table| look_up(table, &word).or_else(|| look_up(table, &words(key))))
    {
        return said.to_owned();
    }
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("the nearest known key is `{near}`"),
        None if known.len() <= 8 => format!("known keys are {}", known.join(", ")),
        None => "no known key is like it; docs/guide/configuration.md lists them".to_owned(),
    }
}

/// What to say about a word that is none of `words`: an end of the sentence, empty if there is nothing to say.
pub(super) fn of_value(key: &str, text: &str, words: &[&str]) -> String {
    let word = normal(text);
    let meant = match key {
        "package" => package(&word),
        "type" => kind(&word),
        _ => None,
    };
    let near =
        || nearest(text, words.iter().copied()).map(|near| format!(": did you mean {near}?"));
    meant.or_else(near).unwrap_or_default()
}

/// The ends that other programs put to the names of repositories.
const ENDS: &[&str] = &[
    "_remote",
    "_proxy",
    "_local",
    "_hosted",
    "_virtual",
    "_group",
    "_repository",
    "_repo",
    "_registry",
    "_mirror",
];

fn package(word: &str) -> Option<String> {
    let stem = ENDS
        .iter()
        .find_map(|end| word.strip_suffix(end))
        .unwrap_or(word);
    let known = larder_core::PackageType::ALL
        .iter()
        .map(|package| package.as_str())
        .find(|known| *known == stem);
    if let Some(meant) = known
        .or_else(|| look_up(synonyms::PACKAGES, stem))
        .or_else(|| look_up(synonyms::PACKAGES, word))
    {
        return Some(format!(": did you mean {meant}?"));
    }
    served_as_files(stem)
        .or_else(|| served_as_files(word))
        .or_else(|| {
            look_up(synonyms::KINDS, word).map(|kind| {
                format!(": whether it is a remote, local or virtual repository is `type: {kind}`")
            })
        })
}

fn served_as_files(word: &str) -> Option<String> {
    let advice = "`package: generic` keeps the files of such a server as they are";
    let known = synonyms::SERVED_AS_FILES.contains(&word);
    known.then(|| format!(": {word} has no type of its own; {advice} (docs/guide/generic.md says what that can do)"))
}

fn kind(word: &str) -> Option<String> {
    if let Some(meant) = look_up(synonyms::KINDS, word) {
        return Some(format!(": did you mean {meant}?"));
    }
    let ends = [
        ("_remote", "remote"),
        ("_proxy", "remote"),
        ("_local", "local"),
        ("_hosted", "local"),
        ("_group", "virtual"),
    ];
    if let Some((_, meant)) = ends.iter().find(|(end, _)| word.ends_with(end)) {
        return Some(format!(": did you mean {meant}?"));
    }
    let known = larder_core::PackageType::ALL
        .iter()
        .map(|package| package.as_str())
        .find(|known| *known == word);
    let Some(package) = known.or_else(|| look_up(synonyms::PACKAGES, word)) else {
        return served_as_files(word);
    };
    Some(format!(": the kind of packages is `package: {package}`"))
}

/// The word that is spelt most like `word`, if any is spelt almost like it: a letter or two apart, or the beginning of it.
pub fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let lower = normal(word);
    let length = lower.chars().count();
    let limit = match length {
        0..=3 => 1,
        4..=8 => 2,
        _ => length / 4,
    };
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_ascii_lowercase());
    let likeness = |candidate: &str| {
        -(strsim::jaro_winkler(&lower, &candidate.to_ascii_lowercase()) * 1e6) as i64
    };
    let words: Vec<&str> = words.into_iter().collect();
    let best = words
        .iter()
        .copied()
        .min_by_key(|candidate| (distance(candidate), likeness(candidate)))?;
    let short = length.min(best.chars().count());
    if distance(best) <= limit.min(short.saturating_sub(1).max(1)) {
        return Some(best);
    }
    let begins = |candidate: &str| {
        let candidate = candidate.to_ascii_lowercase();
        candidate.len().min(lower.len()) >= 3
            && (lower.starts_with(&candidate) || candidate.starts_with(&lower))
    };
    words
        .into_iter()
        .filter(|candidate| begins(candidate))
        .max_by_key(|candidate| candidate.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::{CACHE, REPOSITORY, TOP};

    #[test]
    fn a_misspelt_key_is_told_the_nearest() {
        for (typed, known, want) in [
            ("mutable_paterns", REPOSITORY, "`mutable_patterns`"),
            ("imutable_patterns", REPOSITORY, "`immutable_patterns`"),
            ("Base-URL", REPOSITORY, "`base_url`"),
            ("baseurl", REPOSITORY, "`base_url`"),
            ("remote", TOP, "`remotes`"),
            ("mutable_ttl", REPOSITORY, "under `cache:`"),
            ("admin_token", TOP, "under `auth:`"),
            ("publicurl", TOP, "`public_url`"),
            ("mutable_tll", CACHE, "`mutable_ttl`"),
        ] {
            let said = of_key(typed, known);
            assert!(said.contains(want), "{typed}: {said}");
        }
    }

    #[test]
    fn meaning_comes_before_spelling() {
        for (typed, known, want) in [
            ("url", REPOSITORY, "`base_url`"),
            ("upstream", REPOSITORY, "`base_url`"),
            ("remoteUrl", REPOSITORY, "`base_url`"),
            ("user", REPOSITORY, "`username`"),
            ("pass", REPOSITORY, "`password`"),
            ("token", REPOSITORY, "`headers`"),
            ("concurrency", REPOSITORY, "under `limits:`"),
            ("ttl", REPOSITORY, "`cache: {"),
            ("insecure", REPOSITORY, "`ca_file`"),
            ("exclude", REPOSITORY, "`deny_patterns`"),
            ("retrievalCachePeriodSecs", REPOSITORY, "`cache: {"),
            (
                "missedRetrievalCachePeriodSecs",
                REPOSITORY,
                "`negative_ttl`",
            ),
            ("contentMaxAge", REPOSITORY, "`cache: {"),
            ("negativeCache", REPOSITORY, "`negative_ttl`"),
            ("mirror_cache_expiry", REPOSITORY, "`cache: {"),
            ("includesPattern", REPOSITORY, "`allow_patterns`"),
            ("assumedOfflinePeriodSecs", REPOSITORY, "by itself"),
            ("proxy_pass", REPOSITORY, "`base_url`"),
            ("proxy_cache_valid", REPOSITORY, "`cache: {"),
            ("remoteRepositories", TOP, "`remotes`"),
            ("port", TOP, "`listen: "),
            ("host", TOP, "`listen: "),
            ("storage", TOP, "`data_dir`"),
            ("repositories", TOP, "`remotes`"),
            ("log_level", TOP, "LARDER_LOG"),
        ] {
            let said = of_key(typed, known);
            assert!(said.contains(want), "{typed}: {said}");
        }
    }

    #[test]
    fn words_of_other_programs_are_told_what_they_are_called_here() {
        let packages = larder_core::PackageType::ALL.map(larder_core::PackageType::as_str);
        let kinds = ["remote", "local", "virtual"];
        for (key, typed, want) in [
            ("package", "oci", "did you mean docker?"),
            ("package", "docker-remote", "did you mean docker?"),
            ("package", "pypi-proxy", "did you mean pypi?"),
            ("package", "Python", "did you mean pypi?"),
            ("package", "yum", "did you mean rpm?"),
            ("package", "raw", "did you mean generic?"),
            ("package", "pipy", "did you mean pypi?"),
            ("package", "deb", "docs/guide/generic.md"),
            ("package", "maven2-proxy", "docs/guide/generic.md"),
            ("package", "go", "docs/guide/generic.md"),
            ("package", "cargo", "docs/guide/generic.md"),
            ("package", "rubygems", "docs/guide/generic.md"),
            ("package", "proxy", "`type: remote`"),
            ("type", "proxy", "did you mean remote?"),
            ("type", "hosted", "did you mean local?"),
            ("type", "group", "did you mean virtual?"),
            ("type", "vrtual", "did you mean virtual?"),
            ("type", "npm", "`package: npm`"),
            ("type", "deb", "docs/guide/generic.md"),
        ] {
            let words: &[&str] = if key == "package" { &packages } else { &kinds };
            let said = of_value(key, typed, words);
            assert!(said.contains(want), "{key}: {typed}: {said}");
        }
    }

    #[test]
    fn there_is_no_wild_guess() {
        for word in ["frobnicate", "xyzzy", "qq", ""] {
            assert_eq!(nearest(word, REPOSITORY.iter().copied()), None, "{word}");
            assert!(!of_key(word, REPOSITORY).contains("nearest"), "{word}");
        }
        assert_eq!(of_value("package", "frobnicate", &["pypi", "npm"]), "");
        assert_eq!(
            of_key("frobnicate", CACHE),
            "known keys are immutable_ttl, mutable_ttl"
        );
    }
}
