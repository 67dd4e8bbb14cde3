//! `larder put`: a file into a local repository, with its digest, and what the server says of it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{Digest, Hasher};
use larder_upstream::Sent;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::place::Place;
use super::server::Server;
use super::shown::{self, number, size, text};
use super::{Failure, PutFlags};

pub(super) async fn put(
    server: &Server,
    flags: &PutFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let place = Place::parse(&flags.place, &server.base)?;
    if place.has_query() {
        return Err(Failure::misused(format!(
            "{:?}: what is behind a `?` is a query, which files that are uploaded do not have; where it belongs to the name, write %3F",
            flags.place
        )));
    }
    let place = if place.is_folder() {
        place.joined(&name_of(&flags.file)?, &server.base)?
    } else {
        place
    };
    let mut headers = Vec::new();
    if flags.new {
        headers.push(("if-none-match", "*".to_owned()));
    }
    // Before anything is sent: an unknown repository needs no body.
    let url = server.artifact(&place).await?;
    let hasher: Watched = Arc::new(Mutex::new(Hasher::new(&[])));
    let (body, stated) = body(&flags.file, &hasher).await?;
    headers.extend(stated.as_ref().map(|digest| {
        let field = format!("sha-256=:{}:", digest.to_base64());
        ("repr-digest", field)
    }));
    let answer = server.send("PUT", url, &headers, Some(body)).await?;
    let status = answer.status();
    let body = answer.whole().await?;
    let told: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
    let told = match told {
        Some(told) if matches!(status, 200 | 201) => told,
        told => return Err(server.refused(status, told.as_ref()).await),
    };
    // A server that has these bytes already need not read them.
    let sent = stated.unwrap_or_else(|| lock(&hasher).clone().finish_sha256());
    let kept = text(&told, "sha256");
    if sent.to_hex() != kept {
        return Err(Failure::failed(format!(
            "{place} is there with the SHA-256 {kept}, which is not what was sent: send it again"
        )));
    }
    if server.json {
        return Ok(writeln!(out, "{told}")?);
    }
    let done = if status == 201 {
        "new"
    } else {
        "replaced, or there already"
    };
    let (path, bytes) = (text(&told, "path"), size(number(&told, "size")));
    Ok(writeln!(
        out,
        "{}/{}: {done}, {bytes}, SHA-256 {kept}",
        place.repository,
        shown::path(path)
    )?)
}

/// Hashes what is sent while it is sent.
type Watched = Arc<Mutex<Hasher>>;

fn lock(hasher: &Watched) -> MutexGuard<'_, Hasher> {
    hasher.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is sent, and the digest that is stated in front of it where it can be known.
async fn body(path: &Path, hasher: &Watched) -> Result<(Sent, Option<Digest>), Failure> {
    let seen = Arc::clone(hasher);
    let seen = Box::new(move |piece: &[u8]| lock(&seen).update(piece));
    let failed = |error: std::io::Error| cannot_read(path, &error);
    if path.as_os_str() == "-" {
        let input = std::io::stdin().as_fd().try_clone_to_owned();
        let input = tokio::fs::File::from_std(File::from(input.map_err(failed)?));
        let sent = Sent {
            from: Box::new(input),
            length: None,
            seen,
        };
        return Ok((sent, None));
    }
    let (digest, length) = digest_of(path).await?;
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let sent = Sent {
        // What was added since is no part of what was hashed.
        from: Box::new(file.take(length)),
        length: Some(length),
        seen,
    };
    Ok((sent, Some(digest)))
}

fn name_of(file: &Path) -> Result<String, Failure> {
    let name = file.file_name().and_then(std::ffi::OsStr::to_str);
    name.filter(|name| *name != "-")
        .map(str::to_owned)
        .ok_or_else(|| {
            Failure::misused(format!(
                "{} has no name that could be added to the folder: name the whole path",
                file.display()
            ))
        })
}

/// Reads it once: a digest that is sent in front of the body lets the server refuse what it would not keep.
async fn digest_of(path: &Path) -> Result<(Digest, u64), Failure> {
    let failed = |error: std::io::Error| cannot_read(path, &error);
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    if !file.metadata().await.map_err(failed)?.is_file() {
        return Err(Failure::misused(format!(
            "{} is no file; - sends standard input",
            path.display()
        )));
    }
    let (mut hasher, mut length) = (Hasher::new(&[]), 0_u64);
    let mut piece = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut piece).await.map_err(failed)?;
        if count == 0 {
            return Ok((hasher.finish_sha256(), length));
        }
        hasher.update(&piece[..count]);
        length += count as u64;
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::misused(format!("cannot read {}: {error}", path.display()))
}
