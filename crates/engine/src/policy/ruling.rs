//! The one judge: may it be asked for, and may it leave? Pure: what is known goes in, a verdict and what decided comes out. Admission,
//! clearance, merged documents and explanations all ask here, and nothing else decides.

use larder_core::{
    Access, AccessDenied, ArtifactRecord, BuiltIn, DateSource, Dates, Mutability, QuarantineRuling,
    Repository, UnixMillis,
};

use crate::target::Target;

/// What is known of an artifact when it is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) dates: Dates,
    pub(crate) now: UnixMillis,
}

/// What the rules say of an artifact, with all that led there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// The access rules keep the path out: it may not even be asked for.
    Denied(AccessDenied),
    /// They let it in.
    Admitted {
        /// What let it in, and what gave it its class.
        access: Access,
        /// What quarantine says; `None` if there is nothing that it could be asked about: no facts, or a mutable path.
        quarantine: Option<QuarantineRuling>,
    },
}

impl Ruling {
    /// The admission in it.
    pub(crate) fn admitted(self) -> Result<Access, AccessDenied> {
        match self {
            Self::Denied(denied) => Err(denied),
            Self::Admitted { access, .. } => Ok(access),
        }
    }
}

/// Judges a path of a repository, given what its format says of it: whether it may be asked for, and, where `facts` are known of what is
/// there, whether that may leave.
pub(crate) fn judge(
    repository: &Repository,
    path: &str,
    built_in: BuiltIn,
    facts: Option<&Facts>,
) -> Ruling {
    match repository.access.classify(path, built_in) {
        Err(denied) => Ruling::Denied(denied),
        Ok(access) => Ruling::Admitted {
            access,
            quarantine: facts
                .and_then(|facts| judge_admitted(repository, access.mutability(), facts)),
        },
    }
}

/// The second half of [`judge`], of something that the access rules have let in with this class. Mutable paths are never held
/// ([base], contract, section 5): `None`.
pub(crate) fn judge_admitted(
    repository: &Repository,
    class: Mutability,
    facts: &Facts,
) -> Option<QuarantineRuling> {
    let is_judged = !class.is_mutable();
    is_judged.then(|| repository.quarantine.judge(&facts.dates, facts.now))
}

/// Whether quarantine goes by the time that a registry states of this file, which is then to be found out at the first contact.
pub(crate) fn goes_by_stated_date(wanted: &Target) -> bool {
    let quarantine = &wanted.entry.repository.quarantine;
    quarantine.hold.is_some()
        && quarantine.date == DateSource::Ecosystem
        && wanted.format.profile().states_publish_time
        && !wanted.class.is_mutable()
}

/// The dates of what is remembered. A record keeps the date that counted at the first contact, so that neither a restart nor the loss of
/// an index moves it; where that is not its own `Last-Modified`, a registry had stated it.
pub(crate) fn dates_of(wanted: &Target, record: &ArtifactRecord) -> Dates {
    let modified = || {
        let text = record.headers.last_modified.as_deref();
        text.and_then(UnixMillis::from_http_date)
    };
    let kept = record.published_at;
    let is_stated = kept.is_some() && goes_by_stated_date(wanted) && kept != modified();
    Dates {
        stated: kept.filter(|_| is_stated),
        last_modified: kept.filter(|_| !is_stated),
        first_seen_at: record.first_seen_at,
    }
}

/// The dates of a file that nobody asks for just now: those of its copy, or else the time that its index states of it; `None`: it has
/// neither, and quarantine knows nothing of it yet.
pub(crate) fn dates_known(
    wanted: &Target,
    record: Option<&ArtifactRecord>,
    stated: Option<UnixMillis>,
    now: UnixMillis,
) -> Option<Dates> {
    let of_index = || {
        let stated = stated.filter(|_| goes_by_stated_date(wanted))?;
        Some(Dates {
            stated: Some(stated),
            last_modified: None,
            first_seen_at: now,
        })
    };
    record
        .map(|record| dates_of(wanted, record))
        .or_else(of_index)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_core::{
        AccessPolicy, CachePolicy, ClassRule, Kind, PackageType, Pattern, QuarantinePolicy,
        RepositoryName, ReservedNames, Verdict, VirtualSettings,
    };

    use super::*;

    const DAY: i64 = 86_400_000;

    fn repository() -> Repository {
        let patterns = |text: &str| vec![Pattern::compile(text).unwrap()];
        Repository {
            name: RepositoryName::parse("files").unwrap(),
            package: PackageType::Generic,
            description: String::new(),
            kind: Kind::Virtual(VirtualSettings::default()),
            access: AccessPolicy {
                deny: patterns("secret"),
                mutable: Some(patterns("index")),
                ..AccessPolicy::default()
            },
            cache: CachePolicy::default(),
            quarantine: QuarantinePolicy {
                hold: Some(Duration::from_hours(72)),
                ..QuarantinePolicy::default()
            },
            authoritative: false,
            reserved: ReservedNames::default(),
            rules_epoch: 1,
        }
    }

    fn facts(modified: i64) -> Facts {
        Facts {
            dates: Dates {
                stated: None,
                last_modified: Some(UnixMillis(modified * DAY)),
                first_seen_at: UnixMillis(10 * DAY),
            },
            now: UnixMillis(10 * DAY),
        }
    }

    #[test]
    fn access_comes_before_quarantine_and_mutable_paths_are_never_held() {
        let judge = |path, facts: Option<Facts>| {
            super::judge(&repository(), path, BuiltIn::None, facts.as_ref())
        };
        let Ruling::Denied(denied) = judge("secret/index", Some(facts(9))) else {
            panic!("admitted");
        };
        assert_eq!((denied.rule, denied.pattern), ("deny_patterns", Some(0)));
        let quarantine = |path, facts| match judge(path, facts) {
            Ruling::Admitted { access, quarantine } => {
                (access.classed_by(), quarantine.map(|ruling| ruling.verdict))
            }
            Ruling::Denied(denied) => panic!("{denied:?}"),
        };
        assert_eq!(
            quarantine("index", Some(facts(9))),
            (ClassRule::MutablePattern(0), None)
        );
        let file = ClassRule::NoImmutablePatterns;
        let held = Verdict::Held {
            until: Some(UnixMillis(12 * DAY)),
        };
        assert_eq!(quarantine("file", Some(facts(9))), (file, Some(held)));
        assert_eq!(
            quarantine("file", Some(facts(7))),
            (file, Some(Verdict::Clear))
        );
        assert_eq!(quarantine("file", None), (file, None));
    }
}
