//! Single scenarios that once were, or could be, wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::properties::told_is_true;
use super::world::World;
use super::{MS, check_log, check_told, config, finish, options, send_all};
use crate::config::Acks;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::{Command, Ticket};
use crate::testing::{BrokerOptions, ErrorCode, Fault, TopicOptions};
use crate::wire::metadata::{Broker, Topic};

/// One window until the first ack, then five.
#[test]
fn the_window_opens_with_the_first_ack() {
    let in_flight = |max: usize, idempotent: bool| {
        let config = config().linger(Duration::ZERO).max_in_flight(max).enable_idempotence(idempotent);
        let mut world = World::new(2, BrokerOptions { ack_delay: 50 * MS, ..options(1) }, config);
        let topic = world.topic("t");
        let mut seen = Vec::new();
        let mut deliveries = Vec::new();
        for number in 0..30 {
            deliveries.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
            let until = world.now + 5 * MS;
            world.run_until(until);
            seen.push(world.sender.partitions[0].unacked);
        }
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 1, &outcomes, 2);
        (seen[5], *seen.iter().max().unwrap())
    };
    assert_eq!(in_flight(5, true), (1, 5));
    assert_eq!(in_flight(3, true), (1, 3));
    assert_eq!(in_flight(1, false), (1, 1));
    assert_eq!(in_flight(4, false).1, 4);
}

/// A record that the broker refuses for good costs its neighbours nothing but a new epoch.
#[test]
fn a_refused_batch_takes_its_numbers_with_it() {
    let nth = Arc::new(AtomicUsize::new(0));
    let options = BrokerOptions { ack_delay: 10 * MS, ..options(1) }.on_produce(move |_| {
        if nth.fetch_add(1, Ordering::Relaxed) == 2 { Fault::Error(ErrorCode::INVALID_RECORD) } else { Fault::None }
    });
    let mut world = World::new(3, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = Vec::new();
    for number in 0..40 {
        deliveries.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
        let until = world.now + 2 * MS;
        world.run_until(until);
    }
    let outcomes = finish(&mut world, &deliveries);
    let failed: Vec<usize> = (0..40).filter(|number| outcomes[*number].is_err()).collect();
    let left: Vec<String> = (0..40).filter(|number| outcomes[*number].is_ok()).map(|n| format!("{n:06}")).collect();
    assert!(!failed.is_empty() && failed.len() < 20, "{failed:?}");
    for number in failed {
        assert_eq!(outcomes[number].as_ref().unwrap_err().written(), Written::No);
    }
    assert_eq!(world.log("t", 0), left);
}

/// The leader's hint is followed at once, without the backoff.
#[test]
fn a_leader_hint_is_followed_at_once() {
    let config = config().retry_backoff(Duration::from_secs(60), Duration::from_secs(60));
    let mut world =
        World::new(4, BrokerOptions { brokers: 2, ..options(1) }, config.delivery_timeout(Duration::from_secs(300)));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    world.model.move_leader("t", 0, 1);
    let started = world.now;
    let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    let outcomes = finish(&mut world, &second);
    assert_eq!(outcomes[0].as_ref().unwrap().offset(), Some(1));
    assert!(world.now - started < Duration::from_secs(1), "{:?}", world.now - started);
}

/// A throttled connection sends nothing until its time is over, and that time does not count as a request timeout.
#[test]
fn a_throttle_is_kept_to() {
    let options = options(1)
        .on_produce(|context| if context.nth == 0 { Fault::Throttle(Duration::from_secs(3)) } else { Fault::None });
    let mut world = World::new(5, options, config());
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    let answered = world.now;
    let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    let outcomes = finish(&mut world, &second);
    assert_eq!(outcomes[0].as_ref().unwrap().offset(), Some(1));
    assert!(world.now - answered >= Duration::from_millis(2900), "{:?}", world.now - answered);
    assert_eq!(world.model.records("t", 0).len(), 2);
}

/// A throttle time of 25 days: what waits ends in its time, saying so; a flush ends; later records go another way.
#[test]
fn a_throttle_for_ever_ends() {
    let for_ever = Duration::from_millis(i32::MAX as u64);
    let options = options(1).on_produce(move |context| match context.nth {
        // The first two, so that one is in flight and never looked at.
        0 | 1 => Fault::Throttle(for_ever),
        _ => Fault::None,
    });
    let timeout = Duration::from_secs(5);
    let mut world = World::new(14, options, config().delivery_timeout(timeout));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    let mut rest = Vec::new();
    for number in 1..20 {
        let until = world.now + 20 * MS / 100;
        world.run_until(until);
        rest.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
    }
    let ticket = Arc::new(Ticket::default());
    world.shared.command(Command::Flush(ticket.clone()));
    assert!(finish(&mut world, &first)[0].is_ok());
    let outcomes = finish(&mut world, &rest);
    let errors: Vec<String> = outcomes.iter().filter_map(|o| o.as_ref().err().map(|e| e.to_string())).collect();
    assert!(!errors.is_empty(), "nothing was throttled");
    let words = ["127.0.0.1:1000", "2147483647 ms"];
    assert!(errors.iter().all(|error| words.iter().all(|word| error.contains(word))), "{errors:#?}");
    world.run_while(|_| !ticket.is_done());
    assert!(world.now < 4 * timeout, "{:?}", world.now);
    let last = send_all(&mut world, &topic, 1, 20..21, Duration::ZERO);
    assert!(finish(&mut world, &last)[0].is_ok());
    assert!(world.now < 5 * timeout, "{:?}", world.now);
}

/// acks=0: done when sent; a connection that dies with it makes it possibly written, and it is not sent again.
#[test]
fn acks_0_ends_with_the_kernel() {
    let config = config().acks(Acks::None).linger(Duration::ZERO);
    let mut world = World::new(6, options(1), config);
    let topic = world.topic("t");
    let deliveries = send_all(&mut world, &topic, 1, 0..50, MS);
    let outcomes = finish(&mut world, &deliveries);
    let until = world.now + Duration::from_secs(1);
    world.run_until(until);
    check_log(&world, "t", 1, &outcomes, 6);
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|metadata| metadata.offset().is_none())));
}

