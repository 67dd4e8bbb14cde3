//! What only a server can do to larder: many writers at once, sessions that end, a pooler in between, failures and returns.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_core::{Content, StoredHeaders, SystemClock, UnixMillis, sha256};
use larder_storage::{
    BlobStore, Change, ConnectError, Durability, Expected, FsBlobStore, Heard, LocalChange,
    LocalDecision, LocalFile, LocalOutcome, MemoryBlobStore, MetadataStore, Notice,
    PostgresOptions, StorageError, StorageErrorKind, Writer,
};
use larder_testkit::servers::postgres::{Disk, PgBouncer, Postgres};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use support::place::{Place, options};
use support::{is_intact, key, put, record, repository, store};

fn head_only(path: &str) -> Change {
    Change::PutRecord {
        key: key("r", path),
        record: record(Content::HeadOnly),
        blob: None,
    }
}

fn shared() -> PostgresOptions {
    let server = Postgres::shared();
    options(server.port(), &server.database())
}

async fn connect(options: &PostgresOptions) -> MetadataStore {
    MetadataStore::connect(options).await.unwrap()
}

/// Numbers are taken before the commit; a reader that saw a later one first must not pass over the earlier.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hazard_l4_no_notice_is_passed_over_however_many_write() {
    const TASKS: usize = 8;
    const EACH: usize = 60;
    let options = shared();
    let (one, other) = (connect(&options).await, connect(&options).await);
    let listener = connect(&options).await.listen(Writer::unique());
    assert_eq!(
        listener.poll().await.unwrap(),
        Heard::Notices(Vec::new()),
        "the place is marked"
    );
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = [&one, &other][task % 2].clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    // Some transactions are long, and their numbers wait for them.
                    let changes =
                        (0..=(n % 7)).map(|part| head_only(&format!("{task}/{n}/{part}")));
                    let told = store.apply_by(Writer::unique(), changes.collect(), Vec::new());
                    told.await.unwrap();
                }
            })
        })
        .collect();
    let mut heard = std::collections::BTreeSet::new();
    let mut is_last = false;
    loop {
        let done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        match listener.poll().await.unwrap() {
            Heard::Missed => panic!("nothing was missed"),
            Heard::Notices(notices) => {
                if notices.is_empty() && is_last {
                    break;
                }
                for notice in notices {
                    let Notice::Record { key, .. } = notice else {
                        panic!("only records were written")
                    };
                    assert!(heard.insert(key.path.to_string()), "told twice: {key}");
                }
            }
        }
        is_last = done;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let written: usize = (0..EACH).map(|n| n % 7 + 1).sum::<usize>() * TASKS;
    assert_eq!(heard.len(), written);
}

/// A server that is restored, or taken over from without its last commits, gives numbers again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_l4_numbers_that_are_given_again_are_noticed() {
    let place = Place::postgres();
    let (meta, reader) = (place.open().await, place.open().await);
    let listener = reader.listen(Writer::unique());
    listener.poll().await.unwrap();
    for n in 0..10 {
        meta.apply(vec![head_only(&n.to_string())]).await.unwrap();
    }
    let Heard::Notices(ten) = listener.poll().await.unwrap() else {
        panic!("nothing was missed")
    };
    assert_eq!(ten.len(), 10);
    place
        .run("DELETE FROM changes WHERE sequence > 5; UPDATE feed SET sequence = 5")
        .await;
    assert_eq!(listener.poll().await.unwrap(), Heard::Missed, "fewer rows");
    meta.apply(vec![head_only("a")]).await.unwrap();
    let Heard::Notices(one) = listener.poll().await.unwrap() else {
        panic!("it goes on from the newest")
    };
    assert_eq!(one.len(), 1);
    place
        .run("DELETE FROM changes WHERE sequence > 5; UPDATE feed SET sequence = 5")
        .await;
    for n in 0..3 {
        meta.apply(vec![head_only(&n.to_string())]).await.unwrap();
    }
    assert_eq!(
        listener.poll().await.unwrap(),
        Heard::Missed,
        "the same number, and more, but other rows"
    );
}

