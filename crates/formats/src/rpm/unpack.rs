//! The compressions of repository metadata, read as a stream, with bounds on memory and on what may come out (hazard R4).

use std::io::{self, BufRead, BufReader, Read};

use crate::Malformed;

/// Largest primary that is read, unpacked.
const MAX_UNPACKED: u64 = 2 << 30;
/// What any file may unpack to, whatever its size.
const ALWAYS_ALLOWED: u64 = 64 << 20;
/// Real metadata shrinks to a tenth or a twentieth.
const MAX_RATIO: u64 = 100;
/// Memory for xz's dictionary: the highest preset (`-9`) has 64 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// zstd's window, as a power of two: the format asks every decoder for 8 MiB at least (RFC 8878 section 3.1.1.1.2).
const ZSTD_WINDOW_LOG: u32 = 27;
const CHUNK: usize = 64 << 10;

/// A reader of the plain bytes; the compression is told by the first bytes.
pub(super) fn unpack(packed: &[u8]) -> Result<impl BufRead, Malformed> {
    let broken = |error: io::Error| Malformed(format!("its compression cannot be read: {error}"));
    let plain: Box<dyn Read + '_> = match packed {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            );
            Box::new(liblzma::bufread::XzDecoder::new_stream(
                packed,
                decoder.map_err(|error| broken(error.into()))?,
            ))
        }
        // Its blocks are 900 KB at most, and so is what it needs of memory, four times over.
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            Box::new(bzip2::bufread::MultiBzDecoder::new(packed))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            Box::new(decoder)
        }
        _ => Box::new(packed),
    };
    let allowed = (packed.len() as u64)
        .saturating_mul(MAX_RATIO)
        .clamp(ALWAYS_ALLOWED, MAX_UNPACKED);
    Ok(BufReader::with_capacity(
        CHUNK,
        Limited {
            plain,
            left: allowed,
        },
    ))
}

/// Fails, where `take` would end, so that a bomb is not mistaken for a whole document.
struct Limited<R> {
    plain: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("it unpacks to far more than its size"))?;
        Ok(count)
    }
}
