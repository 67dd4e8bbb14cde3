//! The nouns of larder and its pure decisions: no async, no I/O.
//!
//! | noun | meaning | from |
//! |---|---|---|
//! | [`Repository`] | what clients address: remote, local or virtual | Artifactory's words |
//! | [`ArtifactPath`] | a path inside a repository, decoded once, unable to traverse | RFC 3986 |
//! | [`SourceKey`] | names one upstream document or file | |
//! | [`RepresentationKey`] | names one derivation of source documents | RFC 9110 "representation" |
//! | [`ArtifactRecord`] | what is remembered of a source: blob, validators, times | |
//! | [`BlobDescriptor`] | digest and size of stored bytes | OCI image-spec "descriptor" |
//! | [`Decision`] | what to do with a request, given the record | RFC 9111 fresh / stale |
//! | [`Settlement`] | what to do with the upstream's outcome | RFC 5861 stale-if-error |
//! | [`CacheStatus`] | how the answer came about | RFC 9211 |
//! | [`Pattern`] | an operator's regular expression, bounded in time | |
//! | [`QuarantinePolicy`] | how long new artifacts are held back | |
//! | [`Fault`] | whose fault an error is, and how to say it to a client | |

mod cache_policy;
mod cache_status;
mod clock;
mod decide;
mod digest;
mod error;
mod error_code;
mod field;
mod join;
mod key;
mod path;
mod policy;
mod precondition;
mod proxies;
mod public_urls;
mod range;
mod reason;
mod record;
mod repository;
mod request_id;
mod secret;
mod settle;
mod shown;
#[cfg(test)]
mod testing;
mod via;

pub use cache_policy::{CachePolicy, Revalidate, Verify};
pub use cache_status::{CacheStatus, ForwardReason, Source};
pub use clock::{Clock, ManualClock, SystemClock, UnixMillis};
pub use decide::{
    Class, Decision, RevalidateWith, believed, decide, fresh_until, stale_allowed, time_to_live,
};
pub use digest::{Digest, DigestAlgorithm, Hasher, InvalidDigest, sha256};
pub use error::{Fault, FaultDetail, FaultKind};
pub use error_code::ErrorCode;
pub use field::{field_text, field_value};
pub use join::join_url;
pub use key::{RepresentationInputs, RepresentationKey, SourceKey};
pub use path::{ArtifactPath, MAX_PATH_BYTES, PathError, PathRules, fold_segments};
pub use policy::mutability::{BuiltIn, Mutability};
pub use policy::pattern::{Pattern, PatternError, StepLimit};
pub use policy::quarantine::{MissingDate, QuarantinePolicy, Verdict};
pub use policy::{Access, AccessDenied, AccessPolicy};
pub use precondition::{Conditions, Current, Precondition, evaluate_conditions, is_strong_tag};
pub use proxies::{ProxyBypass, ProxyRules};
pub use public_urls::PublicUrls;
pub use range::{ByteRange, RangeAnswer, RangeSpec, evaluate_range, parse_range};
pub use reason::{MAX_REASON, reason_phrase};
pub use record::{ArtifactRecord, BlobDescriptor, Content, StoredHeaders};
pub use repository::{
    AllowPrivate, Credentials, InvalidRepositoryName, Kind, LocalSettings, MemberUrls, PackageType,
    Repository, RepositoryKind, RepositoryName, UpstreamAuth, UpstreamSettings, VirtualSettings,
};
pub use request_id::RequestId;
pub use secret::{REDACTED, SafeUrl, Secret};
pub use settle::{HeadVerdict, Outcome, Settlement, confirms, judge_head, keeps_status, settle};
pub use shown::shown;
pub use via::{Pseudonym, Trail};
