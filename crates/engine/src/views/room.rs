//! How much fits on a page: rows, and what their names take where they are shown as links.

/// Bytes of the rows of a page.
const MOST_BYTES: usize = 110_000;
/// Bytes of a row beside its links.
const ROW: usize = 450;
/// Links that every page has, and that lead out of all folders of its own address, by three bytes each.
const LINKS: usize = 25;

/// The room of a page for rows. One row always fits.
#[derive(Debug)]
pub struct Room {
    rows: usize,
    bytes: usize,
    /// What each link takes beside the name.
    link: usize,
}

impl Room {
    /// So many rows, on a page whose own address has so many folders.
    pub fn new(rows: usize, depth: usize) -> Self {
        Self {
            rows,
            bytes: MOST_BYTES.saturating_sub(3 * depth * LINKS).max(1),
            link: 3 * depth,
        }
    }

    /// Takes a row with so many links, each to the path that these parts make.
    pub fn take(&mut self, links: usize, parts: &[&str]) {
        let path: usize = parts.iter().map(|part| width(part)).sum();
        let row = ROW + links * (self.link + path);
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(row);
    }

    /// Whether nothing more is to be shown.
    pub fn is_full(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }
}

/// What a path takes as an address and as words, at most: what is no letter and no digit may be written in up to eight bytes.
fn width(path: &str) -> usize {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@+".contains(&byte);
    let each = |byte: u8| if is_plain(byte) { 2 } else { 8 };
    path.bytes().map(each).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_by_rows_or_by_what_they_take() {
        let taken = |depth, path: &str| {
            let mut room = Room::new(100, depth);
            let mut taken = 0;
            while !room.is_full() {
                room.take(1, &[path]);
                taken += 1;
            }
            taken
        };
        assert_eq!(taken(0, "pool/main/a/short-name-1.0.tar.gz"), 100);
        let long = "x".repeat(2_000);
        assert!((20..30).contains(&taken(0, &long)));
        assert!(taken(0, &"\u{e9}".repeat(1_000)) < taken(0, &long));
        assert!((1..10).contains(&taken(1_000, &long)));
        assert_eq!(taken(1_000_000, &long), 1);
    }
}
