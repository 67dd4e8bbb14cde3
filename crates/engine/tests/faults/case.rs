//! One case: a file, what its upstream does, who asks, what happens in between, and what is left of it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::Fault;
use larder_engine::FlushRequest;
use larder_testkit::{Behaviour, Payload, Resource};

use crate::chance::Chance;
use crate::oracle::{Oracle, Trust};
use crate::support::{Bench, FORMATS, Got, helm_index, npm_packument, pypi_page};

/// How long a behaviour is in force.
#[derive(Debug, Clone, Copy)]
enum Lasting {
    Times(u32),
    Always,
}

#[derive(Debug, Clone)]
struct Asking {
    method: Method,
    headers: Vec<(&'static str, String)>,
    leave_after: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    Flush,
    Minutes,
    Hours,
}

#[derive(Debug, Clone, Copy)]
enum Afterwards {
    Healthy,
    Stopped,
}

pub(crate) struct Case {
    number: u64,
    format: &'static str,
    size: u64,
    etag: Option<String>,
    last_modified: bool,
    /// Of the file.
    behaviours: Vec<(Behaviour, Lasting)>,
    /// Of the document that names it.
    document_behaviours: Vec<(Behaviour, Lasting)>,
    rounds: Vec<(Vec<Asking>, Between)>,
    afterwards: Afterwards,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |all: &[(Behaviour, Lasting)]| -> Vec<String> {
            all.iter()
                .map(|(behaviour, lasting)| format!("{:.80} {lasting:?}", format!("{behaviour:?}")))
                .collect()
        };
        f.debug_struct("Case")
            .field("number", &self.number)
            .field("format", &self.format)
            .field("size", &self.size)
            .field("etag", &self.etag)
            .field("last_modified", &self.last_modified)
            .field("behaviours", &short(&self.behaviours))
            .field("document_behaviours", &short(&self.document_behaviours))
            .field("rounds", &self.rounds)
            .field("afterwards", &self.afterwards)
            .finish()
    }
}

