//! `larder get`: a file out of a repository, compared with every digest that is stated for it, and never half under its name.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use larder_core::{Digest, DigestAlgorithm, Hasher};
use larder_upstream::Asked as Answer;
use url::Url;

use super::place::Place;
use super::server::Server;
use super::shown::{plain, size};
use super::{Failure, GetFlags};

/// A store to which larder redirects may redirect once more, but not for ever.
const MOST_REDIRECTS: usize = 5;
/// Links that lead to one another, as the system follows them.
const MOST_LINKS: usize = 40;

pub(super) async fn get(
    server: &Server,
    flags: &GetFlags,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let place = Place::parse(&flags.place, &server.base)?;
    let wanted = flags.sha256.as_deref().map(wanted).transpose()?;
    let target = target(flags, &place)?;
    let (mut answer, mut stated) = answered(server, server.artifact(&place).await?).await?;
    stated.extend(wanted);
    let algorithms: Vec<DigestAlgorithm> = stated.iter().map(Digest::algorithm).collect();
    let mut hasher = Hasher::new(&algorithms);
    let mut length = 0_u64;
    let mut written = match &target {
        None => None,
        Some(path) => Some(Written::to(path)?),
    };
    while let Some(piece) = answer.chunk().await? {
        hasher.update(&piece);
        length += piece.len() as u64;
        match &mut written {
            None => out.write_all(&piece)?,
            Some(written) => written.write(&piece)?,
        }
    }
    let found = hasher.finish();
    if let Some(wrong) = stated.iter().find(|digest| !found.contains(digest)) {
        let kept = if target.is_some() {
            "nothing was written"
        } else {
            "do not use what was written"
        };
        return Err(Failure::failed(format!(
            "{place} does not have the {} {} that is stated for it: {kept}",
            wrong.algorithm().as_str(),
            wrong.to_hex()
        )));
    }
    let (Some(written), Some(target)) = (written, target) else {
        return Ok(());
    };
    written.keep()?;
    tell(
        server,
        (&place, &target),
        (length, &found),
        !stated.is_empty(),
        out,
    )
}

fn tell(
    server: &Server,
    (place, target): (&Place, &Path),
    (length, found): (u64, &[Digest]),
    verified: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let sha256 = found
        .iter()
        .find(|digest| digest.algorithm() == DigestAlgorithm::Sha256)
        .map(Digest::to_hex)
        .unwrap_or_default();
    if server.json {
        let told = serde_json::json!({
            "repository": place.repository, "file": target.display().to_string(), "size": length,
            "sha256": sha256, "verified": verified,
        });
        return Ok(writeln!(out, "{told}")?);
    }
    let stated = if verified { ", as stated" } else { "" };
    let name = target.display().to_string();
    Ok(writeln!(
        out,
        "{}: {}, SHA-256 {sha256}{stated}",
        plain(&name),
        size(length)
    )?)
}

fn wanted(text: &str) -> Result<Digest, Failure> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(DigestAlgorithm::Sha256, digits).map_err(|_| {
        Failure::misused(format!(
            "--sha256: {text:?} is no SHA-256 in hexadecimal digits"
        ))
    })
}

/// The file that is written; `None` is standard output.
fn target(flags: &GetFlags, place: &Place) -> Result<Option<PathBuf>, Failure> {
    match &flags.output {
        Some(path) if path.as_os_str() == "-" => Ok(None),
        Some(path) if path.is_dir() => Err(Failure::misused(format!(
            "--output {} is a directory; name a file in it",
            path.display()
        ))),
        Some(path) => Ok(Some(path.clone())),
        None => match place.file_name() {
            Some(name) => Ok(Some(name.into())),
            None => Err(Failure::misused(format!(
                "{place} ends in no name of a file: say with --output where to write it"
            ))),
        },
    }
}

