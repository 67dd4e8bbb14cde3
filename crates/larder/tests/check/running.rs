//! `larder check` beside a larder that runs: what that one has is no fault.

use crate::case::{Case, listing};

const PLAIN: &str = "remotes: {a: {base_url: 'http://a.example.com'}}\n";

#[test]
fn what_a_running_larder_has_is_said_and_no_fault() {
    let first = Case::new("the first", PLAIN, &[]);
    let home = first.lay_out();
    let running = first.start(home.path());
    assert!(running.ended.is_none(), "{}", running.log());
    let address = running.address();

    let same = Case::new("the same set-up", PLAIN, &[]).arguments(&["--listen", &address]);
    let names = || {
        listing(home.path())
            .into_iter()
            .map(|(path, _)| path)
            .collect::<Vec<_>>()
    };
    let before = names();
    let (status, said) = same.check(home.path());
    assert_eq!(status, Some(0), "{said}");
    let process = format!("in use by a running larder (process {})", running.pid());
    assert!(
        said.contains(&process) && said.contains(&format!("{address} is in use")),
        "{said}"
    );
    assert_eq!(names(), before, "nothing is left behind");

    let beside = Case::new("another data directory", PLAIN, &[]).arguments(&[
        "--listen",
        &address,
        "--data-dir",
        "@HOME@/other",
    ]);
    let (status, said) = beside.check(home.path());
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("warning: ") && said.contains("with another data directory"),
        "{said}"
    );
    assert_eq!(names(), before, "nothing is left behind");

    // An address that another program has is not taken for the running larder's.
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let held = stranger.local_addr().expect("its address").to_string();
    std::thread::spawn(move || stranger.incoming().for_each(drop));
    let (status, said) = Case::new("moved", PLAIN, &[])
        .arguments(&["--listen", &held])
        .check(home.path());
    assert!(
        status == Some(0)
            && said.contains("warning: ")
            && said.contains("does not answer as a larder"),
        "{said}"
    );

    // It goes on all the while.
    drop(running);
    let again = first.start(home.path());
    assert!(again.ended.is_none(), "{}", again.log());
}
