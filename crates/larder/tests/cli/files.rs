//! `get` and `put`: bytes come whole and as stated, or not at all.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use larder_core::sha256;
use larder_testkit::{Behaviour, Origin, Payload, Resource};

use crate::support::packages::entry;
use crate::support::{PATIENCE, Setup, TestLarder, get};
use crate::{Done, larder, names, run};

/// A remote `a` of the origin, and local repositories `files` and `fixed`.
async fn start(origin: &Origin) -> TestLarder {
    let local = "  files: { type: local }\n  fixed: { type: local, allow_overwrite: false }\n";
    TestLarder::start(&format!(
        "remotes:\n{}{local}",
        entry("a", "generic", origin, "")
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_listed_got_and_removed() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let env = [("LARDER_URL", server.as_str())];
    let bytes = Payload::generated(3 << 20, 7).slice(0, 3 << 20);
    let digest = sha256(&bytes).to_hex();
    std::fs::write(home.path().join("tool 1+2%.bin"), &bytes).expect("a file");

    let said = run(home.path(), &["put", "tool 1+2%.bin", "files/dir/"], &env)
        .await
        .ok();
    assert!(
        said.starts_with("files/dir/tool 1+2%.bin: new") && said.contains(&digest),
        "{said}"
    );
    let said = run(
        home.path(),
        &["put", "tool 1+2%.bin", "files/dir/tool 1+2%.bin", "--json"],
        &env,
    )
    .await
    .ok();
    let said: serde_json::Value = serde_json::from_str(&said).expect("one object");
    assert_eq!(said["sha256"], digest);

    let listed = run(home.path(), &["ls", "files/"], &env).await.ok();
    assert!(
        listed.trim_end().ends_with("files/dir/tool 1+2%.bin"),
        "{listed}"
    );

    let elsewhere = tempfile::tempdir().expect("a directory");
    let path = "files/dir/tool 1+2%.bin";
    let said = run(elsewhere.path(), &["get", path], &env).await.ok();
    assert!(
        said.contains(&digest) && said.contains("as stated"),
        "{said}"
    );
    assert_eq!(names(elsewhere.path()), ["tool 1+2%.bin"]);
    let got = std::fs::read(elsewhere.path().join("tool 1+2%.bin")).expect("the file");
    assert!(got == bytes, "other bytes");

    let output = larder(elsewhere.path(), &["get", path, "-o", "-"], &env)
        .output()
        .expect("the larder program");
    assert!(output.stdout == bytes, "other bytes, or more than them");

    let url = running.artifact("files", "dir/tool%201+2%25.bin");
    let said = run(elsewhere.path(), &["get", &url, "-o", "named"], &env)
        .await
        .ok();
    assert!(said.contains(&digest), "{said}");

    let said = run(elsewhere.path(), &["rm", path], &env).await.ok();
    assert!(said.starts_with("removed files/dir/tool"), "{said}");
    assert_eq!(get(&url).await.status, 404);
    let gone = run(elsewhere.path(), &["get", path, "-o", "gone"], &env).await;
    gone.refused(1, &["files"]);
    assert_eq!(names(elsewhere.path()), ["named", "tool 1+2%.bin"]);
}

/// What `ls` prints is what the other commands take, whatever stands in it.
#[tokio::test(flavor = "multi_thread")]
async fn names_with_question_marks_are_paths_too() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str())];
    let home = tempfile::tempdir().expect("a directory");
    for (name, shown) in [
        ("x?y.txt", "files/odd/x%3Fy.txt"),
        ("x%3Fy.txt", "files/odd/x%253Fy.txt"),
        ("100%.txt", "files/odd/100%.txt"),
    ] {
        std::fs::write(home.path().join(name), name).expect("a file");
        let said = run(home.path(), &["put", name, "files/odd/"], &env)
            .await
            .ok();
        assert!(said.starts_with(&format!("{shown}: new")), "{said}");
        let listed = run(home.path(), &["ls", shown], &env).await.ok();
        assert!(listed.ends_with(&format!("  {shown}\n")), "{listed}");
        let got = run(home.path(), &["get", shown, "-o", "got", "--json"], &env)
            .await
            .ok();
        assert!(got.contains(&sha256(name.as_bytes()).to_hex()), "{got}");
        let said = run(home.path(), &["rm", shown], &env).await.ok();
        assert_eq!(said, format!("removed {shown}\n"));
    }
    let listed = run(home.path(), &["ls", "files"], &env).await.ok();
    assert_eq!(listed, "");
}

