//! A larder that runs as a user whose the data directory is not: what is said names both.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;

use crate::case::Case;

const PLAIN: &str = "remotes: {a: {base_url: 'http://a.example.com'}}\n";
/// A user without a name and without rights, as in containers.
const STRANGER: u32 = 65_532;

/// Only root can become another user, and that one must be let to the program.
fn a_stranger_can_run_it() -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    let asked = asked.arg("--version").uid(STRANGER).gid(STRANGER);
    is_root && asked.output().is_ok()
}

#[test]
fn a_data_directory_of_another_user_is_told_with_both() {
    if !a_stranger_can_run_it() {
        return;
    }
    for (case, whose) in [
        (
            Case::new("a directory of another user", PLAIN, &[]).directory("data"),
            "data, which",
        ),
        (
            Case::new("a database of another user", PLAIN, &[])
                .directory("data")
                .file("data/larder.sqlite", ""),
            "data/larder.sqlite",
        ),
    ] {
        let case = case.user(STRANGER);
        let home = case.lay_out();
        // Everything can be read; nothing of root's can be written.
        for path in [home.path().to_owned(), home.path().join("data")] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
                .expect("its mode");
        }
        if whose != "data, which" {
            std::os::unix::fs::chown(home.path().join("data"), Some(STRANGER), Some(STRANGER))
                .expect("another owner");
        }
        let (status, checked) = case.check(home.path());
        let started = case.start(home.path());
        let log = started.log();
        assert_eq!(
            (status, started.ended.and_then(|ended| ended.code())),
            (Some(1), Some(1)),
            "{checked}\n{log}"
        );
        for said in [checked, log] {
            let expected = format!(
                "{}/{whose} belongs to user 0, and larder runs as user 65532",
                home.path().display()
            );
            assert!(said.contains(&expected), "{}: {said}", case.name);
        }
    }
}

/// Somebody (often root, once) has worked in it, and has made some of the directories that blobs are placed in.
#[test]
fn directories_of_blobs_that_cannot_be_written_are_found() {
    if !a_stranger_can_run_it() {
        return;
    }
    let shard = "data/blobs/sha256/ab/cd";
    let case = Case::new("a shard of another user", PLAIN, &[]).user(STRANGER);
    let home = case.lay_out();
    std::fs::create_dir_all(home.path().join(shard)).expect("the directories");
    std::fs::create_dir_all(home.path().join("data/blobs/spool")).expect("a directory");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(home.path(), mode).expect("its mode");
    for own in [
        "data",
        "data/blobs",
        "data/blobs/sha256",
        "data/blobs/spool",
    ] {
        let path = home.path().join(own);
        std::os::unix::fs::chown(path, Some(STRANGER), Some(STRANGER)).expect("another owner");
    }
    let (status, checked) = case.check(home.path());
    let upper = home.path().join("data/blobs/sha256/ab");
    let said = format!("cannot write in {}: permission denied", upper.display());
    assert!(status == Some(1) && checked.contains(&said), "{checked}");
    for own in ["data/blobs/sha256/ab", shard] {
        let path = home.path().join(own);
        std::os::unix::fs::chown(path, Some(STRANGER), Some(STRANGER)).expect("another owner");
    }
    let (status, checked) = case.check(home.path());
    assert!(status == Some(0), "{checked}");
}
