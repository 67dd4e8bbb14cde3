//! What requests cost on several replicas, for the model of docs/operate/capacity.md: CPU of larder and of PostgreSQL, and
//! transactions. Only a release build tells anything; `LARDER_TEST_PROGRAM` names it. CPU is the kernel's count, so that a busy machine
//! matters little.

use std::fs;
use std::time::Duration;

use futures_util::StreamExt as _;
use larder_testkit::{Payload, Resource};

use super::fixture::{Backends, Cluster, KIB, MIB};
use super::support::client::{client, try_send};

const FILES: u64 = 2_000;
const FILE: u64 = 10 * KIB;
const LARGE: u64 = 256 * MIB;
/// The kernel counts CPU in hundredths of a second.
const TICKS: f64 = 100.0;

/// Process, parent, and seconds of CPU.
fn process(pid: u32) -> Option<(u32, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some((fields.get(1)?.parse().ok()?, ticks / TICKS))
}

/// CPU of all processes of the database server, and its committed transactions.
fn database(backends: &Backends) -> (f64, f64) {
    let said = backends.postgres.sql(
        &backends.database,
        "SELECT pg_backend_pid(), pg_stat_clear_snapshot(), xact_commit FROM pg_stat_database WHERE datname = current_database()",
    );
    let mut words = said.split('|');
    let own: u32 = words
        .next()
        .and_then(|pid| pid.parse().ok())
        .expect("a process id");
    let commits = words
        .next_back()
        .and_then(|count| count.parse().ok())
        .expect("a count");
    // The session itself is over; the server is the parent of those that larder has.
    let session = backends.postgres.sql(
        "postgres",
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'larder' LIMIT 1",
    );
    let session = session.parse().unwrap_or(own);
    let (postmaster, _) = process(session).expect("a session of larder's");
    let all = fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let sessions = pids
        .filter_map(process)
        .filter(|(parent, _)| *parent == postmaster);
    (sessions.map(|(_, cpu)| cpu).sum(), commits)
}

struct Costs<'a> {
    cluster: &'a Cluster,
    client: reqwest::Client,
}

impl Costs<'_> {
    fn cpu(&self) -> Vec<f64> {
        let cpu = |pid| process(pid).map_or(0.0, |(_, cpu)| cpu);
        self.cluster
            .replicas
            .iter()
            .map(|one| cpu(one.pid()))
            .collect()
    }

    /// Does some work, and prints what it cost for each of `of` units.
    async fn measure(&self, name: &str, of: f64, work: impl Future<Output = ()>) {
        let (cpu, (database_cpu, commits)) = (self.cpu(), database(&self.cluster.backends));
        work.await;
        for replica in &self.cluster.replicas {
            // A large file is on its way to the store for longer than anything else may take.
            while replica.metric("larder_downloads_in_flight", "").await > 0.0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        // The server counts with some delay.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let (after, (database_after, commits_after)) =
            (self.cpu(), database(&self.cluster.backends));
        let each: Vec<f64> = after
            .iter()
            .zip(&cpu)
            .map(|(after, before)| (after - before) / of * 1e6)
            .collect();
        println!(
            "{name}: CPU of each replica {each:.1?} us; PostgreSQL {:.1} us and {:.2} transactions",
            (database_after - database_cpu) / of * 1e6,
            (commits_after - commits) / of
        );
    }

    /// All small files, `turns` times, eight at a time.
    async fn files(&self, replica: usize, turns: u64) {
        let urls = (0..FILES * turns).map(|n| {
            self.cluster.replicas[replica].artifact("files", &format!("{}.bin", n % FILES))
        });
        futures_util::stream::iter(urls)
            .for_each_concurrent(8, |url| async move {
                let answer = try_send(&self.client, "GET", &url, &[])
                    .await
                    .expect("an answer");
                assert!(answer.status == 200 && answer.body.len() as u64 == FILE);
            })
            .await;
    }

    async fn large(&self, replica: usize) {
        let url = self.cluster.replicas[replica].artifact("files", "large.bin");
        let mut response = self.client.get(url).send().await.expect("a head");
        let mut length = 0;
        while let Some(piece) = response.chunk().await.expect("the body goes on") {
            length += piece.len() as u64;
        }
        assert_eq!(length, LARGE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; part of make stress"]
async fn what_requests_cost_on_three_replicas() {
    let cluster = Cluster::start(3).await;
    for n in 0..FILES {
        let body = Payload::generated(FILE, n).slice(0, FILE);
        let resource = Resource::new(body).etag(&format!("\"{n}\""));
        cluster.backends.origin.put(&format!("/{n}.bin"), resource);
    }
    let large = Payload::Cycle {
        piece: Payload::generated(MIB, 1).slice(0, MIB),
        length: LARGE,
    };
    let resource = Resource::new(large).etag("\"large\"");
    cluster.backends.origin.put("/large.bin", resource);
    let costs = Costs {
        cluster: &cluster,
        client: client(),
    };
    let (files, gib) = (FILES as f64, LARGE as f64 / (KIB * MIB) as f64);
    let rest = Duration::from_secs(5);
    costs
        .measure("five seconds of rest", 1.0, tokio::time::sleep(rest))
        .await;
    costs
        .measure(
            "a cold file of 10 KiB, at the first replica",
            files,
            costs.files(0, 1),
        )
        .await;
    costs
        .measure("the same, at the second", files, costs.files(1, 1))
        .await;
    costs
        .measure(
            "the same, held, at the second",
            5.0 * files,
            costs.files(1, 5),
        )
        .await;
    costs
        .measure(
            "a GiB that is cold, at the first two together",
            gib,
            async {
                tokio::join!(costs.large(0), costs.large(1));
            },
        )
        .await;
    costs
        .measure("the same GiB, at the third", gib, costs.large(2))
        .await;
    costs
        .measure("the same, held, at the third", gib, costs.large(2))
        .await;
    let asked = cluster.backends.origin.count("GET", "*") as u64;
    assert_eq!(
        asked,
        FILES + 1,
        "each file is asked for once, by one of them"
    );
}
