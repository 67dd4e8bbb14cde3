//! What larder keeps of its own past, and what it can say of its present: what was counted, the last errors, what was refused, what is being
//! downloaded, and what nobody would get if an upstream were away (docs/adr/0099). Nothing here is on the way of a request.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | what operators ask, and when what was counted is written down |
//! | `figures.rs`, `book.rs` | points of a span; what has been counted since, by whom |
//! | `forecast.rs` | when the disk will be full |
//! | `compared.rs` | how far mirrors are behind each other, asked now |
//! | `incidents.rs` | the last errors |
//! | `refusals.rs` | which pattern would admit what was refused |
//! | `outage.rs` | what nobody would get |

mod book;
mod compared;
mod figures;
mod forecast;
mod incidents;
mod outage;
mod refusals;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use larder_core::{Fault, UnixMillis};
use larder_storage::{FigureRow, Figures, HeldSize, SINCE_THE_BEGINNING, StorageError};

use self::book::{ALL, Book};
use super::operator::{Operator, storage_unavailable};
use crate::policy::{addressed, admission};
use crate::transfer::flight::FlightReport;

pub use self::figures::{Forecast, History, HistoryPoint, Span};
pub use self::incidents::{RecentError, RecentErrors};
pub use self::outage::{MissingPath, Outage};
pub use self::refusals::RefusedGroup;

/// What was counted is written down so often.
const EVERY: Duration = Duration::from_mins(1);
/// At the end it is waited for so long.
const AT_THE_END: Duration = Duration::from_secs(5);

/// Who counts requests: the server.
pub trait TrafficSource: Debug + Send + Sync + 'static {
    /// Of each repository what has been counted since the start of the process, or since its counters were set to zero.
    /// [`Figures::fetched_bytes`] is left to the engine.
    fn traffic(&self) -> Vec<(String, Figures)>;
}

/// What larder keeps of its own past.
#[derive(Debug)]
pub struct Ledger {
    operator: Arc<Operator>,
    source: OnceLock<Arc<dyn TrafficSource>>,
    errors: Arc<RecentErrors>,
    book: tokio::sync::Mutex<Book>,
}

