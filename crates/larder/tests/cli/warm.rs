//! `warm`: what files name is fetched by a job, and what is not held is said.

use std::process::Stdio;
use std::time::Instant;

use larder_testkit::servers::free_port;
use larder_testkit::{Origin, Resource};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::packages::entry;
use crate::support::{PATIENCE, Setup, TestLarder, get};
use crate::{Done, larder, run};

const TOKEN: &str = "a-token-of-the-admin";

async fn start(origin: &Origin) -> TestLarder {
    setup(origin).start().await
}

fn setup(origin: &Origin) -> Setup {
    let config = format!(
        "auth: {{admin_token: '{TOKEN}'}}\npublic_url: 'http://larder.example.com:8123'\ndocker_default_remote: hub\nremotes:\n{}{}  own: {{ type: local, package: generic }}\n",
        entry("a", "generic", origin, "deny_patterns: ['secret']"),
        [
            entry("npm", "npm", origin, ""),
            entry("charts", "helm", origin, ""),
            entry("hub", "docker", origin, ""),
            entry("py", "pypi", origin, ""),
            "  all: { type: virtual, package: helm, members: [charts] }\n".to_owned(),
        ]
        .concat(),
    );
    Setup::new(&config)
}

fn write(home: &tempfile::TempDir, name: &str, text: &str) {
    std::fs::write(home.path().join(name), text).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_names_is_held_afterwards() {
    let origin = Origin::start().await;
    for path in ["/dir/one.bin", "/two 2.bin", "/three.bin"] {
        origin.put(path, Resource::new(path));
    }
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    let own = running.artifact("a", "three.bin");
    let list = format!(
        "# files\n{}\ntwo 2.bin\n{own}\n",
        origin.url("/dir/one.bin")
    );
    write(&home, "urls.txt", &list);
    let dry = ["warm", "-r", "a", "urls.txt", "--dry-run"];
    let said = run(home.path(), &dry, &env).await.ok();
    assert_eq!(said, "a/dir/one.bin\na/three.bin\na/two 2.bin\n");
    assert_eq!(origin.requests().len(), 0);

    let done = run(home.path(), &["warm", "-r", "a", "urls.txt"], &env).await;
    // Standard error is no terminal here: lines, and nothing that moves a cursor.
    assert!(
        done.err.contains("job ") && !done.err.contains('\r'),
        "{done:?}"
    );
    assert_eq!(done.ok(), "a: 3 files held, 32 B\n");
    for path in ["dir/one.bin", "two%202.bin", "three.bin"] {
        let answer = get(&running.artifact("a", path)).await;
        assert_eq!((answer.status, answer.source()), (200, "cache"), "{path}");
    }
    // The same list on standard input, and in a file of another name.
    write(&home, "list", &list);
    let mut command = larder(home.path(), &["warm", "-r", "a", "-", "list"], &env);
    let input = std::fs::File::open(home.path().join("list")).expect("the list");
    let output = tokio::task::spawn_blocking(move || command.stdin(input).output()).await;
    let done = Done::of(&output.expect("a task").expect("the larder program"));
    assert_eq!(done.ok(), "a: 3 files held, 32 B\n");
    let again = ["warm", "--repository", "a", "urls.txt", "--json"];
    let done = run(home.path(), &again, &env).await;
    assert_eq!(done.err, "");
    let told: Value = serde_json::from_str(&done.ok()).expect("one object");
    assert_eq!((&told["cached"], &told["bytes"]), (&3.into(), &32.into()));
    assert_eq!(told["failed"], Value::Array(Vec::new()));
    assert_eq!(origin.requests().len(), 3, "nothing was fetched twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_held_is_listed_with_its_reason() {
    let origin = Origin::start().await;
    origin.put("/one.bin", Resource::new("one"));
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    let list = "one.bin\nabsent.bin\nsecret.bin\nhttps://other.example.com/x?token=canary\n";
    write(&home, "urls.txt", list);
    let done = run(home.path(), &["warm", "-r", "a", "urls.txt"], &env).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.out, "a: 1 file held, 3 B\n");
    for words in [
        "failed absent.bin: ",
        "failed secret.bin: ",
        "deny_patterns",
        "failed urls.txt:4: https://other.example.com/x: it is at other.example.com",
        "3 of 4 are not held",
    ] {
        assert!(done.err.contains(words), "{words}: {}", done.err);
    }
    assert!(!done.err.contains("canary"), "{done:?}");
    let done = run(
        home.path(),
        &["warm", "-r", "a", "urls.txt", "--json"],
        &env,
    )
    .await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let told: Value = serde_json::from_str(&done.out).expect("one object");
    assert_eq!(told["failed"].as_array().map(Vec::len), Some(3), "{told}");
    assert_eq!(told["failed"][0]["at"], "urls.txt:4", "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_a_mistake_of_the_command_line() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    write(&home, "package-lock.json", "{\n\"packages\": {,}\n}");
    write(&home, "yarn.lock", "\u{1b}[31mgarbage\n");
    write(&home, "pnpm-lock.yaml", "lockfileVersion: 9\npackages: [\n");
    write(&home, "Chart.lock", "dependencies: []\n");
    write(&home, "lock", "x");
    write(&home, "Gemfile.lock", "GEM\n");
    write(&home, "bun.lockb", "#!/usr/bin/env bun\n");
    write(&home, "Pipfile", "[packages]\n");
    write(&home, "poetry.lock", "[[package]]\n");
    std::fs::write(home.path().join("binary.txt"), b"a\n\xff\n").expect("a file");
    for (repository, file, words) in [
        ("npm", "package-lock.json", &["package-lock.json:2"][..]),
        ("npm", "yarn.lock", &["yarn.lock:1", "no yarn.lock"]),
        ("npm", "pnpm-lock.yaml", &["pnpm-lock.yaml:"]),
        ("npm", "Chart.lock", &["helm packages", "npm"]),
        ("npm", "lock", &["--format"]),
        (
            "npm",
            "Gemfile.lock",
            &["--format", "pnpm-lock.yaml", "bun.lock"],
        ),
        ("npm", "bun.lockb", &["bun.lock", "--save-text-lockfile"]),
        ("npm", "Pipfile", &["lock file"]),
        ("npm", "poetry.lock", &["poetry.lock:1", "lock-version"]),
        ("npm", "absent.lock", &["cannot read absent.lock"]),
        ("a", "binary.txt", &["binary.txt:2", "UTF-8"]),
        ("own", "lock", &["local repository"]),
    ] {
        let done = run(home.path(), &["warm", "-r", repository, file], &env).await;
        done.refused(2, words);
        assert!(!done.err.contains('\u{1b}'), "{done:?}");
    }
    run(home.path(), &["warm", "lock"], &env)
        .await
        .refused(2, &["--repository"]);
    let unknown = run(home.path(), &["warm", "-r", "nowhere", "lock"], &env).await;
    unknown.refused(1, &["nowhere", "npm"]);
    write(&home, "urls.txt", "one.bin\n");
    let keyless = [("LARDER_URL", server.as_str())];
    let done = run(home.path(), &["warm", "-r", "a", "urls.txt"], &keyless).await;
    done.refused(1, &["LARDER_TOKEN"]);
    assert_eq!(origin.requests().len(), 0);
}

/// The files of a lock file may have been found at another registry, and images be known by any of larder's names.
#[tokio::test(flavor = "multi_thread")]
async fn what_clients_would_ask_for_is_planned() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    let block = |name: &str, url: &str| {
        format!("\"{name}@1\":\n  version \"1.0.0\"\n  resolved \"{url}\"\n")
    };
    let lock = [
        "# yarn lockfile v1\n".to_owned(),
        block(
            "@s/right",
            "https://registry.example.com/npm/@s%2fright/-/right-1.0.0.tgz#0a",
        ),
        block(
            "hash",
            "https://registry.example.com/hash/-/hash-1.0.0.tgz?cache=0",
        ),
        block("odd", "https://cdn.example.com/odd.tgz"),
        block("own", &format!("{}?cache=0", origin.url("/own.tgz"))),
    ];
    write(&home, "yarn.lock", &lock.concat());
    let plan = async |repository: &str, file: &str| {
        run(
            home.path(),
            &["warm", "-r", repository, file, "--dry-run"],
            &env,
        )
        .await
    };
    let done = plan("npm", "yarn.lock").await;
    let left_out = "left out yarn.lock:8: odd 1.0.0";
    assert!(done.err.contains(left_out), "{done:?}");
    let planned = "npm/@s/right/-/right-1.0.0.tgz\nnpm/hash/-/hash-1.0.0.tgz\nnpm/own.tgz\n";
    assert_eq!(done.ok(), planned);
    let images = "larder.example.com:8123/hub/one\nlarder.example.com:8123/team/two:1.0\n";
    write(&home, "images.txt", images);
    let said = plan("hub", "images.txt").await.ok();
    assert_eq!(
        said,
        "hub/one/manifests/latest\nhub/team/two/manifests/1.0\n"
    );
    write(&home, "urls.txt", "x%3Fy\nz%25\n");
    let said = plan("a", "urls.txt").await.ok();
    assert_eq!(said, "a/x%3Fy\na/z%\n");
}

/// Its name in the repository is the index's to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_where_the_index_says() {
    let origin = Origin::start().await;
    let index = "apiVersion: v1\nentries:\n  odd:\n  - name: odd\n    version: 1.0.0\n    urls: [dl/odd_v1.tgz]\n  \
                 - name: odd\n    version: 2.0.0\n    urls: [odd-1.0.0.tgz]\n";
    origin.put("/index.yaml", Resource::new(index));
    origin.put("/dl/odd_v1.tgz", Resource::new("one"));
    origin.put("/odd-1.0.0.tgz", Resource::new("two"));
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    let of = |version: &str| {
        let at = origin.url("/");
        format!("dependencies:\n- name: odd\n  repository: {at}\n  version: {version}\n")
    };
    write(&home, "Chart.lock", &of("1.0.0"));
    let done = run(home.path(), &["warm", "-r", "charts", "Chart.lock"], &env).await;
    assert_eq!(done.ok(), "charts: 1 file held, 3 B\n");
    assert_eq!(origin.count("GET", "/dl/odd_v1.tgz"), 1);
    assert_eq!(origin.count("GET", "/odd-1.0.0.tgz"), 0);
    // By the address of the virtual repository that clients know, under any name; what it lacks may be another member's.
    let at = "https://larder.example.org/api/v1/virtual/all";
    let dependency =
        |version: &str| format!("- name: odd\n  repository: {at}\n  version: {version}\n");
    let lock = [
        "dependencies:\n".to_owned(),
        dependency("2.0.0"),
        dependency("3.0.0"),
    ];
    write(&home, "Chart.lock", &lock.concat());
    let done = run(home.path(), &["warm", "-r", "charts", "Chart.lock"], &env).await;
    assert!(
        done.err.contains("left out Chart.lock:5: odd 3.0.0"),
        "{done:?}"
    );
    assert_eq!(done.ok(), "charts: 1 file held, 3 B\n");
    assert_eq!(origin.count("GET", "/odd-1.0.0.tgz"), 1);
    write(&home, "Chart.lock", &of("3.0.0"));
    let done = run(home.path(), &["warm", "-r", "charts", "Chart.lock"], &env).await;
    assert!(
        done.code == Some(1) && done.err.contains("has no odd 3.0.0"),
        "{done:?}"
    );
}

