//! What is not in an archive, though its rows name it: of which files and documents the bytes could not be had.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;

use larder_core::{Digest, SafeUrl};
use larder_engine::ArchiveRow;
use serde::Serialize;

use super::super::Failure;
use super::super::shown::{self, plain};
use super::tar::{Broken, Reader};
use super::{Batch, HEAD, ROWS, cannot_read, repository_of};

/// Why bytes are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Why {
    /// They have gone since they were listed.
    Gone,
    /// They are not what they were.
    Damaged,
}

/// A file or document without its bytes.
#[derive(Debug, Serialize)]
pub(super) struct LeftOut {
    repository: String,
    /// The path, or the address of a link to another host.
    path: String,
    pub(super) digest: Digest,
    pub(super) why: Why,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Gone => "gone since it was listed",
            Why::Damaged => "damaged",
        };
        let (repository, path) = (plain(&self.repository), shown::path(&self.path));
        write!(f, "left out: {repository}/{path}: {} is {why}", self.digest)
    }
}

/// The rows of an archive that name these blobs.
pub(super) async fn rows_of(
    path: &Path,
    blobs: BTreeMap<Digest, Why>,
) -> Result<Vec<LeftOut>, Failure> {
    let mut left = Vec::new();
    if blobs.is_empty() {
        return Ok(left);
    }
    let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
    let mut reader = Reader::new(file);
    let read = read(&mut reader, &blobs, &mut left).await;
    read.map_err(|broken| match broken {
        Broken::Unread(error) => cannot_read(path, &error),
        Broken::Damaged(_, why) => Failure::failed(format!("{}: {why}", path.display())),
    })?;
    Ok(left)
}

async fn read(
    reader: &mut Reader,
    blobs: &BTreeMap<Digest, Why>,
    left: &mut Vec<LeftOut>,
) -> Result<(), Broken> {
    while let Some(entry) = reader.next()? {
        if entry.name == HEAD {
            reader.body(entry.size, |_| {}).await?;
            continue;
        }
        if !entry.name.starts_with(ROWS) {
            break;
        }
        let batch: Batch = reader.json(&entry).await?;
        let repository = repository_of(&entry.name).unwrap_or_default();
        for row in &batch.rows {
            if let Some(blob) = row.blob()
                && let Some(why) = blobs.get(&blob.digest)
            {
                left.push(LeftOut {
                    repository: repository.to_owned(),
                    path: path_of(row),
                    digest: blob.digest.clone(),
                    why: *why,
                });
            }
        }
    }
    Ok(())
}

/// What a row is called.
fn path_of(row: &ArchiveRow) -> String {
    let of_link =
        |link: &larder_engine::ArchiveLink| format!("{}{}", SafeUrl(link.url.clone()), link.suffix);
    row.link.as_ref().map_or_else(|| row.path.clone(), of_link)
}
