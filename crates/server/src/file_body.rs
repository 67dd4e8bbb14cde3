//! A range of a stored file as a stream of frames: mapped windows for `sendfile` on plain HTTP/1, reads elsewhere. A worker
//! thread never waits for a disk: what is not in the page cache is fetched on the blocking pool.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use larder_sendfile::{
    CachedRead, FileSender, MIN_MAPPED, cached_prefix, read_cached, read_cached_into,
};
use tokio::task::JoinHandle;

use crate::frames::Lease;

/// The largest frame made of a mapping. Long enough that mapping costs nothing beside sending, short enough that a body of
/// any length takes little address space.
const WINDOW: u64 = 16 << 20;

/// How much of a file that is not in the page cache is brought there at a time.
const WARM: u64 = 2 << 20;

/// What one frame of HTTP/2 takes along: with its head of nine bytes it fills one record of TLS.
const FRAME: usize = (16 << 10) - 9;

/// How much is read into memory at a time: some frames, and little enough to stay in the processor's cache until it has been encrypted.
const READ: u64 = 4 * FRAME as u64;

/// How much is read at a time on its way into the page cache.
const STEP: u64 = 256 << 10;

/// Sends a range of a file.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    offset: u64,
    remaining: u64,
    sender: Option<FileSender>,
    /// What has been read and not been handed over.
    read: Bytes,
    job: Option<JoinHandle<io::Result<Warmed>>>,
}

/// What the blocking pool brings back.
#[derive(Debug)]
enum Warmed {
    /// So many bytes are in the page cache now.
    PageCache(u64),
    /// The next frame.
    Frame(Bytes),
}

impl FileBody {
    pub(crate) fn new(
        file: Arc<File>,
        offset: u64,
        length: u64,
        sender: Option<FileSender>,
    ) -> Self {
        Self {
            file,
            offset,
            remaining: length,
            sender,
            read: Bytes::new(),
            job: None,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(self.next_of_read())));
        }
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let frame = match self.job.as_mut() {
            Some(job) => {
                let done = ready!(Pin::new(job).poll(cx));
                self.job = None;
                done.map_err(io::Error::other)
                    .flatten()
                    .and_then(|warmed| match warmed {
                        Warmed::Frame(bytes) => Ok(bytes),
                        Warmed::PageCache(length) => self.map(length),
                    })
            }
            None => match self.next_cached() {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => {
                    self.start_job();
                    return self.poll_frame(cx);
                }
                Err(error) => Err(error),
            },
        };
        Poll::Ready(Some(frame.map(|bytes| {
            self.offset += bytes.len() as u64;
            self.remaining -= bytes.len() as u64;
            if self.sender.is_some() {
                return bytes;
            }
            self.read = bytes;
            self.next_of_read()
        })))
    }

    fn next_of_read(&mut self) -> Bytes {
        self.read.split_to(self.read.len().min(FRAME))
    }

    /// The next frame, if it can be had without waiting for a disk.
    fn next_cached(&self) -> io::Result<Option<Bytes>> {
        if self.maps() {
            let cached = cached_prefix(&self.file, self.offset, self.remaining.min(WINDOW))?;
            return if cached < MIN_MAPPED {
                Ok(None)
            } else {
                self.map(cached).map(Some)
            };
        }
        let lease = Lease::take(self.remaining.min(READ) as usize);
        match read_cached_into(&self.file, self.offset, lease.length(), lease.buffer())? {
            CachedRead::Bytes(bytes) => Ok(Some(lease.hold(bytes))),
            CachedRead::NotCached => Ok(None),
        }
    }

    /// Short rests are read: mapping them gains nothing, and hyper may copy short frames.
    fn maps(&self) -> bool {
        self.sender.is_some() && self.remaining >= MIN_MAPPED
    }

    fn map(&self, length: u64) -> io::Result<Bytes> {
        let sender = self.sender.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        sender.map(&self.file, self.offset, length)
    }

    fn start_job(&mut self) {
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        self.job = Some(if self.maps() {
            let length = self.remaining.min(WARM);
            tokio::task::spawn_blocking(move || {
                warm(&file, offset, length).map(|()| Warmed::PageCache(length))
            })
        } else {
            let lease = Lease::take(self.remaining.min(READ) as usize);
            tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; lease.length()];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(Warmed::Frame(lease.hold(buffer)))
            })
        });
    }
}

