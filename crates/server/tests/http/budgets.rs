//! What one client may hold of the server: places among the connections, and bytes that it does not take.

use std::time::{Duration, Instant};

use larder_server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::harness::{Client, Script, Server, Spec, file_of, pattern, settings};
use crate::tls::{connect, write_certificate};

const BIG: &str = "/api/v1/remote/files/big";

async fn with_places(connections: usize) -> Server {
    let mut settings = settings();
    settings.limits.connections = connections;
    Server::with(settings).await
}

/// A client whose connection comes from another address.
async fn from(server: &Server, address: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(format!("{address}:0").parse().unwrap())
        .unwrap();
    Client(socket.connect(server.address).await.unwrap())
}

async fn ask_soon(client: &mut Client, path: &str) -> crate::harness::Answer {
    tokio::time::timeout(Duration::from_secs(1), client.ask("GET", path, &[]))
        .await
        .expect("no answer within a second")
}

#[tokio::test]
async fn hazard_x1_a_hundred_idle_connections_of_one_peer_keep_neither_probes_nor_others_out() {
    let server = with_places(100).await;
    server.script("x", Script::Bytes("x".into(), Spec::default()));
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(server.connect().await);
    }
    for path in ["/live", "/ready", "/health"] {
        assert_eq!(
            ask_soon(&mut server.connect().await, path).await.status,
            200
        );
    }
    let mut other = from(&server, "127.0.0.2").await;
    let target = "/api/v1/remote/files/x";
    assert_eq!(ask_soon(&mut other, target).await.status, 200);
    assert_eq!(
        ask_soon(&mut other, target).await.status,
        200,
        "and it stays"
    );
    // The same peer, too, once some of its own have been idle for a while.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(
        ask_soon(&mut server.connect().await, target).await.status,
        200
    );
}

