//! Another replica's download as an upstream's answer. When it breaks off, one of those who follow takes its place, and the others follow
//! that one from where they are.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder_core::{Hasher, Repository, SourceKey};
use larder_storage::{Attempt, Fence, Holder};
use larder_upstream::{BodyStream, PeerError, UpstreamError, UpstreamErrorKind, UpstreamResponse};
use tokio::time::timeout;
use url::Url;

use super::frames::{Frame, Frames, Head, Whole};
use super::lead::{Lead, lease_name};
use super::replica::{Cluster, tick};
use super::request::FlightRequest;
use crate::target::Target;
use crate::transfer::flight::Flight;

/// How long a replica may say nothing, not even that it waits itself.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a download is followed somewhere else before its follower helps itself.
const MOST_SWITCHES: u32 = 3;

/// What came of following a replica.
pub(super) enum Joined {
    /// Its download has begun.
    Begun(Head, Frames),
    /// Its flight has ended, or has no body to give.
    Over,
    /// It is at work and cannot be followed: it has not said where it is, or does not let this one.
    Unreachable,
    /// It does not answer, or has no such flight.
    Gone,
}

impl Cluster {
    /// Follows the holder's download from `offset` on.
    pub(super) async fn join(&self, key: &SourceKey, holder: &Holder, offset: u64) -> Joined {
        let (replica, address) = holder.data.split_once(' ').unwrap_or((&holder.data, ""));
        if replica == self.replica {
            // A flight here that nobody can join any more, for a flush has overtaken it.
            return Joined::Gone;
        }
        let Some(peers) = self.peers.as_ref().filter(|_| !address.is_empty()) else {
            return Joined::Unreachable;
        };
        let request = FlightRequest {
            key: key.clone(),
            offset,
            replica: self.replica.clone(),
        };
        match timeout(SILENCE, peers.follow(address, &request)).await {
            Ok(Ok(chunks)) => begun(Frames::new(chunks)).await,
            Ok(Err(PeerError::Gone(why))) => {
                tracing::debug!(address, why, "a replica that downloads cannot be followed");
                Joined::Gone
            }
            Ok(Err(PeerError::Closed(why))) => {
                self.tell_closed(address, &why);
                Joined::Unreachable
            }
            Err(_) => Joined::Gone,
        }
    }
}

async fn begun(mut frames: Frames) -> Joined {
    loop {
        match timeout(SILENCE, frames.next()).await {
            Ok(Ok(Frame::Beat)) => {}
            Ok(Ok(Frame::Head(head))) => return Joined::Begun(head, frames),
            Ok(Ok(Frame::Over | Frame::Failed)) => return Joined::Over,
            Ok(Ok(Frame::Data(_) | Frame::End(_)) | Err(_)) | Err(_) => return Joined::Gone,
        }
    }
}

/// The upstream's fields, as a replica passes them on. `None` if they cannot be any.
pub(super) fn fields(head: &Head) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &head.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(headers)
}

/// A download that is followed.
pub(super) struct Relay {
    cluster: Arc<Cluster>,
    /// Whose bytes these are; it does not keep itself alive.
    flight: Weak<Flight>,
    key: SourceKey,
    repository: Arc<Repository>,
    url: Url,
    head: Head,
    frames: Frames,
    /// Of the replica that is followed.
    fence: Fence,
    offset: u64,
    hasher: Option<Hasher>,
    switches: u32,
}

impl Relay {
    /// The upstream's answer, as a replica passes it on. `None` if it cannot be one.
    pub(super) fn response(
        cluster: &Arc<Cluster>,
        flight: &Arc<Flight>,
        wanted: &Target,
        holder: &Holder,
        head: Head,
        frames: Frames,
    ) -> Option<UpstreamResponse> {
        let url = Url::parse(&head.url).ok()?;
        let headers = fields(&head)?;
        let total = head.total;
        let relay = Self {
            cluster: Arc::clone(cluster),
            flight: Arc::downgrade(flight),
            key: wanted.key.clone(),
            repository: Arc::clone(&wanted.entry.repository),
            url: url.clone(),
            head,
            frames,
            fence: holder.fence,
            offset: 0,
            hasher: Some(Hasher::new(&[])),
            switches: 0,
        };
        relay.follows(Some(holder.fence));
        let name = wanted.entry.repository.name.clone();
        let chunks = stream::unfold(Some(relay), Self::step);
        Some(UpstreamResponse {
            status: StatusCode::OK,
            headers,
            final_url: url.clone(),
            folder: None,
            body: BodyStream::relayed(chunks, total, name, url),
        })
    }

