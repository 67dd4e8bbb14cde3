//! Folders: what an upstream redirects to a path that ends in a slash (docs/adr/0053). Such a path is mutable whatever its name says,
//! and where the folder lies below the repository's upstream, clients are redirected too.

use larder_core::{
    Access, AccessDenied, ArtifactRecord, BuiltIn, Fault, Mutability, StoredHeaders,
};
use larder_formats::SourceBase;
use larder_upstream::UpstreamResponse;
use url::Url;

use crate::policy::admission::classify;
use crate::policy::listing;
use crate::policy::ruling::judge;
use crate::repositories::RepositoryState;
use crate::target::{FOLDER, Target, class_of};

/// Notes in what is kept of a head that a redirect to a folder led to it.
pub(crate) fn note(wanted: &Target, response: &UpstreamResponse, headers: &mut StoredHeaders) {
    let Some(folder) = response
        .folder
        .as_ref()
        .filter(|_| wanted.format.profile().passes_folders_on)
    else {
        return;
    };
    let upstream = wanted.entry.repository.upstream();
    let below = upstream.and_then(|upstream| {
        upstream
            .base_urls
            .iter()
            .find_map(|base| below(base, &folder.to))
    });
    let mut text = folder.status.as_u16().to_string();
    if let Some(below) = below {
        // Of the root there is nothing behind the blank.
        text.push(' ');
        text.push_str(&below);
    }
    headers.further.insert(FOLDER.to_owned(), text);
}

/// The address of `url` relative to `base`, query included; `None` if it lies elsewhere. An upstream that has moved to https is the same.
fn below(base: &Url, url: &Url) -> Option<String> {
    let usual = |url: &Url| url.port().is_none();
    let upgraded = base.scheme() == "http"
        && url.scheme() == "https"
        && usual(base)
        && usual(url)
        && base.host() == url.host();
    if base.origin() != url.origin() && !upgraded {
        return None;
    }
    let path = url.path().strip_prefix(base.path())?;
    Some(
        url.query()
            .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
    )
}

impl Target {
    /// The class that quarantine goes by, or the rule that keeps these bytes in. A redirect that is passed on has nothing to hold back;
    /// what was fetched from a folder elsewhere may be a file all the same (`/get/?file=…`), and stays what its path says. What came from
    /// a folder's own path and is no listing is judged as the file that the path names without its slash, in every format: a pattern that
    /// denies `\.apk$` means `x.apk/`, too. `length` is the body's.
    pub(crate) fn judged(
        &self,
        record: &ArtifactRecord,
        length: Option<u64>,
    ) -> Result<Mutability, Fault> {
        let file = match self.judged_as(record, length) {
            JudgedAs::Class(class) => return Ok(class),
            JudgedAs::File(file) => file,
        };
        let (policy_path, built_in) = self.asked_of(file);
        let access = classify(&self.entry, &policy_path, built_in);
        access.map(Access::mutability).map_err(|mut fault| {
            fault
                .message
                .push_str("; the upstream has a file there and no listing, so that the slash behind its name does not count");
            fault
        })
    }

    /// The same for explanations: the class, or what keeps it out; nothing is counted.
    pub(crate) fn judged_quietly(
        &self,
        record: &ArtifactRecord,
        length: Option<u64>,
    ) -> Result<Mutability, AccessDenied> {
        match self.judged_as(record, length) {
            JudgedAs::Class(class) => Ok(class),
            JudgedAs::File(file) => {
                let (policy_path, built_in) = self.asked_of(file);
                judge(&self.entry.repository, &policy_path, built_in, None)
                    .admitted()
                    .map(Access::mutability)
            }
        }
    }

    /// What the rules are asked about a file that came from a folder's path.
    fn asked_of(&self, file: &str) -> (String, BuiltIn) {
        let facts = self.facts_of(file);
        // The root is a folder to its format, and here it is not.
        let built_in = if file.is_empty() {
            BuiltIn::None
        } else {
            facts.built_in
        };
        (facts.policy_path(file).to_owned(), built_in)
    }

    fn judged_as(&self, record: &ArtifactRecord, length: Option<u64>) -> JudgedAs<'_> {
        let is_passed_on = record
            .headers
            .further
            .get(FOLDER)
            .is_some_and(|text| text.contains(' '));
        if is_passed_on {
            return JudgedAs::Class(self.class_of(record));
        }
        let path = &*self.spec.key_path;
        // Documents are checked by their format, and a link to another host is one that a document has made.
        let is_file = !self.spec.is_document && !matches!(self.spec.base, SourceBase::External(_));
        let is_folder = is_file && (path.is_empty() || path.ends_with('/'));
        if !is_folder || listing::is_one(path, &record.headers, length) {
            return JudgedAs::Class(self.class);
        }
        JudgedAs::File(path.trim_end_matches('/'))
    }
}

/// What quarantine goes by.
enum JudgedAs<'a> {
    Class(Mutability),
    /// The file that a folder's path names without its slash.
    File(&'a str),
}

impl RepositoryState {
    /// The class of what is held under a path; `None` if the rules no longer admit it.
    pub(crate) fn class_of_held(&self, path: &str, record: &ArtifactRecord) -> Option<Mutability> {
        self.class_at(path).map(|class| class_of(class, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_below_the_upstream_has_an_address_below_the_repository() {
        let url = |text: &str| Url::parse(text).unwrap();
        let base = url("http://files.example.com/pub/");
        for (to, expected) in [
            ("http://files.example.com/pub/dir/", Some("dir/")),
            ("http://files.example.com/pub/", Some("")),
            (
                "http://files.example.com/pub/a/b/?C=M&O=D",
                Some("a/b/?C=M&O=D"),
            ),
            ("http://files.example.com/pub/a%20b/", Some("a%20b/")),
            ("https://files.example.com/pub/dir/", Some("dir/")),
            ("http://files.example.com/other/dir/", None),
            ("http://files.example.com/public/", None),
            ("http://files.example.com:8080/pub/dir/", None),
            ("https://files.example.com:8443/pub/dir/", None),
            ("http://cdn.example.com/pub/dir/", None),
        ] {
            assert_eq!(below(&base, &url(to)).as_deref(), expected, "{to}");
        }
        assert_eq!(
            below(
                &url("https://files.example.com/"),
                &url("http://files.example.com/dir/")
            ),
            None
        );
    }
}
