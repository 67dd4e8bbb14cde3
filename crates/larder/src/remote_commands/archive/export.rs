//! `larder export`: first the rows of all repositories, then the blobs that they name, each compared with its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use larder_core::{Digest, Hasher};
use larder_engine::ArchiveRow;
use serde_json::Value;

use super::super::Failure;
use super::super::server::Server;
use super::super::shown::{number, plain, size};
use super::left_out::{self, LeftOut, Why};
use super::partial::{self, Listed, Partial};
use super::progress::Progress;
use super::tar::Writer;
use super::{
    Batch, CONTENTS, END, End, ExportFlags, FORMAT, HEAD, Head, Named, blob_entry, cannot, json,
    no_pipe, rows_entry,
};

/// So often the list of a repository is begun anew that changes while it is read.
const LISTINGS: u32 = 5;
/// So often a blob is asked for that breaks off, with so long a pause.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

pub(in super::super) async fn export(
    server: &Server,
    flags: &ExportFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let target = &flags.file;
    no_pipe(target)?;
    if target.exists() {
        let message = format!("{} is there already: name another file", target.display());
        return Err(Failure::failed(message));
    }
    let head = head(server, &flags.repositories).await?;
    let path = partial::path_of(target);
    let mut progress = Progress::new();
    let Partial {
        mut writer,
        listed,
        has,
    } = partial::open(&path, &head, &mut progress).await?;
    let resumed = has.len() as u64;
    let mut told = Told::default();
    let listed = match listed {
        Some(listed) => listed,
        None => list(server, &head, &mut writer, &mut progress, &mut told).await?,
    };
    progress.begin("exporting", listed.contents.bytes);
    let mut left = BTreeMap::new();
    for (digest, size) in &listed.blobs {
        if has.contains(digest) {
            progress.add(*size);
            continue;
        }
        let blob = (digest, *size);
        fetch(server, &mut writer, blob, &mut left, &mut progress).await?;
    }
    let end = End {
        sha256: writer.place().sha256().to_hex(),
        left_out: left.keys().cloned().collect(),
    };
    writer.entry(END, &json(&end)?)?;
    let (length, sha256) = writer.finish()?;
    let left = left_out::rows_of(&path, left).await?;
    keep(&path, target)?;
    drop(progress);
    let done = Done {
        target,
        listed: &listed,
        left: &left,
        rows_left_out: told.rows_left_out,
        changing: &told.changing,
        resumed,
        length,
        sha256: &sha256,
    };
    done.tell(server, &head, out)
}

/// What is exported: the repositories that are named, or all that hold something themselves.
async fn head(server: &Server, names: &[String]) -> Result<Head, Failure> {
    let mut all = server.repositories().await?;
    let chosen: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    for name in &chosen {
        let found = server.repository(name).await?;
        if found.kind == "virtual" {
            return Err(Failure::failed(format!(
                "{name} is a virtual repository and holds nothing itself: export its members"
            )));
        }
    }
    all.retain(|name, found| {
        found.kind != "virtual" && (chosen.is_empty() || chosen.contains(&**name))
    });
    let named = all.into_iter().map(|(name, found)| Named {
        name,
        kind: found.kind,
        package: found.package,
    });
    Ok(Head {
        format: FORMAT,
        larder: env!("CARGO_PKG_VERSION").to_owned(),
        repositories: named.collect(),
    })
}

/// What is said of the lists.
#[derive(Default)]
struct Told {
    rows_left_out: u64,
    /// Repositories that changed whenever they were read.
    changing: Vec<String>,
}

