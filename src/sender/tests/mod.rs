//! The sender over a simulated network, against the broker's model: seeds, faults, and a clock that jumps from event to
//! event. The oracle is the broker's log.

mod properties;
mod scenarios;
mod world;

use std::time::Duration;

use world::World;

use crate::completion::{Delivery, RecordMetadata};
use crate::config::ProducerConfig;
use crate::error::{DeliveryError, Written};
use crate::sender::TopicShared;
use crate::testing::{BrokerOptions, TopicOptions};

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

fn no_memory_leaked(world: &mut World, free: usize) {
    let until = world.now + Duration::from_secs(5);
    world.run_until(until);
    assert_eq!(world.accumulator.free(), free, "all memory is back");
}
