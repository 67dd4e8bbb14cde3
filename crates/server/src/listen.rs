//! The accept loop: takes connections within bounds, speaks TLS where configured, hands each to hyper, and stops gracefully.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use larder_core::{Clock as _, SystemClock};
use larder_sendfile::{FileSender, SendfileStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::access_log;
use crate::activity::Activity;
use crate::attempts::Attempts;
use crate::backend::{self, Backend};
use crate::corked::Corked;
use crate::drive::{Drain, Drive};
use crate::forwarded::is_trusted;
use crate::health_page::ReloadReport;
use crate::hot::HotSet;
use crate::metrics::Metrics;
use crate::places::{Peer, Places, Seat};
use crate::service::Service;
use crate::settings::{LiveSettings, ServerSettings};
use crate::state::{Connection, Shared};
use crate::streams::Streams;
use crate::tls::{Tls, TlsError};
use crate::warm::{Sightings, WarmSet};
use crate::watched::Watched;

/// Largest request head and, for a slow client, the most that waits in memory beside one frame.
const BUFFER: usize = 64 << 10;

/// What an HTTP/2 client may send of its bodies before anybody has asked for them: what HTTP/1 holds unread, too.
const UNREAD: u32 = 64 << 10;

/// Most header fields of a request.
const MAX_FIELDS: usize = 100;

/// How often changed certificates are looked for, and the hot set is swept.
const HOUSEKEEPING: Duration = Duration::from_mins(1);

/// How long the last answers of a start may take.
const HANDING_OVER: Duration = Duration::from_secs(1);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", privileged(*address, source))]
    Address {
        /// The address as configured.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// `listen` is empty.
    #[error("no address to listen on is configured")]
    NoAddress,
}

/// What helps where the system keeps ports to itself.
fn privileged(address: SocketAddr, source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied && address.port() < 1024 {
        return "; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE";
    }
    ""
}

/// A server that holds its addresses and does not answer yet.
#[derive(Debug)]
pub struct BoundServer {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// Changes a running server's settings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl ServerHandle {
    /// Takes new settings into use for the requests that follow. Remembered answers are dropped: their links may be old.
    pub fn replace_live(&self, live: LiveSettings) {
        self.shared.live.store(Arc::new(live));
        self.shared.hot.clear();
        self.shared.warm.clear();
    }

    /// Keeps what came of a reload, for `/health` and the metrics.
    pub fn note_reload(&self, report: ReloadReport) {
        self.shared.reload.store(Some(Arc::new(report)));
    }

    /// `/ready` fails from now on; everything else is answered as before.
    pub fn announce_stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Reads the certificate again; a bad one leaves the old one in force. Without TLS nothing happens.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        self.shared.tls.as_ref().map_or(Ok(()), |tls| tls.reload())
    }
}

/// Listens on all configured addresses, or on none. Must be called within a Tokio runtime.
///
/// # Errors
/// Which address or certificate cannot be used, and why.
pub async fn bind(settings: ServerSettings) -> Result<BoundServer, BindError> {
    if settings.listen.is_empty() {
        return Err(BindError::NoAddress);
    }
    let tls = settings.tls.map(Tls::load).transpose()?.map(Arc::new);
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for address in settings.listen {
        let named = |source| BindError::Address { address, source };
        let listener = listen(address).map_err(named)?;
        addresses.push(listener.local_addr().map_err(named)?);
        listeners.push(listener);
    }
    let shared = Arc::new(Shared {
        live: ArcSwap::from_pointee(settings.live),
        hot: HotSet::new(settings.hot_set_bytes, settings.hot_files),
        warm: WarmSet::new(),
        sightings: Sightings::new(),
        attempts: Attempts::default(),
        metrics: Metrics::new(),
        hot_set_limit: settings.hot_set_bytes,
        limits: settings.limits,
        budgets: settings.budgets,
        loopback_only: addresses.iter().all(is_loopback),
        version: settings.version,
        started: SystemClock.now(),
        reload: ArcSwapOption::empty(),
        stopping: AtomicBool::new(false),
        tls,
        pseudonym: settings.pseudonym,
    });
    Ok(BoundServer {
        listeners,
        addresses,
        shared,
    })
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the connections of the process before.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] can be listed side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    TcpListener::from_std(socket.into())
}

