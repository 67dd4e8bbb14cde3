//! What holds for every path and document of a format.

use larder_core::{DigestAlgorithm, PathRules};

/// The constants of a format.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Whether links are absolute URLs (npm, helm) rather than path-absolute (pypi).
    pub absolute_links: bool,
    /// Whether its documents may link to other hosts, so that `_ext/` is for such links. Elsewhere it is a folder like any other.
    pub links_elsewhere: bool,
    /// Whether its documents state something of sidecars by themselves (`x.whl.metadata`); elsewhere a sidecar is where its subject is.
    pub names_sidecars: bool,
    /// Whether a path that the upstream redirects to a folder (a path that ends in a slash) is a folder itself: it is mutable, and
    /// clients are redirected as well, because what comes from there has links that are relative to the folder.
    pub passes_folders_on: bool,
    /// Whether a file with a `Content-Encoding` is kept, and served, in that coding. Elsewhere a file is what its name says, and is decoded.
    pub keeps_coding: bool,
    /// Whether documents of several repositories can be [merged](crate::DocumentFormat::merge).
    pub merges: bool,
    /// Whether the times of publication that its documents state are the registry's own word, by which quarantine may go: what the
    /// publisher writes (a chart's `created`) may be any date.
    pub states_publish_time: bool,
    /// Whether the query of a request is part of what is asked for, and goes to the upstream with it. Elsewhere only the parameters
    /// count that the format names.
    pub forwards_queries: bool,
    /// Version of the code behind [`derive`](crate::DocumentFormat::derive) and [`claims`](crate::DocumentFormat::claims): raise it when
    /// their output changes.
    pub rewriter_version: u32,
    /// Every source variant under which a document of this format may be held, the cheapest first.
    pub document_variants: &'static [&'static str],
    /// Names (lower case) of further fields of an upstream's head that are kept with the bytes.
    pub kept_headers: &'static [&'static str],
    /// The algorithms of the digests that its documents state, where these are few enough to be computed while a file arrives whose
    /// document has not been read yet.
    pub usual_digests: &'static [DigestAlgorithm],
    /// Rules for paths.
    pub path_rules: PathRules,
}

impl Profile {
    /// That of a format which rewrites nothing and whose documents lead nowhere else.
    pub const PLAIN: Self = Self {
        absolute_links: false,
        links_elsewhere: false,
        names_sidecars: false,
        passes_folders_on: false,
        keeps_coding: false,
        merges: false,
        states_publish_time: false,
        forwards_queries: false,
        rewriter_version: 1,
        document_variants: &[""],
        kept_headers: &[],
        usual_digests: &[],
        path_rules: PathRules {
            encoded_scope_slash: false,
        },
    };
}
