//! Asking as an HTTP client would. Conditions and ranges are evaluated as the server does it: with the functions of `larder-core`.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method};
use larder_core::*;
use larder_engine::*;
use tokio::sync::watch;

/// What came back.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) answer: Head,
    pub(crate) body: Result<Bytes, String>,
    /// When the first byte of the body came; when the answer came if there was none.
    pub(crate) first_byte: Instant,
}

#[derive(Debug)]
pub(crate) struct Head {
    /// 200, 206, 304, 412, 416, or what was passed through.
    pub(crate) status: u16,
    pub(crate) source: Source,
    pub(crate) cache_status: String,
    pub(crate) representation: Representation,
    pub(crate) freshness: Freshness,
    pub(crate) location: Option<String>,
    pub(crate) hot: bool,
    /// The range that the body is, with a 206.
    pub(crate) range: Option<ByteRange>,
    /// Whether the body was still arriving when the answer was made.
    pub(crate) in_flight: bool,
}

impl Got {
    pub(crate) fn bytes(&self) -> &Bytes {
        self.body.as_ref().expect("the body ended well")
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
    pub(crate) fn is_hit(&self) -> bool {
        self.answer.cache_status.contains("; hit")
    }
}

/// A request, and how its client behaves.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    engine: Arc<Engine>,
    method: Method,
    repository: String,
    target: String,
    headers: HeaderMap,
    leave_after: Option<u64>,
    /// Bytes per second.
    pace: Option<u64>,
    /// Stop pacing when this fires.
    hurry: Option<watch::Receiver<bool>>,
    expected: Option<Bytes>,
}

impl Client {
    pub(crate) fn new(engine: &Arc<Engine>, repository: &str, target: &str) -> Self {
        Self {
            engine: Arc::clone(engine),
            method: Method::GET,
            repository: repository.to_owned(),
            target: target.to_owned(),
            headers: HeaderMap::new(),
            leave_after: None,
            pace: None,
            hurry: None,
            expected: None,
        }
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(
            http::HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        );
        self
    }

    /// Goes away after so many bytes of the body.
    pub(crate) fn leave_after(mut self, bytes: u64) -> Self {
        self.leave_after = Some(bytes);
        self
    }

    /// Reads no faster than this until told to hurry.
    pub(crate) fn slow(mut self, bytes_per_second: u64, hurry: watch::Receiver<bool>) -> Self {
        self.pace = Some(bytes_per_second);
        self.hurry = Some(hurry);
        self
    }

    /// Compares the body with this as it comes instead of keeping it; a difference is an error of the body.
    pub(crate) fn expect(mut self, body: &Bytes) -> Self {
        self.expected = Some(body.clone());
        self
    }

    /// The pipeline's answer, its body unread.
    pub(crate) async fn answer(&self) -> Result<Answer, Fault> {
        let (path, query) = self
            .target
            .split_once('?')
            .map_or((self.target.as_str(), None), |(path, query)| {
                (path, Some(query))
            });
        let request = ArtifactRequest {
            repository: &self.repository,
            raw_path: path,
            query,
            method: &self.method,
            headers: &self.headers,
            principal: Principal::Anonymous,
            mount: Mount::api(
                "http://larder.test",
                RepositoryKind::Remote,
                &self.repository,
            ),
            body: Bytes::new(),
        };
        self.engine.read(request).await
    }

    pub(crate) async fn run(self) -> Result<Got, Fault> {
        let answer = self.answer().await?;
        let mut head = Head {
            status: answer.status.as_u16(),
            source: answer.source,
            cache_status: answer.cache_status.to_string(),
            representation: answer.representation,
            freshness: answer.freshness,
            location: answer.location,
            hot: answer.hot.is_some(),
            range: None,
            in_flight: false,
        };
        let body = answer.body.into_inner();
        if let Body::Growing(flight) = &body {
            head.in_flight = true;
            if head.representation.length.is_none()
                && self.headers.contains_key("range")
                && self.method == Method::GET
            {
                // Which bytes are meant is known at the end only.
                head.representation.length = Some(flight.wait_length().await?);
            }
        }
        let bodiless = self.select(&mut head, &body);
        let mut first_byte = Instant::now();
        let body = if bodiless || self.method == Method::HEAD {
            Ok(Bytes::new())
        } else {
            self.read(stream(body, head.range), &mut first_byte).await
        };
        Ok(Got {
            answer: head,
            body,
            first_byte,
        })
    }

