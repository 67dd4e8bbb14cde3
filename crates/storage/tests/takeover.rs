//! Deletions that were begun and not ended: who goes on with them, and who must not (hazard L3, docs/adr/0101).
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use larder_core::{BlobDescriptor, Clock as _, Digest, SystemClock, sha256};
use larder_storage::{
    BlobInfo, BlobStore, Change, FsBlobStore, Heap, MemoryObjects, MetadataStore, ObjectBlobStore,
    ObjectStore, Opening, SealedSpool, Space, Spool, StorageError, StorageErrorKind, StoredBlob,
};
use larder_testkit::servers::postgres::Postgres;
use tokio::sync::Semaphore;

use support::place::{Place, on_both_engines, options};
use support::{is_intact, key, put, repository, store};

/// Where the child works; also what makes it the child.
const DIRECTORY: &str = "LARDER_TEST_TAKEOVER_DIRECTORY";
const DATABASE: &str = "LARDER_TEST_TAKEOVER_DATABASE";
const PORT: &str = "LARDER_TEST_TAKEOVER_PORT";
/// How long nothing must have come of a deletion here.
const QUIET: Duration = Duration::from_millis(300);

/// Files that are deleted only when they may be.
#[derive(Debug)]
struct Hesitant {
    files: FsBlobStore,
    /// Pages of files that may be deleted.
    may: Semaphore,
    asked: AtomicUsize,
}

impl Hesitant {
    fn open(directory: &Path, pages: usize) -> Arc<Self> {
        Arc::new(Self {
            files: FsBlobStore::open(directory).unwrap(),
            may: Semaphore::new(pages),
            asked: AtomicUsize::new(0),
        })
    }
}

impl BlobStore for Hesitant {
    fn spool(&self) -> Result<Spool, StorageError> {
        self.files.spool()
    }

    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a> {
        self.files.open(blob)
    }

    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>> {
        self.files.publish(batch)
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>> {
        self.files.delete(digest)
    }

    fn delete_all(
        &self,
        digests: Vec<Digest>,
        until: Instant,
    ) -> BoxFuture<'_, Vec<Option<Result<bool, StorageError>>>> {
        Box::pin(async move {
            let done = self.files.delete_all(digests, until).await;
            self.asked.fetch_add(1, Ordering::SeqCst);
            std::io::stdout().write_all(b"deleted\n").unwrap();
            self.may.acquire().await.unwrap().forget();
            done
        })
    }

