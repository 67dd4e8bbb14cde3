//! What of each scarce thing is in use, and who waits for it.

use std::fmt;

use larder_budget::BudgetUse;
use prometheus_client::encoding::NoLabelSet;

use super::page::{Page, Scrape};

/// One number of a budget, under the name of its metric.
type Number = (&'static str, fn(&BudgetUse) -> u64);

const GAUGES: [Number; 3] = [
    ("budget_limit", |budget| budget.limit),
    ("budget_held", |budget| budget.held),
    ("budget_waiting", |budget| budget.waiting),
];

const COUNTERS: [Number; 2] = [
    ("budget_refused", |budget| budget.refused),
    ("budget_yielded", |budget| budget.yielded),
];

impl Scrape {
    pub(super) fn budgets(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        for (name, number) in GAUGES {
            let mut family = page.gauges(name)?;
            for budget in &self.engine.budgets {
                family
                    .encode_family(&[("kind", budget.kind.as_str())])?
                    .encode_gauge(&number(budget))?;
            }
        }
        for (name, number) in COUNTERS {
            let mut family = page.counters(name)?;
            for budget in &self.engine.budgets {
                family
                    .encode_family(&[("kind", budget.kind.as_str())])?
                    .encode_counter::<NoLabelSet, _, u64>(&number(budget), None)?;
            }
        }
        Ok(())
    }
}
