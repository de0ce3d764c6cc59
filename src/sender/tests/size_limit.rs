//! A broker that takes small requests only (`socket.request.max.bytes`) and closes the connection of a larger one.

use std::time::Duration;

use super::world::World;
use super::{MS, Outcome, config, finish, no_memory_leaked, options, pass};
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::steps::Step;
use crate::sender::{TopicShared, take_counts};
use crate::testing::BrokerOptions;

/// A debug build takes seconds for each.
const SEEDS: u64 = if cfg!(debug_assertions) { 5 } else { 20 };
const SECOND: Duration = Duration::from_secs(1);
const LIMIT: usize = 65_536;

fn limited(partitions: i32) -> BrokerOptions {
    BrokerOptions { socket_request_max_bytes: LIMIT, ..options(partitions) }
}

/// Kafka's defaults, but for what makes a test long.
fn defaults() -> ProducerConfig {
    config().linger(5 * MS).buffer_memory(32 << 20)
}

/// Records of so many bytes to each partition in turn, numbered, while there is room.
fn offer(world: &mut World, topic: &TopicShared, range: std::ops::Range<usize>, len: usize) -> Vec<Delivery> {
    let count = topic.count();
    let send = |number: usize| {
        let value = format!("{number:08}{}", ".".repeat(len - 8));
        world.send(topic, number as u32 % count, value.as_bytes())
    };
    range.map_while(send).collect()
}

fn send(world: &mut World, topic: &TopicShared, range: std::ops::Range<usize>, len: usize) -> Vec<Delivery> {
    let deliveries = offer(world, topic, range.clone(), len);
    assert_eq!(deliveries.len(), range.len(), "they have room");
    deliveries
}

/// The numbers in the log of a partition, in its order.
fn numbers(world: &World, partition: i32) -> Vec<usize> {
    world.log("t", partition).iter().map(|value| value[..8].parse().unwrap()).collect()
}

fn all_there_once_and_in_order(world: &World, partitions: usize, count: usize) {
    for partition in 0..partitions {
        let numbers = numbers(world, partition as i32);
        let wrong = numbers.iter().zip(0..).find(|(number, at)| **number != at * partitions + partition);
        assert_eq!(wrong, None, "partition {partition}, {} records", numbers.len());
        assert_eq!(numbers.len(), (count - partition).div_ceil(partitions), "partition {partition}");
    }
}

/// As many as a partition's batches may have at once, all of it sent before anything is known of the broker.
#[test]
fn a_small_limit_is_found_and_everything_is_delivered() {
    for (partitions, idempotent) in [(1, true), (3, true), (3, false), (12, true)] {
        let mut world = World::new(80, limited(partitions), defaults().enable_idempotence(idempotent));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let deliveries = send(&mut world, &topic, 0..20_000, 100);
        let outcomes = finish(&mut world, &deliveries);
        assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes.iter().find(|outcome| outcome.is_err()));
        if idempotent {
            all_there_once_and_in_order(&world, partitions as usize, 20_000);
        } else {
            // A connection's end takes answers along, and what they were for is stored again.
            let mut there: Vec<usize> = (0..partitions).flat_map(|partition| numbers(&world, partition)).collect();
            there.sort_unstable();
            there.dedup();
            assert!((0..20_000).eq(there));
        }
        assert!(world.now < 30 * SECOND, "{partitions} partitions: {:?}", world.now);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// Once it is known, it is tried again rarely, also by what comes in bursts; and batches are made for it: none is cut.
#[test]
fn a_limit_that_is_real_is_rarely_tried_again() {
    let mut world = World::new(81, limited(3), defaults());
    let topic = world.topic("t");
    let first = send(&mut world, &topic, 0..3_000, 100);
    finish(&mut world, &first);
    let (mut sent, found) = (3_000, world.look_ups);
    take_counts();
    for _ in 0..600 {
        let burst = send(&mut world, &topic, sent..sent + 3_000, 100);
        sent += 3_000;
        assert!(finish(&mut world, &burst).iter().all(Result::is_ok));
        pass(&mut world, SECOND);
    }
    let lost = world.look_ups - found;
    assert!((1..=30).contains(&lost), "{lost} connections in ten minutes");
    let cut = take_counts().step[Step::CutDown as usize];
    assert!(cut <= 30, "{cut} batches were cut");
    all_there_once_and_in_order(&world, 3, sent);
}

/// A record that is too large by itself fails alone, with words that tell all; its neighbours are delivered.
#[test]
fn a_large_record_fails_alone() {
    for (place, partitions, idempotent) in
        [(0, 1, true), (50, 1, true), (100, 1, true), (50, 1, false), (0, 3, true), (50, 3, true)]
    {
        let mut world = World::new(82, limited(partitions), defaults().enable_idempotence(idempotent));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let mut deliveries = send(&mut world, &topic, 0..place, 100);
        deliveries.extend(send(&mut world, &topic, place..place + 1, 80_000));
        deliveries.extend(send(&mut world, &topic, place + 1..101, 100));
        let outcomes = finish(&mut world, &deliveries);
        let failed: Vec<usize> = (0..101).filter(|at| outcomes[*at].is_err()).collect();
        assert_eq!(failed, [place], "{:?}", outcomes.iter().find(|outcome| outcome.is_err()));
        let error = outcomes[place].clone().unwrap_err();
        assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::RequestTooLarge, Written::Possibly));
        let text = error.to_string();
        for words in ["times in a row with a request of 80", "socket.request.max.bytes", "max.request.size"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let mut there: Vec<usize> = (0..partitions).flat_map(|partition| numbers(&world, partition)).collect();
        there.sort_unstable();
        assert!((0..101).filter(|number| *number != place).eq(there), "each once");
        assert!(world.now < 30 * SECOND, "{:?}", world.now);
        // And the producer goes on.
        let more = send(&mut world, &topic, 101..104, 100);
        assert!(finish(&mut world, &more).iter().all(Result::is_ok));
        drop((deliveries, more));
        no_memory_leaked(&mut world, free);
    }
}

