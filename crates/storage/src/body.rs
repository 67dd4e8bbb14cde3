//! Bytes on their way from where they are kept to whoever reads them: the one type from disk to socket (docs/adr/0075).

use std::fmt::{self, Debug};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;

use crate::blob::GrowingBody;

/// How much of a file a stream brings at a time.
const STEP: u64 = 64 << 10;
/// How much of a file is read at a time by who may wait.
const BLOCK: u64 = 256 << 10;

/// The bytes of a body as they come. After an error nothing follows, and what came before is not all of it.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where bytes are. Copies are cheap: they share what they name.
#[derive(Debug, Clone)]
pub enum Body {
    /// There is none, and how long it would be is not said here: an answer to HEAD that was forwarded, or a redirect.
    Empty,
    /// In memory.
    Memory(Bytes),
    /// Part of an open file that does not change, and stays readable when its name is gone.
    File {
        /// Open for reading, by position only: others share its offset.
        file: Arc<File>,
        /// Where the part begins.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// Still arriving, or arrived and partly in memory.
    Growing(GrowingBody),
    /// Fetched, put together or passed through while it is read.
    Stream(StreamBody),
}

/// Bytes that come while they are read.
pub trait Source: Debug + Send + Sync {
    /// Length in bytes, if known.
    fn length(&self) -> Option<u64>;

    /// Whether it can be read again, and from any place. Else [`read`](Self::read) is called once, for all of it.
    fn is_seekable(&self) -> bool {
        true
    }

    /// The bytes from `range.start` to before `range.end`; `None`: all of them.
    fn read(&self, range: Option<Range<u64>>) -> Chunks;
}

/// A [`Source`], or a part of one.
#[derive(Debug, Clone)]
pub struct StreamBody {
    source: Arc<dyn Source>,
    range: Option<Range<u64>>,
}

impl Body {
    /// All of an open file of `length` bytes.
    pub fn file(file: Arc<File>, length: u64) -> Self {
        Self::File {
            file,
            offset: 0,
            length,
        }
    }

    /// What a source gives while it is read.
    pub fn streamed(source: impl Source + 'static) -> Self {
        Self::Stream(StreamBody {
            source: Arc::new(source),
            range: None,
        })
    }

    /// A stream that can be read once, as a whole. Whoever reads it a second time gets an error.
    pub fn once(length: Option<u64>, chunks: Chunks) -> Self {
        Self::streamed(Once {
            length,
            chunks: Mutex::new(Some(chunks)),
        })
    }

