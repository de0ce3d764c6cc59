//! The sender over a simulated network, against the broker's model: seeds, faults, and a clock that jumps from event to
//! event. The oracle is the broker's log. `stage` is a simpler one, for tests of when and whom the sender asks.

mod accepted_behind;
mod answers;
mod astray;
mod bad_brokers;
mod bootstrap;
mod closing;
mod expiry;
mod first_sequence;
mod found_by_seeds;
mod gone;
mod health;
mod hints;
mod idempotence;
mod identity;
mod interplay;
mod lagging;
mod limits;
mod linger;
mod metadata;
mod own_limit;
mod poison;
mod properties;
mod race;
mod refusals;
mod retries;
mod scenarios;
mod search;
mod service;
mod size_limit;
mod time;
mod warm_up;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use world::World;

use crate::completion::{Delivery, RecordMetadata};
use crate::config::ProducerConfig;
use crate::error::{DeliveryError, Written};
use crate::sender::TopicShared;
use crate::testing::simulation::stage;
use crate::testing::{BrokerOptions, Fault, ProduceContext, TopicOptions};

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
    let logs: Vec<_> = (0..partitions).map(|partition| world.log(topic, partition as i32)).collect();
    for (log, partition) in logs.iter().zip(0..) {
        let sent = (0..outcomes.len()).filter(|number| *number as u32 % partitions == partition);
        let expected: Vec<String> = sent.map(|number| format!("{number:06}")).collect();
        assert_eq!(*log, expected, "seed {seed}, partition {partition}");
    }
    for (number, outcome) in outcomes.iter().enumerate() {
        let metadata = outcome.as_ref().unwrap_or_else(|error| panic!("seed {seed}: {number} failed: {error}"));
        if let Some(offset) = metadata.offset() {
            let log = &logs[metadata.partition() as usize];
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

/// A batch as the broker met it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Met {
    node: i32,
    partition: i32,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
    count: i32,
}

/// Every batch that came to a broker, in order.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<Met>>>);

impl Watch {
    /// Notes each batch, and asks `faults` what becomes of it.
    fn on(
        options: BrokerOptions,
        mut faults: impl FnMut(&ProduceContext<'_>) -> Fault + Send + 'static,
    ) -> (BrokerOptions, Self) {
        let watch = Self::default();
        let notes = watch.clone();
        let options = options.on_produce(move |context| {
            notes.0.lock().unwrap().push(Met {
                node: context.node,
                partition: context.partition,
                producer_id: context.producer_id,
                epoch: context.producer_epoch,
                sequence: context.base_sequence,
                count: context.count,
            });
            faults(context)
        });
        (options, watch)
    }

    fn all(&self) -> Vec<Met> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Epoch and first sequence of each batch of partition 0.
    fn stamps(&self) -> Vec<(i16, i32)> {
        let first = |met: &&Met| met.partition == 0;
        self.0.lock().unwrap().iter().filter(first).map(|met| (met.epoch, met.sequence)).collect()
    }
}

/// Lets so much time go by.
fn pass(world: &mut World, time: Duration) {
    let until = world.now + time;
    world.run_until(until);
}

/// Sends one number, and a moment later it is on its way: nothing else shares its batch, if linger is zero.
fn send_one(world: &mut World, topic: &TopicShared, partitions: u32, number: usize) -> Delivery {
    let delivery = send_all(world, topic, partitions, number..number + 1, Duration::ZERO).remove(0);
    pass(world, MS);
    delivery
}