/// Two replicas fetch one new file; the one that asked earlier commits later. That there is no row cannot be locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bytes_heard_of_earlier_never_replace_later_ones() {
    let options = shared();
    let stores = [connect(&options).await, connect(&options).await];
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    for round in 0..60 {
        let name = key("r", &round.to_string());
        let fills = (0..4_i64).map(|age| {
            let (meta, blobs, name) = (
                stores[(age % 2) as usize].clone(),
                Arc::clone(&blobs),
                name.clone(),
            );
            tokio::spawn(async move {
                let heard_of = UnixMillis(1_000 + age);
                let info = blobs.put_bytes(&age.to_le_bytes()).await.unwrap();
                let mut record = record(Content::Blob(info.descriptor.clone()));
                record.contacted_at = heard_of;
                let change = Change::If {
                    expected: Expected::NotLater {
                        heard_of,
                        but: Vec::new(),
                    },
                    change: Box::new(Change::PutRecord {
                        key: name,
                        record,
                        blob: Some(info),
                    }),
                };
                let receipt = meta.apply_by(Writer::unique(), vec![change], Vec::new());
                receipt.await.unwrap().left.is_empty()
            })
        });
        let mut last_was_put = false;
        for fill in fills.collect::<Vec<_>>() {
            last_was_put = fill.await.unwrap();
        }
        assert!(last_was_put, "nothing is later than the last");
        let kept = stores[0].record(&name).await.unwrap().unwrap();
        assert_eq!(
            kept.blob().unwrap().digest,
            sha256(&3_i64.to_le_bytes()),
            "round {round}"
        );
    }
}

/// What the quota leaves is decided by one upload after the other, whichever replica it came to.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hazard_l5_uploads_of_several_replicas_together_keep_the_quota() {
    const QUOTA: u64 = 1_000;
    let options = shared();
    let stores = [connect(&options).await, connect(&options).await];
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    let uploads = (0..40_u8).map(|n| {
        let (meta, blobs) = (stores[usize::from(n % 2)].clone(), Arc::clone(&blobs));
        tokio::spawn(async move {
            let blob = blobs.put_bytes(&[n; 60]).await.unwrap();
            let file = LocalFile {
                blob: blob.descriptor.clone(),
                headers: StoredHeaders::default(),
                uploaded_at: UnixMillis(1),
                written_at: UnixMillis(1),
            };
            let change = LocalChange::Put {
                file: &file,
                blob: &blob,
                clock: &SystemClock,
            };
            let (name, path) = (repository("a"), format!("file-{n}"));
            let outcome = meta.change_local_file(&name, &path, change, |state| {
                if state.usage.bytes + 60 > QUOTA {
                    LocalDecision::Refuse(())
                } else {
                    LocalDecision::Change
                }
            });
            matches!(outcome.await.unwrap(), LocalOutcome::Changed(_))
        })
    });
    let mut taken = 0;
    for upload in uploads.collect::<Vec<_>>() {
        taken += u64::from(upload.await.unwrap());
    }
    assert_eq!(taken, QUOTA / 60);
    let usage = stores[0].local_state(&repository("a"), "x").await.unwrap();
    assert_eq!((usage.usage.files, usage.usage.bytes), (taken, taken * 60));
    let listed = stores[1].local_page(&repository("a"), "", 100).await;
    assert_eq!(listed.unwrap().len() as u64, taken);
}

/// One replica is told to delete a blob at once while another one refers to it: a statement that waited for the row sees the other
/// tables as they were before it waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hazard_l3_a_blob_is_not_deleted_from_under_a_reference_that_is_being_made() {
    let place = Place::postgres();
    let process = async || -> (MetadataStore, Arc<dyn BlobStore>) {
        let blobs = FsBlobStore::open(place.directory()).unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(blobs);
        (place.open().await, blobs)
    };
    let (writer, blobs) = process().await;
    let (collector, its_blobs) = process().await;
    let mut deleted = 0;
    for round in 0..150_u32 {
        let name = key("r", &format!("{}", round % 3));
        let info = blobs.put_bytes(&round.to_le_bytes()).await.unwrap();
        let blob = info.descriptor.clone();
        writer
            .apply(vec![put(&key("r", "first"), info)])
            .await
            .unwrap();
        let forget = Change::DeleteRecord {
            key: key("r", "first"),
        };
        writer.apply(vec![forget]).await.unwrap();
        let info = blobs.put_bytes(&round.to_le_bytes()).await.unwrap();
        let (put, collected) = tokio::join!(
            writer.apply(vec![put(&name, info)]),
            collector.collect_blob(&blob, &its_blobs),
        );
        put.unwrap();
        deleted += u32::from(collected.unwrap());
        assert!(is_intact(&*blobs, &blob).await, "round {round}");
    }
    println!("{deleted} of 150 were deleted, and published again");
}

