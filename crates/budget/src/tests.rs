use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::*;

mod model;

const WAIT: Duration = Duration::from_secs(30);

fn party(repository: &str, upstream: &str) -> Party {
    Party::new(repository, upstream)
}

/// The only repository of its upstream, at present.
fn alone(repository: &str) -> Party {
    party(repository, &format!("https://{repository}.example.com"))
}

fn waits(most: usize) -> Waits {
    Waits {
        most,
        longest: WAIT,
    }
}

fn pool(total: u64) -> Arc<Pool> {
    Pool::new(BudgetKind::Downloads, total, waits(100))
}

/// Somebody who waits in the background; the task has waited by the time this returns.
async fn waiting(
    pool: &Arc<Pool>,
    party: Party,
    weight: u64,
) -> JoinHandle<Result<Lease, Refused>> {
    let pool = Arc::clone(pool);
    let task = tokio::spawn(async move { pool.lease(party, weight).await });
    settled().await;
    task
}

/// Lets all other tasks run as far as they can; the clock stands still.
async fn settled() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// As many as are leased at once.
async fn take_all(pool: &Arc<Pool>, party: &Party) -> Vec<Lease> {
    let mut leases = Vec::new();
    while let Some(lease) = at_once(pool, party, 1).await {
        leases.push(lease);
    }
    leases
}

