//! Why a remote or a local repository answers as it does, in words.

use std::sync::Arc;

use http::HeaderMap;
use http::header::ACCEPT;
use larder_core::{
    Access, AccessDenied, ArtifactPath, ArtifactRecord, Clock, Content, Decision, Digest, Fault,
    Mutability, RepositoryKind, UnixMillis, Verdict, decide, fresh_until, shown,
};
use larder_formats::Naming;
use larder_storage::LocalFile;

use crate::catalog::Catalog;
use crate::claim::StoredClaim;
use crate::decided::words;
use crate::document::Documents;
use crate::fault::{Remembered, storage_fault};
use crate::keys::same_origin;
use crate::origin::remote::{self, Remote};
use crate::origin::virtual_::Virtual;
use crate::policy::addressed::path_fault;
use crate::policy::admission::{Considered, consider};
use crate::policy::explain::{self, Explanation, Point, PointValue, key_of, ttl_key};
use crate::policy::ruling::{Facts, Ruling, dates_known, judge, judge_admitted};
use crate::repositories::{Registry, RepositoryState};
use crate::target::{ArtifactRequest, Target};

/// Forms of one path that are looked at.
const FORMS: u32 = 32;

/// Explains. Looks at what is held only.
#[derive(Debug)]
pub(crate) struct Explainer {
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) virtuals: Arc<Virtual>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Explainer {
    /// Over what the origins are made of.
    pub(crate) fn new(base: &remote::Parts, remote: &Arc<Remote>, virtuals: &Arc<Virtual>) -> Self {
        Self {
            registry: Arc::clone(&base.registry),
            catalog: Arc::clone(&base.catalog),
            documents: Arc::clone(&base.documents),
            remote: Arc::clone(remote),
            virtuals: Arc::clone(virtuals),
            clock: Arc::clone(&base.clock),
        }
    }
}

/// What is held of a file, and said of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    record: Option<Arc<ArtifactRecord>>,
    /// How old it is, where it is not held.
    age: Option<ArtifactRecord>,
    absence: Option<Remembered>,
    pub(super) claim: Option<StoredClaim>,
}

impl Known {
    /// Whether there is something that quarantine can judge.
    fn dated(&self) -> Option<&ArtifactRecord> {
        let record = self.record.as_deref();
        let record = record.filter(|record| !matches!(record.content, Content::Negative { .. }));
        record.or(self.age.as_ref())
    }

    pub(super) fn is_held(&self) -> bool {
        let record = self.record.as_deref();
        record.is_some_and(ArtifactRecord::has_body)
    }
}

impl Explainer {
    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(super) async fn of_remote(
        &self,
        entry: &Arc<RepositoryState>,
        request: &ArtifactRequest<'_>,
        path: &ArtifactPath,
    ) -> Result<Explanation, Fault> {
        let Some(considered) = consider(&self.registry, entry, request, path)? else {
            return Ok(answered_by_larder(entry, path));
        };
        match &considered.ruling {
            Ruling::Denied(denied) => Ok(refused(entry, path, denied)),
            Ruling::Admitted { access, .. } => {
                let asked = (request.headers, &considered);
                self.of_admitted(entry, path, *access, asked).await
            }
        }
    }

    /// What is explained to whoever names no form of something that has several: the one that is held and was heard of last.
    async fn held_form(
        &self,
        target: &Arc<Target>,
        headers: &HeaderMap,
    ) -> Result<Arc<Target>, Fault> {
        if target.spec.variant.is_empty() || !names_no_form(headers) {
            return Ok(Arc::clone(target));
        }
        let start = (target.key.path.to_string(), String::new());
        let rows = self
            .catalog
            .page(&target.key.repository, Some(&start), FORMS)
            .await
            .map_err(|error| storage_fault(&target.entry, &error))?;
        let forms = rows
            .into_iter()
            .take_while(|(path, ..)| *path == start.0)
            .filter(|(_, variant, record)| {
                record.has_body() && same_origin(variant, &target.key.variant)
            });
        let latest = forms.max_by_key(|(.., record)| record.contacted_at);
        let held = latest.and_then(|(_, variant, _)| target.as_variant(&variant));
        Ok(held.map_or_else(|| Arc::clone(target), Arc::new))
    }

    async fn of_admitted(
        &self,
        entry: &Arc<RepositoryState>,
        path: &ArtifactPath,
        access: Access,
        (headers, considered): (&HeaderMap, &Considered),
    ) -> Result<Explanation, Fault> {
        let Some(target) = &considered.target else {
            return Ok(answered_by_larder(entry, path));
        };
        let target = &self.held_form(target, headers).await?;
        let repository = &entry.repository;
        let known = self.known(target).await?;
        let record = known.record.as_deref();
        let length = record.and_then(|record| record.blob().map(|blob| blob.size));
        let class = record.map_or(Ok(target.class), |record| {
            target.judged_quietly(record, length)
        });
        let class = match class {
            Ok(class) => class,
            Err(denied) => return Ok(refused(entry, path, &denied)),
        };
        let cached_as = record.map_or(target.class, |record| target.class_of(record));
        let mut made = Explanation {
            pattern: explain::pattern(repository, access),
            class: explain::class(repository, access, cached_as),
            ttl: explain::ttl(repository, cached_as, &repository.cache),
            freshness: self.freshness(target, cached_as, &known),
            quarantine: self.quarantine(target, class, considered, &known).await?,
            digest: digest_of(target, &known),
            ..blank(entry, path)
        };
        made.verdict = if made.quarantine.value == PointValue::Text("held".to_owned()) {
            Point {
                value: PointValue::Text("hold back".to_owned()),
                ..made.quarantine.clone()
            }
        } else {
            self.decision(target, cached_as, &known)
        };
        Ok(made)
    }