/// close: what can be sent is sent, what cannot ends, and the machine comes to rest.
#[test]
fn close_ends_everything() {
    for (hang, seed) in [(false, 7), (true, 8)] {
        let options = options(3).on_produce(move |_| if hang { Fault::HangBefore } else { Fault::None });
        let mut world = World::new(seed, options, config().linger(Duration::from_secs(50)));
        let topic = world.topic("t");
        let deliveries = send_all(&mut world, &topic, 3, 0..300, Duration::ZERO);
        world.shared.command(Command::Close(2000 * MS));
        world.run_while(|world| !world.sender.is_closed());
        let report = world.shared.report().unwrap();
        let outcomes = finish(&mut world, &deliveries);
        if hang {
            assert_eq!(report.records(), 300, "{report}");
            for outcome in outcomes {
                assert_eq!(outcome.unwrap_err().kind(), DeliveryErrorKind::Closed);
            }
        } else {
            assert!(report.is_clean(), "{report}");
            check_log(&world, "t", 3, &outcomes, seed);
        }
        assert_eq!(world.sender.poll_transmit(), None);
    }
}

/// Epochs run out at 32767; then the partition takes a new producer id.
#[test]
fn a_used_up_epoch_gets_a_new_producer_id() {
    let options = options(1)
        .on_produce(|context| if context.nth == 1 { Fault::Error(ErrorCode::INVALID_RECORD) } else { Fault::None });
    let mut world = World::new(9, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    while world.sender.partitions[0].sequences.bump() {}
    let bad = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    assert!(finish(&mut world, &bad)[0].is_err());
    let last = send_all(&mut world, &topic, 1, 2..3, Duration::ZERO);
    assert!(finish(&mut world, &last)[0].is_ok());
    let records = world.model.records("t", 0);
    assert_ne!(records[0].producer_id, records[1].producer_id);
    assert_eq!((records[1].producer_epoch, records[1].sequence), (0, 0));
}

/// Found by seed 274 of the property above: the first of two unanswered batches ran out of time, the second one, which
/// was in the log, was stamped again under a new epoch and stored twice.
#[test]
fn a_stored_batch_behind_an_expired_one_is_not_stamped_again() {
    told_is_true(274);
}

/// Found by seed 358: what waited in the ring was late while a retry stood before it, and the timer fired for ever.
#[test]
fn a_late_ring_behind_a_retry_comes_to_rest() {
    told_is_true(358);
}

/// Many batches behind one that is never answered: each ends when its own time is over, not one after the other.
#[test]
fn a_backlog_expires_all_at_once() {
    let timeout = Duration::from_secs(2);
    let config = config().delivery_timeout(timeout).request_timeout(Duration::from_secs(1)).max_request_size(100_000);
    let mut world = World::new(12, options(1).on_produce(|_| Fault::HangBefore), config);
    let topic = world.topic("t");
    let mut waves = Vec::new();
    for _ in 0..5 {
        let wave: Vec<_> = (0..12).map(|_| world.send(&topic, 0, &[b'v'; 10_000]).unwrap()).collect();
        waves.push((world.now, wave));
        let until = world.now + 200 * MS;
        world.run_until(until);
    }
    for (sent, wave) in waves {
        // A batch's time is its first record's, and a batch may hold records of two waves.
        world.run_until(sent + timeout + 20 * MS);
        for delivery in wave {
            let outcome = delivery.try_result().unwrap_or_else(|| panic!("sent at {sent:?}, nothing known yet"));
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), DeliveryErrorKind::Expired);
            assert!(error.waited() >= timeout - 200 * MS, "{error}");
        }
    }
}