impl Case {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut chance = Chance::new(seed, number);
        let format = chance.one_of(&FORMATS);
        let size = chance.size();
        let etag = match chance.below(10) {
            0..=5 => Some(format!("\"{number}\"")),
            6..=7 => Some(format!("W/\"{number}\"")),
            _ => None,
        };
        let mut behaviours = Vec::new();
        for _ in 0..=chance.below(3) {
            behaviours.push(fault(&mut chance, size));
        }
        let strong = etag.as_deref().is_some_and(|tag| tag.starts_with('"'));
        if strong {
            // Other bytes under one strong tag cannot be told apart when a cut is repaired: the upstream at least sticks to its story.
            for (behaviour, lasting) in &mut behaviours {
                if replaces_the_body(behaviour) {
                    *lasting = Lasting::Always;
                }
            }
        }
        let mut document_behaviours = Vec::new();
        if format != "generic" && chance.percent(25) {
            document_behaviours.push(document_fault(&mut chance));
        }
        let rounds = (0..=chance.below(2))
            .map(|_| round(&mut chance, size, number))
            .collect();
        let afterwards = if chance.percent(75) {
            Afterwards::Healthy
        } else {
            Afterwards::Stopped
        };
        let last_modified = chance.percent(50);
        Self {
            number,
            format,
            size,
            etag,
            last_modified,
            behaviours,
            document_behaviours,
            rounds,
            afterwards,
        }
    }

    fn path(&self) -> String {
        let n = self.number;
        match self.format {
            "generic" => format!("files/{n}.bin"),
            "pypi" => format!("packages/p{n}-1.0-py3-none-any.whl"),
            "npm" => format!("p{n}/-/p{n}-1.0.0.tgz"),
            _ => format!("charts/p{n}-1.0.0.tgz"),
        }
    }

    /// The document's path; empty for generic.
    fn document(&self) -> String {
        match self.format {
            "generic" => String::new(),
            "pypi" => format!("simple/p{}/", self.number),
            "npm" => format!("p{}", self.number),
            _ => "index.yaml".to_owned(),
        }
    }

    /// Runs the case; gives how many bodies ended well.
    pub(crate) async fn run(self, bench: &Arc<Bench>) -> u64 {
        let truth = Payload::generated(self.size, self.number);
        self.set_up(bench, &truth).await;
        let behaviours: Vec<Behaviour> = self
            .behaviours
            .iter()
            .map(|(behaviour, _)| behaviour.clone())
            .collect();
        let oracle = Oracle::new(truth.slice(0, self.size), &behaviours);
        // While its document is out of order nothing vouches for a file.
        let trust = if self.format != "generic" && self.document_behaviours.is_empty() {
            Trust::Digest
        } else {
            Trust::Upstream
        };
        let mut well = 0;
        for (askings, between) in &self.rounds {
            let mut clients = tokio::task::JoinSet::new();
            for asking in askings {
                let mut client = bench
                    .client(self.format, &self.path())
                    .method(asking.method.clone());
                for (name, value) in &asking.headers {
                    client = client.header(name, value);
                }
                if let Some(bytes) = asking.leave_after {
                    client = client.leave_after(bytes);
                }
                clients.spawn(client.run());
            }
            if !self.document_behaviours.is_empty() {
                well += self.check_document(bench.get(self.format, &self.document()).await);
            }
            self.between(bench, *between).await;
            while let Some(result) = clients.join_next().await {
                well += check(&oracle, result.unwrap(), trust, "a client");
            }
        }
        bench.settled().await;
        match self.afterwards {
            Afterwards::Healthy => well + self.when_healthy(bench, &oracle).await,
            Afterwards::Stopped => well + self.when_cut_off(bench, &oracle, trust).await,
        }
    }

    async fn set_up(&self, bench: &Bench, truth: &Payload) {
        let origin = &bench.origin;
        // Breakers that an earlier case opened are closed, and the one Helm index is read anew.
        bench.wait(60);
        if self.format == "helm" {
            let flush = FlushRequest {
                remote: Some("helm".to_owned()),
                ..FlushRequest::default()
            };
            bench.engine.flush(flush).await.unwrap();
        }
        let (path, document) = (self.path(), self.document());
        let (at, url) = (format!("/{path}"), origin.url(&path));
        let whole = truth.slice(0, self.size);
        let digest = larder_core::sha256(&whole);
        let name = format!("p{}", self.number);
        let made = match self.format {
            "generic" => None,
            "pypi" => Some(pypi_page(&url, &digest)),
            "npm" => Some(npm_packument(&url, &whole)),
            _ => Some(helm_index(&path, &digest)),
        };
        if let Some(made) = made {
            let text = String::from_utf8(made.body.slice(0, made.body.length()).to_vec()).unwrap();
            let renamed = Resource {
                body: text.replace("\"demo\"", &format!("\"{name}\"")).into(),
                ..made
            };
            origin.put(&format!("/{document}"), renamed);
        }
        let mut file = Resource::new(truth.clone()).content_type("application/octet-stream");
        file.etag.clone_from(&self.etag);
        if self.last_modified {
            file = file.last_modified("Thu, 01 Jan 2026 00:00:00 GMT");
        }
        origin.put("/alias", file.clone());
        origin.put(&at, file);
        for (place, all) in [
            (at, &self.behaviours),
            (format!("/{document}"), &self.document_behaviours),
        ] {
            for (behaviour, lasting) in all {
                match lasting {
                    Lasting::Times(times) => origin.behave_times(&place, *times, behaviour.clone()),
                    Lasting::Always => origin.behave(&place, behaviour.clone()),
                }
            }
        }
    }

    async fn between(&self, bench: &Bench, between: Between) {
        match between {
            Between::Nothing => {}
            Between::Flush => {
                let flush = FlushRequest {
                    remote: Some(self.format.to_owned()),
                    ..FlushRequest::default()
                };
                bench.engine.flush(flush).await.unwrap();
            }
            Between::Minutes => bench.wait(101),
            Between::Hours => bench.wait(3601),
        }
    }

    fn heal(&self, bench: &Bench) {
        bench.origin.clear(&format!("/{}", self.path()));
        bench.origin.clear(&format!("/{}", self.document()));
    }

    /// With a healthy upstream what was kept is right, and soon everything is.
    async fn when_healthy(&self, bench: &Bench, oracle: &Oracle) -> u64 {
        self.heal(bench);
        let mut well = 0;
        if self.format == "generic" {
            let hit = self.patiently(bench, &self.path()).await;
            return well + check(oracle, Ok(hit), Trust::Kept, "what was kept");
        }
        // Expired, read again, and from then on its word counts.
        bench.wait(3601);
        let document = self.patiently(bench, &self.document()).await;
        well += self.check_document(Ok(document));
        bench.settled().await;
        for _ in 0..2 {
            let got = self.patiently(bench, &self.path()).await;
            well += check(oracle, Ok(got), Trust::Digest, "a healthy upstream");
            bench.settled().await;
        }
        let record = bench
            .record(self.format, &self.path(), "")
            .await
            .expect("a right file is kept");
        assert!(record.verified, "{record:?}");
        well
    }

    /// A busy machine may time out; a wedged engine never answers.
    async fn patiently(&self, bench: &Bench, path: &str) -> Got {
        let mut last = None;
        for _ in 0..8 {
            match bench.get(self.format, path).await {
                Ok(got) if got.body.is_ok() => return got,
                other => last = Some(other),
            }
            bench.settled().await;
            bench.wait(60);
            // What a busy machine lacks is real time.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("a healthy upstream, and still no {path}: {last:?}");
    }

    /// A document that ends well names its file, whatever happened to it on the way.
    fn check_document(&self, result: Result<Got, Fault>) -> u64 {
        let Ok(Got { body: Ok(body), .. }) = result else {
            return 0;
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains(&self.path()),
            "a document without its file: {text}"
        );
        1
    }

    /// Without an upstream, what is served is what was kept.
    async fn when_cut_off(&self, bench: &Bench, oracle: &Oracle, trust: Trust) -> u64 {
        let kept = if trust == Trust::Digest {
            Trust::Digest
        } else {
            Trust::Kept
        };
        bench.origin.behave("*", Behaviour::ResetHead);
        let mut well = 0;
        for wait in [0, 101] {
            bench.wait(wait);
            well += check(
                oracle,
                bench.get(self.format, &self.path()).await,
                kept,
                "without an upstream",
            );
            bench.settled().await;
        }
        bench.origin.clear("*");
        self.heal(bench);
        well
    }
}

