//! Two mirrors, one of which fails in a random way: what the client gets is right, nothing wrong is kept, and no client notices.
//!
//! A case is a function of its number; `LARDER_FAULT_ONLY` runs one alone.
use std::time::Duration;

use larder_core::sha256;
use larder_engine::Limits;
use larder_testkit::{Behaviour, Origin, Payload};
use url::Url;

use crate::chance::Chance;
use crate::support::{Bench, FORMATS, publish, upstream};

const CASES: u64 = 240;
const LANES: u64 = 8;
const SEED: u64 = 0x001a_2d0e_2027;
const SMALL: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_one_of_two_mirrors_does_the_client_gets_the_right_bytes() {
    let only: Option<u64> =
        std::env::var_os("LARDER_FAULT_ONLY").and_then(|text| text.to_str()?.parse().ok());
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(async move {
            for number in (lane..CASES)
                .step_by(LANES as usize)
                .filter(|number| only.is_none_or(|only| only == *number))
            {
                run(number).await;
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
}

async fn run(number: u64) {
    let mut chance = Chance::new(SEED, number);
    let format = chance.one_of(&FORMATS);
    let size = if chance.percent(70) {
        chance.size()
    } else {
        SMALL + 1 + chance.below(3 * SMALL)
    };
    let behaviour = fault(&mut chance, format, size);
    let tags = chance.one_of(&[
        ["\"a\"", "\"a\""],
        ["\"a\"", "\"b\""],
        ["W/\"a\"", "W/\"a\""],
    ]);
    let faulty_is_first = chance.percent(75);
    let told = format!(
        "LARDER_FAULT_ONLY={number}: {format}, {size} bytes, {tags:?}, {:.80}",
        format!("{behaviour:?}")
    );

    let second = Origin::start().await;
    let url = Url::parse(&second.url("/")).unwrap();
    // Longer than any body here takes, on however slow a machine.
    let limits = Limits {
        held_back: Duration::from_mins(2),
        ..Limits::default()
    };
    let bench = Bench::limited(limits, |repository| {
        upstream(repository).base_urls.push(url.clone());
        upstream(repository).read_timeout = Duration::from_millis(1000);
    })
    .await;
    let truth = Payload::generated(size, number);
    publish(&second, format, &truth, tags[1]);
    let file = publish(&bench.origin, format, &truth, tags[0]);
    let whole = truth.slice(0, size);
    let faulty = if faulty_is_first {
        &bench.origin
    } else {
        &second
    };
    faulty.behave(&file.at, behaviour);
    if file.has_document() && chance.percent(50) {
        faulty.behave(file.document_at, Behaviour::Status(500));
    }

    let clients: Vec<_> = (0..3)
        .map(|_| tokio::spawn(bench.client(format, &file.path).run()))
        .collect();
    for client in clients {
        let body = client.await.unwrap().ok().and_then(|got| got.body.ok());
        assert!(
            body.as_ref()
                .is_none_or(|body| sha256(body) == sha256(&whole)),
            "a wrong body ended well: {told}"
        );
        assert!(body.is_some(), "a client noticed: {told}");
    }
    bench.settled().await;
    let again = bench
        .get(format, &file.path)
        .await
        .unwrap_or_else(|fault| panic_with(&told, &fault.message));
    assert_eq!(
        sha256(again.bytes()),
        sha256(&whole),
        "the next client: {told}"
    );
    bench.settled().await;
    let record = bench
        .record(format, &file.path, "")
        .await
        .unwrap_or_else(|| panic_with(&told, "nothing was kept"));
    assert_eq!(
        record.blob().map(|blob| blob.digest.clone()),
        Some(sha256(&whole)),
        "what is kept: {told}"
    );
    assert_eq!(record.verified, format != "generic", "{told}");
}

#[track_caller]
fn panic_with<T>(told: &str, why: &str) -> T {
    panic!("{why}: {told}")
}

fn fault(chance: &mut Chance, format: &str, size: u64) -> Behaviour {
    let after = chance.below(size);
    let pause = Duration::from_mins(1);
    // Without a digest whatever a mirror says is the file, if it is whole.
    let kinds = if format == "generic" { 10 } else { 15 };
    match chance.below(kinds) {
        0 => Behaviour::StallHead(pause),
        1 => Behaviour::StallBody { after, pause },
        2 | 3 => Behaviour::Truncate { after },
        4 => Behaviour::ResetHead,
        5 => Behaviour::ResetBody { after },
        6 => Behaviour::Status(
            chance.one_of(&[204, 206, 300, 400, 401, 403, 404, 410, 429, 451, 500, 503]),
        ),
        7 => Behaviour::UnaskedPartial { length: after },
        8 => Behaviour::Garbage(
            chance
                .one_of(&[&b"\0\0\0"[..], b"HTTP/1.1 200", b"\r\n\r\n"])
                .into(),
        ),
        9 => Behaviour::Redirect {
            status: 302,
            location: "http://10.0.0.1/x".to_owned(),
        },
        10 => Behaviour::LieAboutLength(chance.one_of(&[-1, 1, 100])),
        11 => Behaviour::LoginPage,
        12 => Behaviour::CutChunked { after },
        13 => Behaviour::JsonNesting { depth: 1000 },
        _ => Behaviour::Body(Payload::generated(size, 1 << 40).slice(0, size)),
    }
}
