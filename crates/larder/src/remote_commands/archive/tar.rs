//! Entries of a tar (ustar; long ones with sizes as GNU tar writes them). What is read must be what is written here to the byte, so that
//! nothing in an archive can be changed unseen.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use larder_core::{Digest, Hasher};
use tar::{EntryType, Header};

use super::super::Failure;
use super::{MOST, cannot};

const BLOCK: usize = 512;
/// What is read at a time.
const PIECE: usize = 256 << 10;

fn header(name: &str, size: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Bytes between an entry of this length and the next one.
fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// A tar that is written. What it has so far is hashed.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    place: Place,
}

/// How far a tar has come: where its next entry begins, and the hash of what is before.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) offset: u64,
    hasher: Hasher,
}

impl Place {
    /// The beginning.
    pub(super) fn start() -> Self {
        Self {
            offset: 0,
            hasher: Hasher::new(&[]),
        }
    }

    /// The SHA-256 of what is before.
    pub(super) fn sha256(&self) -> Digest {
        self.hasher.clone().finish_sha256()
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
    }
}

impl Writer {
    /// Goes on with a file from this place on; what is behind it goes.
    pub(super) fn at(path: &Path, file: File, place: Place) -> Result<Self, Failure> {
        let mut writer = Self {
            path: path.to_owned(),
            file,
            place: Place::start(),
        };
        writer.back(place)?;
        Ok(writer)
    }

    /// Where the next entry begins.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Takes away what is behind this place.
    pub(super) fn back(&mut self, place: Place) -> Result<(), Failure> {
        let cut = self.file.set_len(place.offset);
        let cut = cut.and_then(|()| self.file.seek(SeekFrom::Start(place.offset)));
        cut.map_err(|error| cannot("write", &self.path, &error))?;
        self.place = place;
        Ok(())
    }

    /// Writes a whole entry.
    pub(super) fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.begin(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.end(bytes.len() as u64)
    }

    /// Begins an entry of this length.
    pub(super) fn begin(&mut self, name: &str, size: u64) -> Result<(), Failure> {
        let header = header(name, size).map_err(|error| cannot("write", &self.path, &error))?;
        self.write(&header)
    }

    /// Writes some of the entry that was begun.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| cannot("write", &self.path, &error))?;
        self.place.add(bytes);
        Ok(())
    }

    /// Ends an entry of this length.
    pub(super) fn end(&mut self, size: u64) -> Result<(), Failure> {
        self.write(&[0; BLOCK][..padding(size)])
    }

    /// Ends the tar: all of it is on stable storage then. Gives its length and SHA-256.
    pub(super) fn finish(mut self) -> Result<(u64, Digest), Failure> {
        self.write(&[0; 2 * BLOCK])?;
        let synced = self.file.sync_all();
        synced.map_err(|error| cannot("write", &self.path, &error))?;
        Ok((self.place.offset, self.place.sha256()))
    }
}

/// A tar that is read from its beginning, and hashed.
pub(super) struct Reader {
    file: BufReader<File>,
    place: Place,
}

/// An entry's name, where its bytes begin, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) size: u64,
}

/// Why a tar cannot be read on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The file cannot be read.
    Unread(io::Error),
    /// It is not what was written: where, and what is wrong.
    Damaged(u64, String),
}

impl Reader {
    pub(super) fn new(file: File) -> Self {
        Self {
            file: BufReader::with_capacity(PIECE, file),
            place: Place::start(),
        }
    }

    /// How far it has been read.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// That something is wrong here.
    pub(super) fn damaged(&self, why: impl Into<String>) -> Broken {
        Broken::Damaged(self.place.offset, why.into())
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        match self.file.read_exact(bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged("it is cut off"));
            }
            Err(error) => return Err(Broken::Unread(error)),
        }
        self.place.add(bytes);
        Ok(())
    }

    /// The next entry, whose bytes are to be read then; `None` at the end, behind which there is nothing.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Broken> {
        let mut block = [0; BLOCK];
        self.exactly(&mut block)?;
        if block == [0; BLOCK] {
            self.exactly(&mut block)?;
            let mut more = [0];
            let more = self.file.read(&mut more).map_err(Broken::Unread)?;
            if block != [0; BLOCK] || more > 0 {
                return Err(self.damaged("something follows its end"));
            }
            return Ok(None);
        }
        let found = Header::from_byte_slice(&block);
        let name = String::from_utf8(found.path_bytes().into_owned());
        let entry = name.ok().zip(found.entry_size().ok());
        match entry {
            Some((name, size)) if header(&name, size).is_ok_and(|written| written == block) => {
                Ok(Some(Entry {
                    name,
                    start: self.place.offset,
                    size,
                }))
            }
            _ => Err(self.damaged("an entry's head is not what larder wrote")),
        }
    }

    /// Reads the bytes of an entry. Now and then others have their turn: a command that is interrupted ends in the middle of a long one.
    pub(super) async fn body(
        &mut self,
        size: u64,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Broken> {
        let mut piece = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
        let mut left = size;
        while left > 0 {
            let count = piece.len().min(usize::try_from(left).unwrap_or(PIECE));
            self.exactly(&mut piece[..count])?;
            each(&piece[..count]);
            left -= count as u64;
            tokio::task::yield_now().await;
        }
        let mut rest = [0; BLOCK];
        let rest = &mut rest[..padding(size)];
        self.exactly(rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("something stands between two entries"));
        }
        Ok(())
    }

    /// Reads an entry that is read as JSON.
    pub(super) async fn json<T: serde::de::DeserializeOwned>(
        &mut self,
        entry: &Entry,
    ) -> Result<T, Broken> {
        if entry.size > MOST {
            return Err(self.damaged(format!("{} is too long", entry.name)));
        }
        let mut bytes = Vec::new();
        self.body(entry.size, |piece| bytes.extend_from_slice(piece))
            .await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.damaged(format!("{} cannot be read: {error}", entry.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let options = || {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        };
        let mut writer = Writer::at(&path, options().unwrap(), Place::start()).unwrap();
        let long = format!("records/{}/000001.json", "r".repeat(128));
        writer.entry("a", b"one").unwrap();
        let place = writer.place();
        writer.entry("b", &[7; 1000]).unwrap();
        writer.back(place).unwrap();
        writer.entry(&long, &[9; 512]).unwrap();
        let (length, sha256) = writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, length);
        assert_eq!(larder_core::sha256(&bytes), sha256);
        let read = async || -> Result<Vec<(String, u64)>, Broken> {
            let mut reader = Reader::new(options().unwrap());
            let mut found = Vec::new();
            while let Some(entry) = reader.next()? {
                reader.body(entry.size, |_| {}).await?;
                found.push((entry.name, entry.size));
            }
            Ok(found)
        };
        assert_eq!(read().await.unwrap(), [("a".to_owned(), 3), (long, 512)]);
        for at in
            (0..bytes.len()).filter(|at| !(512..515).contains(at) && !(1536..2048).contains(at))
        {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            assert!(read().await.is_err(), "a flip at {at} is not seen");
        }
        for length in [0, 511, 1500, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(read().await.is_err(), "cut at {length}");
        }
        assert_eq!(
            header("x", 9 << 30).map(|_| ()).ok(),
            Some(()),
            "longer than 8 GiB"
        );
    }
}