/// Reads a range into the page cache, and nowhere else.
fn warm(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let mut scratch = vec![0; STEP as usize];
    let end = offset + length;
    let mut position = offset;
    while position < end {
        let step = (end - position).min(STEP);
        file.read_exact_at(&mut scratch[..step as usize], position)?;
        position += step;
    }
    Ok(())
}

/// Reads a whole range, on a thread that may wait.
pub(crate) fn read_exactly(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.into())
}

/// Reads a whole short file that must have exactly `length` bytes, if the page cache has all of them. `None` where it has not, or where the
/// file has another length.
pub(crate) fn read_cached_whole(file: &File, length: u64) -> Option<Bytes> {
    // One byte more than there should be: a file that is too long is found out without a call of its own.
    let most = usize::try_from(length).ok()?.checked_add(1)?;
    match read_cached(file, 0, most) {
        Ok(CachedRead::Bytes(bytes)) if bytes.len() as u64 == length => Some(bytes.into()),
        _ => None,
    }
}

/// Reads a whole short file: from the page cache at once, else on the blocking pool.
pub(crate) async fn read_small(file: &Arc<File>, length: u64) -> io::Result<Bytes> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    if let CachedRead::Bytes(bytes) = read_cached(file, 0, length as usize)?
        && bytes.len() as u64 == length
    {
        return Ok(bytes.into());
    }
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || read_exactly(&file, 0, length as usize))
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(length: usize) -> (Arc<File>, Vec<u8>) {
        let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (Arc::new(file), content)
    }

    async fn collect(mut body: FileBody) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
            all.extend_from_slice(&frame?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_range_is_read_exactly() {
        let (file, content) = file_of(900_000);
        assert!(
            collect(FileBody::new(Arc::clone(&file), 0, 900_000, None))
                .await
                .unwrap()
                == content
        );
        assert!(
            collect(FileBody::new(file, 5, 600_000, None))
                .await
                .unwrap()
                == content[5..600_005]
        );
    }

    #[tokio::test]
    async fn frames_from_the_blocking_pool_are_the_same_bytes() {
        let (file, content) = file_of(300_000);
        let mut body = FileBody::new(file, 10, 299_990, None);
        body.start_job();
        assert!(collect(body).await.unwrap() == content[10..]);
    }

    #[tokio::test]
    async fn a_part_that_was_fetched_from_the_disk_is_mapped_and_the_rest_follows() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let sender = larder_sendfile::SendfileStream::new(socket).sender();
        let (file, content) = file_of(5_000_000);
        let mut body = FileBody::new(file, 7, 4_999_993, Some(sender));
        body.start_job();
        let first = std::future::poll_fn(|cx| body.poll_frame(cx))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(first.len() as u64, WARM);
        let rest = collect(body).await.unwrap();
        assert!([first.to_vec(), rest].concat() == content[7..]);
    }

    #[test]
    fn a_file_of_another_length_is_not_read_as_a_whole() {
        let (file, content) = file_of(1_000);
        // A file system without RWF_NOWAIT gives nothing at all.
        if let Some(bytes) = read_cached_whole(&file, 1_000) {
            assert_eq!(bytes, content);
        }
        assert!(read_cached_whole(&file, 999).is_none());
        assert!(read_cached_whole(&file, 1_001).is_none());
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error_not_a_short_body() {
        let (file, _) = file_of(1_000);
        let error = collect(FileBody::new(Arc::clone(&file), 500, 1_000, None))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            read_small(&file, 1_001).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
