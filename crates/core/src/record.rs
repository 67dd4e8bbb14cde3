//! What is remembered of one upstream document or file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::digest::Digest;

/// A blob's address, length and media type (the OCI word for it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobDescriptor {
    /// SHA-256 of the bytes: the blob's name in the store.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// What a record stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// The bytes are held.
    Blob(BlobDescriptor),
    /// Another record of the same repository and variant holds the bytes (an OCI tag, an RPM generation).
    Pointer(String),
    /// The upstream said that there is no such thing (404 or 410).
    Negative {
        /// The upstream's status.
        status: u16,
    },
    /// Only the head is known: the artifact is or was held back by quarantine, or only its date was asked for.
    HeadOnly,
}

/// Response headers worth keeping, verbatim from the response that carried the body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredHeaders {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `ETag`, quotes and `W/` kept.
    pub etag: Option<String>,
    /// `Last-Modified` as sent; `None` if it was not an HTTP date.
    pub last_modified: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Content-Encoding` of the bytes as stored; `None` = identity.
    pub content_encoding: Option<String>,
    /// The digest that the upstream's head states of the body, where the format knows one; compared with the body before it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The length that a head told of bytes that are not held; what is held has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Further fields that the format keeps, by lower-case name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub further: BTreeMap<String, String>,
}

impl StoredHeaders {
    /// What a later answer tells of the same body: a 304, or a HEAD that found it unchanged (RFC 9111 sections 4.3.4 and 4.3.5). The
    /// validators stay those of the answer that carried the body. `reads_as` says that the type tells how the bytes are to be read:
    /// then it stays, too.
    #[must_use]
    pub fn renewed_by(&self, told: &Self, reads_as: bool) -> Self {
        let newer =
            |told: &Option<String>, kept: &Option<String>| told.as_ref().or(kept.as_ref()).cloned();
        Self {
            content_type: if reads_as {
                self.content_type.clone()
            } else {
                newer(&told.content_type, &self.content_type)
            },
            content_disposition: newer(&told.content_disposition, &self.content_disposition),
            content_language: newer(&told.content_language, &self.content_language),
            further: self.further_renewed_by(told),
            ..self.clone()
        }
    }

    /// What caches behind the upstream said of the one answer says nothing of the other.
    fn further_renewed_by(&self, told: &Self) -> BTreeMap<String, String> {
        let is_of_the_way =
            |name: &str| matches!(name, Self::AGE | Self::CACHE_STATUS | Self::SKIPPED_MEMBERS);
        let kept = self.further.iter().filter(|(name, _)| !is_of_the_way(name));
        let new = told.further.iter().filter(|(name, _)| is_of_the_way(name));
        kept.chain(new)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The further field that says how old the upstream's answer was, in seconds, if it came from a cache (RFC 9111 section 5.1).
    pub const AGE: &'static str = "age";
    /// The further field that says what caches behind the upstream did (RFC 9211).
    pub const CACHE_STATUS: &'static str = "cache-status";

    /// The further field by which another larder names members that it left out.
    pub const SKIPPED_MEMBERS: &'static str = "x-larder-skipped";

    /// How old the answer was when it came.
    fn age(&self) -> Option<Duration> {
        let seconds = self.further.get(Self::AGE)?;
        seconds.parse().ok().map(Duration::from_secs)
    }
}

/// A further field in its map, beside its texts.
const FURTHER_WEIGHT: usize = 2 * size_of::<String>() + 16;

/// Everything remembered of one [`SourceKey`](crate::key::SourceKey).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// The bytes, or why there are none.
    pub content: Content,
    /// Headers that came with the body.
    pub headers: StoredHeaders,
    /// The URL that the body came from after redirects, without user-info and with `?` alone in the place of a query: base of
    /// relative links.
    pub source_url: String,
    /// The upstream's `Last-Modified` at first contact, for quarantine; never moved by a fetch of equal bytes.
    pub published_at: Option<UnixMillis>,
    /// When larder first saw this artifact.
    pub first_seen_at: UnixMillis,
    /// Last good upstream contact: a 200, a 304 or an unchanged HEAD. Bounds `stale.max_age`.
    pub contacted_at: UnixMillis,
    /// When the time-to-live last started: a good contact, or a stale renewal after a network failure.
    #[serde(rename = "renewed_at")]
    pub fresh_since: UnixMillis,
    /// When larder began to serve this body: lower bound for `If-Modified-Since` comparisons.
    #[serde(rename = "began_at")]
    pub served_since: UnixMillis,
    /// Whether the bytes were checked against a digest that the ecosystem names.
    pub verified: bool,
}

impl ArtifactRecord {
    /// When the origin last said what this is, as far as is known: the last contact, less the age that the upstream's answer had then (RFC
    /// 9111 section 4.2.3). `Age` counts from here.
    pub fn said_at(&self) -> UnixMillis {
        let age = self.headers.age().unwrap_or_default();
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        UnixMillis(self.contacted_at.0.saturating_sub(age))
    }

    /// The blob, if the bytes are held.
    pub fn blob(&self) -> Option<&BlobDescriptor> {
        match &self.content {
            Content::Blob(blob) => Some(blob),
            Content::Pointer(_) | Content::Negative { .. } | Content::HeadOnly => None,
        }
    }

    /// The bytes that it takes in memory: its own, those of its texts, and an allowance for what holds a map of further fields together.
    pub fn weight(&self) -> u64 {
        let headers = &self.headers;
        let texts = [
            &headers.content_type,
            &headers.etag,
            &headers.last_modified,
            &headers.content_disposition,
            &headers.content_language,
            &headers.content_encoding,
        ];
        let pointer = if let Content::Pointer(to) = &self.content {
            to.capacity()
        } else {
            0
        };
        let texts: usize = texts.into_iter().flatten().map(String::capacity).sum();
        let further: usize = headers
            .further
            .iter()
            .map(|(name, value)| FURTHER_WEIGHT + name.capacity() + value.capacity())
            .sum();
        (size_of::<Self>() + pointer + texts + further + self.source_url.capacity()) as u64
    }

    /// Whether there is something to serve: the bytes, or a pointer to another record that has them.
    pub fn has_body(&self) -> bool {
        matches!(self.content, Content::Blob(_) | Content::Pointer(_))
    }

    /// Whether the upstream gave anything to compare with.
    pub fn has_validators(&self) -> bool {
        self.headers.etag.is_some()
            || self.headers.last_modified.is_some()
            || self.headers.digest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    #[test]
    fn a_record_survives_its_stored_form() {
        for content in [
            record().content,
            Content::Pointer("generation/1".into()),
            Content::Negative { status: 410 },
            Content::HeadOnly,
        ] {
            let stored = ArtifactRecord {
                content,
                ..record()
            };
            let text = serde_json::to_string(&stored).unwrap();
            assert_eq!(
                serde_json::from_str::<ArtifactRecord>(&text).unwrap(),
                stored
            );
        }
    }

    #[test]
    fn headers_that_a_later_version_adds_are_absent_from_an_old_record() {
        let headers: StoredHeaders = serde_json::from_str(r#"{"etag": "\"a\""}"#).unwrap();
        assert_eq!(
            headers,
            StoredHeaders {
                etag: Some("\"a\"".into()),
                ..StoredHeaders::default()
            }
        );
    }

    #[test]
    fn what_caches_behind_the_upstream_say_is_of_one_answer() {
        let further = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let mut record = crate::testing::record();
        assert_eq!(record.said_at(), record.contacted_at);
        record.headers.further = further(&[
            ("age", "90"),
            ("cache-status", "a; hit"),
            ("x-larder-skipped", "a"),
            ("x", "y"),
        ]);
        assert_eq!(record.contacted_at.since(record.said_at()).as_secs(), 90);
        let told = StoredHeaders {
            further: further(&[("age", "7"), ("x", "z")]),
            ..StoredHeaders::default()
        };
        let renewed = record.headers.renewed_by(&told, false).further;
        assert_eq!(renewed, further(&[("age", "7"), ("x", "y")]));
        let renewed = record.headers.renewed_by(&StoredHeaders::default(), false);
        assert_eq!(renewed.further, further(&[("x", "y")]));
        record.headers.further = further(&[("age", "18446744073709551615")]);
        assert!(record.said_at() < record.contacted_at, "nothing overflows");
    }

    #[test]
    fn a_later_answer_renews_what_describes_the_body_and_nothing_that_proves_it() {
        let text = |text: &str| Some(text.to_owned());
        let kept = StoredHeaders {
            content_type: text("text/plain"),
            etag: text("\"a\""),
            last_modified: text("Sun, 06 Nov 1994 08:49:37 GMT"),
            content_language: text("en"),
            content_encoding: text("gzip"),
            ..StoredHeaders::default()
        };
        let told = StoredHeaders {
            content_type: text("text/html"),
            etag: text("\"b\""),
            last_modified: text("Sun, 06 Nov 1994 08:49:38 GMT"),
            content_disposition: text("attachment"),
            ..StoredHeaders::default()
        };
        let renewed = kept.renewed_by(&told, false);
        assert_eq!(
            (renewed.content_type, renewed.content_disposition),
            (text("text/html"), text("attachment"))
        );
        assert_eq!(
            (renewed.content_language, renewed.content_encoding),
            (text("en"), text("gzip")),
            "silence changes nothing"
        );
        assert_eq!(
            (renewed.etag, renewed.last_modified),
            (kept.etag.clone(), kept.last_modified.clone())
        );
        assert_eq!(
            kept.renewed_by(&told, true).content_type,
            text("text/plain")
        );
    }

    #[test]
    fn only_a_blob_has_bytes_and_a_pointer_leads_to_some() {
        let with = |content| ArtifactRecord {
            content,
            ..record()
        };
        assert!(record().blob().is_some() && record().has_body());
        let pointer = with(Content::Pointer("p".into()));
        assert!(pointer.blob().is_none() && pointer.has_body());
        assert!(!with(Content::HeadOnly).has_body());
        assert!(!with(Content::Negative { status: 404 }).has_body());
    }
}
