//! Documents whose links begin with whatever a client calls larder: written once, with the base of the client that came first in the
//! place of each mark. Where that base stands is remembered, so that another client's can take its place while the document is sent
//! (docs/adr/0067).

use std::sync::Arc;

use larder_core::Mount;
use larder_formats::{LinkKey, Mark, Piece, Pieces};

/// How much is handed on at a time, in bytes.
const STEP: usize = 256 << 10;

/// What a document is derived with in place of a base, and the base that it is then written with.
#[derive(Debug, Clone)]
pub(crate) struct Marking {
    pub(crate) mark: Mark,
    /// `http://host:port` of the client that came first.
    pub(crate) base: Arc<str>,
}

/// A base, and the offsets at which it stands in a document.
#[derive(Debug, Clone)]
pub(crate) struct Bases {
    pub(crate) base: Arc<str>,
    pub(crate) points: Arc<[u64]>,
}

impl Bases {
    /// How much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        (self.base.len() + 8 * self.points.len()) as u64
    }
}

impl Marking {
    /// For documents whose links begin with whatever clients call larder. `client_base` (`http://host:port`) is what this one calls it.
    pub(crate) fn of(key: &LinkKey, client_base: &str) -> Self {
        Self {
            mark: Mark::of(key, client_base),
            base: client_base.into(),
        }
    }

    /// Where a client whose base is the mark sees what this one sees at `mount`.
    pub(crate) fn mount<'a>(&'a self, mount: &Mount<'a>) -> Mount<'a> {
        Mount {
            base: self.mark.as_str(),
            prefix: mount.prefix.clone(),
        }
    }
}

/// Hands a document on to `sink`, in steps; where it is marked, with the base in the place of each mark. Gives the length of the result,
/// and where the base stands in it. What is copied from an upstream has no mark in it, and is not searched.
///
/// # Errors
/// Those of `sink`, at the first of which it ends.
pub(crate) fn write<E>(
    body: &Pieces<'_>,
    marking: Option<&Marking>,
    sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(u64, Option<Bases>), E> {
    let mut steps = Steps {
        sink,
        pending: Vec::with_capacity(STEP.min(body.length())),
        length: 0,
    };
    let Some(Marking { mark, base }) = marking else {
        body.each(|piece| steps.put(piece.bytes()))?;
        return Ok((steps.end()?, None));
    };
    let mut marks = mark.points(body.written()).into_iter().peekable();
    let width = mark.as_str().len();
    let mut points = Vec::with_capacity(marks.len());
    body.each(|piece| {
        let (text, begin) = match piece {
            Piece::Copied(text) => return steps.put(text),
            Piece::Written { text, from } => (text, from),
        };
        let mut done = 0;
        while let Some(at) = marks.next_if(|at| *at < (begin + text.len()) as u64) {
            let at = (at as usize).checked_sub(begin);
            let Some(at) = at.filter(|at| at + width <= text.len()) else {
                continue;
            };
            steps.put(text.get(done..at).unwrap_or_default())?;
            points.push(steps.length);
            steps.put(base.as_bytes())?;
            done = at + width;
        }
        steps.put(text.get(done..).unwrap_or_default())
    })?;
    let length = steps.end()?;
    let bases = Bases {
        base: Arc::clone(base),
        points: points.into(),
    };
    Ok((length, Some(bases)))
}

/// Gathers pieces into whole steps: so each of them is no system call, and every write but the last begins and ends where pages do.
struct Steps<S> {
    sink: S,
    pending: Vec<u8>,
    length: u64,
}

impl<E, S: FnMut(&[u8]) -> Result<(), E>> Steps<S> {
    fn put(&mut self, mut part: &[u8]) -> Result<(), E> {
        self.length += part.len() as u64;
        while !part.is_empty() {
            if self.pending.is_empty() && part.len() >= STEP {
                let (whole, rest) = part.split_at(part.len() - part.len() % STEP);
                (self.sink)(whole)?;
                part = rest;
                continue;
            }
            let (now, rest) = part.split_at(part.len().min(STEP - self.pending.len()));
            self.pending.extend_from_slice(now);
            part = rest;
            if self.pending.len() == STEP {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), E> {
        if !self.pending.is_empty() {
            (self.sink)(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    fn end(mut self) -> Result<u64, E> {
        self.flush()?;
        Ok(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marking(base: &str) -> Marking {
        Marking::of(&LinkKey::from_bytes([7; 32]), base)
    }

    /// All of it written anew, as far as the bases are concerned.
    fn write_marked<E>(
        marked: &str,
        marking: &Marking,
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(u64, Bases), E> {
        let body = Pieces::from(marked.as_bytes().to_vec());
        let (length, bases) = write(&body, Some(marking), sink)?;
        Ok((length, bases.unwrap()))
    }

    #[test]
    fn each_mark_gives_its_place_to_the_base() {
        for base in ["http://a", "http://larder.example.com:8000"] {
            let marking = marking(base);
            for pattern in ["", "plain", "<>", "a<>b<><>c", "<>x<>"] {
                let marked = pattern.replace("<>", marking.mark.as_str());
                let expected = pattern.replace("<>", base);
                let mut written = Vec::new();
                let sink = |part: &[u8]| {
                    written.extend_from_slice(part);
                    Ok::<_, ()>(())
                };
                let (length, bases) = write_marked(&marked, &marking, sink).unwrap();
                assert_eq!(written, expected.as_bytes());
                assert_eq!(length, expected.len() as u64);
                let found: Vec<u64> = expected
                    .match_indices(base)
                    .map(|(at, _)| at as u64)
                    .collect();
                assert_eq!(*bases.points, *found);
            }
        }
    }

    #[test]
    fn a_long_one_is_handed_on_in_few_steps() {
        let marking = marking("http://larder.example.com");
        let line = format!("url: {}/charts\n", marking.mark.as_str());
        let marked = line.repeat(50_000) + &"x".repeat(3 * STEP);
        let (mut written, mut steps) = (Vec::new(), 0);
        let sink = |part: &[u8]| {
            assert_eq!(written.len() % STEP, 0, "it begins where a page does");
            written.extend_from_slice(part);
            steps += 1;
            Ok::<_, ()>(())
        };
        let (length, bases) = write_marked(&marked, &marking, sink).unwrap();
        let expected = marked.replace(marking.mark.as_str(), "http://larder.example.com");
        assert!(written == expected.as_bytes());
        assert_eq!(
            (length, bases.points.len()),
            (expected.len() as u64, 50_000)
        );
        assert!(steps <= expected.len() / STEP + 2, "{steps}");
    }

    #[test]
    fn an_error_of_the_sink_ends_it() {
        let marking = marking("http://a");
        let failed = write_marked("text", &marking, |_| Err("full"));
        assert_eq!(failed.unwrap_err(), "full");
    }
}