    async fn step(relay: Option<Self>) -> Option<(Result<Bytes, UpstreamError>, Option<Self>)> {
        let mut relay = relay?;
        match relay.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(relay))),
            Ok(None) => None,
            Err(error) => {
                // What comes now comes from somewhere else, and nobody else keeps it.
                relay.follows(None);
                Some((Err(error), None))
            }
        }
    }

    fn follows(&self, lease: Option<Fence>) {
        if let Some(flight) = self.flight.upgrade() {
            flight.follow(lease);
        }
    }

    /// The next bytes; `None` at the end of a body that is whole.
    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            match timeout(SILENCE, self.frames.next()).await {
                Ok(Ok(Frame::Data(bytes))) => {
                    self.offset += bytes.len() as u64;
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&bytes);
                    }
                    return Ok(Some(bytes));
                }
                Ok(Ok(Frame::Beat)) => {}
                Ok(Ok(Frame::End(whole))) => return self.end(&whole).map(|()| None),
                // It is there, and knows that this body comes to nothing: it may begin another one.
                Ok(Ok(Frame::Failed)) => self.switch(false).await?,
                Ok(Ok(Frame::Head(_) | Frame::Over) | Err(_)) | Err(_) => {
                    self.switch(true).await?;
                }
            }
        }
    }

    /// Whether what has come is what the other replica has found to be right.
    fn end(&mut self, whole: &Whole) -> Result<(), UpstreamError> {
        let own = self
            .hasher
            .take()
            .map(|hasher| hasher.finish_sha256().to_hex());
        if whole.length != self.offset {
            return Err(self.broken("ended before all of it had come"));
        }
        match (&whole.sha256, own) {
            (Some(stated), Some(own)) if *stated != own => Err(self.error(
                UpstreamErrorKind::Protocol,
                "the bytes that another replica passed on are not those that it has",
            )),
            _ => Ok(()),
        }
    }

    /// Who is followed has broken off: goes on with whoever has taken its place. If that is this replica, the body ends as one that an
    /// upstream has cut, and is taken up again there.
    async fn switch(&mut self, is_gone: bool) -> Result<(), UpstreamError> {
        self.switches += 1;
        let mut over = is_gone.then_some(self.fence);
        let (cluster, name) = (Arc::clone(&self.cluster), lease_name(&self.key));
        while self.switches <= MOST_SWITCHES {
            let holder = match cluster.attempt(&name, over).await {
                Attempt::Taken(lease) => {
                    tick(&cluster.counts.taken_over);
                    if let Some(flight) = self.flight.upgrade() {
                        flight.keep(Lead::new(&cluster.shared, lease));
                    }
                    return Err(self.broken("broke off, and this one goes on"));
                }
                Attempt::Held(holder) => holder,
                Attempt::Unknown => break,
            };
            self.fence = holder.fence;
            match cluster.join(&self.key, &holder, self.offset).await {
                Joined::Begun(head, frames) if self.is_the_same(&head) => {
                    self.frames = frames;
                    self.follows(Some(holder.fence));
                    return Ok(());
                }
                // Whoever it was has gone as well.
                Joined::Gone => {
                    self.switches += 1;
                    over = Some(holder.fence);
                }
                Joined::Begun(..) | Joined::Over | Joined::Unreachable => break,
            }
        }
        Err(self.broken("broke off"))
    }

    /// Whether another replica's download is of the same body. Where nothing says so, its digest does at the end.
    fn is_the_same(&self, head: &Head) -> bool {
        let tag = |head: &Head| {
            let mut fields = head.fields.iter();
            let field = fields.find(|(name, _)| name == "etag");
            field.map(|(_, value)| value.clone())
        };
        head.total == self.head.total && tag(head) == tag(&self.head)
    }

    fn broken(&self, what: &str) -> UpstreamError {
        let what = format!("the replica that downloads it {what}");
        self.error(UpstreamErrorKind::Truncated, &what)
    }

    fn error(&self, kind: UpstreamErrorKind, what: &str) -> UpstreamError {
        UpstreamError::relayed(kind, &self.repository.name, &self.url, what)
    }
}
