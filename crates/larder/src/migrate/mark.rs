//! What a store of blobs knows of being copied into: a file or an object beside the blobs that says from which installation they come.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use larder_storage::{Body, Migration, ObjectStore as _, S3Objects};

use super::failure::Failure;

/// The key of the object, and the name of the file in the folder of blobs.
const NAME: &str = "migration";
/// A mark is shorter.
const MOST: u64 = 64 << 10;

/// Where the mark of a store is.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    /// Beside the blobs of a data directory.
    File(PathBuf),
    /// Below the prefix of a bucket.
    Object(S3Objects),
}

impl Mark {
    /// Of the files of a data directory.
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self::File(directory.join("blobs").join(NAME))
    }

    /// The mark beside the files of a data directory, if there is one that can be read.
    pub(super) fn read_file(directory: &Path) -> Option<Migration> {
        let bytes = std::fs::read(directory.join("blobs").join(NAME)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The mark, if there is one.
    pub(super) async fn read(&self) -> Result<Option<Migration>, Failure> {
        let bytes = match self {
            Self::File(path) => match std::fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    return Err(format!("cannot read {}: {error}", path.display()).into());
                }
            },
            Self::Object(objects) => {
                let Some(found) = objects.head(NAME).await? else {
                    return Ok(None);
                };
                let length = found.length.min(MOST);
                let body = Body::once(Some(length), objects.get(NAME, 0..length));
                let bytes = body.read(MOST).await;
                let bytes = bytes.map_err(|error| {
                    format!("cannot read the object {NAME:?} of the object store: {error}")
                })?;
                bytes.to_vec()
            }
        };
        let parsed = serde_json::from_slice(&bytes);
        let parsed = parsed.map_err(|error| {
            format!(
                "{} says nothing that larder understands: {error}",
                self.shown()
            )
        });
        Ok(Some(parsed?))
    }

    /// Writes the mark, durably.
    pub(super) async fn write(&self, migration: &Migration) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(migration).map_err(|error| error.to_string())?;
        match self {
            Self::File(path) => {
                let written = replace(path, &bytes);
                written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            }
            Self::Object(objects) => {
                objects.put(NAME, Body::Memory(bytes.into())).await?;
            }
        }
        Ok(())
    }

    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Object(_) => format!("the object {NAME:?} of the object store"),
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
