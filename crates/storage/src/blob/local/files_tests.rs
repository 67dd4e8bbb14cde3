use larder_core::sha256;

use super::*;
use crate::blob::conformance;
use crate::blob::local::FsBlobStore;
use crate::error::StorageErrorKind;

fn stores() -> Vec<(tempfile::TempDir, Files)> {
    [true, false]
        .map(|unnamed| {
            let directory = tempfile::tempdir().unwrap();
            let store = Files::open_with(directory.path(), unnamed).unwrap();
            (directory, store)
        })
        .into()
}

fn content(store: &Files, bytes: &[u8]) -> Vec<u8> {
    let open = store
        .open(&BlobDescriptor {
            digest: sha256(bytes),
            size: bytes.len() as u64,
        })
        .unwrap();
    open.read_blocking(1 << 20).unwrap()
}

fn put(store: &Files, bytes: &[u8]) -> Result<BlobInfo, StorageError> {
    let mut spool = store.spool()?;
    spool.append(bytes)?;
    let descriptor = BlobDescriptor {
        digest: sha256(bytes),
        size: bytes.len() as u64,
    };
    store
        .publish(&[SealedSpool { spool, descriptor }])
        .remove(0)
}

/// The file behind a body, and its length.
fn file(body: &Body) -> (&Arc<File>, u64) {
    match body {
        Body::File { file, length, .. } => (file, *length),
        other => panic!("{other:?} is no file"),
    }
}

fn private_files(directory: &Path) -> usize {
    fs::read_dir(directory.join("blobs/spool")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_and_without_unnamed_files() {
    for (directory, store) in stores() {
        conformance::suite(Arc::new(FsBlobStore(Arc::new(store)))).await;
        assert_eq!(private_files(directory.path()), 0);
    }
}

#[test]
fn hazard_l1_file_then_name_then_directories() {
    for (_directory, store) in stores() {
        let contents: [&[u8]; 4] = [b"one", b"two", b"three", b"four"];
        let sealed = |bytes: &[u8]| {
            let mut spool = store.spool().unwrap();
            spool.append(bytes).unwrap();
            SealedSpool {
                spool,
                descriptor: BlobDescriptor {
                    digest: sha256(bytes),
                    size: bytes.len() as u64,
                },
            }
        };
        assert!(
            store
                .publish(&contents.map(sealed))
                .iter()
                .all(Result::is_ok)
        );
        let steps = std::mem::take(&mut *store.steps.lock().unwrap());
        let position = |step: &Step| {
            steps
                .iter()
                .position(|s| s == step)
                .unwrap_or_else(|| panic!("{step:?} in {steps:?}"))
        };
        for bytes in contents {
            let digest = sha256(bytes);
            let (shard, _) = store.layout.place(&digest).unwrap();
            let named = position(&Step::Name(digest.clone()));
            assert!(position(&Step::SyncFile(digest)) < named);
            for directory in [
                store.layout.directory(shard),
                store.layout.upper(shard),
                store.layout.root().to_owned(),
            ] {
                assert!(
                    named < position(&Step::SyncDirectory(directory)),
                    "the entries of all new directories count too"
                );
            }
        }
        let once = |d: &Path| {
            steps
                .iter()
                .filter(|s| **s == Step::SyncDirectory(d.to_owned()))
                .count()
        };
        assert_eq!(once(store.layout.root()), 1, "once per batch");

        // Again: the bytes are there, but whoever named them may not have got so far as to synchronise the directory.
        put(&store, b"one").unwrap();
        let shard = store.layout.place(&sha256(b"one")).unwrap().0;
        assert_eq!(
            *store.steps.lock().unwrap(),
            [Step::SyncDirectory(store.layout.directory(shard))]
        );
    }
}

#[test]
fn hazard_l1_directories_of_an_earlier_process_are_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    put(&Files::open_with(directory.path(), true).unwrap(), b"x").unwrap();
    let store = Files::open_with(directory.path(), true).unwrap();
    put(&store, b"x").unwrap();
    let synced = |d: &Path| {
        store
            .steps
            .lock()
            .unwrap()
            .contains(&Step::SyncDirectory(d.to_owned()))
    };
    let (shard, _) = store.layout.place(&sha256(b"x")).unwrap();
    assert!(
        synced(&store.layout.directory(shard))
            && synced(&store.layout.upper(shard))
            && synced(store.layout.root())
    );
}

#[test]
fn hazard_w4_nothing_is_reachable_before_it_is_published() {
    for (directory, store) in stores() {
        let mut spool = store.spool().unwrap();
        spool.append(b"half of it").unwrap();
        assert_eq!(store.list(None, 10).unwrap(), []);
        let leftover = usize::from(!store.unnamed);
        assert_eq!(private_files(directory.path()), leftover);
        drop(spool);
        assert_eq!(private_files(directory.path()), 0);
    }
}

#[test]
fn hazard_w4_a_rejected_writer_leaves_the_published_bytes_alone() {
    for (_directory, store) in stores() {
        put(&store, b"good").unwrap();
        let mut spool = store.spool().unwrap();
        spool.append(b"evil and longer").unwrap();
        let descriptor = BlobDescriptor {
            digest: sha256(b"good"),
            size: 4,
        };
        let error = store
            .publish(&[SealedSpool { spool, descriptor }])
            .remove(0)
            .unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Corrupt);
        assert_eq!(content(&store, b"good"), b"good");
    }
}