/// Whether a body that ended well is right; counts it.
#[track_caller]
fn check(oracle: &Oracle, result: Result<Got, Fault>, trust: Trust, whose: &str) -> u64 {
    let Ok(got) = result else { return 0 };
    let (Ok(body), of) = (&got.body, &got.answer.representation) else {
        return 0;
    };
    let (start, length) = match got.answer.range {
        Some(range) => (range.start, of.length),
        None => (0, Some(body.len() as u64)),
    };
    if !matches!(got.answer.status, 200 | 206) || body.is_empty() {
        // A HEAD, a 304, or a body of no bytes: only the last says anything, and no true body is empty.
        return 0;
    }
    assert!(
        oracle.allows(body, start, length, trust),
        "{whose} got a wrong body of {} bytes that ended well ({trust:?}; {}; {:?} of {:?}, coding {:?})",
        body.len(),
        got.answer.cache_status,
        got.answer.range,
        of.length,
        of.content_encoding
    );
    if trust == Trust::Digest {
        assert_eq!(of.content_encoding, None, "packages have no coding");
    }
    1
}

fn replaces_the_body(behaviour: &Behaviour) -> bool {
    matches!(
        behaviour,
        Behaviour::Body(_) | Behaviour::LoginPage | Behaviour::JsonNesting { .. } | Behaviour::Gzip
    )
}

/// A departure of the file's upstream from good service.
fn fault(chance: &mut Chance, size: u64) -> (Behaviour, Lasting) {
    let after = match chance.below(4) {
        0 => 0,
        1 => size.saturating_sub(1),
        _ => chance.below(size + 1),
    };
    let pause = Duration::from_millis(chance.one_of(&[20, 1500]));
    let behaviour = match chance.below(26) {
        0 => Behaviour::StallHead(pause),
        1 => Behaviour::StallBody { after, pause },
        2..=4 => Behaviour::Truncate { after },
        5 => Behaviour::Chunked,
        6..=7 => Behaviour::CutChunked { after },
        8 => Behaviour::UntilClose,
        9..=10 => Behaviour::LieAboutLength(chance.one_of(&[-1, 1, -100, 100, -70_000, 70_000])),
        11 => Behaviour::ResetHead,
        12..=13 => Behaviour::ResetBody { after },
        14 => Behaviour::Redirect {
            status: chance.one_of(&[301, 302, 303, 307, 308]),
            location: location(chance),
        },
        15 => Behaviour::Status(chance.one_of(&[
            201, 204, 206, 300, 400, 401, 403, 404, 407, 410, 416, 429, 451, 500, 502, 503, 599,
        ])),
        16 => Behaviour::NotModified,
        17..=18 => Behaviour::Gzip,
        19 => Behaviour::LabelEncoding(chance.one_of(&["gzip", "br", "identity", "x"]).to_owned()),
        20 => Behaviour::UnaskedPartial { length: after },
        21 => Behaviour::Garbage(
            chance
                .one_of(&[
                    &b"\r\n\r\n"[..],
                    b"HTTP/1.1 200",
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                    b"\0\0\0",
                ])
                .into(),
        ),
        22 => Behaviour::LoginPage,
        23 => Behaviour::JsonNesting {
            depth: 1 + chance.below(100_000),
        },
        24 => Behaviour::Surplus(vec![b'#'; 1 + chance.below(200) as usize].into()),
        _ => Behaviour::Body(
            Payload::generated(
                if chance.percent(50) {
                    size
                } else {
                    chance.size()
                },
                chance.below(1 << 40),
            )
            .slice(0, u64::MAX),
        ),
    };
    let lasting = if chance.percent(60) {
        Lasting::Times(1 + chance.below(3) as u32)
    } else {
        Lasting::Always
    };
    (behaviour, lasting)
}

