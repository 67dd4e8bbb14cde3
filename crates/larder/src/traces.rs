//! Traces to an OpenTelemetry collector: OTLP over HTTP with JSON, as the OpenTelemetry protocol specification 1.x has it.
//!
//! Spans wait in a bounded queue, are sent in batches, and are dropped where the collector does not take them: traces are for people who
//! look for what takes long, and nothing waits for them (docs/adr/0092).

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder::config::Tracing;
use larder_core::{EndedSpan, Pseudonym, SpanKind, SpanRecorder, SpanValue, record_spans};
use larder_upstream::Collector;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// Spans that wait to be sent. What comes while there are more is dropped.
const QUEUE: usize = 4_096;
/// Spans of one request to the collector, and how long the first of them waits for others.
const BATCH: usize = 512;
const PAUSE: Duration = Duration::from_secs(2);
/// How long the end of the process waits for the last of them.
const LAST: Duration = Duration::from_secs(2);
/// Where the collector takes nothing, the log says so this often at most.
const TELL_EVERY: Duration = Duration::from_mins(5);
/// By the specification's numbers.
const KIND_SERVER: u8 = 2;
const KIND_CLIENT: u8 = 3;
const STATUS_ERROR: u8 = 2;

/// Does `work` with its spans sent to a collector, where one is configured, and sends the last of them. Must be polled within a Tokio
/// runtime.
///
/// # Errors
/// Those of `work`, and the TLS library cannot be used.
pub(crate) async fn recorded(
    settings: Option<&Tracing>,
    version: &'static str,
    work: impl Future<Output = Result<(), Box<dyn Error>>>,
) -> Result<(), Box<dyn Error>> {
    let traces = match settings {
        Some(settings) => Some(Traces::start(settings, version)?),
        None => None,
    };
    let done = work.await;
    if let Some(traces) = traces {
        traces.flush().await;
    }
    done
}

/// The way of spans to the collector.
struct Traces {
    queue: mpsc::Sender<Message>,
}

enum Message {
    Span(Box<EndedSpan>),
    /// All before it is to be sent now.
    Flush(oneshot::Sender<()>),
}

struct Queue {
    queue: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl SpanRecorder for Queue {
    fn record(&self, span: EndedSpan) {
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Traces {
    /// Begins to record and to send.
    ///
    /// # Errors
    /// The TLS library cannot be used.
    fn start(settings: &Tracing, version: &'static str) -> Result<Self, String> {
        let collector = Collector::new(settings.traces_url(), &format!("larder/{version}"))?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let sender = Sender {
            collector,
            endpoint: settings.otlp.to_string(),
            resource: resource(version),
            version,
            dropped: Arc::clone(&dropped),
            told: Mutex::default(),
        };
        tokio::spawn(sender.run(messages));
        let recorder = Queue {
            queue: queue.clone(),
            dropped,
        };
        record_spans(Box::new(recorder), settings.sample);
        tracing::info!(
            endpoint = %settings.otlp,
            sample = settings.sample,
            "traces of requests that are no hits are sent to a collector"
        );
        Ok(Self { queue })
    }

    /// Sends what waits, for a moment at most.
    async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = is_done.await;
            }
        };
        // What is not sent by then is lost, as the process ends.
        let _ = timeout(LAST, flushed).await;
    }
}

struct Sender {
    collector: Collector,
    endpoint: String,
    resource: Value,
    version: &'static str,
    dropped: Arc<AtomicU64>,
    told: Mutex<Option<Instant>>,
}

impl Sender {
    async fn run(self, mut messages: mpsc::Receiver<Message>) {
        while let Some(first) = messages.recv().await {
            let (mut spans, mut flushed) = (Vec::new(), None);
            let until = Instant::now() + PAUSE;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Span(span) => spans.push(span),
                    Message::Flush(done) => flushed = Some(done),
                }
                if spans.len() == BATCH || flushed.is_some() {
                    break;
                }
                next = timeout_at(until, messages.recv()).await.unwrap_or(None);
            }
            if !spans.is_empty() {
                self.send(&spans).await;
            }
            if let Some(done) = flushed {
                let _ = done.send(());
            }
        }
    }

    async fn send(&self, spans: &[Box<EndedSpan>]) {
        let document = self.document(spans).to_string().into_bytes();
        let lost = match self.collector.post(document).await {
            Ok(()) => None,
            Err(why) => {
                let lost = spans.len() as u64;
                self.dropped.fetch_add(lost, Ordering::Relaxed);
                Some(why)
            }
        };
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped == 0 {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            self.dropped.store(0, Ordering::Relaxed);
            let why = lost.unwrap_or_else(|| "there were more than it took in time".to_owned());
            tracing::warn!(
                endpoint = self.endpoint,
                dropped,
                why,
                "spans of traces are dropped: the collector does not take them"
            );
        }
    }

    /// `ExportTraceServiceRequest` in the protocol's JSON.
    fn document(&self, spans: &[Box<EndedSpan>]) -> Value {
        let spans: Vec<Value> = spans.iter().map(|span| span_json(span)).collect();
        json!({
            "resourceSpans": [{
                "resource": self.resource,
                "scopeSpans": [{
                    "scope": {"name": "larder", "version": self.version},
                    "spans": spans,
                }],
            }],
        })
    }
}

fn resource(version: &str) -> Value {
    // Another one than in `Via`, which nobody else may know.
    let instance = Pseudonym::random().to_string();
    let attributes: Vec<Value> = [
        ("service.name", "larder"),
        ("service.version", version),
        ("service.instance.id", &instance),
    ]
    .into_iter()
    .map(|(key, value)| attribute(key, &SpanValue::Text(value.to_owned())))
    .collect();
    json!({ "attributes": attributes })
}

/// Identifiers are hexadecimal, and numbers of 64 bits are texts: so the protocol has it.
fn span_json(span: &EndedSpan) -> Value {
    let attributes = span.attributes.iter();
    let attributes: Vec<Value> = attributes
        .map(|(key, value)| attribute(key, value))
        .collect();
    let mut shown = json!({
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": match span.kind {
            SpanKind::Server => KIND_SERVER,
            SpanKind::Client => KIND_CLIENT,
        },
        "startTimeUnixNano": nanos(span.began),
        "endTimeUnixNano": nanos(span.began + span.took),
        "attributes": attributes,
    });
    if !span.parent_id.is_empty() {
        shown["parentSpanId"] = json!(span.parent_id);
    }
    if let Some(error) = &span.error {
        shown["status"] = json!({"code": STATUS_ERROR, "message": error});
    }
    shown
}

fn attribute(key: &str, value: &SpanValue) -> Value {
    let value = match value {
        SpanValue::Text(text) => json!({"stringValue": text}),
        SpanValue::Integer(number) => json!({"intValue": number.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn nanos(since_1970: Duration) -> String {
    since_1970.as_nanos().to_string()
}
