//! The files of a package of apk 3: its tree names each with its size and digest, and their bytes follow in the same order
//! (apk-tools `extract_v3.c`).

use larder_core::{Digest, DigestAlgorithm, Hasher};

use super::adb::{Slots, Tree};
use super::record::identity_of;

// Fields as apk-tools numbers them (`apk_adb.h`).
const PACKAGE_INFO: usize = 1;
const PACKAGE_PATHS: usize = 2;
const INFO_HASHES: usize = 3;
const FOLDER_FILES: usize = 3;
const FILE_SIZE: usize = 3;
const FILE_HASH: usize = 5;
const FILE_TARGET: usize = 6;
/// Files and folders that are looked at: a tree may hold the same ones any number of times.
const MAX_STEPS: u64 = 4_000_000;

/// A file whose bytes are to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Number of its folder, and its own in that.
    pub(super) position: [u32; 2],
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// A package's tree, and how far its files have come.
#[derive(Debug)]
pub(super) struct Contents {
    tree: Vec<u8>,
    folder: usize,
    file: usize,
    steps: u64,
}

/// The tree is damaged or hostile.
#[derive(Debug)]
pub(super) struct Broken;

impl Contents {
    pub(super) fn of(tree: Vec<u8>) -> Result<Self, Broken> {
        Tree::of(&tree).ok_or(Broken)?;
        Ok(Self {
            tree,
            folder: 1,
            file: 0,
            steps: 0,
        })
    }

    /// The next file whose bytes come; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<File>, Broken> {
        let tree = Tree::of(&self.tree).ok_or(Broken)?;
        let folders = tree.slots(tree.root().get(PACKAGE_PATHS));
        while self.folder <= folders.count() {
            let files = tree.slots(tree.slots(folders.get(self.folder)).get(FOLDER_FILES));
            while self.file < files.count() {
                self.file += 1;
                step(&mut self.steps)?;
                let fields = tree.slots(files.get(self.file));
                let size = tree.number(fields.get(FILE_SIZE));
                // Links and devices have a target instead of bytes.
                if size == 0 || tree.bytes(fields.get(FILE_TARGET)).is_some() {
                    continue;
                }
                let digest = digest(&tree, fields).ok_or(Broken)?;
                let number = |at: usize| u32::try_from(at).map_err(|_| Broken);
                return Ok(Some(File {
                    position: [number(self.folder)?, number(self.file)?],
                    size,
                    digest,
                }));
            }
            step(&mut self.steps)?;
            (self.folder, self.file) = (self.folder + 1, 0);
        }
        Ok(None)
    }

    /// What indexes may name the package by: the hash of its tree, the beginning of that, or the identifier that was put into the
    /// tree when it was made, if it is the right one (apk-tools `mkndx`, `mkpkg`).
    pub(super) fn identities(&self) -> Vec<String> {
        let hash = sha256(&[&self.tree]);
        let whole = hash.as_bytes();
        let all = [
            identity_of(whole),
            identity_of(&whole[..20]),
            self.unique_identifier(),
        ];
        all.into_iter().flatten().collect()
    }

    /// The identifier within the tree is the hash of the tree as it was with zeros in its place.
    fn unique_identifier(&self) -> Option<String> {
        let tree = Tree::of(&self.tree)?;
        let stated = tree.bytes(tree.slots(tree.root().get(PACKAGE_INFO)).get(INFO_HASHES))?;
        let at = stated.as_ptr() as usize - self.tree.as_ptr() as usize;
        let zeros = vec![0; stated.len()];
        let hash = sha256(&[&self.tree[..at], &zeros, &self.tree[at + stated.len()..]]);
        let is_right = stated.len() == 20 && hash.as_bytes().starts_with(stated);
        if is_right { identity_of(stated) } else { None }
    }
}

fn step(steps: &mut u64) -> Result<(), Broken> {
    *steps += 1;
    if *steps > MAX_STEPS {
        Err(Broken)
    } else {
        Ok(())
    }
}

fn digest(tree: &Tree<'_>, fields: Slots<'_>) -> Option<Digest> {
    let bytes = tree.bytes(fields.get(FILE_HASH))?;
    let all = [
        DigestAlgorithm::Sha256,
        DigestAlgorithm::Sha1,
        DigestAlgorithm::Sha512,
    ];
    all.into_iter()
        .find_map(|algorithm| Digest::new(algorithm, bytes))
}

fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new(&[]);
    for part in parts {
        hasher.update(part);
    }
    hasher.finish_sha256()
}
