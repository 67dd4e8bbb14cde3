//! A low limit of open files: ordinary use never shuts anybody out.

use larder_testkit::{Origin, Payload, Resource};
use tokio::task::JoinSet;

use crate::support::client::{client, try_send};
use crate::support::packages::{File, SIMPLE_JSON, entry, pypi_json};
use crate::support::{Setup, TestLarder};
use crate::{is_live, many_files};

/// Asks for all of them, 48 at a time, each with a `Host` of its own if wanted; all must be answered.
async fn all_answered(larder: &TestLarder, requests: Vec<(String, Option<String>)>) {
    let client = client();
    let (mut running, mut requests) = (JoinSet::new(), requests.into_iter());
    let address = larder.address();
    loop {
        while running.len() < 48
            && let Some((path, host)) = requests.next()
        {
            let client = client.clone();
            running.spawn(async move {
                let host = host.unwrap_or_else(|| address.to_string());
                let headers = [("Accept", SIMPLE_JSON), ("Host", host.as_str())];
                let url = format!("http://{address}{path}");
                let answer = try_send(&client, "GET", &url, &headers).await;
                answer.map(|answer| (answer.status, path))
            });
        }
        let Some(answer) = running.join_next().await else {
            return;
        };
        let (status, path) = answer.expect("no panic").expect("an answer");
        assert_eq!(status, 200, "{path}");
    }
}

fn open_files(larder: &TestLarder) -> usize {
    let folder = format!("/proc/{}/fd", larder.pid());
    std::fs::read_dir(folder).expect("its open files").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r5_two_hundred_and_fifty_six_open_files_are_enough_for_everybody() {
    many_files();
    let origin = Origin::start().await;
    for number in 0..1_300 {
        let project = format!("project-{number}");
        pypi_json(
            &origin,
            &project,
            &[File::generated(&project, "1.0", 100, number)],
        );
    }
    for number in 0..300 {
        let body = Payload::generated(100_000, number);
        origin.put(&format!("/f/{number}"), Resource::new(body));
    }
    let config = format!(
        "remotes:\n{}{}",
        entry("pypi", "pypi", &origin, ""),
        entry("files", "generic", &origin, "")
    );
    let larder = Setup::new(&config).open_files(256).start().await;
    let page = |number: u64| format!("/api/v1/remote/pypi/simple/project-{number}/");
    let file = |number: u64| format!("/api/v1/remote/files/f/{number}");
    let mut most = 0;
    for _ in 0..2 {
        all_answered(&larder, (0..1_300).map(|n| (page(n), None)).collect()).await;
        most = most.max(open_files(&larder));
        all_answered(&larder, (0..300).map(|n| (file(n), None)).collect()).await;
        most = most.max(open_files(&larder));
    }
    let hosts = (0..2_500).map(|n| (page(n % 7), Some(format!("h{n}.example.com"))));
    all_answered(&larder, hosts.collect()).await;
    most = most.max(open_files(&larder));
    is_live(&larder).await;
    eprintln!("at most {most} open files seen");
    assert!(most < 256, "{most}");
    let log = larder.log();
    assert!(!log.contains("Too many open files"), "{log}");
}