/// No other file is meant by a name that URLs cannot have in them.
#[tokio::test(flavor = "multi_thread")]
async fn names_with_control_characters_are_refused() {
    let origin = Origin::start().await;
    origin.put("/report.txt", Resource::new("good"));
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str())];
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("report.txt"), "good").expect("a file");
    std::fs::write(home.path().join("rep\nort.txt"), "bad").expect("a file");
    let put = ["put", "report.txt", "files/"];
    run(home.path(), &put, &env).await.ok();
    let url = format!("{}\t", running.artifact("files", "report.txt"));
    for arguments in [
        &["put", "rep\nort.txt", "files/"][..],
        &["put", "report.txt", "files/re\rport.txt"],
        &["rm", "files/report\t.txt"],
        &["rm", "files/none", "files/report.txt\n"],
        &["rm", &url],
        &["get", "a/rep\tort.txt", "-o", "got"],
        &["explain", "a/report\n.txt"],
        &["ls", "files/report\t"],
    ] {
        let done = run(home.path(), arguments, &env).await;
        done.refused(2, &["control character"]);
    }
    let kept = get(&running.artifact("files", "report.txt")).await;
    assert_eq!((kept.status, &*kept.body), (200, &b"good"[..]));
    assert_eq!(origin.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_removed_does_not_keep_the_rest() {
    let origin = Origin::start().await;
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str())];
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("x"), "x").expect("a file");
    for place in ["files/a", "files/b"] {
        run(home.path(), &["put", "x", place], &env).await.ok();
    }
    let rm = ["rm", "files/a", "files/none", "nowhere/x", "files/b"];
    let done = run(home.path(), &rm, &env).await;
    let removed = "removed files/a\nremoved files/b\n";
    assert_eq!((done.code, &*done.out), (Some(1), removed), "{done:?}");
    for words in ["files/none: ", "nowhere/x: ", "2 of 4 are not removed"] {
        assert!(done.err.contains(words), "{words}: {done:?}");
    }
    assert_eq!(run(home.path(), &["ls", "files"], &env).await.ok(), "");
}

/// A pipe is not replaced by a file, and a link leads to the same one as before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plain_file_stays_what_it_is() {
    let origin = Origin::start().await;
    origin.put("/x.bin", Resource::new("bytes"));
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str())];
    let home = tempfile::tempdir().expect("a directory");
    let [real, link, pipe] = ["real", "link", "pipe"].map(|name| home.path().join(name));
    std::fs::write(&real, "as it was").expect("a file");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let get = async |output: &str| run(home.path(), &["get", "a/x.bin", "-o", output], &env).await;
    get("link").await.ok();
    assert!(link.is_symlink(), "the link was replaced");
    assert_eq!(std::fs::read(&real).expect("the file"), b"bytes");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let reading = pipe.clone();
    let reader = std::thread::spawn(move || std::fs::read(reading).expect("what comes"));
    get("pipe").await.ok();
    assert_eq!(reader.join().expect("a thread"), b"bytes");
    assert!(!pipe.is_file(), "the pipe was replaced");
    assert_eq!(names(home.path()), ["link", "pipe", "real"]);
}

