//! Spans of traces: what is done for a request, from when to when, told to whoever records them. While nobody does, a span costs one look
//! at a flag.
//!
//! Names are those of W3C Trace Context and of OpenTelemetry's semantic conventions.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

thread_local! {
    /// What this thread is doing at this moment.
    static CURRENT: Cell<Option<SpanContext>> = const { Cell::new(None) };
}

static IS_ON: AtomicBool = AtomicBool::new(false);
static RECORDING: OnceLock<Recording> = OnceLock::new();

struct Recording {
    recorder: Box<dyn SpanRecorder>,
    sample: f64,
}

/// Takes the spans of this process.
pub trait SpanRecorder: Send + Sync {
    /// Takes a span that has ended. Called by whoever did the work: it must not wait.
    fn record(&self, span: EndedSpan);
}

/// From now on the spans of `sample` (0 to 1) of the requests that nobody has decided about before are told to `recorder`. The first call
/// in a process counts.
pub fn record_spans(recorder: Box<dyn SpanRecorder>, sample: f64) {
    let recording = Recording { recorder, sample };
    if RECORDING.set(recording).is_ok() {
        IS_ON.store(true, Ordering::Release);
    }
}

fn recording() -> Option<&'static Recording> {
    IS_ON.load(Ordering::Relaxed).then(|| RECORDING.get())?
}

/// Which span something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    trace: u128,
    span: u64,
    is_sampled: bool,
}

impl SpanContext {
    /// What this thread is doing at this moment.
    pub fn current() -> Option<Self> {
        recording().and_then(|_| CURRENT.get())
    }

    /// Does `work`, which is no more than one poll, as part of `context`.
    pub fn while_current<R>(context: Option<Self>, work: impl FnOnce() -> R) -> R {
        struct Before(Option<SpanContext>);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _before = Before(CURRENT.replace(context));
        work()
    }

    /// Reads the field `traceparent` (W3C Trace Context, version 00; of later ones what this version knows).
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        let is_hex = |part: &str, length: usize| {
            let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            part.len() == length && part.bytes().all(legal)
        };
        let is_whole = is_hex(version, 2)
            && is_hex(trace, 32)
            && is_hex(span, 16)
            && is_hex(flags, 2)
            && version != "ff"
            && (version != "00" || parts.next().is_none());
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            is_sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (is_whole && context.trace != 0 && context.span != 0).then_some(context)
    }

    fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// As the field `traceparent` has it.
impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// On which side of an exchange a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// An answer to a client.
    Server,
    /// A question to another service.
    Client,
}

/// What a span says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanValue {
    /// A text.
    Text(String),
    /// A number.
    Integer(i64),
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedSpan {
    /// The trace: 32 hexadecimal digits.
    pub trace_id: String,
    /// The span: 16 hexadecimal digits.
    pub span_id: String,
    /// The span that it is part of; empty if it is the first.
    pub parent_id: String,
    /// What was done, in few words.
    pub name: String,
    /// On which side of an exchange it is.
    pub kind: SpanKind,
    /// When it began: since 1970.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// What it says of itself.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// A span that is under way. Without [`end`](Self::end) it is told to nobody.
#[derive(Debug)]
pub struct Span {
    context: SpanContext,
    parent: u64,
    name: String,
    kind: SpanKind,
    began: Duration,
    begun: Instant,
    attributes: Vec<(&'static str, SpanValue)>,
    error: Option<String>,
}

impl Span {
    /// That of a request whose client has sent `traceparent`, or nothing that can be read: then it begins a trace of its own, or is not
    /// recorded, as chance and the setting have it. `None` while nobody records; then nobody looks for the field.
    pub fn of_request<'f>(traceparent: impl FnOnce() -> Option<&'f str>) -> Option<Self> {
        let recording = recording()?;
        let parent = traceparent().and_then(SpanContext::parse);
        let context = match parent {
            Some(parent) => SpanContext {
                span: number(),
                ..parent
            },
            None => SpanContext {
                trace: (u128::from(number()) << 64) | u128::from(number()),
                span: number(),
                is_sampled: (number() as f64) < recording.sample * u64::MAX as f64,
            },
        };
        let parent = parent.map_or(0, |parent| parent.span);
        Some(Self::new(context, parent, String::new(), SpanKind::Server))
    }

    /// One that is part of what is done at this moment; `None` if that is not recorded.
    pub fn child(name: &str, kind: SpanKind) -> Option<Self> {
        let parent = SpanContext::current().filter(|parent| parent.is_sampled)?;
        let context = SpanContext {
            span: number(),
            ..parent
        };
        Some(Self::new(context, parent.span, name.to_owned(), kind))
    }

    fn new(context: SpanContext, parent: u64, name: String, kind: SpanKind) -> Self {
        Self {
            context,
            parent,
            name,
            kind,
            began: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
            begun: Instant::now(),
            attributes: Vec::new(),
            error: None,
        }
    }

    /// Which span this is, for what is part of it.
    pub fn context(&self) -> SpanContext {
        self.context
    }

    /// From now on it has this name.
    pub fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// Says a text of it.
    pub fn say(&mut self, key: &'static str, value: impl Into<String>) {
        self.attributes.push((key, SpanValue::Text(value.into())));
    }

    /// Says a number of it.
    pub fn count(&mut self, key: &'static str, value: i64) {
        self.attributes.push((key, SpanValue::Integer(value)));
    }

    /// It has failed.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.error = Some(why.into());
    }

    /// It ends now.
    pub fn end(self) {
        let Some(recording) = recording().filter(|_| self.context.is_sampled) else {
            return;
        };
        let parent_id = match self.parent {
            0 => String::new(),
            parent => format!("{parent:016x}"),
        };
        recording.recorder.record(EndedSpan {
            trace_id: self.context.trace_id(),
            span_id: format!("{:016x}", self.context.span),
            parent_id,
            name: self.name,
            kind: self.kind,
            began: self.began,
            took: self.begun.elapsed(),
            attributes: self.attributes,
            error: self.error,
        });
    }

    /// Polls `work`, which had better be small (a pointer to something large), as part of this span, and ends the span with it: `tell` says of it what came out. Work that is given up ends its span
    /// as a failure.
    pub async fn around<F: Future>(
        self,
        work: F,
        tell: impl FnOnce(&mut Self, &F::Output),
    ) -> F::Output {
        struct Ending(Option<Span>);
        impl Drop for Ending {
            fn drop(&mut self) {
                if let Some(mut span) = self.0.take() {
                    span.fail("given up");
                    span.end();
                }
            }
        }
        let context = Some(self.context);
        let mut ending = Ending(Some(self));
        let mut work = pin!(work);
        let poll = |cx: &mut std::task::Context<'_>| {
            SpanContext::while_current(context, || work.as_mut().poll(cx))
        };
        let output = poll_fn(poll).await;
        if let Some(mut span) = ending.0.take() {
            tell(&mut span, &output);
            span.end();
        }
        output
    }
}

