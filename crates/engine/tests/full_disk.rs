//! A data directory that is full: downloads go on being served whole, uncached; nothing corrupt; caching resumes when space is back
//! (contract, section 3, "Disk nearly full", hazard R7).
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use larder_core::{Repository, Revalidate};
use larder_engine::{Body, Limits};
use larder_testkit::{Behaviour, Payload, Resource};
use support::{Bench, FORMATS, Published, SmallDisk, fill, publish};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Free space is measured at most once a second.
const NEXT_LOOK: Duration = Duration::from_millis(1100);

struct Scene {
    bench: Bench,
    disk: SmallDisk,
}

impl Scene {
    /// `None` where no small disk can be had, which has been said.
    async fn set() -> Option<Self> {
        let disk = SmallDisk::mount()?;
        let bench = Bench::in_directory(disk.path(), Limits::default(), |_| {}).await;
        Some(Self { bench, disk })
    }

    fn filler(&self) -> PathBuf {
        self.disk.path().join("filler")
    }

    /// Leaves `bytes` of space.
    async fn fill_up(&self, leave: u64) {
        fill(&self.filler(), leave);
        // The store looks at the real disk by the real clock, and keeps for a second what it has seen.
        tokio::time::sleep(NEXT_LOOK).await;
    }

    async fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
        tokio::time::sleep(NEXT_LOOK).await;
    }

    async fn assert_served(&self, file: &Published, body: &Payload, hit: bool) {
        let got = self.bench.get(file.repository, &file.path).await.unwrap();
        assert!(got.body.is_ok(), "{file:?}: {got:?}");
        assert!(
            got.bytes() == &body.slice(0, body.length()),
            "{file:?}: wrong bytes ended well"
        );
        assert_eq!(got.is_hit(), hit, "{file:?}: {}", got.answer.cache_status);
        self.bench.settled().await;
    }

    /// Every blob has the digest that its name says.
    async fn assert_intact(&self) {
        let blobs = &self.bench.blobs;
        for blob in blobs.list(None, 1000).await.unwrap() {
            let open = blobs.open(&blob.descriptor).await.unwrap();
            let bytes = open.read(blob.descriptor.size).await.unwrap();
            assert_eq!(larder_core::sha256(&bytes), blob.descriptor.digest);
        }
    }
}

#[tokio::test]
async fn hazard_r7_a_full_disk_is_no_outage() {
    for format in FORMATS {
        let Some(scene) = Scene::set().await else {
            return;
        };
        let bench = &scene.bench;
        // Held from before.
        let old = Payload::generated(20 * KIB, 1);
        let file = publish(&bench.origin, format, &old, "\"old\"");
        scene.assert_served(&file, &old, false).await;
        if file.has_document() {
            bench.get(format, file.document).await.unwrap();
        }
        bench.settled().await;
        // Less than the reserve: the database goes on, nothing else is written.
        scene.fill_up(MIB).await;
        // What is held is served; what is not is fetched each time, small or large, and never kept.
        scene.assert_served(&file, &old, true).await;
        bench.wait(3601);
        for size in [1, 20 * KIB, MIB + 1, 10 * MIB] {
            bench.forget(format).await;
            let body = Payload::generated(size, size);
            let file = publish(&bench.origin, format, &body, "\"new\"");
            for _ in 0..2 {
                scene.assert_served(&file, &body, false).await;
            }
            // And by many at once.
            let whole = body.slice(0, size);
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..16 {
                clients.spawn(bench.client(format, &file.path).expect(&whole).run());
            }
            while let Some(got) = clients.join_next().await {
                got.unwrap().unwrap().body.unwrap();
            }
            bench.settled().await;
        }
        // Not even the database can write any more.
        fill(&scene.disk.path().join("more"), 0);
        for size in [20 * KIB, 10 * MIB] {
            bench.origin.remove(&file.at);
            let body = Payload::generated(size, size);
            let file = publish(&bench.origin, format, &body, "\"newer\"");
            for _ in 0..2 {
                scene.assert_served(&file, &body, false).await;
            }
            bench.wait(3601);
        }
        std::fs::remove_file(scene.disk.path().join("more")).unwrap();
        scene.make_room().await;
        bench.forget(format).await;
        let body = Payload::generated(2 * MIB, 5);
        let file = publish(&bench.origin, format, &body, "\"newest\"");
        scene.assert_served(&file, &body, false).await;
        scene.assert_served(&file, &body, true).await;
        scene.assert_intact().await;
    }
}

