//! What the benchmarks of formats share.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::fmt::Write as _;

use divan::Bencher;
use divan::counter::BytesCount;
use larder_core::{
    AccessPolicy, CachePolicy, Kind, PackageType, QuarantinePolicy, Repository, RepositoryName,
    UpstreamSettings,
};
use larder_formats::{Document, LinkBase, LinkKey, Links, format_of};
use url::Url;

/// A remote repository with nothing set but its root.
pub(crate) fn remote(package: PackageType, base_url: &str) -> Repository {
    let base: Url = base_url.parse().unwrap();
    Repository {
        name: RepositoryName::parse("bench").unwrap(),
        package,
        description: String::new(),
        kind: Kind::Remote(Box::new(UpstreamSettings::new(base))),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        reserved: larder_core::ReservedNames::default(),
        rules_epoch: 0,
    }
}

/// Measures one function of a format over one document: what it gives is only kept from being optimised away.
pub(crate) fn over<T>(
    bencher: Bencher,
    repository: &Repository,
    document: &Document<'_>,
    run: impl Fn(&'static dyn larder_formats::Format, &Document<'_>, &Links<'_>) -> T,
) {
    let format = format_of(repository.package);
    let base = LinkBase::new("https://larder.example/api/v1/remote/bench/");
    let links = Links::new(repository, &LinkKey::from_bytes([7; 32]), base);
    bencher
        .counter(BytesCount::new(document.body.len()))
        .bench_local(|| run(format, document, &links));
}

/// Digits that do not repeat, so that nothing finds the same digest twice.
pub(crate) fn hex(seed: u64, digits: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut text = String::new();
    while text.len() < digits {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let _ = write!(text, "{:08x}", state >> 32);
    }
    text.truncate(digits);
    text
}