#[test]
fn hazard_w12_a_truncated_blob_is_refused_and_then_replaced() {
    for (directory, store) in stores() {
        let blob = put(&store, b"whole content").unwrap().descriptor;
        let (_, path) = store.layout.place(&blob.digest).unwrap();
        let old = store.open(&blob).unwrap();
        fs::write(&path, b"whole").unwrap();
        assert_eq!(
            store.open(&blob).unwrap_err().kind,
            StorageErrorKind::Corrupt
        );
        put(&store, b"whole content").unwrap();
        assert_eq!(content(&store, b"whole content"), b"whole content");
        assert_eq!(
            file(&old).0.metadata().unwrap().len(),
            5,
            "replaced by rename: the damaged file itself was not written to"
        );
        assert_eq!(private_files(directory.path()), 0);
    }
}

#[test]
fn leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay() {
    let directory = tempfile::tempdir().unwrap();
    let living = Files::open_with(directory.path(), false).unwrap();
    let mut spool = living.spool().unwrap();
    fs::write(directory.path().join("blobs/spool/1-77"), b"left behind").unwrap();
    Files::open_with(directory.path(), false).unwrap();
    assert_eq!(private_files(directory.path()), 1);
    spool.append(b"still here").unwrap();
    let descriptor = BlobDescriptor {
        digest: sha256(b"still here"),
        size: 10,
    };
    living
        .publish(&[SealedSpool { spool, descriptor }])
        .remove(0)
        .unwrap();
    assert_eq!(content(&living, b"still here"), b"still here");
}

#[test]
fn a_blob_that_stays_open_is_noticed_to_be_gone_cut_or_replaced() {
    for (_directory, store) in stores() {
        let bytes = b"read before";
        let blob = BlobDescriptor {
            digest: sha256(bytes),
            size: bytes.len() as u64,
        };
        let path = store.layout.place(&blob.digest).unwrap().1;
        let kind = || store.open(&blob).unwrap_err().kind;

        put(&store, bytes).unwrap();
        let first = store.open(&blob).unwrap();
        assert!(
            Arc::ptr_eq(file(&first).0, file(&store.open(&blob).unwrap()).0),
            "opened once"
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(kind(), StorageErrorKind::NotFound, "removed by hand");

        put(&store, bytes).unwrap();
        assert_eq!(content(&store, bytes), bytes);
        fs::write(&path, "cut").unwrap();
        assert_eq!(kind(), StorageErrorKind::Corrupt);
        put(&store, bytes).unwrap();
        assert_eq!(
            content(&store, bytes),
            bytes,
            "replaced under the same name"
        );

        assert!(store.delete(&blob.digest).unwrap());
        assert_eq!(kind(), StorageErrorKind::NotFound, "deleted");
        assert_eq!(
            file(&first).1,
            bytes.len() as u64,
            "who reads already goes on"
        );
    }
}

fn mkfifo(path: &Path) {
    let kind = rustix::fs::FileType::Fifo;
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, path, kind, mode, 0).unwrap();
}

/// Something that stands where a blob is to stand: what it is, and how it is put there.
type Stranger = (&'static str, fn(&Path));

fn strangers() -> [Stranger; 6] {
    [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a directory with a file", |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("x"), b"x").unwrap();
        }),
        ("a pipe", mkfifo),
        ("a socket", |path| {
            // The path of one may not be that long.
            let short = tempfile::tempdir_in("/tmp").unwrap();
            let socket = short.path().join("s");
            std::os::unix::net::UnixListener::bind(&socket).unwrap();
            fs::rename(socket, path).unwrap();
        }),
        ("a link to itself", |path| {
            std::os::unix::fs::symlink(path, path).unwrap();
        }),
        ("a file in place of its directory", |path| {
            let directory = path.parent().unwrap();
            fs::remove_dir_all(directory).unwrap();
            fs::write(directory, b"x").unwrap();
        }),
    ]
}

#[test]
fn what_is_no_blob_stops_nobody_and_is_replaced() {
    for (name, stand) in strangers() {
        for (_directory, store) in stores() {
            let blob = put(&store, b"whole content").unwrap().descriptor;
            let (_, path) = store.layout.place(&blob.digest).unwrap();
            fs::remove_file(&path).unwrap();
            stand(&path);
            // Of a pipe an open would wait for somebody who writes.
            let store = Arc::new(store);
            let (sender, receiver) = std::sync::mpsc::channel();
            let (opening, wanted) = (Arc::clone(&store), blob.clone());
            std::thread::spawn(move || {
                drop(opening.open_once(&wanted));
                let opened = opening.open(&wanted).and(opening.open_kept(&wanted));
                sender.send(opened.is_err()).unwrap();
            });
            let patience = std::time::Duration::from_secs(20);
            assert_eq!(receiver.recv_timeout(patience), Ok(true), "{name}");
            put(&store, b"whole content").unwrap();
            assert_eq!(content(&store, b"whole content"), b"whole content");

            // And once more, to be deleted.
            fs::remove_file(&path).unwrap();
            stand(&path);
            store.delete(&blob.digest).unwrap();
            assert!(fs::symlink_metadata(&path).is_err(), "{name}");
        }
    }
}
