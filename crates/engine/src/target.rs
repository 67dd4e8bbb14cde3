//! What is meant: a document or file of an upstream, with its class and the key under which it is remembered.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use larder_core::{
    Access, ArtifactRecord, Digest, Mount, Mutability, Principal, SourceKey, StoredHeaders,
    UnixMillis, fresh_until,
};
use larder_formats::{Format, Generation, Held, Naming, PathFacts, Role, SourceSpec};

use crate::claim::StoredClaim;
use crate::keys;
use crate::repositories::RepositoryState;

/// Stands beside the kept fields of an upstream's head; no upstream can send it, for no format keeps a field of this name. The
/// status, a space, and the folder's address below the repository; the status alone if it lies elsewhere.
pub(crate) const FOLDER: &str = "larder-folder";

/// A request for an artifact.
#[derive(Debug, Clone)]
pub struct ArtifactRequest<'a> {
    /// The repository's name as it stands in the URL.
    pub repository: &'a str,
    /// Percent-encoded path below the repository, without leading slash and without query.
    pub raw_path: &'a str,
    /// Raw query, without `?`.
    pub query: Option<&'a str>,
    /// GET, HEAD, or POST for what formats pass through.
    pub method: &'a Method,
    /// All request headers.
    pub headers: &'a HeaderMap,
    /// On whose behalf it is made.
    pub principal: Principal,
    /// Where this client sees the repository.
    pub mount: Mount<'a>,
    /// Request body; empty unless the method is POST.
    pub body: Bytes,
}

/// An upstream document or file that may be obtained: what flights and records are about. There is none that the access rules have not
/// been asked about: [`new`](Self::new) takes their answer, and the others are made from one that has it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) entry: Arc<RepositoryState>,
    pub(crate) format: &'static dyn Format,
    pub(crate) spec: SourceSpec,
    /// What its path is.
    pub(crate) facts: PathFacts,
    pub(crate) class: Mutability,
    pub(crate) key: SourceKey,
    /// What a document says of it that is not held yet.
    pub(crate) stated: Option<Arc<StoredClaim>>,
    /// No other module writes one down field by field.
    _admitted: (),
}

impl Target {
    pub(crate) fn new(
        entry: Arc<RepositoryState>,
        format: &'static dyn Format,
        spec: SourceSpec,
        facts: PathFacts,
        access: Access,
    ) -> Self {
        let key = keys::key_of(&entry, format, &spec);
        Self {
            entry,
            format,
            spec,
            facts,
            class: access.mutability(),
            key,
            stated: None,
            _admitted: (),
        }
    }

    /// What another path of the same repository is: a file that this document names, say.
    pub(crate) fn facts_of(&self, path: &str) -> PathFacts {
        self.format.facts(&self.entry.repository, path)
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

    /// It as its format sees it on the way to a client, with what was kept of the upstream's head.
    pub(crate) fn held<'a>(
        &'a self,
        headers: &'a StoredHeaders,
        digest: Option<&'a Digest>,
    ) -> Held<'a> {
        Held {
            path: &self.spec.key_path,
            query: self.spec.query.as_deref(),
            facts: &self.facts,
            digest,
            headers,
            key: &self.entry.link_key,
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
        Self {
            key: keys::key_of(&self.entry, self.format, &spec),
            spec,
            stated: None,
            ..self.clone()
        }
    }

    /// As whoever asks for it who gets the variant of this key; `None` if nobody does.
    pub(crate) fn as_variant(&self, variant: &str) -> Option<Self> {
        let spec = self
            .format
            .in_variant(&self.spec, keys::format_variant(variant))?;
        Some(Self {
            key: keys::key_of(&self.entry, self.format, &spec),
            spec,
            stated: None,
            ..self.clone()
        })
    }

    /// Whether files are waited for by way of it: files wait for their documents, so documents must never wait for files; a document that
    /// heads a generation waits for the files of it, so these must not wait for others either. It knows what they are: one of which that is
    /// still to be asked is wanted by a client, and waits for the document as other files do.
    pub(crate) fn is_waited_for(&self) -> bool {
        let asks = self.facts.naming != Naming::Nobody && self.stated.is_none();
        self.spec.is_document || (self.facts.role.is_some() && !asks)
    }

    /// The generation that this document heads.
    pub(crate) fn generation(&self) -> Option<Generation> {
        self.heads_generation()
            .then(|| self.format.generation(&self.spec.key_path))?
    }

    /// The generation of which this is a companion, or another file whose name does not say what it is.
    pub(crate) fn member_of(&self) -> Option<Generation> {
        self.is_member()
            .then(|| self.format.generation(&self.spec.key_path))?
    }

    /// Whether it is [a member](Self::member_of) of a generation.
    pub(crate) fn is_member(&self) -> bool {
        self.facts.role.is_some()
            && !self.spec.is_document
            && self.class.is_mutable()
            && self.facts.digest.is_none()
    }

    /// A source that is asked for on behalf of this one: the folders that both are in are spelt as the client spells them.
    pub(crate) fn with_client_encoding(&self, other: SourceSpec) -> SourceSpec {
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
        self.spec.is_document && self.facts.role == Some(Role::Document)
    }

    /// The same bytes under a name that stands for them for ever.
    pub(crate) fn same_bytes(&self, spec: SourceSpec) -> Self {
        Self {
            key: keys::key_of(&self.entry, self.format, &spec),
            facts: self.facts_of(&spec.key_path),
            spec,
            class: Mutability::Immutable,
            stated: None,
            ..self.clone()
        }
    }

    /// The same, spelt as whoever asked for `document` spells the folders that both are in.
    pub(crate) fn spelt_as(self, document: &Self) -> Self {
        Self {
            spec: document.with_client_encoding(self.spec.clone()),
            ..self
        }
    }

    /// The class of what is remembered: a folder's is mutable, whatever the path's own is.
    pub(crate) fn class_of(&self, record: &ArtifactRecord) -> Mutability {
        class_of(self.class, record)
    }
}

pub(crate) fn class_of(class: Mutability, record: &ArtifactRecord) -> Mutability {
    if record.headers.further.contains_key(FOLDER) && !class.is_mutable() {
        return Mutability::Mutable {
            user_defined: false,
            named_by_digest: false,
        };
    }
    class
}

/// Remaining life in whole seconds; `None` = unlimited.
pub(crate) fn remaining_seconds(
    record: &ArtifactRecord,
    wanted: &Target,
    now: UnixMillis,
) -> Option<i64> {
    let until = fresh_until(
        record,
        wanted.class_of(record),
        &wanted.entry.repository.cache,
    )?;
    Some((until.0.saturating_sub(now.0)).div_euclid(1000))
}
