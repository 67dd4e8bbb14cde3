//! An archive on its way: `FILE.partial`. What a run that was broken off has left is read again, and gone on with behind the last entry
//! that is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use larder_core::{Digest, Hasher};
use larder_engine::ArchiveRow;

use super::super::Failure;
use super::progress::Progress;
use super::tar::{Broken, Entry, Place, Reader, Writer};
use super::{Batch, CONTENTS, Contents, FORMAT, HEAD, Head, ROWS, cannot, digest_of};

/// A file that is longer and has no head is somebody else's, in bytes.
const MOST_OF_NOTHING: u64 = 1 << 20;

/// What is in it, and where the next entry goes.
pub(super) struct Partial {
    pub(super) writer: Writer,
    /// The blobs that its rows name, with their lengths; `None` if not all rows are in it, and then none are.
    pub(super) listed: Option<Listed>,
    /// The blobs that are in it.
    pub(super) has: BTreeSet<Digest>,
}

/// What the rows of an archive name.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) contents: Contents,
    pub(super) blobs: BTreeMap<Digest, u64>,
}

impl Listed {
    /// Counts rows in.
    pub(super) fn add(&mut self, batch: &Batch) {
        self.contents.rows += batch.rows.len() as u64;
        for blob in batch.rows.iter().filter_map(ArchiveRow::blob) {
            self.add_blob(blob.digest.clone(), blob.size);
        }
    }

    /// Counts what other rows name in.
    pub(super) fn merge(&mut self, other: Self) {
        self.contents.rows += other.contents.rows;
        for (digest, size) in other.blobs {
            self.add_blob(digest, size);
        }
    }

    fn add_blob(&mut self, digest: Digest, size: u64) {
        if self.blobs.insert(digest, size).is_none() {
            self.contents.blobs += 1;
            // What an archive says of sizes may be anything.
            self.contents.bytes = self.contents.bytes.saturating_add(size);
        }
    }
}

/// Where an archive is until it is whole.
pub(super) fn path_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Opens what was begun of the archive with this head, or begins it.
pub(super) async fn open(
    path: &Path,
    head: &Head,
    progress: &mut Progress,
) -> Result<Partial, Failure> {
    let opened = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = opened.map_err(|error| cannot("write", path, &error))?;
    if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
        let path = path.display();
        return Err(Failure::failed(format!("another export is writing {path}")));
    }
    let failed = |error: &std::io::Error| cannot("read", path, error);
    let length = file.metadata().map_err(|error| failed(&error))?.len();
    let reading = file.try_clone().map_err(|error| failed(&error))?;
    let mut found = Found::default();
    if length > 0 {
        progress.begin("reading what was begun", length);
        let mut reader = Reader::new(reading);
        loop {
            let before = reader.place();
            match found.read_on(&mut reader).await {
                Ok(true) => {}
                // An end that is there is written again.
                Ok(false) | Err(Broken::Damaged(..)) => {
                    found.place = Some(before);
                    break;
                }
                Err(Broken::Unread(error)) => return Err(failed(&error)),
            }
            progress.add(reader.place().offset - before.offset);
        }
    }
    if found.head.is_none() && length > MOST_OF_NOTHING {
        let path = path.display();
        return Err(Failure::failed(format!(
            "{path} is there, and no archive that was begun: delete it, or name another file"
        )));
    }
    // Without a whole list there is nothing to go on with.
    let begun = found.head.filter(|_| found.is_listed);
    if let Some(other) = begun.filter(|found| !is_same(found, head)) {
        let names: Vec<&str> = other.repositories.iter().map(|own| &*own.name).collect();
        return Err(Failure::failed(format!(
            "{} was begun with other repositories ({}), or by another version: go on with these, or delete it",
            path.display(),
            names.join(", ")
        )));
    }
    match (found.listed, found.place) {
        (Some(listed), Some(place)) if found.is_listed => Ok(Partial {
            writer: Writer::at(path, file, place)?,
            listed: Some(listed),
            has: found.has,
        }),
        _ => Ok(Partial {
            writer: Writer::at(path, file, Place::start())?,
            listed: None,
            has: BTreeSet::new(),
        }),
    }
}

fn is_same(one: &Head, other: &Head) -> bool {
    one.format == FORMAT && one.repositories == other.repositories
}

/// What was found of an archive.
#[derive(Default)]
struct Found {
    head: Option<Head>,
    listed: Option<Listed>,
    is_listed: bool,
    has: BTreeSet<Digest>,
    place: Option<Place>,
}

impl Found {
    /// Reads an entry; `false` where there is none more that is gone on behind.
    async fn read_on(&mut self, reader: &mut Reader) -> Result<bool, Broken> {
        let Some(entry) = reader.next()? else {
            return Ok(false);
        };
        match &*entry.name {
            HEAD if self.head.is_none() => self.head = Some(reader.json(&entry).await?),
            name if name.starts_with(ROWS) && !self.is_listed => {
                let batch: Batch = reader.json(&entry).await?;
                self.listed.get_or_insert_default().add(&batch);
            }
            CONTENTS if !self.is_listed => {
                let contents: Contents = reader.json(&entry).await?;
                let listed = self.listed.get_or_insert_default();
                if listed.contents != contents {
                    return Err(reader.damaged("its lists do not fit together"));
                }
                self.is_listed = true;
            }
            _ => return self.read_blob(reader, &entry).await,
        }
        Ok(true)
    }

    async fn read_blob(&mut self, reader: &mut Reader, entry: &Entry) -> Result<bool, Broken> {
        let Some(digest) = digest_of(&entry.name).filter(|_| self.is_listed) else {
            return Ok(false);
        };
        let mut hasher = Hasher::new(&[]);
        reader
            .body(entry.size, |piece| hasher.update(piece))
            .await?;
        if hasher.finish_sha256() != digest {
            return Err(reader.damaged("a blob has other bytes"));
        }
        self.has.insert(digest);
        Ok(true)
    }
}
