//! Blobs as files of a local (or network) file system. What is here may wait for a disk.
//!
//! `<data>/blobs/sha256/ab/cd/<digest>` are the blobs; `<data>/blobs/spool` has private names where the file system knows no unnamed
//! files. Nothing is scanned at start.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{BlobDescriptor, Digest};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::layout::{Layout, Shard, modified_ns};
use super::open_files::{MOST_OPEN_BLOBS, OpenFiles};
use super::parallel::parallel_map;
use super::space::SpaceGauge;
use super::spool::TemporaryName;
use super::strangers;
use crate::blob::pins::{BlobPlace, Pins, Place};
use crate::blob::{BlobInfo, SealedSpool, Space, Spool, StoredBlob, check_length, not_found};
use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

/// The files of a store, and what is known of them.
#[derive(Debug)]
pub(super) struct Files {
    layout: Layout,
    spool_directory: Arc<Path>,
    /// Whether files without a name can be made here and be given one later.
    unnamed: bool,
    /// Makes private names differ.
    serial: AtomicU64,
    pins: Arc<Pins>,
    pub(super) open_files: OpenFiles,
    gauge: Arc<SpaceGauge>,
    /// Shards whose own directory entries are known to be on stable storage.
    durable: Mutex<HashSet<Shard>>,
    /// Blobs whose files were found to have other bytes: as good as absent, and replaced when they are published again.
    damaged: Mutex<HashSet<Digest>>,
    #[cfg(test)]
    steps: Mutex<Vec<Step>>,
}

/// What [`Files`] has done, in order; only tests keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    SyncFile(Digest),
    Name(Digest),
    SyncDirectory(PathBuf),
}

impl Files {
    pub(super) fn open_with(data_dir: &Path, allow_unnamed: bool) -> Result<Self, StorageError> {
        let blobs = data_dir.join("blobs");
        let root = blobs.join("sha256");
        let spool_directory = blobs.join("spool");
        let prepare = || -> io::Result<bool> {
            fs::create_dir_all(&root)?;
            fs::create_dir_all(&spool_directory)?;
            for directory in [&blobs, data_dir] {
                File::open(directory)?.sync_all()?;
            }
            remove_leftovers(&spool_directory)?;
            Ok(allow_unnamed && can_name_later(&spool_directory))
        };
        let unnamed =
            prepare().map_err(|e| StorageError::from_io("prepare the blob directory", e))?;
        Ok(Self {
            unnamed,
            ..Self::to_read(data_dir)
        })
    }

    /// As it may be read, whatever is there.
    pub(super) fn to_read(data_dir: &Path) -> Self {
        let blobs = data_dir.join("blobs");
        Self {
            layout: Layout::new(blobs.join("sha256")),
            spool_directory: blobs.join("spool").into(),
            unnamed: false,
            serial: AtomicU64::new(0),
            pins: Arc::default(),
            open_files: OpenFiles::new(MOST_OPEN_BLOBS),
            gauge: Arc::new(SpaceGauge::new(&blobs)),
            durable: Mutex::default(),
            damaged: Mutex::default(),
            #[cfg(test)]
            steps: Mutex::default(),
        }
    }

    /// Keeps at most `files` blobs open that were read lately.
    pub(super) fn keeping_open(self, files: usize) -> Self {
        Self {
            open_files: OpenFiles::new(files),
            ..self
        }
    }