/// A lease, if nobody has to wait for it.
async fn at_once(pool: &Arc<Pool>, party: &Party, weight: u64) -> Option<Lease> {
    tokio::select! {
        biased;
        lease = pool.lease(party.clone(), weight) => lease.ok(),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_always_something_left_for_one_more_upstream() {
    let pool = pool(512);
    let mut all = Vec::new();
    let mut taken = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let leases = take_all(&pool, &alone(name)).await;
        taken.push(leases.len());
        all.push(leases);
    }
    // 512 = 4 × 128: three quarters less what is left to others of the same upstream.
    assert_eq!(taken[0], 352);
    assert!(taken.iter().all(|taken| *taken >= 1), "{taken:?}");
    assert!(at_once(&pool, &alone("e"), 1).await.is_some(), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn repositories_of_one_upstream_leave_something_to_others_together() {
    let pool = pool(512);
    let mut all = Vec::new();
    for n in 0..100 {
        all.extend(take_all(&pool, &party(&format!("r{n}"), "bad")).await);
    }
    assert!(all.len() <= 384, "{}", all.len());
    let other = take_all(&pool, &alone("other")).await;
    assert!(other.len() >= 64, "{}", other.len());
}

#[tokio::test(start_paused = true)]
async fn of_three_places_one_repository_has_two() {
    let pool = pool(3);
    let of_one = take_all(&pool, &alone("a")).await;
    assert_eq!(of_one.len(), 2);
    assert!(at_once(&pool, &alone("b"), 1).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_single_place_is_everybody_s() {
    let pool = pool(1);
    let held = at_once(&pool, &alone("a"), 1).await.expect("a place");
    let next = waiting(&pool, alone("b"), 1).await;
    drop(held);
    assert!(next.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_more_than_a_quarter_while_another_waits() {
    let pool = pool(8);
    let mut greedy = take_all(&pool, &alone("greedy")).await;
    assert_eq!(greedy.len(), 6);
    let other = [
        at_once(&pool, &alone("b"), 1).await,
        at_once(&pool, &alone("c"), 1).await,
    ];
    assert!(other.iter().all(Option::is_some));
    let first = waiting(&pool, alone("greedy"), 1).await;
    let second = waiting(&pool, alone("d"), 1).await;
    // The one who came first holds more than its part.
    greedy.pop();
    settled().await;
    assert!(second.is_finished() && !first.is_finished());
    let second = second.await.expect("no panic").expect("a place");
    // Nobody else waits any more: what becomes free is for whoever wants it.
    greedy.truncate(2);
    settled().await;
    assert!(first.is_finished());
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn places_go_round_among_those_who_wait() {
    let pool = pool(1);
    let held = at_once(&pool, &alone("x"), 1).await.expect("a place");
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    for name in ["a", "a", "a", "b", "b", "c"] {
        let (pool, told) = (Arc::clone(&pool), told.clone());
        tokio::spawn(async move {
            let _lease = pool.lease(alone(name), 1).await.expect("a place");
            told.send(name).expect("a listener");
        });
        settled().await;
    }
    drop((held, told));
    let mut seen = Vec::new();
    while let Some(name) = order.recv().await {
        seen.push(name);
    }
    assert_eq!(seen, ["a", "b", "c", "a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_gives_its_turn_on() {
    let pool = pool(1);
    let held = at_once(&pool, &alone("x"), 1).await.expect("a place");
    let gone = waiting(&pool, alone("a"), 1).await;
    let next = waiting(&pool, alone("b"), 1).await;
    gone.abort();
    settled().await;
    assert_eq!(pool.in_use().waiting, 1);
    drop(held);
    assert!(next.await.expect("no panic").is_ok());
    assert_eq!((pool.in_use().held, pool.in_use().waiting), (0, 0));
}

/// The one that is granted a place in the very moment in which it goes.
#[tokio::test(start_paused = true)]
async fn a_place_granted_to_somebody_who_has_gone_is_not_lost() {
    for dead in [1, 2, 50] {
        let pool = Pool::new(BudgetKind::Downloads, 1, waits(1_000));
        let held = at_once(&pool, &alone("x"), 1).await.expect("a place");
        let mut gone = Vec::new();
        for n in 0..dead {
            gone.push(waiting(&pool, alone(&format!("a{n}")), 1).await);
        }
        let next = waiting(&pool, alone("b"), 1).await;
        // Granted first, and gone before any of them has been polled.
        drop(held);
        gone.iter().for_each(JoinHandle::abort);
        assert!(next.await.expect("no panic").is_ok(), "{dead}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_has_a_greatest_length_for_each_repository() {
    let pool = Pool::new(BudgetKind::Heads, 1, waits(2));
    let _held = at_once(&pool, &alone("x"), 1).await.expect("a place");
    let _first = waiting(&pool, alone("a"), 1).await;
    let _second = waiting(&pool, alone("a"), 1).await;
    let third = waiting(&pool, alone("a"), 1).await.await.expect("no panic");
    assert_eq!(
        third.expect_err("no room"),
        Refused {
            kind: BudgetKind::Heads,
            limit: 1,
            waited: None
        }
    );
    assert!(!waiting(&pool, alone("b"), 1).await.is_finished());
    assert_eq!(pool.in_use().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends() {
    let pool = pool(1);
    let _held = at_once(&pool, &alone("x"), 1).await.expect("a place");
    let began = Instant::now();
    let refused = pool.lease(alone("a"), 1).await.expect_err("no place");
    assert_eq!((refused.waited, began.elapsed()), (Some(WAIT), WAIT));
    assert_eq!(pool.in_use().waiting, 0);
}

/// The one who waits for what it may not have yet may have it because another one leaves.
#[tokio::test(start_paused = true)]
async fn a_leaving_waiter_wakes_those_that_its_waiting_held_back() {
    let pool = pool(100);
    // Three hold 70, which leaves 30: `big` waits for 40 and cannot have it, `a` may not exceed its quarter as long as it waits.
    let _others = [
        at_once(&pool, &alone("b"), 25).await.expect("room"),
        at_once(&pool, &alone("c"), 25).await.expect("room"),
        at_once(&pool, &alone("a"), 20).await.expect("room"),
    ];
    let big = waiting(&pool, alone("big"), 40).await;
    let more = waiting(&pool, alone("a"), 6).await;
    assert!(!more.is_finished());
    big.abort();
    settled().await;
    assert!(more.is_finished());
}

#[tokio::test(start_paused = true)]
async fn what_is_too_heavy_counts_as_all_that_one_may_have() {
    let pool = pool(100);
    let giant = at_once(&pool, &alone("a"), 1_000).await.expect("a lease");
    assert_eq!(pool.in_use().held, 75);
    assert!(at_once(&pool, &alone("b"), 20).await.is_some());
    let second = waiting(&pool, alone("c"), 1_000).await;
    assert!(!second.is_finished());
    drop(giant);
    assert!(second.await.expect("no panic").is_ok());
}

/// Two that always have several light things under way do not keep a heavy one waiting for ever, and one that asks for little
/// is not held up by that.
#[tokio::test(start_paused = true)]
async fn who_waits_for_much_has_its_turn() {
    let pool = pool(128);
    let mut busy = Vec::new();
    for name in ["a", "b"] {
        for _ in 0..6 {
            let pool = Arc::clone(&pool);
            busy.push(tokio::spawn(async move {
                loop {
                    let lease = pool.lease(alone(name), 9).await;
                    sleep(Duration::from_millis(10)).await;
                    drop(lease);
                }
            }));
        }
    }
    settled().await;
    let heavy = waiting(&pool, alone("heavy"), 1_000).await;
    let (mut steps, mut slowest) = (0, Duration::ZERO);
    while !heavy.is_finished() {
        steps += 1;
        assert!(steps < 1_000, "ten seconds, and no turn");
        let began = Instant::now();
        drop(pool.lease(alone("light"), 1).await.expect("a lease"));
        slowest = slowest.max(began.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    busy.iter().for_each(JoinHandle::abort);
}

/// Many tasks that come, hold, wait, give up and leave at random: in the end nothing is held and nobody waits.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_in_a_crowd() {
    let pool = pool(7);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut tasks = Vec::new();
    for _ in 0..2_000 {
        let who = party(&format!("r{}", random(6)), &format!("u{}", random(3)));
        let (hold, patience, weight) = (random(50), random(200), 1 + random(3));
        let pool = Arc::clone(&pool);
        tasks.push(tokio::spawn(async move {
            let lease =
                tokio::time::timeout(Duration::from_millis(patience), pool.lease(who, weight));
            if let Ok(Ok(_lease)) = lease.await {
                sleep(Duration::from_millis(hold)).await;
            }
        }));
        advance(Duration::from_millis(random(5))).await;
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let used = pool.in_use();
    assert_eq!((used.held, used.waiting), (0, 0));
    assert!(at_once(&pool, &alone("a"), 1).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_repository_without_an_upstream_leaves_a_quarter_and_no_more() {
    let pool = pool(128);
    let all = take_all(&pool, &Party::alone("local")).await;
    assert_eq!(all.len(), 96);
    assert_eq!(take_all(&pool, &Party::alone("other")).await.len(), 24);
}

#[tokio::test(start_paused = true)]
async fn a_cap_holds_though_nobody_else_wants_any() {
    let pool = Pool::with_cap(BudgetKind::Lookups, 64, 16, waits(100));
    let mut silent = take_all(&pool, &alone("silent")).await;
    assert_eq!(silent.len(), 16);
    let next = waiting(&pool, alone("silent"), 1).await;
    assert!(at_once(&pool, &alone("other"), 1).await.is_some());
    assert!(!next.is_finished());
    silent.pop();
    assert!(next.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn of_one_upstream_all_is_had_and_repositories_take_turns() {
    let pool = Pool::of_one_upstream(BudgetKind::UpstreamRequests, 4, waits(100));
    let mut had = take_all(&pool, &alone("a")).await;
    assert_eq!(had.len(), 4, "no rest is left");
    let (first, second) = (
        waiting(&pool, alone("a"), 1).await,
        waiting(&pool, alone("a"), 1).await,
    );
    let other = waiting(&pool, alone("b"), 1).await;
    had.pop();
    let first = first.await.expect("no panic");
    had.pop();
    let other = other.await.expect("no panic");
    assert!(first.is_ok() && other.is_ok());
    settled().await;
    assert!(!second.is_finished(), "each repository in turn");
    // Less of it: what is leased stays, and is not leased anew.
    pool.resize(2);
    had.pop();
    settled().await;
    assert!(!second.is_finished());
    assert_eq!(pool.freeze(), (3, 1));
    drop(first);
    let second = second.await.expect("no panic");
    assert!(second.is_ok(), "three are leased");
    assert!(at_once(&pool, &alone("c"), 1).await.is_none());
    pool.resize(4);
    assert!(at_once(&pool, &alone("c"), 1).await.is_some());
}

/// What is there already takes room that there may not be; newcomers wait until there is some again.
#[tokio::test(start_paused = true)]
async fn what_is_taken_anyway_keeps_others_waiting_until_there_is_room() {
    let pool = pool(4);
    let there: Vec<_> = (0..6).map(|_| pool.take_anyway(alone("a"), 1)).collect();
    assert_eq!((pool.in_use().held, pool.in_use().limit), (6, 4));
    let next = waiting(&pool, alone("b"), 1).await;
    let mut there = there.into_iter();
    there.next();
    there.next();
    settled().await;
    assert!(!next.is_finished());
    there.next();
    assert!(next.await.expect("no panic").is_ok());
    drop(there);
    assert_eq!(pool.in_use().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_grows_and_shrinks() {
    let pool = pool(100);
    let mut lease = at_once(&pool, &alone("a"), 10).await.expect("a lease");
    lease.grow(40, WAIT).await.expect("room");
    assert_eq!(pool.in_use().held, 50);
    let refused = lease.grow(40, WAIT).await;
    assert_eq!(refused.expect_err("no room").waited, Some(WAIT));
    assert_eq!(pool.in_use().held, 50, "what it has stays");
    let waiting = waiting(&pool, alone("b"), 75).await;
    lease.shrink_to(25);
    assert!(waiting.await.expect("no panic").is_ok());
    drop(lease);
    assert_eq!(pool.in_use().held, 0);
}

/// Six upstreams, one after the other, have taken everything between them.
async fn six_hold_all(pool: &Arc<Pool>) -> Vec<Vec<Lease>> {
    let mut all = Vec::new();
    for n in 0..6 {
        let party = alone(&format!("slow{n}"));
        let mut leases = take_all(pool, &party).await;
        // The last ones take the rest that the rules leave.
        while n == 5 && pool.in_use().held < pool.in_use().limit {
            leases.push(pool.take_anyway(party.clone(), 1));
        }
        all.push(leases);
    }
    assert_eq!(pool.in_use().held, pool.in_use().limit);
    all
}

#[tokio::test(start_paused = true)]
async fn a_slow_lease_is_asked_back_from_who_has_more_than_its_part_for_who_has_less() {
    let pool = pool(512);
    let mut all = six_hold_all(&pool).await;
    let asked = |leases: &[Lease], usage| {
        let asked = leases.iter().filter(|lease| lease.should_yield(usage));
        asked.count()
    };
    for leases in &all {
        assert_eq!(asked(leases, Usage::Slow), 0, "nobody waits");
    }
    let next = waiting(&pool, alone("new"), 1).await;
    for leases in &all {
        assert_eq!(asked(leases, Usage::Busy), 0, "something comes of them");
    }
    // A seventh of 512 is 73: the first has more, and the second.
    for leases in &all[2..5] {
        assert!(leases.len() < 73);
        assert_eq!(
            asked(leases, Usage::Slow),
            0,
            "they have less than their part"
        );
    }
    assert!(all[0].len() > 73);
    assert_eq!(asked(&all[0], Usage::Slow), 1, "as many as others wait for");
    assert_eq!(asked(&all[1], Usage::Slow), 0);
    let given_up = all[0]
        .iter()
        .position(|lease| lease.should_yield(Usage::Busy));
    drop(all[0].swap_remove(given_up.expect("it stays so")));
    assert!(next.await.expect("no panic").is_ok());
    assert_eq!(pool.in_use().yielded, 1);
    assert_eq!(asked(&all[0], Usage::Slow), 0, "nobody waits any more");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_asked_back_first() {
    let pool = pool(512);
    let all = six_hold_all(&pool).await;
    let (slow, idle) = (&all[0][0], &all[4][0]);
    assert!(!idle.should_yield(Usage::Idle), "nobody wants it");
    let _next = waiting(&pool, alone("new"), 1).await;
    assert!(!slow.should_yield(Usage::Slow), "there is an idle one");
    assert!(idle.should_yield(Usage::Idle));
    assert!(!slow.should_yield(Usage::Slow), "one is enough for one");
    let _second = waiting(&pool, alone("new"), 1).await;
    assert!(slow.should_yield(Usage::Slow));
}

/// Who was idle and is not any more is not counted as such.
#[tokio::test(start_paused = true)]
async fn usage_is_what_was_said_last() {
    let pool = pool(512);
    let mut all = six_hold_all(&pool).await;
    let _next = waiting(&pool, alone("new"), 1).await;
    let other = all[1].pop().expect("a lease");
    assert!(!all[0][0].should_yield(Usage::Busy));
    assert!(other.should_yield(Usage::Idle));
    drop(other);
    let _second = waiting(&pool, alone("another"), 1).await;
    let third = waiting(&pool, alone("third"), 1).await;
    settled().await;
    assert!(all[0][0].should_yield(Usage::Slow));
    third.abort();
    settled().await;
    assert!(!all[0][1].should_yield(Usage::Slow));
}

/// Of several repositories of one upstream, the one that has the most gives something up.
#[tokio::test(start_paused = true)]
async fn a_repository_with_little_of_what_its_upstream_has_keeps_it() {
    let pool = pool(16);
    let much: Vec<_> = (0..15)
        .map(|_| pool.take_anyway(party("much", "bad"), 1))
        .collect();
    let little = pool.take_anyway(party("little", "bad"), 1);
    let _next = waiting(&pool, alone("new"), 1).await;
    assert!(!little.should_yield(Usage::Slow));
    assert!(much[0].should_yield(Usage::Slow));
}

/// With one place there is no part that would be less: who reads keeps it.
#[tokio::test(start_paused = true)]
async fn a_single_place_is_not_asked_back_from_who_uses_it_slowly() {
    let pool = pool(1);
    let held = at_once(&pool, &alone("slow"), 1).await.expect("a place");
    let _next = waiting(&pool, alone("new"), 1).await;
    assert!(!held.should_yield(Usage::Slow));
    assert!(held.should_yield(Usage::Idle));
}

/// The pools of the process are of the sizes that they are meant to have, and each kind has its own.
#[tokio::test(start_paused = true)]
async fn each_kind_has_a_pool_of_its_own() {
    let budgets = Budgets::new(Totals {
        downloads: 100,
        uploads: 8,
        request_bytes: 1 << 20,
    });
    for (at, kind) in BudgetKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, at, "{kind:?}");
        let lease = budgets.place(kind, "a").await;
        let _lease = lease.expect("a place");
        let held: Vec<_> = budgets.in_use().iter().map(|used| used.held).collect();
        let others = held.iter().enumerate().filter(|(other, _)| *other != at);
        assert!(held[at] == 1 && others.into_iter().all(|(_, held)| *held == 0));
    }
    let limits: Vec<_> = budgets.in_use().iter().map(|used| used.limit).collect();
    let (parsed, unkept) = (128 << 20, 256 << 20);
    assert_eq!(
        limits,
        [
            100,
            50,
            12,
            50,
            3,
            parsed,
            unkept,
            100,
            100,
            64,
            8,
            1 << 20,
            80 << 20,
            4,
            64
        ]
    );
}