/// As pip does, with what is beside them there.
#[tokio::test(flavor = "multi_thread")]
async fn requirements_of_the_web_are_read() {
    let origin = Origin::start().await;
    let one = |name: &str| format!("{name} @ {}\n", origin.url(&format!("/{name}-1.0.zip")));
    let base = format!("-r more.txt\n{}", one("one"));
    origin.put("/dir/base.txt", Resource::new(base));
    // Beside the address that is asked for, wherever that leads.
    origin.put("/more.txt", Resource::new(one("two")));
    let moved = larder_testkit::Behaviour::Redirect {
        status: 302,
        location: origin.url("/dir/base.txt"),
    };
    origin.behave("/moved.txt", moved);
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    let [moved, absent] = ["/moved.txt", "/absent.txt"].map(|path| origin.url(path));
    let text = format!("-r {moved}?canary\n-r {absent}\n");
    write(&home, "requirements.txt", &text);
    let warm = ["warm", "-r", "py", "requirements.txt", "--dry-run"];
    let done = run(home.path(), &warm, &env).await;
    let missing = format!("not found requirements.txt:2: {absent}: it is answered with 404");
    assert!(done.err.contains(&missing), "{done:?}");
    assert!(!done.err.contains("canary"), "{done:?}");
    let planned = "py/one-1.0.zip\npy/two-1.0.zip\n";
    assert_eq!((done.code, &*done.out), (Some(1), planned), "{done:?}");
    let asked = origin.requests();
    let shows_token = |one: &larder_testkit::RecordedRequest| one.header("authorization").is_some();
    assert!(!asked.iter().any(shows_token), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_depends_on_nothing_lacks_nothing() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    write(&home, "Chart.lock", "dependencies: []\n");
    write(
        &home,
        "package-lock.json",
        "{\"lockfileVersion\": 3, \"packages\": {\"\": {}}}",
    );
    for (repository, file) in [("charts", "Chart.lock"), ("npm", "package-lock.json")] {
        let warm = ["warm", "-r", repository, file];
        let said = run(home.path(), &warm, &env).await.ok();
        assert_eq!(said, format!("{repository}: 0 files held, 0 B\n"));
        run(home.path(), &[&warm[..], &["--dry-run"]].concat(), &env)
            .await
            .ok();
    }
    let jobs = get(&running.url("api/v1/jobs")).await.json();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(0), "{jobs}");
    let git = "{\"packages\": {\"node_modules/g\": {\"version\": \"1.0.0\", \"resolved\": \"git+ssh://git.example.com/g\"}}}";
    write(&home, "package-lock.json", git);
    let done = run(
        home.path(),
        &["warm", "-r", "npm", "package-lock.json"],
        &env,
    )
    .await;
    done.refused(1, &["left out", "g 1.0.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_cancels_the_job() {
    let origin = Origin::start().await;
    origin.put("/one.bin", Resource::new("one"));
    origin.hold("/one.bin");
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    write(&home, "urls.txt", "one.bin\n");
    let mut command = larder(home.path(), &["warm", "-r", "a", "urls.txt"], &env);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the larder program");
    origin.wait_for("GET", "/one.bin", 1).await;
    let pid = i32::try_from(child.id()).expect("a pid");
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::INT).expect("a signal");
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    let done = Done::of(&output.expect("a task").expect("an end"));
    assert_eq!((done.code, &*done.out), (Some(1), ""), "{done:?}");
    assert!(done.err.contains("is cancelled"), "{done:?}");
    origin.release("/one.bin");
    let begun = Instant::now();
    loop {
        let jobs = get(&running.url("api/v1/jobs")).await.json();
        if jobs["jobs"][0]["state"] == "cancelled" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{jobs}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// `script` makes a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn a_bar_is_shown_at_a_terminal() {
    let origin = Origin::start().await;
    origin.put("/one.bin", Resource::new("one"));
    let running = start(&origin).await;
    let home = tempfile::tempdir().expect("a directory");
    write(&home, "urls.txt", "one.bin\n");
    let program = env!("CARGO_BIN_EXE_larder");
    let line = format!("{program} warm -r a urls.txt --server {}", running.url("/"));
    for (term, shows) in [("xterm", true), ("dumb", false)] {
        let mut command = std::process::Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env_clear()
            .envs([
                ("PATH", "/usr/bin:/bin"),
                ("TERM", term),
                ("LARDER_TOKEN", TOKEN),
            ])
            .current_dir(home.path())
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let Ok(output) = output.expect("a task") else {
            return eprintln!("SKIPPED: script is not installed");
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("a: 1 file held, 3 B"),
            "{said}"
        );
        assert_eq!(said.contains("] 100 %  1 of 1 files"), shows, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larder_that_is_killed_and_comes_back_is_waited_for() {
    let origin = Origin::start().await;
    for path in ["/one.bin", "/two.bin"] {
        origin.put(path, Resource::new(path));
    }
    origin.hold("/two.bin");
    let address = format!("127.0.0.1:{}", free_port());
    let mut running = setup(&origin).env("LARDER_LISTEN", &address).start().await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str()), ("LARDER_TOKEN", TOKEN)];
    let home = tempfile::tempdir().expect("a directory");
    write(&home, "urls.txt", "one.bin\ntwo.bin\n");
    let mut command = larder(home.path(), &["warm", "-r", "a", "urls.txt"], &env);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("the larder program");
    origin.wait_for("GET", "/two.bin", 1).await;
    // The command has heard of its job when it says so.
    let mut said = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).map(|_| (line, said))
    });
    let (line, _said) = line.await.expect("a task").expect("a line");
    assert!(line.starts_with("job "), "{line}");
    running.kill9();
    origin.release("/two.bin");
    running.restart().await;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    let done = Done::of(&output.expect("a task").expect("an end"));
    assert_eq!(
        (done.code, &*done.out),
        (Some(0), "a: 2 files held, 16 B\n")
    );
    assert_eq!(origin.count("GET", "/two.bin"), 2);
}
