//! Reading requests off a socket: just enough HTTP/1.1, and gzip without a compressor.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::request::RecordedRequest;

/// Largest head and body that the origin reads.
const LIMIT: usize = 64 * 1024 * 1024;

/// Reads one request; `None` when the connection ended before or within one.
pub(crate) async fn read_request(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    connection: u64,
) -> std::io::Result<Option<RecordedRequest>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > LIMIT || socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = buffer.split_to(head_end + 4);
    let text = String::from_utf8_lossy(&head[..head_end]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
        .collect();
    let mut request = RecordedRequest {
        method,
        target,
        headers,
        body: Bytes::new(),
        connection,
    };
    let body = if request
        .header("transfer-encoding")
        .is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    {
        read_chunked(socket, buffer).await?
    } else {
        let length = request
            .header("content-length")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        read_exact(socket, buffer, length).await?
    };
    let Some(body) = body else { return Ok(None) };
    request.body = body;
    Ok(Some(request))
}

async fn read_exact(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    n: usize,
) -> std::io::Result<Option<Bytes>> {
    while buffer.len() < n {
        if n > LIMIT || socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(buffer.split_to(n).freeze()))
}

async fn read_chunked(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> std::io::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    loop {
        let line_end = loop {
            if let Some(at) = buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            if socket.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        };
        let line = buffer.split_to(line_end + 2);
        let size = String::from_utf8_lossy(&line[..line_end]);
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .unwrap_or(0);
        let Some(chunk) = read_exact(socket, buffer, size + 2).await? else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body.freeze()));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// A gzip member of stored (uncompressed) blocks, RFC 1951 section 3.2.4 and RFC 1952: what [`Behaviour`](crate::Behaviour) sends
/// where it compresses unasked.
pub fn gzip_stored(data: &[u8]) -> Bytes {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = data.len().div_ceil(65_535).max(1);
    for (number, block) in data
        .chunks(65_535)
        .chain(data.is_empty().then_some(&[][..]))
        .enumerate()
    {
        let length = block.len() as u16;
        out.push(u8::from(number + 1 == blocks));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(data).to_le_bytes());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.into()
}

/// CRC-32 as RFC 1952 section 8 defines it.
fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_of_the_published_check_value() {
        assert_eq!(
            crc32(b"123456789"),
            0xcbf4_3926,
            "the check value that every CRC-32 catalogue states"
        );
    }

    #[tokio::test]
    async fn a_chunked_request_body_is_put_together() {
        let mut socket = &b"PUT /x?y HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;e=1\r\nde\r\n0\r\n\r\nGET"[..];
        let mut buffer = BytesMut::new();
        let request = read_request(&mut socket, &mut buffer, 7)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (
                request.method.as_str(),
                request.target.as_str(),
                request.connection
            ),
            ("PUT", "/x?y", 7)
        );
        assert_eq!(&request.body[..], b"abcde");
        assert_eq!(
            &buffer[..],
            b"GET",
            "what follows belongs to the next request"
        );
    }
}