/// The answer with the body, and the digests that this larder states for it on the way there.
async fn answered(server: &Server, mut url: Url) -> Result<(Answer, Vec<Digest>), Failure> {
    let mut stated = Vec::new();
    for _ in 0..=MOST_REDIRECTS {
        let is_own = url.origin() == server.base.origin();
        let answer = server.send("GET", url.clone(), &[], None).await?;
        if is_own {
            stated.extend(digests(&answer));
        }
        match answer.status() {
            200 => return Ok((answer, stated)),
            301 | 302 | 303 | 307 | 308 => {
                let next = answer
                    .header("location")
                    .and_then(|next| url.join(next).ok());
                url = next.ok_or_else(|| Failure::failed("a redirect leads nowhere"))?;
            }
            _ => return Err(server.refusal(answer).await),
        }
    }
    Err(Failure::failed("the redirects have no end"))
}

/// What `Repr-Digest` (RFC 9530) and a registry's `Docker-Content-Digest` say.
fn digests(answer: &Answer) -> Vec<Digest> {
    let field = answer.header("repr-digest").unwrap_or_default();
    let of_field = field.split(',').filter_map(|item| {
        let (name, value) = item.trim().split_once('=')?;
        let algorithm = match name {
            "sha-256" => DigestAlgorithm::Sha256,
            "sha-512" => DigestAlgorithm::Sha512,
            _ => return None,
        };
        let base64 = value.strip_prefix(':')?.strip_suffix(':')?;
        Digest::from_base64(algorithm, base64).ok()
    });
    let image = answer.header("docker-content-digest").and_then(|text| {
        let (name, hex) = text.split_once(':')?;
        Digest::from_name_and_hex(name, hex).ok()
    });
    of_field.chain(image).collect()
}

/// A file on its way, beside the one that it becomes. Dropped before it is kept, it is gone. A device or a pipe is written as it is: nothing
/// may take its place.
struct Written {
    path: PathBuf,
    /// What it becomes: where a link leads, not the link.
    target: Option<PathBuf>,
    file: File,
    is_kept: bool,
}

impl Written {
    fn to(target: &Path) -> Result<Self, Failure> {
        match std::fs::metadata(target) {
            Ok(found) if found.is_file() => {
                let real = std::fs::canonicalize(target);
                let written = Self::beside(&real.map_err(|error| cannot_write(target, &error))?)?;
                // Who could not read what was there cannot read what comes.
                let mode = found.permissions().mode() & 0o777;
                let kept = written.file.set_permissions(Permissions::from_mode(mode));
                kept.map_err(|error| cannot_write(target, &error))?;
                Ok(written)
            }
            Ok(_) => {
                let opened = OpenOptions::new().write(true).open(target);
                Ok(Self {
                    path: target.to_owned(),
                    target: None,
                    file: opened.map_err(|error| cannot_write(target, &error))?,
                    is_kept: true,
                })
            }
            Err(_) => Self::beside(&led(target)?),
        }
    }

    fn beside(target: &Path) -> Result<Self, Failure> {
        // The name itself may be as long as names can be.
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let name: String = name.chars().take(32).collect();
        let path = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = made.map_err(|error| cannot_write(target, &error))?;
        Ok(Self {
            path,
            target: Some(target.to_owned()),
            file,
            is_kept: false,
        })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(piece);
        written.map_err(|error| cannot_write(&self.path, &error))
    }

    fn keep(mut self) -> Result<(), Failure> {
        let Some(target) = &self.target else {
            return Ok(());
        };
        let kept = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, target));
        kept.map_err(|error| cannot_write(target, &error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed has no name that anybody takes for the file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Where a link leads, though nothing is there yet; what is no link stays as it is.
fn led(target: &Path) -> Result<PathBuf, Failure> {
    let mut path = target.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(next) = std::fs::read_link(&path) else {
            return Ok(path);
        };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    let why = std::io::Error::other("the links have no end");
    Err(cannot_write(target, &why))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}
