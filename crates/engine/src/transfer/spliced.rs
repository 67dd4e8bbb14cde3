//! Documents whose links begin with whatever the client calls larder: derived once with a mark in the base's place, and the base put in
//! while they are sent. So no number of names that clients make up costs a derivation each (docs/adr/0067).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use larder_core::{ByteRange, UnixMillis};

/// How much is read and sent at a time.
const STEP: u64 = 64 << 10;
/// Bases whose documents are kept as files of their own, with compressed forms: those that are really used.
const FAMILIAR: usize = 4;
/// A familiar base that nobody has used for so long gives its place up, in milliseconds.
const IDLE: i64 = 10 * 60 * 1000;

/// The bases that clients really use. Most installations have one or two; whoever sends another `Host` with each request does not drive
/// them out.
#[derive(Debug, Default)]
pub(crate) struct FamiliarBases(Mutex<VecDeque<(String, UnixMillis)>>);

impl FamiliarBases {
    /// Whether `base` is one of them, now that it is used: it is if there was a place.
    pub(crate) fn admit(&self, base: &str, now: UnixMillis) -> bool {
        let mut bases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, used)) = bases.iter_mut().find(|(known, _)| known == base) {
            *used = now;
            return true;
        }
        bases.retain(|(_, used)| now.0.saturating_sub(used.0) < IDLE);
        let has_place = bases.len() < FAMILIAR;
        if has_place {
            bases.push_back((base.to_owned(), now));
        }
        has_place
    }
}

/// Bytes with marks in them.
#[derive(Debug, Clone)]
pub(crate) enum Marked {
    File(Arc<File>),
    Bytes(Bytes),
}

/// A document with a base in the place of each mark.
#[derive(Debug, Clone)]
pub struct SplicedBody {
    source: Marked,
    /// Length of the marked document.
    length: u64,
    /// Where each mark begins in it.
    points: Arc<[u64]>,
    /// Length of a mark.
    mark: u64,
    base: Bytes,
}

impl SplicedBody {
    /// `points` are the offsets of marks of `mark` bytes in `source`, which has `length` bytes.
    pub(crate) fn new(
        source: Marked,
        length: u64,
        points: Arc<[u64]>,
        mark: usize,
        base: &str,
    ) -> Self {
        Self {
            source,
            length,
            points,
            mark: mark as u64,
            base: Bytes::copy_from_slice(base.as_bytes()),
        }
    }

    /// Length with the base in it.
    pub fn length(&self) -> u64 {
        let count = self.points.len() as u64;
        self.length - count * self.mark + count * self.base.len() as u64
    }

    /// The bytes, all or a range of them.
    pub fn reader(&self, range: Option<ByteRange>) -> SplicedReader {
        let (position, end) = match range {
            Some(range) => (range.start, (range.end + 1).min(self.length())),
            None => (0, self.length()),
        };
        let state = (self.clone(), position, end);
        SplicedReader(Box::pin(futures_util::stream::unfold(
            state,
            |(body, position, end)| async move {
                if position >= end {
                    return None;
                }
                let to = end.min(position + STEP);
                let reading = body.clone();
                let step = match body.source {
                    Marked::Bytes(_) => reading.slice(position, to),
                    Marked::File(_) => {
                        let read = move || reading.slice(position, to);
                        tokio::task::spawn_blocking(read)
                            .await
                            .unwrap_or_else(|error| Err(io::Error::other(error)))
                    }
                };
                // After an error nothing follows.
                let next = if step.is_ok() { to } else { end };
                Some((step, (body, next, end)))
            },
        )))
    }

    /// All of it, read on a thread that may wait.
    pub(crate) fn whole(&self) -> io::Result<Vec<u8>> {
        self.slice(0, self.length()).map(Vec::from)
    }

    /// Where the base of a point begins in the result.
    fn place_of(&self, point: usize) -> u64 {
        let before = point as u64;
        self.points.get(point).map_or(u64::MAX, |at| {
            at - before * self.mark + before * self.base.len() as u64
        })
    }

