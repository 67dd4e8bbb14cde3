//! What every [`Shared`] must do, as a suite that panics at the first breach. For the tests of all implementations.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test suite: it panics to report"
)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Attempt, Fence, Lease, Pace, RationClaim, Renewal, Shared, Subscription, Told};

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
        together_they_have_no_more_than_there_is(a, b).await;
        each_gets_its_part_as_the_other_gives_back(a, b).await;
        claims_run_out(a, b).await;
        of_less_than_one_each_they_take_turns(a, b).await;
        moments_are_apart(a, b).await;
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

/// Claims `wanted` of `limit`, of which `held` are in use.
async fn claim(user: &dyn Shared, key: &str, who: &str, limit: u32, of: (u32, u32)) -> u32 {
    let claim = RationClaim {
        holder: who,
        limit,
        held: of.0,
        wanted: of.1,
        ttl: LONG,
    };
    let granted = user.ration(key, &claim).await;
    granted.expect("the service answers")
}

async fn together_they_have_no_more_than_there_is(a: &dyn Shared, b: &dyn Shared) {
    assert_eq!(claim(a, "so much", "a", 10, (0, 3)).await, 3);
    assert_eq!(claim(b, "so much", "b", 10, (0, 100)).await, 7);
    assert_eq!(claim(a, "so much", "c", 10, (0, 1)).await, 0);
    assert_eq!(claim(b, "as much", "c", 10, (0, 1)).await, 1, "of another");
    for (user, who) in [(a, "a"), (b, "b"), (a, "c")] {
        claim(user, "so much", who, 10, (0, 0)).await;
    }
    assert_eq!(claim(b, "so much", "d", 10, (0, 100)).await, 10);
    claim(b, "so much", "d", 10, (0, 0)).await;
    claim(b, "as much", "c", 10, (0, 0)).await;
}

async fn each_gets_its_part_as_the_other_gives_back(a: &dyn Shared, b: &dyn Shared) {
    assert_eq!(claim(a, "parts", "a", 4, (0, 9)).await, 4);
    assert_eq!(claim(b, "parts", "b", 4, (0, 9)).await, 0);
    assert_eq!(claim(a, "parts", "a", 4, (4, 9)).await, 2, "from now on");
    assert_eq!(claim(b, "parts", "b", 4, (0, 9)).await, 0, "they are used");
    assert_eq!(claim(a, "parts", "a", 4, (3, 9)).await, 2);
    assert_eq!(claim(b, "parts", "b", 4, (0, 9)).await, 1);
    assert_eq!(claim(a, "parts", "a", 4, (2, 9)).await, 2);
    assert_eq!(claim(b, "parts", "b", 4, (1, 9)).await, 2);
    assert_eq!(claim(a, "parts", "a", 4, (0, 0)).await, 0);
    assert_eq!(claim(b, "parts", "b", 4, (2, 9)).await, 4);
    claim(b, "parts", "b", 4, (0, 0)).await;
}

async fn claims_run_out(a: &dyn Shared, b: &dyn Shared) {
    let brief = RationClaim {
        holder: "a",
        limit: 4,
        held: 0,
        wanted: 4,
        ttl: SHORT,
    };
    assert_eq!(a.ration("brief", &brief).await, Some(4));
    assert_eq!(claim(b, "brief", "b", 4, (0, 2)).await, 0);
    sleep(PAST).await;
    assert_eq!(claim(b, "brief", "b", 4, (0, 2)).await, 2);
    claim(b, "brief", "b", 4, (0, 0)).await;
}

async fn of_less_than_one_each_they_take_turns(a: &dyn Shared, b: &dyn Shared) {
    assert_eq!(claim(a, "one", "a", 1, (0, 9)).await, 1);
    assert_eq!(claim(b, "one", "b", 1, (0, 9)).await, 0);
    sleep(Duration::from_millis(5)).await;
    assert_eq!(claim(a, "one", "c", 1, (0, 9)).await, 0);
    // It comes to its end, and is not begun anew: others have waited.
    assert_eq!(claim(a, "one", "a", 1, (1, 9)).await, 0);
    assert_eq!(claim(a, "one", "a", 1, (0, 9)).await, 0);
    assert_eq!(claim(a, "one", "c", 1, (0, 9)).await, 0, "after the other");
    assert_eq!(claim(b, "one", "b", 1, (0, 9)).await, 1);
    claim(b, "one", "b", 1, (0, 0)).await;
    sleep(Duration::from_millis(5)).await;
    assert_eq!(claim(b, "one", "b", 1, (0, 9)).await, 0);
    assert_eq!(claim(a, "one", "c", 1, (0, 9)).await, 1);
    for (user, who) in [(a, "a"), (b, "b"), (a, "c")] {
        claim(user, "one", who, 1, (0, 0)).await;
    }
}

async fn moments_are_apart(a: &dyn Shared, b: &dyn Shared) {
    let (apart, patience) = (Duration::from_millis(400), Duration::from_millis(900));
    let mut moments = Vec::new();
    for user in [a, b, a] {
        let now = tokio::time::Instant::now();
        match user.pace("steps", apart, patience).await {
            Some(Pace::After(wait)) => moments.push(now + wait),
            other => panic!("a moment: {other:?}"),
        }
    }
    for pair in moments.windows(2) {
        let between = pair[1] - pair[0];
        // As far as two clocks and the way there agree.
        assert!(between > apart / 2, "{between:?}");
    }
    let refused = b.pace("steps", apart, patience).await;
    assert!(matches!(refused, Some(Pace::TooLong(_))), "{refused:?}");
    let other = b.pace("other steps", apart, patience).await;
    assert_eq!(other, Some(Pace::After(Duration::ZERO)));
    sleep(Duration::from_millis(1_300)).await;
    let idle = a.pace("steps", apart, patience).await;
    assert_eq!(idle, Some(Pace::After(Duration::ZERO)));
    // The next pair of users begins anew.
    sleep(apart * 2).await;
}
