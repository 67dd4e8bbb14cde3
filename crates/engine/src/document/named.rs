//! What a derivation is named by.

use larder_core::{
    ArtifactRecord, Digest, Fault, RepositoryName, RepresentationInputs, RepresentationKey,
};
use larder_formats::LinkBase;

use crate::document::coding::Coding;
use crate::fault::internal;
use crate::policy::visibility::Visibility;
use crate::target::Target;

/// Where a document came from, as far as what is derived from it depends on that.
pub(crate) fn source_urls(wanted: &Target, record: &ArtifactRecord) -> Vec<String> {
    // The path, too: what a link or a project's name means may depend on where the document is asked for.
    vec![record.source_url.clone(), wanted.key.path.to_string()]
}

/// What a derivation is named by, whose it is, and of what it is made. Two derivations with equal names have equal bytes.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) repository: RepositoryName,
    /// Digests of the documents that it is made of, in their order.
    pub(crate) sources: Vec<Digest>,
    /// Where each of them came from, and whatever else it depends on.
    pub(crate) source_urls: Vec<String>,
    pub(crate) rewriter_version: u32,
    pub(crate) link_base: String,
    pub(crate) form: &'static str,
    pub(crate) rules_epoch: u64,
    /// What is left out of it.
    pub(crate) visibility: Visibility,
    /// Links that begin with whatever the client calls larder are not worth keeping over a restart.
    pub(crate) persist: bool,
}

impl Named {
    /// One of a single document.
    pub(crate) fn of_document(
        wanted: &Target,
        record: &ArtifactRecord,
        link_base: &LinkBase,
        form: &'static str,
        visibility: &Visibility,
        persist: bool,
    ) -> Result<Self, Fault> {
        let blob = record
            .blob()
            .ok_or_else(|| internal("a document has no bytes"))?;
        Ok(Self {
            repository: wanted.entry.repository.name.clone(),
            sources: vec![blob.digest.clone()],
            source_urls: source_urls(wanted, record),
            rewriter_version: wanted.format.profile().rewriter_version,
            link_base: link_base.0.clone(),
            form,
            rules_epoch: wanted.entry.repository.rules_epoch,
            visibility: visibility.clone(),
            persist,
        })
    }

    pub(crate) fn key(&self, coding: Coding) -> String {
        let sources: Vec<&Digest> = self.sources.iter().collect();
        let source_urls: Vec<&str> = self.source_urls.iter().map(String::as_str).collect();
        RepresentationKey::new(&RepresentationInputs {
            sources: &sources,
            source_urls: &source_urls,
            rewriter_version: self.rewriter_version,
            link_base: &self.link_base,
            form: self.form,
            coding: coding.as_str(),
            rules_epoch: self.rules_epoch,
            hidden: self.visibility.hidden(),
        })
        .to_hex()
    }
}