    fn free_space(&self) -> Result<Space, StorageError> {
        self.files.free_space()
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredBlob>, StorageError>> {
        self.files.list(after, limit)
    }
}

fn bytes(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(10)
}

/// Stores files and drops their records, so that their blobs are due.
async fn leave(meta: &MetadataStore, blobs: &Arc<dyn BlobStore>, count: u32) {
    for number in 0..count {
        let key = key("r", &number.to_string());
        store(meta, blobs, &key, &bytes(number)).await;
    }
    let keys = (0..count).map(|number| (number.to_string(), String::new()));
    let delete = Change::DeleteRecords {
        repository: repository("r"),
        keys: keys.collect(),
    };
    meta.apply(vec![delete]).await.unwrap();
}

/// Looks twice, so far apart that whoever has not got on counts as quiet; gives how many files went.
async fn look(meta: &MetadataStore, blobs: &Arc<dyn BlobStore>) -> u64 {
    let now = SystemClock.now();
    let (first, _) = meta.take_over(now, QUIET, blobs).await.unwrap();
    tokio::time::sleep(QUIET * 2).await;
    let (second, _) = meta.take_over(now, QUIET, blobs).await.unwrap();
    first + second
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Whether bytes can be kept now.
async fn is_kept(meta: &MetadataStore, blobs: &Arc<dyn BlobStore>, number: u32) -> bool {
    let info = blobs.put_bytes(&bytes(number)).await.unwrap();
    let blob = info.descriptor.clone();
    match meta.apply(vec![put(&key("again", "x"), info)]).await {
        Ok(()) => {
            assert!(is_intact(&**blobs, &blob).await);
            true
        }
        Err(error) => {
            assert_eq!(error.kind, StorageErrorKind::Unavailable);
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_l3_who_is_killed_is_taken_over_and_who_is_at_work_or_stopped_is_not() {
    let place = Place::postgres();
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    leave(&meta, &blobs, 60).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_deletes_and_is_killed", "--ignored"])
        .arg("--nocapture")
        .env(DIRECTORY, place.directory())
        .env(DATABASE, place.options().unwrap().database)
        .env(PORT, Postgres::shared().port().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("deleted")));
    // At work on what it has condemned, 10 of which have their files still.
    let files = async || blobs.list(None, 100).await.unwrap().len();
    assert_eq!(files().await, 10);
    assert_eq!(look(&meta, &blobs).await, 0, "it is at work");
    signal(&child, "STOP");
    assert_eq!(look(&meta, &blobs).await, 0, "it may yet go on");
    assert!(!is_kept(&meta, &blobs, 7).await);
    assert!(files().await <= 11, "what was to be kept, and could not be");
    child.kill().unwrap();
    child.wait().unwrap();
    let since = Instant::now();
    while look(&meta, &blobs).await == 0 {
        assert!(since.elapsed() < Duration::from_secs(20));
    }
    println!("taken over {:?} after the kill", since.elapsed());
    assert_eq!(files().await, 0);
    assert_eq!(meta.counts().await.unwrap().blobs, 0);
    for number in [7, 59] {
        assert!(is_kept(&meta, &blobs, number).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs only as the child of the test above"]
async fn child_that_deletes_and_is_killed() {
    let directory = std::env::var_os(DIRECTORY).expect("started by its parent");
    let database = std::env::var_os(DATABASE).expect("started by its parent");
    let port = std::env::var_os(PORT).expect("started by its parent");
    let (database, port) = (database.into_string().unwrap(), port.into_string().unwrap());
    let options = options(port.parse().unwrap(), &database);
    let meta = MetadataStore::connect(&options).await.unwrap();
    let blobs: Arc<dyn BlobStore> = Hesitant::open(Path::new(&directory), 0);
    meta.free_due(SystemClock.now(), &blobs).await.unwrap();
}

/// One that was stopped for so long that its session has gone, and that wakes up in the middle of its page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_l3_who_was_taken_over_deletes_no_more() {
    for ends_session in [false, true] {
        let place = Place::postgres();
        let meta = place.open().await;
        let hesitant = Hesitant::open(place.directory(), 0);
        let blobs: Arc<dyn BlobStore> = Arc::clone(&hesitant) as Arc<dyn BlobStore>;
        leave(&meta, &blobs, 60).await;
        let deleting = tokio::spawn({
            let (meta, blobs) = (meta.clone(), Arc::clone(&blobs));
            async move { meta.free_due(SystemClock.now(), &blobs).await }
        });
        while hesitant.asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if ends_session {
            let database = place.options().unwrap().database;
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'idle in transaction'"
            );
            assert_eq!(Postgres::shared().sql("postgres", &end), "t");
        }
        let taken = place.run("UPDATE blobs SET condemned_by = 'another store'");
        assert_eq!(taken.await, 60);
        hesitant.may.add_permits(10);
        let outcome = deleting.await.unwrap();
        assert_eq!(outcome.is_err(), ends_session, "{outcome:?}");
        assert_eq!(hesitant.asked.load(Ordering::SeqCst), 1);
        assert_eq!(blobs.list(None, 100).await.unwrap().len(), 10);
        let left =
            place.run("UPDATE blobs SET delete_after = 0 WHERE condemned_by = 'another store'");
        assert_eq!(left.await, 60, "their rows are another's to forget");
    }
}

/// A request without an answer may be carried out later: what it deletes is not kept before it is known to be gone.
async fn hazard_l3_a_deletion_without_an_answer_is_gone_on_with(place: Place) {
    let meta = place.open().await;
    let objects = Arc::new(MemoryObjects::default());
    let spools = FsBlobStore::open(place.directory()).unwrap();
    let service = Arc::clone(&objects) as Arc<dyn ObjectStore>;
    let blobs: Arc<dyn BlobStore> = Arc::new(ObjectBlobStore::new(service, spools));
    leave(&meta, &blobs, 3).await;
    objects.break_off(true);
    let failed = meta.free_due(SystemClock.now(), &blobs).await;
    assert_eq!(failed.unwrap_err().kind, StorageErrorKind::Unavailable);
    objects.break_off(false);
    assert!(!is_kept(&meta, &blobs, 1).await);
    assert_eq!(objects.count(), 3);
    assert_eq!(look(&meta, &blobs).await, 3);
    assert_eq!(objects.count(), 0);
    assert!(is_kept(&meta, &blobs, 1).await);
}

/// One that is held, say: the others go, it counts as there, and it can be kept again.
async fn what_cannot_be_deleted_keeps_none_of_the_others(place: Place) {
    let meta = place.open().await;
    let objects = Arc::new(MemoryObjects::default());
    let spools = FsBlobStore::open(place.directory()).unwrap();
    let service = Arc::clone(&objects) as Arc<dyn ObjectStore>;
    let blobs: Arc<dyn BlobStore> = Arc::new(ObjectBlobStore::new(service, spools));
    leave(&meta, &blobs, 5).await;
    objects.hold(&format!("sha256/{}", sha256(&bytes(1)).to_hex()));
    let freed = meta.free_due(SystemClock.now(), &blobs).await.unwrap();
    assert_eq!(freed, (4, 160));
    assert_eq!(objects.count(), 1);
    assert_eq!(meta.cached_bytes().await.unwrap(), 40);
    let undeleted = meta.undeleted();
    assert_eq!((undeleted.blobs, undeleted.bytes), (1, 40));
    assert!(undeleted.why.unwrap().contains("held"));
    // The collector passes over it, too, and tells of it.
    let (now, day) = (SystemClock.now(), Duration::from_hours(24));
    let garbage = meta.collect_garbage(now, day, &blobs).await.unwrap();
    let heap = |blobs, bytes| Heap { blobs, bytes };
    assert_eq!(
        (garbage.unreferenced, garbage.undeleted),
        (heap(0, 0), heap(1, 40))
    );
    assert!(is_kept(&meta, &blobs, 1).await);
}

/// Who makes room waits neither for all that is due nor for a store that takes its time.
async fn who_frees_for_a_while_ends_then_and_the_rest_stays_due(place: Place) {
    const FILES: u32 = 300;
    let meta = place.open().await;
    let hesitant = Hesitant::open(place.directory(), 0);
    let blobs: Arc<dyn BlobStore> = Arc::clone(&hesitant) as Arc<dyn BlobStore>;
    leave(&meta, &blobs, FILES).await;
    let files = async || blobs.list(None, 1_000).await.unwrap().len() as u32;
    let (since, now) = (Instant::now(), SystemClock.now());
    let until = since + Duration::from_millis(300);
    let freed = meta.free_due_until(now, &blobs, until).await.unwrap();
    let took = since.elapsed();
    assert!(took < Duration::from_secs(8), "the store has not answered");
    assert_eq!(freed, (0, 0), "and so it is not known what has gone");
    assert!(files().await < FILES, "some have");
    // It answers, and nothing more is begun with that is late.
    hesitant.may.add_permits(100);
    let late = meta.free_due_until(now, &blobs, Instant::now()).await;
    assert_eq!(late.unwrap(), (0, 0));
    let since = Instant::now();
    let condemned = "UPDATE blobs SET size = size WHERE condemned_by IS NOT NULL";
    while place.run(condemned).await > 0 {
        assert!(since.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = files().await;
    assert!((1..FILES).contains(&left), "{left} are left");
    let freed = meta.free_due(now, &blobs).await.unwrap();
    assert_eq!((freed.0, files().await), (u64::from(left), 0));
    assert_eq!(meta.counts().await.unwrap().blobs, 0);
}

on_both_engines!(
    who_frees_for_a_while_ends_then_and_the_rest_stays_due,
    hazard_l3_a_deletion_without_an_answer_is_gone_on_with,
    what_cannot_be_deleted_keeps_none_of_the_others,
);
