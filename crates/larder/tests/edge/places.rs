//! Places among the connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder_testkit::{Origin, Payload, Resource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::TestLarder;
use crate::support::packages::entry;
use crate::{is_live, many_files};

async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = format!("{address}:0").parse().expect("an address");
    socket.bind(from).expect("bound");
    socket.connect(to).await.expect("connected")
}

async fn head_of(socket: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 4_096];
    let read = tokio::time::timeout(Duration::from_secs(1), socket.read(&mut answer))
        .await
        .expect("an answer within a second")
        .expect("readable");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x1_a_hundred_idle_connections_of_one_peer_at_a_limit_of_a_hundred() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let config = format!(
        "limits: {{ connections: 100 }}\nremotes:\n{}",
        entry("files", "generic", &origin, "")
    );
    let larder = TestLarder::start(&config).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(connect_from("127.0.0.3", larder.address()).await);
    }
    let started = Instant::now();
    is_live(&larder).await;
    let mut second = connect_from("127.0.0.2", larder.address()).await;
    let answer = head_of(&mut second, "/api/v1/remote/files/a").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    eprintln!("both in {:?}", started.elapsed());
    drop(idle);
}

/// A client that asks for a large file and reads none of it, a hundred times.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_x1_a_hundred_busy_connections_of_one_peer_at_a_limit_of_a_hundred() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    origin.put("/big", Resource::new(Payload::generated(16 << 20, 5)));
    let config = format!(
        "limits: {{ connections: 100 }}\nremotes:\n{}",
        entry("files", "generic", &origin, "")
    );
    let larder = TestLarder::start(&config).await;
    let mut busy = Vec::new();
    for _ in 0..100 {
        let mut socket = connect_from("127.0.0.3", larder.address()).await;
        let request = "GET /api/v1/remote/files/big HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // Beyond its share, a connection may have been closed already.
        let _ = socket.write_all(request.as_bytes()).await;
        busy.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let started = Instant::now();
    is_live(&larder).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut other = connect_from("127.0.0.2", larder.address()).await;
        let answer = head_of(&mut other, "/api/v1/remote/files/a").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        others.push(other);
    }
    is_live(&larder).await;
    eprintln!("all in {:?}", started.elapsed());
    drop(busy);
}

/// What connections have taken is no longer used when they have ended; the allocator would keep it.
#[tokio::test(flavor = "multi_thread")]
async fn memory_of_a_burst_of_connections_goes_back_to_the_system() {
    many_files();
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let config = format!("remotes:\n{}", entry("files", "generic", &origin, ""));
    let larder = TestLarder::start(&config).await;
    larder.hit(&larder.artifact("files", "a")).await;
    let mut burst = Vec::new();
    for number in 0..900 {
        let mut socket =
            connect_from(&format!("127.0.0.{}", 2 + number % 9), larder.address()).await;
        let answer = head_of(&mut socket, "/api/v1/remote/files/a").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        burst.push(socket);
    }
    let taken = larder.memory("RssAnon:");
    drop(burst);
    let (since, most) = (Instant::now(), Duration::from_secs(30));
    while larder.memory("RssAnon:") + 4 > taken {
        assert!(
            since.elapsed() < most,
            "{taken} MiB, and later {}",
            larder.memory("RssAnon:")
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
