//! Backoffs, retries that run out, and answers that come after `delivery.timeout.ms`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::world::World;
use super::{MS, check_told, config, finish, options, send_all};
use crate::error::{DeliveryErrorKind, Written};
use crate::testing::{BrokerOptions, ErrorCode, Fault, ProduceContext};

/// When batches arrived, of one record that meets `fault` each time it is sent and `retries`; and how it ended.
fn arrivals(fault: Fault, retries: u32, until: Duration) -> (Vec<Duration>, Option<super::Outcome>) {
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = arrived.clone();
    let options = options(1).on_produce(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        fault
    });
    let config = config().retry_backoff(100 * MS, 1000 * MS).retries(retries).enable_idempotence(retries > 0);
    let mut world = World::new(60, options, config);
    let topic = world.topic("t");
    let delivery = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    let mut times = Vec::new();
    while world.now < until && delivery[0].try_result().is_none() {
        world.turn();
        if arrived.load(Ordering::Relaxed) > times.len() {
            times.push(world.now);
        }
    }
    (times, delivery[0].try_result())
}

/// 100, 200, 400, 800 ms, then a second, each ± 20 %.
#[test]
fn backoffs_grow_and_stop_growing() {
    let (times, _) = arrivals(Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS), u32::MAX >> 1, Duration::from_secs(30));
    assert!(times.len() > 20, "{times:?}");
    for (nth, pair) in times.windows(2).enumerate() {
        let (waited, plain) = (pair[1] - pair[0], (100 * MS * 2u32.pow(nth.min(9) as u32)).min(1000 * MS));
        // Half a millisecond of network each way.
        assert!(waited >= plain * 8 / 10 && waited <= plain * 12 / 10 + 4 * MS, "{nth}: {waited:?}");
    }
    let waits: std::collections::BTreeSet<u128> =
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!(waits.len() > 10, "spread: {waits:?}");
}

#[test]
fn retries_run_out() {
    let far = Duration::from_secs(1000);
    for retries in [0, 1, 4] {
        for (fault, kind, written) in [
            (Fault::Error(ErrorCode(19)), DeliveryErrorKind::Broker(ErrorCode(19)), Written::No),
            (Fault::StoredThenError(ErrorCode(20)), DeliveryErrorKind::Broker(ErrorCode(20)), Written::Possibly),
            (Fault::HangBefore, DeliveryErrorKind::RequestTimedOut, Written::Possibly),
            (Fault::CloseAfter, DeliveryErrorKind::Disconnected, Written::Possibly),
        ] {
            let (times, outcome) = arrivals(fault, retries, far);
            assert_eq!(times.len(), retries as usize + 1, "{fault:?}");
            let error = outcome.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.written(), error.attempts()), (kind, written, retries + 1), "{error}");
        }
    }
}

/// A new leader ends the backoff at once, also when only metadata tells of it.
#[test]
fn a_new_leader_ends_the_backoff() {
    let config = config().retry_backoff(Duration::from_secs(20), Duration::from_secs(20)).metadata_max_age(100 * MS);
    let options = BrokerOptions { brokers: 2, produce_max_version: 9, ..options(1) };
    let options = options.on_produce(|context| match context.node {
        0 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        _ => Fault::None,
    });
    let mut world = World::new(61, options, config);
    let topic = world.topic("t");
    let delivery = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    let until = world.now + 300 * MS;
    world.run_until(until);
    world.model.move_leader("t", 0, 1);
    let started = world.now;
    // Asking for another topic brings news of all.
    world.shared.topic("u");
    assert!(finish(&mut world, &delivery)[0].is_ok());
    assert!(world.now - started < Duration::from_secs(1), "{:?}", world.now - started);
}

/// A record whose time runs out while its second copy is at the broker, which answers `late`ly; then one more record. The
/// outcomes, and the epoch under which that was stored.
fn late(fault: impl Fn(&ProduceContext<'_>) -> Option<Fault> + Send + 'static) -> (World, Vec<super::Outcome>, i16) {
    let options = options(1).on_produce(move |context| match context.nth {
        0 => Fault::None,
        // It goes again after 400 ms or so, and its time is over after 700.
        1 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        _ => fault(context).unwrap_or(Fault::None),
    });
    let config = config().request_timeout(600 * MS).delivery_timeout(700 * MS).retry_backoff(400 * MS, 400 * MS);
    let mut world = World::new(62, options, config);
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    let sent = world.now;
    deliveries.extend(send_all(&mut world, &topic, 1, 1..2, Duration::ZERO));
    finish(&mut world, &deliveries);
    let waited = world.now - sent;
    assert!(
        waited >= 700 * MS && waited < 705 * MS,
        "told when its time is over, not when the answer comes: {waited:?}"
    );
    assert_eq!(world.sender.partitions[0].unacked, 1, "its answer is still to come");
    assert_eq!(world.shared.stats().in_flight, 0, "but it has its end");
    deliveries.extend(send_all(&mut world, &topic, 1, 2..3, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.written(), error.attempts()), (DeliveryErrorKind::Expired, Written::Possibly, 2));
    assert!(outcomes[2].is_ok(), "{:?}", outcomes[2]);
    check_told(&world, &outcomes, 62);
    let epoch = world.model.records("t", 0).last().unwrap().producer_epoch;
    (world, outcomes, epoch)
}

/// Late, but delivered: its numbers are used, and what follows goes on behind them.
#[test]
fn a_late_success_keeps_the_epoch() {
    let (world, _, epoch) = late(|context| (context.nth == 2).then_some(Fault::Delay(500 * MS)));
    assert_eq!((world.log("t", 0).len(), epoch), (3, 0));
}

/// Never answered. Not stored: its numbers are lost, and what follows needs others. Stored: what was sent behind it tells.
#[test]
fn no_answer_at_all() {
    for (fault, stored, epoch) in [(Fault::HangBefore, 2, 1), (Fault::HangAfter, 3, 0)] {
        let (world, _, last) = late(move |context| (context.nth == 2).then_some(fault));
        assert_eq!((world.log("t", 0).len(), last), (stored, epoch), "{fault:?}");
    }
}
