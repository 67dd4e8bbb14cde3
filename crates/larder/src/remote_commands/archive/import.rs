//! `larder import`: an archive is verified from its first byte to its last, and compared with what the target is configured with, before
//! anything is sent. Then all blobs are sent, which nothing shows that is held, and only then the rows that name them: what ends before is
//! seen by nobody. What the target has already is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use larder_core::{Digest, DigestAlgorithm};
use larder_engine::ArchiveRow;
use larder_upstream::Sent;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::super::Failure;
use super::super::server::{Described, Server};
use super::super::shown::{self, items, number, plain, size, text};
use super::progress::Progress;
use super::tar::Entry;
use super::verified::{Verified, verify};
use super::{Batch, ImportFlags, Named, cannot_read, json, no_pipe};

/// Blobs that are on their way at once.
const AT_ONCE: usize = 16;
/// A blob that no row names goes after a day: those that were sent so long ago are looked for again before their rows follow.
const LOOK_AGAIN: Duration = Duration::from_hours(6);

pub(in super::super) async fn import(
    server: &Server,
    flags: &ImportFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    no_pipe(&flags.file)?;
    let mut progress = Progress::new();
    let wanted = flags.sha256.as_deref().map(digest).transpose()?;
    if !flags.check && flags.file.exists() {
        may_import(server).await?;
    }
    let archive = verify(&flags.file, &mut progress).await?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != archive.sha256) {
        return Err(Failure::failed(format!(
            "{} has the SHA-256 {} and not {}: it is another archive; nothing was imported",
            flags.file.display(),
            archive.sha256.to_hex(),
            wanted.to_hex()
        )));
    }
    let mut import = Import {
        server,
        path: &flags.file,
        archive: &archive,
        overwrite: flags.overwrite,
        chosen: chosen(&archive, &flags.repositories)?,
        sent: BTreeSet::new(),
        tally: Tally::default(),
    };
    if !flags.check {
        import.compare().await?;
        import.run(&mut progress).await?;
    }
    drop(progress);
    import.tell(flags.check, out)
}

/// Whether this larder lets the command import, asked before a long archive is read. It is asked for the blob of nothing.
async fn may_import(server: &Server) -> Result<(), Failure> {
    let name = larder_core::sha256(b"").to_string();
    let url = server.url(&["api", "v1", "blobs", &name], &[("size", "0")]);
    let answer = server.send("HEAD", url.clone(), &[], None).await?;
    if !matches!(answer.status(), 401 | 403) {
        return Ok(());
    }
    // The answer to HEAD has no words.
    let answer = server.send("GET", url, &[], None).await?;
    Err(server.refusal(answer).await)
}

fn digest(text: &str) -> Result<Digest, Failure> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(DigestAlgorithm::Sha256, digits).map_err(|_| {
        let message = format!("--sha256: {text:?} is no SHA-256 in hexadecimal digits");
        Failure::misused(message)
    })
}

/// The repositories that are imported.
fn chosen<'a>(archive: &'a Verified, names: &[String]) -> Result<Vec<&'a Named>, Failure> {
    let all = &archive.head.repositories;
    if let Some(name) = names
        .iter()
        .find(|name| !all.iter().any(|own| own.name == **name))
    {
        let there: Vec<&str> = all.iter().map(|own| &*own.name).collect();
        return Err(Failure::failed(format!(
            "the archive has no repository {name:?}; it has {}",
            there.join(", ")
        )));
    }
    let is_chosen = |own: &&Named| names.is_empty() || names.contains(&own.name);
    Ok(all.iter().filter(is_chosen).collect())
}

/// An import on its way.
struct Import<'i> {
    server: &'i Server,
    path: &'i Path,
    archive: &'i Verified,
    overwrite: bool,
    chosen: Vec<&'i Named>,
    /// Blobs that the target has.
    sent: BTreeSet<Digest>,
    tally: Tally,
}

/// What has become of it.
#[derive(Debug, Default)]
struct Tally {
    written: u64,
    kept: u64,
    blobs: u64,
    bytes: u64,
    blobs_there: u64,
    /// Rows whose blobs are not in the archive.
    without_bytes: u64,
    /// Repository, path, and why.
    left: Vec<(String, String, String)>,
}

