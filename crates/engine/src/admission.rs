//! Steps 1 and 2: what is asked for, and may it be asked for? The only maker of [`Admitted`].

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::{
    ArtifactPath, BuiltIn, ErrorCode, Fault, FaultKind, Mutability, PathError, PathRules,
    RepositoryKind, RepositoryName, SourceKey,
};
use larder_formats::{Form, Format, Links, Operation, Read, RequestParts, SourceBase, SourceSpec};

use crate::claims::StoredClaim;
use crate::counters::count;
use crate::denied;
use crate::engine::{ArtifactRequest, Engine};
use crate::keys;
use crate::repositories::Entry;

/// Suffixes of sidecars that a link to another host may carry without being signed themselves.
const SIDECARS: &[&str] = larder_formats::SIDECAR_SUFFIXES;

/// An upstream document or file that may be obtained: what flights and records are about.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) entry: Arc<Entry>,
    pub(crate) format: &'static dyn Format,
    pub(crate) spec: SourceSpec,
    pub(crate) class: Mutability,
    pub(crate) key: SourceKey,
    /// What a document says of it that is not held yet.
    pub(crate) stated: Option<Arc<StoredClaim>>,
}

impl Wanted {
    pub(crate) fn new(
        entry: Arc<Entry>,
        format: &'static dyn Format,
        spec: SourceSpec,
        class: Mutability,
    ) -> Self {
        let key = keys::key_of(&entry, format, &spec);
        Self {
            entry,
            format,
            spec,
            class,
            key,
            stated: None,
        }
    }

    /// What documents call it: its path with the whole of its query.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match &self.spec.query {
            Some(query) if query.len() > keys::LONGEST_QUERY => {
                Cow::Owned(format!("{}?{query}", self.spec.key_path))
            }
            _ => Cow::Borrowed(&*self.key.path),
        }
    }

    /// As this, with what its document says of it.
    pub(crate) fn stating(self, claim: StoredClaim) -> Self {
        Self {
            stated: Some(Arc::new(claim)),
            ..self
        }
    }

    /// The same document in another variant.
    pub(crate) fn in_variant(&self, variant: &'static str) -> Self {
        let spec = SourceSpec {
            variant,
            ..self.spec.clone()
        };
        Self::new(Arc::clone(&self.entry), self.format, spec, self.class)
    }

    /// The generation that this document heads.
    pub(crate) fn generation(&self) -> Option<larder_formats::Generation> {
        let generation = self.format.generation(&self.spec.key_path)?;
        (self.spec.is_document && generation.document.key_path == self.spec.key_path)
            .then_some(generation)
    }

    /// The generation of which this is a companion, or another file whose name does not say what it is.
    pub(crate) fn member_of(&self) -> Option<larder_formats::Generation> {
        let path = &self.spec.key_path;
        if self.spec.is_document
            || !self.class.is_mutable()
            || self.format.digest_in_name(path).is_some()
        {
            return None;
        }
        self.format.generation(path)
    }

    /// A source that is asked for on behalf of this one: the folders that both are in are spelt as the client spells them.
    pub(crate) fn spelt_alike(&self, other: SourceSpec) -> SourceSpec {
        let folders = |path: &str| path.bytes().filter(|&byte| byte == b'/').count();
        let own = &self.spec;
        // An escape may be a slash (npm): then spelling and meaning do not go side by side.
        if folders(&own.path) != folders(&own.key_path)
            || folders(&other.path) != folders(&other.key_path)
        {
            return other;
        }
        let both = own
            .key_path
            .split('/')
            .zip(other.key_path.split('/'))
            .take(folders(&own.path).min(folders(&other.path)));
        let shared = both.take_while(|(own, other)| own == other).count();
        let path: Vec<&str> = own
            .path
            .split('/')
            .take(shared)
            .chain(other.path.split('/').skip(shared))
            .collect();
        SourceSpec {
            path: path.join("/"),
            ..other
        }
    }

    pub(crate) fn heads_generation(&self) -> bool {
        self.spec.is_document && self.generation().is_some()
    }

    /// For a document that the engine reads on its own account, to learn what it says of a file.
    pub(crate) fn naming_document(
        entry: &Arc<Entry>,
        format: &'static dyn Format,
        spec: SourceSpec,
    ) -> Self {
        let built_in = format.built_in(&entry.repository, &spec.key_path);
        let class = entry
            .repository
            .access
            .classify(&spec.key_path, built_in)
            .map_or(
                Mutability::Mutable {
                    user_defined: false,
                    named_by_digest: false,
                },
                |access| access.mutability,
            );
        Self::new(Arc::clone(entry), format, spec, class)
    }
}

