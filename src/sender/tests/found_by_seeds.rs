//! What the simulation found, each in its smallest form.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::world::World;
use crate::config::ProducerConfig;
use crate::metadata::BELIEVED;
use crate::testing::{BrokerOptions, Fault, TopicOptions};

const MS: Duration = Duration::from_millis(1);

fn config() -> ProducerConfig {
    ProducerConfig::new().linger(Duration::ZERO).request_timeout(200 * MS).metadata_max_age(50 * MS)
}

fn topic_of(partitions: i32) -> TopicOptions {
    TopicOptions { partitions, ..TopicOptions::default() }
}

/// What was accepted stays accepted when the topic is created again with fewer partitions. The world counts each turn.
#[test]
fn a_smaller_topic_of_the_same_name_keeps_the_count() {
    let mut world = World::new(1, BrokerOptions { topic: topic_of(3), ..BrokerOptions::default() }, config());
    let topic = world.topic("t");
    let delivery = world.send(&topic, 2, b"000000").unwrap();
    world.run_while(|_| delivery.try_result().is_none());
    world.model.delete_topic("t");
    world.model.create_topic("t", topic_of(1));
    // One broker alone tells it, and nobody refuses anything.
    let until = world.now + BELIEVED + 2000 * MS;
    world.run_until(until);
    assert_eq!(topic.count(), 1);
    assert_eq!((world.shared.stats().accepted, world.shared.stats().delivered), (1, 1));
}

/// Two batches stored, their answers lost; the broker restarts and remembers the newer one alone, so the search begins at
/// that. Then the topic is created again: the new log accepts any first sequence number, so that it accepts the newer
/// batch is no proof that the older one is there.
#[test]
fn a_log_created_again_proves_nothing_of_what_was_sent_before() {
    let options = BrokerOptions { topic: topic_of(1), auto_create: false, ..BrokerOptions::default() };
    let mut world = World::new(1, options, config().delivery_timeout(60_000 * MS));
    world.model.create_topic("t", topic_of(1));
    let topic = world.topic("t");
    let first = world.send(&topic, 0, b"000000").unwrap();
    world.run_while(|_| first.try_result().is_none());
    world.storm.mute = 1000;
    let mut deliveries = Vec::new();
    for value in [b"000001", b"000002"] {
        deliveries.push(world.send(&topic, 0, value).unwrap());
        let until = world.now + 5 * MS;
        world.run_until(until);
    }
    assert_eq!(world.log("t", 0), ["000000", "000001", "000002"]);
    world.storm.mute = 0;
    world.model.restart_node(0);
    world.run_while(|world| world.sender.partitions[0].search.is_none());
    world.model.delete_topic("t");
    world.model.create_topic("t", topic_of(1));
    world.run_while(|_| deliveries.iter().any(|delivery| delivery.try_result().is_none()));
    let log = world.log("t", 0);
    for (delivery, value) in deliveries.iter().zip(["000001", "000002"]) {
        let outcome = delivery.try_result().unwrap();
        assert!(outcome.is_err() || log.iter().any(|stored| stored == value), "{value} is said to be delivered");
    }
}

/// The same, but the topic is created again before the search begins: the answer that starts it comes late.
#[test]
fn a_log_created_again_ends_a_search_that_begins_later() {
    let reads = Arc::new(AtomicU64::new(0));
    let count = reads.clone();
    let options =
        BrokerOptions { topic: topic_of(1), auto_create: false, ack_delay: 120 * MS, ..BrokerOptions::default() };
    let options = options.on_produce(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Fault::None
    });
    let mut world = World::new(1, options, config().delivery_timeout(60_000 * MS));
    world.model.create_topic("t", topic_of(1));
    let topic = world.topic("t");
    let first = world.send(&topic, 0, b"000000").unwrap();
    world.run_while(|_| first.try_result().is_none());
    world.storm.mute = 1000;
    let mut deliveries = Vec::new();
    for value in [b"000001", b"000002"] {
        deliveries.push(world.send(&topic, 0, value).unwrap());
        let until = world.now + 125 * MS;
        world.run_until(until);
    }
    assert_eq!(world.log("t", 0), ["000000", "000001", "000002"]);
    world.storm.mute = 0;
    world.model.restart_node(0);
    let before = reads.load(Ordering::Relaxed);
    world.run_while(|_| reads.load(Ordering::Relaxed) == before);
    world.model.delete_topic("t");
    world.model.create_topic("t", topic_of(1));
    world.run_while(|_| deliveries.iter().any(|delivery| delivery.try_result().is_none()));
    let log = world.log("t", 0);
    for (delivery, value) in deliveries.iter().zip(["000001", "000002"]) {
        let outcome = delivery.try_result().unwrap();
        assert!(outcome.is_err() || log.iter().any(|stored| stored == value), "{value} is said to be delivered");
    }
}

/// Two batches (a request takes no more than one of these records) leave one after the other in the last millisecond of their lives, and get no answer: callers hear of each in
/// time, not when the request is given up.
#[test]
fn what_leaves_in_its_last_millisecond_is_told_in_time() {
    for early in 0..60 {
        let options = BrokerOptions { topic: topic_of(1), ..BrokerOptions::default() };
        let options = options.on_produce(|context| if context.nth == 0 { Fault::None } else { Fault::HangAfter });
        let config = config().enable_idempotence(false).batch_size(1).max_request_size(1024).delivery_timeout(300 * MS);
        let mut world = World::new(early, options, config.reconnect_backoff(MS, MS));
        let topic = world.topic("t");
        let first = world.send(&topic, 0, b"0").unwrap();
        world.run_while(|_| first.try_result().is_none());
        let begun = world.now;
        world.kill_for(0, 300 * MS - Duration::from_micros(100) * early as u32);
        let deliveries: Vec<_> = (0..2)
            .map(|_| {
                let until = world.now + MS / 2;
                world.run_until(until);
                world.send(&topic, 0, &[b'1'; 700]).unwrap()
            })
            .collect();
        world.run_until(begun + 303 * MS);
        let told = deliveries.iter().filter(|delivery| delivery.try_result().is_some()).count();
        assert_eq!(told, deliveries.len(), "back {early} times 100 us before the end");
    }
}
