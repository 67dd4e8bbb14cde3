//! A document's bytes with what is needed to read them.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use larder_core::{ArtifactRecord, ErrorCode, Fault, FaultKind};
use larder_formats::{Document, Memo};
use url::Url;

use crate::target::Target;

/// What is at hand of a document that has just arrived and been checked.
#[derive(Debug, Clone)]
pub(crate) enum Arrival {
    /// All of it.
    Whole(Arc<LoadedDocument>),
    /// What its format found out about it: a long one's bytes are in its file, to be read by whoever has got a parser for them. For a
    /// moment they may be at hand as well.
    Memo(Arc<Memo>, AtHand),
}

/// A long document that is still mapped, or in memory, until it is let go.
#[derive(Debug, Clone, Default)]
pub(crate) struct AtHand(Arc<Mutex<Option<Lingering>>>);

/// A document, and the room that it takes.
#[derive(Debug)]
struct Lingering {
    document: Arc<LoadedDocument>,
    _room: Room,
}

impl AtHand {
    pub(crate) fn of(document: Arc<LoadedDocument>, room: Room) -> Self {
        let lingering = Lingering {
            document,
            _room: room,
        };
        Self(Arc::new(Mutex::new(Some(lingering))))
    }

    /// The document, if it is still there and all of it can be read.
    pub(crate) fn get(&self) -> Option<Arc<LoadedDocument>> {
        let document = {
            let at_hand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let lingering = at_hand.as_ref();
            lingering.map(|lingering| Arc::clone(&lingering.document))
        };
        document.filter(|document| document.is_intact())
    }

    /// Lets it go: who has it keeps it.
    pub(crate) fn release(&self) {
        let released = {
            let mut at_hand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            at_hand.take()
        };
        drop(released);
    }
}

/// Bytes of memory out of a fixed number, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    taken: Arc<AtomicUsize>,
    length: usize,
}

impl Room {
    /// `length` bytes, if no more than `most` are `taken` then.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, length: usize, most: usize) -> Option<Self> {
        let fits = |before: usize| before.checked_add(length).filter(|after| *after <= most);
        let was_taken = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        was_taken.ok().map(|_| Self {
            taken: Arc::clone(taken),
            length,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.length, Ordering::AcqRel);
    }
}

/// A document's bytes with what is needed to read it.
#[derive(Debug)]
pub(crate) struct LoadedDocument {
    body: Bytes,
    /// The file that `body` is a mapping of, if it is one.
    file: Option<Arc<File>>,
    content_type: String,
    url: Url,
    wanted: Arc<Target>,
    memo: Arc<Memo>,
}

impl LoadedDocument {
    pub(crate) fn new(
        body: impl Into<Bytes>,
        record: &ArtifactRecord,
        wanted: Arc<Target>,
    ) -> Result<Self, Fault> {
        Self::with_memo(body, record, wanted, Arc::default())
    }

    /// With what its format found out about these bytes before.
    pub(crate) fn with_memo(
        body: impl Into<Bytes>,
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
            body: body.into(),
            file: None,
            content_type: record.headers.content_type.clone().unwrap_or_default(),
            url,
            wanted,
            memo,
        })
    }

    /// The same; its bytes are a mapping of this file.
    pub(crate) fn mapped_of(self, file: Option<Arc<File>>) -> Self {
        Self { file, ..self }
    }

    /// Whether its file, if it has one, still has all its bytes. A part of a mapping that is there no more must not be touched.
    fn is_intact(&self) -> bool {
        let length = self.body.len() as u64;
        let has_all = |file: &Arc<File>| file.metadata().is_ok_and(|found| found.len() >= length);
        self.file.as_ref().is_none_or(has_all)
    }

    pub(crate) fn wanted(&self) -> &Arc<Target> {
        &self.wanted
    }

    /// How many bytes it has.
    pub(crate) fn length(&self) -> usize {
        self.body.len()
    }

    /// What its format found out about it.
    pub(crate) fn memo(&self) -> &Arc<Memo> {
        &self.memo
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