/// A read that the access rules let through.
#[derive(Debug)]
pub(crate) struct Admitted {
    wanted: Arc<Wanted>,
    form: Form,
    bypass_cache: bool,
    /// The subject whose clearance a sidecar takes.
    subject: Option<Arc<Wanted>>,
}

impl Admitted {
    pub(crate) fn wanted(&self) -> &Arc<Wanted> {
        &self.wanted
    }
    pub(crate) fn form(&self) -> Form {
        self.form
    }
    pub(crate) fn bypass_cache(&self) -> bool {
        self.bypass_cache
    }
    pub(crate) fn subject(&self) -> Option<&Arc<Wanted>> {
        self.subject.as_ref()
    }
}

/// What became of a request at the door.
#[derive(Debug)]
pub(crate) enum Admission {
    Read(Box<Admitted>),
    /// Anything that needs no access decision about an artifact.
    Other {
        entry: Arc<Entry>,
        operation: Operation,
    },
}

impl Engine {
    /// Parses and admits a request, or says why not. No I/O.
    pub(crate) fn admit(&self, request: &ArtifactRequest<'_>) -> Result<Admission, Fault> {
        let entry = self
            .entry(request.repository)
            .map_err(|fault| bad_path(request).unwrap_or(fault))?;
        let Some(format) = entry.format else {
            return Err(not_built(
                &entry,
                "its package type is not built in this version of larder",
            ));
        };
        let named = |fault: Fault| fault.in_repository(&entry.repository.name);
        let path = ArtifactPath::parse(request.raw_path, format.path_rules())
            .map_err(|e| named(path_fault(e)))?;
        if format.links_elsewhere()
            && (path.as_str() == "_ext" || path.as_str().starts_with("_ext/"))
        {
            return self.admit_external(&entry, format, request, &path);
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
            operation => return Ok(Admission::Other { entry, operation }),
        };
        read_only(&entry, request)?;
        let policy_path = format
            .subject(&read.source.key_path)
            .unwrap_or(&read.source.key_path)
            .to_owned();
        let class = classify(&entry, format, &policy_path)?;
        let subject = Self::subject_of(&entry, format, &read, request);
        Ok(Admission::Read(Box::new(Admitted {
            form: read.form,
            bypass_cache: read.bypass_cache,
            wanted: Arc::new(Wanted::new(entry, format, read.source, class)),
            subject,
        })))
    }

    /// `_ext/<mac>/<host>/<path>`: a link that larder itself wrote, to another host. Patterns apply to the original path.
    fn admit_external(
        &self,
        entry: &Arc<Entry>,
        format: &'static dyn Format,
        request: &ArtifactRequest<'_>,
        path: &ArtifactPath,
    ) -> Result<Admission, Fault> {
        read_only(entry, request)?;
        let links = Links::new(
            &entry.repository,
            self.link_key(),
            self.link_base(entry, format, request.client_base),
        );
        let forged = || denied::forged(entry, path);
        let external =
            |path: &ArtifactPath| links.resolve_external(path, SIDECARS).ok_or_else(forged);
        let link = external(path)?;
        let policy_path = format
            .subject(&link.original_path)
            .unwrap_or(&link.original_path)
            .to_owned();
        let class = classify(entry, format, &policy_path)?;
        let spec = |path: &ArtifactPath, url| SourceSpec {
            base: SourceBase::External(Box::new(url)),
            path: String::new(),
            query: None,
            key_path: path.as_str().to_owned(),
            accept: None,
            variant: "",
            is_document: false,
        };
        let subject = match format
            .subject(path.as_str())
            .map(ArtifactPath::from_decoded)
        {
            Some(Ok(subject_path)) => {
                let link = external(&subject_path)?;
                Some(Arc::new(Wanted::new(
                    Arc::clone(entry),
                    format,
                    spec(&subject_path, link.url),
                    class,
                )))
            }
            _ => None,
        };
        Ok(Admission::Read(Box::new(Admitted {
            form: Form::Verbatim,
            bypass_cache: false,
            wanted: Arc::new(Wanted::new(
                Arc::clone(entry),
                format,
                spec(path, link.url),
                class,
            )),
            subject,
        })))
    }

