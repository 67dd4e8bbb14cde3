//! Steps 1 and 2: what is asked for, and may it be asked for? The only maker of [`Admitted`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::{Access, ArtifactPath, BuiltIn, ErrorCode, Fault, FaultKind, Mutability};
use larder_formats::{
    Form, Format, Links, Naming, Operation, PassThrough, PathFacts, Read, RequestParts, SourceBase,
    SourceSpec,
};

use crate::causes::warn_once;
use crate::counters::count;
use crate::fault::offline;
use crate::policy::addressed::bad_path;
pub(crate) use crate::policy::addressed::{entry, path_fault};
use crate::policy::denied;
use crate::policy::ruling::{Ruling, judge};
use crate::repositories::{Registry, RepositoryState};
use crate::target::{ArtifactRequest, Target};

/// Suffixes of sidecars that a link to another host may carry without being signed themselves.
const SIDECARS: &[&str] = larder_formats::SIDECAR_SUFFIXES;

/// A read that the access rules let through.
#[derive(Debug)]
pub(crate) struct Admitted {
    wanted: Arc<Target>,
    form: Form,
    bypass_cache: bool,
    /// The subject whose clearance a sidecar takes.
    subject: Option<Arc<Target>>,
}

impl Admitted {
    pub(crate) fn wanted(&self) -> &Arc<Target> {
        &self.wanted
    }
    pub(crate) fn form(&self) -> Form {
        self.form
    }
    pub(crate) fn bypass_cache(&self) -> bool {
        self.bypass_cache
    }
    pub(crate) fn subject(&self) -> Option<&Arc<Target>> {
        self.subject.as_ref()
    }
}

/// What became of a request at the door.
#[derive(Debug)]
pub(crate) enum Admission {
    Read(Box<Admitted>),
    /// A local repository: `origin/local` admits its paths itself.
    Local(Arc<RepositoryState>),
    /// A request that the upstream answers itself, each time anew.
    PassThrough {
        wanted: Box<Target>,
        pass: PassThrough,
    },
    /// Anything that needs no access decision about an artifact.
    Other {
        entry: Arc<RepositoryState>,
        operation: Operation,
    },
}

/// Parses and admits a request, or says why not. No I/O.
pub(crate) fn admit(
    registry: &Registry,
    request: &ArtifactRequest<'_>,
) -> Result<Admission, Fault> {
    let entry =
        entry(registry, request.repository).map_err(|fault| bad_path(request).unwrap_or(fault))?;
    if entry.repository.local().is_some() {
        return Ok(Admission::Local(entry));
    }
    let format = entry.format;
    let named = |fault: Fault| fault.in_repository(&entry.repository.name);
    let path = ArtifactPath::parse(request.raw_path, format.profile().path_rules)
        .map_err(|e| named(path_fault(e)))?;
    if is_external(&entry, &path) {
        return admit_external(registry, &entry, request, &path);
    }
    let read = match format.operation(&parts(&entry, request, &path)) {
        Operation::Read(read) => read,
        Operation::PassThrough(pass) => return admit_pass_through(entry, pass, &path),
        operation => return Ok(Admission::Other { entry, operation }),
    };
    read_only(&entry, request)?;
    let class = classify_read(&entry, &read)?;
    let subject = subject_of(&entry, &read, request);
    Ok(Admission::Read(Box::new(Admitted {
        form: read.form,
        bypass_cache: read.bypass_cache,
        wanted: Arc::new(Target::new(entry, format, read.source, read.facts, class)),
        subject,
    })))
}

