//! Several places for one upstream (`base_url` as a list): which of them is asked, in which order, and who is asked next when one
//! fails before the first byte of a body (ADR 0027). What happens after it stands in `supply.rs` and `fetch.rs`.
//!
//! Every request to an upstream goes through [`Mirrors::ask`] (`accept.rs`) to [`Mirrors::ask_in_turn`]; with one place it is a plain
//! request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use larder_core::{Clock, ErrorCode, SafeUrl, UnixMillis, shown};
use larder_upstream::{
    BreakerState, Breakers, ClusterLimits, Upstream, UpstreamError, UpstreamRequest,
    UpstreamResponse, retry_after,
};

use super::query::{Arrival, UpstreamQuery};
use super::routes::{Route, request, routes};
use super::standing::{note_answer, note_arrival, note_body};
use crate::counters::count;
use crate::fault::{FetchError, status_outcome};
use crate::repositories::mirror::{Mirror, MirrorKey};
use crate::target::Target;

/// Where there is somebody else to ask, a byte may take this long, or `timeouts.read` if that is less.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places of all upstreams: how they are doing, and the way to them. Outlives a reload.
#[derive(Debug)]
pub(crate) struct Mirrors {
    breakers: Arc<Breakers<MirrorKey>>,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
}

/// How much an answer is worth while others may still be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AnswerRank {
    /// No answer, or one that says nothing of the file.
    Failure,
    /// The mirror will not say, at present or ever.
    Refusal,
    /// This mirror has not got it.
    Absence,
    /// What was asked for.
    Good,
}

/// What the places that have been asked so far have said.
#[derive(Default)]
struct Answers {
    /// That says most of them.
    best: Option<(AnswerRank, Result<Arrival, FetchError>)>,
    /// Why the first that had nothing to say had not.
    failed: Option<FetchError>,
    /// How long all of them want to be left alone.
    come_back_in: Option<Duration>,
}

impl Answers {
    fn take(
        &mut self,
        rank: AnswerRank,
        answer: Result<Arrival, FetchError>,
        failure: impl FnOnce(&Arrival) -> FetchError,
    ) {
        if rank < AnswerRank::Absence && self.failed.is_none() {
            self.failed = Some(match &answer {
                Ok(arrival) => failure(arrival),
                Err(no_body) => no_body.clone(),
            });
        }
        if self.best.as_ref().is_none_or(|(before, _)| rank > *before) {
            self.best = Some((rank, answer));
        }
    }

    /// That says most, of so many places that were asked.
    fn best_of(self, asked: usize) -> Result<Arrival, FetchError> {
        match self.best {
            None => Err(FetchError::unusable(
                ErrorCode::NoMirror,
                "no mirror of this repository is left to be asked",
            )),
            Some((_, Ok(arrival))) => Ok(Arrival {
                failed: self.failed,
                come_back_in: self.come_back_in,
                ..arrival
            }),
            Some((_, Err(why))) => Err(FetchError {
                message: and_others(why.message, asked - 1),
                ..why
            }),
        }
    }
}