    /// What is held of a target, and what the documents that are held say of it.
    pub(super) async fn known(&self, target: &Arc<Target>) -> Result<Known, Fault> {
        let storage = |error| storage_fault(&target.entry, &error);
        let record = self.remote.copies.held(target).await.map_err(storage)?;
        let age = match &record {
            Some(record) if record.has_body() => None,
            _ => self.catalog.age(target).await.map_err(storage)?,
        };
        let is_named = !target.spec.is_document && target.facts.naming != Naming::Nobody;
        let claim = if is_named {
            self.documents.held_claim(target).await
        } else {
            None
        };
        let absence = match record {
            None => self.documents.absence(target).await,
            Some(_) => None,
        };
        Ok(Known {
            record,
            age,
            absence,
            claim,
        })
    }

    fn freshness(&self, target: &Target, class: Mutability, known: &Known) -> Point {
        let repository = &target.entry.repository;
        if let Some(absence) = &known.absence {
            let because = format!("the upstream answered {} a moment ago", absence.status);
            return Point::new("absent", because)
                .until(absence.over)
                .by(key_of(repository, "negative_ttl"));
        }
        let Some(record) = known.record.as_deref() else {
            return Point::new("not held", "nothing of it is held");
        };
        if let Content::Negative { status } = record.content {
            let because = format!("the upstream answered {status}");
            return Point::new("absent", because).by(key_of(repository, "negative_ttl"));
        }
        if !known.is_held() {
            return Point::new("not held", "only its head is known");
        }
        let now = self.now();
        let until = fresh_until(record, class, &repository.cache);
        let is_fresh = until.is_none_or(|until| now < until);
        let form = match target.spec.variant {
            "" => String::new(),
            form => format!(" (the form {form})"),
        };
        let because = format!(
            "the upstream was last heard of at {}{form}",
            record.contacted_at.to_rfc3339()
        );
        let point = Point::new(if is_fresh { "fresh" } else { "expired" }, because).until(until);
        match ttl_key(repository, class) {
            Some(key) => point.by(key),
            None => point,
        }
    }

    /// What a GET would come to, where neither patterns nor quarantine stand in the way.
    fn decision(&self, target: &Target, class: Mutability, known: &Known) -> Point {
        let repository = &target.entry.repository;
        let decision = match &known.absence {
            Some(absence) => Decision::ServeNegative(absence.status),
            None => decide(
                known.record.as_deref(),
                class,
                &repository.cache,
                self.now(),
            ),
        };
        let (word, why) = words(decision);
        let point = Point::new(word, why);
        let asks = !matches!(decision, Decision::Serve | Decision::ServeNegative(_));
        if asks && target.entry.repository_is_offline() {
            let why = format!("{why}, and the upstream is not asked");
            return Point::new("refuse", why).by(key_of(repository, "offline"));
        }
        let key = match decision {
            Decision::ServeNegative(_) => Some(key_of(repository, "negative_ttl")),
            Decision::Revalidate(_) => Some(key_of(repository, "revalidate")),
            Decision::Fetch { expired: false } => None,
            _ => ttl_key(repository, class),
        };
        match key {
            Some(key) => point.by(key),
            None => point,
        }
    }

    /// What quarantine says; of a sidecar, what it says of its subject.
    async fn quarantine(
        &self,
        target: &Arc<Target>,
        class: Mutability,
        considered: &Considered,
        own: &Known,
    ) -> Result<Point, Fault> {
        let repository = &target.entry.repository;
        let of_subject;
        let (judged, known) = match &considered.subject {
            Some(subject) if repository.quarantine.hold.is_some() => {
                of_subject = self.known(subject).await?;
                (subject, &of_subject)
            }
            _ => (target, own),
        };
        let now = self.now();
        let stated = known.claim.as_ref().and_then(|claim| claim.published_at);
        let dates = dates_known(judged, known.dated(), stated, now);
        let ruling =
            dates.and_then(|dates| judge_admitted(repository, class, &Facts { dates, now }));
        let mut point = explain::quarantine(repository, class, ruling.as_ref());
        if considered.subject.is_some() {
            let path = shown(&judged.spec.key_path);
            point.because = format!("as its subject {path}: {}", point.because);
        }
        Ok(point)
    }