/// The rules that hold for what is cached hold for what is not: a path that they keep out is not asked of the upstream, and an upstream
/// that is not to be asked is asked nothing. There is nothing that quarantine could hold: such an answer is no artifact, and has no date.
fn admit_pass_through(
    entry: Arc<RepositoryState>,
    pass: PassThrough,
    path: &ArtifactPath,
) -> Result<Admission, Fault> {
    let spec = SourceSpec {
        base: pass.base.clone(),
        path: pass.path.clone(),
        query: pass.query.clone(),
        key_path: path.as_str().trim_end_matches('/').to_owned(),
        accept: None,
        variant: "",
        is_document: false,
    };
    let facts = entry.facts(&spec.key_path);
    let access = classify(&entry, facts.policy_path(&spec.key_path), facts.built_in)?;
    let format = entry.format;
    let wanted = Target::new(entry, format, spec, facts, access);
    if wanted.entry.repository_is_offline() {
        return Err(offline(&wanted));
    }
    Ok(Admission::PassThrough {
        wanted: Box::new(wanted),
        pass,
    })
}

/// `_ext/<mac>/<host>/<path>`: a link that larder itself wrote, to another host. Patterns apply to the original path.
struct External {
    spec: SourceSpec,
    facts: PathFacts,
    /// The path that the rules are asked about, and what the format says of it.
    judged: (String, BuiltIn),
    /// Its subject, if it is a sidecar.
    subject: Option<(SourceSpec, PathFacts)>,
}

/// Reads such a link, or says that it is none of this repository's.
fn external(
    registry: &Registry,
    entry: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
    path: &ArtifactPath,
) -> Result<External, Fault> {
    let (format, repository) = (entry.format, &entry.repository);
    let base = registry.link_base(format, &request.mount);
    let links = Links::new(repository, &registry.link_key, base);
    let forged = || denied::forged(entry, path);
    let read = |path: &ArtifactPath| links.resolve_external(path, SIDECARS).ok_or_else(forged);
    let link = read(path)?;
    let spec = |path: &ArtifactPath, url| SourceSpec {
        base: SourceBase::External(Box::new(url)),
        path: String::new(),
        query: None,
        key_path: path.as_str().to_owned(),
        accept: None,
        variant: "",
        is_document: false,
    };
    let original = format.facts(repository, &link.original_path);
    let policy_path = original.policy_path(&link.original_path).to_owned();
    let facts = format.facts(repository, path.as_str());
    let subject = facts.subject(path.as_str()).map(ArtifactPath::from_decoded);
    let subject = match subject {
        Some(Ok(subject)) => {
            let spec = spec(&subject, read(&subject)?.url);
            Some((spec, format.facts(repository, subject.as_str())))
        }
        _ => None,
    };
    Ok(External {
        spec: spec(path, link.url),
        facts,
        judged: (policy_path, original.built_in),
        subject,
    })
}

fn admit_external(
    registry: &Registry,
    entry: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
    path: &ArtifactPath,
) -> Result<Admission, Fault> {
    read_only(entry, request)?;
    let link = external(registry, entry, request, path)?;
    let class = classify(entry, &link.judged.0, link.judged.1)?;
    let target = |(spec, facts)| {
        let entry = Arc::clone(entry);
        Arc::new(Target::new(
            Arc::clone(&entry),
            entry.format,
            spec,
            facts,
            class,
        ))
    };
    Ok(Admission::Read(Box::new(Admitted {
        form: Form::Verbatim,
        bypass_cache: false,
        wanted: target((link.spec, link.facts)),
        subject: link.subject.map(target),
    })))
}

/// What the rules say of a path that is read, for explanations: nobody is asked, nothing is counted, and a refusal is no fault.
#[derive(Debug)]
pub(crate) struct Considered {
    /// What they say; quarantine has not been asked, for nothing is known of the file yet.
    pub(crate) ruling: Ruling,
    /// The form in which it is given.
    pub(crate) form: Form,
    /// What is read; `None` if it may not be.
    pub(crate) target: Option<Arc<Target>>,
    /// The subject whose clearance a sidecar takes.
    pub(crate) subject: Option<Arc<Target>>,
}