    #[cfg_attr(
        not(test),
        expect(clippy::unused_self, reason = "only tests keep the steps")
    )]
    fn note(
        &self,
        #[cfg_attr(
            not(test),
            expect(unused_variables, reason = "only tests keep the steps")
        )]
        step: impl FnOnce() -> Step,
    ) {
        #[cfg(test)]
        self.steps.lock().unwrap().push(step());
    }

    fn private_name(&self) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.spool_directory
            .join(format!("{}-{serial}", std::process::id()))
    }

    fn new_file(&self) -> io::Result<(File, Option<TemporaryName>)> {
        if self.unnamed {
            return Ok((unnamed_file(&self.spool_directory)?, None));
        }
        let path = self.private_name();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        let name = TemporaryName(path);
        // Tells another process that starts in this directory that the file is in use; not every file system knows locks.
        let _ = file.lock();
        Ok((file, Some(name)))
    }

    /// Puts one file into place; the directories are still to be synchronised.
    fn place(&self, sealed: &SealedSpool) -> Result<(BlobInfo, Shard), StorageError> {
        let SealedSpool { spool, descriptor } = sealed;
        check_length(descriptor, spool.len())?;
        let (shard, path) = self.layout.place(&descriptor.digest)?;
        // Before looking whether the blob exists: from here on nobody deletes it.
        let place = BlobPlace {
            path: path.clone(),
            spool_directory: Arc::clone(&self.spool_directory),
            file: spool.reader(),
            size: descriptor.size,
        };
        let pin = self
            .pins
            .pin(&descriptor.digest, Some(Place::File(Arc::new(place))));
        let is_good = !self.damaged().contains(&descriptor.digest);
        let metadata = match present(&path, descriptor.size)?.filter(|_| is_good) {
            Some(metadata) => metadata,
            None => self
                .sync_and_name(spool, descriptor, shard, &path)
                .map_err(|e| StorageError::from_io("publish a blob", e))?,
        };
        Ok((
            BlobInfo {
                descriptor: descriptor.clone(),
                modified_ns: modified_ns(&metadata),
                pin: Some(pin),
            },
            shard,
        ))
    }

    fn sync_and_name(
        &self,
        spool: &Spool,
        descriptor: &BlobDescriptor,
        shard: Shard,
        path: &Path,
    ) -> io::Result<fs::Metadata> {
        spool.file().sync_all()?;
        self.note(|| Step::SyncFile(descriptor.digest.clone()));
        let metadata = match self.name(spool, path, descriptor) {
            Err(error) if strangers::is_absence(&error) => {
                let (upper, own) = (self.layout.upper(shard), self.layout.directory(shard));
                strangers::make_directories([&upper, &own])?;
                self.name(spool, path, descriptor)?
            }
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                strangers::set_aside(path)?;
                self.name(spool, path, descriptor)?
            }
            other => other?,
        };
        if self.damaged().remove(&descriptor.digest) {
            self.open_files.forget(&descriptor.digest);
        }
        self.note(|| Step::Name(descriptor.digest.clone()));
        Ok(metadata)
    }

    /// Gives a synchronised file its final name in one atomic act. Whoever comes second to a name finds equal bytes there.
    fn name(&self, spool: &Spool, path: &Path, blob: &BlobDescriptor) -> io::Result<fs::Metadata> {
        if let Some(name) = &spool.name {
            fs::rename(&name.0, path)?;
            return spool.file().metadata();
        }
        match link(spool.file(), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.and_then(|()| spool.file().metadata()),
        }
        match fs::symlink_metadata(path) {
            Ok(found)
                if found.is_file()
                    && found.len() == blob.size
                    && !self.damaged().contains(&blob.digest) =>
            {
                return Ok(found);
            }
            // Now: a file that has had a name and lost it gets no other.
            Ok(found) if found.is_dir() => strangers::set_aside(path)?,
            _ => {}
        }
        // What stands there is damaged: put a private name over it.
        let private = TemporaryName(self.private_name());
        link(spool.file(), &private.0)?;
        fs::rename(&private.0, path)?;
        spool.file().metadata()
    }

    /// Synchronises the directories of `shards` once each, and those above them where that has not been done since the start:
    /// another thread or an earlier process may have made them without getting so far. Gives the shards that failed.
    fn sync_directories(&self, shards: &BTreeSet<Shard>) -> HashMap<Shard, StorageError> {
        let needs: Vec<(Shard, Vec<PathBuf>)> = shards
            .iter()
            .map(|&shard| (shard, self.unsynchronised(shard)))
            .collect();
        let directories: BTreeSet<&PathBuf> = needs
            .iter()
            .flat_map(|(_, directories)| directories)
            .collect();
        let directories: Vec<&PathBuf> = directories.into_iter().collect();
        let outcomes = parallel_map(&directories, |directory| self.sync_directory(directory));
        let errors: HashMap<&PathBuf, StorageError> = directories
            .into_iter()
            .zip(outcomes)
            .filter_map(|(directory, outcome)| Some((directory, outcome.err()?)))
            .collect();
        let mut failed = HashMap::new();
        for (shard, directories) in &needs {
            match directories
                .iter()
                .find_map(|directory| errors.get(directory))
            {
                Some(error) => drop(failed.insert(*shard, error.again())),
                None => drop(self.durable().insert(*shard)),
            }
        }
        failed
    }

    /// The directories in which an entry on the way to a blob of this shard may be new.
    fn unsynchronised(&self, shard: Shard) -> Vec<PathBuf> {
        let mut directories = vec![self.layout.directory(shard)];
        if !self.durable().contains(&shard) {
            directories.extend([self.layout.upper(shard), self.layout.root().to_owned()]);
        }
        directories
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<Shard>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn doubt(&self, digest: &Digest) {
        self.damaged().insert(digest.clone());
        self.open_files.forget(digest);
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), StorageError> {
        let sync = || File::open(directory)?.sync_all();
        sync().map_err(|e| StorageError::from_io("synchronise a blob directory", e))?;
        self.note(|| Step::SyncDirectory(directory.to_owned()));
        Ok(())
    }

    pub(super) fn spool(&self) -> Result<Spool, StorageError> {
        self.gauge.admit(0)?;
        let (file, name) = self
            .new_file()
            .map_err(|e| StorageError::from_io("make a spool", e))?;
        Ok(Spool::new(file, name, Some(Arc::clone(&self.gauge))))
    }

    pub(super) fn open(&self, blob: &BlobDescriptor) -> Result<Body, StorageError> {
        if let Some((file, length)) = self.open_files.get(&blob.digest) {
            if length == blob.size {
                return Ok(Body::file(file, length));
            }
            self.open_files.forget(&blob.digest);
        }
        let file = Arc::new(self.open_file(blob)?);
        self.open_files.keep(&blob.digest, &file);
        Ok(Body::file(file, blob.size))
    }

    /// One open and one fstat.
    fn open_file(&self, blob: &BlobDescriptor) -> Result<File, StorageError> {
        let (_, path) = self.layout.place(&blob.digest)?;
        let opened = strangers::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| {
            if strangers::is_absence(&error) {
                not_found(&blob.digest)
            } else {
                StorageError::from_io("open a blob", error)
            }
        })?;
        if !metadata.is_file() {
            let message = format!("what is stored as blob {} is no file", blob.digest);
            return Err(StorageError::new(StorageErrorKind::Corrupt, message));
        }
        check_length(blob, metadata.len())?;
        Ok(file)
    }

    /// Opens a blob's file anew, and has it read from the disk rather than from memory.
    pub(super) fn open_kept(&self, blob: &BlobDescriptor) -> Result<Body, StorageError> {
        let file = self.open_file(blob)?;
        // Not every file system knows it; then what is in memory is compared.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(Body::file(Arc::new(file), blob.size))
    }

    pub(super) fn open_once(&self, blob: &BlobDescriptor) -> Option<Body> {
        if let Some((file, _)) = self.open_files.get(&blob.digest) {
            return Some(Body::file(file, blob.size));
        }
        let (_, path) = self.layout.place(&blob.digest).ok()?;
        let file = strangers::open(&path).ok()?;
        Some(Body::file(Arc::new(file), blob.size))
    }

    pub(super) fn publish(&self, batch: &[SealedSpool]) -> Vec<Result<BlobInfo, StorageError>> {
        let placed = parallel_map(batch, |sealed| self.place(sealed));
        let shards: BTreeSet<Shard> = placed.iter().flatten().map(|(_, shard)| *shard).collect();
        let failed = self.sync_directories(&shards);
        placed
            .into_iter()
            .map(|item| {
                let (info, shard) = item?;
                failed
                    .get(&shard)
                    .map_or(Ok(info), |error| Err(error.again()))
            })
            .collect()
    }

    pub(super) fn delete(&self, digest: &Digest) -> Result<bool, StorageError> {
        let (_, path) = self.layout.place(digest)?;
        // While nobody can publish a blob of this name.
        let remove = || match fs::remove_file(&path) {
            Err(_) if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) => {
                strangers::set_aside(&path).and(Err(io::ErrorKind::NotFound.into()))
            }
            other => other,
        };
        match self.pins.unless_pinned(digest, remove) {
            None => Ok(false),
            Some(Ok(())) => {
                self.open_files.forget(digest);
                self.damaged().remove(digest);
                Ok(true)
            }
            Some(Err(error)) if strangers::is_absence(&error) => Ok(false),
            Some(Err(error)) => Err(StorageError::from_io("delete a blob", error)),
        }
    }

    pub(super) fn free_space(&self) -> Result<Space, StorageError> {
        self.gauge.space()
    }

    pub(super) fn list(
        &self,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<StoredBlob>, StorageError> {
        self.layout
            .list(after, limit)
            .map_err(|e| StorageError::from_io("list blobs", e))
    }
}

/// The file's metadata if a blob of the right size is there. One of another size counts as absent: it will be replaced.
fn present(path: &Path, size: u64) -> Result<Option<fs::Metadata>, StorageError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok((metadata.is_file() && metadata.len() == size).then_some(metadata)),
        Err(error) if strangers::is_absence(&error) => Ok(None),
        Err(error) => Err(StorageError::from_io("look for a blob", error)),
    }
}

fn unnamed_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(
        directory,
        flags,
        Mode::from_raw_mode(0o644),
    )?))
}

/// Gives an unnamed file a name, which must be free (open(2), `O_TMPFILE`).
fn link(file: &File, path: &Path) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(
        CWD,
        unnamed,
        CWD,
        path,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

/// Whether unnamed files work here: they need the file system's support and a mounted /proc.
fn can_name_later(directory: &Path) -> bool {
    let probe = TemporaryName(directory.join(format!("{}-probe", std::process::id())));
    unnamed_file(directory)
        .and_then(|file| link(&file, &probe.0))
        .is_ok()
}

/// Removes what a killed process left; what a living one still uses is locked.
fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Ok(file) = strangers::open(&path) else {
            continue;
        };
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            fs::remove_file(&path).or_else(|e| {
                if e.kind() == io::ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(e)
                }
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