/// Writes head and rows.
async fn list(
    server: &Server,
    head: &Head,
    writer: &mut Writer,
    progress: &mut Progress,
    told: &mut Told,
) -> Result<Listed, Failure> {
    writer.entry(HEAD, &json(head)?)?;
    progress.begin("listing", 0);
    let mut listed = Listed::default();
    for repository in &head.repositories {
        let place = writer.place();
        for attempt in 1.. {
            writer.back(place.clone())?;
            let pages = pages(server, &repository.name, writer, progress).await?;
            let is_last = attempt == LISTINGS;
            if !pages.is_one_state && !is_last {
                continue;
            }
            if !pages.is_one_state {
                told.changing.push(repository.name.clone());
            }
            told.rows_left_out += pages.left_out;
            listed.merge(pages.listed);
            break;
        }
    }
    writer.entry(CONTENTS, &json(&listed.contents)?)?;
    Ok(listed)
}

/// The rows of a repository.
struct Pages {
    listed: Listed,
    /// Whether nothing was replaced while they were read.
    is_one_state: bool,
    left_out: u64,
}

async fn pages(
    server: &Server,
    repository: &str,
    writer: &mut Writer,
    progress: &mut Progress,
) -> Result<Pages, Failure> {
    let mut pages = Pages {
        listed: Listed::default(),
        is_one_state: true,
        left_out: 0,
    };
    let (mut cursor, mut epoch, mut count) = (None::<String>, None, 0);
    loop {
        let query: Vec<(&str, &str)> = cursor.iter().map(|next| ("cursor", &**next)).collect();
        let url = server.url(&["api", "v1", "archive", repository], &query);
        let mut page = server.ask("GET", url).await?;
        let rows: Vec<ArchiveRow> = page
            .get_mut("rows")
            .and_then(|rows| serde_json::from_value(rows.take()).ok())
            .ok_or_else(|| {
                Failure::failed(
                    "this larder lists rows that this version cannot read: use its own version",
                )
            })?;
        let now = number(&page, "epoch");
        pages.is_one_state &= *epoch.get_or_insert(now) == now;
        pages.left_out += number(&page, "left_out");
        let batch = Batch { rows };
        if !batch.rows.is_empty() {
            let bytes = json(&batch)?;
            writer.entry(&rows_entry(repository, count), &bytes)?;
            progress.add(bytes.len() as u64);
            count += 1;
            pages.listed.add(&batch);
        }
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(pages);
        }
    }
}

/// What came of asking for a blob.
enum Fetched {
    Whole,
    LeftOut(Why),
    BrokenOff(Failure),
}

async fn fetch(
    server: &Server,
    writer: &mut Writer,
    blob: (&Digest, u64),
    left: &mut BTreeMap<Digest, Why>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let place = writer.place();
    for attempt in 1.. {
        let fetched = try_to_fetch(server, writer, blob, progress).await?;
        if !matches!(fetched, Fetched::Whole) {
            writer.back(place.clone())?;
        }
        match fetched {
            Fetched::BrokenOff(failure) if attempt == TRIES => return Err(failure),
            Fetched::BrokenOff(_) => tokio::time::sleep(PAUSE).await,
            Fetched::Whole => return Ok(()),
            Fetched::LeftOut(why) => {
                left.insert(blob.0.clone(), why);
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn try_to_fetch(
    server: &Server,
    writer: &mut Writer,
    (digest, size): (&Digest, u64),
    progress: &mut Progress,
) -> Result<Fetched, Failure> {
    let name = digest.to_string();
    let url = server.url(
        &["api", "v1", "blobs", &name],
        &[("size", &size.to_string())],
    );
    let mut answer = match server.send("GET", url, &[], None).await {
        Ok(answer) => answer,
        Err(failure) => return Ok(Fetched::BrokenOff(failure)),
    };
    match answer.status() {
        200 => {}
        404 => return Ok(Fetched::LeftOut(Why::Gone)),
        500 => return Ok(Fetched::LeftOut(Why::Damaged)),
        503 => return Ok(Fetched::BrokenOff(server.refusal(answer).await)),
        _ => return Err(server.refusal(answer).await),
    }
    writer.begin(&blob_entry(digest), size)?;
    let (mut hasher, mut length) = (Hasher::new(&[]), 0);
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => {
                length += piece.len() as u64;
                hasher.update(&piece);
                writer.write(&piece)?;
                progress.add(piece.len() as u64);
            }
            Ok(None) => break,
            Err(error) => return Ok(Fetched::BrokenOff(error.into())),
        }
    }
    if length != size || hasher.finish_sha256() != *digest {
        return Ok(Fetched::LeftOut(Why::Damaged));
    }
    writer.end(size)?;
    Ok(Fetched::Whole)
}

/// Gives the archive its name. One that is there by now stays.
fn keep(partial: &Path, target: &Path) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| cannot("write", target, error);
    std::fs::hard_link(partial, target)
        .and_then(|()| std::fs::remove_file(partial))
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Err(error),
            // Not every file system knows links.
            _ => std::fs::rename(partial, target),
        })
        .map_err(|error| failed(&error))?;
    let folder = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::File::open(folder.unwrap_or(Path::new(".")));
    folder
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failed(&error))
}

