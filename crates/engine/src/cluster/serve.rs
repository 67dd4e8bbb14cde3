//! What this replica downloads, for the others: bytes as they arrive, which the others verify themselves. Nothing is begun for them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use larder_core::{ErrorCode, Fault, FaultKind, StoredHeaders, UnixMillis};
use larder_storage::{Body, Chunks};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::frames::{Frame, Head, Whole, encode};
use super::replica::{Cluster, tick};
use super::request::FlightRequest;
use super::secret::ClusterSecret;
use crate::target::FOLDER;
use crate::transfer::fill::Fill;
use crate::transfer::flight::{Flight, Ready};
use crate::transfer::flights::Flights;

/// How often another replica is told that this one is there.
const BEAT: Duration = Duration::from_millis(500);
/// Frames that a slow replica may be behind, beside what the kernel holds for it.
const AHEAD: usize = 4;

/// There is no such download, or this is none of several replicas.
fn no_peer_flight() -> Fault {
    let message = "no such download is under way at this replica";
    Fault::new(FaultKind::NotFound, ErrorCode::NotFound, message)
}

/// Whoever asks is no replica of this cluster.
fn no_replica() -> Fault {
    let message = "this address is for replicas, and no replica has signed the request just now: all of them need the same cluster.secret, and clocks that differ by less than 15 s";
    Fault::new(FaultKind::Forbidden, ErrorCode::NotAReplica, message)
}

/// The frames of a download that is under way here, for a replica that has signed what it asks for at that moment.
///
/// # Errors
/// 404 if this is none of several replicas, or has no such download under way; 403 if no replica has signed it.
pub(crate) fn peer_flight(
    cluster: Option<&Arc<Cluster>>,
    flights: &Flights,
    (signature, target, now): (Option<&str>, &str, UnixMillis),
) -> Result<Body, Fault> {
    let cluster = cluster.ok_or_else(no_peer_flight)?;
    let known = |secret: &ClusterSecret| {
        signature.is_some_and(|signature| secret.knows(signature, target, now))
    };
    if !cluster.secret().is_some_and(known) {
        return Err(no_replica());
    }
    FlightRequest::parse(target)
        .and_then(|request| follow(cluster, flights, &request))
        .ok_or_else(no_peer_flight)
}

/// The frames of a download that is under way here; `None` if there is none.
fn follow(cluster: &Cluster, flights: &Flights, request: &FlightRequest) -> Option<Body> {
    if request.replica == cluster.replica {
        return None;
    }
    let flight = flights.present(&request.key)?;
    tick(&cluster.counts.served);
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(send(flight, request.offset, sender));
    Some(Body::once(None, chunks(receiver)))
}

fn chunks(receiver: mpsc::Receiver<Frame>) -> Chunks {
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        let pieces = encode(&frame).into_iter().map(Ok);
        Some((stream::iter(pieces), receiver))
    });
    Box::pin(futures_util::StreamExt::flatten(frames))
}

/// The replica that followed has gone.
struct Left;

async fn send(flight: Arc<Flight>, offset: u64, sender: mpsc::Sender<Frame>) {
    let last = match of_flight(&flight, offset, &sender).await {
        Ok(frame) => frame,
        Err(Left) => return,
    };
    let _ = sender.send(last).await;
}

/// Sends a flight's frames but the last one, and gives that.
async fn of_flight(
    flight: &Arc<Flight>,
    offset: u64,
    sender: &mpsc::Sender<Frame>,
) -> Result<Frame, Left> {
    let Ready::Filling(fill) = beating(sender, flight.begun()).await? else {
        return Ok(Frame::Over);
    };
    // What a redirect has told of a folder is told in another way.
    if fill.draft.headers.further.contains_key(FOLDER) {
        return Ok(Frame::Over);
    }
    let Some(mut arriving) = fill.arriving(offset) else {
        return Ok(Frame::Over);
    };
    tell(sender, Frame::Head(head(&fill))).await?;
    loop {
        match beating(sender, arriving.next()).await? {
            Some(Ok(bytes)) => tell(sender, Frame::Data(bytes)).await?,
            Some(Err(_)) => return Ok(Frame::Failed),
            None => break,
        }
    }
    match beating(sender, flight.ready(true)).await? {
        Ready::Done(Ok(settled)) => Ok(Frame::End(Whole {
            length: fill.progress().available,
            sha256: settled.record.blob().map(|blob| blob.digest.to_hex()),
        })),
        Ready::Done(Err(_)) | Ready::Filling(_) => Ok(Frame::Failed),
    }
}

async fn tell(sender: &mpsc::Sender<Frame>, frame: Frame) -> Result<(), Left> {
    sender.send(frame).await.map_err(|_| Left)
}

/// Waits for something, and says meanwhile that this replica is there.
async fn beating<T>(
    sender: &mpsc::Sender<Frame>,
    work: impl Future<Output = T>,
) -> Result<T, Left> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = sender.closed() => return Err(Left),
            () = sleep(BEAT) => tell(sender, Frame::Beat).await?,
        }
    }
}

/// What the upstream's head said, as far as it is kept.
fn head(fill: &Fill) -> Head {
    let StoredHeaders {
        content_type,
        etag,
        last_modified,
        content_disposition,
        content_language,
        content_encoding,
        further,
        digest,
        length: _,
    } = &fill.draft.headers;
    let fields = [
        ("content-type", content_type),
        ("etag", etag),
        ("last-modified", last_modified),
        ("content-disposition", content_disposition),
        ("content-language", content_language),
        ("content-encoding", content_encoding),
    ];
    let fields = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    Head {
        url: fill.draft.source_url.clone(),
        total: fill.total(),
        fields: fields
            .chain(
                further
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            )
            // In the field from which it was read: no other format's head states one.
            .chain(
                digest
                    .iter()
                    .map(|digest| ("docker-content-digest".to_owned(), digest.to_string())),
            )
            .collect(),
    }
}
