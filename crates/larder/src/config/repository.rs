//! One entry of `remotes` to a validated [`Repository`].

use std::time::Duration;

use larder_core::{
    AccessPolicy, CachePolicy, DateSource, Kind, LocalSettings, MissingDate, PackageType, Pattern,
    QuarantinePolicy, Repository, RepositoryKind, RepositoryName, Revalidate, Verify,
};

use super::diagnostic::{Place, Report};
use super::epoch::rules_epoch;
use super::fields::Section;
use super::globs;
use super::membership::{members, reserved, virtual_settings};
use super::node::Entry;
use super::schema;
use super::upstream::{ForAll, upstream};
use super::urls::host_name;

/// Quarantine without `quarantine_days`.
const DEFAULT_QUARANTINE_DAYS: u64 = 3;

/// A validated entry.
pub(super) struct Built {
    pub(super) repository: Repository,
    /// What of it this version does not have: it loads, and answers 501 with this text.
    pub(super) not_built: Option<String>,
    pub(super) place: Place,
    /// Host names of its own with their places, to check that no other repository has them.
    pub(super) hostnames: Vec<(String, Place)>,
    /// `presign`, with its place: what it comes to depends on the store.
    pub(super) presign: Option<(bool, Place)>,
    /// The members with their places, to check them once all repositories are known.
    pub(super) member_places: Vec<Place>,
}

const KINDS: &[(&str, RepositoryKind)] = &[
    ("remote", RepositoryKind::Remote),
    ("local", RepositoryKind::Local),
    ("virtual", RepositoryKind::Virtual),
];

/// Validates an entry, with what holds for repositories that say nothing else; `None` if it cannot become a repository. Errors in its parts are reported, all of them.
pub(super) fn repository(entry: &Entry, for_all: ForAll<'_>, report: &mut Report) -> Option<Built> {
    let section = Section::open(
        &entry.node,
        format!("remotes.{}", entry.key),
        schema::REPOSITORY,
        report,
    );
    let name = RepositoryName::parse(&entry.key)
        .map_err(|error| report.error(&entry.place, error.to_string()))
        .ok();
    let kind = kind_word(&section, report);
    let package = package_type(&section, report);
    let access = access(&section, report);
    let cache = cache_policy(&section, report);
    let quarantine = quarantine(&section, kind, report);
    let presign = presign(&section, package, report);
    let description = section
        .text("description", report)
        .map_or_else(String::new, |(text, _)| text.to_owned());
    let (kind, package) = (kind?, package?);
    warn_of_idle_keys(&section, kind, report);
    let hostnames = hostnames(&section, report);
    let (members, member_places) = members(&section, kind, &entry.place, report);
    let kind = match kind {
        RepositoryKind::Remote => {
            let settings = upstream(&section, package, &entry.place, for_all, report)?;
            Kind::Remote(Box::new(settings))
        }
        RepositoryKind::Local => Kind::Local(local(&section, package, report)),
        RepositoryKind::Virtual => Kind::Virtual(virtual_settings(&section, members, report)),
    };
    if package == PackageType::Npm && access.immutable.is_some() && access.mutable.is_none() {
        tell_no_packuments(entry, report);
    }
    if matches!(kind, Kind::Remote(_)) {
        tell_idle_checks(&section, &cache, package, report);
    }
    let mut repository = Repository {
        name: name?,
        kind,
        package,
        description,
        access,
        cache,
        quarantine,
        authoritative: section.truth("authoritative", report).unwrap_or(false),
        reserved: reserved(&section, package, report),
        rules_epoch: 0,
    };
    let not_built = unbuilt_part(&repository);
    repository.rules_epoch = rules_epoch(&repository);
    Some(Built {
        repository,
        not_built,
        place: entry.place.clone(),
        hostnames,
        presign,
        member_places,
    })
}

fn presign(
    section: &Section<'_>,
    package: Option<PackageType>,
    report: &mut Report,
) -> Option<(bool, Place)> {
    let wanted = section.truth("presign", report)?;
    let place = section.key_place("presign")?;
    if wanted && package == Some(PackageType::Alpine) {
        report.error(
            place,
            format!(
                "`{}`: apk does not follow such redirects; larder sends alpine files itself: remove the key",
                section.path("presign")
            ),
        );
    }
    Some((wanted, place.clone()))
}

