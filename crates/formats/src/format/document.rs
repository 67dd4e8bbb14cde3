//! Documents of a format: what they must look like, what they say of files, what is made of them.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

use larder_core::{Digest, Repository, UnixMillis};
use url::Url;

use super::{Offering, Rewritten};
use crate::{Budget, Links, MergeFault, MergeMember, Merged, Meter, SourceSpec};

/// A whole upstream document, on its way to be checked or derived from.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The bytes, without content coding.
    pub body: &'a [u8],
    /// The upstream's `Content-Type`, empty if it sent none.
    pub content_type: &'a str,
    /// Final URL after redirects: relative links are resolved against it.
    pub url: &'a Url,
    /// Decoded path within the repository.
    pub key_path: &'a str,
    /// The source's variant.
    pub variant: &'a str,
    /// Where a format may keep what it has found out about these bytes.
    pub memo: Option<&'a Memo>,
}

impl Document<'_> {
    /// What counts one reading of it, from now on and on this thread, within the usual budget.
    pub fn meter(&self) -> Meter {
        Meter::new(Budget::default(), self.body.len())
    }
}

/// What a format found out about one document when it read it: for the derivations from the same bytes, where it only ever saves
/// time, and for the operator.
#[derive(Default)]
pub struct Memo {
    found: OnceLock<Box<dyn Any + Send + Sync>>,
    remark: OnceLock<String>,
}

impl Memo {
    /// What was kept, if it is of this kind.
    pub(crate) fn get<T: Any>(&self) -> Option<&T> {
        self.found.get()?.downcast_ref()
    }

    /// Keeps something; the first one stays.
    pub(crate) fn keep<T: Any + Send + Sync>(&self, found: T) {
        let _ = self.found.set(Box::new(found));
    }

    /// Says something that the operator should know of the document; the first remark stays. It ends a sentence that begins with
    /// the document's name.
    pub(crate) fn remark(&self, text: String) {
        let _ = self.remark.set(text);
    }

    /// What the operator should know of the document.
    pub fn remarked(&self) -> Option<&str> {
        self.remark.get().map(String::as_str)
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("found", &self.found.get().is_some())
            .field("remark", &self.remark.get())
            .finish()
    }
}

/// What a document says of one file it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Decoded path within the repository under which clients ask for the file (`_ext/…` for other hosts).
    pub path: String,
    /// The file's true URL; empty if that is its own path below `base_url`.
    pub url: String,
    /// Stated digests; empty if none.
    pub digests: Vec<Digest>,
    /// What else the document names the bytes by, where that is no digest of the whole file: one of what [`DocumentFormat::identifier`]
    /// computes.
    pub identity: Option<String>,
    /// The name of the package that the file is of, where the document says so and a virtual repository goes by it.
    pub package: Option<String>,
    /// Stated length.
    pub size: Option<u64>,
    /// Stated publish time.
    pub published_at: Option<UnixMillis>,
    /// Whether the document says that the file names further ones: it has claims of its own to make.
    pub names_files: bool,
}

impl Claim {
    /// What it takes of memory, in bytes.
    pub fn weight(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let texts = self.path.capacity() + self.url.capacity();
        let texts = texts + optional(&self.identity) + optional(&self.package);
        size_of::<Self>() + texts + self.digests.capacity() * size_of::<Digest>()
    }
}

/// Files that are only right together, such as an index and its signature: they are fetched, kept and exchanged as one
/// (docs/adr/0023).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The document that the others go with, and that names most of them.
    pub document: SourceSpec,
    /// Files that it does not name and that may be missing (`repomd.xml.asc`).
    pub companions: Vec<Companion>,
}

/// A file that goes with a document and that the document does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Where it is.
    pub source: SourceSpec,
    /// Whether it signs the document: then another document has another one, and does not come without if the one before had one.
    pub signs: bool,
}

/// The result of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Whole body.
    pub body: Vec<u8>,
    /// `Content-Type`.
    pub content_type: &'static str,
}

/// Why a document cannot be used. The text goes to users: it says what was wrong, at which byte or field, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Computes what a document names a file by, where that is no digest of the whole file. Gets every byte, in order.
pub trait Identifier: Send + std::fmt::Debug {
    /// Takes the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The identities, each in the form in which a [`Claim::identity`] may state it; none if the bytes have none.
    fn finish(self: Box<Self>) -> Vec<String>;
}

