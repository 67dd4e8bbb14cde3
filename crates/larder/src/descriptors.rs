//! File descriptors: the process's limit, raised as far as it goes, and who may use how many of them. Nothing that is only there for
//! speed may take what connections and downloads need (hazards R1 and R5).

use larder_server::RESERVED_CONNECTIONS;
use rustix::process::{Resource, getrlimit, setrlimit};

/// How many descriptors each of the large users may hold at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Clients, beside the reserve that the server keeps for probes.
    pub(crate) connections: usize,
    /// Downloads of files; each has a spool file and a connection, as have as many of documents.
    pub(crate) downloads: usize,
    /// Uploads that are received; each has a spool file.
    pub(crate) uploads: usize,
    /// Files of the hot set.
    pub(crate) hot_files: usize,
    /// Blobs that stay open outside it.
    pub(crate) blobs: usize,
    /// Derived documents that stay open.
    pub(crate) derived: usize,
}

impl Shares {
    /// What is wanted, if `limit` descriptors are enough for all of it; else a part of the limit for each: half for connections with
    /// their reserve, a quarter for downloads, a tenth in all for what is held open for speed. The rest is for the database (some
    /// twenty), listeners, connections to upstreams that are kept, and answers that read a file by themselves.
    pub(crate) fn of(limit: usize, wanted: Self) -> Self {
        if wanted.descriptors() <= limit - limit / 32 {
            return wanted;
        }
        let connections = (limit / 2).saturating_sub(RESERVED_CONNECTIONS);
        Self {
            connections: wanted.connections.min(connections).max(1),
            downloads: wanted.downloads.min(limit / 16).max(1),
            uploads: wanted.uploads.min(limit / 64).max(1),
            hot_files: wanted.hot_files.min(limit / 32),
            blobs: wanted.blobs.min(limit / 32),
            derived: wanted.derived.min(limit / 32),
        }
    }

    /// How many descriptors they take together.
    fn descriptors(self) -> usize {
        self.connections
            + RESERVED_CONNECTIONS
            + 4 * self.downloads
            + self.uploads
            + self.hot_files
            + self.blobs
            + self.derived
    }
}

/// Raises the soft limit to the hard one. Gives the limit that is in force then.
pub(crate) fn raise_limit() -> usize {
    let mut limits = getrlimit(Resource::Nofile);
    let before = limits.current;
    limits.current = limits.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limits) {
        tracing::warn!(%error, "the limit of open files could not be raised");
        limits.current = before;
    }
    limits
        .current
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

/// The limit to which [`raise_limit`] would raise it.
pub(crate) fn highest_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).maximum;
    limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

/// Tells the operator when fewer connections or downloads than configured are possible.
pub(crate) fn warn_of_less(limit: usize, wanted: Shares, shares: Shares) {
    if shares.connections < wanted.connections || shares.downloads < wanted.downloads {
        tracing::warn!(
            limit,
            connections = shares.connections,
            downloads = shares.downloads,
            "the limit of open files allows fewer connections or downloads than limits.connections and limits.downloads; \
             raise it (ulimit -Hn, LimitNOFILE)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Shares = Shares {
        connections: 10_000,
        downloads: 512,
        uploads: 128,
        hot_files: 4_096,
        blobs: 1_024,
        derived: 2_048,
    };

    #[test]
    fn a_usual_limit_gives_everybody_what_is_wanted() {
        assert_eq!(Shares::of(20_000, WANTED), WANTED);
        assert_eq!(Shares::of(1 << 20, WANTED), WANTED);
        assert_eq!(Shares::of(usize::MAX, WANTED), WANTED);
    }

    #[test]
    fn a_low_limit_is_shared_and_never_exceeded() {
        for limit in [64, 256, 1_024, 4_096, 19_000] {
            let shares = Shares::of(limit, WANTED);
            let (used, connections) = (
                shares.descriptors(),
                shares.connections + RESERVED_CONNECTIONS,
            );
            assert!(
                used <= limit - limit / 8,
                "{limit}: {shares:?}: some are left for everything else"
            );
            assert!(
                connections >= limit / 2 && shares.downloads >= (limit / 16).min(512),
                "{limit}: {shares:?}"
            );
        }
    }

    #[test]
    fn nobody_is_left_with_nothing() {
        let shares = Shares::of(3, WANTED);
        assert_eq!((shares.connections, shares.downloads), (1, 1));
    }
}
