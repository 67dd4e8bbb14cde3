//! Reloads: on SIGHUP, and when a file of the configuration changes. A bad new file leaves the old configuration in force.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use super::diagnostic::{Diagnostic, Severity};
use super::file::list_yaml;
use super::settings::{Settings, Sources};

/// How often files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// Runs until it is dropped. `apply` is given each new configuration, or what is wrong with it; the warnings of those that load
/// are logged.
///
/// Keys that take effect only at start ([`waiting_for_restart`]) are compared with `first`, and a change of them is logged as waiting for a
/// restart.
///
/// # Errors
/// The signal handler cannot be installed.
pub async fn watch(
    sources: Sources,
    first: Settings,
    mut apply: impl FnMut(Result<Settings, Vec<Diagnostic>>) + Send,
) -> std::io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut watched = first.watched.clone();
    let mut seen = fingerprint(&watched);
    loop {
        let asked = tokio::select! {
            _ = hang_up.recv() => true,
            () = tokio::time::sleep(POLL) => false,
        };
        let now = fingerprint(&watched);
        if !asked && now == seen {
            continue;
        }
        if !asked && fingerprint_after(&watched, Duration::from_millis(200)).await != now {
            // Still being written: look again next time.
            continue;
        }
        seen = now;
        let loaded = super::load(&sources);
        // A file that was written between comparing and reading differs from `seen` in the next round, and is read again.
        if let Ok(settings) = &loaded {
            log_warnings(settings, &first);
            if settings.watched != watched {
                watched.clone_from(&settings.watched);
                seen = fingerprint(&watched);
            }
        }
        apply(loaded);
    }
}

async fn fingerprint_after(watched: &[PathBuf], pause: Duration) -> Vec<Seen> {
    tokio::time::sleep(pause).await;
    fingerprint(watched)
}

fn log_warnings(settings: &Settings, first: &Settings) {
    for found in &settings.warnings {
        if found.severity == Severity::Note {
            tracing::info!("{found}");
        } else {
            tracing::warn!("{found}");
        }
    }
    for key in waiting_for_restart(first, settings) {
        tracing::warn!(
            key,
            "a changed `{key}` takes effect when larder is started again"
        );
    }
}

/// The top-level keys that take effect only at a start, and have other values in `new` than in `old`, with which larder was started.
pub fn waiting_for_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let keys = [
        ("listen", old.listen != new.listen),
        ("data_dir", old.data_dir != new.data_dir),
        ("database", old.database != new.database),
        ("tls", old.tls != new.tls),
        ("s3", old.s3 != new.s3),
        ("hot_set", old.hot_set != new.hot_set),
        ("limits", old.limits != new.limits),
        ("redis", old.cluster.redis != new.cluster.redis),
        ("advertise", old.cluster.advertise != new.cluster.advertise),
        ("cluster", old.cluster.secret != new.cluster.secret),
        ("tracing", old.tracing != new.tracing),
    ];
    keys.into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| key)
        .collect()
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    state: Option<(SystemTime, u64, u64)>,
}

/// The state of each watched file, and of each YAML file in a watched directory.
fn fingerprint(watched: &[PathBuf]) -> Vec<Seen> {
    let mut all = Vec::new();
    for path in watched {
        all.push(seen(path));
        if path.is_dir() {
            all.extend(
                list_yaml(path)
                    .unwrap_or_default()
                    .iter()
                    .map(|file| seen(file)),
            );
        }
    }
    all
}

fn seen(path: &Path) -> Seen {
    use std::os::unix::fs::MetadataExt as _;
    let state = std::fs::metadata(path)
        .ok()
        .filter(|meta| !meta.is_dir())
        .and_then(|meta| Some((meta.modified().ok()?, meta.len(), meta.ino())));
    Seen {
        path: path.to_owned(),
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a configuration with this line that would wait, after one without it.
    fn waiting(line: &str) -> Vec<&'static str> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larder.yaml");
        let loaded = |line: &str| {
            std::fs::write(&path, format!("{line}\nremotes: {{}}\n")).unwrap();
            let sources = Sources {
                config: Some(path.clone()),
                ..Sources::default()
            };
            super::super::load(&sources).unwrap()
        };
        let first = loaded("data_dir: /data");
        waiting_for_restart(&first, &loaded(line))
    }

    #[test]
    fn what_is_read_at_start_only_waits_for_the_next() {
        let s3 = "{endpoint: 's3.example.com', bucket: larder, access_key: a, secret_key: b}";
        for (key, value) in [
            ("listen", "127.0.0.1:8001"),
            (
                "database",
                "{host: db.example.com, user: u, name: n, password: p}",
            ),
            ("s3", s3),
            ("hot_set", "1MiB"),
            ("limits", "{connections: 77}"),
            ("redis", "{url: 'redis://redis.example.com'}"),
            ("cluster", "{secret: '0123456789abcdef'}"),
            ("tracing", "{otlp: 'http://traces.example.com:4318'}"),
        ] {
            let waits = waiting(&format!("data_dir: /data\n{key}: {value}"));
            assert_eq!(waits, [key], "{value}");
        }
        assert_eq!(waiting("data_dir: /other"), ["data_dir"]);
        for line in [
            "drain: 7",
            "trusted_proxies: [10.0.0.0/8]",
            "public_url: 'https://larder.example.com'",
            "auth: {admin_token: 'a-token-of-the-admin'}",
            "limits: {upstream: {rate: 5}}",
        ] {
            let waits = waiting(&format!("data_dir: /data\n{line}"));
            assert_eq!(waits, [""; 0], "{line} is in force at once");
        }
    }
}
