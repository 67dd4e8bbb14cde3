//! What pages for people cost with many records.

use std::time::Duration;

use super::{MILLION, Scene};
use crate::support::send;

/// What the server may take for a page; and longer on a machine that has other things to do.
const PAGE: Duration = Duration::from_millis(100);

/// The server's own time for a page, the best of a few: other work on the machine is no fault of the program's.
async fn time_of(scene: &Scene, path: &str) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let headers = [("accept", "text/html")];
        let answer = send("GET", &scene.larder.url(path), &headers).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let timing = answer.header("server-timing").to_owned();
        let millis = timing.rsplit("dur=").next();
        let millis = millis.and_then(|millis| millis.parse::<f64>().ok());
        let millis = millis.unwrap_or_else(|| panic!("{timing}"));
        best = best.min(Duration::from_secs_f64(millis / 1_000.0));
    }
    best
}

/// Asks for every kind of page, and searches to the end.
pub(crate) async fn all(scene: &Scene) {
    let mut slow = Vec::new();
    for path in [
        "ui/",
        "ui/repositories",
        "ui/repositories/files",
        "ui/repositories/files/outage",
        "ui/repositories/files/browse/",
        "ui/repositories/files/browse/pool/7/",
        "ui/repositories/files/artifact/pool/7/0000037.deb",
        "ui/health",
        "ui/configuration",
        "ui/jobs",
        "ui/search?q=pool/7/&kind=prefix",
        "ui/search?q=0000037&kind=name",
        "ui/search?q=zzz&kind=prefix",
        "ui/search?q=nothing+like+it&kind=name",
        "ui/search?q=1.2.3&kind=version",
        "ui/search?q=00000000&kind=digest",
    ] {
        let took = time_of(scene, path).await;
        println!("  {path}: {took:?}");
        if took > PAGE {
            slow.push(format!("{path}: {took:?}"));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
    search_to_the_end(scene).await;
}

/// A page ends when its time is over, and says where the next one goes on.
async fn search_to_the_end(scene: &Scene) {
    let (mut looked_at, mut pages, mut cursor) = (0, 0, String::new());
    loop {
        let path = format!("ui/search?q=nothing+like+it&kind=name&cursor={cursor}");
        let headers = [("accept", "application/json")];
        let answer = send("GET", &scene.larder.url(&path), &headers).await;
        let page = answer.json();
        assert_eq!(page["hits"].as_array().map(Vec::len), Some(0), "{page}");
        looked_at += page["looked_at"].as_u64().unwrap_or_default();
        pages += 1;
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    println!("  nothing was found among {looked_at} in {pages} pages");
    assert!(looked_at >= u64::from(scene.records), "{looked_at}");
    assert!(pages > 1 || scene.records < MILLION, "it took its time");
}
