//! What a document says of the tarballs that it names: digest, true URL, publish time.

use std::borrow::Cow;

use larder_core::{Digest, DigestAlgorithm, UnixMillis};
use url::Url;

use super::document::{Sink, read_manifest, read_packument};
use super::json::Text;
use super::name::PackageName;
use super::tarball::Tarballs;
use crate::instant::instant;
use crate::{Claim, Links, Malformed, Meter};

/// One claim for each version of a packument that has a tarball which larder carries. Publish times are in full ones only.
pub(super) fn claims_of_packument(
    body: &[u8],
    url: &Url,
    package: PackageName<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    links.begin(body.len());
    let mut found = Found::on(links.meter());
    read_packument(body, links.meter(), &mut found)?;
    let times = last_of_each(found.times);
    let mut tarballs = Tarballs::new(package, links, url);
    for (version, dist) in last_of_each(found.versions) {
        links.meter().count()?;
        let time = times.binary_search_by(|(known, _)| known.cmp(&version));
        let published_at = time
            .ok()
            .and_then(|at| times.get(at)?.1?.value())
            .and_then(|time| instant(&time));
        if let Some(claim) = claim(&mut tarballs, &version, &dist, published_at) {
            links.claim(claim, sink);
        }
    }
    links.end()
}

/// The claim of a single version's manifest.
pub(super) fn claims_of_manifest(
    body: &[u8],
    url: &Url,
    package: PackageName<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    links.begin(body.len());
    let mut found = Found::on(links.meter());
    read_manifest(body, &mut found)?;
    let Some(version) = found.version_text.and_then(|text| text.value()) else {
        return Ok(());
    };
    if let Some(claim) = claim(
        &mut Tarballs::new(package, links, url),
        &version,
        &found.top,
        None,
    ) {
        links.claim(claim, sink);
    }
    links.end()
}

/// What stands last under each key, sorted by key: of a key that is there twice the last one counts. Keys that are no text are left out.
fn last_of_each<'a, T>(all: Vec<(Text<'a>, T)>) -> Vec<(Cow<'a, str>, T)> {
    let mut sorted: Vec<(Cow<'a, str>, T)> = all
        .into_iter()
        .filter_map(|(key, value)| Some((key.value()?, value)))
        .collect();
    // Stable, and so reversed: of equal keys the last one comes first.
    sorted.reverse();
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    sorted.dedup_by(|(later, _), (first, _)| later == first);
    sorted
}

fn claim(
    tarballs: &mut Tarballs<'_>,
    version: &str,
    dist: &Dist<'_>,
    published_at: Option<UnixMillis>,
) -> Option<Claim> {
    let tarball = dist.tarball?.value()?;
    let placed = tarballs.place(version, &tarball).ok()?;
    Some(Claim {
        path: placed.path,
        url: placed.url.into_owned(),
        digests: dist.digests(),
        identity: None,
        package: None,
        size: None,
        published_at,
        names_files: false,
    })
}

/// `dist` of a version.
#[derive(Debug, Default, Clone, Copy)]
struct Dist<'a> {
    tarball: Option<Text<'a>>,
    integrity: Option<Text<'a>>,
    shasum: Option<Text<'a>>,
}

impl Dist<'_> {
    /// All digests of `integrity`, those of one algorithm being alternatives (SRI section 3.3.4); only without a usable one the SHA-1 of
    /// `shasum`, all that old versions have.
    fn digests(&self) -> Vec<Digest> {
        let mut stated = self
            .integrity
            .and_then(|text| text.value())
            .map_or_else(Vec::new, |sri| Digest::from_sri(&sri));
        stated.sort_unstable();
        stated.dedup();
        if stated.is_empty() {
            let shasum = self.shasum.and_then(|text| text.value());
            stated
                .extend(shasum.and_then(|hex| Digest::from_hex(DigestAlgorithm::Sha1, &hex).ok()));
        }
        stated
    }
}

/// All versions and times, as often as they are there.
#[derive(Debug)]
struct Found<'a, 'm> {
    meter: &'m Meter,
    version_text: Option<Text<'a>>,
    versions: Vec<(Text<'a>, Dist<'a>)>,
    times: Vec<(Text<'a>, Option<Text<'a>>)>,
    /// A manifest's own.
    top: Dist<'a>,
}

