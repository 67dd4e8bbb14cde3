//! Hears a channel of Redis, over a connection of its own that is made again as often as it breaks.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use redis::aio::PubSub;
use redis::{Client, RedisError, RedisResult};
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

use super::address::RedisAddress;
use crate::shared::{AbortOnDrop, BACKLOG, Subscription, Told};

/// How long connecting and subscribing may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The pause before the next attempt, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a silent connection is tried, and how long the answer may take.
const PROBE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(1);

/// Listens to `channel` until the subscription is dropped. Must be called within a Tokio runtime.
pub(super) fn subscribe(address: RedisAddress, channel: String) -> Subscription {
    let sender = broadcast::Sender::new(BACKLOG);
    let receiver = sender.subscribe();
    let task = tokio::spawn(listen(address, channel, sender));
    Subscription {
        receiver,
        _task: Some(AbortOnDrop(task.abort_handle())),
    }
}

async fn listen(address: RedisAddress, channel: String, sender: broadcast::Sender<Told>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match timeout(CONNECT, connect(&address, &channel)).await {
            Ok(Ok(connection)) => {
                pause = FIRST_PAUSE;
                // What was said before was not heard.
                let _ = sender.send(Told::Missed);
                hear(connection, &sender).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "Redis cannot be listened to"),
            Err(_) => tracing::debug!("Redis cannot be listened to: no answer"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(address: &RedisAddress, channel: &str) -> RedisResult<PubSub> {
    let mut failure: Option<RedisError> = None;
    for server in address.listening().await? {
        match connect_to(&server, channel).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = Some(error),
        }
    }
    let none = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "no server"));
    Err(failure.unwrap_or_else(none))
}

async fn connect_to(server: &Client, channel: &str) -> RedisResult<PubSub> {
    let mut connection = server.get_async_pubsub().await?;
    connection.subscribe(channel).await?;
    Ok(connection)
}

/// Passes on what is said until the connection breaks, or is silent when it is asked.
async fn hear(connection: PubSub, sender: &broadcast::Sender<Told>) {
    let (mut asking, mut messages) = connection.split();
    loop {
        match timeout(PROBE, messages.next()).await {
            Ok(Some(message)) => {
                let bytes = Bytes::copy_from_slice(message.get_payload_bytes());
                let _ = sender.send(Told::Message(bytes));
            }
            Ok(None) => return,
            Err(_) => match timeout(ANSWER, asking.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}
