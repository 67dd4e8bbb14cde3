//! Where a blob lies: `<root>/ab/cd/<64 hexadecimal digits>`, by the digest alone. No name that anyone outside chose ever reaches
//! the file system (hazards S21, S22).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use larder_core::{BlobDescriptor, Digest, DigestAlgorithm};

use crate::blob::StoredBlob;
use crate::error::{StorageError, StorageErrorKind};

/// The tree of blobs below one directory.
#[derive(Debug)]
pub(in crate::blob) struct Layout {
    root: PathBuf,
}

/// The directory that holds a blob: the first two bytes of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::blob) struct Shard(u8, u8);

impl Layout {
    pub(in crate::blob) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(in crate::blob) fn root(&self) -> &Path {
        &self.root
    }

    /// The shard and file of a blob. Only SHA-256 names blobs.
    pub(in crate::blob) fn place(&self, digest: &Digest) -> Result<(Shard, PathBuf), StorageError> {
        let (DigestAlgorithm::Sha256, &[first, second, ..]) =
            (digest.algorithm(), digest.as_bytes())
        else {
            let message = format!("blobs are named by their SHA-256, not by {digest}");
            return Err(StorageError::new(StorageErrorKind::NotFound, message));
        };
        // On the way of every answer that is not in memory: one allocation beside the digits.
        let name = digest.to_hex();
        let (upper, rest) = name.split_at(2);
        let mut path = OsString::with_capacity(self.root.as_os_str().len() + name.len() + 7);
        path.push(&self.root);
        for part in ["/", upper, "/", &rest[..2], "/", &name] {
            path.push(part);
        }
        Ok((Shard(first, second), path.into()))
    }

    /// The first level's directory of a shard.
    pub(in crate::blob) fn upper(&self, shard: Shard) -> PathBuf {
        self.root.join(format!("{:02x}", shard.0))
    }

    /// A shard's own directory.
    pub(in crate::blob) fn directory(&self, shard: Shard) -> PathBuf {
        self.upper(shard).join(format!("{:02x}", shard.1))
    }

    /// Up to `limit` blobs above `after` in ascending order. Files whose name is no digest, or not the right one for their
    /// directory, are not ours and are passed over.
    pub(in crate::blob) fn list(
        &self,
        after: Option<&Digest>,
        limit: usize,
    ) -> io::Result<Vec<StoredBlob>> {
        let mut found = Vec::new();
        let start = after.map(Digest::to_hex).unwrap_or_default();
        for upper in names(&self.root, 2, start.get(..2).unwrap_or(""))? {
            for lower in names_below(
                &self.root.join(&upper),
                2,
                if start.starts_with(&upper) {
                    &start[2..4]
                } else {
                    ""
                },
            )? {
                let prefix = format!("{upper}{lower}");
                let directory = self.root.join(&upper).join(&lower);
                for name in names_below(
                    &directory,
                    64,
                    if start.starts_with(&prefix) {
                        &start
                    } else {
                        ""
                    },
                )? {
                    if name == start || !name.starts_with(&prefix) {
                        continue;
                    }
                    found.extend(stored_blob(&directory, &name)?);
                    if found.len() >= limit {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(found)
    }
}

/// As [`names`], of a directory below the root. One that may not be read keeps nobody from the others.
fn names_below(directory: &Path, length: usize, from: &str) -> io::Result<Vec<String>> {
    match names(directory, length, from) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let directory = directory.display().to_string();
            tracing::warn!(
                directory,
                "a directory of blobs may not be read, and is passed over: see whose it is"
            );
            Ok(Vec::new())
        }
        other => other,
    }
}

/// Names in a directory that are `length` lower-case hexadecimal digits and not below `from`, in order.
fn names(directory: &Path, length: usize, from: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if name.len() == length && name.as_str() >= from && name.bytes().all(hexadecimal) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What one file of the tree is; `None` if it has just been deleted or is no regular file.
fn stored_blob(directory: &Path, name: &str) -> io::Result<Option<StoredBlob>> {
    let Ok(digest) = Digest::from_hex(DigestAlgorithm::Sha256, name) else {
        return Ok(None);
    };
    match fs::symlink_metadata(directory.join(name)) {
        Ok(metadata) if metadata.is_file() => {
            let descriptor = BlobDescriptor {
                digest,
                size: metadata.len(),
            };
            Ok(Some(StoredBlob {
                descriptor,
                modified_ns: modified_ns(&metadata),
            }))
        }
        Ok(_) => Ok(None),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Modification time in nanoseconds since 1970.
pub(in crate::blob) fn modified_ns(metadata: &fs::Metadata) -> i64 {
    metadata
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use larder_core::sha256;

    use super::*;

    #[test]
    fn a_blob_lies_under_its_digest() {
        let layout = Layout::new(PathBuf::from("/data"));
        // FIPS 180-2 appendix B.1: SHA-256 of "abc".
        let (_, path) = layout.place(&sha256(b"abc")).unwrap();
        let expected =
            "/data/ba/78/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(path, Path::new(expected));
        let md5 = Digest::new(DigestAlgorithm::Md5, &[0; 16]).unwrap();
        assert_eq!(
            layout.place(&md5).unwrap_err().kind,
            StorageErrorKind::NotFound
        );
    }

    #[test]
    fn listing_pages_in_order_and_passes_over_strangers() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().to_owned());
        let mut digests: Vec<Digest> = (0..100_u32).map(|n| sha256(&n.to_le_bytes())).collect();
        for digest in &digests {
            let (shard, path) = layout.place(digest).unwrap();
            fs::create_dir_all(layout.directory(shard)).unwrap();
            fs::write(path, b"12345").unwrap();
        }
        let (shard, _) = layout.place(&digests[0]).unwrap();
        fs::write(layout.directory(shard).join("note.txt"), b"").unwrap();
        fs::write(layout.directory(shard).join("0".repeat(64)), b"").unwrap();
        fs::write(directory.path().join("zz"), b"").unwrap();
        fs::write(directory.path().join("aa"), b"").ok();
        digests.sort();

        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = layout.list(after.as_ref(), 7).unwrap();
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            after = Some(last.descriptor.digest.clone());
            seen.extend(page);
        }
        assert!(seen.iter().all(|blob| blob.descriptor.size == 5));
        let seen: Vec<Digest> = seen
            .into_iter()
            .map(|blob| blob.descriptor.digest)
            .collect();
        assert_eq!(seen, digests);
    }
}