fn location(chance: &mut Chance) -> String {
    let anywhere = [
        "/alias",
        "?again",
        "http://10.0.0.1/x",
        "http://127.0.0.1:9/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/x",
        "http://localhost/x",
        "https://127.0.0.1:9/x",
        "file:///etc/passwd",
        "//user@127.0.0.1/x",
        "",
        "http://",
    ];
    chance.one_of(&anywhere).to_owned()
}

/// A departure of the document's upstream: whatever it is, the document is not the true one, or does not come.
fn document_fault(chance: &mut Chance) -> (Behaviour, Lasting) {
    let behaviour = match chance.below(12) {
        0 => Behaviour::StallHead(Duration::from_millis(1500)),
        1 => Behaviour::Truncate {
            after: chance.below(100),
        },
        2 => Behaviour::CutChunked {
            after: chance.below(100),
        },
        3 => Behaviour::LieAboutLength(-1 - chance.below(40) as i64),
        4 => Behaviour::ResetHead,
        5 => Behaviour::Status(chance.one_of(&[403, 404, 500, 503])),
        6 => Behaviour::LoginPage,
        7 => Behaviour::JsonNesting { depth: 100_000 },
        8 => Behaviour::LabelEncoding("br".to_owned()),
        9 => Behaviour::Gzip,
        10 => Behaviour::NotModified,
        _ => Behaviour::Body("{\"name\":".into()),
    };
    let lasting = if chance.percent(50) {
        Lasting::Times(1 + chance.below(3) as u32)
    } else {
        Lasting::Always
    };
    (behaviour, lasting)
}

fn round(chance: &mut Chance, size: u64, number: u64) -> (Vec<Asking>, Between) {
    let askings = (0..=chance.below(4))
        .map(|_| asking(chance, size, number))
        .collect();
    let between = match chance.below(10) {
        0..=1 => Between::Flush,
        2 => Between::Minutes,
        3 => Between::Hours,
        _ => Between::Nothing,
    };
    (askings, between)
}

fn asking(chance: &mut Chance, size: u64, number: u64) -> Asking {
    let mut headers = Vec::new();
    if chance.percent(35) {
        let (a, b) = (chance.below(size + 10), chance.below(size + 10));
        let range = match chance.below(4) {
            0 => format!("bytes={}-{}", a.min(b), a.max(b)),
            1 => format!("bytes={a}-"),
            2 => format!("bytes=-{}", 1 + b),
            _ => "bytes=0-0".to_owned(),
        };
        headers.push(("range", range));
        if chance.percent(30) {
            headers.push(("if-range", format!("\"{number}\"")));
        }
    }
    if chance.percent(15) {
        headers.push((
            "if-none-match",
            chance.one_of(&[
                format!("\"{number}\""),
                "\"other\"".to_owned(),
                "*".to_owned(),
            ]),
        ));
    }
    if chance.percent(10) {
        headers.push((
            "if-modified-since",
            "Fri, 01 Jan 2100 00:00:00 GMT".to_owned(),
        ));
    }
    let method = if chance.percent(10) {
        Method::HEAD
    } else {
        Method::GET
    };
    let leave_after = chance.percent(20).then(|| chance.below(size + 1));
    Asking {
        method,
        headers,
        leave_after,
    }
}
