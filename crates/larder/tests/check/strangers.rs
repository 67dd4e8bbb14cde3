//! A larder that runs as a user whose the data directory is not: what is said names both.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::case::Case;

const PLAIN: &str = "remotes: {a: {base_url: 'http://a.example.com'}}\n";
/// A user without a name and without rights, as in containers.
const STRANGER: u32 = 65_532;

#[test]
fn a_data_directory_of_another_user_is_told_with_both() {
    use std::os::unix::process::CommandExt as _;

    let own = std::fs::metadata("/proc/self")
        .expect("its own entry")
        .uid();
    let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    // Only root can become another user, and that one must be let to the program.
    if own != 0
        || asked
            .arg("--version")
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .is_err()
    {
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
