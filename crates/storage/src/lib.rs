//! State: blobs by their SHA-256, and the metadata database that says which upstream document or file each of them is.
//!
//! Knows files, directories, SQL and the order in which they must be written so that a crash at any moment leaves nothing wrong
//! behind: blob (file, then its name, then the directories), then the record, in one transaction. Knows nothing of HTTP, formats,
//! freshness or who may read.
//!
//! * [`Body`]: bytes, wherever they are, on their way to whoever reads them.
//! * [`BlobStore`] with [`FsBlobStore`], [`MemoryBlobStore`], [`ObjectBlobStore`] over an [`ObjectStore`] ([`S3Objects`] are one), and
//!   [`TieredBlobStore`] with files in front of objects; [`conformance`] is the suite that every one must pass.
//! * [`Spool`]: a file that is written while others read it, and that leaves nothing behind unless it is published. [`GrowingSpool`]:
//!   how far it has come, and who reads it.
//! * [`MetadataStore`]: records, derivations and the collector of unreferenced blobs, over a database; what is damaged is put aside.
//! * [`Shared`] with [`MemoryShared`] and [`RedisShared`]: leases and notices between replicas; [`shared_conformance`] is its suite.
//! * [`DataDirectoryLock`]: one process for each data directory.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod blob;
mod body;
mod error;
mod lock;
mod meta;
mod private;
mod shared;
mod spare;

pub use blob::conformance;
pub use blob::{
    Arriving, BlobInfo, BlobPin, BlobStore, CheckedCopies, End, ExpectedBlob, Flaw, FsBlobStore,
    GrowingBody, GrowingSpool, Growth, MOST_OPEN_BLOBS, MemoryBlobStore, MemoryObjects,
    MultipartUpload, ObjectBlobStore, ObjectInfo, ObjectStore, Opening, PresignedUrl, Progress,
    Refused, S3Objects, S3Settings, SealedSpool, Space, Spool, StoreReport, StoredBlob, TierReport,
    TieredBlobStore, Unread, UploadLeases, Withheld, is_sound,
};
pub use blob::{Source as ObjectSource, Staged};
pub use body::{Body, Chunks, Source, StreamBody};
pub use error::{StorageError, StorageErrorKind};
pub use lock::DataDirectoryLock;
pub use meta::Age;
pub use meta::{
    AskedFor, AskedRow, BlobName, BlobUsers, Change, CollectReport, ConnectError, CopyCounts,
    Counts, DamageReport, DamagedBlob, DerivedRecord, Durability, Expected, FigureRow, Figures,
    Garbage, Heap, Heard, Heartbeat, Heartbeats, HeldRow, HeldSize, JobClaim, JobCounts, JobItem,
    JobRow, JobStore, KeyRange, LeftOut, Listener, LocalChange, LocalChild, LocalDecision,
    LocalFile, LocalOutcome, LocalState, LocalUsage, MOST_AHEAD, Mend, MetadataStore, Migration,
    Named, NamedBlobs, Notice, OnDamage, PageRow, PathOf, PostgresOptions, Receipt, RecordKey,
    RecordUse, RowTally, RowsCopied, SINCE_THE_BEGINNING, ScrubFinding, ScrubRow, Sweep, Swept,
    TlsMode, Undeleted, Unswept, Usage, UsedRow, Writer,
};
pub use meta::{BlobHolder, HolderRange};
pub use shared::conformance as shared_conformance;
pub use shared::{
    Attempt, Bell, Fence, Holder, LONGEST_LEASE, Lease, MemoryShared, Notices, Pace, RationClaim,
    RedisAddress, RedisShared, Renewal, Shared, SharedStanding, Subscription, Told, Unshared,
};