#[tokio::test]
async fn hazard_r7_rewritten_documents_are_whole_on_a_full_disk() {
    let Some(scene) = Scene::set().await else {
        return;
    };
    let bench = &scene.bench;
    let links: Vec<String> = (0..20_000)
        .map(|n| {
            format!(
                r#"{{"filename":"demo-1.{n}.tar.gz","url":"../../packages/demo-1.{n}.tar.gz","hashes":{{"sha256":"{}"}}}}"#,
                "0".repeat(64)
            )
        })
        .collect();
    let page = format!(
        r#"{{"meta":{{"api-version":"1.0"}},"name":"demo","files":[{}]}}"#,
        links.join(",")
    );
    assert!(page.len() > 2 << 20, "larger than what is streamed");
    bench.origin.put(
        "/simple/demo/",
        Resource::new(page).content_type("application/vnd.pypi.simple.v1+json"),
    );
    scene.fill_up(0).await;
    for behaviour in [None, Some(Behaviour::Gzip), Some(Behaviour::Chunked)] {
        if let Some(behaviour) = behaviour.clone() {
            bench.origin.behave("/simple/demo/", behaviour);
        }
        let mut pages = Vec::new();
        for accept in ["application/vnd.pypi.simple.v1+json", "text/html"] {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..4 {
                clients.spawn(
                    bench
                        .client("pypi", "simple/demo/")
                        .header("accept", accept)
                        .run(),
                );
            }
            while let Some(got) = clients.join_next().await {
                let text = got.unwrap().unwrap().text();
                assert_eq!(
                    text.matches("/api/v1/remote/pypi/packages/demo-1.").count(),
                    20_000,
                    "{behaviour:?}"
                );
                pages.push(text.len());
            }
            bench.settled().await;
        }
        bench.origin.clear("/simple/demo/");
        assert_eq!(
            bench.record("pypi", "simple/demo/", "").await,
            None,
            "served and not kept"
        );
    }
    scene.make_room().await;
    bench.get("pypi", "simple/demo/").await.unwrap();
    bench.settled().await;
    assert!(bench.get("pypi", "simple/demo/").await.unwrap().is_hit());
}

#[tokio::test]
async fn hazard_r7_a_digest_is_enforced_on_a_full_disk() {
    let Some(scene) = Scene::set().await else {
        return;
    };
    let bench = &scene.bench;
    scene.fill_up(0).await;
    for format in ["pypi", "npm", "helm"] {
        for size in [20 * KIB, 10 * MIB] {
            bench.forget(format).await;
            let file = publish(
                &bench.origin,
                format,
                &Payload::generated(size, 1),
                "\"one\"",
            );
            bench.origin.behave(
                &file.at,
                Behaviour::Body(Payload::generated(size, 2).slice(0, size)),
            );
            match bench.get(format, &file.path).await {
                Ok(got) => assert!(size > MIB && got.body.is_err(), "{format} {size}"),
                Err(fault) => assert_eq!(fault.code.as_str(), "digest_mismatch", "{format} {size}"),
            }
            bench.settled().await;
            bench.origin.clear(&file.at);
        }
    }
}

#[tokio::test]
async fn hazard_r7_a_disk_that_fills_midway_keeps_the_prefix_and_goes_on_through_memory() {
    for format in FORMATS {
        let Some(scene) = Scene::set().await else {
            return;
        };
        let bench = &scene.bench;
        let body = Payload::generated(30 * MIB, 1);
        let file = publish(&bench.origin, format, &body, "\"one\"");
        // 5 % are the reserve; what is left above it takes a part of the body.
        scene.fill_up(SmallDisk::SIZE / 20 + 10 * MIB).await;
        bench.origin.hold_body(&file.at, 8 * MIB);
        let whole = body.slice(0, body.length());
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..4 {
            clients.spawn(bench.client(format, &file.path).expect(&whole).run());
        }
        clients.spawn(
            bench
                .client(format, &file.path)
                .expect(&whole.slice(MIB as usize..))
                .header("range", "bytes=1048576-")
                .run(),
        );
        bench.origin.wait_for("GET", &file.at, 1).await;
        bench.until_asked(format, 5).await;
        bench.until_come(format, 8 * MIB).await;
        bench.origin.release(&file.at);
        while let Some(got) = clients.join_next().await {
            got.unwrap().unwrap().body.unwrap();
        }
        bench.settled().await;
        assert_eq!(
            bench.origin.count("GET", &file.at),
            1,
            "{format}: one download, before and after"
        );
        assert_eq!(
            bench.record(format, &file.path, "").await,
            None,
            "nothing is committed"
        );
        assert!(bench.files_of_size(body.length()).is_empty());
        scene.make_room().await;
        scene.assert_served(&file, &body, false).await;
        scene.assert_served(&file, &body, true).await;
        scene.assert_intact().await;
    }
}