impl<'a, 'm> Found<'a, 'm> {
    fn on(meter: &'m Meter) -> Self {
        Self {
            meter,
            version_text: None,
            versions: Vec::new(),
            times: Vec::new(),
            top: Dist::default(),
        }
    }

    fn current(&mut self) -> &mut Dist<'a> {
        self.versions
            .last_mut()
            .map_or(&mut self.top, |(_, dist)| dist)
    }
}

impl<'a> Sink<'a> for Found<'a, '_> {
    fn version_text(&mut self, version: Option<Text<'a>>) {
        self.version_text = version;
    }
    fn versions(&mut self, _is_object: bool) {
        self.versions.clear();
    }
    fn version(&mut self, key: Text<'a>) {
        if self.meter.hold(size_of::<(Text<'_>, Dist<'_>)>()) {
            self.versions.push((key, Dist::default()));
        }
    }
    fn dist(&mut self) {
        *self.current() = Dist::default();
    }
    fn tarball(&mut self, url: Option<Text<'a>>) {
        self.current().tarball = url;
    }
    fn integrity(&mut self, sri: Option<Text<'a>>) {
        self.current().integrity = sri;
    }
    fn shasum(&mut self, hex: Option<Text<'a>>) {
        self.current().shasum = hex;
    }
    fn time(&mut self) {
        self.times.clear();
    }
    fn time_of(&mut self, key: Text<'a>, time: Option<Text<'a>>) {
        if self.meter.hold(size_of::<(Text<'_>, Option<Text<'_>>)>()) {
            self.times.push((key, time));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ROOT, links, remote};
    use super::*;

    fn claims(body: &str, package: &str) -> Vec<Claim> {
        let repository = remote(ROOT);
        let mut found = Vec::new();
        let url = Url::parse(ROOT).unwrap().join(package).unwrap();
        claims_of_packument(
            body.as_bytes(),
            &url,
            PackageName::parse(package).unwrap(),
            &links(&repository),
            &mut |claim| {
                found.push(claim);
            },
        )
        .unwrap();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// `sha512("")`, `sha1("")`, as in FIPS 180 test vectors.
    const SHA512: &str = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";
    const SHA1_HEX: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    fn one(dist: &str) -> Option<Claim> {
        let body = format!(
            r#"{{"name":"n","versions":{{"1.0.0":{{"dist":{{"tarball":"https://registry.example.com/npm/n/-/n-1.0.0.tgz"{dist}}}}}}}}}"#
        );
        claims(&body, "n").pop()
    }

    fn digests(dist: &str) -> Vec<String> {
        one(dist)
            .unwrap()
            .digests
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_full_packument_states_digest_url_and_time() {
        let found = claims(include_str!("testdata/full.json"), "@babel/helper");
        let paths: Vec<&str> = found.iter().map(|claim| claim.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "@babel/helper/-/helper-7.0.0.tgz",
                "@babel/helper/-/helper-7.1.0-beta.2.tgz"
            ]
        );
        let first = &found[0];
        assert_eq!(
            first.url,
            "https://registry.example.com/npm/@babel/helper/-/helper-7.0.0.tgz"
        );
        assert_eq!(first.digests, Digest::from_sri(SHA512));
        // 2018-08-27T21:43:30.441Z
        assert_eq!(first.published_at, Some(UnixMillis(1_535_406_210_441)));
        assert_eq!(first.size, None);
    }

    #[test]
    fn npm_8_integrity_wins_over_shasum() {
        assert_eq!(
            digests(&format!(
                r#","shasum":"{SHA1_HEX}","integrity":"{}""#,
                SHA512.replace('/', "\\/")
            )),
            [Digest::from_sri(SHA512)[0].to_string()]
        );
    }

    #[test]
    fn npm_9_a_version_with_only_shasum_has_its_sha1() {
        let expected = format!("sha1:{SHA1_HEX}");
        assert_eq!(
            digests(&format!(r#","shasum":"{SHA1_HEX}""#)),
            [expected.as_str()]
        );
        assert_eq!(
            digests(&format!(r#","shasum":"{SHA1_HEX}","integrity":"""#)),
            [expected.as_str()]
        );
        assert_eq!(
            digests(&format!(
                r#","shasum":"{SHA1_HEX}","integrity":"sha999-AAAA""#
            )),
            [expected.as_str()]
        );
        assert_eq!(
            digests(&format!(r#","shasum":"{SHA1_HEX}","integrity":null"#)),
            [expected.as_str()]
        );
        assert!(digests(r#","shasum":"zz""#).is_empty());
        assert!(digests("").is_empty());
    }

    #[test]
    fn all_digests_of_an_integrity_are_stated() {
        let sha1 = "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=";
        assert_eq!(
            digests(&format!(r#","integrity":"{SHA512} {sha1}""#)).len(),
            2
        );
        assert_eq!(
            digests(&format!(r#","integrity":"{SHA512} {SHA512}""#)).len(),
            1
        );
        let other = format!("sha512-{}==", "A".repeat(86));
        let stated = digests(&format!(r#","integrity":"{SHA512} {other} {sha1}""#));
        assert_eq!(
            stated
                .iter()
                .filter(|text| text.starts_with("sha512:"))
                .count(),
            2,
            "{stated:?}"
        );
    }

    #[test]
    fn of_duplicate_keys_the_last_counts() {
        let tarball = |version: &str| {
            format!(
                r#"{{"dist":{{"tarball":"https://registry.example.com/npm/n/-/n-{version}.tgz","shasum":"{SHA1_HEX}"}}}}"#
            )
        };
        let paths = |body: &str| {
            claims(body, "n")
                .into_iter()
                .map(|claim| claim.path)
                .collect::<Vec<_>>()
        };
        let (one, two) = (tarball("1.0.0"), tarball("2.0.0"));
        assert_eq!(
            paths(&format!(
                r#"{{"versions":{{"1.0.0":{one}}},"versions":{{"2.0.0":{two}}}}}"#
            )),
            ["n/-/n-2.0.0.tgz"]
        );
        assert_eq!(
            paths(&format!(r#"{{"versions":{{"1.0.0":{one},"1.0.0":{{}}}}}}"#)),
            Vec::<String>::new()
        );
        assert_eq!(
            paths(&format!(r#"{{"versions":{{"1.0.0":{{}},"1.0.0":{one}}}}}"#)),
            ["n/-/n-1.0.0.tgz"]
        );
        assert_eq!(
            paths(&format!(r#"{{"versions":{{"1.0.0":{one}}},"versions":0}}"#)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn npm_3_5_a_foreign_tarball_is_claimed_under_the_conventional_path() {
        let found = claims(include_str!("testdata/github.json"), "@octo/tool");
        let pairs: Vec<(&str, &str)> = found
            .iter()
            .map(|claim| (claim.path.as_str(), claim.url.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [(
                "@octo/tool/-/tool-1.0.0.tgz",
                "https://registry.example.com/npm/download/@octo/tool/1.0.0/5ba93fcd1d5ae2d4e2d0f1f5dd9c8a5e3a0f8b91"
            )]
        );
    }

    #[test]
    fn versions_without_a_usable_tarball_are_left_out() {
        let body = r#"{"name":"n","versions":{"1.0.0":{},"1.0.1":{"dist":null},"1.0.2":{"dist":{}},"1.0.3":{"dist":{"tarball":7}},
            "1.0.4":{"dist":{"tarball":"https://10.0.0.1/x.tgz"}},"__proto__":{"dist":{"tarball":"https://registry.example.com/npm/x.tgz"}},
            "1.0.5":{"dist":{"tarball":"https://[bad/x.tgz"}},"\ud800":{"dist":{"tarball":"https://registry.example.com/npm/x.tgz"}}}}"#;
        assert_eq!(claims(body, "n"), []);
    }

    #[test]
    fn a_manifest_claims_its_own_tarball() {
        let repository = remote(ROOT);
        let mut found = Vec::new();
        let body = include_bytes!("testdata/manifest.json");
        let url = Url::parse(ROOT).unwrap();
        claims_of_manifest(
            body,
            &url,
            PackageName::parse("left-pad").unwrap(),
            &links(&repository),
            &mut |claim| {
                found.push(claim);
            },
        )
        .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "left-pad/-/left-pad-1.3.0.tgz");
        assert_eq!(
            found[0].digests[0].to_string(),
            "sha1:5b8a3a7765dfe001261dde915589e782f8c94d1e"
        );
        assert_eq!(found[0].published_at, None);
    }
}
