//! What is sent again, when, and in which order.

use std::time::Duration;

use super::world::World;
use super::{MS, Watch, check_log, config, finish, no_memory_leaked, options, pass, send_all, send_one};
use crate::error::{DeliveryErrorKind, Written};
use crate::testing::{BrokerOptions, ErrorCode, Fault};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_record_gets_its_offset_and_leaves_no_memory_behind() {
    let mut world = World::new(30, options(1), config());
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    assert!(world.accumulator.free() < free);
    let outcomes = finish(&mut world, &deliveries);
    let metadata = outcomes[0].as_ref().unwrap();
    assert_eq!((metadata.topic(), metadata.partition(), metadata.offset()), ("t", 0, Some(0)));
    drop(deliveries);
    no_memory_leaked(&mut world, free);
}

/// A connection that is lost is one of the retries; when they are used up, the record fails.
#[test]
fn retries_are_counted() {
    for (losses, delivered) in [(1, true), (2, false)] {
        let (options, watch) =
            Watch::on(options(1), move |context| if context.nth < losses { Fault::CloseBefore } else { Fault::None });
        let mut world = World::new(31, options, config().retries(1));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
        let outcomes = finish(&mut world, &deliveries);
        match &outcomes[0] {
            Ok(metadata) => assert_eq!((delivered, metadata.offset()), (true, Some(0))),
            Err(error) => {
                assert!(!delivered, "{error}");
                assert_eq!((error.kind(), error.attempts()), (DeliveryErrorKind::Disconnected, 2), "{error}");
            }
        }
        pass(&mut world, 10 * SECOND);
        assert_eq!(watch.len(), 2);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

#[test]
fn a_retry_waits_for_its_backoff_and_holds_up_nobody_else() {
    let (options, watch) = Watch::on(options(2), |context| {
        if context.nth == 0 { Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS) } else { Fault::None }
    });
    let mut world = World::new(32, options, config().linger(Duration::ZERO).retry_backoff(SECOND, SECOND));
    let topic = world.topic("t");
    let first = [world.send(&topic, 0, b"000000").unwrap()];
    world.run_while(|_| watch.len() == 0);
    let refused = world.now;
    for number in 0..20 {
        let other = world.send(&topic, 1, format!("{number:06}").as_bytes()).unwrap();
        assert!(finish(&mut world, &[other])[0].is_ok());
    }
    assert!(world.now - refused < 500 * MS, "{:?}", world.now - refused);
    assert!(first[0].try_result().is_none(), "its backoff is not over");
    world.run_until(refused + 790 * MS);
    assert!(first[0].try_result().is_none(), "a second, less a fifth");
    assert!(finish(&mut world, &first)[0].is_ok());
    assert!(world.now - refused < 1210 * MS, "a second and a fifth");
}

/// Backoffs double up to their maximum: an error that stays costs a request now and then, until time runs out.
#[test]
fn an_error_that_stays_is_no_storm() {
    let (options, watch) = Watch::on(options(1), |_| Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let mut world = World::new(33, options, config().max_in_flight(1).delivery_timeout(20 * SECOND));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let first = send_one(&mut world, &topic, 1, 0);
    pass(&mut world, 100 * MS);
    let behind = send_one(&mut world, &topic, 1, 1);
    let outcomes = finish(&mut world, &[first, behind]);
    let error = outcomes[0].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Expired, Written::No), "{error}");
    assert_eq!(error.broker().map(|broker| broker.code()), Some(ErrorCode::NOT_ENOUGH_REPLICAS));
    // 0.1 + 0.2 + 0.4 + 0.8 s, then one a second, a fifth more or less.
    assert!((17..=29).contains(&error.attempts()), "{error}");
    assert!(watch.len() as u32 <= error.attempts() + 1);
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Expired, Written::No), "what waited behind it");
    drop(outcomes);
    no_memory_leaked(&mut world, free);
}

