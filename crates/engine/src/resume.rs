//! Taking a cut download up again (design section 11, "Flights"). Two parts are joined only if a strong validator or, at the end, a
//! digest says that they belong together (hazard W9).

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};
use larder_upstream::{BodyStream, Resume, UpstreamResponse};
use url::Url;

use crate::admission::Wanted;
use crate::download::stored_headers;
use crate::engine::Engine;
use crate::expectation::Expectation;

/// What is needed to take a cut download up again.
pub(crate) struct FirstAnswer {
    etag: Option<String>,
    coding: Option<String>,
    total: Option<u64>,
}

/// The rest of a body.
pub(crate) struct Rest {
    pub(crate) body: BodyStream,
    /// Bytes at its start that are there already.
    pub(crate) known: u64,
    /// Length of the whole, if this answer states it.
    pub(crate) total: Option<u64>,
}

impl FirstAnswer {
    pub(crate) fn of(wanted: &Wanted, response: &UpstreamResponse) -> Self {
        let headers = stored_headers(wanted, &response.headers);
        Self { etag: headers.etag, coding: headers.content_encoding, total: response.body.declared_length() }
    }

    fn strong_tag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| tag.starts_with('"'))
    }

    pub(crate) fn has_strong_tag(&self) -> bool {
        self.strong_tag().is_some()
    }

    /// Asks for the rest, from the first URL again: a signed one may have expired.
    pub(crate) async fn resume(&self, engine: &Arc<Engine>, wanted: &Arc<Wanted>, offset: u64) -> Result<Rest, ()> {
        let claimed = match engine.expect(wanted).await {
            Expectation::Known(claim) => Url::parse(&claim.url).ok(),
            Expectation::None | Expectation::Pending(_) => None,
        };
        let mut request = Engine::upstream_request(wanted, Method::GET, claimed).map_err(drop)?;
        request.resume = Some(Resume { offset, if_range: self.strong_tag().unwrap_or_default().to_owned() });
        let UpstreamResponse { status, headers, body, .. } = engine.send(wanted, request).await.map_err(drop)?;
        let now = stored_headers(wanted, &headers);
        let same_tag = self.strong_tag().is_none() || now.etag.as_deref() == self.strong_tag();
        if !same_tag || now.content_encoding != self.coding {
            return Err(());
        }
        let declared = body.declared_length();
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let total = self.continues(&headers, offset, declared).ok_or(())?;
                Ok(Rest { body, known: 0, total: Some(total) })
            }
            // The upstream knows no ranges: what is already there is read again and passed over.
            StatusCode::OK if self.total.is_none() || declared == self.total => Ok(Rest { body, known: offset, total: declared }),
            _ => Err(()),
        }
    }

    /// The length of the whole, if a 206 is all the rest of it and nothing else.
    fn continues(&self, headers: &HeaderMap, offset: u64, declared: Option<u64>) -> Option<u64> {
        let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
        let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (start, last) = span.split_once('-')?;
        let end = last.parse::<u64>().ok()?.checked_add(1)?;
        let total = if total == "*" { self.total? } else { total.parse().ok()? };
        let is_the_rest = start.parse() == Ok(offset) && end == total && offset < end;
        let same_total = self.total.is_none_or(|expected| expected == total);
        let whole = declared.is_none_or(|declared| Some(declared) == end.checked_sub(offset));
        (is_the_rest && same_total && whole).then_some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn continues(total: Option<u64>, range: &str, declared: Option<u64>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_RANGE, range.parse().unwrap());
        FirstAnswer { etag: None, coding: None, total }.continues(&headers, 100, declared)
    }

    /// RFC 9110 section 14.4.
    #[test]
    fn hazard_w1_only_all_the_rest_continues_a_body() {
        assert_eq!(continues(Some(300), "bytes 100-299/300", Some(200)), Some(300));
        assert_eq!(continues(None, "bytes 100-299/300", None), Some(300));
        assert_eq!(continues(Some(300), "bytes 100-299/*", Some(200)), Some(300));
        for (total, range, declared) in [
            (Some(300), "bytes 99-299/300", Some(201)),
            (Some(300), "bytes 100-199/300", Some(100)),
            (None, "bytes 100-199/300", Some(100)),
            (None, "bytes 100-299/*", Some(200)),
            (Some(300), "bytes 100-399/400", Some(300)),
            (Some(300), "bytes 100-299/300", Some(199)),
            (Some(300), "bytes */300", None),
            (Some(300), "lines 100-299/300", Some(200)),
            (None, "bytes 100-18446744073709551615/0", None),
            (None, "bytes 100-99/100", Some(0)),
        ] {
            assert_eq!(continues(total, range, declared), None, "{total:?} {range} {declared:?}");
        }
    }
}
