//! Real servers of other projects, each started for one test on free loopback ports and ended with it.
//!
//! Their programs are installed by `tests/install/clients.sh`, below `$LARDER_TEST_TOOLS` (`target/e2e-tools` by default). Where one is
//! missing, a test fails and says so: none is passed over.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "fixtures of tests: they panic to report"
)]

mod gate;
pub mod postgres;
mod redis;
mod s3;

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use gate::Gate;
pub use redis::RedisServer;
pub use s3::S3Server;

/// The installed program of this name.
///
/// # Panics
/// It is not installed.
pub fn tool(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tools = std::env::var_os("LARDER_TEST_TOOLS").filter(|tools| !tools.is_empty());
    let tools = tools.map_or_else(|| root.join("target/e2e-tools"), |tools| root.join(tools));
    let path = tools.join("bin").join(name);
    assert!(
        path.is_file(),
        "{} is not there: run tests/install/clients.sh, or set LARDER_TEST_TOOLS to where it has installed its programs",
        path.display()
    );
    path
}

/// A port that is free, and the one ten thousand above it too, where some servers listen as well.
///
/// # Panics
/// None is free.
pub(crate) fn free_port_pair() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below those that the kernel gives to clients; tests that run at once begin at different places.
    let start = (std::process::id() % 997) as u16 * 11;
    for _ in 0..4_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 11_000 + start.wrapping_add(step) % 10_900;
        if is_free(port) && is_free(port + 10_000) && claim(port) && claim(port + 10_000) {
            return port;
        }
    }
    panic!("no pair of ports is free on the loopback");
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Takes a port for this process, as long as it lives; gives whether no other test program has it. Two of them that run at once would
/// else take one port between its being found free and the server's start, or while a test has its server stopped.
///
/// The sign is a socket in the abstract namespace (unix(7)): there is one of each name, and the kernel removes it with the process.
fn claim(port: u16) -> bool {
    static CLAIMED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("larder-test-port-{port}"));
    let claimed = UnixListener::bind_addr(&name.expect("a name"));
    let mut all = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    claimed.map(|socket| all.push(socket)).is_ok()
}

/// A process that ends with its owner.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A loopback port that nobody listened to just now, and that the kernel gives to no client: a server that is killed can have it
/// again, and whoever tries to reach it meanwhile is not connected to himself.
///
/// # Panics
/// There is none.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static START: OnceLock<u16> = OnceLock::new();
    // Test programs that run at once begin at different places. No pair of `free_port_pair` is here.
    let start = START.get_or_init(|| (RandomState::new().hash_one(0) % 4_400) as u16);
    for _ in 0..4_400 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 6_500 + start.wrapping_add(step) % 4_400;
        if is_free(port) && claim(port) {
            return port;
        }
    }
    panic!("no port is free on the loopback");
}

#[cfg(test)]
mod tests {
    use super::{claim, free_port, free_port_pair};

    #[test]
    fn a_port_that_was_given_is_nobody_elses() {
        assert!(!claim(free_port()));
        let pair = free_port_pair();
        assert!(!claim(pair));
        assert!(!claim(pair + 10_000));
    }
}
