//! What every [`Shared`] must do, as a suite that panics at the first breach. For the tests of all implementations.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test suite: it panics to report"
)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Attempt, Fence, Lease, Renewal, Shared, Subscription, Told};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);
/// Longer than [`SHORT`].
const PAST: Duration = Duration::from_millis(320);

/// Runs all checks against two users of one service, which have connected, on a runtime of several threads. Real time passes.
pub async fn suite(one: Arc<dyn Shared>, other: Arc<dyn Shared>) {
    for (a, b) in [(&*one, &*other), (&*other, &*one)] {
        one_holder_at_a_time(a, b).await;
        a_lease_runs_out(a, b).await;
        renewals_keep_it(a, b).await;
        one_that_ran_out_is_had_again_unless_it_was_taken(a, b).await;
        it_can_be_taken_over_by_one(a, b).await;
        fences_grow(a, b).await;
        any_text_is_a_key(a, b).await;
        messages_reach_all_of_the_topic(a, b).await;
    }
    of_many_one_gets_it(&one, &other).await;
}

fn taken(attempt: Attempt) -> Lease {
    match attempt {
        Attempt::Taken(lease) => lease,
        other => panic!("the lease should have been had: {other:?}"),
    }
}

fn held(attempt: Attempt) -> (String, Fence, Duration) {
    match attempt {
        Attempt::Held(holder) => (holder.data, holder.fence, holder.left),
        other => panic!("the lease should be another's: {other:?}"),
    }
}

async fn one_holder_at_a_time(a: &dyn Shared, b: &dyn Shared) {
    let lease = taken(a.lease("one", "10.0.0.1:80", LONG, None).await);
    for user in [a, b] {
        let (data, fence, left) = held(user.lease("one", "me", LONG, None).await);
        assert_eq!((&*data, fence), ("10.0.0.1:80", lease.fence));
        assert!(left > LONG / 2 && left <= LONG, "{left:?}");
        let holder = user.holder("one").await.expect("a holder");
        assert_eq!((&*holder.data, holder.fence), ("10.0.0.1:80", lease.fence));
    }
    assert_eq!(b.holder("another").await, None);
    a.release(&lease).await;
    assert_eq!(b.holder("one").await, None);
    let next = taken(b.lease("one", "", LONG, None).await);
    assert!(next.fence > lease.fence);
    // What was given back cannot be given back, or kept, again.
    a.release(&lease).await;
    assert_eq!(a.renew(&lease, LONG).await, Renewal::Lost);
    assert_eq!(held(a.lease("one", "", LONG, None).await).1, next.fence);
    b.release(&next).await;
}

async fn a_lease_runs_out(a: &dyn Shared, b: &dyn Shared) {
    let lease = taken(a.lease("brief", "a", SHORT, None).await);
    sleep(PAST).await;
    assert_eq!(b.holder("brief").await, None);
    let next = taken(b.lease("brief", "b", LONG, None).await);
    assert!(next.fence > lease.fence);
    assert_eq!(a.renew(&lease, LONG).await, Renewal::Lost);
    a.release(&lease).await;
    assert_eq!(b.renew(&next, LONG).await, Renewal::Kept, "it is b's still");
    b.release(&next).await;
}

async fn renewals_keep_it(a: &dyn Shared, b: &dyn Shared) {
    let lease = taken(a.lease("kept", "a", SHORT, None).await);
    for _ in 0..4 {
        sleep(SHORT / 2).await;
        assert_eq!(a.renew(&lease, SHORT).await, Renewal::Kept);
    }
    assert_eq!(held(b.lease("kept", "b", SHORT, None).await).1, lease.fence);
    a.release(&lease).await;
}

async fn one_that_ran_out_is_had_again_unless_it_was_taken(a: &dyn Shared, b: &dyn Shared) {
    let lease = taken(a.lease("again", "a", SHORT, None).await);
    sleep(PAST).await;
    assert_eq!(a.renew(&lease, LONG).await, Renewal::Kept);
    let (data, fence, _) = held(b.lease("again", "b", LONG, None).await);
    assert_eq!((&*data, fence), ("a", lease.fence));
    a.release(&lease).await;
    // Somebody has had it since, and has given it back.
    let lease = taken(a.lease("again", "a", SHORT, None).await);
    sleep(PAST).await;
    let since = taken(b.lease("again", "b", LONG, None).await);
    b.release(&since).await;
    assert_eq!(a.renew(&lease, LONG).await, Renewal::Lost);
}