/// Metadata that names a new leader ends the backoff; metadata that names the same one does not.
#[test]
fn a_new_leader_in_metadata_ends_the_backoff_and_the_old_one_does_not() {
    for moved in [true, false] {
        // Before version 10 there are no hints.
        let options = BrokerOptions { brokers: 2, produce_max_version: 9, ..options(1) };
        let (options, watch) = Watch::on(options, move |context| {
            if context.nth == 1 && !moved { Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER) } else { Fault::None }
        });
        let config = config().retry_backoff(60 * SECOND, 60 * SECOND).delivery_timeout(300 * SECOND);
        let mut world = World::new(34, options, config);
        let topic = world.topic("t");
        let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
        finish(&mut world, &first);
        // Metadata is asked for at the pace of the backoff, too.
        pass(&mut world, 120 * SECOND);
        if moved {
            world.model.move_leader("t", 0, 1);
        }
        let started = world.now;
        let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
        assert!(finish(&mut world, &second)[0].is_ok());
        let took = world.now - started;
        assert_eq!(took < SECOND, moved, "{took:?}");
        assert!(moved || took > 47 * SECOND, "{took:?}");
        assert_eq!(watch.all().iter().map(|met| met.node).collect::<Vec<_>>(), [0, 0, i32::from(moved)]);
    }
}

/// One batch in flight keeps order without idempotence, through errors, lost connections and a leader that moves.
#[test]
fn one_in_flight_keeps_order_without_idempotence() {
    let options = BrokerOptions { brokers: 2, ack_delay: 3 * MS, ..options(1) };
    let (options, watch) = Watch::on(options, |context| match context.nth % 7 {
        2 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        5 => Fault::CloseBefore,
        _ => Fault::None,
    });
    let config =
        config().enable_idempotence(false).max_in_flight(1).linger(Duration::ZERO).retry_backoff(5 * MS, 5 * MS);
    let mut world = World::new(35, options, config);
    let topic = world.topic("t");
    let mut deliveries = Vec::new();
    for number in 0..60 {
        deliveries.push(send_one(&mut world, &topic, 1, number));
        assert!(world.sender.partitions[0].unacked <= 1);
        if number % 15 == 10 {
            world.model.move_leader("t", 0, (number as i32 / 15 + 1) % 2);
        }
    }
    world.run_while(|world| {
        assert!(world.sender.partitions[0].unacked <= 1);
        deliveries.iter().any(|delivery| delivery.try_result().is_none())
    });
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 35);
    let met = watch.all();
    assert!(met.iter().any(|met| met.node == 1) && met.iter().all(|met| met.producer_id == -1));
}

/// Three in flight, the first is refused and may be sent again: it goes alone, the others after it one by one, under
/// their old numbers, and what came later stands behind them.
#[test]
fn what_was_in_flight_behind_a_refused_batch_follows_it_one_by_one() {
    let (options, watch) = Watch::on(BrokerOptions { ack_delay: 10 * MS, ..options(1) }, |context| {
        if context.nth == 1 { Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS) } else { Fault::None }
    });
    let mut world = World::new(36, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = vec![send_one(&mut world, &topic, 1, 0)];
    finish(&mut world, &deliveries);
    for number in 1..4 {
        deliveries.push(send_one(&mut world, &topic, 1, number));
    }
    assert_eq!(world.sender.partitions[0].unacked, 3);
    world.run_while(|world| world.sender.partitions[0].queue.is_empty());
    deliveries.push(send_one(&mut world, &topic, 1, 4));
    world.run_while(|world| world.sender.partitions[0].unacked > 0);
    world.run_while(|world| {
        assert!(world.sender.partitions[0].unacked <= 1, "one by one");
        !world.sender.partitions[0].queue.is_empty()
    });
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 36);
    let stamps: Vec<i32> = watch.stamps().into_iter().map(|(_, sequence)| sequence).collect();
    assert_eq!(stamps, [0, 1, 2, 3, 1, 2, 3, 4]);
    assert!(watch.stamps().iter().all(|(epoch, _)| *epoch == 0), "nothing was lost, so no new epoch");
}
