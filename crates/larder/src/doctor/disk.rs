//! Free space of the data directory's file system.

use std::path::Path;

use larder_storage::Space;

use super::Finding;
use crate::prepare::nearest;

/// What is wrong with the space below `directory`, which need not be there yet.
pub(super) fn findings(directory: &Path) -> Option<Finding> {
    judge(directory, Space::of(nearest(directory)).ok()?)
}

fn judge(directory: &Path, space: Space) -> Option<Finding> {
    let Space {
        total,
        available,
        reserve,
    } = space;
    let free = format!(
        "{} of {} MiB are free on its file system",
        available >> 20,
        total >> 20
    );
    let what = if space.is_low() {
        format!(
            "{free}, less than the reserve of {} MiB: nothing more is kept, and uploads are refused",
            reserve >> 20
        )
    } else if available < reserve.saturating_mul(2) {
        format!(
            "{free}, and at the reserve of {} MiB nothing more is kept",
            reserve >> 20
        )
    } else {
        return None;
    };
    let remedy = "make room: enlarge the file system, move what else is there, or flush what is not needed (larder du, larder flush)";
    Some(Finding::new(
        "disk",
        format!("data_dir {}", directory.display()),
        what,
        remedy,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_nearly_full_at_twice_the_reserve_and_full_at_it() {
        // 40 GiB: the reserve is a twentieth of it.
        let of = |available: u64| {
            let space = Space {
                total: 40 << 30,
                available,
                reserve: 2 << 30,
            };
            judge(Path::new("/data"), space).map(|found| found.what)
        };
        assert_eq!(of(4 << 30), None);
        assert!(
            of((4 << 30) - 1)
                .unwrap()
                .contains("at the reserve of 2048 MiB")
        );
        assert!(
            of((2 << 30) - 1)
                .unwrap()
                .contains("nothing more is kept, and uploads")
        );
        assert_eq!(
            findings(Path::new("/proc/none/at/all")).map(|f| f.kind),
            of_proc()
        );
    }

    /// A file system without any space, where the nearest directory is measured.
    fn of_proc() -> Option<&'static str> {
        let space = Space::of(Path::new("/proc")).unwrap();
        judge(Path::new("/proc"), space).map(|found| found.kind)
    }
}