impl BoundServer {
    /// The addresses in the order configured, with the ports that were taken for port 0.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Changes settings while the server runs.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves until `shutdown` ends; then lets running answers finish, within `limits.drain_timeout`.
    pub async fn run<B: Backend>(self, backend: B, shutdown: impl Future<Output = ()>) {
        let limits = self.shared.limits;
        let metrics = &self.shared.metrics;
        if let Some(errors) = backend.observed_by(Arc::clone(metrics) as _) {
            metrics.tell_of_errors(errors);
        }
        let acceptor = self.acceptor(backend);
        let mut connections = JoinSet::new();
        acceptor
            .accept_until(&self.listeners, &mut connections, shutdown)
            .await;
        drop(self.listeners);
        acceptor.drain.begin();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.drain_timeout, all_ended)
            .await
            .is_err()
        {
            tracing::warn!(
                open = connections.len(),
                "connections are cut off: they did not end in time"
            );
            connections.shutdown().await;
        }
    }
}

impl BoundServer {
    /// Answers with `backend` until `until` ends, on the same addresses as [`run`](Self::run) does afterwards; connections are closed
    /// in between. For a start that takes time.
    pub async fn answer_until<B: Backend, T>(
        &self,
        backend: B,
        until: impl Future<Output = T>,
    ) -> T {
        let acceptor = self.acceptor(backend);
        let mut connections = JoinSet::new();
        let ended = acceptor
            .accept_until(&self.listeners, &mut connections, until)
            .await;
        acceptor.drain.begin();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(HANDING_OVER, all_ended).await.is_err() {
            connections.shutdown().await;
        }
        ended
    }

    fn acceptor<B: Backend>(&self, backend: B) -> Acceptor<B> {
        Acceptor {
            backend: Arc::new(backend),
            shared: Arc::clone(&self.shared),
            drain: Arc::default(),
            on_loopback: self.addresses.iter().map(is_loopback).collect(),
            places: Places::new(self.shared.limits.connections),
        }
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended in a panic");
    }
}

/// What a new connection needs.
struct Acceptor<B> {
    backend: Arc<B>,
    shared: Arc<Shared>,
    drain: Arc<Drain>,
    /// Of each listener, whether its address is a loopback address.
    on_loopback: Arc<[bool]>,
    places: Arc<Places>,
}

/// Where a connection has come from, and by which kind of listener.
#[derive(Debug, Clone, Copy)]
struct Origin {
    peer: SocketAddr,
    on_loopback: bool,
}

impl<B> Clone for Acceptor<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            shared: Arc::clone(&self.shared),
            drain: Arc::clone(&self.drain),
            on_loopback: Arc::clone(&self.on_loopback),
            places: Arc::clone(&self.places),
        }
    }
}

impl<B: Backend> Acceptor<B> {
    /// Takes connections until `until` ends.
    async fn accept_until<T>(
        &self,
        listeners: &[TcpListener],
        connections: &mut JoinSet<()>,
        until: impl Future<Output = T>,
    ) -> T {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut until = std::pin::pin!(until);
        let mut freed = self.backend.freed();
        loop {
            tokio::select! {
                ended = &mut until => return ended,
                (socket, origin) = self.next(listeners) => {
                    let activity = Activity::new();
                    // Without even a place in the reserve the socket is closed.
                    if let Some(seat) = self.admit(origin, &activity) {
                        let id = seat.id();
                        let task = connections.spawn(self.clone().serve(socket, origin, seat, activity));
                        self.places.served_by(id, task);
                    }
                }
                Some(ended) = connections.join_next() => report_panic(ended),
                _ = housekeeping.tick() => self.keep_house(),
                () = backend::changed(&mut freed) => self.shared.hot.sweep(self.backend.now()),
            }
        }
    }

    fn admit(&self, origin: Origin, activity: &Arc<Activity>) -> Option<Seat> {
        let address = origin.peer.ip();
        let is_proxy = is_trusted(address, &self.shared.live.load().trusted_proxies);
        self.places.admit(Peer::new(address), is_proxy, activity)
    }

