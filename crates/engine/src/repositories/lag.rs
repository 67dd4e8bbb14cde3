//! How old the indexes of mirrors are beside each other: of each mirror the dates (`Last-Modified`) of the documents that it gave last.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_core::UnixMillis;

/// Documents of one mirror that are remembered: those that came last.
const MOST: usize = 64;

/// The documents that a mirror gave.
#[derive(Debug, Default)]
pub(crate) struct IndexDates(Mutex<Vec<IndexDate>>);

/// A document of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexDate {
    path: String,
    /// `None`: the mirror does not date it.
    date: Option<UnixMillis>,
    /// When the mirror said so.
    at: UnixMillis,
}

/// How far a mirror is behind the newest of its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexLag {
    /// Not known, and why, in a few words.
    Unknown(&'static str),
    /// As far as its index tells.
    Known {
        /// How much older its index is; zero: none is newer.
        behind: Duration,
        /// The index's path.
        index: String,
        /// When the mirror gave it: it may have a newer one by now.
        at: UnixMillis,
    },
}

impl IndexDates {
    fn all(&self) -> Vec<IndexDate> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }

    /// The mirror has a document with this date.
    pub(crate) fn note(&self, path: &str, date: Option<UnixMillis>, at: UnixMillis) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.path != path);
        if all.len() >= MOST {
            all.remove(0);
        }
        let path = path.to_owned();
        all.push(IndexDate { path, date, at });
    }

    /// The paths of the documents that it gave last, the last first.
    pub(crate) fn paths(&self) -> Vec<String> {
        let all = self.all().into_iter().rev();
        all.map(|known| known.path).collect()
    }

    /// How far this mirror is behind the newest of all (`mirrors` has this one, too).
    pub(crate) fn lag<'m>(&self, mirrors: impl Iterator<Item = &'m Self>) -> IndexLag {
        let own = self.all();
        let all: Vec<Vec<IndexDate>> = mirrors.map(Self::all).collect();
        if all.len() < 2 {
            return IndexLag::Unknown("there is no other mirror");
        }
        if own.is_empty() {
            return IndexLag::Unknown("it gave no index since larder started");
        }
        let dated = |known: &IndexDate| Some((known.path.clone(), known.date?, known.at));
        let own: Vec<(String, UnixMillis, UnixMillis)> = own.iter().filter_map(dated).collect();
        if own.is_empty() {
            return IndexLag::Unknown("its indexes have no date");
        }
        let compared = own.into_iter().filter_map(|(path, date, at)| {
            let same = all.iter().flatten().filter(|other| other.path == path);
            let dates: Vec<UnixMillis> = same.filter_map(|other| other.date).collect();
            let newest = *dates.iter().max()?;
            (dates.len() > 1).then(|| (newest.since(date), at, path))
        });
        // The index that tells most; of several, the one that was seen last.
        match compared.max() {
            Some((behind, at, index)) => IndexLag::Known { behind, index, at },
            None => IndexLag::Unknown("no other mirror gave the same index since larder started"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> UnixMillis {
        UnixMillis(seconds * 1_000)
    }

    #[test]
    fn a_mirror_is_as_far_behind_as_its_oldest_index() {
        let [first, second, third] = std::array::from_fn(|_| IndexDates::default());
        let lag = |of: &IndexDates| of.lag([&first, &second, &third].into_iter());
        let why = |of: &IndexDates| match lag(of) {
            IndexLag::Unknown(why) => why,
            IndexLag::Known { .. } => "",
        };
        first.note("main/APKINDEX.tar.gz", Some(at(7_200)), at(9_000));
        assert!(why(&first).contains("no other mirror"), "{}", why(&first));
        assert!(why(&second).contains("gave no index"));
        second.note("main/APKINDEX.tar.gz", Some(at(3_600)), at(9_100));
        second.note("community/APKINDEX.tar.gz", Some(at(100)), at(9_100));
        third.note("main/APKINDEX.tar.gz", None, at(9_200));
        assert!(why(&third).contains("no date"));
        let index = "main/APKINDEX.tar.gz".to_owned();
        let known = |seconds, at| IndexLag::Known {
            behind: Duration::from_secs(seconds),
            index: index.clone(),
            at,
        };
        assert_eq!(lag(&first), known(0, at(9_000)));
        assert_eq!(lag(&second), known(3_600, at(9_100)));
        // What it says last counts.
        second.note("main/APKINDEX.tar.gz", Some(at(9_000)), at(9_300));
        assert_eq!(lag(&second), known(0, at(9_300)));
        assert_eq!(lag(&first), known(1_800, at(9_000)));
        assert!(matches!(
            first.lag([&first].into_iter()),
            IndexLag::Unknown(_)
        ));
    }

    #[test]
    fn the_documents_of_a_mirror_are_bounded() {
        let dates = IndexDates::default();
        for n in 0..1_000 {
            dates.note(&format!("{n}"), None, at(n));
        }
        assert_eq!(dates.paths().len(), MOST);
        assert_eq!(dates.paths()[0], "999");
    }
}