    fn subject_of(
        entry: &Arc<Entry>,
        format: &'static dyn Format,
        read: &Read,
        request: &ArtifactRequest<'_>,
    ) -> Option<Arc<Wanted>> {
        entry.repository.quarantine.hold?;
        let path = ArtifactPath::from_decoded(format.subject(&read.source.key_path)?).ok()?;
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
        let class = classify(entry, format, path.as_str()).ok()?;
        Some(Arc::new(Wanted::new(
            Arc::clone(entry),
            format,
            subject.source,
            class,
        )))
    }

    /// A file that a document names, by its decoded path; `None` if the rules do not admit it.
    pub(crate) fn named_file(
        entry: &Arc<Entry>,
        format: &'static dyn Format,
        path: &str,
    ) -> Option<Wanted> {
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
        let class = classify(entry, format, format.subject(path).unwrap_or(path)).ok()?;
        Some(Wanted::new(Arc::clone(entry), format, read.source, class))
    }

    /// The repository, or the fault that says what is wrong with it.
    pub(crate) fn entry(&self, name: &str) -> Result<Arc<Entry>, Fault> {
        let name = RepositoryName::parse(name).map_err(|_| {
            Fault::new(
                FaultKind::NotFound,
                ErrorCode::UnknownRepository,
                "there is no repository of that name",
            )
        })?;
        let unknown = || {
            let message =
                format!("there is no repository named {name}; GET / lists the repositories");
            Fault::new(FaultKind::NotFound, ErrorCode::UnknownRepository, message)
                .in_repository(&name)
        };
        let entry = self
            .repositories
            .load()
            .get(&name)
            .cloned()
            .ok_or_else(unknown)?;
        if let Some(reason) = &entry.not_built {
            return Err(not_built(&entry, reason));
        }
        if entry.repository.kind() != RepositoryKind::Remote {
            return Err(not_built(
                &entry,
                "its kind is not built in this version of larder",
            ));
        }
        Ok(entry)
    }
}

/// Whatever a format makes of a path: an artifact is read, and not by a method that changes something.
fn read_only(entry: &Entry, request: &ArtifactRequest<'_>) -> Result<(), Fault> {
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

/// The class of a path by the rules, or the fault that names the one that keeps it out.
pub(crate) fn classify(
    entry: &Entry,
    format: &'static dyn Format,
    path: &str,
) -> Result<Mutability, Fault> {
    classify_as(entry, path, format.built_in(&entry.repository, path))
}

/// The same, where it is known what the format says of it.
pub(crate) fn classify_as(
    entry: &Entry,
    path: &str,
    built_in: BuiltIn,
) -> Result<Mutability, Fault> {
    let access = entry.repository.access.classify(path, built_in);
    access.map(|access| access.mutability).map_err(|denied| {
        if denied.pattern_limit {
            count(&entry.counters.pattern_limits);
        }
        entry.counters.denied.fetch_add(1, Ordering::Relaxed);
        denied::fault(entry, path, &denied)
    })
}

pub(crate) fn not_built(entry: &Entry, what: &str) -> Fault {
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

/// What is wrong with a path whatever the repository is: that is told first (spec section 1).
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
