//! What is wrong with an upstream, in the few words that the log, `/health` and `/metrics` share. Operators look for these words in
//! the guide, so that they do not change.

/// Why an upstream did not give what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Its name cannot be resolved.
    Dns,
    /// No connection: refused, no route, or a proxy that does not let it through.
    Refused,
    /// Connecting, the answer or the body took too long, or 408.
    Timeout,
    /// The TLS handshake failed: an untrusted or expired certificate, or one for another name.
    Tls,
    /// What came is not HTTP, or no answer to what was asked.
    Protocol,
    /// The connection ended before the answer, or before the end of its body.
    Cut,
    /// A redirect that is not followed.
    RedirectRefused,
    /// The address is not public and not in `allow_private`.
    AddressRefused,
    /// 401 or 407, or a token that cannot be had.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 429.
    RateLimited,
    /// 5xx.
    ServerError,
    /// A body that is not what its index or its name states.
    WrongBytes,
    /// An index that cannot be used.
    Malformed,
}

impl Cause {
    /// Every cause, each at the place of its number.
    pub const ALL: [Self; 14] = [
        Self::Dns,
        Self::Refused,
        Self::Timeout,
        Self::Tls,
        Self::Protocol,
        Self::Cut,
        Self::RedirectRefused,
        Self::AddressRefused,
        Self::Unauthorized,
        Self::Forbidden,
        Self::RateLimited,
        Self::ServerError,
        Self::WrongBytes,
        Self::Malformed,
    ];

    /// As it stands in the log, in `/health` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Cut => "cut",
            Self::RedirectRefused => "redirect_refused",
            Self::AddressRefused => "address_refused",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::WrongBytes => "wrong_bytes",
            Self::Malformed => "malformed",
        }
    }

    /// What a status says of the upstream; `None` where it says something of the file, or nothing.
    pub fn of_status(status: u16) -> Option<Self> {
        match status {
            401 | 407 => Some(Self::Unauthorized),
            403 => Some(Self::Forbidden),
            408 => Some(Self::Timeout),
            429 => Some(Self::RateLimited),
            500.. => Some(Self::ServerError),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_stands_at_the_place_of_its_number() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
        }
    }

    #[test]
    fn statuses_about_a_file_are_no_failure_of_the_upstream() {
        for status in [200, 206, 301, 304, 400, 404, 405, 410, 451] {
            assert_eq!(Cause::of_status(status), None, "{status}");
        }
        let failures = [401, 403, 407, 408, 429, 500, 502, 503, 504]
            .map(|status| Cause::of_status(status).unwrap().as_str());
        let expected = [
            "unauthorized",
            "forbidden",
            "unauthorized",
            "timeout",
            "rate_limited",
            "server_error",
            "server_error",
            "server_error",
            "server_error",
        ];
        assert_eq!(failures, expected);
    }
}
