//! A look at a database that changes nothing: whether it can be opened, is larder's, and is of a version that this larder reads.

use std::fs::File;
use std::io;
use std::path::Path;

use super::db::Db;
use super::{ConnectError, MetadataStore, PostgresOptions, migrate};
use crate::error::StorageError;

impl MetadataStore {
    /// Whether [`connect`](Self::connect) would succeed. Nothing is made on the server.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn check_server(options: &PostgresOptions) -> Result<(), ConnectError> {
        Db::look(options).await
    }

    /// Whether [`open`](Self::open) would succeed with what is at `path`. Nothing there is fine. Not for a database that a process has
    /// open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn check(path: &Path) -> Result<(), StorageError> {
        let Some(length) = length_of(path)? else {
            return Ok(());
        };
        // What a process of another user has left beside it is opened with it.
        for suffix in ["-wal", "-shm"] {
            let mut beside = path.as_os_str().to_owned();
            beside.push(suffix);
            length_of(Path::new(&beside))?;
        }
        if length == 0 {
            return Ok(());
        }
        let reader = Db::open_to_look(path).await?;
        let looked = async {
            migrate::look(&reader).await?;
            Ok(())
        };
        let looked = looked.await;
        reader.close().await;
        looked
    }
}

/// The length of a file that may be read and written; `None` if there is none.
fn length_of(path: &Path) -> Result<Option<u64>, StorageError> {
    let opened = File::options().read(true).append(true).open(path);
    match opened.and_then(|file| file.metadata()) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::from_io("open the metadata database", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StorageErrorKind;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_look_finds_what_opening_would_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larder.sqlite");
        MetadataStore::check(&path).await.unwrap();
        assert_eq!(names(directory.path()), [""; 0], "nothing is made");
        MetadataStore::open(&path).await.unwrap().close().await;
        let (before, bytes) = (names(directory.path()), std::fs::read(&path).unwrap());
        MetadataStore::check(&path).await.unwrap();
        assert_eq!(names(directory.path()), before);
        assert!(
            std::fs::read(&path).unwrap() == bytes,
            "the file has changed"
        );

        let newer = MetadataStore::open(&path).await.unwrap();
        let versions = "INSERT INTO schema_version (version) VALUES (98), (99)";
        newer.db().execute(versions, &[]).await.unwrap();
        newer.close().await;
        let refused = MetadataStore::check(&path).await.unwrap_err();
        assert!(
            refused.kind == StorageErrorKind::Unavailable && refused.message.contains("version 99"),
            "{refused}"
        );

        std::fs::write(
            &path,
            "no database at all, and long enough for one page of it".repeat(100),
        )
        .unwrap();
        assert_eq!(
            MetadataStore::check(&path).await.unwrap_err().kind,
            StorageErrorKind::Corrupt
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        MetadataStore::check(&path).await.unwrap_err();
    }

    /// A directory in its place is what nobody may write, whoever runs this test.
    #[tokio::test]
    async fn what_is_left_beside_a_database_is_looked_at_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larder.sqlite");
        MetadataStore::open(&path).await.unwrap().close().await;
        for name in ["larder.sqlite-wal", "larder.sqlite-shm"] {
            let beside = directory.path().join(name);
            std::fs::create_dir(&beside).unwrap();
            MetadataStore::open(&path).await.expect_err(name);
            MetadataStore::check(&path).await.expect_err(name);
            std::fs::remove_dir(&beside).unwrap();
        }
        MetadataStore::check(&path).await.unwrap();
    }
}