/// A partition that waits in a dead broker's list is served by its new leader.
#[test]
fn a_partition_leaves_a_dead_brokers_list() {
    let mut world = World::new(10, BrokerOptions { brokers: 2, ..options(2) }, config());
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 2, 0..2, Duration::ZERO);
    finish(&mut world, &first);
    world.kill_for(1, Duration::from_secs(100_000));
    let second = send_all(&mut world, &topic, 2, 2..40, 20 * MS);
    let until = world.now + Duration::from_secs(3);
    world.run_until(until);
    world.model.move_leader("t", 1, 0);
    let started = world.now;
    let outcomes = finish(&mut world, &second);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(world.now - started < Duration::from_secs(10), "{:?}", world.now - started);
}

/// A partition without a leader is looked up when it has something to send, also when nobody else asks.
#[test]
fn a_leaderless_partition_is_looked_up() {
    let mut world = World::new(11, options(2), config());
    world.model.create_topic("t", TopicOptions { partitions: 2, ..TopicOptions::default() });
    world.model.move_leader("t", 1, -1);
    let topic = world.topic("t");
    let until = world.now + Duration::from_secs(20);
    world.run_until(until);
    let deliveries = send_all(&mut world, &topic, 2, 0..2, Duration::ZERO);
    let until = world.now + Duration::from_secs(5);
    world.run_until(until);
    world.model.move_leader("t", 1, 0);
    let started = world.now;
    assert!(finish(&mut world, &deliveries).iter().all(Result::is_ok));
    assert!(world.now - started < Duration::from_secs(5), "{:?}", world.now - started);
}

/// A topic in use stays in the metadata requests, however long ago somebody asked for it.
#[test]
fn a_topic_in_use_is_not_forgotten() {
    // Before version 10 there are no hints: only metadata tells of the new leader.
    let options = BrokerOptions { brokers: 2, produce_max_version: 9, ..options(1) };
    let mut world = World::new(12, options, config());
    let topic = world.topic("t");
    for number in 0..60 {
        let delivery = send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO);
        assert!(finish(&mut world, &delivery)[0].is_ok());
        let until = world.now + Duration::from_secs(10);
        world.run_until(until);
    }
    world.model.move_leader("t", 0, 1);
    let delivery = send_all(&mut world, &topic, 1, 60..61, Duration::ZERO);
    assert!(finish(&mut world, &delivery)[0].is_ok());
}

