//! Steps 1 and 2: what is asked for, and may it be asked for? The only maker of [`Admitted`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::{
    Access, ArtifactPath, BuiltIn, ErrorCode, Fault, FaultKind, Mutability, PathError, PathRules,
    RepositoryKind, RepositoryName,
};
use larder_formats::{
    Form, Format, Links, Naming, Operation, PassThrough, PathFacts, Read, RequestParts, SourceBase,
    SourceSpec,
};

use crate::causes::warn_once;
use crate::counters::count;
use crate::fault::offline;
use crate::policy::denied;
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
    if format.profile().links_elsewhere
        && (path.as_str() == "_ext" || path.as_str().starts_with("_ext/"))
    {
        return admit_external(registry, &entry, format, request, &path);
    }
    let parts = RequestParts {
        repository: &entry.repository,
        method: request.method,
        path: &path,
        query: request.query,
        headers: request.headers,
        key: &entry.link_key,
    };
    let read = match format.operation(&parts) {
        Operation::Read(read) => read,
        Operation::PassThrough(pass) => return admit_pass_through(entry, pass, &path),
        operation => return Ok(Admission::Other { entry, operation }),
    };
    read_only(&entry, request)?;
    let class = classify_read(&entry, &read)?;
    let subject = subject_of(&entry, format, &read, request);
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
fn admit_external(
    registry: &Registry,
    entry: &Arc<RepositoryState>,
    format: &'static dyn Format,
    request: &ArtifactRequest<'_>,
    path: &ArtifactPath,
) -> Result<Admission, Fault> {
    read_only(entry, request)?;
    let links = Links::new(
        &entry.repository,
        &registry.link_key,
        registry.link_base(format, &request.mount),
    );
    let forged = || denied::forged(entry, path);
    let external = |path: &ArtifactPath| links.resolve_external(path, SIDECARS).ok_or_else(forged);
    let link = external(path)?;
    let original = format.facts(&entry.repository, &link.original_path);
    let class = classify(
        entry,
        original.policy_path(&link.original_path),
        original.built_in,
    )?;
    let target = |path: &ArtifactPath, url| {
        let spec = SourceSpec {
            base: SourceBase::External(Box::new(url)),
            path: String::new(),
            query: None,
            key_path: path.as_str().to_owned(),
            accept: None,
            variant: "",
            is_document: false,
        };
        let facts = format.facts(&entry.repository, path.as_str());
        Target::new(Arc::clone(entry), format, spec, facts, class)
    };
    let wanted = target(path, link.url);
    let subject = match wanted
        .facts
        .subject(path.as_str())
        .map(ArtifactPath::from_decoded)
    {
        Some(Ok(subject)) => {
            let url = external(&subject)?.url;
            Some(Arc::new(target(&subject, url)))
        }
        _ => None,
    };
    Ok(Admission::Read(Box::new(Admitted {
        form: Form::Verbatim,
        bypass_cache: false,
        wanted: Arc::new(wanted),
        subject,
    })))
}

fn subject_of(
    entry: &Arc<RepositoryState>,
    format: &'static dyn Format,
    read: &Read,
    request: &ArtifactRequest<'_>,
) -> Option<Arc<Target>> {
    entry.repository.quarantine.hold?;
    let path = ArtifactPath::from_decoded(read.facts.subject(&read.source.key_path)?).ok()?;
    let parts = RequestParts {
        repository: &entry.repository,
        method: request.method,
        path: &path,
        query: request.query,
        headers: request.headers,
        key: &entry.link_key,
    };
    let Operation::Read(subject) = format.operation(&parts) else {
        return None;
    };
    let class = classify(entry, path.as_str(), subject.facts.built_in).ok()?;
    Some(Arc::new(Target::new(
        Arc::clone(entry),
        format,
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
    let access = &entry.repository.access;
    let access = access.classify(policy_path, facts.built_in).ok()?;
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

/// The repository, or the fault that says what is wrong with it.
pub(crate) fn entry(registry: &Registry, name: &str) -> Result<Arc<RepositoryState>, Fault> {
    let name = RepositoryName::parse(name).map_err(|_| {
        Fault::new(
            FaultKind::NotFound,
            ErrorCode::UnknownRepository,
            "there is no repository of that name",
        )
    })?;
    let unknown = || {
        let message = format!("there is no repository named {name}; GET / lists the repositories");
        Fault::new(FaultKind::NotFound, ErrorCode::UnknownRepository, message).in_repository(&name)
    };
    let entry = registry.load().get(&name).cloned().ok_or_else(unknown)?;
    if let Some(reason) = &entry.not_built {
        return Err(not_built(&entry, reason));
    }
    if entry.repository.kind() == RepositoryKind::Virtual {
        return Err(not_built(
            &entry,
            "its kind is not built in this version of larder",
        ));
    }
    Ok(entry)
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
    let access = entry.repository.access.classify(path, built_in);
    access.map_err(|denied| {
        if denied.pattern_limit {
            count(&entry.counters.pattern_limits);
        }
        entry.counters.denied.fetch_add(1, Ordering::Relaxed);
        denied::fault(entry, path, &denied)
    })
}

pub(crate) fn not_built(entry: &RepositoryState, what: &str) -> Fault {
    let name = &entry.repository.name;
    let place = match entry.repository.kind() {
        RepositoryKind::Virtual => format!("; the repository {name} is at /api/v1/virtual/{name}"),
        RepositoryKind::Local | RepositoryKind::Remote => String::new(),
    };
    let message = format!("repository {name} cannot be served: {what}{place}");
    Fault::new(
        FaultKind::NotImplemented,
        ErrorCode::NotImplemented,
        message,
    )
    .in_repository(&entry.repository.name)
}

/// What is wrong with a path whatever the repository is: that is told first (contract, section 1).
fn bad_path(request: &ArtifactRequest<'_>) -> Option<Fault> {
    let path = request
        .raw_path
        .strip_prefix('/')
        .unwrap_or(request.raw_path);
    // Below the repository it is folded; the repository's own place in an address is not.
    if request.repository == "." {
        return Some(path_fault(PathError::DotSegment));
    }
    let lenient = PathRules {
        encoded_scope_slash: true,
    };
    ArtifactPath::parse(&format!("{}/{path}", request.repository), lenient)
        .err()
        .map(path_fault)
}

pub(crate) fn path_fault(error: PathError) -> Fault {
    let kind = if error == PathError::TooLong {
        FaultKind::UriTooLong
    } else {
        FaultKind::BadRequest
    };
    let message = format!("{error}: correct the client, or what rewrites its addresses on the way");
    Fault::new(kind, ErrorCode::InvalidPath, message)
        .briefly(error.to_string())
        .by_rule("paths")
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
        self.repository
            .access
            .classify(facts.policy_path(path), facts.built_in)
            .ok()
            .map(Access::mutability)
    }
}
