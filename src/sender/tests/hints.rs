//! Leaders that brokers name when they refuse a batch (KIP-951): followed at once, and not for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::world::World;
use super::{MS, check_log, config, finish, options, send_all};
use crate::config::ProducerConfig;
use crate::testing::{BrokerOptions, ErrorCode, Fault, ProduceContext};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Whoever waits for a backoff waits for a minute.
fn patient() -> ProducerConfig {
    config().retry_backoff(MINUTE, MINUTE).delivery_timeout(10 * MINUTE)
}

/// Two brokers, the first leads; they answer after 20 ms.
fn two(fault: impl FnMut(&ProduceContext<'_>) -> Fault + Send + 'static) -> BrokerOptions {
    BrokerOptions { brokers: 2, ack_delay: 20 * MS, ..options(1) }.on_produce(fault)
}

fn names(leader: i32, epoch: i32, address: bool) -> Fault {
    Fault::NamesLeader { error: ErrorCode::NOT_LEADER_OR_FOLLOWER, leader, epoch, address }
}

/// Every one of the batches in flight is refused with the hint: the refusals of those behind the first are no reason to
/// wait.
#[test]
fn a_full_window_moves_at_once() {
    let mut world = World::new(30, two(|_| Fault::None), patient().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    for number in 1..6 {
        deliveries.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
        let until = world.now + MS;
        world.run_until(until);
        world.shared.command(crate::sender::Command::Flush(Arc::default()));
    }
    assert!(world.sender.partitions[0].unacked >= 3, "{}", world.sender.partitions[0].unacked);
    world.model.move_leader("t", 0, 1);
    let started = world.now;
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 30);
    assert!(world.now - started < SECOND, "{:?}", world.now - started);
}

/// One batch to a leader that has moved to a broker of which no address comes along; how long it took.
fn moved_without_address(error: ErrorCode) -> Duration {
    let moved = Arc::new(AtomicBool::new(false));
    let has_moved = moved.clone();
    let options = two(move |context| match (has_moved.load(Ordering::Relaxed), context.node) {
        (true, 0) => Fault::NamesLeader { error, leader: 1, epoch: 1, address: false },
        _ => Fault::None,
    });
    let mut world = World::new(31, options, patient());
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    world.model.move_leader("t", 0, 1);
    moved.store(true, Ordering::Relaxed);
    let started = world.now;
    let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    assert!(finish(&mut world, &second)[0].is_ok());
    world.now - started
}

#[test]
fn a_broker_that_metadata_named_needs_no_address() {
    assert!(moved_without_address(ErrorCode::NOT_LEADER_OR_FOLLOWER) < SECOND);
    assert!(moved_without_address(ErrorCode::FENCED_LEADER_EPOCH) < SECOND);
    // Beside another error it is no hint.
    assert!(moved_without_address(ErrorCode::NOT_ENOUGH_REPLICAS) > 40 * SECOND);
}

/// The named broker is new: metadata is asked for at once, and even if that does not know of the new leader yet, the
/// hint is followed.
#[test]
fn a_broker_that_nobody_named_before() {
    let known = Arc::new(AtomicBool::new(false));
    let is_known = known.clone();
    let options = two(|context| if context.node == 0 && context.nth > 0 { names(1, 1, false) } else { Fault::None });
    let mut world = World::new(32, options, patient());
    world.spoil = Some(Box::new(move |response| {
        if !is_known.load(Ordering::Relaxed) {
            response.brokers.retain(|broker| broker.node_id == 0);
        }
        // It lags behind.
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            (partition.leader_id, partition.leader_epoch) = (0, 0);
        }
    }));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    world.model.move_leader("t", 0, 1);
    known.store(true, Ordering::Relaxed);
    let started = world.now;
    let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    assert!(finish(&mut world, &second)[0].is_ok());
    assert!(world.now - started < SECOND, "{:?}", world.now - started);
}

/// Without a hint: metadata and the backoff. The same with a hint that is no news.
#[test]
fn an_old_hint_is_none() {
    for (fault, epoch) in [(names(1, 0, true), 0), (names(1, -1, true), 0), (names(-1, 9, false), 0)] {
        let options = two(move |context| if context.nth == 1 { fault } else { Fault::None });
        let mut world = World::new(33, options, config().retry_backoff(10 * SECOND, 10 * SECOND));
        let topic = world.topic("t");
        let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
        finish(&mut world, &first);
        let started = world.now;
        let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
        assert!(finish(&mut world, &second)[0].is_ok());
        assert!(world.now - started >= 8 * SECOND, "{fault:?}: after {:?}", world.now - started);
        let partition = &world.sender.partitions[0];
        assert_eq!((partition.leader, partition.leader_epoch), (0, epoch));
    }
}