fn kind_word(section: &Section<'_>, report: &mut Report) -> Option<RepositoryKind> {
    if section.node("type").is_none() {
        return Some(RepositoryKind::Remote);
    }
    section.word("type", KINDS, report)
}

fn tell_no_packuments(entry: &Entry, report: &mut Report) {
    let advice = "add mutable_patterns: ['^(?!.*\\.tgz$).*'], or leave both keys out";
    report.warning(
        &entry.place,
        format!(
            "npm repository `{}` admits no package documents: {advice}",
            entry.key
        ),
    );
}

/// `verify: warn` says nothing where no index states digests, and `no_rollback` nothing where none states a revision.
fn tell_idle_checks(
    section: &Section<'_>,
    cache: &CachePolicy,
    package: PackageType,
    report: &mut Report,
) {
    let mut tell = |key: &str, why: &str| {
        let message = format!("`{}` has no effect: {why}", section.path(key));
        report.warning(section.key_place(key), message);
    };
    match package {
        _ if cache.verify != Verify::Warn => {}
        PackageType::Docker => tell(
            "verify",
            "docker files are named by their digests, which are enforced always",
        ),
        PackageType::Generic => tell(
            "verify",
            "generic repositories have no index that states digests",
        ),
        _ => {}
    }
    if cache.no_rollback && package != PackageType::Rpm {
        tell(
            "no_rollback",
            "only the indexes of rpm repositories state revisions",
        );
    }
}

fn package_type(section: &Section<'_>, report: &mut Report) -> Option<PackageType> {
    if section.node("package").is_none() {
        return Some(PackageType::Generic);
    }
    let words = PackageType::ALL.map(|package| (package.as_str(), package));
    section.word("package", &words, report)
}

/// What a local repository takes.
fn local(section: &Section<'_>, package: PackageType, report: &mut Report) -> LocalSettings {
    LocalSettings {
        allow_overwrite: section
            .truth("allow_overwrite", report)
            .unwrap_or(package == PackageType::Generic),
        max_size: section.size("max_size", report),
        quota: section.size("quota", report),
    }
}

/// What this version cannot do for such a repository.
fn unbuilt_part(repository: &Repository) -> Option<String> {
    let part = match (repository.kind(), repository.package) {
        (RepositoryKind::Remote, _)
        | (RepositoryKind::Local, PackageType::Generic)
        | (RepositoryKind::Virtual, PackageType::Helm) => return None,
        (RepositoryKind::Local, package) => {
            format!(
                "local repositories of the package type {}",
                package.as_str()
            )
        }
        (RepositoryKind::Virtual, package) => {
            return Some(format!(
                "virtual {} repositories are not built in this version of larder, virtual helm repositories are",
                package.as_str()
            ));
        }
    };
    Some(format!("{part} are not built in this version of larder"))
}

/// Keys that say nothing for this kind of repository.
fn warn_of_idle_keys(section: &Section<'_>, kind: RepositoryKind, report: &mut Report) {
    let idle: &[&str] = if kind == RepositoryKind::Remote {
        schema::VIRTUAL_ONLY
    } else {
        schema::REMOTE_ONLY
    };
    let (others, more): (&[&str], &[&str]) = match kind {
        RepositoryKind::Local => (schema::VIRTUAL_ONLY, schema::NOT_LOCAL),
        RepositoryKind::Virtual => (schema::NOT_VIRTUAL, schema::LOCAL_ONLY),
        RepositoryKind::Remote => (&[], schema::LOCAL_ONLY),
    };
    // The one key that both have: of a remote it bounds what is kept, here what is taken.
    let is_shared = |key: &str| kind == RepositoryKind::Local && key == "max_size";
    for key in idle
        .iter()
        .chain(others)
        .chain(more)
        .filter(|key| section.node(key).is_some() && !is_shared(key))
    {
        let more = match kind {
            RepositoryKind::Virtual if key.starts_with("quarantine_") => {
                "; it holds back what its members hold back: write the key at each of them"
            }
            RepositoryKind::Virtual if *key == "cache" => {
                "; what it shows is kept as long as its members keep theirs"
            }
            _ => "",
        };
        let kind = kind.as_str();
        report.warning(
            section.key_place(key),
            format!(
                "`{}` has no effect: this is a {kind} repository{more}",
                section.path(key)
            ),
        );
    }
}

