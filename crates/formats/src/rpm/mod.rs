//! RPM repositories: `repodata/repomd.xml`, the metadata it names, the packages those name (docs/reference/protocols/rpm.md).
//!
//! A remote may hold any number of repositories below its root, as a mirror does (`9/BaseOS/x86_64/os/`, …): the folder that
//! `repodata/` stands in is a repository's root. Nothing is rewritten, for all of it is signed or named by a digest.
//!
//! | file | knows |
//! |---|---|
//! | `path` | what a path is: master index, companion, metadata named by digest, package |
//! | `xml` | XML without entities, of bounded depth and token size |
//! | `repomd` | the master index: which files make up a generation, their digests, the revision |
//! | `unpack` | gzip, xz, bzip2 and zstd, with bounds |
//! | `primary` | the packages of a repository: path and digest of each |
//! | `metalink` | `metalink` and `mirrorlist` that name larder alone |

mod browsed;
mod metalink;
mod path;
mod primary;
mod repomd;
mod unpack;
mod xml;

use larder_core::{ArtifactPath, Repository};

use crate::generic::file;
use crate::links::{MAX_URL, percent_decode, server_of};
use crate::{
    Claim, Companion, Document, DocumentFormat, Form, Format, Generation, Links, Malformed, Meter,
    NamingDocuments, Offering, Operation, PathFacts, Profile, Protocol, Read, RequestParts,
    Rewritten, Role, SourceSpec,
};

/// RPM repositories, for dnf, yum and zypper.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rpm;

impl Format for Rpm {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        let path = request.path.as_str();
        if let Some((root, form)) = path::listing(path) {
            let master = source(&path::master(root));
            // The root as the client spells it: an escape is never a slash, so that the last one ends both.
            let spelt = request
                .path
                .encoded()
                .rsplit_once('/')
                .map_or_else(String::new, |(root, _)| format!("{root}/"));
            let source = SourceSpec {
                path: path::master(&spelt),
                ..master
            };
            return Operation::Read(Read {
                facts: path::facts(&source.key_path),
                source,
                form: Form::Derived(form),
                bypass_cache: false,
            });
        }
        // One key for `+`, `%2B` and `%2b`: the path as decoded; the upstream is asked in the client's spelling. Queries say
        // nothing here: `countme`, `repo` and `arch` are addressed to mirror managers.
        let facts = path::facts(path);
        let source = SourceSpec {
            query: None,
            is_document: facts.role == Some(Role::Document),
            ..file(request)
        };
        Operation::Read(Read {
            source,
            facts,
            form: Form::Verbatim,
            bypass_cache: false,
        })
    }

    fn facts(&self, _repository: &Repository, path: &str) -> PathFacts {
        path::facts(path)
    }

    fn profile(&self) -> &'static Profile {
        const PROFILE: Profile = Profile {
            absolute_links: true,
            rewriter_version: 4,
            ..Profile::PLAIN
        };
        &PROFILE
    }
}

impl Protocol for Rpm {}

impl DocumentFormat for Rpm {
    /// Only what is held already says anything of a file.
    fn naming(&self, _repository: &Repository, path: &str) -> NamingDocuments {
        NamingDocuments {
            possible: path::masters_of(path)
                .iter()
                .map(|master| source(master))
                .collect(),
            ..NamingDocuments::default()
        }
    }

    fn generation(&self, path: &str) -> Option<Generation> {
        let root = path::root_of_metadata(path)?;
        let master = path::master(root);
        let companion = |(suffix, signs): &(_, bool)| Companion {
            source: source(&format!("{master}{suffix}")),
            signs: *signs,
        };
        let companions = path::COMPANIONS.iter().map(companion).collect();
        Some(Generation {
            document: SourceSpec {
                is_document: true,
                ..source(&master)
            },
            companions,
        })
    }

    fn revision(&self, document: &Document<'_>) -> Option<u64> {
        repomd::read(document.body, &document.meter())
            .ok()?
            .revision()
    }

    fn check(
        &self,
        _repository: &Repository,
        document: &Document<'_>,
        meter: &Meter,
    ) -> Result<(), Malformed> {
        let repomd = repomd::read(document.body, meter)?;
        if let Some(base) = repomd.base() {
            remark_base(document, "metadata", base);
        }
        Ok(())
    }

    fn claims(
        &self,
        document: &Document<'_>,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        if path::is_master(document.key_path) {
            repomd::claims(document, links, sink)
        } else {
            primary::claims(document, links, sink)
        }
    }

    fn offering(&self, _repository: &Repository, name: Option<&str>) -> Offering {
        Offering::in_folder(name, &[&path::master("")])
    }

    fn rewrite<'d>(
        &self,
        document: &Document<'d>,
        form: &'static str,
        links: &Links<'_>,
    ) -> Result<Rewritten<'d>, Malformed> {
        metalink::derive(document, form, links).map(Rewritten::from)
    }
}

