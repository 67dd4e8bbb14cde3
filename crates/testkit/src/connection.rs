//! One client connection: read a request, make a plan, carry it out, go on or close.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::origin::Shared;
use crate::plan::{Event, Framing, Plan, plan};
use crate::request::RecordedRequest;
use crate::wire::read_request;

/// Largest piece written at once.
const PIECE: u64 = 64 * 1024;

/// What becomes of the connection.
#[derive(PartialEq, Eq)]
enum Next {
    KeepAlive,
    Close,
    Reset,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    mut socket: TcpStream,
    shared: &Shared,
    number: u64,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    while let Some(request) = read_request(&mut socket, &mut buffer, number).await? {
        let (resource, behaviours, gates) = shared.take(&request);
        shared.pass_gate(&request, None).await;
        let mut plan = plan(&request, resource.as_ref(), &behaviours);
        plan.events
            .extend(gates.into_iter().map(|after| (after, Event::Gate)));
        plan.events.sort_by_key(|(at, _)| *at);
        match respond(&mut socket, &plan, shared, &request).await? {
            Next::KeepAlive => {}
            Next::Close => break,
            Next::Reset => {
                socket.set_zero_linger()?;
                return Ok(());
            }
        }
    }
    // A clean end: FIN first, then wait for the peer, so that unread input does not turn the close into a reset.
    socket.shutdown().await?;
    let mut sink = BytesMut::with_capacity(4096);
    let drain = async {
        while tokio::io::AsyncReadExt::read_buf(&mut socket, &mut sink)
            .await
            .is_ok_and(|n| n > 0)
        {
            sink.clear();
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
    Ok(())
}

async fn respond(
    socket: &mut TcpStream,
    plan: &Plan,
    shared: &Shared,
    request: &RecordedRequest,
) -> std::io::Result<Next> {
    if let Some(pause) = plan.stall {
        tokio::time::sleep(pause).await;
    }
    if plan.reset {
        return Ok(Next::Reset);
    }
    if let Some(garbage) = &plan.garbage {
        socket.write_all(garbage).await?;
        return Ok(Next::Close);
    }
    socket.write_all(head(plan).as_bytes()).await?;
    let next = match &plan.body {
        Some(_) => send_body(socket, plan, shared, request).await?,
        None => Next::KeepAlive,
    };
    if let (Next::KeepAlive, Some(surplus)) = (&next, &plan.surplus) {
        socket.write_all(surplus).await?;
    }
    Ok(
        if next == Next::KeepAlive && (plan.close || plan.framing == Framing::UntilClose) {
            Next::Close
        } else {
            next
        },
    )
}

fn head(plan: &Plan) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", plan.status, reason(plan.status));
    let mut line = |name: &str, value: &str| {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    };
    for (name, value) in &plan.headers {
        line(name, value);
    }
    let own_framing = plan
        .headers
        .iter()
        .any(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    match plan.framing {
        Framing::Length(n) if plan.status != 304 && !own_framing => {
            line("Content-Length", &n.to_string());
        }
        Framing::Chunked if plan.status != 304 => line("Transfer-Encoding", "chunked"),
        _ => {}
    }
    if plan.close || plan.framing == Framing::UntilClose {
        line("Connection", "close");
    }
    head.push_str("\r\n");
    head
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

async fn send_body(
    socket: &mut TcpStream,
    plan: &Plan,
    shared: &Shared,
    request: &RecordedRequest,
) -> std::io::Result<Next> {
    let Some((payload, start, end)) = &plan.body else {
        return Ok(Next::KeepAlive);
    };
    let length = end - start;
    let began = tokio::time::Instant::now();
    let mut events = plan.events.iter().peekable();
    let mut sent = 0;
    loop {
        while let Some((_, event)) = events.next_if(|(at, _)| *at <= sent) {
            match event {
                Event::Pause(pause) => tokio::time::sleep(*pause).await,
                Event::Gate => shared.pass_gate(request, Some(sent)).await,
                Event::Close => return Ok(Next::Close),
                Event::Reset => {
                    socket.flush().await?;
                    // Gives the peer a moment to read what was sent: a reset discards its unread input.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return Ok(Next::Reset);
                }
            }
        }
        if sent == length {
            break;
        }
        let until = events.peek().map_or(length, |(at, _)| (*at).min(length));
        let pace = plan
            .throttle
            .map_or(PIECE, |rate| (rate / 50).clamp(1, PIECE));
        let piece = payload.slice(start + sent, pace.min(until - sent));
        write_piece(socket, &piece, plan.framing).await?;
        sent += piece.len() as u64;
        if let Some(rate) = plan.throttle {
            tokio::time::sleep_until(began + Duration::from_secs_f64(sent as f64 / rate as f64))
                .await;
        }
    }
    if plan.framing == Framing::Chunked {
        socket.write_all(b"0\r\n\r\n").await?;
    }
    Ok(Next::KeepAlive)
}

async fn write_piece(
    socket: &mut TcpStream,
    piece: &[u8],
    framing: Framing,
) -> std::io::Result<()> {
    if framing == Framing::Chunked {
        socket
            .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
            .await?;
        socket.write_all(piece).await?;
        return socket.write_all(b"\r\n").await;
    }
    socket.write_all(piece).await
}