impl Import<'_> {
    /// Whether the target has all repositories, and of the same types.
    async fn compare(&self) -> Result<(), Failure> {
        let there = self.server.repositories().await?;
        let wrong = self.chosen.iter().filter_map(|own| objection(own, &there));
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "{}; nothing was imported (--repository names those that are to be)",
            wrong.join("; ")
        )))
    }

    async fn run(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        progress.begin("importing", self.archive.contents.bytes);
        let begun = Instant::now();
        let batches = self.batches();
        for (_, entry) in &batches {
            let batch = self.batch(entry)?;
            self.send_blobs(&batch, Some(&mut *progress)).await?;
        }
        for (repository, entry) in batches {
            let mut batch = self.batch(&entry)?;
            let all = batch.rows.len();
            batch.rows.retain(|row| self.has_bytes_of(row));
            self.tally.without_bytes += (all - batch.rows.len()) as u64;
            if batch.rows.is_empty() {
                continue;
            }
            if begun.elapsed() > LOOK_AGAIN {
                self.sent.clear();
                self.send_blobs(&batch, None).await?;
            }
            self.post(&repository, &batch).await?;
        }
        Ok(())
    }

    /// The lists of the repositories that are imported.
    fn batches(&self) -> Vec<(String, Entry)> {
        let is_chosen = |name: &str| self.chosen.iter().any(|own| own.name == name);
        let batches = self.archive.batches.iter();
        batches
            .filter(|(repository, _)| is_chosen(repository))
            .cloned()
            .collect()
    }

    /// One of them.
    fn batch(&self, entry: &Entry) -> Result<Batch, Failure> {
        let mut bytes = vec![0; usize::try_from(entry.size).unwrap_or(0)];
        let read = File::open(self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(entry.start))?;
            file.read_exact(&mut bytes)
        });
        read.map_err(|error| cannot_read(self.path, &error))?;
        serde_json::from_slice(&bytes).map_err(|_| {
            let path = self.path.display();
            Failure::failed(format!(
                "{path} was changed while it was imported: import it again"
            ))
        })
    }

    /// Whether the archive has what a row names, if that names anything.
    fn has_bytes_of(&self, row: &ArchiveRow) -> bool {
        row.blob()
            .is_none_or(|blob| self.archive.blobs.contains_key(&blob.digest))
    }

    /// Sends the blobs of some rows that the target does not have. They are counted where there is a `progress`.
    async fn send_blobs(
        &mut self,
        batch: &Batch,
        mut progress: Option<&mut Progress>,
    ) -> Result<(), Failure> {
        let digests: BTreeSet<&Digest> = batch
            .rows
            .iter()
            .filter_map(|row| Some(&row.blob()?.digest))
            .collect();
        let missing = digests
            .into_iter()
            .filter(|digest| !self.sent.contains(digest));
        let missing: Vec<(Digest, Entry)> = missing
            .filter_map(|digest| Some((digest.clone(), self.archive.blobs.get(digest)?.clone())))
            .collect();
        let (server, path) = (self.server, self.path);
        let sending = missing
            .into_iter()
            .map(|(digest, entry)| send(server, path, digest, entry));
        let mut sending = futures_util::stream::iter(sending).buffer_unordered(AT_ONCE);
        while let Some(sent) = sending.next().await {
            let (digest, size, is_new) = sent?;
            self.sent.insert(digest);
            let Some(progress) = &mut progress else {
                continue;
            };
            progress.add(size);
            if is_new {
                self.tally.blobs += 1;
                self.tally.bytes += size;
            } else {
                self.tally.blobs_there += 1;
            }
        }
        Ok(())
    }

    async fn post(&mut self, repository: &str, batch: &Batch) -> Result<(), Failure> {
        let query: &[(&str, &str)] = if self.overwrite {
            &[("overwrite", "true")]
        } else {
            &[]
        };
        let url = self
            .server
            .url(&["api", "v1", "archive", repository], query);
        let bytes = json(batch)?;
        let body = Sent {
            length: Some(bytes.len() as u64),
            from: Box::new(Cursor::new(bytes)),
            seen: Box::new(|_| {}),
        };
        let headers = [("content-type", "application/json".to_owned())];
        let answer = self.server.send("POST", url, &headers, Some(body)).await?;
        if answer.status() != 200 {
            return Err(self.server.refusal(answer).await);
        }
        let told: Value = serde_json::from_slice(&answer.whole().await?)
            .map_err(|_| Failure::failed("what answers is no larder"))?;
        self.tally.written += number(&told, "written");
        self.tally.kept += number(&told, "kept");
        for left in items(&told, "left") {
            let (path, why) = (text(left, "path").to_owned(), text(left, "why").to_owned());
            self.tally.left.push((repository.to_owned(), path, why));
        }
        Ok(())
    }

    fn tell(&self, only_checked: bool, out: &mut impl Write) -> Result<(), Failure> {
        let (tally, archive) = (&self.tally, self.archive);
        let names: Vec<&str> = self.chosen.iter().map(|own| &*own.name).collect();
        if self.server.json {
            let left = tally.left.iter().map(|(repository, path, why)| {
                serde_json::json!({"repository": repository, "path": path, "why": why})
            });
            let told = serde_json::json!({
                "file": self.path.display().to_string(), "sha256": archive.sha256.to_hex(), "verified": true,
                "imported": !only_checked, "larder": archive.head.larder, "repositories": names,
                "rows": archive.contents.rows, "blobs": archive.contents.blobs, "bytes": archive.contents.bytes,
                "left_out_blobs": archive.left_out.len(), "written": tally.written, "kept": tally.kept,
                "sent_blobs": tally.blobs, "sent_bytes": tally.bytes, "blobs_there": tally.blobs_there,
                "without_bytes": tally.without_bytes, "left": left.collect::<Vec<_>>(),
            });
            writeln!(out, "{told}")?;
        } else {
            let file = self.path.display().to_string();
            writeln!(
                out,
                "{}: verified; {} blobs, {}, SHA-256 {}",
                plain(&file),
                archive.blobs.len(),
                size(archive.contents.bytes),
                archive.sha256.to_hex()
            )?;
            if !only_checked {
                self.write(&names, out)?;
            }
        }
        match tally.left.len() {
            0 => Ok(()),
            left => Err(Failure::failed(format!(
                "{left} files and documents of the archive were left out"
            ))),
        }
    }

    fn write(&self, names: &[&str], out: &mut impl Write) -> Result<(), Failure> {
        let tally = &self.tally;
        writeln!(
            out,
            "{}: {} files and documents are new, of {} as much was known already",
            names.join(", "),
            tally.written,
            tally.kept
        )?;
        writeln!(
            out,
            "{} blobs sent, {}; {} were there",
            tally.blobs,
            size(tally.bytes),
            tally.blobs_there
        )?;
        if tally.without_bytes > 0 {
            let count = tally.without_bytes;
            writeln!(
                out,
                "{count} were left out when the archive was made: their bytes were gone"
            )?;
        }
        for (repository, path, why) in &tally.left {
            writeln!(
                out,
                "left out: {repository}/{}: {}",
                shown::path(path),
                plain(why)
            )?;
        }
        Ok(())
    }
}

