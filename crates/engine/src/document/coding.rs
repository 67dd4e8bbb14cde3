//! Content codings (RFC 9110 section 8.4): which one a client accepts, and making and undoing them.

use std::io::{self, Read as _, Write as _};

use larder_storage::Body;

/// A coding that derived documents are offered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The best coding that `Accept-Encoding` allows: zstd, then gzip, then identity. `*` alone does not mean zstd: who says so is likely
/// older than it.
pub(crate) fn negotiate(accept_encoding: Option<&str>) -> Coding {
    let Some(header) = accept_encoding else {
        return Coding::Identity;
    };
    let quality = |wanted: &str| -> Option<f32> {
        header.split(',').find_map(|part| {
            let mut fields = part.split(';').map(str::trim);
            let name = fields.next()?;
            let q = fields
                .find_map(|field| field.strip_prefix("q="))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            name.eq_ignore_ascii_case(wanted).then_some(q)
        })
    };
    let any = quality("*").unwrap_or(0.0);
    let zstd = quality("zstd").unwrap_or(0.0);
    let gzip = quality("gzip").or_else(|| quality("x-gzip")).unwrap_or(any);
    let identity = quality("identity").unwrap_or(0.001);
    if zstd > 0.0 && zstd >= gzip && zstd >= identity {
        Coding::Zstd
    } else if gzip > 0.0 && gzip >= identity {
        Coding::Gzip
    } else {
        Coding::Identity
    }
}

/// Compresses a whole document, on a thread that may wait. It is read block by block: only what comes of it is in memory.
pub(crate) fn encode(body: &Body, coding: Coding) -> io::Result<Vec<u8>> {
    let length = body.length().unwrap_or(0);
    let room = Vec::with_capacity(length as usize / 4);
    match coding {
        Coding::Identity => body.read_blocking(length),
        Coding::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(room, 3)?;
            // Known from the start, it is in the frame's head, as if all had been compressed at once.
            encoder.set_pledged_src_size(Some(length))?;
            body.each_blocking(&mut |block| encoder.write_all(block))?;
            encoder.finish()
        }
        Coding::Gzip => {
            let level = flate2::Compression::new(6);
            let mut encoder = flate2::write::GzEncoder::new(room, level);
            body.each_blocking(&mut |block| encoder.write_all(block))?;
            encoder.finish()
        }
    }
}

/// The content codings that there are (the registry of RFC 9110 section 16.6). Servers put other words into the field, too (`utf-8`, `none`,
/// `aws-chunked`), and clients do not take these for codings.
const CODINGS: [&str; 12] = [
    "gzip",
    "x-gzip",
    "zstd",
    "br",
    "deflate",
    "compress",
    "x-compress",
    "dcb",
    "dcz",
    "aes128gcm",
    "exi",
    "pack200-gzip",
];

/// Of a `Content-Encoding`, the codings that the bytes are in; `None` if that is none.
pub(crate) fn applied(label: &str) -> Option<String> {
    let is_coding = |word: &&str| CODINGS.iter().any(|known| known.eq_ignore_ascii_case(word));
    let applied: Vec<&str> = label.split(',').map(str::trim).filter(is_coding).collect();
    (!applied.is_empty()).then(|| applied.join(", "))
}

/// Real documents shrink to a tenth, some to a thirtieth; so does what is read of packed files (hazard R4).
const MOST_RATIO: u64 = 100;
/// What any body may unpack to, whatever its size.
const ALWAYS_ALLOWED: u64 = 16 << 20;
/// What is unpacked at once.
const BLOCK: usize = 64 << 10;

