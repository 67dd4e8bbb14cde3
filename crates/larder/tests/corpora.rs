//! The corpora of the fuzz targets (`fuzz/corpus`), replayed with mutations that are the same each time: what a fuzzer has once found stays
//! found, and nobody needs a fuzzer for that.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../../../fuzz/src/targets.rs"]
#[expect(
    unreachable_pub,
    reason = "to the fuzz targets it is a part of a library"
)]
mod targets;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many mutations of its corpus each target gets, and for how long at most.
const MUTATIONS: usize = 3000;
const LONGEST: Duration = Duration::from_secs(5);

/// Numbers that are the same in each run (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("below an usize")
    }
}

/// What parsers stumble over.
const TOKENS: &[&[u8]] = &[
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b"<",
    b">",
    b"<a href=",
    b"<!--",
    b"<!DOCTYPE a>",
    b"<base href=//x/>",
    b"&",
    b"*",
    b"&a *a",
    b"\\u0000",
    b"\\ud800",
    b"%2f",
    b"%00",
    b"..",
    b"../",
    b"//",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b": ",
    b"- ",
    b"#",
    b"|\n",
    b"? ",
    b"!!str ",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"bytes=",
    b"-",
    b",",
    b"_ext/",
    b"javascript:",
    b"https://u:p@x/",
];

/// Changes an input in one to four places.
fn mutate(input: &[u8], others: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(out.len() + 1);
        match chance.below(7) {
            0 if !out.is_empty() => {
                let at = at.min(out.len() - 1);
                out[at] ^= 1 << chance.below(8);
            }
            1 => out.insert(at, chance.next() as u8),
            2 => out.truncate(at),
            3 => {
                let end = (at + chance.below(32)).min(out.len());
                out.drain(at..end);
            }
            4 => {
                let end = (at + chance.below(64)).min(out.len());
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
            5 => {
                let other = &others[chance.below(others.len())];
                let from = chance.below(other.len() + 1);
                let end = (from + chance.below(200)).min(other.len());
                out.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                let token = TOKENS[chance.below(TOKENS.len())];
                out.splice(at..at, token.iter().copied());
            }
        }
    }
    out
}

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(corpus.len() >= 3, "{name} has a corpus");
    for (file, input) in files.iter().zip(&corpus) {
        run(target, input, &file.display().to_string());
    }
    let (began, mut chance) = (Instant::now(), Chance(7));
    for n in 0..MUTATIONS {
        if began.elapsed() > LONGEST {
            println!("{name}: {n} mutations in {LONGEST:?}");
            return;
        }
        let input = mutate(&corpus[chance.below(corpus.len())], &corpus, &mut chance);
        run(target, &input, &format!("mutation {n} of {name}"));
    }
    println!(
        "{name}: {} inputs and {MUTATIONS} mutations in {:?}",
        corpus.len(),
        began.elapsed()
    );
}

/// Shows what it was that a target fell over, as a fuzzer does.
fn run(target: fn(&[u8]), input: &[u8], what: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| target(input)) {
        let shown: String = input
            .escape_ascii()
            .to_string()
            .chars()
            .take(2000)
            .collect();
        eprintln!("{what}: {shown}");
        std::panic::resume_unwind(panic);
    }
}

macro_rules! replays {
    ($($name:ident: $target:path),+ $(,)?) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), $target);
        })+

        /// A target without a replay is one that nobody runs.
        #[test]
        fn every_target_is_replayed() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
            let mut there: Vec<_> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            there.sort();
            let mut here = vec![$(stringify!($name).to_owned()),+];
            here.sort();
            assert_eq!(there, here);
        }
    };
}

replays! {
    npm_json: targets::npm_json,
    pypi_simple_html: targets::pypi_simple_html,
    pypi_simple_json: targets::pypi_simple_json,
    helm_index: targets::helm_index,
    rpm_primary: targets::rpm_primary,
    rpm_repomd: targets::rpm_repomd,
    alpine_adb: targets::alpine_adb,
    alpine_tar: targets::alpine_tar,
    alpine_apkindex: targets::alpine_apkindex,
    oci_manifest: targets::oci_manifest,
    core_range: targets::core_range,
    core_path: targets::core_path,
    server_framing: larder_server::fuzzing::framing,
    config_yaml: larder::config::fuzzing::yaml,
    larder_lockfiles: larder::fuzzing::lockfiles,
}
