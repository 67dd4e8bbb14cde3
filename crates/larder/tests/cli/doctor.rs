//! `larder doctor`: what is planted is found, each fault once, and nothing else.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_testkit::{Behaviour, Origin, Resource};
use serde_json::Value;

use crate::run;
use crate::support::packages::entry;
use crate::support::{Setup, TestLarder};

/// An address at which nobody listens.
fn nobody() -> String {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    held.local_addr().expect("its address").to_string()
}

/// A directory that everybody may look into, as `/etc` is, with this configuration.
fn home(config: &str, mode: u32) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a directory");
    set_permissions(home.path(), Permissions::from_mode(0o755)).expect("a mode");
    let path = home.path().join("larder.yaml");
    std::fs::write(&path, config).expect("a configuration");
    set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
    home
}

/// What doctor finds, as (kind, where, what and what to do), but for the disk and the limit of open files that the tests run with; and its
/// exit code.
async fn diagnosed(home: &Path, more: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let config = home.join("larder.yaml");
    let config = config.to_string_lossy();
    let mut arguments = vec![
        "doctor",
        "--json",
        "--config",
        &config,
        "--listen",
        "127.0.0.1:0",
    ];
    arguments.extend(more);
    let done = run(home, &arguments, &[("HOME", &home.to_string_lossy())]).await;
    let said: Value = serde_json::from_str(&done.out)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {done:?}"));
    let findings = said["findings"].as_array().expect("findings");
    let text = |one: &Value, name: &str| one[name].as_str().expect("a text").to_owned();
    let findings = findings.iter().map(|one| {
        assert!(text(one, "do").len() > 10, "it says what to do: {one}");
        let told = format!("{} / {}", text(one, "what"), text(one, "do"));
        (text(one, "kind"), text(one, "where"), told)
    });
    let of_tests_disk = |place: &str| place.contains("data_dir") && !place.contains("small");
    let findings = findings.filter(|(kind, place, _)| kind != "disk" || !of_tests_disk(place));
    let findings = findings.filter(|(kind, _, _)| kind != "descriptors");
    (done.code, findings.collect())
}

/// An upstream that answers, with the time of this machine.
async fn sound() -> Origin {
    let origin = Origin::start().await;
    origin.put("/", Resource::new("hello"));
    let now = larder_core::Clock::now(&larder_core::SystemClock).to_http_date();
    origin.behave("/", Behaviour::Header("Date".to_owned(), now));
    origin
}

