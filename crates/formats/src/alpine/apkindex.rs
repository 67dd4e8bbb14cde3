//! `APKINDEX.tar.gz`: one gzip member with a tar of `DESCRIPTION` and `APKINDEX`, after any number of members with signatures
//! (apk-index(5), apk-v2(5)). Read as a stream: an index of tens of megabytes needs a few kilobytes here.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::path::beside;
use super::tar::next_header;
use crate::{Claim, Document, Malformed};

/// Unpacked length of all members together: that of the largest public index is a tenth of it.
const MAX_UNPACKED: u64 = 512 << 20;
/// Lists of provided names are long, but not that long.
const MAX_LINE: u64 = 1 << 20;
const MAX_RECORDS: usize = 1_000_000;
/// Members with signatures before the index itself.
const MAX_SIGNATURES: usize = 16;
/// How every signature's name begins.
pub(super) const SIGNATURE: &str = ".SIGN.";

/// One package in an index, as far as larder needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    /// `P:`
    pub(super) name: String,
    /// `V:`
    pub(super) version: String,
    /// `C:`, as it stands there.
    pub(super) identity: String,
    /// `S:`
    pub(super) size: Option<u64>,
}

/// Reads a whole index and hands each of its records to `sink`.
pub(super) fn read(body: &[u8], sink: &mut dyn FnMut(Record)) -> Result<(), Malformed> {
    let mut rest = body;
    let mut budget = MAX_UNPACKED;
    for _ in 0..=MAX_SIGNATURES {
        let mut member = GzDecoder::new(rest).take(budget);
        let is_index = read_member(&mut member, sink)?;
        // To the end of the member, where its checksum is.
        io::copy(&mut member, &mut io::sink()).map_err(damaged)?;
        budget = member.limit();
        if budget == 0 {
            return Err(Malformed(format!("it unpacks to more than {MAX_UNPACKED} bytes")));
        }
        rest = member.into_inner().into_inner();
        if is_index {
            return if rest.is_empty() { Ok(()) } else { Err(Malformed("something follows the index".to_owned())) };
        }
        if rest.is_empty() {
            return Err(Malformed("it holds no file named APKINDEX".to_owned()));
        }
    }
    Err(Malformed(format!("more than {MAX_SIGNATURES} signatures stand before the index")))
}

/// Reads one member; `false` if it holds signatures.
fn read_member(member: &mut impl Read, sink: &mut dyn FnMut(Record)) -> Result<bool, Malformed> {
    let mut signatures = false;
    while let Some(header) = next_header(member).map_err(damaged)? {
        let padded = header.padded_size().ok_or_else(|| Malformed("it names a file of impossible length".to_owned()))?;
        if header.name == "APKINDEX" && header.is_file && !signatures {
            let mut content = BufReader::new(member.take(header.size));
            read_records(&mut content, sink)?;
            return Ok(true);
        }
        signatures |= header.name.starts_with(SIGNATURE);
        let skipped = io::copy(&mut member.take(padded), &mut io::sink()).map_err(damaged)?;
        if skipped != padded {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    if signatures { Ok(false) } else { Err(Malformed("it holds no file named APKINDEX".to_owned())) }
}

/// Records are lines `X:value`; a blank line ends one.
fn read_records(content: &mut impl BufRead, sink: &mut dyn FnMut(Record)) -> Result<(), Malformed> {
    let (mut line, mut record, mut records) = (Vec::new(), Record::default(), 0);
    let mut number = 0;
    loop {
        line.clear();
        let length = content.take(MAX_LINE).read_until(b'\n', &mut line).map_err(damaged)?;
        number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if length as u64 == MAX_LINE {
            return Err(Malformed(format!("line {number} of APKINDEX is longer than {MAX_LINE} bytes")));
        }
        if line.is_empty() {
            if record != Record::default() {
                records += 1;
                sink(std::mem::take(&mut record));
            }
            if length == 0 {
                return Ok(());
            }
            if records > MAX_RECORDS {
                return Err(Malformed(format!("it names more than {MAX_RECORDS} packages")));
            }
            continue;
        }
        let [field, b':', value @ ..] = line.as_slice() else {
            return Err(Malformed(format!("line {number} of APKINDEX is not a letter, a colon and a value")));
        };
        let value = || String::from_utf8_lossy(value).into_owned();
        match field {
            b'P' => record.name = value(),
            b'V' => record.version = value(),
            b'C' => record.identity = value(),
            b'S' => record.size = value().parse().ok(),
            _ => {}
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn damaged(error: io::Error) -> Malformed {
    Malformed(match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        _ => "it is no gzip-compressed tar archive, or it is damaged".to_owned(),
    })
}

/// What an index says of each package that can be asked for. Of two records for one file name nobody can say which is meant:
/// they claim nothing.
pub(super) fn claims(document: &Document<'_>, sink: &mut dyn FnMut(Claim)) -> Result<(), Malformed> {
    let mut all = Vec::new();
    read(document.body, &mut |record| {
        if is_name(&record.name) && is_name(&record.version) {
            let identity = record.size.filter(|_| record.identity.starts_with("Q1")).map(|size| stated(&record.identity, size));
            let file = format!("{}-{}.apk", record.name, record.version);
            all.push((beside(document.key_path, &file), identity, record.size));
        }
    })?;
    all.sort();
    all.dedup_by(|later, first| {
        let same_path = later.0 == first.0;
        if same_path && later.1 != first.1 {
            (first.1, first.2) = (None, None);
        }
        same_path
    });
    for (path, identity, size) in all {
        // Packages are fetched from where they are asked for, in the client's own spelling.
        sink(Claim { path, url: String::new(), digests: Vec::new(), identity, size, published_at: None });
    }
    Ok(())
}

/// The identity of a package as it is compared: `C:` and `S:` together.
pub(super) fn stated(identity: &str, size: u64) -> String {
    format!("{identity}:{size}")
}

/// Names and versions: what the grammar has, and nothing that could make a path of a name.
fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-' | b'~');
    text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && text.bytes().all(legal)
}

/// Whether a body is an index of apk 3: a database, plain or compressed (apk-v3(5)).
pub(super) fn check_v3(body: &[u8]) -> Result<(), Malformed> {
    let begins = |magic: &[u8]| body.starts_with(magic);
    if begins(b"ADB.") || begins(b"ADBd") || begins(b"ADBc") {
        return Ok(());
    }
    Err(Malformed("it does not begin as a database of apk does".to_owned()))
}