/// Considers a path; `None` if it is of nothing that is read through the cache (a redirect, an answer of larder's own).
///
/// # Errors
/// A link to another host that is not this repository's.
pub(crate) fn consider(
    registry: &Registry,
    entry: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
    path: &ArtifactPath,
) -> Result<Option<Considered>, Fault> {
    let format = entry.format;
    let (spec, facts, judged, subject, form) = if is_external(entry, path) {
        let link = external(registry, entry, request, path)?;
        let form = Form::Verbatim;
        (link.spec, link.facts, link.judged, link.subject, form)
    } else {
        let Operation::Read(read) = format.operation(&parts(entry, request, path)) else {
            return Ok(None);
        };
        let policy_path = read.facts.policy_path(&read.source.key_path).to_owned();
        let judged = (policy_path, read.facts.built_in);
        (read.source, read.facts, judged, None, read.form)
    };
    let (path, built_in) = judged;
    let ruling = judge(&entry.repository, &path, built_in, None);
    let own_subject = subject_spec(entry, &facts, &spec, request);
    let subject = subject.or_else(|| own_subject.map(|read| (read.source, read.facts)));
    let (target, subject) = match &ruling {
        Ruling::Denied(_) => (None, None),
        Ruling::Admitted { access, .. } => {
            let target = |(spec, facts)| {
                let entry = Arc::clone(entry);
                Arc::new(Target::new(entry, format, spec, facts, *access))
            };
            (Some(target((spec, facts))), subject.map(target))
        }
    };
    Ok(Some(Considered {
        ruling,
        form,
        target,
        subject,
    }))
}

/// Whether a path is one of a link to another host, where documents have such links.
fn is_external(entry: &RepositoryState, path: &ArtifactPath) -> bool {
    entry.format.profile().links_elsewhere
        && (path.as_str() == "_ext" || path.as_str().starts_with("_ext/"))
}

/// A path as a format is asked what it means.
pub(crate) fn parts<'a>(
    entry: &'a RepositoryState,
    request: &'a ArtifactRequest<'_>,
    path: &'a ArtifactPath,
) -> RequestParts<'a> {
    RequestParts {
        repository: &entry.repository,
        method: request.method,
        path,
        query: request.query,
        headers: request.headers,
        key: &entry.link_key,
    }
}

/// What a sidecar's subject is, as a request of its own would read it.
fn subject_spec(
    entry: &RepositoryState,
    facts: &PathFacts,
    source: &SourceSpec,
    request: &ArtifactRequest<'_>,
) -> Option<Box<Read>> {
    let path = ArtifactPath::from_decoded(facts.subject(&source.key_path)?).ok()?;
    match entry.format.operation(&parts(entry, request, &path)) {
        Operation::Read(subject) => Some(Box::new(subject)),
        _ => None,
    }
}

fn subject_of(
    entry: &Arc<RepositoryState>,
    read: &Read,
    request: &ArtifactRequest<'_>,
) -> Option<Arc<Target>> {
    entry.repository.quarantine.hold?;
    let subject = subject_spec(entry, &read.facts, &read.source, request)?;
    let path = &subject.source.key_path;
    let class = classify(entry, path, subject.facts.built_in).ok()?;
    Some(Arc::new(Target::new(
        Arc::clone(entry),
        entry.format,
        subject.source,
        subject.facts,
        class,
    )))
}

/// A document that larder reads on its own account, to learn what it says of a file or because a generation is not whole without it;
/// `None` if the rules do not admit it: what no client may ask for, larder does not ask the upstream for either.
pub(crate) fn document(wanted: &Target, spec: SourceSpec) -> Option<Target> {
    let entry = &wanted.entry;
    let facts = entry.facts(&spec.key_path);
    let policy_path = facts.policy_path(&spec.key_path);
    let access = judge(&entry.repository, policy_path, facts.built_in, None).admitted();
    let access = access.ok()?;
    Some(Target::new(
        Arc::clone(entry),
        wanted.format,
        spec,
        facts,
        access,
    ))
}

