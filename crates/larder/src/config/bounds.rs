//! How much is kept: `limits.disk` of all, and `max_disk` of a remote.

use super::diagnostic::Report;
use super::fields::{Section, parse_size};
use super::schema;

/// Less than this would be used up by one document.
const LEAST: u64 = 1 << 20;

/// `limits.disk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskLimit {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system that the data directory is on.
    Percent(u8),
}

impl DiskLimit {
    /// In bytes, of a file system of `total`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
        }
    }
}

/// `limits.disk`. `has_store`: blobs are kept in an object store, which has no size.
pub(super) fn disk(top: &Section<'_>, has_store: bool, report: &mut Report) -> Option<DiskLimit> {
    // What is wrong with the section itself has been said by who read the other limits.
    let limits = top.section("limits", schema::LIMITS, &mut Report::default())?;
    let (text, place) = limits.text("disk", report)?;
    let limit = match text.strip_suffix('%') {
        Some(number) => percent(number).map(DiskLimit::Percent),
        None => parse_size(text)
            .filter(|bytes| *bytes >= LEAST)
            .map(DiskLimit::Bytes),
    };
    let path = limits.path("disk");
    match limit {
        None => report.error(
            place,
            format!(
                "`{path}` must be a number of bytes, at least 1MiB and with a unit such as 500GiB or 2TB, or a part of the file system from 1% to 100%"
            ),
        ),
        Some(DiskLimit::Percent(_)) if has_store => report.error(
            place,
            format!(
                "`{path}`: with `s3` the object store is bounded, of which nothing is a part: write a number of bytes, such as 500GiB"
            ),
        ),
        Some(_) => {}
    }
    limit
}

/// `max_disk` of a remote, in bytes.
pub(super) fn max_disk(section: &Section<'_>, report: &mut Report) -> Option<u64> {
    let (text, place) = section.text("max_disk", report)?;
    let bytes = parse_size(text).filter(|bytes| *bytes >= LEAST);
    if bytes.is_none() {
        report.error(
            place,
            format!(
                "`{}` must be a number of bytes, at least 1MiB, and may have a unit such as 64GiB or 2TB",
                section.path("max_disk")
            ),
        );
    }
    bytes
}

fn percent(number: &str) -> Option<u8> {
    let number = number.trim_end();
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let percent: u8 = number.parse().ok().filter(|_| is_number)?;
    (1..=100).contains(&percent).then_some(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_file_system_is_a_whole_number_of_hundredths() {
        for (text, wanted) in [
            ("80", Some(80)),
            ("1 ", Some(1)),
            ("100", Some(100)),
            ("0", None),
            ("101", None),
            ("-5", None),
            ("+5", None),
            ("12.5", None),
            ("", None),
        ] {
            assert_eq!(percent(text), wanted, "{text:?}");
        }
        assert_eq!(DiskLimit::Percent(80).of(1_000), 800);
        assert_eq!(DiskLimit::Percent(50).of(u64::MAX), u64::MAX / 2);
        assert_eq!(DiskLimit::Bytes(7).of(1_000), 7);
    }
}
