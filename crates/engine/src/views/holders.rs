//! Digests that are searched for, and places among those who have one.

use larder_storage::BlobHolder;

use crate::operate::HeldCursor;

/// Digits of a digest below which there would be too many that begin so.
const LEAST_DIGITS: usize = 8;
/// Marks the place of a page among those who have a digest: no path begins so.
const HOLDER: char = '\u{1}';

/// Where a page ended that ended with a holder of a digest. A record's path may have a secret in its query: its row stands for it.
pub(super) fn cursor_at(holder: &BlobHolder) -> HeldCursor {
    let (kind, path) = if holder.is_local {
        ('f', &*holder.path)
    } else {
        ('r', "")
    };
    HeldCursor {
        repository: holder.repository.clone(),
        row: holder.row,
        path: format!("{HOLDER}{kind}{}{HOLDER}{path}", holder.blob),
    }
}

/// The holder at which a page ended; `None` for one that ended with a path.
pub(super) fn holder_at(cursor: &HeldCursor) -> Option<BlobHolder> {
    let place = cursor.path.strip_prefix(HOLDER)?;
    let (blob, path) = place.split_once(HOLDER)?;
    let file = blob.strip_prefix('f');
    Some(BlobHolder {
        blob: file.or_else(|| blob.strip_prefix('r'))?.to_owned(),
        repository: cursor.repository.clone(),
        path: path.to_owned(),
        variant: String::new(),
        row: cursor.row,
        is_local: file.is_some(),
    })
}

/// The digits of a digest, or of the beginning of one.
pub(super) fn digits(text: &str) -> Option<String> {
    let digits = text.trim();
    let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
    let is_hex = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && (LEAST_DIGITS..=64).contains(&digits.len())).then(|| digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_from_names() {
        assert_eq!(digits("sha256:deadbeef").as_deref(), Some("deadbeef"));
        assert_eq!(digits("deadbeef00").as_deref(), Some("deadbeef00"));
        for text in ["deadbee", "deadbeeg", "requests", &"a".repeat(65)] {
            assert_eq!(digits(text), None, "{text}");
        }
    }

    #[test]
    fn a_place_comes_back_as_it_was() {
        let file = BlobHolder {
            blob: "sha256:00".to_owned(),
            repository: "mine".to_owned(),
            path: "a/b".to_owned(),
            variant: String::new(),
            row: 0,
            is_local: true,
        };
        assert_eq!(holder_at(&cursor_at(&file)), Some(file.clone()));
        let record = BlobHolder {
            path: "a?token=secret".to_owned(),
            row: 7,
            is_local: false,
            ..file
        };
        let place = cursor_at(&record);
        assert!(!place.path.contains("secret"), "{place:?}");
        let kept = holder_at(&place).map(|holder| (holder.row, holder.is_local, holder.blob));
        assert_eq!(kept, Some((7, false, record.blob)));
    }
}
