//! `Packages.adb`, the index of apk 3 (apk-v3(5), apk-mkndx(8)): a description, the packages, and the rule for their file names.

use super::adb::{self, Slots, Tree};
use super::record::{Found, Naming, Packages, Record, identity_of};
use crate::links::server_of;
use crate::{Claim, Document, Links, Malformed, Meter, Release};

// Fields as apk-tools numbers them (`apk_adb.h`).
const INDEX_PACKAGES: usize = 2;
const INDEX_NAMING: usize = 3;
const NAME: usize = 1;
const VERSION: usize = 2;
const HASHES: usize = 3;
const ARCH: usize = 5;
const BUILD_TIME: usize = 11;
const FILE_SIZE: usize = 13;

/// Whether a body is an index; says to the operator if it leads clients elsewhere.
pub(super) fn check(document: &Document<'_>, meter: &Meter) -> Result<(), Malformed> {
    let plain = adb::unpack(document.body)?;
    let index = Index::of(&plain)?;
    index.count(meter)?;
    if let (Some(rule), Some(memo)) = (index.naming.leads_elsewhere(), document.memo) {
        memo.remark(format!(
            "its pkgname-spec is a whole URL: apk fetches the packages from {} by itself, and not through larder",
            server_of(rule)
        ));
    }
    Ok(())
}

/// What an index says of its packages. Of those that are elsewhere it says nothing that larder is asked for.
pub(super) fn claims(
    document: &Document<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    let plain = adb::unpack(document.body)?;
    let index = Index::of(&plain)?;
    if index.naming.leads_elsewhere().is_some() {
        return Ok(());
    }
    index.count(links.meter())?;
    let mut packages = Packages::of(document.key_path, index.naming, links.meter());
    let mut before = None;
    for at in 1..=index.packages.count() {
        // A million slots may hold the same package.
        let package = Some(index.packages.get(at));
        if package != before {
            packages.add(&index.record(at))?;
        }
        before = package;
    }
    packages.claims(links, sink)
}

/// The files of the package `name`; none, if they are elsewhere.
pub(super) fn releases(
    document: &Document<'_>,
    name: &str,
    links: &Links<'_>,
) -> Result<Vec<Release>, Malformed> {
    let plain = adb::unpack(document.body)?;
    let index = Index::of(&plain)?;
    if index.naming.leads_elsewhere().is_some() {
        return Ok(Vec::new());
    }
    index.count(links.meter())?;
    let mut found = Found::of(document.key_path, index.naming, links.meter(), name);
    for at in 1..=index.packages.count() {
        found.add(&index.record(at))?;
    }
    Ok(found.releases())
}

struct Index<'a> {
    tree: Tree<'a>,
    packages: Slots<'a>,
    naming: Naming<'a>,
}

impl<'a> Index<'a> {
    fn of(plain: &'a [u8]) -> Result<Self, Malformed> {
        let tree = adb::tree(plain, adb::INDEX)?;
        let packages = tree.slots(tree.root().get(INDEX_PACKAGES));
        let naming = Naming::stated(tree.text(tree.root().get(INDEX_NAMING)));
        Ok(Self {
            tree,
            packages,
            naming,
        })
    }

    /// Counts its packages.
    fn count(&self, meter: &Meter) -> Result<(), Malformed> {
        (0..self.packages.count()).try_for_each(|_| meter.count())
    }

    fn record(&self, at: usize) -> Record {
        let fields = self.tree.slots(self.packages.get(at));
        let text = |field| self.tree.text(fields.get(field)).to_owned();
        Record {
            name: text(NAME),
            version: text(VERSION),
            arch: text(ARCH),
            identity: self
                .tree
                .bytes(fields.get(HASHES))
                .and_then(identity_of)
                .unwrap_or_default(),
            // An index that states none has the number zero there.
            size: Some(self.tree.number(fields.get(FILE_SIZE))).filter(|size| *size > 0),
            built: i64::try_from(self.tree.number(fields.get(BUILD_TIME)))
                .ok()
                .filter(|at| *at > 0),
        }
    }
}
