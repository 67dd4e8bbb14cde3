//! Derivations that are made: where their bytes are, and which of them are remembered.

use std::sync::Arc;

use larder_storage::Body;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::answer::Representation;
use crate::document::coding::Coding;
use crate::document::marking::Bases;
use crate::transfer::spliced::SplicedBody;

/// Open derivations, as memory: a file counts for its table entry only.
const BUDGET: u64 = 32 << 20;
const FILE_WEIGHT: u64 = 16 << 10;
/// No body in memory weighs more: the cache takes nothing that is heavier than one of its shards.
const MOST_WEIGHT: u64 = 1 << 20;

/// A derivation ready to be served: in memory at first, so that nobody waits for the disk; another takes its place when it is in a file.
#[derive(Debug)]
pub(crate) struct DerivedBody {
    pub(super) body: Body,
    pub(super) keeping: Keeping,
    pub(crate) length: u64,
    pub(crate) content_type: String,
    pub(crate) etag: String,
    /// The base that its links begin with and where that stands, if others may stand there.
    pub(super) bases: Option<Bases>,
    /// The table subtracts what it has added only if this never changes.
    weight: u64,
}

/// What becomes of the bytes of a derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// They stay where they are: stored, or in an unnamed file that goes when it is forgotten.
    Lasting,
    /// They are in memory, on their way into a file.
    OnTheirWay,
    /// They are in memory: the disk had no room.
    Stuck,
}

impl DerivedBody {
    pub(super) fn new(
        body: Body,
        keeping: Keeping,
        content_type: String,
        key: &str,
        bases: Option<Bases>,
    ) -> Self {
        let length = body.length().unwrap_or(0);
        let weight = match (&body, keeping) {
            // Moves to a file in a moment, and must not crowd out everything else until then.
            (Body::Memory(_), Keeping::OnTheirWay) => (length / 8).min(MOST_WEIGHT),
            (Body::Memory(_), _) => length,
            _ => 0,
        };
        Self {
            body,
            keeping,
            length,
            content_type,
            etag: tag(key),
            weight: FILE_WEIGHT + weight + bases.as_ref().map_or(0, Bases::weight),
            bases,
        }
    }

    /// Whether its file still has all its bytes.
    fn is_intact(&self) -> bool {
        match &self.body {
            Body::File { file, .. } => file
                .metadata()
                .is_ok_and(|metadata| metadata.len() == self.length),
            _ => true,
        }
    }

    /// The same with `base` in the place of the one that it is written with.
    pub(super) fn spliced(&self, base: &str) -> SplicedBody {
        let (points, width) = match &self.bases {
            Some(bases) => (Arc::clone(&bases.points), bases.base.len()),
            None => (Arc::default(), 0),
        };
        SplicedBody::new(self.body.clone(), self.length, points, width, base)
    }
}

#[derive(Debug, Clone)]
pub(super) struct ByMemory {
    /// So that no more files are open than may be.
    least: u64,
}

impl Weighter<String, Arc<DerivedBody>> for ByMemory {
    fn weight(&self, _: &String, body: &Arc<DerivedBody>) -> u64 {
        body.weight.max(self.least)
    }
}

#[derive(Debug)]
pub(crate) struct Derivations(pub(super) Cache<String, Arc<DerivedBody>, ByMemory>);

impl Derivations {
    /// With at most so many open files.
    pub(crate) fn new(files: usize) -> Self {
        let least = BUDGET.div_ceil(files.max(1) as u64);
        // Few and heavy entries must not be spread over many shards, of which none could take one.
        Self(Cache::with_weighter(
            files.clamp(8, 512),
            BUDGET,
            ByMemory { least },
        ))
    }

    /// What is made already. A file that somebody has shortened is forgotten, and made again.
    pub(super) fn get(&self, key: &str) -> Option<Arc<DerivedBody>> {
        let body = self.0.get(key)?;
        if body.is_intact() {
            return Some(body);
        }
        larder_upstream::in_request(|| {
            tracing::warn!(
                key,
                "a derivation's file has been shortened; it is made again"
            );
        });
        self.0.remove(key);
        None
    }
}

