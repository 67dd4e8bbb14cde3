//! `/ui/repositories`: all of them.

use larder_ui::pages::Repositories;

use super::numbers::Numbers;
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

pub(crate) async fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let held = visit.backend().held_summary(None).await?;
    let numbers = Numbers::read(visit);
    visit.page(&Repositories {
        repositories: numbers.rows(visit, &held),
    })
}
