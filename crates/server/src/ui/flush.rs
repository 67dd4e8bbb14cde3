//! `/ui/repositories/{repo}/flush`: forgetting copies, after a second question.

use std::sync::Arc;

use http::StatusCode;
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
    visit.page(&asked(visit, repository, "all", pattern))
}

fn asked<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Repository,
    cache_type: &str,
    pattern: String,
) -> Flush {
    Flush {
        repository: Numbers::read(visit).head(visit, repository),
        cache_type: cache_type.to_owned(),
        pattern,
        confirm: false,
        refused: None,
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
        let page = asked(visit, repository, cache_type.as_str(), pattern);
        // Said before it is asked for a second time.
        if let Err(error) = Pattern::compile(&page.pattern) {
            return not_a_pattern(visit, page, &error.to_string());
        }
        return visit.page(&Flush {
            confirm: true,
            ..page
        });
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

/// The form again, with what is wrong with it; scripts get the fault.
fn not_a_pattern<B: Backend>(visit: &Visit<'_, B>, page: Flush, error: &str) -> Outcome {
    let message = format!("the pattern is no regular expression: {error}");
    if visit.wants_json() {
        return Err(Fault {
            code: ErrorCode::InvalidPattern,
            ..bad(&message)
        });
    }
    let page = Flush {
        refused: Some(message),
        ..page
    };
    visit.page_with(StatusCode::BAD_REQUEST, &page)
}

fn bad(message: &str) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
}
