//! `/ui/repositories/{repo}/flush`: forgetting copies, after a second question.

use std::sync::Arc;

use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, Pattern, Repository, shown};
use larder_engine::{CacheType, FlushRequest};
use larder_ui::Count;
use larder_ui::pages::{Flush, Flushed};

use super::guard;
use super::numbers::Numbers;
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

pub(crate) fn show<B: Backend>(visit: &Visit<'_, B>, repository: &Arc<Repository>) -> Outcome {
    let pattern = visit.parameter("pattern");
    visit.page(&asked(visit, repository, "all", pattern, false))
}

fn asked<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Repository,
    cache_type: &str,
    pattern: String,
    confirm: bool,
) -> Flush {
    Flush {
        repository: Numbers::read(visit).head(visit, repository),
        cache_type: cache_type.to_owned(),
        pattern,
        confirm,
    }
}

pub(crate) async fn flush<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
    body: &mut Incoming,
) -> Outcome {
    let form = guard::change(visit, body).await?;
    let pattern = form.field("pattern").to_owned();
    let cache_type = match form.field("cache_type") {
        "all" => CacheType::All,
        "index" => CacheType::Index,
        "files" => CacheType::Files,
        _ => return Err(bad("choose what is to be flushed")),
    };
    if form.field("confirmed") != "yes" {
        // Said before it is asked for a second time.
        if let Err(error) = Pattern::compile(&pattern) {
            let message = format!("the pattern is no regular expression: {error}");
            let fault = bad(&message);
            return Err(Fault {
                code: ErrorCode::InvalidPattern,
                ..fault
            });
        }
        return visit.page(&asked(
            visit,
            repository,
            cache_type.as_str(),
            pattern,
            true,
        ));
    }
    let request = FlushRequest {
        remote: Some(repository.name.to_string()),
        cache_type,
        pattern: Some(pattern).filter(|pattern| !pattern.is_empty()),
    };
    let asked = request.clone();
    let report = visit.backend().flush(request).await?;
    visit.exchange.shared.hot.clear();
    tracing::info!(
        client = %visit.exchange.client.address, repository = %repository.name,
        cache_type = asked.cache_type.as_str(), pattern = asked.pattern.as_deref().map(|pattern| shown(pattern).into_owned()),
        index = report.index, files = report.files, "flushed from the web interface"
    );
    visit.page(&Flushed {
        repository: Numbers::read(visit).head(visit, repository),
        index: Count(report.index),
        files: Count(report.files),
    })
}

fn bad(message: &str) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
}
