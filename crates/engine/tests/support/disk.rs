//! A small file system that can be filled. Mounting one needs root.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// A tmpfs of its own, unmounted on drop.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) const SIZE: u64 = 64 << 20;

    /// `None`, after saying so, where it cannot be had.
    pub(crate) fn mount() -> Option<Self> {
        Self::try_mount()
            .inspect_err(|why| {
                eprintln!("SKIPPED: no tmpfs can be mounted here ({why}); needs root");
            })
            .ok()
    }

    fn try_mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let size = format!("size={}", Self::SIZE);
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .output();
        let output = mount.map_err(|error| format!("mount cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: connections of the database may still be closing.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Takes up all space there is but `leave` bytes.
pub(crate) fn fill(path: &Path, leave: u64) {
    let mut file = File::create(path).unwrap();
    for size in [1_usize << 20, 4096, 1] {
        while file.write_all(&vec![9; size]).is_ok() {}
    }
    if leave > 0 {
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(leave)).unwrap();
    }
}
