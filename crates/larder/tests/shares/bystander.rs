//! Repositories with a good upstream of their own, asked for one new thing after the other.

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};

use crate::SOON;
use crate::support::TestLarder;
use crate::support::client::{client, try_send};
use crate::support::packages::entry;

/// How many files and pages are asked for in one measurement.
const EACH: usize = 20;

/// A good upstream, and who asks for what it has.
#[derive(Debug)]
pub(crate) struct Bystander {
    origin: Origin,
    measured: usize,
}

impl Bystander {
    pub(crate) async fn new() -> Self {
        let origin = Origin::start().await;
        for n in 0..EACH * 10 {
            let page = format!(
                "<!DOCTYPE html><title>Links for b{n}</title><a href=\"b{n}-1.0.tar.gz\">b{n}-1.0.tar.gz</a>"
            );
            origin.put(
                &format!("/simple/b{n}/"),
                Resource::new(page).content_type("text/html"),
            );
            origin.put(
                &format!("/files/{n}.bin"),
                Resource::new(format!("file {n}")),
            );
        }
        Self {
            origin,
            measured: 0,
        }
    }

    /// Its entries of `remotes`: one for files, one for pages.
    pub(crate) fn entries(&self) -> String {
        format!(
            "{}{}",
            entry("files", "generic", &self.origin, ""),
            entry("pages", "pypi", &self.origin, "")
        )
    }

    /// Asks for twenty new files and twenty new pages: each must come soon.
    pub(crate) async fn measure(&mut self, larder: &TestLarder, meanwhile: &str) {
        let client = client();
        let (mut file, mut page) = (Duration::ZERO, Duration::ZERO);
        for n in self.measured..self.measured + EACH {
            let urls = [
                larder.artifact("files", &format!("files/{n}.bin")),
                larder.artifact("pages", &format!("simple/b{n}/")),
            ];
            for (url, slowest) in urls.iter().zip([&mut file, &mut page]) {
                let began = Instant::now();
                let answer = try_send(&client, "GET", url, &[]).await.unwrap();
                assert_eq!(answer.status, 200, "{meanwhile}: {url}: {}", answer.text());
                assert_eq!(answer.source(), "remote", "it must be new: {url}");
                *slowest = (*slowest).max(began.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.measured += EACH;
        eprintln!(
            "{meanwhile}: the slowest of {EACH} new files {file:?}, of {EACH} new pages {page:?}"
        );
        assert!(file < SOON, "{meanwhile}: a new file took {file:?}");
        assert!(page < SOON, "{meanwhile}: a new page took {page:?}");
    }
}
