//! Waiting for many fsyncs at once: the file system then answers them with few commits of its journal instead of one each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// More waiters bring no fewer commits (measured on ext4: 64 files in 1.0 s one by one, 0.1 s by sixteen).
const WORKERS: usize = 16;

/// Applies `work` to every item, on the calling thread and up to fifteen others, and gives the results in the items' order.
pub(in crate::blob) fn parallel_map<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        while let Some((index, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?)))
        {
            let result = work(item);
            results
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..items.len().min(WORKERS) {
            // Without another thread the work is done all the same.
            let _ = thread::Builder::new()
                .name("larder-fsync".to_owned())
                .spawn_scoped(scope, worker);
        }
        worker();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        let doubled = parallel_map(&items, |n| {
            thread::sleep(std::time::Duration::from_micros(n * 7919 % 300));
            n * 2
        });
        assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert!(parallel_map(&[] as &[u8], |_| ()).is_empty());
    }

    #[test]
    fn work_is_done_at_the_same_time() {
        // Nobody passes the barrier alone.
        let barrier = std::sync::Barrier::new(8);
        parallel_map(&[(); 8], |()| {
            barrier.wait();
        });
    }
}
