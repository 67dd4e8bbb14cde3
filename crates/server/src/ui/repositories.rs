//! `/ui/repositories`: all of them, by the page.

use larder_ui::pages::Repositories;

use super::numbers::Numbers;
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

/// Repositories on a page. They are in the order of their names.
const PAGE: usize = 150;

pub(crate) async fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let held = visit.backend().held_summary(None).await?;
    let numbers = Numbers::read(visit);
    let mut rows = numbers.rows(visit, &held);
    let in_all = rows.len();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let after = visit.parameter("after");
    let mut coming = rows.into_iter().filter(|row| *row.name > *after);
    let repositories: Vec<_> = coming.by_ref().take(PAGE).collect();
    let last = repositories.last().map(|row| row.name.clone());
    visit.page(&Repositories {
        next: last.filter(|_| coming.next().is_some()),
        repositories,
        repositories_in_all: in_all,
    })
}
