//! A checksum in front of the text of a row, over the key under which the row was asked for and that text: a bit that flips on the
//! disk, in a row or in an index that leads to it, makes the row absent and never another file's (docs/adr/0044).

use larder_core::sha256;

/// Hexadecimal digits of SHA-256 that are kept: 64 bits tell damage, nobody is to be kept out.
const DIGITS: usize = 16;

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
    let mut bytes = Vec::with_capacity(text.len() + 128);
    for part in key {
        // Lengths in front, so that no two keys run together.
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    let mut hex = sha256(&bytes).to_hex();
    hex.truncate(DIGITS);
    hex
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
