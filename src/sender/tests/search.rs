//! A restarted broker remembers the last batch alone: what it says of those before proves nothing, and the sender goes
//! back from the newest.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::World;
use super::{MS, check_log, config, finish, options, send_all};
use crate::completion::Delivery;
use crate::sender::{Command, TopicShared};
use crate::testing::{BrokerOptions, ErrorCode, Fault};

/// Of each batch that arrived: its first sequence number.
type Arrived = Arc<Mutex<Vec<i32>>>;

/// A broker that takes 30 ms for each batch, stores those from the second to the sixth, and does not confirm them.
fn world(seed: u64) -> (World, Arc<TopicShared>, Arrived) {
    let arrived = Arrived::default();
    let note = arrived.clone();
    let options = BrokerOptions { ack_delay: 30 * MS, ..options(1) }.on_produce(move |context| {
        note.lock().unwrap().push(context.base_sequence);
        match context.nth {
            1..=5 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
            _ => Fault::None,
        }
    });
    let mut world = World::new(seed, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    (world, topic, arrived)
}

/// One record that is acknowledged; then five batches of one record each, all in flight.
fn five_in_flight(world: &mut World, topic: &TopicShared) -> Vec<Delivery> {
    let mut deliveries = send_all(world, topic, 1, 0..1, Duration::ZERO);
    finish(world, &deliveries);
    for number in 1..6 {
        deliveries.extend(send_all(world, topic, 1, number..number + 1, Duration::ZERO));
        world.shared.command(Command::Flush(Arc::default()));
        let until = world.now + MS;
        world.run_until(until);
    }
    assert_eq!(world.sender.partitions[0].unacked, 5);
    deliveries
}

/// The broker dies with all five in its log, one answer under way and four that confirmed nothing.
#[test]
fn a_restarted_broker_gets_nothing_twice() {
    let (mut world, topic, arrived) = world(50);
    let deliveries = five_in_flight(&mut world, &topic);
    world.run_while(|world| world.log("t", 0).len() < 6);
    assert!(world.sender.partitions[0].unacked > 0, "an answer is outstanding");
    assert!(deliveries[1..].iter().all(|delivery| delivery.try_result().is_none()), "none of the five is known");
    world.kill(0);
    arrived.lock().unwrap().clear();
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 50);
    // The oldest is out of order, the newest is known, and proves the four before it.
    assert_eq!(*arrived.lock().unwrap(), [1, 5]);
    assert!(outcomes[1..5].iter().flatten().all(|metadata| metadata.offset().is_none()), "{outcomes:?}");
    assert_eq!(outcomes[5].as_ref().unwrap().offset(), Some(5));
    let records = world.model.records("t", 0);
    assert!(records.iter().all(|record| record.producer_epoch == 0), "no number was lost");
}

/// What is sent meanwhile waits until it is known what is stored: the window is shut, one batch at a time is asked for.
#[test]
fn what_comes_meanwhile_waits() {
    let (mut world, topic, arrived) = world(51);
    let mut deliveries = five_in_flight(&mut world, &topic);
    world.run_while(|world| world.log("t", 0).len() < 6);
    world.kill(0);
    world.run_while(|world| world.sender.partitions[0].unacked > 0);
    arrived.lock().unwrap().clear();
    let (mut number, mut searched) = (6, 0);
    while deliveries[1..6].iter().any(|delivery| delivery.try_result().is_none()) {
        if number < 200 {
            deliveries.extend(send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO));
            world.shared.command(Command::Flush(Arc::default()));
            number += 1;
        }
        world.turn();
        let partition = &world.sender.partitions[0];
        searched += usize::from(partition.search.is_some());
        assert!(partition.unacked <= 1, "{} in flight while it is not known what is stored", partition.unacked);
    }
    assert!(searched > 0 && number > 10, "{searched} turns, {number} records");
    assert_eq!(*arrived.lock().unwrap(), [1, 5], "nothing new before the end of the search");
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 51);
}

/// Each of the five may be stored, and none is: all again, in order, under the numbers that they had.
#[test]
fn nothing_was_stored_after_all() {
    let arrived = Arrived::default();
    let note = arrived.clone();
    let options = BrokerOptions { ack_delay: 30 * MS, ..options(1) }.on_produce(move |context| {
        note.lock().unwrap().push(context.base_sequence);
        if context.nth == 1 { Fault::HangBefore } else { Fault::None }
    });
    let mut world = World::new(52, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = five_in_flight(&mut world, &topic);
    world.run_while(|world| world.sender.partitions[0].queue.len() < 5);
    let lost = world.sender.partitions[0].queue.iter().filter(|batch| batch.known.has_copy()).count();
    assert_eq!(lost, 5, "each may be stored");
    arrived.lock().unwrap().clear();
    deliveries.extend(send_all(&mut world, &topic, 1, 6..9, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 52);
    assert!(arrived.lock().unwrap().starts_with(&[1, 2, 3, 4, 5]), "{arrived:?}: in order, one by one");
    assert!(world.model.records("t", 0).iter().all(|record| record.producer_epoch == 0));
}
