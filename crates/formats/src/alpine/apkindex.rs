//! `APKINDEX.tar.gz`: one gzip member with a tar of `DESCRIPTION` and `APKINDEX`, after any number of members with signatures
//! (apk-index(5), apk-v2(5)). Read as a stream: an index of tens of megabytes needs a few kilobytes here.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::record::{Found, Naming, Packages, Record};
use super::tar::next_header;
use crate::budget::MAX_URL;
use crate::{Claim, Document, Links, Malformed, Meter, Release};

/// What is done with each record.
type Each<'s> = &'s mut dyn FnMut(Record) -> Result<(), Malformed>;

/// Unpacked length of all members together: that of the largest public index is a tenth of it.
const MAX_UNPACKED: u64 = 512 << 20;
/// What any index may unpack to, whatever its size.
const ALWAYS_ALLOWED: u64 = 64 << 20;
/// Real indexes shrink to a fifth.
const MAX_RATIO: u64 = 100;
/// Lists of provided names are long, but not that long.
const MAX_LINE: u64 = 1 << 20;
/// Members with signatures before the index itself.
const MAX_SIGNATURES: usize = 16;
/// How every signature's name begins.
pub(super) const SIGNATURE: &str = ".SIGN.";

/// Reads a whole index and hands each of its records to `sink`.
pub(super) fn read(body: &[u8], meter: &Meter, sink: Each<'_>) -> Result<(), Malformed> {
    let mut rest = body;
    let allowed = (body.len() as u64)
        .saturating_mul(MAX_RATIO)
        .clamp(ALWAYS_ALLOWED, MAX_UNPACKED);
    let mut budget = allowed;
    for _ in 0..=MAX_SIGNATURES {
        let mut member = GzDecoder::new(rest).take(budget);
        let is_index = read_member(&mut member, meter, sink)?;
        // To the end of the member, where its checksum is.
        io::copy(&mut member, &mut io::sink()).map_err(damaged)?;
        budget = member.limit();
        if budget == 0 {
            return Err(Malformed(format!(
                "it unpacks to more than {allowed} bytes"
            )));
        }
        rest = member.into_inner().into_inner();
        if is_index {
            return if rest.is_empty() {
                Ok(())
            } else {
                Err(Malformed("something follows the index".to_owned()))
            };
        }
        if rest.is_empty() {
            return Err(Malformed("it holds no file named APKINDEX".to_owned()));
        }
    }
    Err(Malformed(format!(
        "more than {MAX_SIGNATURES} signatures stand before the index"
    )))
}

/// Reads one member; `false` if it holds signatures.
fn read_member(member: &mut impl Read, meter: &Meter, sink: Each<'_>) -> Result<bool, Malformed> {
    let mut signatures = false;
    while let Some(header) = next_header(member).map_err(damaged)? {
        meter.count()?;
        let padded = header
            .padded_size()
            .ok_or_else(|| Malformed("it names a file of impossible length".to_owned()))?;
        if header.name == "APKINDEX" && header.is_file && !signatures {
            let mut content = BufReader::new(member.take(header.size));
            read_records(&mut content, meter, sink)?;
            return Ok(true);
        }
        signatures |= header.name.starts_with(SIGNATURE);
        let skipped = io::copy(&mut member.take(padded), &mut io::sink()).map_err(damaged)?;
        if skipped != padded {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    if signatures {
        Ok(false)
    } else {
        Err(Malformed("it holds no file named APKINDEX".to_owned()))
    }
}

/// Records are lines `X:value`; a blank line ends one.
fn read_records(
    content: &mut impl BufRead,
    meter: &Meter,
    sink: Each<'_>,
) -> Result<(), Malformed> {
    let (mut line, mut record) = (Vec::new(), Record::default());
    let mut number = 0;
    loop {
        line.clear();
        let length = content
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(damaged)?;
        number += 1;
        meter.tick();
        meter.end()?;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if length as u64 == MAX_LINE {
            return Err(Malformed(format!(
                "line {number} of APKINDEX is longer than {MAX_LINE} bytes"
            )));
        }
        if line.is_empty() {
            if record != Record::default() {
                meter.count()?;
                sink(std::mem::take(&mut record))?;
            }
            if length == 0 {
                return Ok(());
            }
            continue;
        }
        let [field, b':', value @ ..] = line.as_slice() else {
            return Err(Malformed(format!(
                "line {number} of APKINDEX is not a letter, a colon and a value"
            )));
        };
        // What is longer is no name, version or hash of anything.
        let value = value.get(..MAX_URL).map_or(value, |_| b"".as_slice());
        let value = || String::from_utf8_lossy(value).into_owned();
        match field {
            b'P' => record.name = value(),
            b'V' => record.version = value(),
            b'A' => record.arch = value(),
            b'C' => record.identity = value(),
            b'S' => record.size = value().parse().ok(),
            b't' => record.built = value().parse().ok().filter(|at| *at > 0),
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

/// What an index says of its packages.
pub(super) fn claims(
    document: &Document<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    let mut packages = Packages::of(document.key_path, Naming::USUAL, links.meter());
    read(document.body, links.meter(), &mut |record| {
        packages.add(&record)
    })?;
    packages.claims(links, sink)
}

/// The files of the package `name`.
pub(super) fn releases(
    document: &Document<'_>,
    name: &str,
    links: &Links<'_>,
) -> Result<Vec<Release>, Malformed> {
    let mut found = Found::of(document.key_path, Naming::USUAL, links.meter(), name);
    read(document.body, links.meter(), &mut |record| {
        found.add(&record)
    })?;
    Ok(found.releases())
}
