//! Long documents that were checked a moment ago: what is derived from them follows at once, and need not read them again. A bounded few
//! stay mapped for that, until it has begun, and at most for a moment (docs/adr/0090).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::loaded::{Arrival, AtHand, LoadedDocument, Room};

/// The longest document that is read into memory to be checked, and stays there for as long as its flight is remembered, in bytes.
pub(super) const SHORT: u64 = 256 << 10;
/// What the longer ones may take in all, in bytes.
const ROOM: usize = 24 << 20;
/// How long one of them waits.
const WAIT: Duration = Duration::from_secs(1);

/// How many bytes are at hand.
#[derive(Debug, Default)]
pub(crate) struct Recent(Arc<AtomicUsize>);

impl Recent {
    /// What stays at hand of a document that was checked. Where there is no room for it, those that came first stay: what is derived
    /// from them is made first, too.
    pub(crate) fn keep(&self, document: LoadedDocument) -> Arrival {
        let length = document.length();
        if length as u64 <= SHORT {
            return Arrival::Whole(Arc::new(document));
        }
        let memo = Arc::clone(document.memo());
        let Some(room) = Room::take(&self.0, length, ROOM) else {
            return Arrival::Memo(memo, AtHand::default());
        };
        let at_hand = AtHand::of(Arc::new(document), room);
        let waiting = at_hand.clone();
        larder_upstream::spawn(async move {
            tokio::time::sleep(WAIT).await;
            waiting.release();
        });
        Arrival::Memo(memo, at_hand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let taken = Arc::default();
        let first = Room::take(&taken, 60, 100).unwrap();
        assert!(Room::take(&taken, 41, 100).is_none());
        assert!(Room::take(&taken, usize::MAX, 100).is_none());
        let second = Room::take(&taken, 40, 100).unwrap();
        drop(first);
        assert!(Room::take(&taken, 60, 100).is_some());
        drop(second);
        assert!(Room::take(&taken, 100, 100).is_some());
    }
}