async fn it_can_be_taken_over_by_one(a: &dyn Shared, b: &dyn Shared) {
    let lost = taken(a.lease("over", "dead", LONG, None).await);
    let heir = taken(b.lease("over", "b", LONG, Some(lost.fence)).await);
    assert!(heir.fence > lost.fence);
    // Who comes second with the same number finds the heir.
    let (data, fence, _) = held(a.lease("over", "a", LONG, Some(lost.fence)).await);
    assert_eq!((&*data, fence), ("b", heir.fence));
    assert_eq!(a.renew(&lost, LONG).await, Renewal::Lost);
    b.release(&heir).await;
}

async fn fences_grow(a: &dyn Shared, b: &dyn Shared) {
    let mut last = Fence(0);
    for n in 0..30 {
        let user = [a, b][n % 2];
        let lease = taken(user.lease("fence", "", LONG, None).await);
        assert!(lease.fence > last);
        last = lease.fence;
        user.release(&lease).await;
    }
}

async fn any_text_is_a_key(a: &dyn Shared, b: &dyn Shared) {
    let long = "x".repeat(4_096);
    let keys = ["", " ", "{a}b", "a\nb", "ü/\u{0}", &long, &long[1..]];
    let mut leases = Vec::new();
    for key in keys {
        leases.push(taken(a.lease(key, "with spaces", LONG, None).await));
    }
    for (key, lease) in keys.into_iter().zip(leases) {
        let (data, fence, _) = held(b.lease(key, "b", LONG, None).await);
        assert_eq!((&*data, fence), ("with spaces", lease.fence));
        a.release(&lease).await;
    }
}

async fn next(subscription: &mut Subscription) -> Option<Vec<u8>> {
    loop {
        match timeout(Duration::from_secs(2), subscription.next()).await {
            Ok(Told::Message(bytes)) => return Some(bytes.to_vec()),
            Ok(Told::Missed) => {}
            Err(_) => return None,
        }
    }
}

async fn messages_reach_all_of_the_topic(a: &dyn Shared, b: &dyn Shared) {
    let mut listeners = [a.subscribe("news"), b.subscribe("news")];
    let mut elsewhere = b.subscribe("other news");
    // A subscription may take a moment; from the first message on, all arrive.
    for listener in &mut listeners {
        let mut tries = 0;
        loop {
            a.publish("news", b"begin").await;
            let first = timeout(Duration::from_millis(100), next(listener)).await;
            if matches!(first, Ok(Some(_))) {
                break;
            }
            tries += 1;
            assert!(tries < 50, "nothing arrives");
        }
    }
    let message: Vec<u8> = (0..=255).collect();
    assert!(a.publish("news", &message).await);
    assert!(b.publish("news", b"last").await);
    for listener in &mut listeners {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != b"last") {
            heard.push(next(listener).await.expect("all messages"));
        }
        assert!(heard.contains(&message), "{heard:?}");
    }
    let quiet = timeout(Duration::from_millis(100), async {
        loop {
            if let Told::Message(bytes) = elsewhere.next().await {
                return bytes;
            }
        }
    });
    assert!(quiet.await.is_err(), "another topic's");
}

async fn of_many_one_gets_it(one: &Arc<dyn Shared>, other: &Arc<dyn Shared>) {
    let tries: Vec<_> = (0..60)
        .map(|n| {
            let user = Arc::clone([one, other][n % 2]);
            tokio::spawn(async move { user.lease("many", &n.to_string(), LONG, None).await })
        })
        .collect();
    let (mut leases, mut fences) = (Vec::new(), Vec::new());
    for attempt in tries {
        match attempt.await.expect("no panic") {
            Attempt::Taken(lease) => leases.push(lease),
            Attempt::Held(holder) => fences.push(holder.fence),
            Attempt::Unknown => panic!("the service answers"),
        }
    }
    assert_eq!(leases.len(), 1, "one holder");
    assert!(fences.iter().all(|fence| *fence == leases[0].fence));
    one.release(&leases[0]).await;
}