    /// A part of the result, `from` and `to` being offsets in it.
    fn slice(&self, from: u64, to: u64) -> io::Result<Bytes> {
        let width = self.base.len() as u64;
        // The last base that begins at or before `from`, if any does.
        let mut low = 0;
        let mut high = self.points.len();
        while low < high {
            let middle = low + (high - low) / 2;
            if self.place_of(middle) <= from {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut next = low.saturating_sub(1);
        let mut out = Vec::with_capacity((to - from) as usize);
        let mut position = from;
        while position < to {
            let begins = self.place_of(next);
            if position >= begins && position - begins < width {
                let base = &self.base[(position - begins) as usize..];
                let take = base.len().min((to - position) as usize);
                out.extend_from_slice(&base[..take]);
                position += take as u64;
                next += 1;
                continue;
            }
            if position >= begins {
                next += 1;
                continue;
            }
            // Between two bases: as far from the marked document as the marks before have moved it.
            let until = begins.min(to);
            let source = position - next as u64 * width + next as u64 * self.mark;
            self.copy(source, until - position, &mut out)?;
            position = until;
        }
        Ok(out.into())
    }

    fn copy(&self, from: u64, length: u64, out: &mut Vec<u8>) -> io::Result<()> {
        match &self.source {
            Marked::Bytes(bytes) => {
                let part = bytes
                    .get(from as usize..(from + length) as usize)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                out.extend_from_slice(part);
                Ok(())
            }
            Marked::File(file) => {
                let start = out.len();
                out.resize(start + length as usize, 0);
                file.read_exact_at(&mut out[start..], from)
            }
        }
    }
}

/// A stream of the bytes of a [`SplicedBody`].
pub struct SplicedReader(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>);

impl std::fmt::Debug for SplicedReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SplicedReader")
    }
}

impl Stream for SplicedReader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const MARK: &str = "<mark>";

    fn body(text: &str, base: &str, in_file: bool) -> SplicedBody {
        let points: Vec<u64> = text.match_indices(MARK).map(|(at, _)| at as u64).collect();
        let source = if in_file {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            Marked::File(Arc::new(file))
        } else {
            Marked::Bytes(Bytes::copy_from_slice(text.as_bytes()))
        };
        SplicedBody::new(source, text.len() as u64, points.into(), MARK.len(), base)
    }

    #[test]
    fn every_part_is_that_of_the_replaced_text() {
        for text in [
            "",
            "plain",
            "<mark>",
            "a<mark>bc<mark><mark>d",
            "<mark>x<mark>",
        ] {
            for base in ["", "b", "http://larder.example:8000"] {
                let expected = text.replace(MARK, base);
                for in_file in [false, true] {
                    let body = body(text, base, in_file);
                    assert_eq!(body.length(), expected.len() as u64, "{text} {base}");
                    for from in 0..expected.len() {
                        for to in from..=expected.len() {
                            let part = body.slice(from as u64, to as u64).unwrap();
                            assert_eq!(
                                part,
                                &expected.as_bytes()[from..to],
                                "{text} {base} {from}..{to}"
                            );
                        }
                    }
                    assert_eq!(body.whole().unwrap(), expected.as_bytes());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_long_one_comes_in_steps() {
        use futures_util::StreamExt as _;
        let text = "x".repeat(1000) + MARK;
        let text = text.repeat(500);
        let expected = text.replace(MARK, "a base");
        for (range, expected) in [
            (None, expected.as_bytes()),
            (
                Some(ByteRange {
                    start: 70_000,
                    end: 300_001,
                }),
                &expected.as_bytes()[70_000..=300_001],
            ),
        ] {
            let steps: Vec<Bytes> = body(&text, "a base", true)
                .reader(range)
                .map(|step| step.unwrap())
                .collect()
                .await;
            assert!(steps.len() > 3 && steps.iter().all(|step| step.len() as u64 <= STEP));
            assert!(steps.concat() == expected);
        }
    }

    #[test]
    fn strangers_do_not_drive_out_those_who_are_known() {
        let (bases, at) = (FamiliarBases::default(), UnixMillis);
        for n in 0..FAMILIAR {
            assert!(bases.admit(&format!("known {n}"), at(0)));
        }
        assert!((0..1000).all(|n| !bases.admit(&format!("stranger {n}"), at(IDLE - 1))));
        assert!(bases.admit("known 1", at(IDLE - 1)));
        assert!(bases.admit("newcomer", at(IDLE)) && bases.admit("known 1", at(IDLE)));
    }
}
