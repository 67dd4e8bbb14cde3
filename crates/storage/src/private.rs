//! Files that hold secrets (the key of links, the places of private upstreams) are their owner's alone. What an earlier version, a
//! restored backup or a careless copy has left readable to others is tightened at start, and said.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What a file with secrets may be to its owner; nobody else has any right.
const PRIVATE: u32 = 0o600;
const OTHERS: u32 = 0o077;

/// Takes every right of group and others away from the files at `paths`; a file that is not there needs nothing.
///
/// A file that cannot be tightened (it is another user's) stays as it is: a log line says so, and larder goes on.
pub(crate) fn tighten(paths: impl IntoIterator<Item = impl AsRef<Path>>) {
    for path in paths {
        let path = path.as_ref();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        match tighten_one(path) {
            Ok(None) => {}
            Ok(Some(mode)) => tracing::warn!(
                %file,
                mode = format!("{mode:04o}"),
                "others could read this file of the data directory, which holds secrets: its mode is 0600 now; if somebody may have \
                 copied it, begin with an empty data directory, so that links are signed with a new key"
            ),
            Err(error) => tracing::warn!(
                %file,
                %error,
                "others can read this file of the data directory, which holds secrets, and its mode could not be changed: \
                 make it 0600 and larder's own"
            ),
        }
    }
}

/// The mode that was too wide; `None` if nothing had to be done.
fn tighten_one(path: &Path) -> io::Result<Option<u32>> {
    let mode = match fs::metadata(path) {
        Ok(found) => found.permissions().mode() & 0o7777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    fs::set_permissions(path, Permissions::from_mode(PRIVATE))?;
    Ok(Some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_read_or_write_is_the_owners_alone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        for (before, after) in [
            (0o644, 0o600),
            (0o660, 0o600),
            (0o604, 0o600),
            (0o600, 0o600),
            (0o400, 0o400),
        ] {
            let path = directory.path().join(format!("{before:o}"));
            fs::write(&path, b"x").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            assert_eq!(
                tighten_one(&path).unwrap().is_some(),
                before != after,
                "{before:o}"
            );
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
                after,
                "{before:o}"
            );
        }
        assert_eq!(tighten_one(&directory.path().join("absent")).unwrap(), None);
    }
}