impl Mirrors {
    pub(super) fn new(upstream: Arc<dyn Upstream>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            breakers: Arc::new(Breakers::new(Arc::clone(&clock))),
            upstream,
            clock,
        })
    }

    /// From now on bounds on requests to upstreams are kept by all replicas together.
    pub(crate) fn keep_to(&self, limits: Arc<dyn ClusterLimits>) {
        self.upstream.keep_to(limits);
    }

    pub(crate) fn state(&self, mirror: &Mirror) -> BreakerState {
        self.breakers.state(&mirror.key)
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Asks the places of an upstream one after the other until one gives what was asked for. If none does, the answer that says
    /// most is given: that there is no such file, before a refusal, before a failure.
    pub(super) async fn ask_in_turn(
        self: &Arc<Self>,
        wanted: &Target,
        ask: &UpstreamQuery<'_>,
    ) -> Result<Arrival, FetchError> {
        let routes = self.in_order(wanted, routes(wanted, ask)?);
        let several = wanted.entry.mirrors.len() > 1;
        let mut answers = Answers::default();
        let idempotent = matches!(ask.method, Method::GET | Method::HEAD);
        let count = if idempotent { routes.len() } else { 1 };
        for (position, route) in routes.into_iter().enumerate().take(count) {
            let has_mirror_beside = position + 1 < count;
            let patience = has_mirror_beside.then_some(PATIENCE);
            let answer = self
                .send_by(wanted, &route, request(wanted, ask, &route, patience))
                .await;
            let worth = worth(&answer, ask);
            let pause = asks_to_wait(&answer, self.now());
            answers.come_back_in = if position == 0 {
                pause
            } else {
                answers.come_back_in.min(pause)
            };
            if several {
                let url = SafeUrl(route.url.clone()).to_string();
                tracing::debug!(repository = %wanted.entry.repository.name, url = &*shown(&url), ?worth, "a mirror was asked");
            }
            let answer = answer.map_err(FetchError::from).map(|response| Arrival {
                response,
                mirror: route.mirror,
                claimed: ask.claimed.clone(),
                has_mirror_beside,
                failed: None,
                come_back_in: answers.come_back_in,
            });
            if worth == AnswerRank::Good || !several {
                return answer;
            }
            answers.take(worth, answer, |arrival| {
                status_outcome(wanted, &arrival.response, self.now())
            });
        }
        answers.best_of(count)
    }

    /// Asks every place for the head of a document, whoever is put aside, so that it becomes known how old each one's is.
    pub(crate) async fn compare(&self, wanted: &Target) -> Result<(), FetchError> {
        let head = UpstreamQuery {
            method: Method::HEAD,
            has_stale_fallback: true,
            ..UpstreamQuery::default()
        };
        let routes = routes(wanted, &head)?;
        let asked = routes.iter().map(|route| {
            let request = request(wanted, &head, route, Some(PATIENCE));
            self.send_by(wanted, route, request)
        });
        join_all(asked).await;
        Ok(())
    }

    /// Sends to one place, and remembers how that went.
    async fn send_by(
        &self,
        wanted: &Target,
        route: &Route,
        request: UpstreamRequest,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let counters = &wanted.entry.counters;
        count(&counters.upstream_requests);
        let settings = request.repository.upstream();
        let deadline = settings.map_or(PATIENCE, |settings| {
            settings.connect_timeout + settings.read_timeout + PATIENCE
        });
        // With nobody else to ask there is nothing to be put aside for.
        let several = wanted.entry.mirrors.len() > 1;
        let permit = route
            .mirror
            .as_ref()
            .filter(|_| several)
            .and_then(|m| self.breakers.admit(&m.key, deadline).ok());
        let method = request.method.clone();
        let asked = Instant::now();
        let answer = self.upstream.send(request).await;
        let arrived = (asked, self.now());
        note_arrival(wanted, route.mirror.as_ref(), answer.as_ref().ok(), arrived);
        let answer = answer.map(|response| read_absence(wanted, &method, response));
        match &answer {
            Ok(response) => wanted.entry.quota.record_rate_limit(response, self.now()),
            Err(error) if error.kind.is_of_the_operator() => {}
            Err(_) => count(&counters.upstream_errors),
        }
        // A HEAD that is not taken is asked again with GET, and that one tells.
        if !answer
            .as_ref()
            .is_ok_and(|response| method == Method::HEAD && wants_get(response.status))
        {
            note_answer(
                wanted,
                route.mirror.as_ref(),
                &route.url,
                answer.as_ref(),
                self.now(),
            );
        }
        let in_trouble = is_trouble(&answer) && !is_refused_to_anybody(wanted, &answer);
        if let Some(mirror) = &route.mirror {
            count(&mirror.counters.requests);
            if in_trouble {
                count(&mirror.counters.failures);
            }
        }
        if let Some(permit) = permit {
            match &answer {
                Ok(_) if !in_trouble => permit.succeeded(),
                Ok(_) => permit.failed(),
                Err(error) if error.kind.is_of_the_operator() => drop(permit),
                Err(_) => permit.failed_badly(),
            }
        }
        answer
    }

    /// A mirror's body was wrong or broke off: it is put aside for a while, if there is another.
    pub(crate) fn put_aside(&self, wanted: &Target, mirror: &Arc<Mirror>, why: &FetchError) {
        count(&mirror.counters.failures);
        note_body(wanted, Some(mirror), None, why, self.now());
        if wanted.entry.mirrors.len() < 2 || why.may_be_an_absence() {
            return;
        }
        tracing::debug!(repository = %wanted.entry.repository.name, mirror = mirror.shown(), reason = why.code.as_str(),
            "a mirror is put aside for a while");
        if let Ok(permit) = self.breakers.admit(&mirror.key, PATIENCE) {
            permit.failed_badly();
        }
    }

    /// Healthy mirrors first, in the operator's order. Those that were put aside come last; of those whose pause is over, one request
    /// behind the scenes finds out whether they are back, so that no client waits for the answer.
    fn in_order(self: &Arc<Self>, wanted: &Target, routes: Vec<Route>) -> Vec<Route> {
        if wanted.entry.mirrors.len() < 2 {
            return routes;
        }
        let state = |route: &Route| {
            route
                .mirror
                .as_ref()
                .map_or(BreakerState::Closed, |mirror| self.state(mirror))
        };
        let (mut ready, aside): (Vec<_>, Vec<_>) = routes
            .into_iter()
            .partition(|route| state(route) == BreakerState::Closed);
        if !ready.is_empty() {
            aside
                .iter()
                .filter(|route| state(route) == BreakerState::HalfOpen)
                .for_each(|route| self.probe(wanted, route));
        }
        ready.extend(aside);
        ready
    }

    fn probe(self: &Arc<Self>, wanted: &Target, route: &Route) {
        let Some(mirror) = route.mirror.clone() else {
            return;
        };
        let Ok(permit) = self.breakers.admit(&mirror.key, PATIENCE * 4) else {
            return;
        };
        let head = UpstreamQuery {
            method: Method::HEAD,
            has_stale_fallback: true,
            ..UpstreamQuery::default()
        };
        let request = request(wanted, &head, route, Some(PATIENCE));
        let (mirrors, entry) = (Arc::clone(self), Arc::clone(&wanted.entry));
        larder_upstream::spawn(async move {
            count(&mirror.counters.probes);
            let answer = mirrors.upstream.send(request).await;
            if is_trouble(&answer) {
                permit.failed();
            } else {
                permit.succeeded();
                entry.answered(Some(&mirror), mirrors.now());
            }
        });
    }
}

