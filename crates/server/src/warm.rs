//! The warm set: heads of answers whose bodies stand in the store. Where many files are asked for once each, a body in the hot set would
//! be copied there and pushed out again unread; what is remembered of such an answer is its head and which blob it is, in some 600 bytes.
//! A hit opens the blob and asks nobody else. An answer that is asked for again soon enters the hot set with its body.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, DATE, ETAG, HeaderName, LAST_MODIFIED, LOCATION, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use larder_core::UnixMillis;
use larder_engine::HotTicket;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::metrics::RepositoryRequests;
use crate::respond::{Prepared, Way};

/// Memory for heads, in bytes: some 60,000 of the usual length.
const BUDGET: u64 = 40 << 20;

/// So many are expected: a small estimate keeps the empty table small; it grows as it fills.
const USUAL: usize = 50_000;

/// What an entry weighs beside its texts: the table's places for it, the ticket, the digest.
const ENTRY_WEIGHT: u64 = 400;

/// Fields that most answers have; their place here stands for their name.
const NAMES: [HeaderName; 11] = [
    ETAG,
    LAST_MODIFIED,
    DATE,
    CONTENT_TYPE,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CACHE_CONTROL,
    LOCATION,
    VARY,
    ACCEPT_RANGES,
];

/// Fields that say the same in most answers; [`FIXED_FROM`] and their place here stand for both name and value.
const FIXED: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "sandbox"),
    (ACCEPT_RANGES, "bytes"),
    (CONTENT_TYPE, "application/octet-stream"),
];
const FIXED_FROM: u8 = 128;

/// Stands before a name in full.
const IN_FULL: u8 = 255;

/// Fields added to each answer at the time that it is sent.
const ADDED: usize = 6;

/// The head of an answer in few bytes.
#[derive(Debug)]
pub(crate) struct PackedHead {
    /// For each field a code; where the code is [`IN_FULL`], a length of one byte and the name; unless it is of [`FIXED`], a length of two
    /// bytes, little-endian, and the value.
    fields: Bytes,
    count: usize,
    served_since: Option<UnixMillis>,
}

impl PackedHead {
    /// `None` for a head that is not to be remembered like this: of another status than 200, or with a field of extreme length.
    pub(crate) fn of(head: &Prepared) -> Option<Self> {
        if head.status != StatusCode::OK {
            return None;
        }
        let mut fields = Vec::new();
        for (name, value) in &head.headers {
            let value = value.as_bytes();
            let fixed =
                |(known, text): &(HeaderName, &str)| known == name && text.as_bytes() == value;
            if let Some(place) = FIXED.iter().position(fixed) {
                fields.push(FIXED_FROM + place as u8);
                continue;
            }
            if let Some(place) = NAMES.iter().position(|known| known == name) {
                fields.push(place as u8);
            } else {
                fields.extend([IN_FULL, u8::try_from(name.as_str().len()).ok()?]);
                fields.extend(name.as_str().as_bytes());
            }
            fields.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
            fields.extend(value);
        }
        Some(Self {
            fields: fields.into_boxed_slice().into(),
            count: head.headers.len(),
            served_since: head.served_since,
        })
    }

    /// The head as it was. Values are not copied.
    pub(crate) fn unpack(&self) -> Option<Prepared> {
        let mut headers = HeaderMap::with_capacity(self.count + ADDED);
        let mut rest = self.fields.clone();
        while let Some((&code, _)) = rest.split_first() {
            let _ = rest.split_to(1);
            if let Some(place) = code.checked_sub(FIXED_FROM)
                && let Some((name, value)) = FIXED.get(usize::from(place))
            {
                headers.append(name, HeaderValue::from_static(value));
                continue;
            }
            let name = if let Some(name) = NAMES.get(usize::from(code)) {
                name.clone()
            } else {
                let length = usize::from(take(&mut rest, 1)?[0]);
                HeaderName::from_bytes(&take(&mut rest, length)?).ok()?
            };
            let length: [u8; 2] = take(&mut rest, 2)?[..].try_into().ok()?;
            let value = take(&mut rest, usize::from(u16::from_le_bytes(length)))?;
            headers.append(name, HeaderValue::from_maybe_shared(value).ok()?);
        }
        Some(Prepared {
            status: StatusCode::OK,
            headers,
            served_since: self.served_since,
            length: None,
            way: Way::default(),
        })
    }
}

