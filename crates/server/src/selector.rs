//! Which requests an answer of the hot set fits: the few fields of a request that chose between its forms, as they came.

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue};

/// Most bytes of one field of a request that are kept to be compared with. Clients' own fields have some 400.
const MOST_COMPARED: usize = 1_024;

/// Most lines of one header that are compared.
const MAX_LINES: usize = 16;

/// Which requests an answer fits: the raw values of what it varies by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    accept: Criterion,
    accept_encoding: Criterion,
    base: Option<String>,
}

/// What a request's header must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Criterion {
    Anything,
    /// These lines; none if it is absent.
    Exactly(Vec<HeaderValue>),
}

impl Criterion {
    /// Some clients send one line for each media type that they take; the lines are compared as they are. `None` if they are too many or
    /// too long. They are copied: a value of a request is a part of the buffer that the whole head was read into, and would keep all of it.
    fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let lines = headers.get_all(name);
        let length: usize = lines.iter().map(HeaderValue::len).sum();
        if length > MOST_COMPARED || lines.iter().count() > MAX_LINES {
            return None;
        }
        let copy = |line: &HeaderValue| HeaderValue::from_bytes(line.as_bytes()).ok();
        lines
            .iter()
            .map(copy)
            .collect::<Option<_>>()
            .map(Self::Exactly)
    }

    fn weight(&self) -> usize {
        match self {
            Self::Anything => 0,
            Self::Exactly(lines) => lines
                .iter()
                .map(|line| size_of::<HeaderValue>() + line.len())
                .sum(),
        }
    }

    fn is_met_by(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let Self::Exactly(wanted) = self else {
            return true;
        };
        headers.get_all(name).iter().eq(wanted)
    }
}

impl Selector {
    /// For an answer that is the same for every request.
    pub(crate) fn anything() -> Self {
        Self {
            accept: Criterion::Anything,
            accept_encoding: Criterion::Anything,
            base: None,
        }
    }

    /// For the answer to a request with these headers; `None` if it varies by something that is not compared here.
    pub(crate) fn new(vary: &[&str], headers: &HeaderMap, base: &str) -> Option<Self> {
        let mut selector = Self::anything();
        for name in vary {
            if name.eq_ignore_ascii_case("accept") {
                selector.accept = Criterion::of(headers, &ACCEPT)?;
            } else if name.eq_ignore_ascii_case("accept-encoding") {
                selector.accept_encoding = Criterion::of(headers, &ACCEPT_ENCODING)?;
            } else if name.eq_ignore_ascii_case("host") {
                selector.base = Some(base.to_owned()).filter(|base| base.len() <= MOST_COMPARED);
                selector.base.as_ref()?;
            } else {
                return None;
            }
        }
        Some(selector)
    }

    /// The bytes that it keeps.
    pub(crate) fn weight(&self) -> usize {
        self.accept.weight()
            + self.accept_encoding.weight()
            + self.base.as_ref().map_or(0, String::len)
    }

    /// Whether a request with these headers gets the answer. `is_base` tells whether the client used that base URL.
    pub(crate) fn fits(&self, headers: &HeaderMap, is_base: impl Fn(&str) -> bool) -> bool {
        self.accept.is_met_by(headers, &ACCEPT)
            && self.accept_encoding.is_met_by(headers, &ACCEPT_ENCODING)
            && self.base.as_deref().is_none_or(is_base)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_varies_by_anything_else_is_not_remembered() {
        assert_eq!(
            Selector::new(&["accept", "user-agent"], &HeaderMap::new(), "http://a"),
            None
        );
    }

    /// A request's values are slices of the buffer that its head was read into (64 KiB): what is remembered must not keep it.
    #[test]
    fn hazard_x2_what_is_compared_is_copied_out_of_the_buffer_it_came_in() {
        let mut buffer = vec![b' '; 64 << 10];
        buffer[..16].copy_from_slice(b"application/json");
        let buffer = Bytes::from(buffer);
        let mut request = HeaderMap::new();
        request.insert(
            "accept",
            HeaderValue::from_maybe_shared(buffer.slice(..16)).unwrap(),
        );
        let selector = Selector::new(&["accept"], &request, "http://a").unwrap();
        drop(request);
        assert!(buffer.is_unique(), "only the test holds the buffer");
        assert_eq!(
            selector.accept,
            Criterion::Exactly(vec![HeaderValue::from_static("application/json")])
        );
    }

    #[test]
    fn hazard_x2_answers_to_long_negotiated_fields_are_not_kept() {
        let request = |length: usize, lines: usize| {
            let mut map = HeaderMap::new();
            for _ in 0..lines {
                map.append(
                    "accept",
                    HeaderValue::from_str(&"x".repeat(length)).unwrap(),
                );
            }
            map
        };
        for (length, lines, kept) in [
            (1_024, 1, true),
            (1_025, 1, false),
            (64, 16, true),
            (65, 16, false),
            (1, 17, false),
        ] {
            let selector = Selector::new(&["accept"], &request(length, lines), "http://a");
            assert_eq!(selector.is_some(), kept, "{lines} lines of {length}");
        }
        assert!(
            Selector::new(
                &["host"],
                &HeaderMap::new(),
                &format!("http://{}", "h".repeat(2_000))
            )
            .is_none()
        );
    }
}