/// A file below the repository's root, by its decoded path.
fn source(path: &str) -> SourceSpec {
    SourceSpec {
        base: crate::SourceBase::Files,
        path: path::encoded(path),
        query: None,
        key_path: path.to_owned(),
        accept: None,
        variant: "",
        is_document: path::is_master(path),
    }
}

/// What a `location` means below its repository's root: dnf and zypper append it to the root, and curl resolves `.` and `..` before it
/// sends the request. `None` if it leads out of the root, or is written so that servers differ in where it leads.
fn below_root(href: &str) -> Option<String> {
    if href.contains(['?', '#']) || href.contains("://") {
        return None;
    }
    let mut segments = Vec::new();
    for segment in href.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            segment => segments.push(segment),
        }
    }
    let path = segments.join("/");
    (!path.is_empty() && ArtifactPath::from_decoded(&path).is_ok()).then_some(path)
}

/// Says to the operator that a document leads clients elsewhere by `xml:base`. Where that is is neither asked nor resolved.
fn remark_base(document: &Document<'_>, what: &str, base: &str) {
    let server = server_of(base);
    if let Some(memo) = document.memo {
        memo.remark(format!(
            "it places {what} elsewhere by xml:base (first at {server}): clients fetch them from there by themselves, and not through larder"
        ));
    }
}

/// Where the files of a document's repository are found: on the server that the document itself came from, so that one
/// generation comes from one mirror (hazard W10). Empty if that is where they would be looked for anyway, and if the document came
/// from a URL with a query: that is a signature for this one file, or names it, and leads to no other file.
struct Place {
    root: String,
    /// The root on another server.
    server: Option<url::Url>,
    /// The root at the usual place, where whoever asked for the document spelt it in another way than larder does.
    spelt: Option<url::Url>,
}

impl Place {
    fn of(document: &Document<'_>, links: &Links<'_>) -> Self {
        let root = path::root_of_metadata(document.key_path)
            .unwrap_or_default()
            .to_owned();
        let below = path::encoded(document.key_path);
        let base = links
            .repository()
            .upstream()
            .and_then(|upstream| upstream.base_urls.first());
        let usual = base.and_then(|base| larder_core::join_url(base, &below, None).ok());
        let is_usual = usual
            .as_ref()
            .is_some_and(|usual| is_one_place(usual, document.url));
        let folder = document.url.join("../").ok();
        let spelt = folder
            .clone()
            .filter(|_| is_usual && usual.as_ref() != Some(document.url));
        let server = folder.filter(|_| !is_usual);
        // An address without end would be multiplied by all that is relative to it.
        let [spelt, server] =
            [spelt, server].map(|url| url.filter(|url| url.as_str().len() <= MAX_URL));
        let same_name = document.url.path().rsplit('/').next() == below.rsplit('/').next();
        let in_repodata = document.url.path().rsplit('/').nth(1) == Some("repodata");
        let for_it_alone = document.url.query().is_some();
        Self {
            root,
            server: server.filter(|_| same_name && in_repodata && !for_it_alone),
            spelt,
        }
    }

    fn path(&self, href: &str) -> Option<String> {
        let path = format!("{}{href}", self.root);
        ArtifactPath::from_decoded(&path).ok().map(|_| path)
    }

    /// Where a package is. At the usual place it is asked for in its client's spelling.
    fn url(&self, href: &str) -> String {
        // A store that speaks S3 reads a plain `+` as a space.
        join(
            self.server.as_ref(),
            &path::encoded(href).replace('+', "%2B"),
        )
    }

    /// Where a file is that larder fetches of its own accord: there is no client whose spelling could be taken, but there was
    /// one for the document.
    fn url_beside(&self, href: &str) -> String {
        if self.server.is_some() {
            self.url(href)
        } else {
            join(self.spelt.as_ref(), &path::encoded(href))
        }
    }
}

fn join(root: Option<&url::Url>, encoded: &str) -> String {
    root.and_then(|root| larder_core::join_url(root, encoded, None).ok())
        .map_or_else(String::new, String::from)
}

/// Whether two URLs are one place, however their paths are spelt.
fn is_one_place(one: &url::Url, other: &url::Url) -> bool {
    let decoded = percent_decode(one.path());
    let same_path = decoded.is_some() && decoded == percent_decode(other.path());
    same_path && one.origin() == other.origin() && one.query() == other.query()
}

#[cfg(test)]
mod tests;
