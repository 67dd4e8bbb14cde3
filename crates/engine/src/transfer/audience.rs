//! Who waits for something that is under way, and whether anybody still does.

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, Default)]
struct Seats {
    taken: usize,
    /// Whether there has been anybody at all.
    ever_taken: bool,
}

impl Seats {
    fn are_left(self) -> bool {
        self.ever_taken && self.taken == 0
    }
}

/// Those who wait.
#[derive(Debug, Default)]
pub(crate) struct Audience(watch::Sender<Seats>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat<'a>(&'a Audience);

impl Audience {
    /// One more waits.
    pub(crate) fn join(&self) -> Seat<'_> {
        self.0.send_modify(|seats| {
            seats.taken += 1;
            seats.ever_taken = true;
        });
        Seat(self)
    }

    /// How many wait at present.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().taken
    }

    /// Whether nobody waits at present.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().taken == 0
    }

    /// Whether somebody has waited, and nobody does any more.
    pub(crate) fn has_left(&self) -> bool {
        self.0.borrow().are_left()
    }

    /// Waits until [`has_left`](Self::has_left) holds.
    pub(crate) async fn left(&self) {
        // The sender is here: this does not end without reason.
        let _ = self.0.subscribe().wait_for(|seats| seats.are_left()).await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|seats| seats.taken -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn left(audience: &Audience) -> bool {
        tokio::time::timeout(Duration::from_millis(1), audience.left())
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_audience_has_left_when_the_last_one_has() {
        let audience = Audience::default();
        assert!(audience.is_empty() && !audience.has_left() && !left(&audience).await);
        let (first, second) = (audience.join(), audience.join());
        assert!(!audience.is_empty() && !left(&audience).await);
        drop(first);
        assert!(!audience.has_left() && !left(&audience).await);
        drop(second);
        assert!(audience.is_empty() && audience.has_left() && left(&audience).await);
        let _third = audience.join();
        assert!(!audience.has_left() && !left(&audience).await);
    }
}
