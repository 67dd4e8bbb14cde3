//! Scrubs and the collector on demand, seen from outside: bits flip on the disk, and what is fetched heals (docs/adr/0096).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use serde_json::Value;
use support::client::client;
use support::{PATIENCE, Setup, TestLarder, get, send};

const TOKEN: &str = "a-token-of-the-admin";

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = 1 + self.next() % 6_000;
        (0..length).map(|_| (self.next() >> 32) as u8).collect()
    }
}

fn path_of(larder: &TestLarder, bytes: &[u8]) -> PathBuf {
    let digits = sha256(bytes).to_hex();
    let folder = larder.blob_dir().join("sha256");
    [&digits[..2], &digits[2..4], &digits]
        .iter()
        .fold(folder, |path, part| path.join(part))
}

/// Flips one bit of a stored blob.
fn flip(larder: &TestLarder, bytes: &[u8], numbers: &mut Numbers) {
    let path = path_of(larder, bytes);
    let mut damaged = std::fs::read(&path).expect("a stored blob");
    assert!(damaged == bytes, "it was stored as it is");
    let bit = (numbers.next() % (bytes.len() as u64 * 8)) as usize;
    damaged[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(&path, damaged).expect("a file that can be written");
}

async fn upload(larder: &TestLarder, path: &str, bytes: &[u8]) {
    let url = larder.artifact("own", path);
    let sent = client().put(url).bearer_auth(TOKEN).body(bytes.to_vec());
    let status = sent.send().await.expect("an answer").status().as_u16();
    assert!([200, 201, 204].contains(&status), "{status}");
}

/// Asks with the token.
async fn ask(larder: &TestLarder, method: &str, path: &str) -> (u16, Value) {
    let bearer = format!("Bearer {TOKEN}");
    let answer = send(method, &larder.url(path), &[("authorization", &bearer)]).await;
    (answer.status, answer.json())
}

async fn until_ended(larder: &TestLarder) -> Value {
    let begun = Instant::now();
    loop {
        let (status, scrub) = ask(larder, "GET", "api/v1/scrub?limit=1").await;
        assert_eq!(status, 200, "{scrub}");
        if scrub["state"] != "running" {
            return scrub;
        }
        assert!(begun.elapsed() < 10 * PATIENCE, "{scrub}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All findings: kind, path, outcome.
async fn findings(larder: &TestLarder) -> BTreeSet<(String, String, String)> {
    let (mut all, mut after) = (BTreeSet::new(), 0);
    loop {
        let path = format!("api/v1/scrub?limit=300&after={after}");
        let (_, scrub) = ask(larder, "GET", &path).await;
        for finding in scrub["findings"].as_array().expect("findings") {
            let text = |name: &str| finding[name].as_str().expect("a text").to_owned();
            all.insert((text("kind"), text("path"), text("outcome")));
        }
        match scrub["next"].as_u64() {
            Some(next) => after = next,
            None => return all,
        }
    }
}

async fn start(origin: &Origin) -> TestLarder {
    let config = format!(
        "auth: {{ admin_token: '{TOKEN}' }}\nremotes:\n  files: {{ base_url: '{}', immutable_patterns: ['.'] }}\n  own: {{ type: local, allow_overwrite: true }}\n",
        origin.url("")
    );
    Setup::new(&config).start().await
}

/// Some at once.
async fn all_of(work: impl Iterator<Item = impl Future<Output = ()>>) {
    futures_util::StreamExt::collect::<Vec<()>>(futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(work),
        16,
    ))
    .await;
}

/// Puts files at the upstream and fetches them.
async fn fetch(larder: &TestLarder, origin: &Origin, files: &[(String, Vec<u8>)]) {
    for (path, bytes) in files {
        let resource = Resource::new(bytes.clone()).content_type("application/octet-stream");
        origin.put(&format!("/{path}"), resource);
    }
    let fetches = files.iter().map(|(path, bytes)| async move {
        let answer = larder.hit(&larder.artifact("files", path)).await;
        assert!(answer.body == *bytes, "{path}");
    });
    all_of(fetches).await;
}

fn named(folder: &str, count: usize, numbers: &mut Numbers) -> Vec<(String, Vec<u8>)> {
    let name = |number| format!("{folder}/{number:04}.bin");
    (0..count)
        .map(|number| (name(number), numbers.bytes()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_flipped_bits_are_found_and_no_more_and_what_is_fetched_heals() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let origin = Origin::start().await;
    let larder = start(&origin).await;
    let cached = named("c", 1_050, &mut numbers);
    let local = named("l", 150, &mut numbers);
    fetch(&larder, &origin, &cached).await;
    all_of(
        local
            .iter()
            .map(|(path, bytes)| upload(&larder, path, bytes)),
    )
    .await;
    let (cached_bad, cached_good) = cached.split_at(900);
    let (local_bad, local_good) = local.split_at(100);
    for (_, bytes) in cached_bad.iter().chain(local_bad) {
        flip(&larder, bytes, &mut numbers);
    }

    let refused = send("POST", &larder.url("api/v1/scrub"), &[]).await;
    assert_eq!(refused.status, 401, "{}", refused.text());
    let (status, begun) = ask(&larder, "POST", "api/v1/scrub?rate=1000000000").await;
    assert_eq!(status, 202, "{begun}");
    let scrub = until_ended(&larder).await;
    let log = larder.log();
    let stopped = log.lines().find(|line| line.contains("cannot go on"));
    assert_eq!(stopped, None);
    assert_eq!(
        (&scrub["state"], scrub["damaged"].as_u64()),
        (&"done".into(), Some(1_000))
    );
    assert_eq!(
        (scrub["blobs"].as_u64(), scrub["total_blobs"].as_u64()),
        (Some(1_200), Some(1_200))
    );
    let expected = |kind: &str, outcome: &str, files: &[(String, Vec<u8>)]| {
        let one =
            |(path, _): &(String, Vec<u8>)| (kind.to_owned(), path.clone(), outcome.to_owned());
        files.iter().map(one).collect::<BTreeSet<_>>()
    };
    let mut all = expected("cached", "refetched", cached_bad);
    all.extend(expected("local", "kept", local_bad));
    assert!(
        findings(&larder).await == all,
        "exactly those that were flipped are named"
    );

    // What was fetched is right again, and was fetched once more; the rest was left alone.
    for (path, bytes) in &cached {
        let answer = get(&larder.artifact("files", path)).await;
        assert!(answer.status == 200 && answer.body == *bytes, "{path}");
        assert!(
            std::fs::read(path_of(&larder, bytes)).expect("a blob") == *bytes,
            "{path}"
        );
    }
    for (files, times) in [(cached_bad, 2), (cached_good, 1)] {
        for (path, _) in files {
            assert_eq!(origin.count("GET", &format!("/{path}")), times, "{path}");
        }
    }
    // What was uploaded stays as it is, and is told.
    for (path, bytes) in local_bad {
        let stored = std::fs::read(path_of(&larder, bytes)).expect("an uploaded blob");
        assert!(stored.len() == bytes.len() && stored != *bytes, "{path}");
    }
    for (path, bytes) in local_good {
        let answer = get(&larder.artifact("own", path)).await;
        assert!(answer.status == 200 && answer.body == *bytes, "{path}");
    }
    told_of_local_damage(&larder, 100).await;
    for (name, value) in [
        ("blobs", 1_200.0),
        ("damaged", 1_000.0),
        ("refetched", 900.0),
        ("local_damaged", 100.0),
    ] {
        let counted = larder
            .metric(&format!("larder_scrub_{name}_total"), "")
            .await;
        assert!((counted - value).abs() < 0.5, "{name}: {counted}");
    }

    // Uploaded anew, even with the same bytes, a file is right again; the next scrub finds the others.
    let (path, bytes) = &local_bad[0];
    upload(&larder, path, bytes).await;
    let answer = get(&larder.artifact("own", path)).await;
    assert!(answer.body == *bytes, "an upload replaces what is damaged");
    let (status, _) = ask(&larder, "POST", "api/v1/scrub?rate=1000000000").await;
    assert_eq!(status, 202);
    assert_eq!(until_ended(&larder).await["damaged"].as_u64(), Some(99));
    assert!(findings(&larder).await == expected("local", "kept", &local_bad[1..]));
    told_of_local_damage(&larder, 99).await;
}

/// `/health` says so within its five seconds.
async fn told_of_local_damage(larder: &TestLarder, files: usize) {
    let begun = Instant::now();
    loop {
        let health = get(&larder.url("health")).await;
        assert_eq!(health.status, 200, "it serves all the same");
        let detail = health.json()["backends"]["blobs"]["detail"].to_string();
        if detail.contains(&format!("{files} uploaded files are damaged")) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{detail}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A record of a path with a query is fetched by that query, which nobody is told of.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_with_a_query_is_fetched_with_it() {
    let mut numbers = Numbers(23);
    let origin = Origin::start().await;
    let larder = start(&origin).await;
    let files =
        ["q.txt?v=1", "q.txt?v=2&sig=SECRET"].map(|path| (path.to_owned(), numbers.bytes()));
    let long = (format!("l.txt?v={}", "1".repeat(300)), numbers.bytes());
    fetch(&larder, &origin, &files).await;
    fetch(&larder, &origin, std::slice::from_ref(&long)).await;
    for (_, bytes) in files.iter().chain([&long]) {
        flip(&larder, bytes, &mut numbers);
    }
    ask(&larder, "POST", "api/v1/scrub").await;
    until_ended(&larder).await;
    let finding = |path: &str, outcome: &str| {
        let kind = "cached".to_owned();
        (kind, path.to_owned(), outcome.to_owned())
    };
    // Of a long query only the digest is known.
    let expected = [finding("q.txt", "refetched"), finding("l.txt", "forgotten")];
    assert_eq!(findings(&larder).await, BTreeSet::from(expected));
    let asked: Vec<String> = origin
        .requests()
        .into_iter()
        .map(|asked| asked.target)
        .collect();
    for (path, times) in [(&files[0].0, 2), (&files[1].0, 2), (&long.0, 1)] {
        let count = asked
            .iter()
            .filter(|asked| **asked == format!("/{path}"))
            .count();
        assert_eq!(count, times, "{path}: {asked:?}");
    }
    assert_eq!(asked.len(), 5, "and nothing else: {asked:?}");
    for (path, bytes) in files.iter().chain([&long]) {
        let answer = get(&larder.artifact("files", path)).await;
        assert!(answer.body == *bytes, "{path}");
    }
    let log = larder.log();
    let told = |name: &str| {
        let of_scrub = log.lines().filter(|line| line.contains("stored blob"));
        of_scrub.filter(|line| line.contains(name)).count()
    };
    assert_eq!((told("q.txt"), told("l.txt"), told("SECRET")), (2, 1, 0));
}

/// What is uploaded and fetched too has another copy: that of the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_file_that_an_upstream_has_too_is_restored() {
    let mut numbers = Numbers(7);
    let origin = Origin::start().await;
    let larder = start(&origin).await;
    let both = named("b", 1, &mut numbers);
    fetch(&larder, &origin, &both).await;
    let (path, bytes) = &both[0];
    upload(&larder, path, bytes).await;
    flip(&larder, bytes, &mut numbers);
    ask(&larder, "POST", "api/v1/scrub").await;
    until_ended(&larder).await;
    let outcomes = findings(&larder).await;
    let outcomes: Vec<&str> = outcomes.iter().map(|(_, _, outcome)| &**outcome).collect();
    assert_eq!(outcomes, ["refetched", "restored"]);
    for repository in ["own", "files"] {
        let answer = get(&larder.artifact(repository, path)).await;
        assert!(answer.body == *bytes, "{repository}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_goes_on_after_a_kill_and_ends_when_it_is_cancelled() {
    let mut numbers = Numbers(11);
    let origin = Origin::start().await;
    let mut larder = start(&origin).await;
    let files = named("f", 40, &mut numbers);
    fetch(&larder, &origin, &files).await;
    flip(&larder, &files[3].1, &mut numbers);
    let refused = ask(&larder, "GET", "api/v1/scrub").await;
    assert_eq!(refused.0, 404, "{}", refused.1);
    for query in ["rate=0", "rate=fast", "speed=1", "rate=1&rate=2"] {
        let refused = ask(&larder, "POST", &format!("api/v1/scrub?{query}")).await;
        assert_eq!(refused.0, 400, "{query}: {}", refused.1);
    }
    // Some seconds for what there is.
    let (_, begun) = ask(&larder, "POST", "api/v1/scrub?rate=40000").await;
    let (status, same) = ask(&larder, "POST", "api/v1/scrub?rate=50000").await;
    assert_eq!((status, &same["id"]), (202, &begun["id"]), "one at a time");
    larder.kill9();
    larder.restart().await;
    let ended = until_ended(&larder).await;
    assert_eq!(
        (&ended["id"], &ended["state"]),
        (&begun["id"], &"done".into())
    );
    assert_eq!(
        (ended["blobs"].as_u64(), ended["damaged"].as_u64()),
        (Some(40), Some(1))
    );
    // This one would take a minute.
    let (_, begun) = ask(&larder, "POST", "api/v1/scrub?rate=16384").await;
    assert_eq!(begun["state"], "running");
    let (status, cancelled) = ask(&larder, "DELETE", "api/v1/scrub").await;
    assert_eq!((status, &cancelled["state"]), (200, &"cancelled".into()));
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command.output().expect("the larder program")
}

fn out(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

/// A blob that no row knows, two days old.
fn orphan(larder: &TestLarder, bytes: &[u8]) -> PathBuf {
    let path = path_of(larder, bytes);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, bytes).expect("written");
    let file = std::fs::File::options().write(true).open(&path);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.expect("a file").set_modified(old).expect("a time");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_goes_when_it_is_asked_for() {
    let mut numbers = Numbers(13);
    let origin = Origin::start().await;
    let mut larder = start(&origin).await;
    let kept = named("k", 3, &mut numbers);
    fetch(&larder, &origin, &kept).await;
    let lost = orphan(&larder, &[7; 1_234]);
    assert_eq!(
        send("POST", &larder.url("api/v1/gc"), &[]).await.status,
        401
    );
    for query in ["dry_run=yes", "dryrun=true"] {
        let refused = ask(&larder, "POST", &format!("api/v1/gc?{query}")).await;
        assert_eq!(refused.0, 400, "{query}");
    }
    // Nobody reads a body: a look that is asked for there would be no look.
    for (path, body) in [("api/v1/gc", "dry_run=true"), ("api/v1/scrub", "rate=1")] {
        let request = support::client::client().post(larder.url(path));
        let request = request.bearer_auth(TOKEN).body(body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{path}");
    }
    assert!(lost.exists(), "nothing was deleted");
    let expected = serde_json::json!({"blobs": 1, "bytes": 1_234});
    let (status, garbage) = ask(&larder, "POST", "api/v1/gc?dry_run=true").await;
    assert_eq!(
        (status, &garbage["deleted"]["orphans"]),
        (200, &expected),
        "{garbage}"
    );
    assert_eq!(garbage["dry_run"], true);
    assert!(lost.exists(), "a look deletes nothing");
    let (status, garbage) = ask(&larder, "POST", "api/v1/gc").await;
    assert_eq!(
        (status, &garbage["deleted"]["orphans"]),
        (200, &expected),
        "{garbage}"
    );
    assert!(!lost.exists());

    // The same in the data directory, where no larder runs.
    let lost = orphan(&larder, &[8; 2_345]);
    let directory = larder.data_dir().display().to_string();
    let refused = out(&run(&["gc", "--data-dir", &directory]));
    assert_eq!(refused.0, Some(1));
    assert!(
        refused.1.contains("in use by another larder") && refused.1.contains("--server"),
        "{refused:?}"
    );
    assert!(lost.exists() && larder.terminate().success());
    let dry = out(&run(&[
        "gc",
        "--data-dir",
        &directory,
        "--dry-run",
        "--json",
    ]));
    let garbage: Value = serde_json::from_str(&dry.1).expect("one object");
    assert_eq!(garbage["deleted"]["orphans"]["bytes"], 2_345, "{dry:?}");
    assert!(lost.exists());
    let done = out(&run(&["gc", "--data-dir", &directory]));
    assert!(
        done.0 == Some(0) && done.1.contains("that no row knows: deleted"),
        "{done:?}"
    );
    assert!(!lost.exists());
    let nowhere = tempfile::tempdir().expect("a directory");
    let refused = out(&run(&[
        "gc",
        "--data-dir",
        &nowhere.path().display().to_string(),
    ]));
    assert!(
        refused.0 == Some(1) && refused.1.contains("holds no larder.sqlite"),
        "{refused:?}"
    );
    larder.restart().await;
    for (path, bytes) in &kept {
        let answer = get(&larder.artifact("files", path)).await;
        assert!(
            answer.source() == "cache" && answer.body == *bytes,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_scrubbed_where_no_larder_runs() {
    let mut numbers = Numbers(17);
    let origin = Origin::start().await;
    let mut larder = start(&origin).await;
    let cached = named("c", 5, &mut numbers);
    let local = named("l", 2, &mut numbers);
    fetch(&larder, &origin, &cached).await;
    for (path, bytes) in &local {
        upload(&larder, path, bytes).await;
    }
    let server = larder.url("/");
    let command = |more: &[&str]| {
        let mut arguments = vec!["scrub", "--server", &server, "--rate", "1GiB"];
        arguments.extend(more);
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command
            .args(&arguments)
            .env_clear()
            .env("LARDER_TOKEN", TOKEN);
        command.stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().expect("the larder program"))
    };
    let sound = out(&command(&[]).await.expect("a task"));
    assert_eq!(sound, (Some(0), sound.1.clone()), "nothing is wrong yet");
    assert!(sound.1.starts_with("done: 7 of 7 blobs read"), "{sound:?}");
    assert!(larder.terminate().success());

    flip(&larder, &cached[1].1, &mut numbers);
    std::fs::remove_file(path_of(&larder, &cached[2].1)).expect("a blob");
    flip(&larder, &local[1].1, &mut numbers);
    let directory = larder.data_dir().display().to_string();
    let scrubbed = run(&[
        "scrub",
        "--data-dir",
        &directory,
        "--rate",
        "1GiB",
        "--json",
    ]);
    assert_eq!(
        scrubbed.status.code(),
        Some(1),
        "an uploaded file is damaged"
    );
    let scrub: Value = serde_json::from_slice(&scrubbed.stdout).expect("one object");
    let found: BTreeSet<[&str; 3]> = scrub["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|found| ["path", "flaw", "outcome"].map(|name| found[name].as_str().expect("a text")))
        .collect();
    let expected = BTreeSet::from([
        [&*cached[1].0, "wrong", "forgotten"],
        [&*cached[2].0, "missing", "forgotten"],
        [&*local[1].0, "wrong", "kept"],
    ]);
    assert_eq!(found, expected);
    larder.restart().await;
    for (path, bytes) in &cached {
        let answer = get(&larder.artifact("files", path)).await;
        assert!(answer.body == *bytes, "{path}");
    }
    told_of_local_damage(&larder, 1).await;
}

/// A command that is there for longer than it takes larder to look after its bounds.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_data_directory_evicts_nothing() {
    let mut numbers = Numbers(29);
    let origin = Origin::start().await;
    let mut larder = start(&origin).await;
    let files: Vec<(String, Vec<u8>)> = (0..5)
        .map(|number| {
            let bytes = (0..600_000).map(|_| (numbers.next() >> 32) as u8);
            (format!("f/{number}.bin"), bytes.collect())
        })
        .collect();
    fetch(&larder, &origin, &files).await;
    assert!(larder.terminate().success());
    let config = format!(
        "limits: {{ disk: 1MiB }}\nremotes:\n  files: {{ base_url: '{}' }}\n",
        origin.url("")
    );
    let path = larder.home().join("bounded.yaml");
    std::fs::write(&path, config).expect("a file");
    let (path, directory) = (path.display().to_string(), larder.data_dir());
    let directory = directory.display().to_string();
    let arguments = ["scrub", "--config", &path, "--data-dir", &directory];
    // 3 MB at this rate take more than the ten seconds between two looks.
    let begun = Instant::now();
    let scrubbed = out(&run(&[&arguments[..], &["--rate", "160KiB"]].concat()));
    assert_eq!(scrubbed.0, Some(0), "{scrubbed:?}");
    assert!(begun.elapsed() > Duration::from_secs(11), "{scrubbed:?}");
    for (path, bytes) in &files {
        assert!(path_of(&larder, bytes).exists(), "{path}");
    }
}
