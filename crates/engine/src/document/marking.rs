//! Documents whose links begin with whatever a client calls larder: written once, with the base of the client that came first in the
//! place of each mark. Where that base stands is remembered, so that another client's can take its place while the document is sent
//! (docs/adr/0067).

use std::sync::Arc;

use larder_core::Mount;
use larder_formats::{LinkKey, Mark};

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

    /// Hands `marked` on to `sink` with the base in the place of each mark. Gives the length of the result, and where the base stands
    /// in it.
    ///
    /// # Errors
    /// Those of `sink`, at the first of which it ends.
    pub(crate) fn write<E>(
        &self,
        marked: &[u8],
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(u64, Bases), E> {
        let mut steps = Steps {
            sink,
            pending: Vec::with_capacity(STEP.min(marked.len())),
            length: 0,
        };
        let mut points = self.mark.points(marked);
        let (mark, mut from) = (self.mark.as_str().len(), 0);
        for point in &mut points {
            let at = usize::try_from(*point).unwrap_or(usize::MAX);
            steps.put(marked.get(from..at).unwrap_or_default())?;
            *point = steps.length;
            steps.put(self.base.as_bytes())?;
            from = at + mark;
        }
        steps.put(marked.get(from..).unwrap_or_default())?;
        let length = steps.end()?;
        let bases = Bases {
            base: Arc::clone(&self.base),
            points: points.into(),
        };
        Ok((length, bases))
    }
}

/// Gathers short pieces, so that each of them is not a system call.
struct Steps<S> {
    sink: S,
    pending: Vec<u8>,
    length: u64,
}

impl<E, S: FnMut(&[u8]) -> Result<(), E>> Steps<S> {
    fn put(&mut self, part: &[u8]) -> Result<(), E> {
        self.length += part.len() as u64;
        if self.pending.len() + part.len() > STEP {
            self.flush()?;
        }
        if part.len() > STEP {
            return (self.sink)(part);
        }
        self.pending.extend_from_slice(part);
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
                let (length, bases) = marking.write(marked.as_bytes(), sink).unwrap();
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
            written.extend_from_slice(part);
            steps += 1;
            Ok::<_, ()>(())
        };
        let (length, bases) = marking.write(marked.as_bytes(), sink).unwrap();
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
        let failed = marking.write(b"text", |_| Err("full"));
        assert_eq!(failed.unwrap_err(), "full");
    }
}
