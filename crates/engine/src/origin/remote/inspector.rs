//! What the format of a source has to say of its body, and what the documents state that name it.

use std::fs::File;
use std::sync::Arc;

use larder_core::{ArtifactRecord, Digest, DigestAlgorithm, ErrorCode};
use larder_formats::{Document, Identifier, Malformed};
use larder_storage::Spool;
use url::Url;

use crate::claim::StoredClaim;
use crate::counters::count;
use crate::document::coding::name_says_compressed;
use crate::document::expectation::Expectation;
use crate::document::inquiry::Inquiry;
use crate::fault::{FetchError, stopped, unusable_document};
use crate::target::Target;
use crate::transfer::files::read_received;
use crate::transfer::fill::Fill;
use crate::transfer::received::{FetchedBody, Received, Whole};
use crate::transfer::verify::Inspector;

/// The format of a source, and the documents that name it.
pub(super) struct FormatInspector<'a> {
    pub(super) wanted: &'a Arc<Target>,
    pub(super) expectation: Expectation,
    pub(super) inquiry: &'a Inquiry,
}

impl Inspector for FormatInspector<'_> {
    fn algorithms(&self, can_be_read_again: bool) -> Vec<DigestAlgorithm> {
        let usual = self.wanted.format.profile().usual_digests;
        self.expectation.algorithms(usual, can_be_read_again)
    }

    fn expected(&self) -> Option<Digest> {
        let is_file = !self.wanted.spec.is_document;
        self.expectation.sha256().filter(|_| is_file).cloned()
    }

    fn identifier(&self) -> Option<Box<dyn Identifier>> {
        self.wanted.format.identifier(&self.wanted.spec.key_path)
    }

    async fn identities(&self, file: Arc<File>, length: u64) -> Option<Vec<String>> {
        let identifier = self.identifier()?;
        let documents = &self.inquiry.documents;
        let identified = documents.identify_file(file, length, identifier);
        identified.await.ok()
    }

    fn digested_part(&self, content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
        let key_path = &self.wanted.spec.key_path;
        self.wanted
            .format
            .digested_part(key_path, content_type, body)
    }

    fn keeps_coding(&self) -> bool {
        self.wanted.format.profile().keeps_coding
    }

    fn is_compressed_by_name(&self) -> bool {
        name_says_compressed(&self.wanted.spec.key_path)
    }

    async fn decode(&self, whole: &Whole, coding: &str) -> Result<Whole, FetchError> {
        let documents = &self.inquiry.documents;
        documents.decode(self.wanted, whole, coding).await
    }

    async fn claim(&mut self) -> Option<StoredClaim> {
        self.inquiry
            .resolve(&mut self.expectation, self.wanted)
            .await
    }

    async fn claim_read_again(&self) -> Option<StoredClaim> {
        self.inquiry.refreshed_claim(self.wanted).await
    }

    async fn check(&self, whole: &Whole) -> Result<(), FetchError> {
        let (fill, spool, length) = (
            Arc::clone(&whole.fill),
            whole.received.spool.as_ref().map(Spool::reader),
            whole.received.length,
        );
        let draft = &whole.fill.draft;
        let content_type = draft.headers.content_type.clone().unwrap_or_default();
        let url = Url::parse(&draft.source_url);
        let url = url.map_err(|_| {
            FetchError::unusable(ErrorCode::Internal, "a download's URL was not kept")
        })?;
        let (wanted, checked) = (self.wanted, Arc::clone(self.wanted));
        let (repository, documents) = (&wanted.entry.repository.name, &self.inquiry.documents);
        let verdict = documents.parse_blocking(repository, length, move || {
            let body = read_received(&fill, spool, length)?;
            let document = Document {
                body: &body,
                content_type: &content_type,
                url: &url,
                key_path: &checked.spec.key_path,
                variant: checked.spec.variant,
                memo: None,
            };
            Ok::<_, FetchError>(checked.format.check(
                &checked.entry.repository,
                &document,
                &document.meter(),
            ))
        });
        verdict
            .await
            .map_err(stopped)??
            .map_err(|Malformed(reason)| {
                count(&wanted.entry.counters.malformed_documents);
                unusable_document(wanted, &reason)
            })
    }

    async fn accept_document(
        &self,
        fill: &Arc<Fill>,
        received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> Result<FetchedBody, FetchError> {
        let documents = &self.inquiry.documents;
        documents
            .accept_document(self.wanted, fill, received, prior)
            .await
    }
}
