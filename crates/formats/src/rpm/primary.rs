//! `primary.xml`: path, digest and size of every package; for people, its name, version and time, too. It is read as it is unpacked, and
//! nothing else of it is kept.

use larder_core::{Digest, UnixMillis};

use super::repomd::digest;
use super::unpack::unpack;
use super::xml::{self, Element, Sink};
use super::{Place, below_root, remark_base};
use crate::{Claim, Document, Links, Malformed, Release};

/// The packages that a primary names.
pub(super) fn claims(
    document: &Document<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    let mut each = |claim, _: Version| sink(claim);
    let primary = read(document, links, None, &mut each)?;
    if let (true, Some(memo)) = (primary.outside, document.memo) {
        memo.remark(
            "it places packages outside of its own folder (by `..`, a query or a whole address): they are not checked against it"
                .to_owned(),
        );
    }
    if let Some(base) = primary.base {
        remark_base(document, "packages", &base);
    }
    Ok(())
}

/// The files of the package `name`.
pub(super) fn releases(
    document: &Document<'_>,
    links: &Links<'_>,
    name: &str,
) -> Result<Vec<Release>, Malformed> {
    let mut found = Vec::new();
    read(document, links, Some(name), &mut |claim, version| {
        found.push(Release {
            version: version.text(),
            path: claim.path,
            published: version.at,
            ..Release::default()
        });
    })?;
    Ok(found)
}

/// Reads all packages, or those with a name alone.
fn read<'s>(
    document: &Document<'_>,
    links: &'s Links<'_>,
    name: Option<&'s str>,
    sink: &'s mut dyn FnMut(Claim, Version),
) -> Result<Primary<'s>, Malformed> {
    links.begin(document.body.len());
    let mut primary = Primary {
        place: Place::of(document, links),
        package: Package::default(),
        name,
        base: None,
        outside: false,
        links,
        sink,
    };
    xml::read(unpack(document.body)?, links.meter(), &mut primary)?;
    Ok(primary)
}

/// What a package is called and which version of it; read for people alone.
#[derive(Default)]
struct Version {
    name: String,
    epoch: String,
    version: String,
    release: String,
    /// When the file was written.
    at: Option<UnixMillis>,
}

impl Version {
    /// As dnf and zypper show it: without the epoch that most have.
    fn text(&self) -> String {
        let epoch = match &*self.epoch {
            "" | "0" => String::new(),
            epoch => format!("{epoch}:"),
        };
        format!("{epoch}{}-{}", self.version, self.release)
    }
}

#[derive(Default)]
struct Package {
    is: Version,
    href: String,
    /// `xml:base`: the package is somewhere else, and clients go there by themselves.
    base: Option<String>,
    checksum_type: String,
    digest: Option<Digest>,
    size: Option<u64>,
}

struct Primary<'s> {
    place: Place,
    links: &'s Links<'s>,
    package: Package,
    /// The package that is wanted; `None`: all, without what is for people.
    name: Option<&'s str>,
    /// The first place elsewhere.
    base: Option<String>,
    /// Whether a package lies out of the repository's folder.
    outside: bool,
    sink: &'s mut dyn FnMut(Claim, Version),
}

impl Primary<'_> {
    fn emit(&mut self) -> Result<(), Malformed> {
        let package = std::mem::take(&mut self.package);
        self.links.meter().count()?;
        if self.name.is_some_and(|name| name != package.is.name) {
            return Ok(());
        }
        if package.base.is_some() {
            self.base = self.base.take().or(package.base);
            return Ok(());
        }
        let Some(href) = below_root(&package.href) else {
            self.outside |= !package.href.is_empty();
            return Ok(());
        };
        let Some(path) = self.place.path(&href) else {
            return Ok(());
        };
        let url = self.place.url(&href);
        let claim = Claim {
            path,
            url,
            digests: package.digest.into_iter().collect(),
            size: package.size,
            published_at: None,
            identity: None,
            package: None,
            names_files: false,
        };
        let mut version = Some(package.is);
        self.links.claim(claim, &mut |claim| {
            (self.sink)(claim, version.take().unwrap_or_default());
        });
        self.links.end()
    }
}

impl Sink for Primary<'_> {
    fn open(&mut self, path: &[Box<[u8]>], element: &Element<'_>) -> Result<(), Malformed> {
        match path {
            [root] if **root != *b"metadata" => {
                return Err(Malformed(format!(
                    "it is not primary.xml: its root element is {:?}",
                    String::from_utf8_lossy(root)
                )));
            }
            [_, package] if **package == *b"package" => self.package = Package::default(),
            [_, _, field] => match &**field {
                b"checksum" => {
                    self.package.checksum_type = element.attribute("type")?.unwrap_or_default();
                }
                b"size" => {
                    self.package.size = element
                        .attribute("package")?
                        .and_then(|size| size.parse().ok());
                }
                b"location" => {
                    self.package.href = element.attribute("href")?.unwrap_or_default();
                    self.package.base = element.attribute("xml:base")?;
                }
                b"version" if self.name.is_some() => {
                    let is = &mut self.package.is;
                    is.epoch = element.attribute("epoch")?.unwrap_or_default();
                    is.version = element.attribute("ver")?.unwrap_or_default();
                    is.release = element.attribute("rel")?.unwrap_or_default();
                }
                b"time" if self.name.is_some() => {
                    let seconds = element.attribute("file")?.and_then(|at| at.parse().ok());
                    let at = seconds.and_then(|seconds: i64| seconds.checked_mul(1000));
                    self.package.is.at = at.map(UnixMillis);
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, path: &[Box<[u8]>], text: &str) -> Result<(), Malformed> {
        match path {
            [_, package] if **package == *b"package" => self.emit()?,
            [_, _, field] if **field == *b"checksum" => {
                self.package.digest = digest(&self.package.checksum_type, text);
            }
            [_, _, field] if **field == *b"name" => text.clone_into(&mut self.package.is.name),
            _ => {}
        }
        Ok(())
    }

    fn wants_text(&self, path: &[Box<[u8]>]) -> bool {
        let is_name = |field: &[u8]| field == b"name" && self.name.is_some();
        matches!(path, [_, _, field] if **field == *b"checksum" || is_name(field))
    }
}
