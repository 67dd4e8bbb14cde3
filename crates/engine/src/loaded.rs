//! A document's bytes with what is needed to read them.

use std::sync::Arc;

use larder_core::{ArtifactRecord, ErrorCode, Fault, FaultKind};
use larder_formats::{Document, Memo};
use url::Url;

use crate::target::Target;

/// What is at hand of a document that has just arrived and been checked.
#[derive(Debug, Clone)]
pub(crate) enum Arrival {
    /// All of it.
    Whole(Arc<LoadedDocument>),
    /// What its format found out about it: a long one's bytes are in its file, to be read by whoever has got a parser for them.
    Memo(Arc<Memo>),
}

/// A document's bytes with what is needed to read it.
#[derive(Debug)]
pub(crate) struct LoadedDocument {
    body: Vec<u8>,
    content_type: String,
    url: Url,
    wanted: Arc<Target>,
    memo: Arc<Memo>,
}

impl LoadedDocument {
    pub(crate) fn new(
        body: Vec<u8>,
        record: &ArtifactRecord,
        wanted: Arc<Target>,
    ) -> Result<Self, Fault> {
        Self::with_memo(body, record, wanted, Arc::default())
    }

    /// With what its format found out about these bytes before.
    pub(crate) fn with_memo(
        body: Vec<u8>,
        record: &ArtifactRecord,
        wanted: Arc<Target>,
        memo: Arc<Memo>,
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
            memo,
        })
    }

    pub(crate) fn wanted(&self) -> &Arc<Target> {
        &self.wanted
    }

    /// What stays in memory until the first derivations are made: of a document up to `short` bytes all.
    pub(crate) fn at_hand(self, short: usize) -> Arrival {
        if self.body.len() <= short {
            Arrival::Whole(Arc::new(self))
        } else {
            Arrival::Memo(self.memo)
        }
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
