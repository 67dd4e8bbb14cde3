//! The limit of open files: of the larder that has the data directory, or of one that would be started from here.

use larder::config::Settings;
use larder_storage::DataDirectoryLock;

use super::Finding;
use crate::descriptors::{Shares, highest_limit};
use crate::wire::wanted_shares;

/// What is wrong if the limit allows less than is configured.
pub(super) fn findings(settings: &Settings) -> Option<Finding> {
    let holder = DataDirectoryLock::holder(&settings.data_dir).ok().flatten();
    let (place, limit) = match holder {
        // Its own says nothing about this one.
        Some(process) => {
            let number = number(&process)?;
            let of_process = |file| std::fs::read_to_string(format!("/proc/{number}/{file}")).ok();
            // In a container it may have the number of another one here.
            of_process("comm").filter(|name| name.starts_with("larder"))?;
            let limit = soft_limit(&of_process("limits")?)?;
            (process, limit)
        }
        None => ("a larder that is started here".to_owned(), highest_limit()),
    };
    judge(&place, limit, wanted_shares(settings))
}

fn judge(place: &str, limit: usize, wanted: Shares) -> Option<Finding> {
    let shares = Shares::of(limit, wanted);
    let is_less = shares.connections < wanted.connections || shares.downloads < wanted.downloads;
    is_less.then(|| {
        Finding::new(
            "descriptors",
            place,
            format!(
                "it may have {limit} files open, which is enough for {} connections and {} downloads at once, not for the {} and {} of limits.connections and limits.downloads",
                shares.connections, shares.downloads, wanted.connections, wanted.downloads
            ),
            "raise the limit where larder is started (LimitNOFILE of its unit, the container's nofile, ulimit -Hn), or set limits.connections and limits.downloads to what is needed",
        )
    })
}

/// The process that a holder of the lock says it is.
fn number(process: &str) -> Option<u32> {
    process.rsplit(' ').next()?.parse().ok()
}

/// A running larder has raised its own as far as it goes.
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" {
        Some(usize::MAX)
    } else {
        soft.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_is_configured_is_a_finding() {
        let wanted = Shares {
            connections: 1_000,
            downloads: 50,
            uploads: 10,
            hot_files: 100,
            blobs: 100,
            derived: 100,
        };
        assert_eq!(judge("here", 4_096, wanted), None);
        let found = judge("here", 1_024, wanted).unwrap();
        assert!(found.what.contains("1024 files"), "{found:?}");
        assert!(found.what.contains("the 1000 and 50 of"), "{found:?}");
    }

    #[test]
    fn the_limit_of_a_process_is_read_as_the_kernel_shows_it() {
        let shown = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             15738                15738                processes \n\
                     Max open files            20000                20000                files     \n";
        assert_eq!(soft_limit(shown), Some(20_000));
        assert_eq!(
            soft_limit("Max open files            unlimited            unlimited            files"),
            Some(usize::MAX)
        );
        assert_eq!(soft_limit("Max processes 1 1"), None);
        assert_eq!(number("process 4711"), Some(4711));
        assert_eq!(number("an unknown process"), None);
    }
}
