//! Carries what one replica learns of upstreams to the others, in bundles.

use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_storage::{Shared, Told};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::news::News;

const TOPIC: &str = "learnt";
/// Between two bundles there is at least this time.
const APART: Duration = Duration::from_millis(20);
/// How much one bundle holds, and the longest that is read, in bytes: anybody who can write to Redis can say something.
const MOST: usize = 64;
const LONGEST: usize = 512 << 10;

/// Who hears news.
pub(crate) trait Hears: Send + Sync + 'static {
    /// Another replica has learnt this a moment ago.
    fn heard(&self, news: News);
}

#[derive(Debug, Serialize, Deserialize)]
struct Bundle {
    replica: String,
    news: Vec<News>,
}

/// The two tasks, as long as this is there.
#[derive(Debug)]
pub(super) struct Hearsay([AbortHandle; 2]);

impl Drop for Hearsay {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Hearsay {
    /// Tells what comes from `learnt` in the name of `replica`, and hands what others tell to `hears`. Must be called within a Tokio
    /// runtime.
    pub(super) fn between<H: Hears>(
        shared: &Arc<dyn Shared>,
        replica: &str,
        learnt: mpsc::Receiver<News>,
        hears: &Arc<H>,
    ) -> Self {
        let telling = tell(Arc::clone(shared), replica.to_owned(), learnt);
        let hearing = hear(
            Arc::clone(shared),
            replica.to_owned(),
            Arc::downgrade(hears),
        );
        Self([
            tokio::spawn(telling).abort_handle(),
            tokio::spawn(hearing).abort_handle(),
        ])
    }
}

async fn tell(shared: Arc<dyn Shared>, replica: String, mut learnt: mpsc::Receiver<News>) {
    let mut news = Vec::new();
    while learnt.recv_many(&mut news, MOST).await > 0 {
        let bundle = Bundle {
            replica: replica.clone(),
            news: std::mem::take(&mut news),
        };
        if let Ok(text) = serde_json::to_vec(&bundle) {
            shared.publish(TOPIC, &text).await;
        }
        sleep(APART).await;
    }
}

async fn hear<H: Hears>(shared: Arc<dyn Shared>, replica: String, hears: Weak<H>) {
    let mut subscription = shared.subscribe(TOPIC);
    loop {
        let told = subscription.next().await;
        let Some(hears) = hears.upgrade() else {
            return;
        };
        // What was missed is found out by asking.
        let Told::Message(message) = told else {
            continue;
        };
        if message.len() > LONGEST {
            continue;
        }
        match serde_json::from_slice::<Bundle>(&message) {
            Ok(bundle) if bundle.replica != replica => {
                bundle.news.into_iter().for_each(|news| hears.heard(news));
            }
            // Its own, or of another version of larder.
            Ok(_) | Err(_) => {}
        }
    }
}
