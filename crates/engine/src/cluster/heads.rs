//! Whose turn it is to ask the upstream for the head of something that is not held. What it says is kept nowhere: whoever has asked leaves
//! it in the place of its lease, for a moment, and for those who have waited for it.

use std::time::Duration;

use futures_util::stream;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use larder_core::{ArtifactRecord, Content, SourceKey};
use larder_storage::{Attempt, Fence, Holder};
use larder_upstream::{BodyStream, UpstreamResponse};
use url::Url;

use super::lead::{Lead, lease_name};
use super::relay::{Joined, fields};
use super::replica::{Cluster, Membership};
use super::turn::{TRIES, WAIT};

/// How long what a head said is left for those who wait: they look at least every 200 ms.
const LEFT: Duration = Duration::from_secs(5);
/// A longer one is told to nobody, in bytes.
const LONGEST: usize = 16 << 10;
/// What a line begins with that is no holder's.
const TOLD: &str = "told ";

/// What one has to do who would ask for a head.
#[derive(Debug)]
pub(crate) enum HeadTurn {
    /// Ask. Where the others wait for it, they are told.
    Ours(Option<Asking>),
    /// This is the head of the download that another replica has under way.
    Arriving(Box<UpstreamResponse>),
    /// This is what another replica has been told meanwhile.
    Told(Box<ArtifactRecord>),
    /// Another replica has asked meanwhile, and has left nothing: what it has found out may stand in the database.
    Over,
}

/// The right to ask for a head, for all replicas.
#[derive(Debug)]
pub(crate) struct Asking {
    name: String,
    lead: Lead,
}

impl Asking {
    /// Tells those who wait what the head said.
    pub(crate) async fn tell(self, record: &ArtifactRecord) {
        // What is not told is asked for.
        let Ok(said) = serde_json::to_string(record) else {
            return;
        };
        if said.len() <= LONGEST {
            let text = |fence: Fence| format!("{TOLD}{} {said}", fence.0);
            self.lead.leave(&self.name, text, LEFT).await;
        }
    }
}

/// Who has been told something, by its fence, and what; `None` if this is one who asks.
fn told(holder: &Holder) -> Option<(Fence, Option<Box<ArtifactRecord>>)> {
    let (fence, said) = holder.data.strip_prefix(TOLD)?.split_once(' ')?;
    let said = (said.len() <= LONGEST).then(|| serde_json::from_str::<ArtifactRecord>(said).ok());
    let said = said
        .flatten()
        .filter(|said| said.content == Content::HeadOnly);
    Some((Fence(fence.parse().ok()?), said.map(Box::new)))
}

impl Membership {
    /// Whose turn it is to ask for the head of this.
    pub(crate) async fn head_turn(&self, key: &SourceKey) -> HeadTurn {
        match self.get() {
            Some(cluster) => match cluster.head_of_download(key).await {
                Some(head) => HeadTurn::Arriving(Box::new(head)),
                None => cluster.head_turn(key).await,
            },
            None => HeadTurn::Ours(None),
        }
    }
}

impl Cluster {
    /// What the upstream's head said of the download that another replica has under way, if there is one.
    async fn head_of_download(&self, key: &SourceKey) -> Option<UpstreamResponse> {
        let holder = self.shared.holder(&lease_name(key)).await?;
        let Joined::Begun(head, _) = self.join(key, &holder, 0).await else {
            return None;
        };
        let url = Url::parse(&head.url).ok()?;
        let mut headers = fields(&head)?;
        if let Some(total) = head.total {
            headers.insert(CONTENT_LENGTH, total.into());
        }
        Some(UpstreamResponse {
            status: StatusCode::OK,
            headers,
            final_url: url.clone(),
            folder: None,
            body: BodyStream::relayed(stream::empty(), None, key.repository.clone(), url),
        })
    }

    async fn head_turn(&self, key: &SourceKey) -> HeadTurn {
        let name = format!("head\n{}\n{}\n{}", key.repository, key.path, key.variant);
        let mut over = None;
        for _ in 0..TRIES {
            let holder = match self.attempt(&name, over.take()).await {
                Attempt::Unknown => break,
                Attempt::Taken(lease) => {
                    let lead = Lead::new(&self.shared, lease);
                    return HeadTurn::Ours(Some(Asking { name, lead }));
                }
                Attempt::Held(holder) => holder,
            };
            let is_own = holder.data.starts_with(&self.replica);
            if is_own || told(&holder).is_some() {
                // A question here that nobody can join any more, for a flush has overtaken it; or what was told to those who waited then:
                // the upstream is asked again, as by one replica.
                over = Some(holder.fence);
                continue;
            }
            if !self.until_released(&name, holder.fence, WAIT).await {
                break;
            }
            let left = self.shared.holder(&name).await;
            return match left.as_ref().and_then(told) {
                Some((of, Some(record))) if of == holder.fence => HeadTurn::Told(record),
                _ => HeadTurn::Over,
            };
        }
        HeadTurn::Ours(None)
    }
}