impl Ledger {
    /// Over what operators see; writes down what is counted as long as somebody has it. Must be called within a Tokio runtime.
    pub(crate) fn new(operator: &Arc<Operator>) -> Arc<Self> {
        let ledger = Arc::new(Self {
            operator: Arc::clone(operator),
            source: OnceLock::new(),
            errors: Arc::default(),
            book: tokio::sync::Mutex::default(),
        });
        let weak: Weak<Self> = Arc::downgrade(&ledger);
        tokio::spawn(async move {
            let mut has_failed = false;
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(ledger) = weak.upgrade() else {
                    return;
                };
                let written = ledger.write().await;
                if let Some(error) = written.as_ref().err().filter(|_| !has_failed) {
                    tracing::warn!(%error, "what was counted could not be written down; it is tried again each minute");
                }
                has_failed = written.is_err();
            }
        });
        ledger
    }

    /// From now on requests are counted there; the first call counts.
    pub fn counted_by(&self, source: Arc<dyn TrafficSource>) {
        let _ = self.source.set(source);
    }

    /// Where errors are noted.
    pub fn errors(&self) -> &Arc<RecentErrors> {
        &self.errors
    }

    /// Writes down what has been counted since that was last done. It happens every minute, and when the engine is drained.
    ///
    /// # Errors
    /// The database does not take it: it is kept for the next time.
    pub async fn write(&self) -> Result<(), StorageError> {
        self.write_with(self.operator.held_sizes()).await
    }

    async fn write_with(&self, held: Vec<HeldSize>) -> Result<(), StorageError> {
        let mut book = self.book.lock().await;
        self.collect(&mut book, &held).await;
        let catalog = &self.operator.catalog;
        let rows = book.rows();
        if !rows.is_empty() {
            catalog.add_figures(&rows).await?;
            book.written();
        }
        catalog.write_asked().await?;
        let now = catalog.now();
        if book.is_to_be_cleared(now) {
            for span in Span::ALL {
                let step = span.step().as_secs() as i64;
                catalog.forget_figures(step, span.first_of(now)).await?;
            }
            catalog.forget_asked(Span::Month.first_of(now)).await?;
            let all = self.operator.registry.load().all();
            let holds = all.iter().filter_map(|one| one.repository.quarantine.hold);
            catalog.forget_ages(holds.max().unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// The same at the end, within a few seconds.
    pub(crate) async fn close(&self) {
        // Nothing is begun that would look for the database when it is closed.
        let last = async {
            self.operator.catalog.write_uses(true).await;
            self.write_with(Vec::new()).await
        };
        match tokio::time::timeout(AT_THE_END, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what was counted in the last minute could not be written down");
            }
            Err(_) => tracing::warn!(
                "what was counted in the last minute could not be written down in time"
            ),
        }
    }

    /// Takes over what the counters say by now.
    async fn collect(&self, book: &mut Book, held: &[HeldSize]) {
        // Looks at the disk if that was not done in the last seconds.
        let _ = self.operator.health().await;
        let mut counted = self
            .source
            .get()
            .map_or_else(Vec::new, |source| source.traffic());
        // Looked up, not searched: there may be thousands, and a page of the web interface waits for this.
        let known: HashMap<String, usize> = counted
            .iter()
            .enumerate()
            .map(|(place, (name, _))| (name.clone(), place))
            .collect();
        for (name, counters) in self.operator.repository_counters() {
            let bytes = counters
                .upstream_bytes
                .load(std::sync::atomic::Ordering::Relaxed);
            let place = known.get(name.as_str());
            match place.and_then(|place| counted.get_mut(*place)) {
                Some((_, figures)) => figures.fetched_bytes = bytes,
                None => counted.push((
                    name.to_string(),
                    Figures {
                        fetched_bytes: bytes,
                        ..Figures::default()
                    },
                )),
            }
        }
        let free = self.operator.disk().map(|disk| disk.free);
        book.take(counted, held, free, self.operator.catalog.now());
    }

    /// What was counted, of one repository or of all together, with what this replica has not written down yet. Others write every minute.
    ///
    /// # Errors
    /// There is no such repository, or storage fails.
    pub async fn history(&self, repository: Option<&str>, span: Span) -> Result<History, Fault> {
        if let Some(name) = repository {
            addressed::built(&self.operator.registry, name)?;
        }
        let name = repository.unwrap_or(ALL);
        let mut book = self.book.lock().await;
        self.collect(&mut book, &self.operator.held_sizes()).await;
        let now = self.operator.catalog.now();
        let read = async {
            let rows = self.rows(&book, name, span, now).await?;
            let total = self
                .operator
                .catalog
                .figures(name, SINCE_THE_BEGINNING, UnixMillis(0));
            let total = book.with(name, SINCE_THE_BEGINNING, UnixMillis(0), total.await?);
            let long = match (repository, span) {
                (None, Span::Day) => self.rows(&book, name, Span::Month, now).await?,
                _ => rows.clone(),
            };
            Ok((rows, total, long))
        };
        let (rows, total, long) = read
            .await
            .map_err(|error: StorageError| storage_unavailable(&error))?;
        drop(book);
        let points = points(span, now, &rows);
        let total = total.first().copied().unwrap_or_default();
        let forecast = match (repository, self.operator.disk()) {
            (None, Some(disk)) => forecast::of(&long, &disk, now),
            _ => None,
        };
        Ok(History {
            span,
            sum: points
                .iter()
                .fold(Figures::default(), |sum, point| sum.plus(point.figures)),
            points,
            total: total.figures,
            began_at: (total.began_at.0 > 0).then_some(total.began_at),
            forecast,
        })
    }

    async fn rows(
        &self,
        book: &Book,
        name: &str,
        span: Span,
        now: UnixMillis,
    ) -> Result<Vec<FigureRow>, StorageError> {
        let (step, from) = (span.step().as_secs() as i64, span.first_of(now));
        let rows = self.operator.catalog.figures(name, step, from).await?;
        Ok(book.with(name, step, from, rows))
    }

    /// The last errors, the last of all first.
    pub fn recent_errors(&self) -> Vec<RecentError> {
        self.errors.all()
    }

    /// What the rules of a repository have refused since the start of the process, in groups of those that one pattern would admit.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn refused(&self, repository: &str) -> Result<Vec<RefusedGroup>, Fault> {
        let entry = addressed::built(&self.operator.registry, repository)?;
        Ok(refusals::of(&entry, self.operator.catalog.now()))
    }

    /// Asks every mirror of a repository for the heads of the indexes that larder had last from any of them, so that it becomes known how far
    /// each is behind ([`UpstreamReport::lag`](crate::UpstreamReport::lag)).
    ///
    /// # Errors
    /// There is no such repository (404), it has no two mirrors, is offline, or gave no index since the start of the process (400).
    pub async fn compare_mirrors(&self, repository: &str) -> Result<(), Fault> {
        let entry = admission::entry(&self.operator.registry, repository)?;
        compared::ask(&self.operator.remote.mirrors, &entry).await
    }

    /// What is being downloaded here, that first which began first.
    pub fn flights(&self) -> Vec<FlightReport> {
        self.operator.flights.shown(self.operator.catalog.now())
    }

    /// What would be answered if the repository's upstream were away from now on, or those of all `holders` (the members of a virtual one,
    /// or itself), with up to `limit` of the paths that would not be, behind those of a page before: `after` is that page's
    /// [`Outage::next`].
    ///
    /// # Errors
    /// There is no such repository (404), none has an upstream or `after` is none of those (400), or storage fails.
    pub async fn outage(
        &self,
        repository: &str,
        holders: &[String],
        after: Option<&str>,
        limit: u32,
    ) -> Result<Outage, Fault> {
        let entry = |name: &str| addressed::built(&self.operator.registry, name);
        let own = entry(repository)?;
        let holders: Vec<_> = holders
            .iter()
            .map(|name| entry(name))
            .collect::<Result<_, _>>()?;
        let mut requests = 0;
        let others = holders.iter().filter(|holder| !Arc::ptr_eq(holder, &own));
        for entry in others.chain([&own]) {
            let name = entry.repository.name.as_str();
            requests += self.history(Some(name), Span::Month).await?.sum.requests;
        }
        if let Err(error) = self.operator.catalog.write_asked().await {
            return Err(storage_unavailable(&error));
        }
        let of = (&*own, &*holders);
        outage::of(&self.operator, of, requests, (after, limit)).await
    }
}

/// The points of a span, none left out.
fn points(span: Span, now: UnixMillis, rows: &[FigureRow]) -> Vec<HistoryPoint> {
    let first = span.first_of(now);
    let point = |place: usize| {
        let at = UnixMillis(first.0 + place as i64 * span.step_ms());
        let row = rows.iter().find(|row| row.at == at).copied();
        let row = row.unwrap_or_default();
        HistoryPoint {
            at,
            figures: row.figures,
            stored_bytes: row.stored,
            free_bytes: row.free,
        }
    };
    (0..span.points()).map(point).collect()
}