fn hostnames(section: &Section<'_>, report: &mut Report) -> Vec<(String, Place)> {
    let mut names = Vec::new();
    for (text, place) in section.list("hostnames", report).unwrap_or_default() {
        match host_name(text) {
            Ok(name) => names.push((name, place.clone())),
            Err(why) => report.error(place, format!("`{}`: {why}", section.path("hostnames"))),
        }
    }
    if !names.is_empty() {
        let instead =
            "browsers may use these names, and find the repository below them at its usual path";
        not_yet(
            section,
            "hostnames",
            "roots of repositories at host names of their own",
            instead,
            report,
        );
    }
    names
}

fn access(section: &Section<'_>, report: &mut Report) -> AccessPolicy {
    AccessPolicy {
        allow: patterns(section, "allow_patterns", report).unwrap_or_default(),
        deny: patterns(section, "deny_patterns", report).unwrap_or_default(),
        mutable: patterns(section, "mutable_patterns", report),
        immutable: patterns(section, "immutable_patterns", report),
    }
}

/// The patterns of a key; `None` if the key is absent, which differs from an empty list.
fn patterns(section: &Section<'_>, key: &str, report: &mut Report) -> Option<Vec<Pattern>> {
    let items = section.list(key, report)?;
    let mut patterns = Vec::with_capacity(items.len());
    for (text, place) in items {
        match Pattern::compile(text) {
            Ok(pattern) => {
                let advice = globs::looks_like_one(text)
                    .or_else(|| globs::never_matches(text).map(str::to_owned));
                if let Some(advice) = advice {
                    report.warning(place, format!("`{}`: {advice}", section.path(key)));
                }
                patterns.push(pattern);
            }
            Err(error) => report.error(
                place,
                format!("`{}`: {}", section.path(key), globs::refusal(text, &error)),
            ),
        }
    }
    Some(patterns)
}

fn cache_policy(section: &Section<'_>, report: &mut Report) -> CachePolicy {
    let mut policy = CachePolicy::default();
    if let Some(cache) = section.section("cache", schema::CACHE, report) {
        policy.immutable_ttl = cache
            .seconds("immutable_ttl", 0, report)
            .filter(|ttl| !ttl.is_zero());
        policy.mutable_ttl = cache
            .seconds("mutable_ttl", 0, report)
            .unwrap_or(policy.mutable_ttl);
    }
    policy.check_mutable_updates = section
        .truth("check_mutable_updates", report)
        .unwrap_or(false);
    let revalidate = &[
        ("head", Revalidate::Head),
        ("get", Revalidate::Get),
        ("never", Revalidate::Never),
    ];
    policy.revalidate = section.word("revalidate", revalidate, report);
    policy.negative_ttl = section
        .seconds("negative_ttl", 0, report)
        .unwrap_or(policy.negative_ttl);
    policy.missing_status = missing_statuses(section, report);
    policy.verify = section
        .word(
            "verify",
            &[("enforce", Verify::Enforce), ("warn", Verify::Warn)],
            report,
        )
        .unwrap_or_default();
    policy.no_rollback = section.truth("no_rollback", report).unwrap_or(false);
    if let Some(stale) = section.section("stale", schema::STALE, report) {
        policy.stale_on_status = stale_statuses(&stale, report);
        policy.stale_max_age = stale
            .seconds("max_age", 0, report)
            .filter(|age| !age.is_zero());
        policy.stale_while_revalidate = stale
            .seconds("while_revalidate", 0, report)
            .unwrap_or_default();
        let longest = CachePolicy::LONGEST_STALE_WAIT.as_secs();
        policy.stale_wait = stale
            .seconds_up_to("wait", 0, longest, report)
            .unwrap_or(policy.stale_wait);
    }
    policy
}