/// One that lets in who shows nothing of what is configured here.
async fn strict() -> Origin {
    let origin = Origin::start().await;
    let challenge = Behaviour::Challenge {
        challenge: "Basic realm=\"x\"".to_owned(),
        unless: "Basic nobody".to_owned(),
    };
    origin.behave("/", challenge);
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn six_planted_faults_are_six_findings() {
    let (good, wrong, slow) = (sound().await, strict().await, sound().await);
    let an_hour_ago = larder_core::Clock::now(&larder_core::SystemClock).0 - 3_600_000;
    let date = larder_core::UnixMillis(an_hour_ago).to_http_date();
    slow.clear("/");
    slow.behave("/", Behaviour::Header("Date".to_owned(), date));
    let (gone, redis) = (nobody(), nobody());
    let config = format!(
        "redis: {{url: 'redis://{redis}'}}\ndata_dir: file/data\nremotes:\n{}{}{}  gone:\n    base_url: http://{gone}/\n",
        entry("good", "generic", &good, ""),
        entry("wrong", "generic", &wrong, "username: u\npassword: canary"),
        entry("slow", "generic", &slow, ""),
    );
    let home = home(&config, 0o644);
    std::fs::write(home.path().join("file"), "no directory").expect("a file");
    let data = home.path().join("file/data");
    let (code, found) = diagnosed(home.path(), &["--data-dir", &data.to_string_lossy()]).await;
    let expected = [
        ("data_directory", "file/data", "another"),
        ("permissions", "larder.yaml", "remotes.wrong.password"),
        ("backend", "REDIS_URL", &redis),
        ("credentials_refused", "remotes.wrong.base_url", "401"),
        ("upstream_unreachable", "remotes.gone.base_url", &gone),
        ("clock", "remotes.slow.base_url", "36"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (kind, place, word) in expected {
        let one = found
            .iter()
            .filter(|(of, at, _)| of == kind && at.contains(place));
        let one: Vec<_> = one.collect();
        assert!(
            one.len() == 1 && one[0].2.contains(word),
            "{kind}: {found:#?}"
        );
        // A key of the file is said with its line.
        let is_key = place.starts_with("remotes.");
        assert!(!is_key || one[0].1.contains("larder.yaml:"), "{one:?}");
    }
    // Not only that there is no answer, but why.
    let backend = found.iter().find(|(kind, _, _)| kind == "backend");
    assert!(
        backend.is_some_and(|(_, _, what)| what.contains("refused")),
        "{found:#?}"
    );
    assert_eq!(code, Some(1));
    assert!(!format!("{found:?}").contains("canary"));
    assert_eq!(
        std::fs::read(home.path().join("file")).expect("the file"),
        b"no directory"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_larder_has_no_findings() {
    let good = sound().await;
    let config = format!(
        "remotes:\n{}",
        entry("good", "generic", &good, "headers: {X-Key: canary}")
    );
    // Secrets are written down in it, and it is its owner's alone.
    let home = home(&config, 0o600);
    let (_, found) = diagnosed(home.path(), &[]).await;
    assert_eq!(found, []);
    assert_eq!(
        crate::names(home.path()),
        ["larder.yaml"],
        "nothing is left behind"
    );
}

/// A clock that is off by less than a minute stays so beside an upstream that takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_compared_when_their_answers_come() {
    let (slow, skewed) = (sound().await, sound().await);
    slow.behave("/", Behaviour::StallHead(Duration::from_secs(10)));
    let earlier = larder_core::Clock::now(&larder_core::SystemClock).0 - 52_000;
    let date = larder_core::UnixMillis(earlier).to_http_date();
    skewed.clear("/");
    skewed.behave("/", Behaviour::Header("Date".to_owned(), date));
    let config = format!(
        "remotes:\n{}{}",
        entry("a-slow", "generic", &slow, ""),
        entry("b-skewed", "generic", &skewed, "")
    );
    let (_, found) = diagnosed(home(&config, 0o600).path(), &[]).await;
    assert_eq!(found, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_without_an_end_are_no_matter_of_addresses() {
    let round = Origin::start().await;
    let redirect = Behaviour::Redirect {
        status: 302,
        location: round.url("/"),
    };
    round.behave("/", redirect);
    let config = format!("remotes:\n{}", entry("round", "generic", &round, ""));
    let (code, found) = diagnosed(home(&config, 0o600).path(), &[]).await;
    assert!(code == Some(1) && found.len() == 1, "{found:?}");
    let (kind, _, told) = &found[0];
    assert_eq!(kind, "upstream_unreachable");
    assert!(
        told.contains("redirects") && !told.contains("allow_private"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_a_finding_with_its_line() {
    let home = home(
        "remotes:\n  a:\n    base_ulr: http://a.example.com\n",
        0o600,
    );
    let (code, found) = diagnosed(home.path(), &[]).await;
    assert!(
        found
            .iter()
            .any(|(kind, place, _)| kind == "configuration" && place.ends_with("larder.yaml:3")),
        "{found:?}"
    );
    assert_eq!(code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_of_the_log_that_keeps_larder_from_starting_is_a_finding() {
    let home = home("remotes: {}\n", 0o600);
    let (code, found) = diagnosed(home.path(), &["--log", "larder=loud"]).await;
    assert!(code == Some(1) && found.len() == 1, "{found:?}");
    let (kind, _, told) = &found[0];
    assert!(
        kind == "configuration" && told.contains("\"loud\""),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_larder_is_asked_too() {
    let good = sound().await;
    let config = format!("remotes:\n{}", entry("good", "generic", &good, ""));
    let running: TestLarder = Setup::new(&config).start().await;
    let server = running.url("/");
    let home = home(&config, 0o600);
    let (_, found) = diagnosed(home.path(), &["--server", &server]).await;
    assert_eq!(found, []);
    let absent = format!("http://{}/", nobody());
    let (code, found) = diagnosed(home.path(), &["--server", &absent]).await;
    assert!(
        code == Some(1) && found.len() == 1 && found[0].0 == "server",
        "{found:?}"
    );
    // Its file on the disk is not the one in force.
    std::fs::write(running.config_path(), "remotes: [").expect("written");
    running.signal(rustix::process::Signal::HUP);
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let (_, found) = diagnosed(home.path(), &["--server", &server]).await;
        if found
            .iter()
            .any(|(kind, place, _)| kind == "configuration" && place.ends_with("reload"))
        {
            assert_eq!(found.len(), 1, "{found:?}");
            break;
        }
        assert!(std::time::Instant::now() < until, "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_is_a_finding() {
    let home = home("remotes: {}\n", 0o600);
    let small = home.path().join("small");
    std::fs::create_dir(&small).expect("a directory");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
        .arg(&small)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return eprintln!("SKIPPED: no tmpfs can be mounted here; needs root");
    }
    std::fs::write(small.join("other"), vec![1; 15 << 20]).expect("a file");
    let data = small.join("data");
    let (code, found) = diagnosed(home.path(), &["--data-dir", &data.to_string_lossy()]).await;
    // In the directory that it is started in, whose configuration is another.
    let config = home.path().join("larder.yaml");
    std::fs::copy(config, small.join("larder.yaml")).expect("a copy");
    let (_, beside) = diagnosed(&small, &["--data-dir", "small-data"]).await;
    let _ = Command::new("umount").arg("-l").arg(&small).status();
    for found in [&found, &beside] {
        assert!(found.iter().any(|(kind, _, _)| kind == "disk"), "{found:?}");
    }
    assert_eq!(code, Some(1));
}

/// Whoever asks through it is told so before there is a connection to the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_wants_a_login_is_a_matter_of_credentials() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let proxy = proxy.expect("a port");
    let address = proxy.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = proxy.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    for scheme in ["https", "http"] {
        let config = format!(
            "proxy: 'http://u:canary@{address}'\nremotes: {{a: {{base_url: '{scheme}://files.example.com/'}}}}\n"
        );
        let (code, found) = diagnosed(home(&config, 0o600).path(), &[]).await;
        assert!(code == Some(1) && found.len() == 1, "{found:?}");
        let (kind, place, told) = &found[0];
        assert_eq!(kind, "credentials_refused", "{told}");
        assert!(place.contains("remotes.a.base_url"), "{place}");
        assert!(
            told.contains("proxy's URL") && !told.contains("canary"),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_s_file_that_everybody_can_read_is_a_finding() {
    let home = home("remotes: {}\n", 0o600);
    let token = home.path().join("token");
    std::fs::write(&token, "a-token-of-the-admin").expect("a file");
    let token = token.to_string_lossy();
    for (mode, findings) in [(0o644, 1), (0o600, 0)] {
        set_permissions(&*token, Permissions::from_mode(mode)).expect("a mode");
        let (_, found) = diagnosed(home.path(), &["--token-file", &token]).await;
        assert_eq!(found.len(), findings, "{found:?}");
        let is_its = |(kind, place, _): &(String, String, String)| {
            kind == "permissions" && place.contains("--token-file")
        };
        assert!(found.iter().all(is_its), "{found:?}");
    }
    set_permissions(&*token, Permissions::from_mode(0o644)).expect("a mode");
    let arguments = [
        "doctor",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--config",
        "larder.yaml",
    ];
    let home_of_it = home.path().to_string_lossy();
    let env = [("HOME", &*home_of_it), ("LARDER_TOKEN_FILE", &*token)];
    let done = run(home.path(), &arguments, &env).await;
    assert!(done.out.contains("LARDER_TOKEN_FILE"), "{done:?}");
}

/// What every upstream of its type has is not there, while the server itself is well.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_at_which_nothing_of_its_type_is_is_a_finding() {
    let (origin, shy) = (sound().await, sound().await);
    origin.put(
        "/right/index.yaml",
        Resource::new("apiVersion: v1\nentries: {}\n"),
    );
    origin.behave("/refused/index.yaml", Behaviour::Status(403));
    origin.behave("/v2/", Behaviour::Status(404));
    // Some know no HEAD.
    shy.put(
        "/index.yaml",
        Resource::new("apiVersion: v1\nentries: {}\n"),
    );
    shy.behave_once("/index.yaml", Behaviour::Status(404));
    let at = |path: &str, name: &str, package: &str| {
        let entry = entry(name, package, &origin, "");
        entry.replace(&origin.url("/"), &origin.url(path))
    };
    let config = format!(
        "remotes:\n{}",
        [
            at("/right/", "right", "helm"),
            at("/wrong/", "wrong", "helm"),
            at("/refused/", "refused", "helm"),
            at("/", "registry", "docker"),
            at("/wrong/", "files", "generic"),
            at("/wrong/", "py", "pypi"),
            entry("shy", "helm", &shy, ""),
        ]
        .concat()
    );
    let (code, found) = diagnosed(home(&config, 0o600).path(), &[]).await;
    assert_eq!((code, found.len()), (Some(1), 3), "{found:#?}");
    for (name, word) in [
        ("wrong", "index.yaml answers 404"),
        ("refused", "index.yaml answers 403"),
        ("registry", "/v2/ answers 404"),
    ] {
        let place = format!("remotes.{name}.base_url (");
        let is_its = |(kind, at, told): &&(String, String, String)| {
            kind == "wrong_upstream" && at.starts_with(&place) && told.contains(word)
        };
        assert_eq!(found.iter().filter(is_its).count(), 1, "{name}: {found:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_open_files_that_is_too_low_is_a_finding() {
    let home = home("limits: {connections: 1000}\nremotes: {}\n", 0o600);
    let program = env!("CARGO_BIN_EXE_larder");
    let line = format!(
        "ulimit -n 600; exec {program} doctor --json --config larder.yaml --listen 127.0.0.1:0 --data-dir data"
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &line])
        .env_clear()
        .current_dir(home.path());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("a task").expect("a shell");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = said["findings"].as_array().expect("findings");
    let of_limit = findings.iter().filter(|one| one["kind"] == "descriptors");
    let told: Vec<&str> = of_limit.filter_map(|one| one["what"].as_str()).collect();
    assert!(
        told.len() == 1 && told[0].contains("600 files") && told[0].contains("the 1000 and"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
}
