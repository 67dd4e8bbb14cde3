//! A document's bytes with what is needed to read them.

use std::sync::Arc;

use larder_core::{ArtifactRecord, ErrorCode, Fault, FaultKind};
use larder_formats::{Document, Memo};
use url::Url;

use crate::target::Target;

/// A document's bytes with what is needed to read it.
#[derive(Debug)]
pub(crate) struct LoadedDocument {
    body: Vec<u8>,
    content_type: String,
    url: Url,
    wanted: Arc<Target>,
    memo: Memo,
}

impl LoadedDocument {
    pub(crate) fn new(
        body: Vec<u8>,
        record: &ArtifactRecord,
        wanted: Arc<Target>,
    ) -> Result<Self, Fault> {
        let url = Url::parse(&record.source_url).map_err(|_| {
            Fault::new(
                FaultKind::Internal,
                ErrorCode::Internal,
                "a document's URL was not kept",
            )
        })?;
        Ok(Self {
            body,
            content_type: record.headers.content_type.clone().unwrap_or_default(),
            url,
            wanted,
            memo: Memo::default(),
        })
    }

    pub(crate) fn wanted(&self) -> &Arc<Target> {
        &self.wanted
    }

    pub(crate) fn view(&self) -> Document<'_> {
        Document {
            body: &self.body,
            content_type: &self.content_type,
            url: &self.url,
            key_path: &self.wanted.spec.key_path,
            variant: self.wanted.spec.variant,
            memo: Some(&self.memo),
        }
    }
}