/// Behind a pooler a session is another server process after each transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_in_transaction_mode_mixes_nothing_up() {
    let server = Postgres::shared();
    let pooler = PgBouncer::start(server);
    let options = options(pooler.port(), &server.database());
    let stores = [connect(&options).await, connect(&options).await];
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    let tasks = (0..12_usize).map(|task| {
        let (meta, blobs) = (stores[task % 2].clone(), Arc::clone(&blobs));
        tokio::spawn(async move {
            for n in 0..30 {
                let name = key("r", &format!("{task}/{n}"));
                let bytes = format!("{task} {n}");
                store(&meta, &blobs, &name, bytes.as_bytes()).await;
                let found = meta.record(&name).await.unwrap().unwrap();
                assert_eq!(found.blob().unwrap().digest, sha256(bytes.as_bytes()));
                let strange = key("r", &format!("\\{n}'; DROP TABLE blobs; --$1"));
                meta.apply_with(
                    vec![Change::PutRecord {
                        key: strange.clone(),
                        record: record(Content::HeadOnly),
                        blob: None,
                    }],
                    Durability::Durable,
                )
                .await
                .unwrap();
                let page = meta.held_sizes().await.unwrap();
                assert_eq!(page.len(), 1);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(stores[0].counts().await.unwrap().records, 12 * 30 + 30);
}

/// What writing says once the server is gone. Sessions outlive a postmaster that is killed by a moment.
async fn first_error(meta: &MetadataStore) -> StorageError {
    let since = Instant::now();
    loop {
        match meta.apply(vec![head_only("meanwhile")]).await {
            Err(error) => return error,
            Ok(()) => assert!(since.elapsed() < Duration::from_secs(5)),
        }
    }
}

/// Writes fail soon and clearly, and everything goes on when the server returns, without another store being opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_is_an_error_and_one_that_returns_is_used() {
    let server = Postgres::start(Disk::Fast);
    let meta = connect(&options(server.port(), &server.database())).await;
    meta.apply(vec![head_only("before")]).await.unwrap();
    for (round, is_crash) in [(0, false), (1, true)] {
        if is_crash {
            server.kill();
        } else {
            server.stop();
        }
        let since = Instant::now();
        let refused = first_error(&meta).await;
        assert_eq!(refused.kind, StorageErrorKind::Unavailable, "{refused}");
        assert!(refused.message.contains("does not answer"), "{refused}");
        // What can be fetched is fetched again; what cannot is not taken for absent.
        assert!(meta.is_away());
        assert_eq!(meta.record(&key("r", "before")).await.unwrap(), None);
        let file = meta.local_file(&repository("r"), "x").await.unwrap_err();
        assert_eq!(file.kind, StorageErrorKind::Unavailable);
        assert!(since.elapsed() < Duration::from_secs(10));
        server.start_again();
        let since = Instant::now();
        // The connections that rested are dead, and that is nobody's error.
        meta.apply(vec![head_only(&format!("after {round}"))])
            .await
            .unwrap();
        assert!(!meta.is_away());
        assert!(meta.record(&key("r", "before")).await.unwrap().is_some());
        println!("the first answer came after {:?}", since.elapsed());
    }
    // Sessions that an operator ends are replaced.
    for _ in 0..3 {
        server.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'larder'",
        );
        meta.apply(vec![head_only("again")]).await.unwrap();
    }
}

/// A way to the server that can be made to swallow everything, as a network does that has lost a host.
async fn black_hole(port: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let swallows = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&swallows);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let swallows = Arc::clone(&told);
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::join!(
                    pass_on(from_client, to_server, Arc::clone(&swallows)),
                    pass_on(from_server, to_client, swallows),
                )
            });
        }
    });
    (own, swallows)
}