/// A document as it is sent.
#[derive(Debug)]
pub(crate) enum Sendable {
    /// Kept as it is sent.
    Coded(Coded),
    /// Put together while it is sent: it has no compressed forms, and is not remembered.
    Spliced {
        body: SplicedBody,
        content_type: String,
        etag: String,
    },
}

impl Sendable {
    /// Where its bytes are.
    pub(crate) fn body(&self) -> Body {
        match self {
            Self::Coded(coded) => coded.body(),
            Self::Spliced { body, .. } => Body::streamed(body.clone()),
        }
    }

    /// Whether it may be remembered.
    pub(crate) fn lasts(&self) -> bool {
        match self {
            Self::Coded(coded) => coded.lasts(),
            Self::Spliced { .. } => false,
        }
    }

    /// What the representation says of it.
    pub(crate) fn describe(&self, representation: &mut Representation) {
        match self {
            Self::Coded(coded) => coded.describe(representation),
            Self::Spliced {
                body,
                content_type,
                etag,
            } => {
                representation.length = Some(body.length());
                representation.content_type = Some(content_type.clone());
                representation.content_encoding = None;
                representation.etag = Some(etag.clone());
            }
        }
    }
}

/// A derivation in the coding that a client takes.
#[derive(Debug)]
pub(crate) struct Coded {
    pub(super) body: Arc<DerivedBody>,
    pub(super) coding: Coding,
    /// Whether the next client of this kind will get the same: the coded form is made, and stands in a file.
    pub(super) is_final: bool,
}

impl Coded {
    fn body(&self) -> Body {
        self.body.body.clone()
    }

    /// What is in memory only until its file is written is not remembered, the file will be.
    fn lasts(&self) -> bool {
        self.is_final && self.body.keeping == Keeping::Lasting
    }

    fn describe(&self, representation: &mut Representation) {
        representation.length = Some(self.body.length);
        representation.content_type = Some(self.body.content_type.clone());
        representation.content_encoding =
            (self.coding != Coding::Identity).then(|| self.coding.as_str().to_owned());
        representation.etag = Some(self.body.etag.clone());
    }
}

/// A derivation's entity tag: its key names its bytes, coding included, because it is a pure function of what the key is made of.
pub(super) fn tag(key: &str) -> String {
    format!("\"{}\"", key.get(..40).unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The table subtracts what a value weighs when it goes: if that is not what was added, its budget melts away.
    #[test]
    fn hazard_x2_a_body_that_has_got_its_file_weighs_what_a_file_does() {
        let derivations = Derivations::new(crate::budget::MOST_DERIVED_FILES);
        let put = |body, keeping| {
            let body = DerivedBody::new(body, keeping, String::new(), "k", None);
            derivations.0.insert("k".to_owned(), Arc::new(body));
        };
        for _ in 0..100 {
            let bytes = Bytes::from(vec![b'x'; 4 << 20]);
            put(Body::Memory(bytes), Keeping::OnTheirWay);
            let file = Arc::new(tempfile::tempfile().unwrap());
            put(Body::file(file, 4 << 20), Keeping::Lasting);
            assert_eq!(derivations.0.weight(), FILE_WEIGHT);
        }
        derivations.0.remove("k");
        assert_eq!(derivations.0.weight(), 0);
    }

    #[test]
    fn hazard_x2_what_a_full_disk_leaves_in_memory_weighs_all_of_it() {
        let derivations = Derivations::new(crate::budget::MOST_DERIVED_FILES);
        for n in 0..100 {
            let bytes = Body::Memory(Bytes::from(vec![b'x'; 1 << 20]));
            let body = DerivedBody::new(bytes, Keeping::Stuck, String::new(), "k", None);
            derivations.0.insert(n.to_string(), Arc::new(body));
        }
        assert!(
            derivations.0.len() as u64 * (1 << 20) <= BUDGET,
            "{} MiB",
            derivations.0.len()
        );
        assert!(derivations.0.len() > 10);
    }
}
