//! What is said of a server that was to speak TLS and does not: it waits for the end of what it takes for a command, and the time is up.

use std::io;

use redis::ConnectionAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::CONNECT;

/// Whether the server at an address that TLS is to be spoken to answers without. It is told nothing but `PING`.
pub(super) async fn answers_without_tls(address: &ConnectionAddr) -> bool {
    let ConnectionAddr::TcpTls { host, port, .. } = address else {
        return false;
    };
    let ask = async {
        let mut stream = TcpStream::connect((&**host, *port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut first = [0];
        stream.read_exact(&mut first).await?;
        Ok::<_, io::Error>(first)
    };
    // `+PONG`, or `-NOAUTH` and the like.
    matches!(timeout(CONNECT, ask).await, Ok(Ok([b'+' | b'-'])))
}