    /// Length in bytes, if it is known by now.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => None,
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::File { length, .. } => Some(*length),
            Self::Growing(body) => body.length(),
            Self::Stream(body) => body.length(),
        }
    }

    /// Whether parts of it can be read, and it more than once.
    pub fn is_seekable(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Memory(_) | Self::File { .. } | Self::Growing(_) => true,
            Self::Stream(body) => body.source.is_seekable(),
        }
    }

    /// The part from `from` to before `to`; `None` where there are no such bytes, or no parts at all. Of a body whose length is not
    /// known yet any part may be asked for.
    pub fn range(&self, from: u64, to: u64) -> Option<Self> {
        let fits = from <= to && self.length().is_none_or(|length| to <= length);
        if !fits || !self.is_seekable() {
            return None;
        }
        Some(match self {
            Self::Empty => return None,
            Self::Memory(bytes) => {
                Self::Memory(bytes.slice(usize::try_from(from).ok()?..usize::try_from(to).ok()?))
            }
            Self::File { file, offset, .. } => Self::File {
                file: Arc::clone(file),
                offset: offset + from,
                length: to - from,
            },
            Self::Growing(body) => Self::Growing(body.range(from, to)),
            Self::Stream(body) => Self::Stream(body.range(from, to)),
        })
    }

    /// Its bytes as they come. What is in a file is read on the pool for blocking work.
    pub fn chunks(self) -> Chunks {
        match self {
            Self::Empty => Box::pin(futures_util::stream::empty()),
            Self::Memory(bytes) => Box::pin(futures_util::stream::once(async { Ok(bytes) })),
            Self::File {
                file,
                offset,
                length,
            } => file_chunks(file, offset, offset + length),
            Self::Growing(body) => body.chunks(),
            Self::Stream(body) => body.source.read(body.range),
        }
    }

    /// All of it, if it has at most `most` bytes. What is in a file is read on the pool for blocking work.
    ///
    /// # Errors
    /// It is longer, or cannot be read to its end.
    pub async fn read(&self, most: u64) -> io::Result<Bytes> {
        self.check_bound(most)?;
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File { .. } => {
                let body = self.clone();
                tokio::task::spawn_blocking(move || body.read_blocking(most))
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)))
                    .map(Bytes::from)
            }
            Self::Growing(_) | Self::Stream(_) => {
                let mut bytes = Vec::with_capacity(self.length().unwrap_or(0) as usize);
                let mut chunks = self.clone().chunks();
                while let Some(chunk) = chunks.next().await {
                    let chunk = chunk?;
                    if (bytes.len() + chunk.len()) as u64 > most {
                        return Err(too_long(most));
                    }
                    bytes.extend_from_slice(&chunk);
                }
                self.check_end(bytes.len() as u64)?;
                Ok(bytes.into())
            }
        }
    }

    /// As [`read`](Self::read), on a thread that may wait: one of the runtime's pool for blocking work.
    ///
    /// # Errors
    /// It is longer, or cannot be read to its end.
    pub fn read_blocking(&self, most: u64) -> io::Result<Vec<u8>> {
        self.check_bound(most)?;
        let length = self.length().unwrap_or(0) as usize;
        if let Self::File { file, offset, .. } = self {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, *offset)?;
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(length);
        self.each_blocking(&mut |chunk| {
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(too_long(most));
            }
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Hands every chunk of it to a function, on a thread that may wait: one of the runtime's pool for blocking work.
    ///
    /// # Errors
    /// It cannot be read to its end, or the function fails.
    pub fn each_blocking(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Empty => Ok(()),
            Self::Memory(bytes) => take(bytes),
            Self::File {
                file,
                offset,
                length,
            } => {
                let mut buffer = vec![0; (*length).min(BLOCK) as usize];
                let (mut at, end) = (*offset, offset + length);
                while at < end {
                    let want = (end - at).min(BLOCK) as usize;
                    file.read_exact_at(&mut buffer[..want], at)?;
                    take(&buffer[..want])?;
                    at += want as u64;
                }
                Ok(())
            }
            Self::Growing(_) | Self::Stream(_) => {
                let runtime = Handle::try_current().map_err(io::Error::other)?;
                let mut chunks = self.clone().chunks();
                let mut taken = 0;
                while let Some(chunk) = runtime.block_on(chunks.next()) {
                    let chunk = chunk?;
                    taken += chunk.len() as u64;
                    take(&chunk)?;
                }
                self.check_end(taken)
            }
        }
    }

    fn check_bound(&self, most: u64) -> io::Result<()> {
        match self.length() {
            Some(length) if length > most => Err(too_long(most)),
            _ => Ok(()),
        }
    }

    /// A stream that ends early must not pass for the whole.
    fn check_end(&self, read: u64) -> io::Result<()> {
        match self.length() {
            Some(length) if length != read => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl StreamBody {
    fn length(&self) -> Option<u64> {
        match &self.range {
            Some(range) => Some(range.end - range.start),
            None => self.source.length(),
        }
    }

    fn range(&self, from: u64, to: u64) -> Self {
        let base = self.range.as_ref().map_or(0, |range| range.start);
        Self {
            source: Arc::clone(&self.source),
            range: Some(base + from..base + to),
        }
    }
}

fn too_long(most: u64) -> io::Error {
    let message = format!("there are more than the {most} bytes that may be read");
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

fn file_chunks(file: Arc<File>, from: u64, end: u64) -> Chunks {
    Box::pin(futures_util::stream::unfold(from, move |at| {
        let file = Arc::clone(&file);
        async move {
            if at >= end {
                return None;
            }
            let want = (end - at).min(STEP);
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; want as usize];
                file.read_exact_at(&mut buffer, at)?;
                Ok(Bytes::from(buffer))
            });
            let read = read.await.unwrap_or_else(|e| Err(io::Error::other(e)));
            let next = if read.is_ok() { at + want } else { end };
            Some((read, next))
        }
    }))
}

/// A stream that is there once.
struct Once {
    length: Option<u64>,
    chunks: Mutex<Option<Chunks>>,
}

impl Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Once").field(&self.length).finish()
    }
}

