//! Overlayfs, which refuses `RWF_NOWAIT`: what the page cache has is read on the spot there, too. Mounting one needs root.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use larder_sendfile::{CachedRead, cached_prefix, read_cached};

const LENGTH: usize = 1_000_000;

/// A directory over another, unmounted on drop.
struct Overlay(tempfile::TempDir);

impl Overlay {
    /// `None`, after saying so, where it cannot be had.
    fn mount() -> Option<Self> {
        Self::try_mount()
            .inspect_err(|why| {
                eprintln!("SKIPPED: no overlayfs can be mounted here ({why}); needs root")
            })
            .ok()
    }

    fn try_mount() -> Result<Self, String> {
        let overlay = Self(tempfile::tempdir().map_err(|error| error.to_string())?);
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| {
            let path = overlay.0.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path.display().to_string()
        });
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mount = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options, &merged])
            .output();
        let output = mount.map_err(|error| format!("mount cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(overlay)
    }

    fn path(&self, directory: &str) -> PathBuf {
        self.0.path().join(directory).join("file")
    }

    /// A new file, as it is seen above and below.
    fn file(&self, content: &[u8]) -> (File, File) {
        let mut file = File::create(self.path("merged")).unwrap();
        file.write_all(content).unwrap();
        file.sync_all().unwrap();
        let open = |directory| File::open(self.path(directory)).unwrap();
        (open("merged"), open("upper"))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let merged = self.0.path().join("merged");
        let _ = Command::new("umount").arg("-l").arg(merged).status();
    }
}

fn content() -> Vec<u8> {
    (0..LENGTH).map(|n| (n % 251) as u8).collect()
}

fn bytes(read: CachedRead) -> Option<Vec<u8>> {
    match read {
        CachedRead::Bytes(bytes) => Some(bytes),
        CachedRead::NotCached => None,
    }
}

/// Has the kernel forget the pages of a file, if the file system below can do without them.
fn evict(file: &File) {
    let dd = Command::new("dd")
        .args(["iflag=nocache", "count=0", "status=none"])
        .stdin(file.try_clone().unwrap())
        .status();
    assert!(dd.unwrap().success());
}

#[test]
fn what_is_in_the_page_cache_is_read_on_the_spot() {
    let Some(overlay) = Overlay::mount() else {
        return;
    };
    let expected = content();
    let (above, _) = overlay.file(&expected);
    let read = |offset, length| bytes(read_cached(&above, offset, length).unwrap());
    assert!(read(0, LENGTH).as_deref() == Some(&expected));
    assert_eq!(read(5_000, 3).as_deref(), Some(&expected[5_000..5_003]));
    let end = read_cached(&above, LENGTH as u64, 1).map_err(|error| error.kind());
    assert_eq!(end.unwrap_err(), ErrorKind::UnexpectedEof);
    // Asked for a byte more than there is, which is how a file that is too long is found out.
    for length in [1, 4_096, 8_192, 10_000] {
        let (above, _) = overlay.file(&expected[..length]);
        let found = bytes(read_cached(&above, 0, length + 1).unwrap());
        assert!(found.as_deref() == Some(&expected[..length]), "{length}");
    }
}

#[test]
fn what_is_not_in_the_page_cache_is_left_to_who_may_wait() {
    let Some(overlay) = Overlay::mount() else {
        return;
    };
    let (above, below) = overlay.file(&content());
    evict(&above);
    evict(&below);
    // The file system below can tell by itself. Where it has to keep all pages, as tmpfs does, both have them.
    let in_memory = |file| cached_prefix(file, 0, LENGTH as u64).unwrap();
    let is_read = |file| bytes(read_cached(file, 0, 10_000).unwrap()).is_some();
    assert_eq!(in_memory(&above), in_memory(&below));
    assert_eq!(is_read(&above), is_read(&below));
    // What somebody has waited for is there for the next.
    let mut head = vec![0; 10_000];
    above.read_exact_at(&mut head, 0).unwrap();
    assert!(head == content()[..10_000]);
    assert!(is_read(&above));
    assert!(in_memory(&above) > 0);
}
