//! A download on its way from replica to replica: frames of a kind (one byte), a length (four bytes, big-endian) and so many bytes.
//! Between them a beat says that the replica is there. What ends without an end frame was broken off.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use larder_storage::Chunks;
use serde::{Deserialize, Serialize};

/// The longest frame that is taken whole, in bytes.
const LONGEST: usize = 64 << 10;
/// The longest frame of data.
const LONGEST_DATA: usize = 16 << 20;
const HEADER: usize = 5;

const BEAT: u8 = 0;
const HEAD: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const OVER: u8 = 4;
const FAILED: u8 = 5;

/// What the upstream's head said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Where the body comes from, without its query.
    pub(super) url: String,
    /// Its length, if it was declared.
    pub(super) total: Option<u64>,
    /// The fields that are kept of it.
    pub(super) fields: Vec<(String, String)>,
}

/// What the body turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whole {
    pub(super) length: u64,
    /// SHA-256 in hexadecimal digits, if it was computed.
    pub(super) sha256: Option<String>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The replica is there, and waits for the upstream itself.
    Beat,
    Head(Head),
    Data(Bytes),
    /// The body is complete and the right one.
    End(Whole),
    /// There is no body to be had here (any more): the flight has ended, and what it has found out stands in the database.
    Over,
    /// The body stays incomplete, or is the wrong one.
    Failed,
}

/// Frames as they are sent: in one or two pieces, so that data is not copied.
pub(super) fn encode(frame: &Frame) -> Vec<Bytes> {
    let text = |kind, value: Result<Vec<u8>, serde_json::Error>| {
        // Texts and numbers can always be written.
        let value = value.unwrap_or_default();
        vec![header(kind, value.len()), value.into()]
    };
    match frame {
        Frame::Beat => vec![header(BEAT, 0)],
        Frame::Head(head) => text(HEAD, serde_json::to_vec(head)),
        Frame::Data(bytes) => vec![header(DATA, bytes.len()), bytes.clone()],
        Frame::End(whole) => text(END, serde_json::to_vec(whole)),
        Frame::Over => vec![header(OVER, 0)],
        Frame::Failed => vec![header(FAILED, 0)],
    }
}

fn header(kind: u8, length: usize) -> Bytes {
    let mut header = BytesMut::with_capacity(HEADER);
    header.extend_from_slice(&[kind]);
    header.extend_from_slice(&(length as u32).to_be_bytes());
    header.freeze()
}

/// Frames as they arrive.
pub(super) struct Frames {
    chunks: Chunks,
    /// What has arrived and is no whole frame yet.
    buffer: BytesMut,
    /// Bytes of the present frame of data that are still to come.
    data_left: usize,
}

impl Frames {
    pub(super) fn new(chunks: Chunks) -> Self {
        Self {
            chunks,
            buffer: BytesMut::new(),
            data_left: 0,
        }
    }

    /// The next frame; of data, as much as has arrived. Nothing is lost if it is dropped while it waits.
    ///
    /// # Errors
    /// It broke off, or is no such stream.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            match self.chunks.next().await {
                Some(Ok(bytes)) => {
                    if self.buffer.is_empty() && self.data_left > 0 {
                        // Data goes on as it came.
                        return Ok(self.data(bytes));
                    }
                    self.buffer.extend_from_slice(&bytes);
                }
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn data(&mut self, mut bytes: Bytes) -> Frame {
        if bytes.len() > self.data_left {
            self.buffer
                .extend_from_slice(&bytes.split_off(self.data_left));
        }
        self.data_left -= bytes.len();
        Frame::Data(bytes)
    }

    fn buffered(&mut self) -> io::Result<Option<Frame>> {
        if self.data_left > 0 {
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let bytes = self.buffer.split().freeze();
            return Ok(Some(self.data(bytes)));
        }
        let [kind, a, b, c, d, ..] = self.buffer[..] else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if kind == DATA && length <= LONGEST_DATA {
            self.buffer.advance(HEADER);
            self.data_left = length;
            return if length == 0 {
                Ok(Some(Frame::Beat))
            } else {
                self.buffered()
            };
        }
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(length);
        decode(kind, &payload).map(Some)
    }
}

fn decode(kind: u8, payload: &[u8]) -> io::Result<Frame> {
    match kind {
        BEAT => Ok(Frame::Beat),
        HEAD => Ok(Frame::Head(serde_json::from_slice(payload)?)),
        END => Ok(Frame::End(serde_json::from_slice(payload)?)),
        OVER => Ok(Frame::Over),
        FAILED => Ok(Frame::Failed),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    async fn read(bytes: &[u8], step: usize) -> (Vec<Frame>, Option<io::ErrorKind>) {
        let chunks: Vec<io::Result<Bytes>> = bytes
            .chunks(step)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut frames = Frames::new(Box::pin(stream::iter(chunks)));
        let mut read: Vec<Frame> = Vec::new();
        loop {
            match frames.next().await {
                Ok(Frame::Data(more)) => match read.last_mut() {
                    Some(Frame::Data(bytes)) => {
                        *bytes = [&bytes[..], &more[..]].concat().into();
                    }
                    _ => read.push(Frame::Data(more)),
                },
                Ok(frame) => read.push(frame),
                Err(error) => return (read, Some(error.kind())),
            }
        }
    }

    #[tokio::test]
    async fn frames_are_read_as_they_were_written_however_they_are_cut() {
        let frames = vec![
            Frame::Beat,
            Frame::Head(Head {
                url: "https://example.com/ü".to_owned(),
                total: Some(300),
                fields: vec![("etag".to_owned(), "\"x\"".to_owned())],
            }),
            Frame::Data((0..=255).collect::<Vec<u8>>().into()),
            Frame::Beat,
            Frame::Data(Bytes::from_static(b"rest")),
            Frame::End(Whole {
                length: 260,
                sha256: None,
            }),
            Frame::Over,
            Frame::Failed,
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(encode).flatten().collect();
        for step in [1, 2, 3, 7, 100, 10_000] {
            let (read, end) = read(&bytes, step).await;
            assert_eq!(read, frames, "{step}");
            assert_eq!(end, Some(io::ErrorKind::UnexpectedEof));
        }
    }

    #[tokio::test]
    async fn what_is_no_such_stream_is_refused() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            &[9, 0, 0, 0, 0],
            &[1, 0xff, 0xff, 0xff, 0xff, 0],
            &[2, 0xff, 0xff, 0xff, 0xff, 0],
            &[1, 0, 0, 0, 1, b'x'],
        ] {
            let (read, end) = read(bytes, 100).await;
            assert!(
                read.is_empty() && end == Some(io::ErrorKind::InvalidData),
                "{bytes:?}"
            );
        }
    }
}