/// Any number but 0.
fn number() -> u64 {
    // Keyed at random for each process and each call.
    RandomState::new().hash_one(0_u8).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// The example of W3C Trace Context, section 3.2.2.5.
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    static RECORDED: Mutex<Vec<EndedSpan>> = Mutex::new(Vec::new());

    struct Kept;

    impl SpanRecorder for Kept {
        fn record(&self, span: EndedSpan) {
            RECORDED.lock().unwrap().push(span);
        }
    }

    /// One test for what is one for the process.
    #[test]
    fn spans_are_recorded_as_the_client_has_decided_and_know_what_they_are_part_of() {
        let asked = Span::of_request(|| panic!("nobody looks"));
        assert!(asked.is_none(), "nobody records");
        assert_eq!(SpanContext::current(), None);
        record_spans(Box::new(Kept), 1.0);
        let mut request = Span::of_request(|| Some(PARENT)).unwrap();
        assert!(Span::child("alone", SpanKind::Client).is_none());
        SpanContext::while_current(Some(request.context()), || {
            let mut child = Span::child("GET", SpanKind::Client).unwrap();
            child.fail("no answer");
            child.count("http.response.status_code", 502);
            child.end();
        });
        assert_eq!(SpanContext::current(), None);
        request.rename("GET files".to_owned());
        request.end();
        let trace = |span: &EndedSpan| span.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736";
        let of_trace = || {
            let recorded = RECORDED.lock().unwrap().clone();
            recorded.into_iter().filter(trace).collect::<Vec<_>>()
        };
        let [child, request] = &of_trace()[..] else {
            panic!("two spans")
        };
        assert_eq!(request.parent_id, "00f067aa0ba902b7");
        assert_eq!(child.parent_id, request.span_id);
        assert_eq!((&*child.name, child.kind), ("GET", SpanKind::Client));
        assert_eq!(child.error.as_deref(), Some("no answer"));
        let status = ("http.response.status_code", SpanValue::Integer(502));
        assert_eq!(child.attributes, [status]);

        // The client has decided that it is not recorded: what follows hears of that.
        let silent = PARENT.replace("-01", "-00");
        let request = Span::of_request(|| Some(&silent)).unwrap();
        let context = request.context();
        assert!(context.to_string().ends_with("-00"));
        SpanContext::while_current(Some(context), || {
            assert!(Span::child("GET", SpanKind::Client).is_none());
            assert_eq!(SpanContext::current(), Some(context));
        });
        request.end();
        assert_eq!(of_trace().len(), 2);
        let own = Span::of_request(|| None).unwrap().context();
        assert!(own.is_sampled && own.trace != 0, "the first of a trace");
    }

    #[test]
    fn only_whole_fields_are_read() {
        assert_eq!(SpanContext::parse(PARENT).unwrap().to_string(), PARENT);
        let later = format!("cc{}-what-comes", &PARENT[2..]);
        assert!(SpanContext::parse(&later).is_some());
        for wrong in [
            "",
            "00",
            &format!("{PARENT}-more"),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &PARENT.replace("4bf9", "+bf9"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            &"-".repeat(60_000),
        ] {
            assert_eq!(SpanContext::parse(wrong), None, "{wrong:.80}");
        }
    }
}