/// As [`document`], of one that would be obtained for the sake of `wanted`. A file whose document the rules keep out is one that nothing
/// names: the rules admit it, so it is served, and it is as it came. The operator is told.
pub(crate) fn naming_document(wanted: &Target, spec: SourceSpec) -> Option<Target> {
    let index = spec.key_path.clone();
    let document = document(wanted, spec);
    if document.is_none() {
        warn_once!(
            wanted,
            "index_denied",
            "the patterns of this repository keep out the index that states what this file is: it is served without being compared with \
             anything; admit the index if it should be",
            index = index
        );
    }
    document
}

/// Whether there is a document that may be obtained for the sake of a file, to say what it is.
pub(crate) fn may_be_named(wanted: &Target) -> bool {
    let naming = || {
        wanted
            .format
            .naming(&wanted.entry.repository, &wanted.spec.key_path)
            .document
    };
    wanted.facts.naming == Naming::Obtained
        && naming().is_some_and(|spec| document(wanted, spec).is_some())
}

/// A file that a document names, by its decoded path; `None` if the rules do not admit it.
pub(crate) fn named_file(
    entry: &Arc<RepositoryState>,
    format: &'static dyn Format,
    path: &str,
) -> Option<Target> {
    let parsed = ArtifactPath::from_decoded(path).ok()?;
    let headers = http::HeaderMap::new();
    let parts = RequestParts {
        repository: &entry.repository,
        method: &http::Method::GET,
        path: &parsed,
        query: None,
        headers: &headers,
        key: &entry.link_key,
    };
    let Operation::Read(read) = format.operation(&parts) else {
        return None;
    };
    let class = classify_read(entry, &read).ok()?;
    Some(Target::new(
        Arc::clone(entry),
        format,
        read.source,
        read.facts,
        class,
    ))
}

/// Whatever a format makes of a path: an artifact is read, and not by a method that changes something.
fn read_only(entry: &RepositoryState, request: &ArtifactRequest<'_>) -> Result<(), Fault> {
    if matches!(*request.method, http::Method::GET | http::Method::HEAD) {
        return Ok(());
    }
    let message = format!(
        "{} is a remote repository: its artifacts are read with GET and HEAD",
        entry.repository.name
    );
    Err(Fault::new(
        FaultKind::MethodNotAllowed,
        ErrorCode::MethodNotAllowed,
        message,
    )
    .in_repository(&entry.repository.name))
}

/// The class of what a request reads, or the fault that names the rule that keeps it out.
fn classify_read(entry: &RepositoryState, read: &Read) -> Result<Access, Fault> {
    let path = read.facts.policy_path(&read.source.key_path);
    classify(entry, path, read.facts.built_in)
}

/// The class of a path by the rules and by what its format says of it, or the fault that names the rule that keeps it out.
pub(crate) fn classify(
    entry: &RepositoryState,
    path: &str,
    built_in: BuiltIn,
) -> Result<Access, Fault> {
    let access = judge(&entry.repository, path, built_in, None).admitted();
    access.map_err(|denied| {
        if denied.pattern_limit {
            count(&entry.counters.pattern_limits);
        }
        entry.counters.denied.fetch_add(1, Ordering::Relaxed);
        entry.refused.note(path, &denied);
        denied::fault(entry, path, &denied)
    })
}

impl RepositoryState {
    /// What a path of this repository is.
    pub(crate) fn facts(&self, path: &str) -> PathFacts {
        self.format.facts(&self.repository, path)
    }

    pub(crate) fn is_mutable(&self, path: &str) -> bool {
        self.class_at(path).is_some_and(Mutability::is_mutable)
    }

    /// The class of a path; `None` if the rules do not admit it.
    pub(crate) fn class_at(&self, path: &str) -> Option<Mutability> {
        let facts = self.facts(path);
        judge(
            &self.repository,
            facts.policy_path(path),
            facts.built_in,
            None,
        )
        .admitted()
        .ok()
        .map(Access::mutability)
    }
}