impl Source for Once {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: Option<Range<u64>>) -> Chunks {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.take().unwrap_or_else(|| {
            let gone = io::Error::other("a body that is passed through can be read only once");
            Box::pin(futures_util::stream::once(async { Err(gone) }))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::blob::{GrowingSpool, Withheld};

    /// A source that gives seven bytes at a time, or breaks off after `cut` of them.
    #[derive(Debug)]
    struct Sevens(Bytes, Option<usize>);

    impl Source for Sevens {
        fn length(&self) -> Option<u64> {
            Some(self.0.len() as u64)
        }

        fn read(&self, range: Option<Range<u64>>) -> Chunks {
            let range = range.map_or(0..self.0.len(), |range| {
                range.start as usize..range.end as usize
            });
            let part = self.0.slice(range);
            let part = part.slice(..self.1.unwrap_or(part.len()).min(part.len()));
            let chunks: Vec<_> = part
                .chunks(7)
                .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
                .collect();
            Box::pin(futures_util::stream::iter(chunks))
        }
    }

    fn content(length: usize) -> Bytes {
        (0..length).map(|n| (n * n % 251) as u8).collect()
    }

    /// The same bytes in every place that there is.
    fn bodies(bytes: &Bytes) -> Vec<Body> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(bytes).unwrap();
        file.write_all(b"after").unwrap();
        let growing = Arc::new(GrowingSpool::complete(bytes.clone()));
        let part = Body::File {
            file: Arc::new(file),
            offset: 6,
            length: bytes.len() as u64,
        };
        vec![
            Body::Memory(bytes.clone()),
            part,
            Body::Growing(growing.body()),
            Body::streamed(Sevens(bytes.clone(), None)),
        ]
    }

    async fn collect(body: Body) -> Vec<u8> {
        let mut all = Vec::new();
        let mut chunks = body.chunks();
        while let Some(chunk) = chunks.next().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn wherever_bytes_are_they_are_read_alike() {
        let bytes = content(200_000);
        for body in bodies(&bytes) {
            assert_eq!(body.length(), Some(200_000), "{body:?}");
            assert!(body.is_seekable());
            assert!(body.read(200_000).await.unwrap() == bytes, "{body:?}");
            assert!(collect(body.clone()).await == bytes, "{body:?}");
            let waiting = body.clone();
            let read = tokio::task::spawn_blocking(move || waiting.read_blocking(200_000));
            assert!(read.await.unwrap().unwrap() == bytes, "{body:?}");
        }
    }

    #[tokio::test]
    async fn a_part_of_a_part_is_a_part() {
        let bytes = content(100_000);
        for body in bodies(&bytes) {
            let part = body.range(70, 99_990).unwrap().range(5, 80_000).unwrap();
            assert_eq!(part.length(), Some(79_995), "{body:?}");
            assert!(
                part.read(1 << 20).await.unwrap() == bytes[75..80_070],
                "{body:?}"
            );
            assert!(collect(part).await == bytes[75..80_070], "{body:?}");
            assert_eq!(body.range(7, 7).unwrap().read(0).await.unwrap(), "");
            assert!(body.range(0, 100_001).is_none(), "{body:?}");
            assert!(body.range(8, 7).is_none(), "{body:?}");
        }
    }

    #[tokio::test]
    async fn no_more_is_read_than_may_be() {
        for body in bodies(&content(1000)) {
            let error = body.read(999).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{body:?}");
            let error = tokio::task::spawn_blocking(move || body.read_blocking(999));
            assert!(error.await.unwrap().is_err());
        }
        let chunks = Body::Memory(content(1000)).chunks();
        let error = Body::once(None, chunks).read(999).await.unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::FileTooLarge,
            "found on the way"
        );
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_no_body() {
        let body = Body::streamed(Sevens(content(1000), Some(990)));
        let error = body.read(1000).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = tokio::task::spawn_blocking(move || body.read_blocking(1000));
        assert!(error.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn what_is_passed_through_is_read_once_and_as_a_whole() {
        let body = Body::once(Some(3), Body::Memory(Bytes::from_static(b"abc")).chunks());
        assert!(!body.is_seekable() && body.range(0, 1).is_none());
        assert_eq!(body.read(3).await.unwrap(), "abc");
        assert!(body.read(3).await.is_err());
        assert_eq!(Body::Empty.length(), None);
        assert!(Body::Empty.range(0, 0).is_none());
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_can_be_asked_for_any_part() {
        let spool = Arc::new(GrowingSpool::new(None, Withheld::default(), 1 << 20));
        spool.start_ring(0);
        let part = Body::Growing(spool.body()).range(2, 5).unwrap();
        assert_eq!(part.length(), Some(3));
        spool
            .push_ring(Bytes::from_static(b"abcdefg"))
            .await
            .unwrap();
        spool.publish(7);
        spool.verified(7);
        assert_eq!(part.read(3).await.unwrap(), "cde");
    }
}
