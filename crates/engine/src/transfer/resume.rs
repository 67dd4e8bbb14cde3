//! Taking a cut download up again (mechanics, section 2). Two parts are joined only if a strong validator or, at the end, a
//! digest says that they belong together (hazard W9).

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use larder_core::{StoredHeaders, is_strong_tag};
use larder_upstream::{BodyStream, Resume, UpstreamResponse};

use crate::fault::FetchError;
use crate::repositories::mirror::Mirror;

/// Whoever a body came from, or others who have the same: asked for the rest of it when it was cut.
pub(crate) trait Supply: Send + Sync {
    /// The answer to a question for `rest`; `None` if nobody answers.
    fn rest(&self, rest: Resume, cut: &Cut<'_>) -> impl Future<Output = Option<Answered>> + Send;

    /// This mirror has cut the body, or is too slow.
    fn put_aside(&self, mirror: &Arc<Mirror>, why: &FetchError);
}

/// An answer that may bring the rest of a body.
pub(crate) struct Answered {
    pub(crate) response: UpstreamResponse,
    /// What is kept of its head.
    pub(crate) headers: StoredHeaders,
    pub(crate) mirror: Option<Arc<Mirror>>,
}

/// What is needed to take a cut download up again.
pub(super) struct FirstAnswer {
    etag: Option<String>,
    last_modified: Option<String>,
    coding: Option<String>,
    total: Option<u64>,
    mirror: Option<Arc<Mirror>>,
    /// Whether there is more than one mirror.
    has_several: bool,
}

/// Where a download was cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut<'a> {
    /// Bytes that are there.
    pub(crate) offset: u64,
    /// Whether a digest is or may be stated of the whole.
    pub(crate) expects_digest: bool,
    /// Mirrors that are not asked for the rest.
    pub(crate) avoid: &'a [Arc<Mirror>],
}

/// What says that two parts belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// The same strong tag.
    ByTag,
    /// The digest, at the end.
    ByDigest,
    /// The second part begins with all of the first: then it is the whole body.
    IfTheSame,
}

/// The rest of a body.
pub(super) struct Rest {
    pub(super) body: BodyStream,
    /// Bytes at its start that are there already.
    pub(super) known: u64,
    /// Length of the whole, if this answer states it.
    pub(super) total: Option<u64>,
    pub(super) joined: Joined,
    /// Who sends it.
    pub(super) mirror: Option<Arc<Mirror>>,
    /// Whether the validators of the first answer are not those of this one.
    pub(super) of_another_mirror: bool,
}

impl FirstAnswer {
    pub(super) fn new(
        headers: &StoredHeaders,
        total: Option<u64>,
        mirror: Option<&Arc<Mirror>>,
        has_several: bool,
    ) -> Self {
        Self {
            etag: headers.etag.clone(),
            last_modified: headers.last_modified.clone(),
            coding: headers.content_encoding.clone(),
            total,
            mirror: mirror.cloned(),
            has_several,
        }
    }

    fn strong_tag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| is_strong_tag(tag))
    }

    pub(super) fn has_strong_tag(&self) -> bool {
        self.strong_tag().is_some()
    }

    /// Asks for the rest. Where there are several mirrors, the one that broke off has been put aside, and the others are asked first.
    pub(super) async fn resume(&self, supply: &impl Supply, cut: &Cut<'_>) -> Option<Rest> {
        // Mirrors agree on digests more often than on tags, and a server without a strong tag may still know ranges.
        let vouched = cut.expects_digest && (self.has_several || !self.has_strong_tag());
        let if_range = self.strong_tag().filter(|_| !vouched);
        let rest = Resume {
            offset: cut.offset,
            if_range: if_range.unwrap_or_default().to_owned(),
            vouched,
        };
        let answered = supply.rest(rest, cut).await?;
        self.join(answered, cut)
    }

    fn join(&self, answered: Answered, cut: &Cut<'_>) -> Option<Rest> {
        let Answered {
            response,
            headers: now,
            mirror,
        } = answered;
        let elsewhere = mirror.as_ref().map(Arc::as_ptr) != self.mirror.as_ref().map(Arc::as_ptr);
        let same_tag = self.strong_tag().is_none() || now.etag.as_deref() == self.strong_tag();
        let same_date = now.last_modified == self.last_modified;
        // Servers that share an address give the same bytes different tags: where a digest tells at the end, the tag need not.
        if now.content_encoding != self.coding || !(same_tag || elsewhere || cut.expects_digest) {
            return None;
        }
        let declared = response.body.declared_length();
        let by_tag = self.has_strong_tag() && same_tag && (same_date || !elsewhere);
        let (known, total, joined) = match response.status {
            StatusCode::PARTIAL_CONTENT => {
                let total = self.continues(&response.headers, cut.offset, declared)?;
                // Without a tag only the digest can tell, be it from the same server or from another.
                let joined = match (by_tag, cut.expects_digest) {
                    (true, _) => Joined::ByTag,
                    (false, true) => Joined::ByDigest,
                    (false, false) => return None,
                };
                (0, Some(total), joined)
            }
            // The upstream knows no ranges, or has another tag: what is already there is read again and passed over.
            StatusCode::OK if self.total.is_none() || declared == self.total => {
                let joined = match (by_tag, elsewhere, cut.expects_digest) {
                    (true, ..) => Joined::ByTag,
                    (false, false, true) => Joined::ByDigest,
                    (false, ..) => Joined::IfTheSame,
                };
                (cut.offset, declared, joined)
            }
            _ => return None,
        };
        let of_another_mirror = !same_tag || (elsewhere && !same_date);
        Some(Rest {
            body: response.body,
            known,
            total,
            joined,
            mirror,
            of_another_mirror,
        })
    }

    /// The length of the whole, if a 206 is all the rest of it and nothing else.
    fn continues(&self, headers: &HeaderMap, offset: u64, declared: Option<u64>) -> Option<u64> {
        let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
        let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (start, last) = span.split_once('-')?;
        let end = last.parse::<u64>().ok()?.checked_add(1)?;
        let total = if total == "*" {
            self.total?
        } else {
            total.parse().ok()?
        };
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
        FirstAnswer {
            etag: None,
            last_modified: None,
            coding: None,
            total,
            mirror: None,
            has_several: false,
        }
        .continues(&headers, 100, declared)
    }

    /// RFC 9110 section 14.4.
    #[test]
    fn hazard_w1_only_all_the_rest_continues_a_body() {
        assert_eq!(
            continues(Some(300), "bytes 100-299/300", Some(200)),
            Some(300)
        );
        assert_eq!(continues(None, "bytes 100-299/300", None), Some(300));
        assert_eq!(
            continues(Some(300), "bytes 100-299/*", Some(200)),
            Some(300)
        );
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
            assert_eq!(
                continues(total, range, declared),
                None,
                "{total:?} {range} {declared:?}"
            );
        }
    }
}
