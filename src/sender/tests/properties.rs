//! What must hold whatever happens, over seeds.

use std::time::Duration;

use super::world::{Weather, World};
use super::{MS, check_log, check_told, config, finish, no_memory_leaked, options, send_all};
use crate::error::{DeliveryError, Written};
use crate::testing::{BrokerOptions, ErrorCode, Fault};

pub(super) fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let from = number("FROM", 0);
    from..from + number("SEEDS", 150)
}

/// Lost requests, lost answers, errors of all retriable kinds, moving leaders: each record once, in order.
#[test]
fn each_record_once_and_in_order_in_any_weather() {
    const ERRORS: [ErrorCode; 6] = [
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::CORRUPT_MESSAGE,
        ErrorCode::LEADER_NOT_AVAILABLE,
        ErrorCode::KAFKA_STORAGE_ERROR,
    ];
    let (mut resent, mut restarts) = (0, 0);
    for seed in seeds() {
        let mut chance = crate::sender::backoff::Random::new(seed ^ 0xfa);
        let harsh = seed % 3;
        let options = options(3).on_produce(move |_| match chance.next() % 100 {
            0..4 if harsh > 0 => Fault::Error(ERRORS[(chance.next() % 6) as usize]),
            4..6 if harsh > 0 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
            6 if harsh > 1 => Fault::HangAfter,
            7 if harsh > 1 => Fault::HangBefore,
            8 => Fault::CloseAfter,
            9 => Fault::CloseBefore,
            10..15 => Fault::Delay(Duration::from_millis(5)),
            _ => Fault::None,
        });
        let mut world = World::new(seed, BrokerOptions { brokers: 2, ..options }, config());
        let topic = world.topic("t");
        let free = world.accumulator.free();
        world.weather = Weather { cut_request: 20, cut_answer: 20, restart: if harsh == 2 { 10 } else { 0 } };
        let mut deliveries = Vec::new();
        for round in 0..4 {
            deliveries.extend(send_all(&mut world, &topic, 3, round * 100..(round + 1) * 100, 2 * MS));
            if seed % 2 == 0 {
                let (partition, node) = ((world.random.next() % 3) as i32, (world.random.next() % 2) as i32);
                world.model.move_leader("t", partition, node);
            }
        }
        world.weather = Weather::default();
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 3, &outcomes, seed);
        resent += outcomes.iter().filter(|outcome| outcome.as_ref().is_ok_and(|m| m.offset().is_none())).count();
        restarts += world.restarts;
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
    println!("{restarts} restarts, {resent} records found in the log by walking back");
    assert!(restarts > 0, "the weather is too fine");
}

/// Batches too large for their topic, in any weather.
#[test]
fn split_batches_keep_order_in_any_weather() {
    for seed in seeds() {
        let mut options = options(1);
        options.topic.max_message_bytes = 700 + (seed as usize % 5) * 300;
        let mut world = World::new(seed, options, config().batch_size(8000));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        world.weather = Weather { cut_request: 15, cut_answer: 15, restart: if seed % 2 == 0 { 5 } else { 0 } };
        let deliveries = send_all(&mut world, &topic, 1, 0..400, MS);
        world.weather = Weather::default();
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 1, &outcomes, seed);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// Delivery timeouts: every record ends, "not written" is never in the log, what is delivered is there once.
#[test]
fn what_is_told_is_true_when_time_runs_out() {
    let mut sums = [0; 3];
    for seed in seeds() {
        for (sum, part) in sums.iter_mut().zip(told_is_true(seed)) {
            *sum += part;
        }
    }
    println!("delivered, not written, possibly written: {sums:?}");
    assert!(sums.iter().all(|sum| *sum > 0));
}

/// How many were delivered, not written, possibly written.
pub(super) fn told_is_true(seed: u64) -> [usize; 3] {
    let (mut delivered, mut not_written, mut possibly) = (0, 0, 0);
    let mut chance = crate::sender::backoff::Random::new(seed ^ 0xfe);
    let options = options(2).on_produce(move |_| match chance.next() % 10 {
        0 => Fault::HangAfter,
        1 => Fault::HangBefore,
        2 => Fault::CloseAfter,
        3 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        4 => Fault::Error(ErrorCode::INVALID_RECORD),
        5 => Fault::Delay(Duration::from_millis(400)),
        _ => Fault::None,
    });
    let config = config().request_timeout(300 * MS).delivery_timeout(700 * MS);
    let mut world = World::new(seed, options, config);
    let topic = world.topic("t");
    let free = world.accumulator.free();
    world.weather = Weather { cut_request: 30, cut_answer: 30, restart: 0 };
    let deliveries = send_all(&mut world, &topic, 2, 0..200, 10 * MS);
    // Whatever stands before a record, it has its end when its time is over.
    let until = world.now + 720 * MS;
    world.run_until(until);
    let open = deliveries.iter().filter(|delivery| delivery.try_result().is_none()).count();
    assert_eq!(open, 0, "seed {seed}: without an end after delivery.timeout.ms");
    let outcomes = finish(&mut world, &deliveries);
    // Late answers may still come in.
    let until = world.now + Duration::from_secs(20);
    world.run_until(until);
    let logs: Vec<Vec<String>> = (0..2).map(|partition| world.log("t", partition)).collect();
    for (number, outcome) in outcomes.iter().enumerate() {
        let value = format!("{number:06}");
        let times = logs[number % 2].iter().filter(|stored| **stored == value).count();
        match outcome {
            Ok(_) => {
                delivered += 1;
                assert_eq!(times, 1, "seed {seed}: {number} was acknowledged");
            }
            Err(error) if error.written() == Written::No => {
                not_written += 1;
                assert_eq!(times, 0, "seed {seed}: {number}: {error}");
            }
            Err(error) => {
                possibly += 1;
                assert!(times <= 1, "seed {seed}: {number} is there {times} times: {error}");
            }
        }
    }
    for log in &logs {
        assert!(log.is_sorted(), "seed {seed}: out of order: {log:?}");
    }
    drop(deliveries);
    no_memory_leaked(&mut world, free);
    [delivered, not_written, possibly]
}

/// Limits come and go, answers get lost, brokers restart and remember one batch: nothing false is told.
#[test]
fn what_is_told_is_true_when_limits_change() {
    let mut sums = [0; 3];
    for seed in seeds() {
        let mut chance = crate::sender::backoff::Random::new(seed ^ 0xfc);
        let options = options(1).on_produce(move |_| match chance.next() % 16 {
            0 | 1 => Fault::CloseAfter,
            2 => Fault::CloseBefore,
            3..6 => Fault::Error(ErrorCode::MESSAGE_TOO_LARGE),
            6 if seed % 3 == 0 => Fault::Error(ErrorCode::INVALID_RECORD),
            7 => Fault::StoredThenError(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
            8 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            9 | 10 => Fault::Delay(10 * MS),
            _ => Fault::None,
        });
        let mut world = World::new(seed, options, config().batch_size(1000));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        world.weather = Weather { cut_request: 20, cut_answer: 20, restart: if seed % 2 == 0 { 20 } else { 0 } };
        let deliveries = send_all(&mut world, &topic, 1, 0..200, 2 * MS);
        world.weather = Weather::default();
        let outcomes = finish(&mut world, &deliveries);
        check_told(&world, &outcomes, seed);
        for outcome in &outcomes {
            let of = |error: &DeliveryError| if error.written() == Written::No { 1 } else { 2 };
            sums[outcome.as_ref().map_or_else(of, |_| 0)] += 1;
        }
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
    println!("delivered, not written, possibly written: {sums:?}");
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}");
}