/// Brokers that a cluster no longer names are forgotten, and topics that nobody asked for are not kept.
#[test]
fn brokers_and_topics_do_not_pile_up() {
    let mut world = World::new(15, options(1), config().metadata_max_age(Duration::from_secs(1)));
    let topic = world.topic("t");
    let answers = Arc::new(AtomicUsize::new(0));
    let counted = answers.clone();
    world.spoil = Some(Box::new(move |response| {
        let nth = counted.fetch_add(1, Ordering::Relaxed);
        let (broker, topic) = (response.brokers[0].clone(), response.topics[0].clone());
        for number in nth * 100..(nth + 1) * 100 {
            response.brokers.push(Broker { node_id: 1 + number as i32, ..broker.clone() });
            response.topics.push(Topic { name: Some(format!("unasked-{number}")), ..topic.clone() });
        }
    }));
    let until = world.now + Duration::from_secs(60);
    world.run_until(until);
    assert!(answers.load(Ordering::Relaxed) > 20, "{answers:?}");
    let sender = &world.sender;
    assert!(sender.nodes.len() <= 102 && sender.cluster.brokers.len() == 101, "{}", sender.nodes.len());
    assert_eq!((sender.topics.len(), sender.cluster.topics.len()), (1, 1));
    let delivery = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    assert!(finish(&mut world, &delivery)[0].is_ok());
}

/// Deadlines that are far away do not pile up.
#[test]
fn timers_do_not_pile_up() {
    let mut world = World::new(13, options(1), config().linger(5 * MS));
    let topic = world.topic("t");
    for number in 0..500 {
        drop(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
        let until = world.now + 20 * MS;
        world.run_until(until);
    }
    assert!(world.sender.timers.len() < 50, "{}", world.sender.timers.len());
}

/// However many brokers a cluster names whose hosts have no address, they are looked up at the pace of the backoff.
#[test]
fn nameless_brokers_are_no_storm() {
    let options = options(1).on_produce(|_| Fault::None);
    let mut world = World::new(16, options, config());
    world.topic("t");
    world.spoil = Some(Box::new(|response| {
        let like = response.brokers[0].clone();
        let named = (1..5000).map(|id| Broker { node_id: id, host: format!("host-{id}"), ..like.clone() });
        response.brokers = named.collect();
    }));
    // The next answer names them; then the one good broker is gone.
    world.shared.topic("u");
    let until = world.now + Duration::from_secs(1);
    world.run_until(until);
    world.kill_for(0, Duration::from_secs(100_000));
    let before = world.look_ups;
    let until = world.now + Duration::from_secs(60);
    world.run_until(until);
    let look_ups = world.look_ups - before;
    assert!((20..150).contains(&look_ups), "{look_ups} look-ups in a minute");
}

/// Found by fuzzing: batches that waited in the ring behind an expired one got a new delivery timeout each.
#[test]
fn what_waits_in_the_ring_expires_with_what_it_waits_behind() {
    let config = config().delivery_timeout(700 * MS).max_request_size(40_000).batch_size(16_384);
    let mut world = World::new(14, options(1), config);
    let topic = world.topic("t");
    world.kill_for(0, Duration::from_secs(100_000));
    let mut deliveries = Vec::new();
    for _ in 0..5 {
        // No two share a batch.
        deliveries.extend(world.send(&topic, 0, &[b'x'; 30_000]));
        let until = world.now + 10 * MS;
        world.run_until(until);
    }
    assert_eq!(deliveries.len(), 5);
    let last = world.now;
    let outcomes = finish(&mut world, &deliveries);
    assert!(world.now <= last + 702 * MS, "{:?} after the last one", world.now - last);
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Expired, Written::No));
        assert!(error.waited() >= 700 * MS && error.waited() <= 702 * MS, "{:?}", error.waited());
    }
}