    /// Applies conditions and a single range; `true` if there is no body.
    fn select(&self, head: &mut Head, body: &Body) -> bool {
        if head.status != 200 || !body.is_seekable() {
            return false;
        }
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let conditions = Conditions {
            if_none_match: text("if-none-match"),
            if_modified_since: text("if-modified-since"),
            if_match: text("if-match"),
            if_unmodified_since: text("if-unmodified-since"),
            if_range: text("if-range"),
            range: text("range"),
        };
        let of = head.representation.clone();
        let current = Current {
            etag: of.etag.as_deref(),
            last_modified: of.last_modified.as_deref(),
            served_since: of.served_since,
        };
        match evaluate_conditions(&conditions, &current) {
            Precondition::Proceed => {}
            Precondition::NotModified => head.status = 304,
            Precondition::Failed => head.status = 412,
        }
        if head.status != 200 {
            return true;
        }
        let Some(length) = head
            .representation
            .length
            .filter(|_| self.method == Method::GET)
        else {
            return false;
        };
        match evaluate_range(&conditions, &current, length) {
            RangeAnswer::Whole => {}
            RangeAnswer::Single(range) => (head.status, head.range) = (206, Some(range)),
            RangeAnswer::NotSatisfiable => head.status = 416,
            RangeAnswer::Multiple(_) => panic!("this client reads single ranges"),
        }
        head.status == 416
    }

    async fn read(mut self, mut stream: Chunks, first_byte: &mut Instant) -> Result<Bytes, String> {
        let mut all = Vec::new();
        let mut position = 0_usize;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| error.to_string())?;
            if position == 0 {
                *first_byte = Instant::now();
            }
            match &self.expected {
                None => all.extend_from_slice(&chunk),
                Some(expected)
                    if expected.get(position..position + chunk.len()) == Some(&chunk[..]) => {}
                Some(_) => panic!(
                    "wrong bytes between {position} and {}",
                    position + chunk.len()
                ),
            }
            position += chunk.len();
            if self
                .leave_after
                .is_some_and(|limit| position as u64 >= limit)
            {
                return Err("left".to_owned());
            }
            if let (Some(pace), Some(hurry)) = (self.pace, &mut self.hurry) {
                let pause = Duration::from_secs_f64(chunk.len() as f64 / pace as f64);
                // What is played here is a slow client, over real sockets.
                tokio::select! { () = tokio::time::sleep(pause) => {}, _ = hurry.wait_for(|hurry| *hurry) => self.pace = None }
            }
        }
        match &self.expected {
            Some(expected) if expected.len() != position => {
                panic!("{position} of {} bytes ended well", expected.len())
            }
            _ => Ok(all.into()),
        }
    }
}

fn stream(body: Body, range: Option<ByteRange>) -> Chunks {
    let part = match range {
        Some(range) => body.range(range.start, range.end + 1).unwrap(),
        None => body,
    };
    match part {
        Body::File {
            file,
            offset,
            length,
        } => in_place(file, offset..offset + length),
        other => other.chunks(),
    }
}

/// A file, read where it is asked for. The server reads files in frames of which all have one bound (or not at all: `sendfile`); hundreds
/// of readers here that each had a thread of their own and a buffer waiting to be taken would be what a test measures of memory.
fn in_place(file: Arc<File>, part: Range<u64>) -> Chunks {
    const STEP: u64 = 64 << 10;
    Box::pin(futures_util::stream::unfold(
        (file, part),
        |(file, part): (Arc<File>, Range<u64>)| async move {
            if part.is_empty() {
                return None;
            }
            // As a socket would, it lets others have their turn.
            tokio::task::yield_now().await;
            let mut buffer = vec![0; (part.end - part.start).min(STEP) as usize];
            let read = file.read_exact_at(&mut buffer, part.start);
            let next = match &read {
                Ok(()) => part.start + buffer.len() as u64..part.end,
                Err(_) => part.end..part.end,
            };
            Some((read.map(|()| Bytes::from(buffer)), (file, next)))
        },
    ))
}

pub(crate) async fn ask(
    engine: &Arc<Engine>,
    method: Method,
    repository: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Result<Got, Fault> {
    let mut client = Client::new(engine, repository, target).method(method);
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        client
            .headers
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    client.run().await
}

/// A whole body.
pub(crate) async fn read(body: Body) -> Result<Bytes, String> {
    let mut stream = stream(body, None);
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
    }
    Ok(all.into())
}
