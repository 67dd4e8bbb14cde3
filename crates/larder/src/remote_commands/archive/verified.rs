//! An archive of which every byte has been verified: what is in it, and where.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use larder_core::{Digest, Hasher};

use super::super::Failure;
use super::partial::Listed;
use super::progress::Progress;
use super::tar::{Broken, Entry, Reader};
use super::{
    BLOBS, Batch, CONTENTS, Contents, END, End, FORMAT, HEAD, Head, ROWS, cannot_read, digest_of,
    repository_of,
};

/// What is in an archive.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) head: Head,
    pub(super) contents: Contents,
    /// Batches of rows, with their repositories.
    pub(super) batches: Vec<(String, Entry)>,
    /// Where the bytes of blobs begin, and how many there are.
    pub(super) blobs: BTreeMap<Digest, Entry>,
    /// Blobs that rows name and that are not in it.
    pub(super) left_out: Vec<Digest>,
    /// Of the whole file.
    pub(super) sha256: Digest,
}

/// Reads the whole of an archive.
///
/// # Errors
/// It cannot be read, or is not to the byte what was exported: nothing of it is to be used.
pub(super) async fn verify(path: &Path, progress: &mut Progress) -> Result<Verified, Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::misused(format!("there is no {}", path.display())),
        _ => cannot_read(path, &error),
    };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    progress.begin("verifying", length);
    let mut reader = Reader::new(file);
    let read = Reading::default().read(&mut reader, progress).await;
    read.map_err(|broken| match broken {
        Broken::Unread(error) => failed(error),
        Broken::Damaged(at, why) => Failure::failed(format!(
            "{} is no archive, or is damaged: {why} (at byte {at} of {length}); nothing was imported: copy it again, or export again",
            path.display()
        )),
    })
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    head: Option<Head>,
    batches: Vec<(String, Entry)>,
    listed: Listed,
    is_listed: bool,
    blobs: BTreeMap<Digest, Entry>,
    end: Option<End>,
}

impl Reading {
    async fn read(
        mut self,
        reader: &mut Reader,
        progress: &mut Progress,
    ) -> Result<Verified, Broken> {
        loop {
            let before = reader.place();
            let Some(entry) = reader.next()? else { break };
            if self.end.is_some() {
                return Err(reader.damaged("something follows its last entry"));
            }
            match &*entry.name {
                HEAD => self.read_head(reader, &entry).await?,
                name if name.starts_with(ROWS) => self.read_rows(reader, &entry).await?,
                CONTENTS => self.read_contents(reader, &entry).await?,
                name if name.starts_with(BLOBS) => self.read_blob(reader, &entry).await?,
                END => {
                    let end: End = reader.json(&entry).await?;
                    if end.sha256 != before.sha256().to_hex() {
                        return Err(
                            reader.damaged("what is before its end is not what was exported")
                        );
                    }
                    self.end = Some(end);
                }
                _ => return Err(reader.damaged("it has an entry that no archive has")),
            }
            progress.add(reader.place().offset - before.offset);
        }
        self.ended(reader)
    }

    async fn read_head(&mut self, reader: &mut Reader, entry: &Entry) -> Result<(), Broken> {
        let head: Head = reader.json(entry).await?;
        if self.head.is_some() || !self.batches.is_empty() {
            return Err(reader.damaged("its head is not at its beginning"));
        }
        if head.format != FORMAT {
            let why = format!(
                "it was made by larder {}, in a form that this version does not read",
                head.larder
            );
            return Err(reader.damaged(why));
        }
        self.head = Some(head);
        Ok(())
    }

    async fn read_rows(&mut self, reader: &mut Reader, entry: &Entry) -> Result<(), Broken> {
        let batch: Batch = reader.json(entry).await?;
        let repository = repository_of(&entry.name).unwrap_or_default();
        let head = self.head.as_ref().filter(|_| !self.is_listed);
        let is_known =
            head.is_some_and(|head| head.repositories.iter().any(|own| own.name == repository));
        if !is_known {
            return Err(reader.damaged("rows stand where there are none"));
        }
        self.listed.add(&batch);
        self.batches.push((repository.to_owned(), entry.clone()));
        Ok(())
    }

    async fn read_contents(&mut self, reader: &mut Reader, entry: &Entry) -> Result<(), Broken> {
        let contents: Contents = reader.json(entry).await?;
        if self.is_listed || self.head.is_none() || contents != self.listed.contents {
            return Err(reader.damaged("its lists do not fit together"));
        }
        self.is_listed = true;
        Ok(())
    }

    async fn read_blob(&mut self, reader: &mut Reader, entry: &Entry) -> Result<(), Broken> {
        let mut hasher = Hasher::new(&[]);
        reader
            .body(entry.size, |piece| hasher.update(piece))
            .await?;
        let digest = digest_of(&entry.name).filter(|_| self.is_listed);
        let named = digest.filter(|digest| self.listed.blobs.get(digest) == Some(&entry.size));
        let Some(digest) = named else {
            return Err(reader.damaged("it has a blob that nothing names"));
        };
        if hasher.finish_sha256() != digest {
            return Err(reader.damaged(format!("the blob {digest} has other bytes")));
        }
        match self.blobs.insert(digest, entry.clone()) {
            None => Ok(()),
            Some(_) => Err(reader.damaged("it has a blob twice")),
        }
    }

    fn ended(self, reader: &Reader) -> Result<Verified, Broken> {
        let (Some(head), Some(end), true) = (self.head, self.end, self.is_listed) else {
            return Err(reader.damaged("it is not whole"));
        };
        let absent: Vec<&Digest> = self
            .listed
            .blobs
            .keys()
            .filter(|digest| !self.blobs.contains_key(digest))
            .collect();
        if absent != end.left_out.iter().collect::<Vec<_>>() {
            return Err(reader.damaged("blobs are missing"));
        }
        Ok(Verified {
            head,
            contents: self.listed.contents,
            batches: self.batches,
            blobs: self.blobs,
            left_out: end.left_out,
            sha256: reader.place().sha256(),
        })
    }
}
