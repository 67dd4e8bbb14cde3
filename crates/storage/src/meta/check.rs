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
        let failed = |error| StorageError::from_io("open the metadata database", error);
        let length = match File::options()
            .read(true)
            .append(true)
            .open(path)
            .and_then(|file| file.metadata())
        {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
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
}
