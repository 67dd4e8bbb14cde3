//! What a document says of the files that it names: a sorted table, derived once, looked up by path.

use std::collections::BTreeSet;

use bytes::Bytes;
use larder_core::{Digest, UnixMillis};
use larder_formats::Claim;

use crate::claim::StoredClaim;

/// The digests by which a claim is judged: those of its strongest algorithm.
fn strongest(digests: &mut Vec<Digest>) {
    if let Some(best) = digests.iter().map(Digest::algorithm).max() {
        digests.retain(|digest| digest.algorithm() == best);
    }
}

/// Between the packages of a file in a claim, which no name holds.
const BETWEEN: char = '\t';

/// A claim for a path that another claim of the same document names too. The first one says where the file is.
fn merge(first: &mut Claim, later: &mut Claim) {
    for digest in later.digests.drain(..) {
        if !first.digests.contains(&digest) {
            first.digests.push(digest);
        }
    }
    if let Some(identity) = later.identity.take() {
        first.identity = Some(match first.identity.take() {
            Some(known) if known.split(' ').any(|one| one == identity) => known,
            Some(known) => format!("{known} {identity}"),
            None => identity,
        });
    }
    if let Some(package) = later.package.take() {
        first.package = Some(match first.package.take() {
            Some(known) if known.split(BETWEEN).any(|one| one == package) => known,
            Some(known) => format!("{known}{BETWEEN}{package}"),
            None => package,
        });
    }
    first.names_files |= later.names_files;
    if first.size != later.size {
        first.size = None;
    }
    // Quarantine must not end before that of the newer file would.
    first.published_at = first.published_at.max(later.published_at);
}

/// Lines `path TAB url TAB size TAB published TAB digests TAB identity TAB files TAB packages`, sorted by path: `files` where it names further
/// ones. Empty fields at the end, and the tabs in front of them, are left out; packages are several fields.
#[derive(Debug)]
pub(crate) struct ClaimTable(Bytes);

impl ClaimTable {
    pub(crate) fn build(mut claims: Vec<Claim>) -> Self {
        claims.retain(|claim| {
            [Some(&claim.path), Some(&claim.url), claim.identity.as_ref()]
                .into_iter()
                .flatten()
                .all(|t| is_clean(t))
        });
        for claim in &mut claims {
            strongest(&mut claim.digests);
            claim.package = claim.package.take().filter(|name| is_clean(name));
        }
        // Stable: of two claims for one path the first in the document says where the file is.
        claims.sort_by(|a, b| a.path.cmp(&b.path));
        claims.dedup_by(|later, first| {
            let same = later.path == first.path;
            if same {
                merge(first, later);
            }
            same
        });
        let mut text = String::with_capacity(claims.len() * 160);
        for claim in claims {
            use std::fmt::Write as _;
            let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let size = number(claim.size.and_then(|size| i64::try_from(size).ok()));
            let published = number(claim.published_at.map(|at| at.0));
            let digests: Vec<String> = claim.digests.iter().map(ToString::to_string).collect();
            let _ = write!(
                text,
                "{}\t{}\t{size}\t{published}\t{}",
                claim.path,
                claim.url,
                digests.join(" ")
            );
            let files = claim.names_files.then(|| "files".to_owned());
            for further in [claim.identity, files, claim.package] {
                let _ = write!(text, "\t{}", further.unwrap_or_default());
            }
            text.truncate(text.trim_end_matches('\t').len());
            text.push('\n');
        }
        // What was reserved and not used would be held as long as the table, and not be weighed.
        Self(text.into_boxed_str().into_boxed_bytes().into())
    }

    pub(crate) fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub(crate) fn find(&self, path: &str) -> Option<StoredClaim> {
        let line = self.from(path).split(|&byte| byte == b'\n').next()?;
        let (found, claim) = parse(std::str::from_utf8(line).ok()?)?;
        (found == path).then_some(claim)
    }

    /// The claims for these paths alone.
    pub(crate) fn only(&self, paths: &BTreeSet<String>) -> Self {
        let mut lines = Vec::new();
        for path in paths {
            let from = self.from(path);
            let line = from.split_inclusive(|&byte| byte == b'\n').next();
            let line =
                line.filter(|line| line.split(|&b| b == b'\t').next() == Some(path.as_bytes()));
            lines.extend_from_slice(line.unwrap_or_default());
        }
        Self(lines.into())
    }

    /// The claims for paths behind this one, sorted by path; all of them behind the empty path.
    pub(crate) fn iter_after(&self, path: &str) -> impl Iterator<Item = (&str, StoredClaim)> {
        let rest = std::str::from_utf8(self.from(path)).unwrap_or_default();
        let claims = rest.lines().filter_map(parse);
        claims.skip_while(move |(found, _)| *found == path)
    }

    /// The lines from that of a path on, or from where it would stand.
    fn from(&self, path: &str) -> &[u8] {
        let table = &self.0[..];
        let (mut low, mut high) = (0, table.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let start = table[..middle]
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |at| at + 1);
            let end = table[start..]
                .iter()
                .position(|&b| b == b'\n')
                .map_or(table.len(), |at| start + at);
            let named = table[start..end].split(|&b| b == b'\t').next();
            if named.unwrap_or_default() < path.as_bytes() {
                low = table.len().min(end + 1);
            } else {
                high = start;
            }
        }
        &table[low..]
    }

    /// All claims, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, StoredClaim)> {
        std::str::from_utf8(&self.0)
            .unwrap_or_default()
            .lines()
            .filter_map(parse)
    }
}

fn is_clean(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_control())
}

fn parse(line: &str) -> Option<(&str, StoredClaim)> {
    let mut fields = line.split('\t');
    let path = fields.next()?;
    let url = fields.next()?.to_owned();
    let size = fields.next()?.parse().ok();
    let published_at = fields.next()?.parse().ok().map(UnixMillis);
    let digests = fields
        .next()
        .unwrap_or_default()
        .split(' ')
        .filter_map(|text| text.parse().ok())
        .collect();
    let identity = fields.next().filter(|text| !text.is_empty());
    let names_files = fields.next().is_some_and(|text| !text.is_empty());
    Some((
        path,
        StoredClaim {
            url,
            size,
            published_at,
            digests,
            identity: identity.map(str::to_owned),
            names_files,
            packages: fields.map(str::to_owned).collect(),
        },
    ))
}

#[cfg(test)]
mod tests;
