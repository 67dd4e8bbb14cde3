//! Clients in the middle of reading a generation. zypper asks for the signature first and for the document after it, dnf the
//! other way round: between the two the document must not be exchanged (docs/adr/0023).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::SourceKey;
use tokio::time::Instant;

/// A client that has a companion asks for the document within this time, and the other way round.
pub(crate) const READING: Duration = Duration::from_millis(500);
/// Longest that a document is kept beyond its life because it is being read.
const LONGEST: Duration = Duration::from_secs(2);
/// Documents whose readers are remembered.
const CAPACITY: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// When a companion was last handed out.
    last: Instant,
    /// Since when the document is kept beyond its life.
    kept_since: Option<Instant>,
    /// Whether a new document is about to take its place: newcomers wait for that one.
    exchanging: bool,
}

/// By the key of the document.
#[derive(Debug, Default)]
pub(crate) struct ReaderGate(Mutex<HashMap<SourceKey, Reading>>);

impl ReaderGate {
    fn lock(&self) -> MutexGuard<'_, HashMap<SourceKey, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A companion of this document was handed out.
    pub(crate) fn note(&self, document: &SourceKey, now: Instant) {
        let mut readings = self.lock();
        if readings.len() >= CAPACITY {
            readings.retain(|_, reading| reading.exchanging || now - reading.last < LONGEST);
        }
        readings
            .entry(document.clone())
            .and_modify(|reading| reading.last = now)
            .or_insert(Reading {
                last: now,
                kept_since: None,
                exchanging: false,
            });
    }

    /// From now on nobody begins to read this document, until it has [`landed`](Self::landed); who may be reading it already
    /// gets it a little longer.
    pub(crate) fn exchange(&self, document: &SourceKey, now: Instant) {
        let reading = Reading {
            last: now,
            kept_since: Some(now),
            exchanging: true,
        };
        let mut readings = self.lock();
        let known = readings.entry(document.clone());
        known
            .and_modify(|known| {
                known.kept_since.get_or_insert(now);
                known.exchanging = true;
            })
            .or_insert(reading);
    }

    pub(crate) fn is_exchanging(&self, document: &SourceKey) -> bool {
        self.lock()
            .get(document)
            .is_some_and(|reading| reading.exchanging)
    }

    /// Whether a document that has expired is still to be served, to someone who may have its companion.
    pub(crate) fn keeps(&self, document: &SourceKey, now: Instant) -> bool {
        let mut readings = self.lock();
        let Some(reading) = readings
            .get_mut(document)
            .filter(|reading| now - reading.last < READING)
        else {
            return false;
        };
        let keeps = now - *reading.kept_since.get_or_insert(now) < LONGEST;
        if keeps {
            // Whoever gets it now may be one who asks for the companion afterwards.
            reading.last = now;
        }
        keeps
    }

    /// When a document may be exchanged that nobody has begun to read since `began`, as far as is known now.
    pub(crate) fn quiet_after(&self, document: &SourceKey, began: Instant) -> Instant {
        let last = self
            .lock()
            .get(document)
            .map_or(began, |reading| reading.last);
        (began.max(last) + READING).min(began + LONGEST + READING)
    }

    /// A flight begins: whatever an interrupted one was about to do, it does no more.
    pub(crate) fn begins(&self, document: &SourceKey) {
        if let Some(reading) = self.lock().get_mut(document) {
            reading.exchanging = false;
        }
    }

    /// The document has been exchanged or renewed.
    pub(crate) fn landed(&self, document: &SourceKey) {
        if let Some(reading) = self.lock().get_mut(document) {
            (reading.kept_since, reading.exchanging) = (None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::RepositoryName;

    fn key() -> SourceKey {
        SourceKey {
            repository: RepositoryName::parse("rpm").unwrap(),
            path: "repodata/repomd.xml".into(),
            variant: "".into(),
        }
    }

    #[test]
    fn a_document_is_kept_for_its_readers_but_not_for_ever() {
        let (readings, document, start) = (ReaderGate::default(), key(), Instant::now());
        assert!(!readings.keeps(&document, start));
        readings.note(&document, start);
        assert!(readings.keeps(&document, start + READING / 2));
        assert!(
            !readings.keeps(&document, start + READING / 2 + READING),
            "nobody reads any more"
        );
        readings.landed(&document);
        let mut now = start + READING * 2;
        let end = now + LONGEST;
        while now < end {
            readings.note(&document, now);
            assert!(readings.keeps(&document, now), "after {:?}", now - start);
            now += READING / 3;
        }
        readings.note(&document, now);
        assert!(!readings.keeps(&document, now), "however many read");
        readings.landed(&document);
        assert!(readings.keeps(&document, now), "the next one");
    }

    #[test]
    fn an_exchange_waits_for_readers_but_not_for_ever() {
        let (readings, document, began) = (ReaderGate::default(), key(), Instant::now());
        assert_eq!(readings.quiet_after(&document, began), began + READING);
        let last = began + READING * 2;
        readings.note(&document, last);
        assert_eq!(readings.quiet_after(&document, began), last + READING);
        readings.note(&document, began + LONGEST * 3);
        assert_eq!(
            readings.quiet_after(&document, began),
            began + LONGEST + READING
        );
    }

    #[test]
    fn an_exchange_ends_when_the_document_has_landed() {
        let (readings, document, now) = (ReaderGate::default(), key(), Instant::now());
        assert!(!readings.is_exchanging(&document));
        readings.exchange(&document, now);
        assert!(readings.is_exchanging(&document));
        readings.begins(&document);
        assert!(!readings.is_exchanging(&document));
        readings.exchange(&document, now);
        readings.landed(&document);
        assert!(!readings.is_exchanging(&document));
        // Readers who have been let through for as long as may be are not let through anew by the exchange.
        readings.note(&document, now);
        assert!(readings.keeps(&document, now));
        readings.note(&document, now + LONGEST);
        assert!(!readings.keeps(&document, now + LONGEST));
        readings.exchange(&document, now + LONGEST);
        assert!(!readings.keeps(&document, now + LONGEST));
    }
}