/// One record, acknowledged, then ten in a batch, which meets `faults`; then one more. Returns what became of the ten.
fn ten_at_once(faults: &[Fault], max_message_bytes: usize, pipelined: bool) -> [usize; 2] {
    let faults = [&[Fault::None], faults].concat();
    let mut options = BrokerOptions { ack_delay: 20 * MS, ..options(1) };
    options.topic.max_message_bytes = max_message_bytes;
    let options = options.on_produce(move |context| faults.get(context.nth as usize).copied().unwrap_or(Fault::None));
    let mut world = World::new(17, options, config().linger(10 * MS));
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    deliveries.extend(send_all(&mut world, &topic, 1, 1..11, Duration::ZERO));
    if pipelined {
        // The second copy is at the broker.
        world.run_while(|world| world.sender.partitions[0].queue.is_empty());
        world.run_while(|world| world.sender.partitions[0].unacked == 0);
    } else {
        finish(&mut world, &deliveries);
    }
    deliveries.extend(send_all(&mut world, &topic, 1, 11..12, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    check_told(&world, &outcomes, 17);
    assert!(outcomes[11].is_ok(), "what follows goes on: {:?}", outcomes[11]);
    let delivered = outcomes[1..11].iter().filter(|outcome| outcome.is_ok()).count();
    let not_written = outcomes[1..11].iter().flat_map(|o| o.as_ref().err()).filter(|e| e.written() == Written::No);
    [delivered, not_written.count()]
}

/// Found by fuzzing: a batch was stored, its answer lost, and the limit lowered before it was sent again. Its parts were
/// out of order, which was taken for a gap, and stored once more under a new epoch.
#[test]
fn a_batch_that_may_be_stored_is_not_stored_again_in_parts() {
    const TOO_LARGE: Fault = Fault::Error(ErrorCode::MESSAGE_TOO_LARGE);
    for lost in
        [Fault::CloseAfter, Fault::HangAfter, Fault::StoredThenError(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND)]
    {
        let faults = &[lost, TOO_LARGE];
        assert_eq!(ten_at_once(faults, 1 << 20, false), [0, 0], "{lost:?}: possibly written");
        // The batch behind it is accepted: it is in the log.
        assert_eq!(ten_at_once(faults, 1 << 20, true), [10, 0], "{lost:?}");
    }
}

/// The first copy was lost, or never looked at, on a topic that always was too small for it: nothing is in doubt for long.
#[test]
fn a_lost_batch_that_was_too_large_is_delivered_in_parts() {
    for lost in [Fault::CloseBefore, Fault::HangBefore, Fault::CloseAfter, Fault::HangAfter] {
        for pipelined in [false, true] {
            assert_eq!(ten_at_once(&[lost], 150, pipelined), [10, 0], "{lost:?}");
        }
    }
}

/// Three batches stored and not confirmed, a broker that remembers the last of them only, and that one is refused when it
/// is asked for: nothing is known of the two before it any more.
#[test]
fn what_stands_before_a_stored_batch_that_was_given_up_is_not_stored_again() {
    for refusal in [ErrorCode::MESSAGE_TOO_LARGE, ErrorCode::INVALID_RECORD] {
        let options = BrokerOptions { ack_delay: 60 * MS, ..options(1) };
        let options = options.on_produce(move |context| match context.nth {
            1..=3 => Fault::StoredThenError(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
            // The fourth is the first batch again, out of order; then the newest is tried.
            5 => Fault::Error(refusal),
            _ => Fault::None,
        });
        let mut world = World::new(18, options, config().linger(10 * MS));
        let topic = world.topic("t");
        let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
        finish(&mut world, &deliveries);
        for first in [1, 4, 7] {
            deliveries.extend(send_all(&mut world, &topic, 1, first..first + 3, Duration::ZERO));
            let until = world.now + 15 * MS;
            world.run_until(until);
        }
        assert_eq!(world.sender.partitions[0].unacked, 3);
        world.run_while(|world| world.log("t", 0).len() < 10);
        world.model.restart_node(0);
        finish(&mut world, &deliveries);
        deliveries.extend(send_all(&mut world, &topic, 1, 10..11, Duration::ZERO));
        let outcomes = finish(&mut world, &deliveries);
        check_told(&world, &outcomes, 18);
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert!(failed.len() == 9 && failed.iter().all(|e| e.written() == Written::Possibly), "{failed:#?}");
    }
}