fn take(from: &mut Bytes, length: usize) -> Option<Bytes> {
    (from.len() >= length).then(|| from.split_to(length))
}

/// An answer without its body.
#[derive(Debug)]
pub(crate) struct WarmAnswer {
    pub(crate) head: PackedHead,
    /// Opens the body.
    pub(crate) ticket: HotTicket,
    pub(crate) requests: Arc<RepositoryRequests>,
}

/// Answers without their bodies, by request target. Only those that are the same for every request.
pub(crate) struct WarmSet(Cache<Box<str>, Arc<WarmAnswer>, ByWeight>);

impl WarmSet {
    pub(crate) fn new() -> Self {
        Self(Cache::with_weighter(USUAL, BUDGET, ByWeight))
    }

    pub(crate) fn get(&self, target: &str) -> Option<Arc<WarmAnswer>> {
        self.0.get(target)
    }

    pub(crate) fn insert(&self, target: &str, answer: WarmAnswer) {
        self.0.insert(target.into(), Arc::new(answer));
    }

    pub(crate) fn remove(&self, target: &str) {
        self.0.remove(target);
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }
}

impl fmt::Debug for WarmSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WarmSet").field(&self.0.len()).finish()
    }
}

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<Box<str>, Arc<WarmAnswer>> for ByWeight {
    fn weight(&self, target: &Box<str>, answer: &Arc<WarmAnswer>) -> u64 {
        ENTRY_WEIGHT + (target.len() + answer.head.fields.len()) as u64
    }
}

/// Which targets have been asked for lately: a fixed number of fingerprints, each the last one of its place.
pub(crate) struct Sightings {
    places: Box<[AtomicU32]>,
    hasher: RandomState,
}

/// Targets that are told apart: as many different ones in between, more or less, make larder forget one.
const PLACES: usize = 8_192;

impl Sightings {
    pub(crate) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Notes a request for `target`. Whether there was one lately.
    pub(crate) fn again(&self, target: &str) -> bool {
        let hash = self.hasher.hash_one(target);
        // Zero is nobody's.
        let fingerprint = (hash >> 32) as u32 | 1;
        let place = self.places.get(hash as usize % PLACES);
        place.is_some_and(|place| place.swap(fingerprint, Relaxed) == fingerprint)
    }
}

impl fmt::Debug for Sightings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sightings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use larder_engine::Representation;

    use super::*;

    fn head() -> Prepared {
        let mut extra = HeaderMap::new();
        extra.insert(
            "docker-content-digest",
            HeaderValue::from_static("sha256:0"),
        );
        extra.append("x-two", HeaderValue::from_static("a"));
        extra.append("x-two", HeaderValue::from_bytes(b"b\xff").unwrap());
        let representation = Representation {
            content_type: Some("text/x-of-its-own".to_owned()),
            etag: Some("\"t\"".to_owned()),
            last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
            served_since: Some(UnixMillis(7)),
            extra,
            ..Representation::default()
        };
        let mut head = Prepared::new(StatusCode::OK, representation, None);
        head.accept_ranges();
        head
    }

    #[test]
    fn a_head_comes_out_as_it_went_in() {
        let head = head();
        let packed = PackedHead::of(&head).unwrap();
        let again = packed.unpack().unwrap();
        assert_eq!(again.headers, head.headers);
        assert_eq!(
            (again.status, again.served_since),
            (StatusCode::OK, Some(UnixMillis(7)))
        );
        let plain = Representation {
            content_type: Some("application/octet-stream".to_owned()),
            ..Representation::default()
        };
        let packed = PackedHead::of(&Prepared::new(StatusCode::OK, plain, None)).unwrap();
        assert_eq!(
            packed.fields.len(),
            packed.count,
            "common fields take a byte"
        );
    }

    #[test]
    fn only_the_usual_is_packed() {
        let mut other = head();
        other.status = StatusCode::MOVED_PERMANENTLY;
        assert!(PackedHead::of(&other).is_none());
        let mut long = head();
        let value = HeaderValue::try_from("v".repeat(70_000)).unwrap();
        long.headers.insert("x-long", value);
        assert!(PackedHead::of(&long).is_none());
    }

    #[test]
    fn a_target_is_known_again_until_others_take_its_place() {
        let sightings = Sightings::new();
        assert!(!sightings.again("/a"));
        assert!(sightings.again("/a"));
        for number in 0..200_000 {
            sightings.again(&number.to_string());
        }
        assert!(!sightings.again("/a"), "so many others have come between");
    }
}
