//! `larder export` and `larder import`: what repositories hold, in one file that is carried to a larder without a network (docs/adr/0100).
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | what stands in an archive, and in which order |
//! | `tar.rs` | entries of a tar, written and read to the byte |
//! | `export.rs`, `partial.rs`, `left_out.rs` | an archive that is made, one that was broken off, and what is not in it |
//! | `import.rs`, `verified.rs` | an archive that is read in, after all of it has been verified |
//! | `progress.rs` | how far it is |

mod export;
mod import;
mod left_out;
mod partial;
mod progress;
mod tar;
mod verified;

use std::path::{Path, PathBuf};

use clap::Args;
use larder_core::Digest;
use larder_engine::ArchiveRow;
use serde::{Deserialize, Serialize};

pub(super) use export::export;
pub(super) use import::import;

use super::Failure;
use super::server::Target;

/// `larder export`.
#[derive(Debug, Clone, Args)]
pub struct ExportFlags {
    /// The archive to make; what was begun is in FILE.partial, and is gone on with
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A repository; may be given more than once [default: all that hold something themselves]
    #[arg(long = "repository", value_name = "REPO")]
    repositories: Vec<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

/// `larder import`.
#[derive(Debug, Clone, Args)]
pub struct ImportFlags {
    /// The archive
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Import this repository only; may be given more than once [default: all that the archive has]
    #[arg(long = "repository", value_name = "REPO")]
    repositories: Vec<String>,
    /// The SHA-256 that the archive must have, as export printed it
    #[arg(long, value_name = "DIGEST")]
    sha256: Option<String>,
    /// Replace other files of local repositories, where these allow it
    #[arg(long)]
    overwrite: bool,
    /// Verify the archive, ask no larder, and import nothing
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// The form of archives; raised when an older larder could not read one.
const FORMAT: u32 = 1;
const HEAD: &str = "larder-export.json";
const CONTENTS: &str = "larder-contents.json";
const END: &str = "larder-end.json";
const ROWS: &str = "records/";
const BLOBS: &str = "blobs/sha256/";
/// The longest entry that is read as a whole, in bytes: a page of rows is much shorter.
const MOST: u64 = 64 << 20;

/// The first entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// [`FORMAT`].
    format: u32,
    /// The version of the larder that made it.
    larder: String,
    repositories: Vec<Named>,
}

/// A repository of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    name: String,
    /// `remote` or `local`.
    kind: String,
    package: String,
}

/// An entry below [`ROWS`]: some rows of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    rows: Vec<ArchiveRow>,
}

/// The entry behind all rows: from here on there are blobs, in the order of their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    rows: u64,
    /// That rows name, each counted once.
    blobs: u64,
    bytes: u64,
}

/// The last entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// Of everything before this entry.
    sha256: String,
    /// Blobs that rows name and that could not be had.
    left_out: Vec<Digest>,
}

/// The name of a batch's entry.
fn rows_entry(repository: &str, number: u64) -> String {
    format!("{ROWS}{repository}/{number:06}.json")
}

/// The repository that a batch's entry is of.
fn repository_of(entry: &str) -> Option<&str> {
    let (repository, _) = entry.strip_prefix(ROWS)?.split_once('/')?;
    Some(repository)
}

/// The digest that a blob's entry is named by.
fn digest_of(entry: &str) -> Option<Digest> {
    let hex = entry.strip_prefix(BLOBS)?;
    Digest::from_hex(larder_core::DigestAlgorithm::Sha256, hex).ok()
}

fn blob_entry(digest: &Digest) -> String {
    format!("{BLOBS}{}", digest.to_hex())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::failed(error.to_string()))
}

/// An archive that cannot be read: the command line names it.
fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::misused(format!("cannot read {}: {error}", path.display()))
}

/// `-` is standard input and output elsewhere, which cannot be gone on with or read twice.
fn no_pipe(path: &Path) -> Result<(), Failure> {
    if path.as_os_str() != "-" {
        return Ok(());
    }
    Err(Failure::misused(
        "an archive is a file, not a pipe: name one (./- for a file of this name)",
    ))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}