/// Why a repository cannot be imported into this larder.
fn objection(own: &Named, there: &BTreeMap<String, Described>) -> Option<String> {
    let Named {
        name,
        kind,
        package,
    } = own;
    match there.get(name) {
        None => {
            let add = if kind == "local" {
                format!("`{name}: {{type: local, package: {package}}}`")
            } else {
                format!("`{name}: {{package: {package}, base_url: …}}`")
            };
            Some(format!(
                "this larder has no repository {name}: add {add} below `remotes` of its configuration"
            ))
        }
        Some(found) if found.kind != *kind || found.package != *package => Some(format!(
            "{name} is a {kind} repository of type {package} in the archive, and a {} one of type {} here",
            found.kind, found.package
        )),
        Some(_) => None,
    }
}

/// Sends a blob that the target does not have; gives its length, and whether it was sent.
async fn send(
    server: &Server,
    path: &Path,
    digest: Digest,
    entry: Entry,
) -> Result<(Digest, u64, bool), Failure> {
    let (name, length) = (digest.to_string(), entry.size.to_string());
    let url = server.url(&["api", "v1", "blobs", &name], &[("size", &length)]);
    let answer = server.send("HEAD", url.clone(), &[], None).await?;
    match answer.status() {
        200 => return Ok((digest, entry.size, false)),
        404 | 500 => {}
        // The answer to HEAD has no words.
        _ => {
            let answer = server.send("GET", url, &[], None).await?;
            return Err(server.refusal(answer).await);
        }
    }
    let failed = |error: std::io::Error| cannot_read(path, &error);
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    let start = SeekFrom::Start(entry.start);
    file.seek(start).await.map_err(failed)?;
    let body = Sent {
        from: Box::new(file.take(entry.size)),
        length: Some(entry.size),
        seen: Box::new(|_| {}),
    };
    let answer = server.send("PUT", url, &[], Some(body)).await?;
    if answer.status() != 204 {
        return Err(server.refusal(answer).await);
    }
    Ok((digest, entry.size, true))
}