/// An epoch out of nowhere, and a broker that does not lead: it is asked once, and then whom metadata names.
#[test]
fn a_named_broker_that_refuses() {
    let options = two(|context| if context.nth == 1 { names(1, i32::MAX, true) } else { Fault::None });
    let mut world = World::new(34, options, config());
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    let started = world.now;
    deliveries.extend(send_all(&mut world, &topic, 1, 1..2, Duration::ZERO));
    finish(&mut world, &deliveries);
    assert!(world.now - started < SECOND, "{:?}", world.now - started);
    // From then on epochs count again.
    for (number, leader) in [(2, 1), (3, 0), (4, 1)] {
        world.model.move_leader("t", 0, leader);
        let started = world.now;
        deliveries.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
        finish(&mut world, &deliveries);
        assert!(world.now - started < 90 * MS, "{number}: {:?}", world.now - started);
    }
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 34);
}

/// The named broker is dead: after a while metadata is right again.
#[test]
fn a_named_broker_that_is_dead() {
    let options = two(|context| if context.nth == 1 { names(1, i32::MAX, true) } else { Fault::None });
    let mut world = World::new(35, options, config());
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    world.kill_for(1, 100_000 * SECOND);
    let started = world.now;
    deliveries.extend(send_all(&mut world, &topic, 1, 1..2, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 35);
    let took = world.now - started;
    assert!(took > crate::sender::hint::BELIEVED && took < 3 * crate::sender::hint::BELIEVED, "{took:?}");
}

/// The named broker's host has no address, so that not even a connection fails.
#[test]
fn a_named_broker_without_an_address() {
    let options = two(|context| if context.nth == 1 { names(1, i32::MAX, false) } else { Fault::None });
    let mut world = World::new(39, options, config());
    world.spoil = Some(Box::new(|response| {
        for broker in response.brokers.iter_mut().filter(|broker| broker.node_id == 1) {
            broker.host = "nowhere".into();
        }
    }));
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    let started = world.now;
    deliveries.extend(send_all(&mut world, &topic, 1, 1..2, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 39);
    assert!(world.now - started < 3 * crate::sender::hint::BELIEVED, "{:?}", world.now - started);
}

/// The named broker leads indeed, for a while, under an epoch that no metadata ever comes near.
#[test]
fn a_named_broker_that_leads_for_a_while() {
    let strayed = Arc::new(AtomicUsize::new(0));
    let count = strayed.clone();
    let options = two(move |context| match (context.node, context.nth) {
        (0, 1) => names(1, i32::MAX, true),
        (0, 2..) => {
            count.fetch_add(1, Ordering::Relaxed);
            Fault::None
        }
        _ => Fault::None,
    });
    let mut world = World::new(36, options, config().metadata_max_age(SECOND));
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    world.spoil = Some(Box::new(move |response| {
        count.fetch_add(1, Ordering::Relaxed);
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            (partition.leader_id, partition.leader_epoch) = (0, 0);
        }
    }));
    world.model.move_leader("t", 0, 1);
    for number in 1..60 {
        deliveries.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
        let until = world.now + SECOND;
        world.run_until(until);
    }
    assert!(finish(&mut world, &deliveries).iter().all(Result::is_ok));
    let asked = asked.load(Ordering::Relaxed);
    assert!((20..100).contains(&asked), "{asked}: metadata is not asked over and over while all is well");
    assert_eq!(strayed.load(Ordering::Relaxed), 0, "what is acknowledged is right, whatever metadata says");
    world.spoil = None;
    world.model.move_leader("t", 0, 0);
    let started = world.now;
    deliveries.extend(send_all(&mut world, &topic, 1, 60..61, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 36);
    assert!(world.now - started < SECOND, "{:?}", world.now - started);
}

/// Two brokers that name each other, with an epoch that grows each time: no storm.
#[test]
fn brokers_that_name_each_other() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let mut epoch = 0;
    let options = two(move |context| {
        count.fetch_add(1, Ordering::Relaxed);
        epoch += 1;
        names(1 - context.node, epoch, epoch % 2 == 0)
    });
    let mut world = World::new(37, BrokerOptions { ack_delay: Duration::ZERO, ..options }, config());
    let topic = world.topic("t");
    let _deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    let until = world.now + MINUTE;
    world.run_until(until);
    let asked = asked.load(Ordering::Relaxed);
    assert!((20..200).contains(&asked), "{asked} requests in a minute");
}

/// Brokers that nobody knows, a new one each time: metadata is not asked for without end.
#[test]
fn brokers_that_do_not_exist() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let mut epoch = 0;
    let options = two(move |_| {
        epoch += 1;
        names(epoch + 100, epoch, false)
    });
    let mut world = World::new(38, BrokerOptions { ack_delay: Duration::ZERO, ..options }, config());
    world.spoil = Some(Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let topic = world.topic("t");
    let _deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    let until = world.now + MINUTE;
    world.run_until(until);
    let asked = asked.load(Ordering::Relaxed);
    assert!((20..200).contains(&asked), "{asked} metadata requests in a minute");
}
