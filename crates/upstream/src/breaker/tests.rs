use super::*;
use larder_core::ManualClock;

const DEADLINE: Duration = Duration::from_secs(35);

fn start() -> (Arc<ManualClock>, Arc<Breakers<&'static str>>) {
    let clock = Arc::new(ManualClock::new(UnixMillis(1_000_000)));
    let breakers = Arc::new(Breakers::new(Arc::clone(&clock) as Arc<dyn Clock>));
    (clock, breakers)
}

fn ask(breakers: &Arc<Breakers<&'static str>>) -> Result<Permit<&'static str>, BreakerState> {
    breakers.admit(&"origin", DEADLINE)
}

fn fail(breakers: &Arc<Breakers<&'static str>>, times: u32) {
    for _ in 0..times {
        ask(breakers).ok().unwrap().failed();
    }
}

#[test]
fn one_bad_failure_opens_it_at_once() {
    let (clock, breakers) = start();
    ask(&breakers).ok().unwrap().failed_badly();
    assert_eq!(breakers.state(&"origin"), BreakerState::Open);
    clock.advance(Duration::from_secs(5));
    assert_eq!(breakers.state(&"origin"), BreakerState::HalfOpen);
    ask(&breakers).ok().unwrap().succeeded();
    assert_eq!(breakers.state(&"origin"), BreakerState::Closed);
}

#[test]
fn three_failures_in_a_row_open_it_for_five_seconds() {
    let (clock, breakers) = start();
    fail(&breakers, 2);
    ask(&breakers).ok().unwrap().succeeded();
    fail(&breakers, 2);
    assert_eq!(
        breakers.state(&"origin"),
        BreakerState::Closed,
        "a success in between starts the count anew"
    );
    fail(&breakers, 1);
    assert_eq!(ask(&breakers).err(), Some(BreakerState::Open));
    assert!(
        breakers.admit(&"other", DEADLINE).is_ok(),
        "origins are apart"
    );
    clock.advance(Duration::from_millis(3_900));
    assert_eq!(ask(&breakers).err(), Some(BreakerState::Open));
    clock.advance(Duration::from_millis(1_100));
    assert_eq!(breakers.state(&"origin"), BreakerState::HalfOpen);
}

#[test]
fn exactly_one_probe_goes_through_and_its_success_closes() {
    let (clock, breakers) = start();
    fail(&breakers, 3);
    clock.advance(Duration::from_secs(5));
    let probe = ask(&breakers).ok().unwrap();
    assert_eq!(ask(&breakers).err(), Some(BreakerState::HalfOpen));
    assert_eq!(ask(&breakers).err(), Some(BreakerState::HalfOpen));
    probe.succeeded();
    assert_eq!(breakers.state(&"origin"), BreakerState::Closed);
    let _many = (ask(&breakers).ok().unwrap(), ask(&breakers).ok().unwrap());
}

#[test]
fn pauses_grow_to_thirty_seconds_with_jitter() {
    let (clock, breakers) = start();
    fail(&breakers, 3);
    for full in [5_u64, 10, 20, 30, 30, 30] {
        clock.advance(Duration::from_millis(full * 800 - 1));
        assert_eq!(ask(&breakers).err(), Some(BreakerState::Open), "{full}");
        clock.advance(Duration::from_millis(full * 200 + 1));
        ask(&breakers).ok().unwrap().failed();
    }
}

#[test]
fn hazard_a7_a_dropped_probe_gives_its_place_back() {
    let (clock, breakers) = start();
    fail(&breakers, 3);
    clock.advance(Duration::from_secs(5));
    for _ in 0..100 {
        drop(ask(&breakers).ok().unwrap());
    }
    ask(&breakers).ok().unwrap().succeeded();
    assert_eq!(breakers.state(&"origin"), BreakerState::Closed);
}

#[test]
fn hazard_a7_a_hanging_probe_loses_its_place_and_its_word() {
    let (clock, breakers) = start();
    fail(&breakers, 3);
    clock.advance(Duration::from_secs(5));
    let hanging = ask(&breakers).ok().unwrap();
    clock.advance(DEADLINE.saturating_sub(Duration::from_millis(1)));
    assert!(ask(&breakers).is_err());
    clock.advance(Duration::from_millis(1));
    let second = ask(&breakers).ok().unwrap();
    hanging.failed();
    assert_eq!(
        breakers.state(&"origin"),
        BreakerState::HalfOpen,
        "the late word of an old generation opens nothing"
    );
    assert!(
        ask(&breakers).is_err(),
        "nor does it free the second probe's place"
    );
    second.succeeded();
    assert_eq!(breakers.state(&"origin"), BreakerState::Closed);
}

#[test]
fn hazard_a7_requests_from_before_the_pause_change_nothing() {
    let (clock, breakers) = start();
    let old: Vec<_> = (0..20).map(|_| ask(&breakers).ok().unwrap()).collect();
    let good = ask(&breakers).ok().unwrap();
    fail(&breakers, 3);
    old.into_iter().for_each(Permit::failed);
    good.succeeded();
    assert_eq!(breakers.state(&"origin"), BreakerState::Open);
    clock.advance(Duration::from_secs(5));
    assert!(
        ask(&breakers).is_ok(),
        "twenty more failures made the pause no longer"
    );
}

#[test]
fn hazard_a7_a_clock_set_back_does_not_wedge() {
    let clock = Arc::new(ManualClock::new(UnixMillis(10_000_000)));
    let breakers = Arc::new(Breakers::new(Arc::clone(&clock) as Arc<dyn Clock>));
    fail(&breakers, 3);
    // The manual clock only goes forward; a pause that starts in the future is the same situation.
    breakers
        .lock()
        .0
        .get_mut("origin")
        .unwrap()
        .pause
        .as_mut()
        .unwrap()
        .since = UnixMillis(99_000_000);
    let probe = ask(&breakers).ok().unwrap();
    breakers
        .lock()
        .0
        .get_mut("origin")
        .unwrap()
        .pause
        .as_mut()
        .unwrap()
        .probe
        .as_mut()
        .unwrap()
        .since = UnixMillis(99_000_000);
    assert!(ask(&breakers).is_ok());
    drop(probe);
}

#[test]
fn whoever_insists_is_let_through_and_its_success_closes() {
    let (clock, breakers) = start();
    fail(&breakers, 3);
    breakers.insist(&"origin").failed();
    assert_eq!(ask(&breakers).err(), Some(BreakerState::Open));
    clock.advance(Duration::from_secs(5));
    assert_eq!(
        breakers.state(&"origin"),
        BreakerState::HalfOpen,
        "the failure made the pause no longer"
    );
    let late = breakers.insist(&"origin");
    ask(&breakers).ok().unwrap().failed();
    clock.advance(Duration::from_secs(1));
    late.succeeded();
    assert_eq!(
        breakers.state(&"origin"),
        BreakerState::Open,
        "the next pause began after it was sent"
    );
    breakers.insist(&"origin").succeeded();
    assert_eq!(breakers.state(&"origin"), BreakerState::Closed);
    breakers.insist(&"origin").failed();
    assert_eq!(
        breakers.state(&"origin"),
        BreakerState::Closed,
        "without a pause it counts as any other"
    );
    fail(&breakers, 2);
    assert_eq!(breakers.state(&"origin"), BreakerState::Open);
}

#[test]
fn memory_is_bounded() {
    let clock = Arc::new(ManualClock::new(UnixMillis(0)));
    let breakers = Arc::new(Breakers::new(Arc::clone(&clock) as Arc<dyn Clock>));
    for host in 0..2 * MAX_REMEMBERED {
        breakers.admit(&host, DEADLINE).ok().unwrap().failed();
    }
    assert_eq!(breakers.lock().0.len(), MAX_REMEMBERED);
}
