//! What an error of the HTTP library means. The library's own messages are not shown: they hold whole URLs.

use std::error::Error;
use std::io;

use crate::cause::Cause;
use crate::error::UpstreamErrorKind;
use crate::handshake;
use crate::lookups::Unresolved;
use crate::resolver::OutOfReach;

/// A failure in our own words.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: UpstreamErrorKind,
    /// For users.
    pub(crate) text: String,
    /// The connection died without an answer, or what came was none: on a kept connection that may be what an earlier answer left
    /// behind (hazard S13). Harmless to try again on another.
    pub(crate) connection_lost: bool,
    /// What is wrong with the upstream.
    pub(crate) cause: Option<Cause>,
    /// Why it cannot be reached, in a few words of larder's own; empty where the kind says it all.
    pub(crate) brief: &'static str,
}

impl Failure {
    pub(crate) fn new(kind: UpstreamErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            connection_lost: false,
            cause: kind.usual_cause(),
            brief: "",
        }
    }

    fn because(self, cause: Cause) -> Self {
        Self {
            cause: Some(cause),
            ..self
        }
    }

    fn briefly(self, brief: &'static str) -> Self {
        Self { brief, ..self }
    }
}

/// The error and everything below it. An `io::Error` hides what it wraps from `source`, so that is unpacked by hand.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match wrapped {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref::<E>())
}

/// Why no head arrived.
pub(crate) fn head_failure(error: &reqwest::Error) -> Failure {
    use UpstreamErrorKind::{Protocol, TimedOut, Unreachable};
    if let Some(failure) = name_failure(error) {
        return failure;
    }
    if let Some(tls) = cause::<rustls::Error>(error) {
        let failed = Failure::new(
            Unreachable,
            format!("TLS failed: {}", handshake::explained(tls)),
        )
        .because(Cause::Tls);
        return failed.briefly(handshake::brief(tls));
    }
    // The innermost says most: the outer ones only wrap it.
    let io_errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    let io_kinds: Vec<io::ErrorKind> = io_errors.map(io::Error::kind).collect();
    let io_kind = io_kinds.last().copied();
    if error.is_timeout() {
        let text = if error.is_connect() {
            "connecting took longer than timeouts.connect"
        } else {
            "no answer in time"
        };
        return Failure::new(TimedOut, text);
    }
    if error.is_dns() {
        let unknown =
            Failure::new(Unreachable, "the host name cannot be resolved").because(Cause::Dns);
        return unknown.briefly("its host name cannot be resolved");
    }
    if error.is_connect() {
        return connect_failure(error, &io_kinds);
    }
    if lost_connection(error, io_kind) {
        let closed = Failure::new(
            Unreachable,
            "the connection was closed before an answer came",
        )
        .because(Cause::Cut);
        return Failure {
            connection_lost: true,
            ..closed
        }
        .briefly("it closed the connection");
    }
    if error.is_builder() {
        return Failure::new(Protocol, "this URL cannot be sent over HTTP");
    }
    Failure {
        connection_lost: true,
        ..Failure::new(Protocol, "the answer is not valid HTTP")
    }
}

/// Why there is no connection.
fn connect_failure(error: &reqwest::Error, io_kinds: &[io::ErrorKind]) -> Failure {
    if let Some(refused) = refused_by_proxy(error) {
        return refused;
    }
    // What ends a connection during the handshake comes wrapped in an error of the TLS connector.
    if io_kinds.len() > 1 {
        let text =
            "TLS failed: the connection ended during the handshake; does this port speak TLS?";
        return Failure::new(UpstreamErrorKind::Unreachable, text)
            .because(Cause::Tls)
            .briefly("the TLS handshake failed");
    }
    let io_kind = io_kinds.last().copied();
    let why = match io_kind {
        None | Some(io::ErrorKind::Other) => "the proxy or server gave no usable answer".to_owned(),
        Some(kind) => kind.to_string(),
    };
    Failure::new(
        UpstreamErrorKind::Unreachable,
        format!("cannot connect: {why}"),
    )
    .briefly(brief_of_connecting(io_kind))
}

/// What larder's own resolver has to say of a name.
fn name_failure(error: &reqwest::Error) -> Option<Failure> {
    if cause::<OutOfReach>(error).is_some() {
        return Some(Failure::new(
            UpstreamErrorKind::RefusedAddress,
            "this name leads to a private address; list it in allow_private if larder may go there",
        ));
    }
    cause::<Unresolved>(error).map(|unresolved| {
        Failure::new(UpstreamErrorKind::TimedOut, unresolved.to_string()).because(Cause::Dns)
    })
}

/// A proxy that does not connect to the upstream (RFC 9110 section 9.3.6: any answer to CONNECT but 2xx). The types of the HTTP library's
/// engine are not reachable; integration tests hold its words.
fn refused_by_proxy(error: &reqwest::Error) -> Option<Failure> {
    let leaf = causes(error).last()?.to_string();
    if leaf.contains("proxy authorization required") {
        let text = "the proxy wants a login, or refuses the one that it is given; correct user name and password in `proxy`";
        return Some(
            Failure::new(UpstreamErrorKind::Unreachable, text)
                .because(Cause::Unauthorized)
                .briefly("its proxy wants a login"),
        );
    }
    let refuses = leaf.contains("tunnel error: unsuccessful");
    refuses.then(|| {
        let text = "the proxy refuses to connect to it; its log says why";
        Failure::new(UpstreamErrorKind::Unreachable, text)
            .briefly("its proxy refuses to connect to it")
    })
}

fn brief_of_connecting(io_kind: Option<io::ErrorKind>) -> &'static str {
    match io_kind {
        Some(io::ErrorKind::ConnectionRefused) => "it refuses connections",
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            "there is no route to it"
        }
        Some(io::ErrorKind::TimedOut) => "connecting took too long",
        _ => "no connection could be made",
    }
}

/// The HTTP library's words for a connection that died; its types are not reachable without depending on its engine. Integration tests
/// hold these words.
const LOST: [&str; 5] = [
    "connection closed before message completed",
    "operation was canceled",
    "connection was not ready",
    // HTTP/2: GOAWAY, RST_STREAM.
    "stream error",
    "connection error",
];

fn lost_connection(error: &reqwest::Error, io_kind: Option<io::ErrorKind>) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    if matches!(
        io_kind,
        Some(BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
    ) {
        return true;
    }
    causes(error).last().is_some_and(|leaf| {
        let text = leaf.to_string();
        LOST.iter().any(|known| text.contains(known))
    })
}

/// Why a body broke off.
pub(crate) fn body_failure(error: &reqwest::Error) -> Failure {
    use io::ErrorKind::{InvalidData, InvalidInput, TimedOut};
    match cause::<io::Error>(error).map(io::Error::kind) {
        Some(TimedOut) => Failure::new(
            UpstreamErrorKind::TimedOut,
            "the connection died while the body was read",
        ),
        Some(InvalidData | InvalidInput) => Failure::new(
            UpstreamErrorKind::Protocol,
            "the body's chunked coding is broken",
        ),
        _ => Failure::new(
            UpstreamErrorKind::Truncated,
            "the body was cut before its end",
        ),
    }
}
