//! Real servers that larder runs on, each started by a test on free loopback ports and ended with it.

mod redis;

pub use redis::RedisServer;

use std::net::TcpListener;

/// A loopback port that nobody listened to just now.
///
/// # Panics
/// There is none.
#[expect(clippy::expect_used, reason = "called from tests only")]
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
