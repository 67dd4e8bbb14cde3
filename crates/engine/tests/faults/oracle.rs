//! Which bodies are right. A file of which a document states a digest is that file and nothing else. Where nothing vouches for the
//! bytes, a body is right if it is what the upstream completely said: the oracle knows everything that an upstream can say.

use bytes::Bytes;
use larder_testkit::{Behaviour, gzip_stored};

/// The page that [`Behaviour::LoginPage`] sends.
const LOGIN: &[u8] = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>password</form></body></html>\n";

/// What may end well.
#[derive(Debug)]
pub(crate) struct Oracle {
    truth: Bytes,
    /// Bodies that the upstream may have sent whole.
    words: Vec<Bytes>,
    /// Bodies whose end only the end of a connection marked: may be given, never kept.
    unmarked: Vec<Bytes>,
    /// By how much a declared length may be wrong.
    lies: Vec<i64>,
}

impl Oracle {
    pub(crate) fn new(truth: Bytes, behaviours: &[Behaviour]) -> Self {
        let mut words = vec![truth.clone()];
        for behaviour in behaviours {
            match behaviour {
                Behaviour::Body(body) => words.push(body.clone()),
                Behaviour::LoginPage => words.push(Bytes::from_static(LOGIN)),
                Behaviour::JsonNesting { depth } => words.push(vec![b'['; *depth as usize].into()),
                _ => {}
            }
        }
        // Compressed as often as that is in force.
        for _ in behaviours
            .iter()
            .filter(|behaviour| **behaviour == Behaviour::Gzip)
        {
            let coded: Vec<Bytes> = words.iter().map(|word| gzip_stored(word)).collect();
            words.extend(coded);
        }
        let surplus = behaviours.iter().find_map(|behaviour| match behaviour {
            Behaviour::Surplus(bytes) => Some(bytes.clone()),
            _ => None,
        });
        let with_surplus =
            |word: &Bytes| [&word[..], surplus.as_deref().unwrap_or_default()].concat();
        // A false length is the upstream's word too, if as many bytes follow.
        let lies: Vec<i64> = behaviours
            .iter()
            .filter_map(|behaviour| {
                if let Behaviour::LieAboutLength(by) = behaviour {
                    Some(*by)
                } else {
                    None
                }
            })
            .collect();
        let mut told = Vec::new();
        for word in &words {
            let stream = with_surplus(word);
            for length in declared(&lies, word.len() as u64) {
                told.extend(stream.get(..length as usize).map(Bytes::copy_from_slice));
            }
        }
        words.extend(told);
        let mut unmarked = Vec::new();
        if behaviours.contains(&Behaviour::UntilClose) {
            for word in &words {
                unmarked.push(with_surplus(word).into());
                for behaviour in behaviours {
                    if let Behaviour::Truncate { after } | Behaviour::CutChunked { after } =
                        behaviour
                    {
                        unmarked.extend(word.get(..*after as usize).map(Bytes::copy_from_slice));
                    }
                }
            }
        }
        Self {
            truth,
            words,
            unmarked,
            lies,
        }
    }

    /// Whether `part` is the range from `start` of a right body of `length`, as far as that is known. `vouched`: a digest decides.
    pub(crate) fn allows(
        &self,
        part: &[u8],
        start: u64,
        length: Option<u64>,
        trust: Trust,
    ) -> bool {
        let start = start as usize;
        let is_part = |word: &Bytes| word.get(start..start + part.len()) == Some(part);
        let is_whole = |word: &Bytes| length.is_none_or(|length| length == word.len() as u64);
        // A range in flight is given under the length that was declared, before it can be seen to be false.
        let is_declared = |word: &Bytes| {
            length.is_some_and(|length| declared(&self.lies, word.len() as u64).contains(&length))
        };
        match trust {
            Trust::Digest => is_part(&self.truth) && is_whole(&self.truth),
            Trust::Kept => self
                .words
                .iter()
                .any(|word| is_part(word) && is_whole(word)),
            Trust::Upstream => self
                .words
                .iter()
                .chain(&self.unmarked)
                .any(|word| is_part(word) && (is_whole(word) || is_declared(word))),
        }
    }
}

/// The lengths that lies make of one. Not every lie is in force each time, and no length is below zero.
fn declared(lies: &[i64], length: u64) -> Vec<u64> {
    let some = |set: u32| {
        lies.iter()
            .enumerate()
            .filter(move |(place, _)| set >> place & 1 == 1)
    };
    (1..1 << lies.len())
        .map(|set| some(set).fold(length, |length, (_, by)| length.saturating_add_signed(*by)))
        .collect()
}

/// Who vouches for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A document's digest.
    Digest,
    /// Nobody, but it was kept.
    Kept,
    /// Nobody.
    Upstream,
}

#[test]
fn stored_blocks_unpack() {
    for size in [0, 1, 65_535, 200_000] {
        let data = vec![7; size];
        let mut plain = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(&gzip_stored(&data)[..]),
            &mut plain,
        )
        .unwrap();
        assert_eq!(plain, data);
    }
}