#[tokio::test]
async fn hazard_x1_while_all_places_are_busy_probes_are_answered_and_others_wait() {
    let server = with_places(1).await;
    server.script("never", Script::Hang);
    server.script("x", Script::Bytes("x".into(), Spec::default()));
    let mut busy = server.connect().await;
    busy.send(b"GET /api/v1/remote/files/never HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    while server.questions() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = ask_soon(&mut server.connect().await, "/live").await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    let mut waiting = server.connect().await;
    waiting
        .send(b"GET /api/v1/remote/files/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        server.questions(),
        1,
        "asked although the one place was taken"
    );
    drop(busy);
    assert_eq!(waiting.answer(false).await.status, 200);
}

#[tokio::test]
async fn hazard_x1_who_finds_no_place_in_time_is_told_when_to_come_back() {
    let server = with_places(1).await;
    server.script("never", Script::Hang);
    let mut busy = server.connect().await;
    busy.send(b"GET /api/v1/remote/files/never HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    while server.questions() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = server.ask("GET", "/api/v1/remote/files/x", &[]).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("5"))
    );
    assert_eq!(answer.json()["code"], "busy");
    assert_eq!(answer.json()["rule"], "limits.connections");
    assert_eq!(server.questions(), 1);
}

/// A server over TLS that cuts off whoever takes less than 64 KiB of an answer in 400 ms.
async fn strict(tls: bool) -> (Server, Option<rustls::pki_types::CertificateDer<'static>>) {
    let folder = tempfile::tempdir().unwrap();
    let (files, root) = write_certificate(folder.path());
    let mut settings = ServerSettings {
        tls: tls.then_some(files),
        ..settings()
    };
    settings.limits.header_timeout = Duration::from_millis(300);
    settings.limits.idle_timeout = Duration::from_millis(300);
    settings.limits.stall_timeout = Duration::from_millis(400);
    settings.limits.stall_bytes = 64 << 10;
    let server = Server::with(settings).await;
    let content = pattern(40_000_000);
    let file = Script::File(file_of(&content), content.len() as u64, Spec::default());
    server.script("big", file);
    server.script("memory", Script::Bytes(content.into(), Spec::default()));
    let slow = (0..300).map(|_| Some("x".repeat(400).into())).collect();
    server.script("slow", Script::Frames(slow, Some(120_000)));
    (server, tls.then_some(root))
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The server has given up the connection: nothing can be written on it any more.
async fn is_cut(stream: &mut TcpStream) -> bool {
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let dead = stream.write_all(b"x").await.is_err();
        tokio::time::sleep(Duration::from_millis(50)).await;
        if dead {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn hazard_x3_a_reader_of_single_bytes_is_cut_off_over_http_1() {
    for path in [BIG, "/api/v1/remote/files/memory"] {
        let (server, _) = strict(false).await;
        let mut client = server.connect().await;
        client.send(request(path).as_bytes()).await;
        let mut byte = [0];
        let until = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < until && client.0.read(&mut byte).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(is_cut(&mut client.0).await, "{path}");
    }
}

#[tokio::test]
async fn hazard_x3_a_reader_of_single_bytes_is_cut_off_over_tls() {
    let (server, root) = strict(true).await;
    let mut stream = connect(&server, &root.unwrap(), b"http/1.1").await.unwrap();
    stream.write_all(request(BIG).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut byte = [0];
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until && stream.read(&mut byte).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_cut(stream.get_mut().0).await);
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_is_served_whole() {
    let (server, _) = strict(false).await;
    let mut client = server.connect().await;
    client.send(request(BIG).as_bytes()).await;
    let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
    while read < 40_000_000 {
        let count = client.0.read(&mut buffer).await.unwrap();
        assert!(count > 0, "cut off after {read} bytes");
        read += count;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// An upstream that drips is not the client's fault: longer than all of them, in less than 64 KiB each 400 ms.
#[tokio::test]
async fn an_answer_that_arrives_slowly_is_not_cut_off() {
    let (server, _) = strict(false).await;
    let answer = server.ask("GET", "/api/v1/remote/files/slow", &[]).await;
    assert!(answer.complete && answer.body.len() == 120_000);
    let (server, root) = strict(true).await;
    let mut h2 = Http2::connect(&server, &root.unwrap(), 1 << 20).await;
    h2.enlarge(0, 1 << 20).await;
    h2.get(1, "/api/v1/remote/files/slow").await;
    assert_eq!(h2.until_end(1).await, End::Whole(120_000));
}

#[tokio::test]
async fn hazard_x3_a_stream_with_a_window_of_one_byte_is_reset_and_the_others_go_on() {
    let (server, root) = strict(true).await;
    for path in [BIG, "/api/v1/remote/files/memory"] {
        let mut h2 = Http2::connect(&server, root.as_ref().unwrap(), 1).await;
        h2.get(1, path).await;
        let started = Instant::now();
        let end = loop {
            assert!(
                started.elapsed() < Duration::from_secs(5),
                "{path} is not cut"
            );
            h2.enlarge(1, 1).await;
            if let Ok(end) = tokio::time::timeout(Duration::from_millis(20), h2.until_end(1)).await
            {
                break end;
            }
        };
        // RFC 9113 section 7: CANCEL.
        assert_eq!(end, End::Reset(8), "{path}");
        assert!(started.elapsed() > Duration::from_millis(350), "{path}");
        h2.get(3, "/live").await;
        h2.enlarge(3, 1_000).await;
        assert!(matches!(h2.until_end(3).await, End::Whole(1..)), "{path}");
    }
}

/// How a stream ended: with so many bytes, or by a reset with this code.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole(usize),
    Reset(u32),
}

/// A client of HTTP/2 that writes its own frames (RFC 9113 section 6).
struct Http2 {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
    bytes: usize,
}

impl Http2 {
    async fn connect(
        server: &Server,
        root: &rustls::pki_types::CertificateDer<'static>,
        window: u32,
    ) -> Self {
        let stream = connect(server, root, b"h2").await.unwrap();
        let mut client = Self {
            stream,
            read: Vec::new(),
            bytes: 0,
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.stream.write_all(preface).await.unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE.
        let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
        client.frame(4, 0, 0, &setting).await;
        client
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// HEADERS with END_HEADERS and END_STREAM; fields by RFC 7541 section 6, without Huffman coding.
    async fn get(&mut self, stream: u32, path: &str) {
        self.bytes = 0;
        let mut block = vec![0x82, 0x87];
        for (index, value) in [(4_u8, path), (1, "localhost")] {
            block.extend([index, u8::try_from(value.len()).unwrap()]);
            block.extend(value.as_bytes());
        }
        self.frame(1, 0x5, stream, &block).await;
    }

    async fn enlarge(&mut self, stream: u32, by: u32) {
        self.frame(8, 0, stream, &by.to_be_bytes()).await;
    }

    /// Reads until the stream has ended. May be given up and begun again.
    async fn until_end(&mut self, wanted: u32) -> End {
        loop {
            while let Some((kind, flags, stream, payload)) = self.next_frame() {
                match (kind, stream == wanted) {
                    (0, true) => {
                        self.bytes += payload.len();
                        if flags & 1 != 0 {
                            return End::Whole(self.bytes);
                        }
                    }
                    (3, true) => {
                        return End::Reset(u32::from_be_bytes(payload.try_into().unwrap()));
                    }
                    (7, _) => panic!("GOAWAY {payload:?}"),
                    _ => {}
                }
            }
            let mut buffer = [0; 4_096];
            let count = self.stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the connection is closed");
            self.read.extend_from_slice(&buffer[..count]);
        }
    }

    fn next_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head: [u8; 9] = self.read.get(..9)?.try_into().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.read.get(9..9 + length)?.to_vec();
        self.read.drain(..9 + length);
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some((head[3], head[4], stream, payload))
    }
}
