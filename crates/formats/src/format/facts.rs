//! What a path is: one parse answers everything that is asked of it later.

use larder_core::{BuiltIn, Digest, ErrorCode};

/// What a format says of one decoded path of a repository. It is found out once, where a request is admitted or a document names the
/// file, and kept with what is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFacts {
    /// What the format itself says of its class; of a sidecar: of its subject's.
    pub built_in: BuiltIn,
    /// The digest that the path itself states of the bytes (an OCI blob's, an RPM repository's metadata's).
    pub digest: Option<Digest>,
    /// Whether a document may state what it is.
    pub naming: Naming,
    /// What it is in its generation; `None` if it stands for itself.
    pub role: Option<Role>,
    /// For files that are not documents: if `Some`, the whole body, at most this many bytes, is put to
    /// [`check`](crate::DocumentFormat::check) before it is kept.
    pub check_limit: Option<u64>,
    /// Names of request headers that choose between forms, for `Vary`; empty if the path has one form.
    pub vary: &'static [&'static str],
    /// The word for an error about something that the upstream does not have.
    pub missing_code: ErrorCode,
    /// Statuses of an upstream by which it says that it has no such thing, beside 404 and 410.
    pub missing_statuses: &'static [u16],
    /// Whether the same bytes have a name by their digest, too, which the head of an answer tells (an OCI tag's manifest).
    pub has_name_by_digest: bool,
    /// Length of the subject's path, with which a sidecar's begins.
    pub(crate) subject: Option<usize>,
}

/// Which documents are asked what a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// None: nothing states what it is, or its own path does.
    #[default]
    Nobody,
    /// Those that are held; none is obtained for the file's sake.
    Held,
    /// One that is obtained for the file's sake.
    Obtained,
}

/// What a file is in its [generation](crate::Generation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The document that the others go with.
    Document,
    /// A file that goes with it.
    Member {
        /// Whether it is to be there before clients see the generation.
        is_essential: bool,
    },
}

impl Default for PathFacts {
    /// A file of which nothing is known.
    fn default() -> Self {
        Self {
            built_in: BuiltIn::None,
            digest: None,
            naming: Naming::Nobody,
            role: None,
            check_limit: None,
            vary: &[],
            missing_code: ErrorCode::NotFound,
            missing_statuses: &[],
            has_name_by_digest: false,
            subject: None,
        }
    }
}

impl PathFacts {
    /// These, of a path that is the sidecar of `subject`, if that is `Some`: the beginning of the path.
    pub(crate) fn beside(self, subject: Option<&str>) -> Self {
        Self {
            subject: subject.map(str::len),
            ..self
        }
    }

    /// The part of `path`, which these are the facts of, whose class, access and clearance it takes as a sidecar
    /// (`x.whl.metadata` -> `x.whl`); `None` if it is no sidecar.
    pub fn subject<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.get(..self.subject?)
    }

    /// Whether it is a sidecar.
    pub fn is_sidecar(&self) -> bool {
        self.subject.is_some()
    }

    /// The path that access rules are asked about: the subject's, or `path` itself.
    pub fn policy_path<'p>(&self, path: &'p str) -> &'p str {
        self.subject(path).unwrap_or(path)
    }

    /// Whether an upstream's status says that it has no such thing, beside 404 and 410.
    pub fn is_missing(&self, status: u16) -> bool {
        self.missing_statuses.contains(&status)
    }

    /// Whether it is to be there before clients see the generation that it is of.
    pub fn is_essential(&self) -> bool {
        matches!(self.role, Some(Role::Member { is_essential: true }))
    }

    /// Whether a digest that is stated of the bytes is part of what the path means, and no mere word of an index: bytes of another digest
    /// are never right, whatever the repository is told to put up with.
    pub fn is_digest_binding(&self) -> bool {
        self.digest.is_some() || self.has_name_by_digest || self.role.is_some()
    }
}
