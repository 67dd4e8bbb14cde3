//! `/ui/repositories/{repo}/outage`: what would be answered if the upstream died now, and fetching what is missing.

use std::sync::Arc;

use hyper::body::Incoming;
use larder_core::{Fault, Repository};
use larder_ui::Count;
use larder_ui::pages::Outage;

use super::guard;
use super::numbers::Numbers;
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

pub(crate) async fn show<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
) -> Outcome {
    visit.page(&Outage {
        repository: Numbers::read(visit).head(visit, repository),
        recorded: false,
        requests: Count(0),
        answered: None,
        missing: Vec::new(),
        next: None,
    })
}

pub(crate) async fn warm<B: Backend>(
    visit: &Visit<'_, B>,
    _repository: &Arc<Repository>,
    body: &mut Incoming,
) -> Outcome {
    guard::change(visit, body).await?;
    Err(Fault::not_built("what is missing is not recorded here"))
}
