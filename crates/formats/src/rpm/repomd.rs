//! `repomd.xml`, the master index: which files make up a generation of a repository.

use larder_core::Digest;

use super::xml::{self, Element, Sink};
use super::{Place, below_root, path};
use crate::{Claim, Document, Links, Malformed, Meter};

/// Largest master index. Real ones have a few kilobytes.
const MAX_SIZE: usize = 1 << 20;

/// A master index.
#[derive(Debug, Default)]
pub(super) struct Repomd {
    revision: String,
    pub(super) records: Vec<Record>,
}

/// One `data` element.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Whether this lists the packages of the repository, and not a part of them that other programs read (`primary_db`, `primary_zck`).
    is_primary: bool,
    href: String,
    /// `xml:base`: the file is somewhere else, and clients go there by themselves.
    base: Option<String>,
    checksum_type: String,
    digest: Option<Digest>,
    size: Option<u64>,
    timestamp: Option<u64>,
}

impl Repomd {
    /// A number that grows with every generation: the revision if it is one (createrepo_c writes the time), else the newest
    /// timestamp of a record.
    pub(super) fn revision(&self) -> Option<u64> {
        self.revision.parse().ok().or_else(|| self.timestamp())
    }

    /// The first place elsewhere.
    pub(super) fn base(&self) -> Option<&str> {
        self.records
            .iter()
            .find_map(|record| record.base.as_deref())
    }

    /// The newest timestamp of a record.
    pub(super) fn timestamp(&self) -> Option<u64> {
        self.records
            .iter()
            .filter_map(|record| record.timestamp)
            .max()
    }
}

/// Reads a master index, and refuses what is none.
pub(super) fn read(body: &[u8], meter: &Meter) -> Result<Repomd, Malformed> {
    if body.len() > MAX_SIZE {
        return Err(Malformed(format!(
            "repomd.xml is larger than {MAX_SIZE} bytes"
        )));
    }
    let mut repomd = Repomd::default();
    xml::read(body, meter, &mut repomd)?;
    Ok(repomd)
}

/// The files that a master index names.
pub(super) fn claims(
    document: &Document<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    links.begin(document.body.len());
    let place = Place::of(document, links);
    for record in read(document.body, links.meter())?.records {
        let Some(href) = below_root(&record.href).filter(|_| record.base.is_none()) else {
            continue;
        };
        let Some(path) = place
            .path(&href)
            .filter(|path| path::root_of_metadata(path).is_some())
        else {
            continue;
        };
        let url = place.url_beside(&href);
        let claim = Claim {
            path,
            url,
            digests: record.digest.into_iter().collect(),
            size: record.size,
            published_at: None,
            identity: None,
            package: None,
            names_files: record.is_primary,
        };
        links.claim(claim, sink);
    }
    links.end()
}

/// A digest as repository metadata writes it: `sha` is the oldest name of SHA-1.
pub(super) fn digest(name: &str, hex: &str) -> Option<Digest> {
    let name = if name == "sha" { "sha1" } else { name };
    Digest::from_name_and_hex(name, hex).ok()
}

impl Sink for Repomd {
    fn open(&mut self, path: &[Box<[u8]>], element: &Element<'_>) -> Result<(), Malformed> {
        match names(path).as_slice() {
            [root] if *root != b"repomd" => Err(Malformed(format!(
                "it is not repomd.xml: its root element is {:?}",
                String::from_utf8_lossy(root)
            ))),
            [_, b"data"] => {
                let kind = element.attribute("type")?;
                self.records.push(Record {
                    is_primary: kind.as_deref() == Some("primary"),
                    ..Record::default()
                });
                Ok(())
            }
            [_, b"data", b"location"] => {
                let Some(record) = self.records.last_mut() else {
                    return Ok(());
                };
                record.href = element.attribute("href")?.unwrap_or_default();
                record.base = element.attribute("xml:base")?;
                Ok(())
            }
            [_, b"data", b"checksum"] => {
                let Some(record) = self.records.last_mut() else {
                    return Ok(());
                };
                record.checksum_type = element.attribute("type")?.unwrap_or_default();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self, path: &[Box<[u8]>], text: &str) -> Result<(), Malformed> {
        let names = names(path);
        if let [_, b"revision"] = names.as_slice() {
            text.clone_into(&mut self.revision);
        }
        let ([_, b"data", field], Some(record)) = (names.as_slice(), self.records.last_mut())
        else {
            return Ok(());
        };
        match *field {
            b"checksum" => record.digest = digest(&record.checksum_type, text),
            b"size" => record.size = text.parse().ok(),
            // Some tools write fractions of a second.
            b"timestamp" => {
                record.timestamp = text
                    .split('.')
                    .next()
                    .and_then(|seconds| seconds.parse().ok());
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_text(&self, path: &[Box<[u8]>]) -> bool {
        matches!(
            names(path).as_slice(),
            [_, b"revision"] | [_, b"data", b"checksum" | b"size" | b"timestamp"]
        )
    }
}

fn names(path: &[Box<[u8]>]) -> Vec<&[u8]> {
    path.iter().map(AsRef::as_ref).collect()
}
