//! Upstreams that take what they get and give next to nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How it treats who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// It takes the request and says nothing.
    Silent,
    /// It promises four megabytes and sends a byte a second.
    Drips,
    /// It sends this many bytes as fast as they are taken.
    Sends(u64),
    /// It sends [`Upstream::WHOLE`] bytes, and others than before.
    Whole,
}

/// Such an upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    /// Requests that have come in, and those whose connections are open.
    asked: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    /// Whether it does as it should from now on.
    cured: Arc<watch::Sender<bool>>,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// The length of what it sends once it is cured, in bytes.
    pub(crate) const WHOLE: usize = 3_000_000;

    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let cured = Arc::new(watch::Sender::new(false));
        let counts = (Arc::clone(&asked), Arc::clone(&open), Arc::clone(&cured));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let (asked, open) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
                let mut cured = counts.2.subscribe();
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::AcqRel);
                    let manner = if *cured.borrow() {
                        Manner::Whole
                    } else {
                        manner
                    };
                    let is_cured = cured.wait_for(|cured| *cured);
                    if matches!(manner, Manner::Whole) {
                        serve(socket, manner, &asked).await;
                    } else {
                        tokio::select! {
                            () = serve(socket, manner, &asked) => {}
                            _ = is_cured => {}
                        }
                    }
                    open.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self {
            address,
            asked,
            open,
            cured,
            serving,
        }
    }

    /// An entry of `remotes`.
    pub(crate) fn entry(&self, name: &str, package: &str, keys: &str) -> String {
        format!(
            "  {name}:\n    package: {package}\n    base_url: 'http://{}/{name}/'\n{keys}",
            self.address
        )
    }

    /// It breaks off what it sends, and does as it should from now on.
    pub(crate) fn cure(&self) {
        self.cured.send_replace(true);
    }

    /// Requests that have come in.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut socket: TcpStream, manner: Manner, asked: &AtomicUsize) {
    let mut seen = Vec::new();
    let mut buffer = [0; 2048];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => seen.extend_from_slice(&buffer[..read]),
        }
    }
    asked.fetch_add(1, Ordering::AcqRel);
    let (mut reading, mut writing) = socket.into_split();
    let sending = async {
        match manner {
            Manner::Silent => std::future::pending().await,
            Manner::Drips => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\nContent-Type: application/octet-stream\r\n\r\n";
                writing.write_all(head.as_bytes()).await?;
                loop {
                    writing.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Manner::Whole => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    Upstream::WHOLE
                );
                writing.write_all(head.as_bytes()).await?;
                writing.write_all(&vec![b'y'; Upstream::WHOLE]).await
            }
            Manner::Sends(length) => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: application/octet-stream\r\n\r\n"
                );
                writing.write_all(head.as_bytes()).await?;
                let piece = vec![b'x'; 1 << 16];
                for _ in 0..length >> 16 {
                    writing.write_all(&piece).await?;
                }
                Ok::<_, std::io::Error>(())
            }
        }
    };
    // Whoever leaves is noticed at once.
    tokio::select! {
        _ = sending => {}
        _ = reading.read(&mut buffer) => {}
    }
}
