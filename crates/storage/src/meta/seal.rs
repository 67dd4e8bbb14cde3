//! A checksum in front of the text or the bytes of a row, over the key under which the row was asked for and that text: a bit that flips on the
//! disk, in a row or in an index that leads to it, makes the row absent and never another file's (docs/adr/0044).

use larder_core::Hasher;

/// Hexadecimal digits of SHA-256 that are kept: 64 bits tell damage, nobody is to be kept out.
const DIGITS: usize = 16;

/// What sealed bytes begin with. One flipped bit makes no hexadecimal digit and no brace of it, with which texts begin.
const MARK: u8 = 0xa1;
/// Bytes of the checksum.
const BYTES: usize = DIGITS / 2;

/// `bytes` with their checksum in front.
pub(super) fn seal_bytes(key: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + BYTES + bytes.len());
    sealed.push(MARK);
    sealed.extend_from_slice(&sum(key, bytes));
    sealed.extend_from_slice(bytes);
    sealed
}

/// Whether a row has sealed bytes and no text.
pub(super) fn is_bytes(stored: &[u8]) -> bool {
    stored.first() == Some(&MARK)
}

/// The bytes that [`seal_bytes`] has sealed under this key; `None` if these are none.
pub(super) fn unseal_bytes<'a>(key: &[&str], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (found, bytes) = stored.strip_prefix(&[MARK])?.split_at_checked(BYTES)?;
    (found == sum(key, bytes)).then_some(bytes)
}

/// `text` with its checksum in front.
pub(super) fn seal(key: &[&str], text: &str) -> String {
    format!("{}:{text}", checksum(key, text))
}

/// What came out of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsealed<'a> {
    /// The text, as it was put there under this key.
    Intact(&'a str),
    /// Not what was put there, or not under this key.
    Damaged,
    /// There is no checksum in front of it: written before there were any.
    Bare(&'a str),
}

/// Takes the checksum off `stored`, and compares it.
pub(super) fn unseal<'a>(key: &[&str], stored: &'a str) -> Unsealed<'a> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let Some((digits, text)) = stored
        .split_at_checked(DIGITS)
        .filter(|(digits, _)| digits.as_bytes().iter().all(is_digit))
    else {
        return Unsealed::Bare(stored);
    };
    match text.strip_prefix(':') {
        Some(text) if checksum(key, text) == digits => Unsealed::Intact(text),
        Some(_) => Unsealed::Damaged,
        None => Unsealed::Bare(stored),
    }
}

fn checksum(key: &[&str], text: &str) -> String {
    super::secrets::to_hex(&sum(key, text.as_bytes()))
}

fn sum(key: &[&str], bytes: &[u8]) -> [u8; BYTES] {
    let mut hasher = Hasher::new(&[]);
    for part in key {
        // Lengths in front, so that no two keys run together.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(bytes);
    let digest = hasher.finish_sha256();
    let mut sum = [0; BYTES];
    sum.copy_from_slice(&digest.as_bytes()[..BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_w12_each_flipped_bit_of_a_sealed_text_is_seen() {
        let sealed = seal(&["r", "path", ""], "{\"content\":\"x\"}");
        assert_eq!(
            unseal(&["r", "path", ""], &sealed),
            Unsealed::Intact("{\"content\":\"x\"}")
        );
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // What is not UTF-8 is refused when the column is read.
            let Ok(flipped) = String::from_utf8(bytes) else {
                continue;
            };
            let found = unseal(&["r", "path", ""], &flipped);
            assert!(!matches!(found, Unsealed::Intact(_)), "bit {bit}");
            // A row of before begins with a brace: no flipped seal is taken for one.
            assert!(
                !matches!(found, Unsealed::Bare(text) if text.starts_with('{')),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn hazard_w12_each_flipped_bit_of_sealed_bytes_is_seen() {
        let key = ["r", "path", ""];
        let sealed = seal_bytes(&key, b"\x01bytes");
        assert_eq!(unseal_bytes(&key, &sealed), Some(&b"\x01bytes"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal_bytes(&key, &flipped), None, "bit {bit}");
            // Nor is it taken for a text, sealed or not.
            let text = String::from_utf8_lossy(&flipped);
            let is_believed = match unseal(&key, &text) {
                Unsealed::Intact(_) => true,
                Unsealed::Bare(text) => text.starts_with('{'),
                Unsealed::Damaged => false,
            };
            assert!(!is_believed, "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert_eq!(unseal_bytes(&key, &sealed[..cut]), None, "cut at {cut}");
        }
        for key in [["r", "pat", "h"], ["rp", "ath", ""], ["r", "path", "x"]] {
            assert_eq!(unseal_bytes(&key, &sealed), None, "{key:?}");
        }
    }

    #[test]
    fn hazard_w1_a_text_belongs_to_its_key() {
        let sealed = seal(&["r", "ab", "c"], "text");
        for key in [["r", "a", "bc"], ["ra", "b", "c"], ["r", "ab", ""]] {
            assert_eq!(unseal(&key, &sealed), Unsealed::Damaged, "{key:?}");
        }
        assert_eq!(
            unseal(&["r"], "{\"content\":1}"),
            Unsealed::Bare("{\"content\":1}")
        );
        assert_eq!(unseal(&["r"], ""), Unsealed::Bare(""));
    }
}