/// Whether there is a mirror for this source that is not to be avoided.
pub(super) fn has_mirror_beside(wanted: &Target, avoid: &[Arc<Mirror>]) -> bool {
    wanted
        .entry
        .mirrors
        .iter()
        .any(|mirror| !avoid.iter().any(|other| other.is(mirror)))
}

/// How long this place wants to be left alone with what it was asked.
fn asks_to_wait(
    answer: &Result<UpstreamResponse, UpstreamError>,
    now: UnixMillis,
) -> Option<Duration> {
    let refused = |response: &&UpstreamResponse| matches!(response.status.as_u16(), 429 | 503);
    let response = answer.as_ref().ok().filter(refused)?;
    retry_after(&response.headers, now).filter(|pause| !pause.is_zero())
}

/// Whether an answer to HEAD says only that this is no way to ask: then it is asked with GET.
pub(super) fn wants_get(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 403 | 405 | 501)
}

/// Why nobody answered, where one reason is shown and the others are in the log and `/health`.
fn and_others(message: String, others: usize) -> String {
    match others {
        0 => message,
        1 => format!("{message}; the other mirror that was asked failed, too"),
        _ => format!("{message}; {others} other mirrors that were asked failed, too"),
    }
}

/// Reads a status that this upstream gives for what it does not have (`missing_status`) as a 404, before anybody else looks at it. What
/// is asked again with GET is left alone: a signature may be for GET only.
fn read_absence(
    wanted: &Target,
    method: &Method,
    mut response: UpstreamResponse,
) -> UpstreamResponse {
    let status = response.status;
    let reads = *method == Method::GET || (*method == Method::HEAD && !wants_get(status));
    if reads
        && wanted
            .entry
            .repository
            .cache
            .missing_status
            .contains(&status.as_u16())
    {
        tracing::debug!(key = %wanted.key, status = status.as_u16(), "read as absence (missing_status)");
        response.status = StatusCode::NOT_FOUND;
    }
    response
}

fn worth(answer: &Result<UpstreamResponse, UpstreamError>, ask: &UpstreamQuery<'_>) -> AnswerRank {
    let Ok(response) = answer else {
        return AnswerRank::Failure;
    };
    match response.status {
        StatusCode::OK => AnswerRank::Good,
        StatusCode::NOT_MODIFIED if ask.unless_changed.is_some() => AnswerRank::Good,
        StatusCode::PARTIAL_CONTENT if ask.resume.is_some() => AnswerRank::Good,
        StatusCode::NOT_FOUND | StatusCode::GONE => AnswerRank::Absence,
        status if ask.method == Method::HEAD && wants_get(status) => AnswerRank::Good,
        status
            if status.is_client_error()
                && !matches!(status.as_u16(), 401 | 407 | 408 | 421 | 425 | 429) =>
        {
            AnswerRank::Refusal
        }
        _ => AnswerRank::Failure,
    }
}

/// Whether a mirror says what registries say to names that do not exist: no client may put a mirror aside by a name it made up.
fn is_refused_to_anybody(
    wanted: &Target,
    answer: &Result<UpstreamResponse, UpstreamError>,
) -> bool {
    let refused = answer
        .as_ref()
        .is_ok_and(|response| response.status == StatusCode::UNAUTHORIZED);
    refused
        && wanted
            .format
            .refused_to_anybody(&wanted.entry.repository, &wanted.spec.key_path)
            .is_some()
}

/// Whether a mirror has failed, rather than said something about a file.
fn is_trouble(answer: &Result<UpstreamResponse, UpstreamError>) -> bool {
    match answer {
        // A way that leads back here says nothing of who stands at its end, and the next request may come another way.
        Ok(response) if response.status == StatusCode::LOOP_DETECTED => false,
        Ok(response) => {
            response.status.is_server_error() || matches!(response.status.as_u16(), 401 | 407 | 429)
        }
        Err(error) => !error.kind.is_of_the_operator(),
    }
}
