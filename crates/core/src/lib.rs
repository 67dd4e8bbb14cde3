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
//! | [`Principal`] | on whose behalf a request is made | |
//! | [`Mount`] | the URL prefix under which a client sees a repository | |
//! | [`Pattern`] | an operator's regular expression, bounded in time | |
//! | [`QuarantinePolicy`] | how long new artifacts are held back | |
//! | [`Fault`] | whose fault an error is, and how to say it to a client | |
//!
//! Words that the crates above share:
//!
//! | word | meaning | elsewhere called |
//! |---|---|---|
//! | flight | one download that many requests share; a task of its own, which outlives whoever began it | single-flight, request collapsing |
//! | spool | a file without a name that a flight writes while others read it; it gets its name by being published | staging file |
//! | blob | stored bytes, named by their SHA-256 | content-addressed storage |
//! | document | an index that is read whole, checked and perhaps rewritten before a byte of it is served | metadata, packument, simple page |
//! | claim | what a document states of one file that it names: place, digests, size, time | |
//! | derivation | a document made from others: rewritten, merged, filtered or compressed; found by the digests of what it is made of | |
//! | generation | an index with all that must fit to it, exchanged as one | snapshot, swap |
//! | sidecar | a file that belongs to another one, such as its signature or metadata, and shares its rules | |
//! | epoch | a counter whose change makes everything that was remembered under it worthless | invalidate |
//! | clearance | the proof that quarantine lets a file pass; without one no bytes are opened | witness |
//! | ruling | what the judge says of a path or a file, with the rule that decided | policy decision |
//! | visibility | what is hidden in a document, by its digest, and until when | |
//! | hot set | whole answers in memory that are sent again without asking anybody | |
//! | validator | what says that a copy is still the upstream's: `ETag`, `Last-Modified` | RFC 9110 |
//! | collector | takes away blobs that nothing refers to, after a grace time | garbage collection, mark and sweep |
//! | reserve | free space below which nothing more is kept | |

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod address;
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
mod mount;
mod path;
mod policy;
mod precondition;
mod principal;
mod proxies;
mod public_urls;
mod range;
mod reason;
mod record;
mod repository;
mod request_id;
mod reserved;
mod secret;
mod settle;
mod shown;
mod spans;
mod stored;
#[cfg(test)]
mod testing;
mod via;

pub use address::is_public;
pub use cache_policy::{CachePolicy, Revalidate, Verify};
pub use cache_status::{CacheStatus, ForwardReason, Source};
pub use clock::{Clock, ManualClock, SystemClock, UnixMillis};
pub use decide::{
    Class, Decision, INCOMPLETE, RevalidateWith, believed, decide, fresh_until, stale_allowed,
    time_to_live,
};
pub use digest::{Digest, DigestAlgorithm, Hasher, InvalidDigest, sha256};
pub use error::{Fault, FaultDetail, FaultKind, Recovery};
pub use error_code::ErrorCode;
pub use field::{field_text, field_value};
pub use join::join_url;
pub use key::{RepresentationInputs, RepresentationKey, SourceKey};
pub use mount::Mount;
pub use path::{ArtifactPath, MAX_PATH_BYTES, PathError, PathRules, fold_segments};
pub use policy::mutability::{BuiltIn, Mutability};
pub use policy::pattern::{Pattern, PatternError, StepLimit};
pub use policy::quarantine::{
    CountedFrom, DateSource, Dates, MissingDate, QuarantinePolicy, QuarantineRuling, Verdict,
};
pub use policy::{Access, AccessDenied, AccessPolicy, ClassRule};
pub use precondition::{
    Conditions, Current, Precondition, condition_of_write, evaluate_conditions, is_strong_tag,
};
pub use principal::Principal;
pub use proxies::{ProxyBypass, ProxyRules};
pub use public_urls::PublicUrls;
pub use range::{ByteRange, RangeAnswer, RangeSpec, evaluate_range, parse_range};
pub use reason::{MAX_REASON, reason_phrase};
pub use record::{ArtifactRecord, BlobDescriptor, Content, StoredHeaders};
pub use repository::{
    AllowPrivate, Credentials, InvalidRepositoryName, Kind, LocalSettings, MemberUrls, PackageType,
    Repository, RepositoryKind, RepositoryName, RequestLimits, UpstreamAuth, UpstreamSettings,
    VirtualSettings,
};
pub use request_id::RequestId;
pub use reserved::{GlobError, ReservedNames};
pub use secret::{REDACTED, SafeUrl, Secret};
pub use settle::{HeadVerdict, Outcome, Settlement, confirms, judge_head, keeps_status, settle};
pub use shown::shown;
pub use spans::{EndedSpan, Span, SpanContext, SpanKind, SpanRecorder, SpanValue, record_spans};
pub use stored::InvalidRecord;
pub use via::{Pseudonym, Trail};