/// What came of it.
struct Done<'d> {
    target: &'d Path,
    listed: &'d Listed,
    left: &'d [LeftOut],
    rows_left_out: u64,
    changing: &'d [String],
    resumed: u64,
    length: u64,
    sha256: &'d Digest,
}

impl Done<'_> {
    fn tell(&self, server: &Server, head: &Head, out: &mut impl Write) -> Result<(), Failure> {
        let contents = &self.listed.contents;
        let (left_out, damaged) = (self.blobs_left(None), self.blobs_left(Some(Why::Damaged)));
        let names: Vec<&str> = head.repositories.iter().map(|own| &*own.name).collect();
        if server.json {
            let told = serde_json::json!({
                "file": self.target.display().to_string(), "size": self.length, "sha256": self.sha256.to_hex(),
                "repositories": names, "rows": contents.rows, "blobs": contents.blobs, "bytes": contents.bytes,
                "resumed_blobs": self.resumed, "left_out_blobs": left_out, "damaged_blobs": damaged,
                "left_out": self.left, "left_out_rows": self.rows_left_out, "changing": self.changing,
            });
            writeln!(out, "{told}")?;
        } else {
            self.write(&names, out)?;
        }
        for left in self.left {
            // Who cannot read it misses nothing else.
            let _ = writeln!(std::io::stderr(), "{left}");
        }
        match damaged {
            0 => Ok(()),
            damaged => Err(Failure::failed(format!(
                "{damaged} blobs are damaged in this larder and left out: `larder scrub` mends those of remotes"
            ))),
        }
    }

    /// How many blobs are left out, for a reason or for any.
    fn blobs_left(&self, why: Option<Why>) -> usize {
        let all = self.left.iter();
        let left = all.filter(|left| why.is_none_or(|why| left.why == why));
        left.map(|left| &left.digest).collect::<BTreeSet<_>>().len()
    }

    fn write(&self, names: &[&str], out: &mut impl Write) -> Result<(), Failure> {
        let contents = &self.listed.contents;
        let file = self.target.display().to_string();
        writeln!(
            out,
            "{}: {}, SHA-256 {}",
            plain(&file),
            size(self.length),
            self.sha256.to_hex()
        )?;
        writeln!(
            out,
            "{} files and documents of {}: {} blobs, {}",
            contents.rows,
            names.join(", "),
            contents.blobs,
            size(contents.bytes)
        )?;
        if self.resumed > 0 {
            writeln!(out, "{} blobs were there from a run before", self.resumed)?;
        }
        if self.rows_left_out > 0 {
            let count = self.rows_left_out;
            writeln!(
                out,
                "{count} rows are left out: they cannot be read, or are of an upstream that the repository has no more"
            )?;
        }
        if !self.left.is_empty() {
            let count = self.blobs_left(None);
            writeln!(
                out,
                "{count} blobs are left out: they have gone since they were listed, or are damaged"
            )?;
        }
        for name in self.changing {
            writeln!(
                out,
                "{name} was changing all the time: what is in the archive may be of several moments; export again when it is quiet"
            )?;
        }
        Ok(())
    }
}
