//! What must hold whatever happens, over seeds; and single scenarios that once were, or could be, wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::world::{Weather, World};
use crate::completion::{Delivery, RecordMetadata};
use crate::config::{Acks, ProducerConfig};
use crate::error::{DeliveryError, DeliveryErrorKind, Written};
use crate::sender::{Command, Ticket, TopicShared};
use crate::testing::{BrokerOptions, ErrorCode, Fault, TopicOptions};
use crate::wire::metadata::{Broker, Topic};

type Outcome = Result<RecordMetadata, DeliveryError>;

const MS: Duration = Duration::from_millis(1);

fn config() -> ProducerConfig {
    ProducerConfig::new().linger(MS).request_timeout(Duration::from_millis(500)).buffer_memory(4 << 20)
}

fn options(partitions: i32) -> BrokerOptions {
    BrokerOptions { topic: TopicOptions { partitions, ..TopicOptions::default() }, ..BrokerOptions::default() }
}

/// Sends the numbers `range` to one partition each, in turn, with time passing in between.
fn send_all(
    world: &mut World,
    topic: &TopicShared,
    partitions: u32,
    range: std::ops::Range<usize>,
    pause: Duration,
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in range {
        let value = format!("{number:06}");
        loop {
            if let Some(delivery) = world.send(topic, number as u32 % partitions, value.as_bytes()) {
                deliveries.push(delivery);
                break;
            }
            world.turn();
        }
        if !pause.is_zero() && world.random.next().is_multiple_of(5) {
            let until = world.now + pause;
            world.run_until(until);
        }
    }
    deliveries
}

fn finish(world: &mut World, deliveries: &[Delivery]) -> Vec<Outcome> {
    world.run_while(|_| deliveries.iter().any(|delivery| delivery.try_result().is_none()));
    deliveries.iter().map(|delivery| delivery.try_result().expect("done")).collect()
}

/// Nothing lost, nothing twice, order kept, offsets true: for records all of which were delivered.
fn check_log(world: &World, topic: &str, partitions: u32, outcomes: &[Outcome], seed: u64) {
    for partition in 0..partitions {
        let log = world.log(topic, partition as i32);
        let sent = (0..outcomes.len()).filter(|number| *number as u32 % partitions == partition);
        let expected: Vec<String> = sent.map(|number| format!("{number:06}")).collect();
        assert_eq!(log, expected, "seed {seed}, partition {partition}");
    }
    for (number, outcome) in outcomes.iter().enumerate() {
        let metadata = outcome.as_ref().unwrap_or_else(|error| panic!("seed {seed}: {number} failed: {error}"));
        if let Some(offset) = metadata.offset() {
            let log = world.log(topic, metadata.partition());
            assert_eq!(log[offset as usize], format!("{number:06}"), "seed {seed}");
        }
    }
}

fn no_memory_leaked(world: &mut World, free: usize) {
    let until = world.now + Duration::from_secs(5);
    world.run_until(until);
    assert_eq!(world.accumulator.free(), free, "all memory is back");
}

fn seeds() -> std::ops::Range<u64> {
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
fn told_is_true(seed: u64) -> [usize; 3] {
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

/// Five batches stored, the answers lost, and a broker that after its restart remembers the last one only.
#[test]
fn a_restarted_broker_gets_nothing_twice() {
    let config = config().linger(Duration::ZERO);
    let mut world = World::new(1, BrokerOptions { ack_delay: 30 * MS, ..options(1) }, config);
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    let mut deliveries = first;
    for number in 1..6 {
        deliveries.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
        let until = world.now + MS;
        world.run_until(until);
    }
    // All five are at the broker, which works on them one after the other; the answers are lost.
    let until = world.now + 170 * MS;
    world.weather.cut_answer = 0;
    world.run_until(until);
    world.kill(0);
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 1);
}

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

/// acks=0: done when sent; a connection that dies with it makes it possibly written, and it is not sent again.
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
        let ticket = Arc::new(crate::sender::Ticket::default());
        world.shared.command(Command::Close(ticket.clone(), 2000 * MS));
        world.run_while(|world| !world.sender.is_closed());
        assert!(ticket.is_done());
        let report = ticket.report();
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

/// What was told of numbers sent to one partition is true of its log, where order is kept.
fn check_told(world: &World, outcomes: &[Outcome], seed: u64) {
    let log = world.log("t", 0);
    for (number, outcome) in outcomes.iter().enumerate() {
        let times = log.iter().filter(|stored| **stored == format!("{number:06}")).count();
        match outcome {
            Ok(_) => assert_eq!(times, 1, "seed {seed}: {number} was acknowledged"),
            Err(error) if error.written() == Written::No => assert_eq!(times, 0, "seed {seed}: {number}: {error}"),
            Err(error) => assert!(times <= 1, "seed {seed}: {number} is there {times} times: {error}"),
        }
    }
    assert!(log.is_sorted(), "seed {seed}: out of order: {log:?}");
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