/// The documents that may say what a file is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamingDocuments {
    /// The one that names it, with its digest and true URL: it is obtained for the file's sake.
    pub document: Option<SourceSpec>,
    /// Those that are obtained one after the other where the upstream does not have `document`.
    pub otherwise: Vec<SourceSpec>,
    /// Where a path alone does not tell which document names it: all that may, the likeliest first. Of these only documents that are
    /// held are asked; none is obtained for a file's sake. Without `document` among them that one is asked beside them, held or not.
    pub possible: Vec<SourceSpec>,
}

/// What a format knows of its documents. All functions are pure. The defaults are those of a format that has no documents.
pub trait DocumentFormat: Send + Sync + std::fmt::Debug {
    /// The documents that may name the file at a decoded path, where its [facts](crate::PathFacts::naming) say that there are any.
    fn naming(&self, _repository: &Repository, _path: &str) -> NamingDocuments {
        NamingDocuments::default()
    }

    /// The generation that a file belongs to (the document itself, too); `None` if it [stands for itself](crate::PathFacts::role).
    fn generation(&self, _path: &str) -> Option<Generation> {
        None
    }

    /// A number that a newer state of the document never has lower than an older one; `None` if it states none.
    fn revision(&self, _document: &Document<'_>) -> Option<u64> {
        None
    }

    /// Whether a document is what it should be. Called once per new upstream document, before it is committed; must
    /// be cheap (hundreds of MB/s), bounded in memory and depth, and refuse whatever [`rewrite`](DocumentFormat::rewrite) or
    /// [`claims`](DocumentFormat::claims) would refuse. What it takes is counted on `meter`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(
        &self,
        _repository: &Repository,
        _document: &Document<'_>,
        _meter: &Meter,
    ) -> Result<(), Malformed> {
        Ok(())
    }

    /// All files that a document names, in any order. A claim whose link may not be carried is left out. What it takes, the claims
    /// included, is counted on the meter of `links`.
    ///
    /// # Errors
    /// What is wrong with the document.
    fn claims(
        &self,
        _document: &Document<'_>,
        _links: &Links<'_>,
        _sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        Ok(())
    }

    /// Where the upstream of a repository itself says what it offers: of everything, or of what `name` names (a project, a package, an
    /// image, the folder of an index). The document that is found there names in its [`claims`](Self::claims), or in those of the
    /// files of its generation, what is offered.
    fn offering(&self, _repository: &Repository, _name: Option<&str>) -> Offering {
        Offering::Nowhere("a plain file server has no index")
    }

    /// Whether a file that is named by the index at `index` is part of the offer, and not the same file by another name. `_is_named`: whether
    /// that index names a path, too.
    fn is_offered(&self, _index: &str, _path: &str, _is_named: &dyn Fn(&str) -> bool) -> bool {
        true
    }

    /// Whether the file at a decoded path is of no use without what its bytes name in [`claims`](Self::claims) (an image's manifest):
    /// who has it fetched beforehand has these fetched, too.
    fn needs_what_it_names(&self, _path: &str) -> bool {
        false
    }

    /// Makes `form` of a document, links leading back to larder. What it takes is counted on the meter of `links`.
    ///
    /// # Errors
    /// What is wrong with the document, or that it has no such form.
    fn rewrite<'d>(
        &self,
        _document: &Document<'d>,
        form: &'static str,
        _links: &Links<'_>,
    ) -> Result<Rewritten<'d>, Malformed> {
        Err(Malformed(format!(
            "what is served as it came has no form {form:?}"
        )))
    }

    /// As [`rewrite`](DocumentFormat::rewrite), put together in memory.
    ///
    /// # Errors
    /// The same.
    fn derive(
        &self,
        document: &Document<'_>,
        form: &'static str,
        links: &Links<'_>,
    ) -> Result<Derived, Malformed> {
        self.rewrite(document, form, links)
            .map(Rewritten::into_derived)
    }

    /// Makes one document of those of several repositories, the first of them having priority; `None` where `form` is nothing that is
    /// merged. Pure: equal inputs give equal bytes. Only called where the [profile](crate::Profile::merges) says so.
    fn merge(
        &self,
        _members: &[MergeMember<'_>],
        _form: &'static str,
    ) -> Option<Result<Merged, MergeFault>> {
        None
    }

    /// The names of everything that an index has.
    ///
    /// # Errors
    /// If the document cannot be read.
    fn names(&self, _document: &Document<'_>) -> Result<HashSet<String>, Malformed> {
        Ok(HashSet::new())
    }

    /// The name that the package has most likely whose file stands at a decoded path, by that file's own name.
    fn likely_name<'a>(&self, _path: &'a str) -> Option<&'a str> {
        None
    }

    /// What computes the identity of the file at a decoded path; `None` where documents state digests, or nothing.
    fn identifier(&self, _path: &str) -> Option<Box<dyn Identifier>> {
        None
    }
}
