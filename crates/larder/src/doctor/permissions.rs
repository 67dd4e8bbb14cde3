//! Files with secrets that every user of the machine can read.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use larder::config::{Settings, Sources, written_secrets};
use larder::remote_commands::Asked;

use super::Finding;
use crate::prepare::DATABASE;

const KIND: &str = "permissions";
const OTHERS_READ: u32 = 0o004;
const OTHERS_ENTER: u32 = 0o001;

/// Variables that name files with secrets.
const NAMED: &[&str] = &[
    "LARDER_ADMIN_TOKEN_FILE",
    "LARDER_CLUSTER_SECRET_FILE",
    "LARDER_TOKEN_FILE",
    "DBPASS_FILE",
    "REDIS_URL_FILE",
    "MINIO_ACCESS_KEY_FILE",
    "MINIO_SECRET_KEY_FILE",
];

pub(super) fn findings(settings: &Settings, sources: &Sources, asked: &Asked) -> Vec<Finding> {
    let mut found = in_configuration(sources);
    let mut secret = |what: &str, path: PathBuf| {
        if others_can_read(&path) {
            found.push(Finding::new(
                KIND,
                format!("{what} {}", path.display()),
                "every user of this machine can read this file, which holds a secret",
                format!(
                    "take the right away (chmod 0600 {}), and replace the secret if somebody may have copied it",
                    path.display()
                ),
            ));
        }
    };
    if let Some(tls) = &settings.tls {
        secret("tls.key", tls.key.clone());
    }
    if let Some(path) = &sources.admin_token_file {
        secret("--admin-token-file", path.clone());
    }
    if let Some(path) = asked.token_file() {
        secret("--token-file", path.to_owned());
    }
    for name in NAMED {
        if let Some(path) = sources.environment.get(name) {
            secret(name, path.into());
        }
    }
    for suffix in ["", "-wal"] {
        let path = settings.data_dir.join(format!("{DATABASE}{suffix}"));
        secret(
            "the database, with the key that links are signed with,",
            path,
        );
    }
    found
}

/// Configuration files in which secrets are written down: one finding for each file.
fn in_configuration(sources: &Sources) -> Vec<Finding> {
    let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, place) in written_secrets(sources) {
        let keys = by_file.entry(place.file.to_string()).or_default();
        keys.push(format!("{key} (line {})", place.line));
    }
    let open = by_file
        .into_iter()
        .filter(|(file, _)| others_can_read(Path::new(file)));
    let told = open.map(|(file, keys)| {
        Finding::new(
            KIND,
            file.clone(),
            format!(
                "every user of this machine can read this file, in which secrets are written down: {}",
                keys.join(", ")
            ),
            format!(
                "take the right away (chmod 0640 {file}, with the group of the user who runs larder), or write ${{NAME}} and put the secrets into the environment"
            ),
        )
    });
    told.collect()
}

/// Whether a user without any right of their own can read it: the file itself, through every directory above it.
fn others_can_read(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    let has = |path: &Path, right: u32| {
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & right != 0)
    };
    path.is_file()
        && has(&path, OTHERS_READ)
        && path
            .ancestors()
            .skip(1)
            .all(|above| has(above, OTHERS_ENTER))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn a_file_is_open_if_it_and_every_directory_above_it_are() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("secret");
        write(&file, "x").unwrap();
        for (directory, mode, want) in [
            (0o755, 0o644, true),
            (0o711, 0o604, true),
            (0o755, 0o640, false),
            (0o755, 0o600, false),
            (0o700, 0o644, false),
            (0o750, 0o644, false),
        ] {
            set_permissions(home.path(), Permissions::from_mode(directory)).unwrap();
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(others_can_read(&file), want, "{directory:o} {mode:o}");
        }
        assert!(!others_can_read(&home.path().join("none")));
    }
}