    /// The next connection.
    async fn next(&self, listeners: &[TcpListener]) -> (TcpStream, Origin) {
        loop {
            let accepted = std::future::poll_fn(|cx| {
                listeners
                    .iter()
                    .zip(&*self.on_loopback)
                    .find_map(|(listener, &on_loopback)| match listener.poll_accept(cx) {
                        Poll::Ready(Ok((socket, peer))) => {
                            Some(Poll::Ready(Ok((socket, Origin { peer, on_loopback }))))
                        }
                        Poll::Ready(Err(error)) => Some(Poll::Ready(Err(error))),
                        Poll::Pending => None,
                    })
                    .unwrap_or(Poll::Pending)
            });
            match accepted.await {
                Ok(accepted) => return accepted,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(self, socket: TcpStream, origin: Origin, seat: Seat, activity: Arc<Activity>) {
        let peer = origin.peer;
        let _present = self.shared.metrics.connection();
        if let Err(error) = prepare(&socket, self.shared.limits.stall_timeout) {
            tracing::debug!(%error, %peer, "connection lost before it began");
            return;
        }
        match &self.shared.tls {
            None => {
                let stream = SendfileStream::new(socket);
                let connection = connection(origin, "http", Some(stream.sender()), activity, seat);
                self.serve_http1(stream, connection).await;
            }
            Some(tls) => {
                let handshake = tls.acceptor().accept(socket);
                match tokio::time::timeout(self.shared.limits.handshake_timeout, handshake).await {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                        activity.speaks_http2();
                        let connection = connection(origin, "https", None, activity, seat);
                        self.serve_http2(Corked::new(stream), connection).await;
                    }
                    Ok(Ok(stream)) => {
                        let connection = connection(origin, "https", None, activity, seat);
                        self.serve_http1(Corked::new(stream), connection).await;
                    }
                    Ok(Err(error)) => {
                        self.shared.metrics.connection_failed();
                        access_log::no_handshake(&error, peer);
                    }
                    Err(_) => self.shared.metrics.connection_failed(),
                }
            }
        }
    }

    async fn serve_http1<T>(self, stream: T, connection: Arc<Connection>)
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + crate::watched::Transport + Unpin,
    {
        let (limits, activity, peer) = (
            self.shared.limits,
            Arc::clone(&connection.activity),
            connection.peer,
        );
        let (metrics, is_plain) = (Arc::clone(&self.shared.metrics), self.shared.tls.is_none());
        let transport = Watched::http1(stream, Arc::clone(&activity));
        let service = Service {
            backend: self.backend,
            shared: self.shared,
            connection,
        };
        // No `pipeline_flush`: it would copy every body into one buffer. No `header_read_timeout`: `Drive` has its own, which
        // tells heads from pauses between requests.
        let http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .max_header_size(BUFFER)
            .max_headers(MAX_FIELDS)
            .writev(true)
            .serve_connection(TokioIo::new(transport), service);
        if let Err(error) =
            Drive::new(http, activity, limits, self.drain, Arc::clone(&metrics)).await
            && error.is_parse()
        {
            access_log::unreadable(&error, peer, is_plain, &metrics);
        }
    }

    async fn serve_http2(self, stream: Corked, connection: Arc<Connection>) {
        let (limits, activity) = (self.shared.limits, Arc::clone(&connection.activity));
        let metrics = Arc::clone(&self.shared.metrics);
        let streams = Streams::new(limits, Arc::clone(&metrics));
        let service = Service {
            backend: self.backend,
            shared: self.shared,
            connection,
        };
        let http = http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .initial_stream_window_size(UNREAD)
            .initial_connection_window_size(UNREAD)
            .max_send_buf_size(BUFFER)
            .max_header_list_size(BUFFER as u32)
            .serve_connection(
                TokioIo::new(Watched::http2(stream, Arc::clone(&activity))),
                service,
            );
        // What goes wrong with a connection of many requests is said of these.
        let http = streams.run_by(http);
        let _ = Drive::new(http, activity, limits, self.drain, metrics).await;
    }

    fn keep_house(&self) {
        self.shared.hot.sweep(self.backend.now());
        if let Some(tls) = &self.shared.tls {
            tls.remind(self.backend.now());
        }
        match self.shared.tls.as_ref().map(|tls| tls.reload_if_changed()) {
            Some(Ok(true)) => tracing::debug!("the TLS certificate has been read again"),
            Some(Err(error)) => {
                tracing::error!(%error, "the changed TLS certificate cannot be used; the old one stays");
            }
            Some(Ok(false)) | None => {}
        }
    }
}

fn connection(
    origin: Origin,
    scheme: &'static str,
    sender: Option<FileSender>,
    activity: Arc<Activity>,
    seat: Seat,
) -> Arc<Connection> {
    let Origin { peer, on_loopback } = origin;
    Arc::new(Connection {
        peer,
        scheme,
        on_loopback,
        sender,
        activity,
        seat,
    })
}

/// Head and body leave at once, and a client that no longer acknowledges anything is given up.
fn prepare(socket: &TcpStream, stall_timeout: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_user_timeout(Some(stall_timeout))
}

/// Errors of `accept` that concern the connection only, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
