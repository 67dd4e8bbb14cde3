//! An HTTP/1.1 origin at the level of bytes: sends exactly what it is told, and remembers the raw heads of all requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Counts the origin's connections from 0.
    pub(crate) connection: usize,
    /// Counts the connection's requests from 0.
    pub(crate) nth: usize,
    /// Request line and fields, up to the blank line.
    pub(crate) head: String,
    /// The same, byte for byte.
    pub(crate) raw: Vec<u8>,
}

impl Seen {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Names of all fields, lower case, sorted.
    pub(crate) fn fields(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| Some(line.split_once(':')?.0.to_lowercase()))
            .collect();
        names.sort();
        names
    }
}

/// What the origin does about a request, in this order. At the end it waits for the next request on the same connection.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    Pause(Duration),
    Close,
    Reset,
    Stall,
}

pub(crate) fn send(text: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Act::Send(text.into())]
}

/// 200 with a body and its length.
pub(crate) fn ok(body: &str) -> Vec<Act> {
    send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

pub(crate) fn redirect(status: u16, location: &str) -> Vec<Act> {
    send(format!(
        "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    ))
}

type Script = dyn Fn(&Seen) -> Vec<Act> + Send + Sync;

pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(crate) async fn start_at(
        addr: SocketAddr,
        script: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, connections) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicUsize::new(0)),
        );
        let script: Arc<Script> = Arc::new(script);
        let (log, count) = (Arc::clone(&seen), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, number, Arc::clone(&log), Arc::clone(&script)));
            }
        });
        Self {
            addr,
            seen,
            connections,
            task,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self, path: &str) -> url::Url {
        url::Url::parse(&format!("http://{}{path}", self.addr)).unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    log: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
) {
    let mut buffer = Vec::new();
    for nth in 0.. {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        };
        let raw: Vec<u8> = buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&raw).into_owned();
        let seen = Seen {
            connection,
            nth,
            head,
            raw,
        };
        let length = seen
            .field("content-length")
            .map_or(0, |text| text.parse().unwrap());
        while buffer.len() < length {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        buffer.drain(..length);
        log.lock().unwrap().push(seen.clone());
        for act in script(&seen) {
            match act {
                Act::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Act::Pause(time) => tokio::time::sleep(time).await,
                Act::Close => return,
                Act::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
                Act::Stall => std::future::pending().await,
            }
        }
    }
}

/// 401 with this `WWW-Authenticate`.
pub(crate) fn unauthorized(challenge: &str) -> Vec<Act> {
    send(format!(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 2\r\n\r\n{{}}"
    ))
}
