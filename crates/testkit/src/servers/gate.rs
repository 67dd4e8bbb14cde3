//! A gate in front of a server, which passes everything on until it is told to misbehave as networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections are taken and reset at once.
    Closed,
    /// Connections stay, and nothing moves.
    Stalled,
    /// Connections stay, and what is sent on them is lost; they are dead for good.
    Swallowed,
    /// Each connection is reset when so many bytes of answers have passed.
    Cut(u64),
    /// The same of requests.
    CutRequests(u64),
    /// Of each connection one byte of the answers is changed, after so many.
    Spoilt(u64),
    /// Each request is answered with 503, as a store does that has too much to do. Older connections are reset.
    Refusing,
    /// Everything passes, so many bytes a second on each way of each connection.
    Slow(u64),
}

impl Way {
    /// Whether connections that there are have to go.
    fn ends_connections(self) -> bool {
        matches!(self, Self::Closed | Self::Refusing)
    }
}

/// What a store says that has too much to do (AWS, "Error responses": `SlowDown`).
const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

/// A gate on a loopback port of its own.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    way: watch::Sender<Way>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    resets: AtomicUsize,
    connections: AtomicUsize,
    answered: AtomicU64,
    asked: AtomicU64,
}

impl Shared {
    fn count(&self, are_answers: bool, bytes: u64) {
        let carried = if are_answers {
            &self.answered
        } else {
            &self.asked
        };
        carried.fetch_add(bytes, Ordering::SeqCst);
    }
}

impl Gate {
    /// A gate to `target` (host and port), which lets everything pass.
    ///
    /// # Panics
    /// No port is free.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (way, ways) = watch::channel(Way::Open);
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            resets: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, ways, Arc::clone(&shared)));
        Self {
            address,
            way,
            shared,
            task,
        }
    }

    /// Host and port.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Everything passes.
    pub fn open(&self) {
        self.way.send_replace(Way::Open);
    }

    /// Connections are reset, those that there are too.
    pub fn close(&self) {
        self.way.send_replace(Way::Closed);
    }

    /// Nothing moves any more, and nobody is told. When the gate opens, what was sent meanwhile arrives.
    pub fn stall(&self) {
        self.way.send_replace(Way::Stalled);
    }

    /// As a network that has lost a host: what is sent vanishes, and connections on which something was sent stay dead.
    pub fn swallow(&self) {
        self.way.send_replace(Way::Swallowed);
    }

    /// From now on each connection is reset after so many bytes of answers.
    pub fn cut_after(&self, bytes: u64) {
        self.way.send_replace(Way::Cut(bytes));
    }

    /// From now on each connection is reset after so many bytes of requests: in the midst of what is being put.
    pub fn cut_requests_after(&self, bytes: u64) {
        self.way.send_replace(Way::CutRequests(bytes));
    }

    /// From now on one byte of each connection's answers is changed, after so many.
    pub fn spoil_after(&self, bytes: u64) {
        self.way.send_replace(Way::Spoilt(bytes));
    }

    /// From now on each request is answered with 503 and `SlowDown`.
    pub fn refuse(&self) {
        self.way.send_replace(Way::Refusing);
    }

    /// From now on so many bytes pass in a second, each way of each connection.
    pub fn slow_down(&self, bytes: u64) {
        self.way.send_replace(Way::Slow(bytes));
    }

    /// Connections that it has reset.
    pub fn resets(&self) -> usize {
        self.shared.resets.load(Ordering::SeqCst)
    }

    /// Connections that have come.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes of answers that have passed.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Bytes of requests that have passed.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, ways: watch::Receiver<Way>, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(pass(client, ways.clone(), Arc::clone(&shared)));
    }
}

async fn pass(client: TcpStream, ways: watch::Receiver<Way>, shared: Arc<Shared>) {
    if *ways.borrow() == Way::Closed {
        let _ = client.set_zero_linger();
        shared.resets.fetch_add(1, Ordering::SeqCst);
        return;
    }
    if *ways.borrow() == Way::Swallowed {
        return swallow(client).await;
    }
    if *ways.borrow() == Way::Refusing {
        return refuse(client).await;
    }
    let Ok(server) = TcpStream::connect(&shared.target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let answers = carry((from_server, to_client), ways.clone(), &shared, true);
    let requests = carry((from_client, to_server), ways, &shared, false);
    if tokio::try_join!(answers, requests).is_err() {
        shared.resets.fetch_add(1, Ordering::SeqCst);
    }
}

/// Takes what comes, and says nothing, until the client gives up.
async fn swallow(mut from: impl AsyncRead + Unpin) {
    let mut buffer = [0; 4 << 10];
    while let Ok(1..) = from.read(&mut buffer).await {}
}

/// Answers one request when all of it has come.
async fn refuse(mut client: TcpStream) {
    let (mut request, mut buffer) = (Vec::new(), vec![0; 32 << 10]);
    let mut left: Option<usize> = None;
    while left != Some(0) {
        let Ok(count @ 1..) = client.read(&mut buffer).await else {
            return;
        };
        if let Some(left) = &mut left {
            *left = left.saturating_sub(count);
            continue;
        }
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length:").nth(1);
            let length = length.and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok());
            let come = request.len() - head.len() - 4;
            left = Some(length.unwrap_or(0_usize).saturating_sub(come));
        }
    }
    let answer = format!(
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{SLOW_DOWN}",
        SLOW_DOWN.len()
    );
    let _ = client.write_all(answer.as_bytes()).await;
    let _ = client.shutdown().await;
}

/// The connection was reset.
struct Reset;

/// Carries bytes one way until their end.
async fn carry(
    (mut from, mut to): (OwnedReadHalf, OwnedWriteHalf),
    mut ways: watch::Receiver<Way>,
    shared: &Shared,
    are_answers: bool,
) -> Result<(), Reset> {
    let mut buffer = vec![0; 32 << 10];
    let (mut passed, mut is_spoilt) = (0, false);
    let mut closings = ways.clone();
    let reset = |to: &OwnedWriteHalf| {
        let _ = to.as_ref().set_zero_linger();
        Reset
    };
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            Ok(_) = closings.wait_for(|way| way.ends_connections()) => return Err(reset(&to)),
        };
        let Ok(count) = read else {
            return Err(reset(&to));
        };
        if count == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        if ways.wait_for(|way| *way != Way::Stalled).await.is_err() {
            return Err(Reset);
        }
        let way = *ways.borrow();
        if way == Way::Swallowed {
            swallow(from).await;
            return std::future::pending().await;
        }
        let mut bytes = &mut buffer[..count];
        match way {
            Way::Cut(most) | Way::CutRequests(most)
                if are_answers == matches!(way, Way::Cut(_)) && passed + count as u64 >= most =>
            {
                let fits = most.saturating_sub(passed) as usize;
                bytes = &mut bytes[..fits];
            }
            Way::Spoilt(at) if are_answers && !is_spoilt && passed + count as u64 > at => {
                let at = at.saturating_sub(passed) as usize;
                bytes[at] ^= 1;
                is_spoilt = true;
            }
            Way::Slow(rate) => {
                tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
            }
            _ => {}
        }
        let kept = bytes.len();
        if to.write_all(bytes).await.is_err() {
            return Err(Reset);
        }
        passed += kept as u64;
        shared.count(are_answers, kept as u64);
        if kept < count {
            // What has been written is on its way before the reset overtakes it.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Err(reset(&to));
        }
    }
}