/// Undoes an upstream's coding that nobody asked for, block by block: what comes out is in memory only where `sink` keeps it. At most
/// `limit` bytes come out, and not many times as many as came in. `None` once `sink` takes no more.
///
/// # Errors
/// A sentence that says why it cannot be undone.
pub(crate) fn decode(
    bytes: &[u8],
    label: &str,
    limit: u64,
    sink: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Option<u64>, String> {
    let label = label.trim();
    if !label.eq_ignore_ascii_case("gzip") && !label.eq_ignore_ascii_case("x-gzip") {
        return Err("it is in a content coding that was not asked for".to_owned());
    }
    let of_size = (bytes.len() as u64).saturating_mul(MOST_RATIO);
    let most = of_size.max(ALWAYS_ALLOWED).min(limit);
    let mut decoder = flate2::read::MultiGzDecoder::new(bytes);
    let (mut block, mut length) = (vec![0; BLOCK], 0);
    loop {
        let count = match decoder.read(&mut block) {
            Ok(0) => return Ok(Some(length)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err("its gzip coding is damaged".to_owned()),
        };
        length += count as u64;
        if length > most {
            return Err(format!(
                "it is {} bytes that unpack to more than {most}",
                bytes.len()
            ));
        }
        if !sink(block.get(..count).unwrap_or_default()) {
            return Ok(None);
        }
    }
}

/// Names whose compression is the file's own, so that a `Content-Encoding` label on top of it is a server's mistake (mechanics, section 3).
pub(crate) fn name_says_compressed(path: &str) -> bool {
    [".gz", ".tgz", ".apk", ".whl"]
        .iter()
        .any(|ending| path.len() > ending.len() && path.to_ascii_lowercase().ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_follows_the_header() {
        let table = [
            (None, Coding::Identity),
            (Some(""), Coding::Identity),
            (Some("identity"), Coding::Identity),
            (Some("gzip"), Coding::Gzip),
            (Some("gzip, deflate, zstd"), Coding::Zstd),
            (Some("zstd;q=0, gzip"), Coding::Gzip),
            (Some("gzip;q=0"), Coding::Identity),
            (Some("*"), Coding::Gzip),
            (Some("gzip;q=0.5, identity;q=1"), Coding::Identity),
            (Some("br"), Coding::Identity),
        ];
        for (header, expected) in table {
            assert_eq!(negotiate(header), expected, "{header:?}");
        }
    }

    /// All that comes out.
    fn decoded(bytes: &[u8], label: &str, limit: u64) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        let length = decode(bytes, label, limit, &mut |block| {
            plain.extend_from_slice(block);
            true
        })?;
        assert_eq!(length, Some(plain.len() as u64));
        Ok(plain)
    }

    #[test]
    fn gzip_is_undone_and_bounded() {
        let plain = vec![b'a'; 100_000];
        let coded = encode(&Body::Memory(plain.clone().into()), Coding::Gzip).unwrap();
        assert_eq!(decoded(&coded, "gzip", 100_000).unwrap(), plain);
        assert!(decoded(&coded, "gzip", 99_999).is_err());
        assert!(decoded(&coded[..coded.len() - 9], "gzip", 1 << 20).is_err());
        assert!(decoded(&coded, "br", 1 << 20).is_err());
        assert_eq!(decode(&coded, "gzip", 100_000, &mut |_| false), Ok(None));
    }

    #[test]
    fn hazard_r4_what_unpacks_to_far_more_than_its_size_is_refused() {
        let of_zeros = |length: u64| {
            let body = Body::Memory(vec![0; length as usize].into());
            encode(&body, Coding::Gzip).unwrap()
        };
        let unpacked = |coded: &[u8]| {
            let mut most = 0;
            let length = decode(coded, "gzip", u64::MAX, &mut |block| {
                most = most.max(block.len());
                true
            });
            assert!(most <= BLOCK, "{most}");
            length
        };
        assert_eq!(
            unpacked(&of_zeros(ALWAYS_ALLOWED)),
            Ok(Some(ALWAYS_ALLOWED))
        );
        let bomb = of_zeros(ALWAYS_ALLOWED + 1);
        assert!(unpacked(&bomb).unwrap_err().contains("16777216"));
        // Of ten times as many bytes as these ten times as many may come.
        let stored = flate2::Compression::none();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), stored);
        encoder
            .write_all(&vec![0; ALWAYS_ALLOWED as usize + 1])
            .unwrap();
        assert!(unpacked(&encoder.finish().unwrap()).is_ok());
    }

    #[test]
    fn words_that_are_no_codings_say_nothing_of_the_bytes() {
        for (label, expected) in [
            ("gzip", Some("gzip")),
            ("GZIP", Some("GZIP")),
            ("gzip, identity", Some("gzip")),
            ("aws-chunked, gzip", Some("gzip")),
            ("gzip, br", Some("gzip, br")),
            ("identity", None),
            ("utf-8", None),
            ("aws-chunked", None),
            ("none", None),
            (" ,", None),
            ("", None),
        ] {
            assert_eq!(applied(label).as_deref(), expected, "{label}");
        }
    }

    #[test]
    fn zstd_comes_back() {
        let plain = b"larder".repeat(1000);
        let coded = encode(&Body::Memory(plain.clone().into()), Coding::Zstd).unwrap();
        assert_eq!(zstd::bulk::decompress(&coded, plain.len()).unwrap(), plain);
    }

    #[test]
    fn a_file_is_compressed_as_what_is_in_memory_is() {
        let plain: Vec<u8> = (0..500_000_u64)
            .flat_map(|n| (n * n % 1009).to_le_bytes())
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&plain).unwrap();
        let body = Body::file(std::sync::Arc::new(file), plain.len() as u64);
        let coded = encode(&body, Coding::Zstd).unwrap();
        let length = zstd::zstd_safe::get_frame_content_size(&coded);
        assert_eq!(length.unwrap(), Some(plain.len() as u64));
        assert!(zstd::bulk::decompress(&coded, plain.len()).unwrap() == plain);
        let coded = encode(&body, Coding::Gzip).unwrap();
        assert!(decoded(&coded, "gzip", plain.len() as u64).unwrap() == plain);
    }
}
