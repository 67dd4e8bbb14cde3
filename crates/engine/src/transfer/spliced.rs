//! Documents whose links begin with whatever the client calls larder: derived once with a mark in the base's place, and the base put in
//! while they are sent. So no number of names that clients make up costs a derivation each (docs/adr/0067).

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use larder_core::UnixMillis;
use larder_storage::{Body, Chunks, Source};

/// How much is read and sent at a time.
const STEP: u64 = 64 << 10;
/// How much is read at a time of what is put together at once.
const BLOCK: u64 = 256 << 10;
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

/// A document with a base in the place of each mark.
#[derive(Debug, Clone)]
pub(crate) struct SplicedBody {
    /// Bytes with marks in them.
    source: Body,
    /// Length of the marked document.
    length: u64,
    /// Where each mark begins in it.
    points: Arc<[u64]>,
    /// Length of a mark.
    mark: u64,
    base: Bytes,
}

/// A piece of a spliced document.
enum Piece {
    /// A part of the base.
    Base(Range<usize>),
    /// A part of the marked document.
    Source(Range<u64>),
}

impl SplicedBody {
    /// `points` are the offsets of marks of `mark` bytes in `source`, which has `length` bytes.
    pub(crate) fn new(
        source: Body,
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
    pub(crate) fn length(&self) -> u64 {
        let count = self.points.len() as u64;
        self.length - count * self.mark + count * self.base.len() as u64
    }

    /// All of it, read on a thread that may wait.
    pub(crate) fn whole(&self) -> io::Result<Vec<u8>> {
        let length = self.length();
        let mut out = Vec::with_capacity(length as usize);
        let mut at = 0;
        while at < length {
            let to = length.min(at + BLOCK);
            let pieces = self.pieces(at, to);
            let (from, part) = match self.needed(&pieces)? {
                Some((from, part)) => (from, part.read_blocking(u64::MAX)?),
                None => (0, Vec::new()),
            };
            self.put_together(&pieces, from, &part, &mut out)?;
            at = to;
        }
        Ok(out)
    }

    /// A part of the result, `from` and `to` being offsets in it.
    async fn slice(&self, from: u64, to: u64) -> io::Result<Bytes> {
        let pieces = self.pieces(from, to);
        let (begin, part) = match self.needed(&pieces)? {
            Some((begin, part)) => (begin, part.read(u64::MAX).await?),
            None => (0, Bytes::new()),
        };
        let mut out = Vec::with_capacity((to - from) as usize);
        self.put_together(&pieces, begin, &part, &mut out)?;
        Ok(out.into())
    }

    /// Where the base of a point begins in the result.
    fn place_of(&self, point: usize) -> u64 {
        let before = point as u64;
        self.points.get(point).map_or(u64::MAX, |at| {
            at - before * self.mark + before * self.base.len() as u64
        })
    }

    /// What a part of the result is made of.
    fn pieces(&self, from: u64, to: u64) -> Vec<Piece> {
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
        let mut pieces = Vec::new();
        let mut position = from;
        while position < to {
            let begins = self.place_of(next);
            if position >= begins && position - begins < width {
                let start = (position - begins) as usize;
                let take = (self.base.len() - start).min((to - position) as usize);
                pieces.push(Piece::Base(start..start + take));
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
            pieces.push(Piece::Source(source..source + (until - position)));
            position = until;
        }
        pieces
    }

    /// The part of the marked document that these are made of, and where it begins there.
    fn needed(&self, pieces: &[Piece]) -> io::Result<Option<(u64, Body)>> {
        let mut parts = pieces.iter().filter_map(|piece| match piece {
            Piece::Source(part) => Some(part),
            Piece::Base(_) => None,
        });
        let Some(first) = parts.next() else {
            return Ok(None);
        };
        let end = parts.next_back().unwrap_or(first).end;
        let part = self.source.range(first.start, end);
        let part = part.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Some((first.start, part)))
    }

    /// `part` is the part of the marked document that begins at `from`.
    fn put_together(
        &self,
        pieces: &[Piece],
        from: u64,
        part: &[u8],
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        for piece in pieces {
            let bytes = match piece {
                Piece::Base(range) => self.base.get(range.clone()),
                Piece::Source(range) => {
                    part.get((range.start - from) as usize..(range.end - from) as usize)
                }
            };
            out.extend_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }
}

impl Source for SplicedBody {
    fn length(&self) -> Option<u64> {
        Some(self.length())
    }

    fn read(&self, range: Option<Range<u64>>) -> Chunks {
        let range = range.unwrap_or(0..self.length());
        let state = (self.clone(), range.start, range.end);
        Box::pin(futures_util::stream::unfold(
            state,
            |(body, position, end)| async move {
                if position >= end {
                    return None;
                }
                let to = end.min(position + STEP);
                let step = body.slice(position, to).await;
                // After an error nothing follows.
                let next = if step.is_ok() { to } else { end };
                Some((step, (body, next, end)))
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const MARK: &str = "<mark>";

    /// Where the marked document is.
    const PLACES: [&str; 3] = ["memory", "file", "stream"];

    /// A document that comes as a stream.
    #[derive(Debug)]
    struct Streamed(Bytes);

    impl Source for Streamed {
        fn length(&self) -> Option<u64> {
            Some(self.0.len() as u64)
        }

        fn read(&self, range: Option<Range<u64>>) -> Chunks {
            let range = range.unwrap_or(0..self.0.len() as u64);
            let part = Body::Memory(self.0.clone()).range(range.start, range.end);
            part.unwrap().chunks()
        }
    }

    fn body(text: &str, base: &str, place: &str) -> SplicedBody {
        let points: Vec<u64> = text.match_indices(MARK).map(|(at, _)| at as u64).collect();
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let source = match place {
            "memory" => Body::Memory(bytes),
            "stream" => Body::streamed(Streamed(bytes)),
            _ => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(text.as_bytes()).unwrap();
                Body::file(Arc::new(file), text.len() as u64)
            }
        };
        SplicedBody::new(source, text.len() as u64, points.into(), MARK.len(), base)
    }

    #[tokio::test]
    async fn every_part_is_that_of_the_replaced_text() {
        for text in [
            "",
            "plain",
            "<mark>",
            "a<mark>bc<mark><mark>d",
            "<mark>x<mark>",
        ] {
            for base in ["", "b", "http://larder.example:8000"] {
                let expected = text.replace(MARK, base);
                for place in PLACES {
                    let body = body(text, base, place);
                    assert_eq!(body.length(), expected.len() as u64, "{text} {base}");
                    for from in 0..expected.len() {
                        for to in from..=expected.len() {
                            let part = body.slice(from as u64, to as u64).await.unwrap();
                            assert_eq!(
                                part,
                                &expected.as_bytes()[from..to],
                                "{text} {base} {from}..{to}"
                            );
                        }
                    }
                    let whole = tokio::task::spawn_blocking(move || body.whole());
                    assert_eq!(whole.await.unwrap().unwrap(), expected.as_bytes());
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
        let all = 0..expected.len();
        for range in [all, 70_000..300_002] {
            let expected = &expected.as_bytes()[range.clone()];
            let body = Body::streamed(body(&text, "a base", "file"));
            let part = body.range(range.start as u64, range.end as u64).unwrap();
            let steps: Vec<Bytes> = part.chunks().map(|step| step.unwrap()).collect().await;
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
