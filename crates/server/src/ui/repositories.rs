//! `/ui/repositories`: all of them.

use larder_ui::pages::Repositories;

use super::numbers::Numbers;
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

pub(crate) async fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let held = visit.backend().held_summary(None).await?;
    let numbers = Numbers::read(visit);
    let all = visit.backend().repositories();
    let rows = all
        .iter()
        .map(|repository| numbers.row(visit, repository, &held));
    visit.page(&Repositories {
        repositories: rows.collect(),
    })
}