/// What is on its way behind such a record, small and sent already, is delivered as well.
#[test]
fn what_was_sent_behind_a_large_record_is_delivered() {
    let options = BrokerOptions { ack_delay: 20 * MS, ..limited(1) };
    let mut world = World::new(83, options, defaults().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = send(&mut world, &topic, 0..1, 100);
    finish(&mut world, &deliveries);
    for number in 1..6 {
        deliveries.extend(send(&mut world, &topic, number..number + 1, if number == 2 { 80_000 } else { 30_000 }));
        pass(&mut world, MS);
    }
    let outcomes = finish(&mut world, &deliveries);
    let failed: Vec<usize> = (0..6).filter(|at| outcomes[*at].is_err()).collect();
    assert_eq!((failed, numbers(&world, 0)), (vec![2], vec![0, 1, 3, 4, 5]), "{outcomes:?}");
}

/// Some broker's requests are to be smaller than that.
fn bounded(world: &World, below: usize) -> bool {
    world.sender.size_limits.values().any(|limit| limit.bound().is_some_and(|bound| bound < below))
}

/// Large requests all the time, and brokers that die and come back: none is taken for one that takes less.
#[test]
fn kills_bound_nothing_and_cut_nothing() {
    for seed in 0..SEEDS {
        let options = BrokerOptions { brokers: 2, ..options(4) };
        let mut world = World::new(seed, options, defaults().max_in_flight(5));
        let topic = world.topic("t");
        take_counts();
        let mut deliveries = Vec::new();
        for round in 0..40 {
            deliveries.extend(send(&mut world, &topic, round * 4_000..(round + 1) * 4_000, 100));
            let until = world.now + 3 * MS;
            world.run_until(until);
            world.kill_for((round % 2) as i32, 250 * MS);
            pass(&mut world, 400 * MS);
            assert!(!bounded(&world, usize::MAX), "seed {seed}, round {round}");
        }
        let outcomes: Vec<Outcome> = finish(&mut world, &deliveries);
        assert!(outcomes.iter().all(Result::is_ok));
        all_there_once_and_in_order(&world, 4, deliveries.len());
        assert_eq!(take_counts().step[Step::CutDown as usize], 0);
    }
}

/// A network that cuts four of ten connections at a request, for a while, may well look like a limit. It is over soon
/// after that is over, and nothing is lost or there twice.
#[test]
fn cut_connections_bound_nothing_for_long() {
    let mut ever = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed, options(3), defaults().reconnect_backoff(5 * MS, 50 * MS));
        let topic = world.topic("t");
        (world.weather.cut_request, world.weather.cut_answer) = (200, 200);
        let mut deliveries = Vec::new();
        for _ in 0..30 {
            let sent = deliveries.len();
            deliveries.extend(offer(&mut world, &topic, sent..sent + 3_000, 100));
            pass(&mut world, 100 * MS);
            ever += u32::from(bounded(&world, 256 << 10));
        }
        (world.weather.cut_request, world.weather.cut_answer) = (0, 0);
        let over = world.now;
        while bounded(&world, 256 << 10) {
            let sent = deliveries.len();
            deliveries.extend(offer(&mut world, &topic, sent..sent + 3_000, 100));
            pass(&mut world, 100 * MS);
            assert!(world.now < over + 60 * SECOND, "seed {seed}");
        }
        let outcomes = finish(&mut world, &deliveries);
        let lost = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
        // A part of a batch that was stored whole is all that may end so.
        assert!(lost.clone().all(|error| error.written() == Written::Possibly), "seed {seed}");
        for partition in 0..3 {
            let numbers = numbers(&world, partition);
            assert!(numbers.is_sorted_by(|a, b| a < b), "seed {seed}: twice, or out of order");
        }
    }
    assert!(ever > 0, "it was never suspected");
}