/// A stale copy may bridge an upstream that is busy, broken or does not let larder in, never one that says the file is gone.
fn stale_statuses(stale: &Section<'_>, report: &mut Report) -> Vec<u16> {
    let mut statuses = Vec::new();
    for (text, place) in stale.list("on_status", report).unwrap_or_default() {
        match text.parse::<u16>() {
            Ok(status @ (401 | 403 | 407 | 408 | 425 | 429 | 500..=599)) => statuses.push(status),
            Ok(status @ (404 | 410 | 451)) => {
                let why = "the upstream no longer has the file or may not show it, and larder must not go on serving it";
                report.error(
                    place,
                    format!(
                        "`{}` must not hold {status}: {why}",
                        stale.path("on_status")
                    ),
                );
            }
            _ => report.error(
                place,
                format!(
                    "`{}` takes 401, 403, 407, 408, 425, 429 and 500 to 599, not {text:?}",
                    stale.path("on_status")
                ),
            ),
        }
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// Absence ends the life of a copy, so only a status that can be about one file may stand for it: not what speaks of larder's own
/// credentials, of its rate, or of trouble that passes.
fn missing_statuses(section: &Section<'_>, report: &mut Report) -> Vec<u16> {
    let mut statuses = Vec::new();
    for (text, place) in section.list("missing_status", report).unwrap_or_default() {
        let path = section.path("missing_status");
        match text.parse::<u16>() {
            Ok(status @ (401 | 407)) => {
                let why = "it speaks of larder's own credentials; set username and password";
                report.error(place, format!("`{path}` must not hold {status}: {why}"));
            }
            Ok(status @ (408 | 421 | 425 | 429 | 500..=599)) => {
                let why =
                    "it says that the upstream is busy or broken, and held copies would be dropped";
                report.error(place, format!("`{path}` must not hold {status}: {why}"));
            }
            Ok(status @ 400..=499) => statuses.push(status),
            _ => report.error(
                place,
                format!("`{path}` takes statuses from 400 to 499, such as 403, not {text:?}"),
            ),
        }
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn quarantine(
    section: &Section<'_>,
    kind: Option<RepositoryKind>,
    report: &mut Report,
) -> QuarantinePolicy {
    let on = section.truth("quarantine_new", report);
    let days = section.number("quarantine_days", 0, 36_500, report);
    // A virtual one is told that none of this is for it.
    let is_asked = kind != Some(RepositoryKind::Virtual);
    if is_asked && on.is_none() && days.is_some_and(|days| days > 0) {
        let advice = "add `quarantine_new: true` to hold new artifacts back";
        report.warning(
            section.key_place("quarantine_days"),
            format!(
                "`{}` has no effect: {advice}",
                section.path("quarantine_days")
            ),
        );
    }
    let dates = &[
        ("ecosystem", DateSource::Ecosystem),
        ("last_modified", DateSource::LastModified),
    ];
    let date = section
        .word("quarantine_date", dates, report)
        .unwrap_or_default();
    let index = section.truth("quarantine_index", report);
    if index == Some(true) {
        not_yet(
            section,
            "quarantine_index",
            "filtering of indexes",
            "held versions stay listed and answer 404",
            report,
        );
    }
    if patterns(section, "quarantine_exclude", report).is_some_and(|list| !list.is_empty()) {
        not_yet(
            section,
            "quarantine_exclude",
            "exceptions from quarantine",
            "what they name is held as well",
            report,
        );
    }
    let missing = &[
        ("allow", MissingDate::Allow),
        ("deny", MissingDate::Deny),
        ("first_seen", MissingDate::FirstSeen),
    ];
    let missing_date = section
        .word("quarantine_missing_date", missing, report)
        .unwrap_or_default();
    let hold = (on == Some(true))
        .then(|| Duration::from_secs(days.unwrap_or(DEFAULT_QUARANTINE_DAYS) * 86_400));
    QuarantinePolicy {
        hold: hold.filter(|hold| !hold.is_zero()),
        missing_date,
        date,
        keeps_merged: index == Some(false),
    }
}

fn not_yet(section: &Section<'_>, key: &str, what: &str, instead: &str, report: &mut Report) {
    let message = format!(
        "`{}`: not built in this version: {what}; {instead}",
        section.path(key)
    );
    report.warning(section.key_place(key), message);
}
