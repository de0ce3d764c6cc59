//! What bounds a request and what a topic takes; and that cost follows what is in use.

use std::collections::HashSet;
use std::time::Duration;

use super::world::World;
use super::{MS, Watch, check_log, config, finish, no_memory_leaked, options, pass, send_all};
use crate::completion::Delivery;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::connection::Asked;
use crate::testing::{BrokerOptions, Fault};

/// More than one request holds: requests keep to `max.request.size`, with one batch of each partition at most, and no
/// partition is served far more often than another one that has as much.
#[test]
fn requests_are_bounded_and_partitions_take_turns() {
    const PARTITIONS: u32 = 12;
    let (options, watch) =
        Watch::on(BrokerOptions { ack_delay: 5 * MS, ..options(PARTITIONS as i32) }, |_| Fault::None);
    let config = config().max_request_size(30_000).batch_size(9_000).max_in_flight(1);
    let mut world = World::new(70, options, config);
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, PARTITIONS, 0..PARTITIONS as usize, Duration::ZERO);
    finish(&mut world, &first);
    let before = watch.len();
    let (much, little) = ([b'v'; 4_000], [b'v'; 400]);
    let heavy = |partition: u32| !partition.is_multiple_of(3);
    let mut deliveries: Vec<Delivery> = Vec::new();
    for _ in 0..20 {
        for partition in 0..PARTITIONS {
            deliveries.extend(world.send(&topic, partition, if heavy(partition) { &much } else { &little }));
        }
    }
    assert_eq!(deliveries.len(), 240, "they have room");
    let mut most = 0;
    world.run_while(|world| {
        for request in world.sender.connections.values().flat_map(|connection| &connection.unanswered) {
            let Asked::Produce { batches, .. } = &request.asked else { continue };
            most = most.max(batches.len());
            let around = 200 + 80 * batches.len();
            assert!(batches.len() == 1 || request.bytes <= 30_000 + around, "{} bytes", request.bytes);
            let partitions: HashSet<u32> = batches.iter().flatten().map(|batch| batch.partition).collect();
            assert_eq!(partitions.len(), batches.iter().flatten().count(), "one batch of each at most");
        }
        deliveries.iter().any(|delivery| delivery.try_result().is_none())
    });
    assert!(most > 1, "no request was shared");
    let mut served = [0; PARTITIONS as usize];
    for met in watch.all().into_iter().skip(before).filter(|met| heavy(met.partition as u32)) {
        served[met.partition as usize] += 1;
        let least = (0..PARTITIONS).filter(|at| heavy(*at)).map(|at| served[at as usize]).min().unwrap();
        assert!(served[met.partition as usize] <= least + 2, "{met:?}: {served:?}");
    }
    assert!((0..PARTITIONS).all(|at| served[at as usize] >= 3 || !heavy(at)), "{served:?}");
}

/// A broker that leads nothing we send to is asked for nothing, and no request goes out empty.
#[test]
fn a_broker_without_our_partitions_is_left_alone() {
    let (options, watch) = Watch::on(BrokerOptions { brokers: 3, ..options(2) }, |_| Fault::None);
    let mut world = World::new(71, options, config());
    let topic = world.topic("t");
    let deliveries = send_all(&mut world, &topic, 2, 0..40, 2 * MS);
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 2, &outcomes, 71);
    assert!(watch.all().iter().all(|met| met.node < 2 && met.count > 0));
    assert!(world.sender.nodes.get(&2).is_some_and(|node| node.lane.is_none() && node.ready.is_empty()));
}

/// A limit is learned once, for all partitions of a topic: after that nothing is refused any more.
#[test]
fn a_topics_limit_is_learned_and_kept_to() {
    let mut options = options(4);
    options.topic.max_message_bytes = 3_000;
    let (options, watch) = Watch::on(options, |_| Fault::None);
    let mut world = World::new(72, options, config().batch_size(20_000).linger(20 * MS));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let deliveries = send_all(&mut world, &topic, 4, 0..4_000, Duration::ZERO);
    finish(&mut world, &deliveries);
    let (learned, refused) = (watch.len(), refused(&watch));
    assert!(refused > 0, "nothing was too large");
    let more = send_all(&mut world, &topic, 4, 4_000..8_000, Duration::ZERO);
    let deliveries: Vec<Delivery> = deliveries.into_iter().chain(more).collect();
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 4, &outcomes, 72);
    assert_eq!(super::limits::refused(&watch), refused, "of {} batches after {learned}", watch.len() - learned);
    drop(deliveries);
    no_memory_leaked(&mut world, free);
}

/// Batches that came again in parts: same first number, fewer records.
fn refused(watch: &Watch) -> usize {
    let all = watch.all();
    let again = |at: usize| {
        let met = all[at];
        all[at + 1..].iter().any(|later| {
            (later.partition, later.epoch, later.sequence) == (met.partition, met.epoch, met.sequence)
                && later.count < met.count
        })
    };
    (0..all.len()).filter(|at| again(*at)).count()
}

/// The parts of a batch carry on its numbers without a gap, under its epoch, in order.
#[test]
fn parts_carry_on_the_numbers_of_the_whole() {
    let mut options = options(1);
    options.topic.max_message_bytes = 700;
    let (options, watch) = Watch::on(options, |_| Fault::None);
    let mut world = World::new(73, options, config());
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    // Two batches on their way when the first of them is refused.
    let mut deliveries = first;
    deliveries.extend(send_all(&mut world, &topic, 1, 1..101, Duration::ZERO));
    pass(&mut world, 2 * MS);
    deliveries.extend(send_all(&mut world, &topic, 1, 101..201, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 73);
    let stored = world.model.records("t", 0);
    assert!(stored.iter().map(|record| record.sequence).eq(0..201), "no gap");
    assert!(watch.all().iter().all(|met| met.epoch == 0) && refused(&watch) > 0);
}

/// One record that no split can help: it fails, alone, and its memory comes back.
#[test]
fn a_record_too_large_for_its_topic_fails_and_gives_its_memory_back() {
    let mut options = options(1);
    options.topic.max_message_bytes = 2_000;
    let mut world = World::new(74, options, config());
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let mut deliveries = send_all(&mut world, &topic, 1, 0..3, Duration::ZERO);
    let large = world.send(&topic, 0, &[b'v'; 3_000]).unwrap();
    deliveries.extend(send_all(&mut world, &topic, 1, 3..6, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 74);
    let error = finish(&mut world, std::slice::from_ref(&large))[0].clone().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::TooLarge, Written::No));
    drop((deliveries, large));
    no_memory_leaked(&mut world, free);
}

/// 10 of 1,000 partitions in use: nothing that is done per record or per turn looks at the others.
#[test]
fn only_what_is_in_use_is_looked_at() {
    const USED: usize = 10;
    let mut world = World::new(75, options(1_000), config());
    let topic = world.topic("t");
    assert_eq!(topic.count(), 1_000);
    for round in 0..3 {
        let deliveries = send_all(&mut world, &topic, USED as u32, round * USED..(round + 1) * USED, Duration::ZERO);
        let until = world.now;
        world.run_until(until);
        assert!(world.sender.active.len() <= USED, "{} partitions are active", world.sender.active.len());
        assert!(world.sender.timers.len() < 100, "{} timers", world.sender.timers.len());
        let listed: usize = world.sender.nodes.values().map(|node| node.ready.len()).sum();
        assert!(listed <= USED, "{listed} partitions are listed");
        assert!(finish(&mut world, &deliveries).iter().all(Result::is_ok));
    }
}