/// A client that asks for several ranges reads them one after the other; what it has yet to read is not let go.
#[tokio::test]
async fn hazard_r7_several_ranges_of_a_body_that_is_not_kept() {
    let Some(scene) = Scene::set().await else {
        return;
    };
    let bench = &scene.bench;
    let body = Payload::generated(20 * MIB, 1);
    let file = publish(&bench.origin, "generic", &body, "\"one\"");
    scene.fill_up(MIB).await;
    let answer = bench.client("generic", &file.path).answer().await.unwrap();
    let served = answer.body.into_inner();
    let Body::Growing(_) = &served else {
        unreachable!("it is not kept, so it cannot be a file")
    };
    for start in [0, 3 * MIB, 12 * MIB, 20 * MIB - 1000] {
        let mut part = Vec::new();
        let mut reader = served.range(start, start + 1000).unwrap().chunks();
        while let Some(chunk) = reader.next().await {
            part.extend_from_slice(&chunk.unwrap());
        }
        assert!(part == body.slice(start, 1000), "from {start}");
    }
}

/// What no one can tell from its name is unpacked, too, when there is no room for it.
#[tokio::test]
async fn hazard_r7_unasked_compression_is_undone_on_a_full_disk() {
    let Some(scene) = Scene::set().await else {
        return;
    };
    let bench = &scene.bench;
    let text = Bytes::from("-----BEGIN PGP SIGNED MESSAGE-----\n".repeat(1000));
    bench
        .origin
        .put("/charts/demo-1.0.0.tgz.prov", Resource::new(text.clone()));
    bench.origin.behave("*", Behaviour::Gzip);
    scene.fill_up(0).await;
    let got = bench
        .get("helm", "charts/demo-1.0.0.tgz.prov")
        .await
        .unwrap();
    assert_eq!(
        (got.bytes(), &got.answer.representation.content_encoding),
        (&text, &None)
    );
}

/// What strangers make up, below the reserve: nothing of it is written; and a flush works however full the disk is.
#[tokio::test]
async fn hazard_r7_below_the_reserve_no_row_is_written_and_a_flush_works() {
    let Some(scene) = Scene::set().await else {
        return;
    };
    let bench = &scene.bench;
    for n in 0..50 {
        bench.origin.put(
            &format!("/held/{n}"),
            Resource::new(format!("held {n}")).etag("\"1\""),
        );
        bench.get("generic", &format!("held/{n}")).await.unwrap();
    }
    bench.settled().await;
    let rows = bench.metadata.counts().await.unwrap().records;
    assert_eq!(rows, 50);
    scene.fill_up(MIB).await;
    let pages = || {
        std::fs::metadata(scene.disk.path().join("larder.sqlite"))
            .unwrap()
            .len()
    };
    let before = pages();
    for format in FORMATS {
        for n in 0..200 {
            let path = match format {
                "npm" => format!("absent{n}/-/absent{n}-1.0.0.tgz"),
                "pypi" => format!("packages/absent{n}-{}.whl", "x".repeat(1000)),
                _ => format!("absent/{n}-{}.tgz", "x".repeat(1000)),
            };
            bench.get(format, &path).await.unwrap_err();
        }
    }
    bench.settled().await;
    assert_eq!(bench.metadata.counts().await.unwrap().records, rows);
    assert_eq!(pages(), before);
    // Not a block is left.
    fill(&scene.disk.path().join("more"), 0);
    let flushed = bench
        .engine
        .flush(larder_engine::FlushRequest::default())
        .await
        .unwrap();
    assert!(flushed.files >= 50, "{flushed:?}");
    assert_eq!(bench.metadata.counts().await.unwrap().records, 0);
    let got = bench.get("generic", "held/7").await.unwrap();
    assert_eq!(
        (got.text(), got.is_hit()),
        ("held 7".to_owned(), false),
        "it is served as before"
    );
}

/// Below the reserve a renewal counts, although it is not written.
#[tokio::test]
async fn hazard_r7_a_renewal_below_the_reserve_is_remembered() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let revalidating =
        |repository: &mut Repository| repository.cache.revalidate = Some(Revalidate::Get);
    let scene = Scene {
        bench: Bench::in_directory(disk.path(), Limits::default(), revalidating).await,
        disk,
    };
    let bench = &scene.bench;
    let file = publish(
        &bench.origin,
        "helm",
        &Payload::generated(20 * KIB, 1),
        "\"one\"",
    );
    bench.get("helm", file.document).await.unwrap();
    bench.settled().await;
    let written = bench.record("helm", file.document, "").await.unwrap();
    scene.fill_up(MIB).await;
    bench.wait(3601);
    bench.origin.reset_log();
    for _ in 0..2 {
        bench.get("helm", file.document).await.unwrap();
        bench.settled().await;
    }
    assert_eq!(
        bench.origin.requests().len(),
        1,
        "asked once, and good for another life"
    );
    assert_eq!(
        bench.record("helm", file.document, "").await.unwrap(),
        written,
        "no row below the reserve"
    );
}