async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    swallows: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if swallows.load(Ordering::SeqCst) {
            // Neither an answer nor an end comes any more on this connection.
            return std::future::pending().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// No answer at all is the worst of failures: nothing ends by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_given_up_soon_and_used_again_when_it_answers() {
    let server = Postgres::shared();
    let (port, swallows) = black_hole(server.port()).await;
    let meta = connect(&options(port, &server.database())).await;
    meta.apply(vec![head_only("before")]).await.unwrap();
    swallows.store(true, Ordering::SeqCst);
    let silent = Instant::now();
    let bounds = [
        (Duration::ZERO, 10.0),
        (Duration::ZERO, 4.5),
        (Duration::from_secs(16), 2.5),
    ];
    for (after, most) in bounds {
        tokio::time::sleep(after.saturating_sub(silent.elapsed())).await;
        let since = Instant::now();
        let refused = meta.apply(vec![head_only("meanwhile")]).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable);
        let waited = since.elapsed().as_secs_f64();
        println!(
            "{:?} after it fell silent: an error after {waited:.2} s",
            silent.elapsed()
        );
        assert!(waited < most, "{waited} s");
    }
    swallows.store(false, Ordering::SeqCst);
    let since = Instant::now();
    while meta.apply(vec![head_only("after")]).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("used again after {:?}", since.elapsed());
}

