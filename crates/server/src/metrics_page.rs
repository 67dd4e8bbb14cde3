//! `GET /metrics`: the page in the text format that was asked for, compressed if the client takes that.

use std::collections::HashSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use larder_core::{ErrorCode, Fault, FaultKind};

use crate::admin::text;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::Exchange;
use crate::metrics::{Node, Process};

const TEXT_0_0_4: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) async fn serve<B: Backend>(
    exchange: &Exchange<'_, B>,
) -> Result<Response<ResponseBody>, Fault> {
    let shared = exchange.shared;
    let node = node(exchange).await;
    let rendered = shared
        .metrics
        .render(exchange.backend.counters(), shared.hot.size(), node);
    let page = rendered.map_err(|_| {
        Fault::new(
            FaultKind::Internal,
            ErrorCode::Internal,
            "the metrics cannot be rendered",
        )
    })?;
    let headers = &exchange.head.headers;
    let open = lines(headers, &ACCEPT).any(|line| line.contains("application/openmetrics-text"));
    let (kind, page) = if open {
        (OPEN_METRICS, page)
    } else {
        (TEXT_0_0_4, older_text(&page))
    };
    let compressed = takes_gzip(headers)
        .then(|| compress(page.as_bytes()))
        .flatten();
    let is_compressed = compressed.is_some();
    let mut response = text(
        StatusCode::OK,
        kind,
        compressed.unwrap_or_else(|| page.into_bytes()),
    );
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if is_compressed {
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

async fn node<B: Backend>(exchange: &Exchange<'_, B>) -> Node {
    let (shared, backend) = (exchange.shared, exchange.backend);
    // Looks at the disk if that was not done in the last seconds.
    let _ = backend.health().await;
    let reload = shared.reload.load();
    Node {
        version: shared.version,
        connections_limit: shared.limits.connections as u64,
        hot_set_limit: shared.hot_set_limit,
        disk: backend.disk(),
        store: backend.store(),
        disk_use: backend.disk_use(),
        reload: reload.as_deref().map_or((true, shared.started), |reload| {
            (reload.error.is_none(), reload.at)
        }),
        certificate_expiry: shared
            .tls
            .as_ref()
            .map(|tls| tls.certificate().dates.not_after),
        upstreams: backend.upstreams(),
        process: Process::read(),
        cluster: backend.cluster(),
    }
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
}

/// RFC 9110 section 12.5.3, as far as it goes for one coding: named, or by `*` unless named, and not with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let weight_of = |wanted: &str| {
        lines(headers, &ACCEPT_ENCODING)
            .flat_map(|line| line.split(','))
            .find_map(|member| {
                let mut parts = member.split(';').map(str::trim);
                let name = parts.next()?;
                let weight = parts
                    .find_map(|part| part.strip_prefix("q="))
                    .and_then(|text| text.parse::<f32>().ok());
                name.eq_ignore_ascii_case(wanted)
                    .then(|| weight.unwrap_or(1.0))
            })
    };
    weight_of("gzip")
        .or_else(|| weight_of("*"))
        .is_some_and(|weight| weight > 0.0)
}

fn compress(page: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(page.len() / 8), Compression::fast());
    encoder.write_all(page).ok()?;
    encoder.finish().ok()
}

/// OpenMetrics as Prometheus' older text format: there, a counter's help and type stand under its sample's own name.
fn older_text(open_metrics: &str) -> String {
    let counters: HashSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut older = String::with_capacity(open_metrics.len() + counters.len() * 16);
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let comment = line
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once(' '));
        match comment.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) {
            Some((word, (name, rest))) if counters.contains(name) => {
                older.extend(["# ", word, " ", name, "_total ", rest]);
            }
            _ => older.push_str(line),
        }
        older.push('\n');
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_in_the_older_text_format_are_described_under_their_samples_names() {
        let open = "# HELP larder_requests Requests answered.\n# TYPE larder_requests counter\nlarder_requests_total{a=\"b\"} 1\n\
            # HELP larder_open Open connections.\n# TYPE larder_open gauge\nlarder_open 2\n# EOF\n";
        let expected = "# HELP larder_requests_total Requests answered.\n# TYPE larder_requests_total counter\n\
            larder_requests_total{a=\"b\"} 1\n# HELP larder_open Open connections.\n# TYPE larder_open gauge\nlarder_open 2\n";
        assert_eq!(older_text(open), expected);
    }

    #[test]
    fn gzip_is_taken_by_who_says_so() {
        for (line, taken) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("gzip; q=0", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(line));
            assert_eq!(takes_gzip(&headers), taken, "{line:?}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