/// Nobody can read what they could not read before, and a link stays though it leads to nothing yet.
#[tokio::test(flavor = "multi_thread")]
async fn rights_links_and_the_longest_names_are_kept() {
    use std::os::unix::fs::PermissionsExt as _;

    let origin = Origin::start().await;
    let longest = "x".repeat(255);
    origin.put(&format!("/{longest}"), Resource::new("bytes"));
    let running = start(&origin).await;
    let server = running.url("/");
    let env = [("LARDER_URL", server.as_str())];
    let home = tempfile::tempdir().expect("a directory");
    let path = |name: &str| home.path().join(name);
    std::fs::write(path("own"), "as it was").expect("a file");
    std::fs::set_permissions(path("own"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
    std::os::unix::fs::symlink("to", path("link")).expect("a link");
    std::os::unix::fs::symlink("target", path("to")).expect("a link");
    std::os::unix::fs::symlink("round", path("round")).expect("a link");
    let place = format!("a/{longest}");
    let get = async |more: &[&str]| {
        let arguments = [&["get", &*place][..], more].concat();
        run(home.path(), &arguments, &env).await
    };
    get(&[]).await.ok();
    get(&["-o", "own"]).await.ok();
    let mode = std::fs::metadata(path("own")).expect("it").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    get(&["-o", "link"]).await.ok();
    assert!(path("link").is_symlink() && path("to").is_symlink());
    get(&["-o", "round"]).await.refused(1, &["cannot write"]);
    assert!(path("round").is_symlink());
    for name in [&*longest, "own", "target"] {
        assert_eq!(std::fs::read(path(name)).expect("it"), b"bytes", "{name}");
    }
    let all = ["link", "own", "round", "target", "to", &*longest];
    assert_eq!(names(home.path()), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_leaves_nothing_behind() {
    let origin = Origin::start().await;
    origin.put("/cut.bin", Resource::new(Payload::generated(4 << 20, 1)));
    // What is cut is asked for again, from where it was: every time.
    origin.behave("/cut.bin", Behaviour::Truncate { after: 2 << 20 });
    origin.behave("/cut.bin", Behaviour::IgnoreRanges);
    let larder = start(&origin).await;
    let server = larder.url("/");
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("cut.bin"), "as it was").expect("a file");
    let done = run(home.path(), &["get", "a/cut.bin", "--server", &server], &[]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(!done.err.is_empty(), "{done:?}");
    assert_eq!(names(home.path()), ["cut.bin"]);
    let kept = std::fs::read_to_string(home.path().join("cut.bin")).expect("the file");
    assert_eq!(kept, "as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_those_that_are_stated_are_refused() {
    // A larder that states another digest than its bytes have.
    let origin = Origin::start().await;
    let wrong = sha256(b"other").to_base64();
    let field = format!("sha-256=:{wrong}:");
    origin.put(
        "/",
        Resource::new(
            r#"{"name": "larder", "remotes": {"a": {"type": "remote", "package": "generic"}}}"#,
        )
        .content_type("application/json"),
    );
    origin.put(
        "/api/v1/remote/a/x.bin",
        Resource::new("bytes").header("Repr-Digest", &field),
    );
    let server = origin.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let done = run(home.path(), &["get", "a/x.bin", "--server", &server], &[]).await;
    done.refused(1, &["sha256", "nothing was written"]);
    assert_eq!(names(home.path()), [""; 0]);

    let real = start(&origin).await;
    let server = real.url("/");
    origin.put("/y.bin", Resource::new("bytes"));
    let wrong = sha256(b"other").to_hex();
    let arguments = ["get", "a/y.bin", "--server", &server, "--sha256", &wrong];
    run(home.path(), &arguments, &[])
        .await
        .refused(1, &[&wrong]);
    let right = sha256(b"bytes").to_hex();
    let arguments = ["get", "a/y.bin", "--server", &server, "--sha256", &right];
    run(home.path(), &arguments, &[]).await.ok();
    assert_eq!(names(home.path()), ["y.bin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_get_takes_its_part_away() {
    let origin = Origin::start().await;
    origin.put("/slow.bin", Resource::new(Payload::generated(8 << 20, 1)));
    origin.hold_body("/slow.bin", 4 << 20);
    let larder_process = start(&origin).await;
    let server = larder_process.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let mut child = larder(
        home.path(),
        &["get", "a/slow.bin", "--server", &server],
        &[],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("the larder program");
    let until = Instant::now() + PATIENCE;
    while names(home.path()).is_empty() {
        assert!(Instant::now() < until, "nothing is written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!home.path().join("slow.bin").exists());
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let status = tokio::task::spawn_blocking(move || child.wait()).await;
    assert_eq!(status.expect("a task").expect("its end").code(), Some(1));
    assert_eq!(names(home.path()), [""; 0]);
    origin.release("/slow.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_sent_as_it_comes() {
    let origin = Origin::start().await;
    let larder_process = start(&origin).await;
    let server = larder_process.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let mut child = larder(
        home.path(),
        &["put", "-", "files/in.bin"],
        &[("LARDER_URL", &server)],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("the larder program");
    let bytes = Payload::generated(1 << 20, 3).slice(0, 1 << 20);
    let mut stdin = child.stdin.take().expect("a pipe");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).expect("written"));
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    writer.join().expect("a thread");
    let said = Done::of(&output.expect("a task").expect("its end")).ok();
    assert!(said.contains(&sha256(&bytes).to_hex()), "{said}");
    let answer = get(&larder_process.artifact("files", "in.bin")).await;
    assert!(answer.body == bytes, "other bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_refused_say_what_to_do() {
    let origin = Origin::start().await;
    let local = "  fixed: { type: local, allow_overwrite: false }\n";
    let config = format!(
        "auth: {{admin_token: 'a-token-of-the-admin'}}\nremotes:\n{}{local}",
        entry("a", "generic", &origin, "")
    );
    let larder_process = Setup::new(&config).start().await;
    let server = larder_process.url("/");
    let home = tempfile::tempdir().expect("a directory");
    let large = Payload::generated(24 << 20, 3).slice(0, 24 << 20);
    std::fs::write(home.path().join("x"), &large).expect("a file");
    std::fs::write(home.path().join("token"), "a-token-of-the-admin\n").expect("a file");
    let url = ("LARDER_URL", server.as_str());
    let token = ("LARDER_TOKEN", "a-token-of-the-admin");

    let done = run(home.path(), &["put", "x", "fixed/x"], &[url]).await;
    done.refused(1, &["LARDER_TOKEN", "--token-file"]);
    let wrong = ("LARDER_TOKEN", "canary-canary-canary");
    let done = run(home.path(), &["put", "x", "fixed/x"], &[url, wrong]).await;
    done.refused(1, &["was refused"]);
    assert!(!done.err.contains("canary"), "{done:?}");

    let by_file = ["put", "x", "fixed/x", "--token-file", "token"];
    run(home.path(), &by_file, &[url]).await.ok();
    std::fs::write(home.path().join("x"), "other bytes").expect("a file");
    let done = run(home.path(), &["put", "x", "fixed/x"], &[url, token]).await;
    done.refused(1, &["fixed", "allow_overwrite"]);
    let done = run(
        home.path(),
        &["put", "x", "fixed/x", "--new"],
        &[url, token],
    )
    .await;
    done.refused(1, &["condition"]);
    let done = run(home.path(), &["put", "x", "a/x"], &[url, token]).await;
    done.refused(1, &["a"]);
    let done = run(home.path(), &["put", "x", "fixd/x"], &[url, token]).await;
    done.refused(1, &["fixd", "a, fixed"]);
    let done = run(home.path(), &["put", "absent", "fixed/y"], &[url, token]).await;
    done.refused(2, &["cannot read absent"]);
    let done = run(home.path(), &["put", ".", "fixed/y"], &[url, token]).await;
    done.refused(2, &["is no file"]);
    let done = run(home.path(), &["put", "x", "fixed/y?z=1"], &[url, token]).await;
    done.refused(2, &["query", "%3F"]);
}