    pub(super) async fn of_local(
        &self,
        entry: &Arc<RepositoryState>,
        path: &ArtifactPath,
    ) -> Result<Explanation, Fault> {
        let repository = &entry.repository;
        let kind = entry.facts(path.as_str());
        let file = self
            .catalog
            .local_file(&repository.name, path.as_str())
            .await
            .map_err(|error| storage_fault(entry, &error))?;
        let facts = match &file {
            Some(file) => {
                let dates = self.catalog.dates_of_upload(entry, path.as_str(), file);
                Some(Facts {
                    dates: dates.await.map_err(|error| storage_fault(entry, &error))?,
                    now: self.now(),
                })
            }
            None => None,
        };
        let policy_path = kind.policy_path(path.as_str());
        let (access, ruling) = match judge(repository, policy_path, kind.built_in, facts.as_ref()) {
            Ruling::Denied(denied) => return Ok(refused(entry, path, &denied)),
            Ruling::Admitted { access, quarantine } => (access, quarantine),
        };
        let held = ruling.filter(|ruling| ruling.verdict != Verdict::Clear);
        let quarantine = explain::quarantine(repository, access.mutability(), ruling.as_ref());
        let (freshness, verdict, digest) = of_upload(file.as_ref());
        let verdict = match held {
            Some(_) => Point {
                value: PointValue::Text("hold back".to_owned()),
                ..quarantine.clone()
            },
            None => verdict,
        };
        Ok(Explanation {
            verdict,
            pattern: explain::pattern(repository, access),
            class: explain::class(repository, access, access.mutability()),
            ttl: Point::none("uploads do not expire"),
            freshness,
            quarantine,
            digest,
            ..blank(entry, path)
        })
    }
}

/// Whether a request says nothing of the form that it wants: it takes any, or the one that explanations have.
fn names_no_form(headers: &HeaderMap) -> bool {
    let open = ["*/*", "application/json"];
    headers
        .get(ACCEPT)
        .is_none_or(|accept| open.iter().any(|open| accept == open))
}

pub(super) fn parse(entry: &RepositoryState, raw: &str) -> Result<ArtifactPath, Fault> {
    ArtifactPath::parse(raw, entry.format.profile().path_rules)
        .map_err(|error| path_fault(error).in_repository(&entry.repository.name))
}

/// An explanation in which nothing is known but the repository.
pub(super) fn blank(entry: &RepositoryState, path: &ArtifactPath) -> Explanation {
    let nothing = || Point::none("it is not asked for");
    let member = match entry.repository.kind() {
        RepositoryKind::Virtual => "no member is asked",
        _ => "the repository is not virtual",
    };
    Explanation {
        repository: explain::repository(&entry.repository),
        path: path.as_str().to_owned(),
        verdict: nothing(),
        pattern: nothing(),
        class: nothing(),
        ttl: nothing(),
        freshness: nothing(),
        quarantine: nothing(),
        member: Point::none(member),
        digest: nothing(),
    }
}

/// What the access rules keep out.
pub(super) fn refused(
    entry: &RepositoryState,
    path: &ArtifactPath,
    denied: &AccessDenied,
) -> Explanation {
    let pattern = explain::denied(&entry.repository, denied);
    Explanation {
        verdict: Point {
            value: PointValue::Text("deny".to_owned()),
            ..pattern.clone()
        },
        pattern,
        ..blank(entry, path)
    }
}

/// Freshness, verdict and digest of what was uploaded to a path.
fn of_upload(file: Option<&LocalFile>) -> (Point, Point, Point) {
    let Some(file) = file else {
        let because = "nothing was uploaded to this path";
        return (
            Point::new("not held", because),
            Point::new("refuse", because),
            Point::none(because),
        );
    };
    (
        Point::new(
            "fresh",
            "an upload is what it is until it is replaced or deleted",
        ),
        Point::new("serve", "it was uploaded, and is held"),
        explain::digest(&file.blob.digest, "computed of the upload"),
    )
}

/// What is no artifact.
fn answered_by_larder(entry: &RepositoryState, path: &ArtifactPath) -> Explanation {
    let because = "this is no file and no index: larder answers or redirects it, or passes it on to the upstream";
    Explanation {
        verdict: Point::new("answer", because),
        ..blank(entry, path)
    }
}

/// The digest of the bytes, by whoever knows it best.
fn digest_of(target: &Target, known: &Known) -> Point {
    let held: Option<&Digest> = known
        .record
        .as_deref()
        .and_then(|record| Some(&record.blob()?.digest));
    let is_verified = known
        .record
        .as_deref()
        .is_some_and(|record| record.verified);
    let stated = known.claim.as_ref().and_then(|claim| claim.digests.first());
    match (held, &target.facts.digest, stated) {
        (Some(held), ..) if is_verified => explain::digest(
            held,
            "computed of the bytes that are held, which are what is stated of them",
        ),
        (Some(held), ..) => explain::digest(held, "computed of the bytes that are held"),
        (None, Some(own), _) => explain::digest(own, "its name says so"),
        (None, None, Some(stated)) => explain::digest(
            stated,
            "an index that is held says so; no bytes are held yet",
        ),
        (None, None, None) => Point::none("nothing states it, and no bytes are held"),
    }
}
