//! The stable, machine-readable words for what went wrong. Users find each in `docs/operate/error-codes.md`.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What went wrong, as error bodies (`code`), log lines and `larder_refusals_total` say it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word, in lower case with underscores.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

error_codes! {
    /// `allow_patterns`, `deny_patterns` or `immutable_patterns` do not admit this path; the
    /// upstream was not asked (but where a slash ends the path, to learn whether a folder or a file
    /// is there).
    PatternDenied = "pattern_denied",
    /// The file is newer than `quarantine_days`.
    Quarantined = "quarantined",
    /// The repository is `offline: true`, and this is not held.
    Offline = "offline",
    /// This changes state, and needs the admin token; or npm asked who it is, and there are no
    /// accounts.
    Unauthorized = "unauthorized",
    /// Too many wrong admin tokens came from this address: none is looked at for a while.
    TooManyAttempts = "too_many_attempts",
    /// A web page of another site, or a request under a foreign `Host`, wanted to change something.
    CrossSite = "cross_site",
    /// A browser came to a loopback listener under a name that is not larder's.
    Misdirected = "misdirected",
    /// An address for other replicas, and no replica has signed the request.
    NotAReplica = "not_a_replica",
    /// A kind of repository, or an address, that this version does not have.
    NotImplemented = "not_implemented",
    /// No repository has this name, or it is no docker repository where one is needed.
    UnknownRepository = "unknown_repository",
    /// The upstream has no such file; or larder has nothing at this address.
    NotFound = "not_found",
    /// `DELETE` of a path that larder does not hold.
    NotHeld = "not_held",
    /// Docker: no such image, or one that the registry shows only to who logs in.
    NameUnknown = "name_unknown",
    /// Docker: the registry has no such tag, manifest or referrer.
    ManifestUnknown = "manifest_unknown",
    /// Docker: the registry has no such blob under this name.
    BlobUnknown = "blob_unknown",
    /// The path has `..`, a backslash, a control character, an encoded slash or a double encoding,
    /// or more than 2,048 bytes.
    InvalidPath = "invalid_path",
    /// The request's target is longer than 8 KiB.
    UriTooLong = "uri_too_long",
    /// The request is malformed: `Host`, framing, a parameter; or it cannot be read at all, then
    /// the answer has no body.
    BadRequest = "bad_request",
    /// The range begins behind the end of the file.
    RangeNotSatisfiable = "range_not_satisfiable",
    /// `If-Match` or `If-Unmodified-Since` does not hold.
    PreconditionFailed = "precondition_failed",
    /// The address takes other methods.
    MethodNotAllowed = "method_not_allowed",
    /// This is a copy of an upstream: nothing can be published to it.
    ReadOnly = "read_only",
    /// Another file is under this path already, and the repository does not allow overwriting.
    AlreadyExists = "already_exists",
    /// The uploaded bytes are not those that the request states; nothing was kept.
    ChecksumMismatch = "checksum_mismatch",
    /// The upload would exceed the `quota` of the repository.
    QuotaExceeded = "quota_exceeded",
    /// The disk has no room for the upload.
    StorageFull = "storage_full",
    /// The request's body did not arrive in time.
    RequestTimeout = "request_timeout",
    /// The request's body is longer than its address takes.
    BodyTooLarge = "body_too_large",
    /// Npm audit: the body is longer than 10 MiB.
    TooLarge = "too_large",
    /// Larder reads as many request bodies as it has memory for, as many connections are busy as
    /// it has places for, or one repository has as much under way as its share allows.
    Busy = "busy",
    /// The `pattern` of a flush is no regular expression.
    InvalidPattern = "invalid_pattern",
    /// Pypi: no project can have this name.
    InvalidName = "invalid_name",
    /// Npm: no package can have this name.
    BadPackageName = "bad_package_name",
    /// Npm: this is no version or tag.
    BadVersion = "bad_version",
    /// Docker: no image can have this name.
    NameInvalid = "name_invalid",
    /// Docker: the address does not end in a tag or a digest.
    ManifestInvalid = "manifest_invalid",
    /// Docker: the digest is malformed, or of a kind other than sha256 and sha512.
    DigestInvalid = "digest_invalid",
    /// A signed link (`_ext/…`) that this repository has not made; or larder began with an empty
    /// database since.
    LinkForged = "link_forged",
    /// No connection: the name is not resolved, the connection refused, the certificate not
    /// trusted.
    UpstreamUnreachable = "upstream_unreachable",
    /// No member of a virtual repository has an index to give, or one that it must not do without
    /// has none.
    MembersUnavailable = "members_unavailable",
    /// The upstream did not answer in `timeouts.connect` or sent nothing for `timeouts.read`.
    UpstreamTimeout = "upstream_timeout",
    /// What came is not HTTP, or no answer to what was asked.
    UpstreamProtocol = "upstream_protocol",
    /// The upstream sent fewer or more bytes than it had said, three times over.
    UpstreamCut = "upstream_cut",
    /// A mirror was so slow that the next one was asked, and there was no other left.
    UpstreamSlow = "upstream_slow",
    /// The upstream answered 429 a moment ago and said when to come back; it is not asked before.
    UpstreamBusy = "upstream_busy",
    /// The upstream answered a status that is passed on, or one that means nothing here.
    UpstreamStatus = "upstream_status",
    /// The upstream answered 401 or 407.
    UpstreamUnauthorized = "upstream_unauthorized",
    /// Docker: the token server refused the account, or is a host that does not get it.
    UpstreamLogin = "upstream_login",
    /// The upstream refuses more requests for now.
    RateLimited = "rate_limited",
    /// The upstream redirects to where larder does not follow: from https to http, in circles, to
    /// an address with a user name.
    RedirectRefused = "redirect_refused",
    /// A redirect or a link leads to a private address.
    AddressRefused = "address_refused",
    /// No URL can be made of upstream and path.
    BadUrl = "bad_url",
    /// No mirror of the repository is left to be asked.
    NoMirror = "no_mirror",
    /// The upstream leads back to larder.
    LoopDetected = "loop_detected",
    /// The bytes are not those that the index states; nothing was kept.
    DigestMismatch = "digest_mismatch",
    /// An index cannot be used, and there is no older copy.
    MalformedDocument = "malformed_document",
    /// An index is larger than `limits.document_size`.
    DocumentTooLarge = "document_too_large",
    /// The upstream compressed a file unasked, and it is too large to be unpacked in memory.
    UnaskedCoding = "unasked_coding",
    /// A stored file cannot be read.
    Storage = "storage",
    /// The database does not answer.
    StorageUnavailable = "storage_unavailable",
    /// The download ended before its time, as when larder stops.
    Interrupted = "interrupted",
    /// A download that could not be kept had no reader left.
    Unread = "unread",
    /// In the log and the metrics only: the connection ended before the body did.
    BrokenOff = "broken_off",
    /// A fault of larder's own.
    Internal = "internal",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By the word: lists of codes are in the order that readers expect.
impl Ord for ErrorCode {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for ErrorCode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<&str> for ErrorCode {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_stable_in_form_and_told_apart() {
        let mut words: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert!(words.iter().all(|word| {
            word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !word.is_empty()
        }));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ErrorCode::ALL.len());
    }
}
