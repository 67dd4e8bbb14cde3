//! `primary.xml`: path, digest and size of every package. It is read as it is unpacked, and nothing else of it is kept.

use larder_core::Digest;

use super::repomd::digest;
use super::unpack::unpack;
use super::xml::{self, Element, Sink};
use super::{Place, below_root, remark_base};
use crate::{Claim, Document, Links, Malformed};

/// The packages that a primary names.
pub(super) fn claims(
    document: &Document<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    links.begin(document.body.len());
    let place = Place::of(document, links);
    let mut primary = Primary {
        place,
        package: Package::default(),
        base: None,
        outside: false,
        links,
        sink,
    };
    xml::read(unpack(document.body)?, links.meter(), &mut primary)?;
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

#[derive(Default)]
struct Package {
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
    /// The first place elsewhere.
    base: Option<String>,
    /// Whether a package lies out of the repository's folder.
    outside: bool,
    sink: &'s mut dyn FnMut(Claim),
}

impl Primary<'_> {
    fn emit(&mut self) -> Result<(), Malformed> {
        let package = std::mem::take(&mut self.package);
        self.links.meter().count()?;
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
            names_files: false,
        };
        self.links.claim(claim, self.sink);
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
            _ => {}
        }
        Ok(())
    }

    fn wants_text(&self, path: &[Box<[u8]>]) -> bool {
        matches!(path, [_, _, field] if **field == *b"checksum")
    }
}