/// A process that is stopped in the middle of a transaction does not stop the others: its session is ended by the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_stopped_within_a_transaction_stops_nobody_for_long() {
    let server = Postgres::shared();
    let (port, swallows) = black_hole(server.port()).await;
    let database = server.database();
    let stopped = connect(&options(port, &database)).await;
    let other = connect(&options(server.port(), &database)).await;
    other.apply(vec![head_only("a")]).await.unwrap();
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    let info = blobs.put_bytes(b"bytes").await.unwrap();
    let blob = info.clone();
    let holder = tokio::spawn(async move {
        // The row of the blob is locked by the first change, and the rest never arrives.
        let many = (0..10_000).map(|n| head_only(&n.to_string()));
        let changes = [put(&key("r", "first"), info)].into_iter().chain(many);
        stopped.apply(changes.collect()).await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    swallows.store(true, Ordering::SeqCst);
    let since = Instant::now();
    other
        .apply(vec![put(&key("r", "second"), blob)])
        .await
        .unwrap();
    println!("the other one waited {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(10));
    holder.await.unwrap().unwrap_err();
}

/// An acknowledged durable change is there after a crash; nobody waited for more than its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_l1_a_durable_commit_survives_a_crash_of_the_server() {
    let server = Postgres::start(Disk::Safe);
    let meta = connect(&options(server.port(), &server.database())).await;
    for round in 0..5 {
        for n in 0..20 {
            let change = vec![head_only(&format!("{round}/{n}"))];
            meta.apply_with(change, Durability::Durable).await.unwrap();
        }
        server.kill();
        server.start_again();
        for n in 0..20 {
            let name = key("r", &format!("{round}/{n}"));
            assert!(meta.record(&name).await.unwrap().is_some(), "{round}/{n}");
        }
    }
}

/// Replicas that start at once over an empty database.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_tables_are_made_once_however_many_start() {
    for _ in 0..5 {
        let options = shared();
        let starts = (0..8).map(|_| {
            let options = options.clone();
            tokio::spawn(async move { connect(&options).await })
        });
        for start in starts.collect::<Vec<_>>() {
            let meta = start.await.unwrap();
            meta.ping().await.unwrap();
            meta.close().await;
        }
        let made = Postgres::shared().sql(
            &options.database,
            "SELECT COUNT(*) = MAX(version) + 1, MAX(version) > 0, MAX(oldest) FROM schema_version",
        );
        assert_eq!(made, "t|t|1", "each script once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_newer_larder_are_used_as_long_as_they_say_so() {
    let place = Place::postgres();
    let meta = place.open().await;
    place
        .run(
            "ALTER TABLE artifacts ADD COLUMN later TEXT; \
             INSERT INTO schema_version SELECT MAX(version) + 1, 1 FROM schema_version",
        )
        .await;
    meta.apply(vec![head_only("running")]).await.unwrap();
    let older = place.open().await;
    older.apply(vec![head_only("started")]).await.unwrap();
    assert_eq!(older.counts().await.unwrap().records, 2);
    older.ping().await.unwrap();
    place
        .run("INSERT INTO schema_version SELECT MAX(version) + 1, MAX(version) + 1 FROM schema_version")
        .await;
    let database = place.options().unwrap().database;
    let newest = Postgres::shared().sql(&database, "SELECT MAX(version) FROM schema_version");
    let newest = format!("version {newest}");
    let refused = MetadataStore::connect(&place.options().unwrap()).await;
    assert!(
        matches!(&refused, Err(ConnectError::Refused(why)) if why.contains(&newest)),
        "{refused:?}"
    );
    meta.apply(vec![head_only("still running")]).await.unwrap();
    let said = meta.ping().await.unwrap_err();
    assert!(said.message.contains("start the newer larder"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waiting_does_not_mend_is_refused_with_the_reason() {
    let right = shared();
    let server = Postgres::shared();
    server.sql(&right.database, "CREATE TABLE schema_version (version BIGINT, oldest BIGINT); INSERT INTO schema_version VALUES (99, 99)");
    let foreign = server.database();
    server.sql(&foreign, "CREATE TABLE blobs (id BIGINT)");
    let table = [
        (
            PostgresOptions {
                password: "wrong".to_owned(),
                ..right.clone()
            },
            "password authentication failed",
        ),
        (
            PostgresOptions {
                database: "nowhere".to_owned(),
                ..right.clone()
            },
            "database \"nowhere\" does not exist",
        ),
        (
            PostgresOptions {
                database: foreign,
                ..right.clone()
            },
            "a database of its own",
        ),
        (right.clone(), "start the newer larder"),
    ];
    for (options, words) in table {
        match MetadataStore::connect(&options).await {
            Err(ConnectError::Refused(why)) => {
                assert!(why.contains(words), "{why}");
                assert!(!why.contains("wrong"), "no secrets: {why}");
            }
            other => panic!("{words}: {other:?}"),
        }
    }
    let nobody = PostgresOptions {
        hosts: vec![("127.0.0.1".to_owned(), 1)],
        ..right
    };
    match MetadataStore::connect(&nobody).await {
        Err(ConnectError::Unreachable(why)) => assert!(why.contains("127.0.0.1:1"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Since version 15 of the server nobody but its owner may make tables in a new database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_finds_the_rights_that_a_start_needs() {
    let (server, owner) = (Postgres::shared(), shared());
    let name = owner.database.clone();
    let user = format!("guest_of_{name}");
    let sql = |statements: &str| server.sql(&name, &statements.replace("ROLE", &user));
    sql("CREATE USER ROLE PASSWORD 'guest'; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let guest = PostgresOptions {
        user: user.clone(),
        password: "guest".to_owned(),
        ..owner.clone()
    };
    let looked = || async {
        let looked = MetadataStore::check_server(&guest).await;
        looked.map_err(|error| match error {
            ConnectError::Refused(why) => why,
            ConnectError::Unreachable(why) => panic!("{why}"),
        })
    };
    let why = looked().await.unwrap_err();
    assert!(
        why.contains("may not create tables in the schema public"),
        "{why}"
    );
    let refused = MetadataStore::connect(&guest).await;
    assert!(
        matches!(refused, Err(ConnectError::Refused(_))),
        "{refused:?}"
    );

    connect(&owner).await.close().await;
    sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO ROLE");
    let why = looked().await.unwrap_err();
    assert!(
        why.contains("may not read and change") && why.contains("secrets"),
        "{why}"
    );
    let reader = connect(&guest).await;
    let error = reader.secret_bytes("a", b"b").await.unwrap_err();
    assert!(error.is_refusal(), "{error:?}");
    reader.ping().await.unwrap();
    assert!(!reader.is_away(), "it has answered");

    sql("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ROLE");
    assert_eq!(looked().await, Ok(()));
    assert_eq!(reader.secret_bytes("a", b"b").await.unwrap(), b"b");
    reader.close().await;

    sql("GRANT CREATE ON SCHEMA public TO ROLE; DELETE FROM schema_version WHERE version > 1");
    let why = looked().await.unwrap_err();
    assert!(why.contains("does not own the tables"), "{why}");
}

/// The primary is gone, and its standby takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_the_standby_that_took_over_is_used() {
    let first = Postgres::start(Disk::Fast);
    let name = first.database();
    let second = first.standby();
    let mut both = options(first.port(), &name);
    both.hosts.push(("127.0.0.1".to_owned(), second.port()));
    let meta = connect(&both).await;
    meta.apply(vec![head_only("before")]).await.unwrap();
    let count = "SELECT COUNT(*) FROM artifacts";
    let since = Instant::now();
    while second.sql(&name, "SELECT to_regclass('artifacts') IS NOT NULL") != "t"
        || second.sql(&name, count) != "1"
    {
        assert!(since.elapsed() < Duration::from_secs(10), "it follows");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first.kill();
    assert_eq!(first_error(&meta).await.kind, StorageErrorKind::Unavailable);
    second.promote();
    let since = Instant::now();
    while meta.apply(vec![head_only("after")]).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("used {:?} after it took over", since.elapsed());
    assert!(meta.record(&key("r", "before")).await.unwrap().is_some());
    assert!(meta.record(&key("r", "after")).await.unwrap().is_some());
}

/// Of several hosts the one that takes writes is used, wherever it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_hosts_the_one_that_takes_writes_is_used() {
    let (first, second) = (Postgres::start(Disk::Fast), Postgres::start(Disk::Fast));
    let (name, other) = (first.database(), second.database());
    second.sql(
        "postgres",
        &format!("ALTER DATABASE {other} RENAME TO {name}"),
    );
    let read_only = |server: &Postgres, is: &str| {
        let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {is}");
        server.sql("postgres", &set);
    };
    let mut hosts = options(1, &name);
    hosts
        .hosts
        .extend([first.port(), second.port()].map(|port| ("127.0.0.1".to_owned(), port)));
    read_only(&first, "on");
    let meta = connect(&hosts).await;
    meta.apply(vec![head_only("x")]).await.unwrap();
    assert_eq!(second.sql(&name, "SELECT COUNT(*) FROM artifacts"), "1");
    read_only(&second, "on");
    match MetadataStore::connect(&hosts).await {
        Err(ConnectError::Unreachable(why)) => assert!(why.contains("takes no writes"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Opening takes the same time however much is stored, and what is asked of many rows is answered from an index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_on_a_server_open_at_once_and_are_found_by_index() {
    const RECORDS: u32 = 100_000;
    let place = Place::postgres();
    place.open().await.close().await;
    let numbers = format!("generate_series(0, {}) AS n(i)", RECORDS - 1);
    let digest = "'sha256:' || lpad(to_hex(i), 64, '0')";
    place
        .run(&format!(
            "INSERT INTO blobs (digest, size, modified_ns) SELECT {digest}, 6, 0 FROM {numbers}; \
             INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record) \
             SELECT 'r', 'pool/file-' || i, '', {digest}, 6, 0, decode('00', 'hex') FROM {numbers}"
        ))
        .await;
    // The best of several: other work on the machine is no fault of the store's.
    let mut best = [Duration::MAX; 3];
    for _ in 0..5 {
        let start = Instant::now();
        let meta = place.open().await;
        // It cannot be read, and is nobody's: the row is found all the same.
        assert_eq!(
            meta.record(&key("r", "pool/file-77777")).await.unwrap(),
            None
        );
        assert_eq!(meta.damage().rows, 1, "it was found");
        best[0] = best[0].min(start.elapsed());
        let start = Instant::now();
        let after = ("pool/file-5".to_owned(), String::new());
        let rows = meta.rows(&repository("r"), Some(&after), 200).await;
        assert_eq!(rows.unwrap().len(), 200);
        best[1] = best[1].min(start.elapsed());
        let start = Instant::now();
        assert_eq!(
            meta.held_sizes().await.unwrap()[0].files,
            u64::from(RECORDS)
        );
        best[2] = best[2].min(start.elapsed());
        meta.close().await;
    }
    println!(
        "opened and found {:?}, a page {:?}, the sum {:?}",
        best[0], best[1], best[2]
    );
    assert!(best[0] < Duration::from_secs(1), "{best:?}");
    assert!(best[1] < Duration::from_millis(100), "{best:?}");
    assert!(best[2] < Duration::from_secs(1), "{best:?}");
}
