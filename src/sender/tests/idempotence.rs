//! Producer id, epochs and sequence numbers, as a broker meets them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::world::{Weather, World};
use super::{MS, Watch, check_log, check_told, config, finish, no_memory_leaked, options, pass, send_all, send_one};
use crate::completion::Delivery;
use crate::error::Written;
use crate::sender::Command;
use crate::sender::backoff::Random;
use crate::sender::connection::{Asked, Request};
use crate::sender::idempotence::Identity;
use crate::testing::{BrokerOptions, ErrorCode, Fault};

const SECOND: Duration = Duration::from_secs(1);

/// Whatever the window, and however often the answers are lost on the way there.
#[test]
fn nothing_leaves_before_a_producer_id_is_there() {
    for max_in_flight in [1, 5] {
        let (options, watch) = Watch::on(options(1), |_| Fault::None);
        let mut world = World::new(50, options, config().max_in_flight(max_in_flight));
        world.weather = Weather { cut_answer: 600, ..Weather::default() };
        let topic = world.topic("t");
        let deliveries = send_all(&mut world, &topic, 1, 0..20, 5 * MS);
        world.run_while(|world| !matches!(world.sender.identity, Identity::Known(..)));
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 1, &outcomes, 50);
        let id = watch.all()[0].producer_id;
        assert!(id >= 0 && watch.all().iter().all(|met| met.producer_id == id), "{:?}", watch.all());
    }
}

#[test]
fn sequences_count_on_in_each_partition_for_itself() {
    let (options, watch) = Watch::on(options(3), |_| Fault::None);
    let mut world = World::new(51, options, config());
    let topic = world.topic("t");
    let deliveries = send_all(&mut world, &topic, 3, 0..200, 2 * MS);
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 3, &outcomes, 51);
    let mut next = [0; 3];
    for met in watch.all() {
        assert_eq!((met.epoch, met.sequence), (0, next[met.partition as usize]), "{met:?}");
        next[met.partition as usize] += met.count;
    }
    assert_eq!(next.iter().sum::<i32>(), 200);
    assert!(watch.len() > 20, "several batches each: {}", watch.len());
}

#[test]
fn several_in_flight_are_all_acknowledged() {
    let (options, watch) = Watch::on(BrokerOptions { ack_delay: 20 * MS, ..options(1) }, |_| Fault::None);
    let mut world = World::new(52, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = vec![send_one(&mut world, &topic, 1, 0)];
    finish(&mut world, &deliveries);
    deliveries.extend([1, 2].map(|number| send_one(&mut world, &topic, 1, number)));
    assert_eq!(world.sender.partitions[0].unacked, 2);
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 52);
    assert_eq!(watch.stamps(), [(0, 0), (0, 1), (0, 2)], "each sent once");
}

/// Nothing stands before it and no copy of it can be in the log: then OUT_OF_ORDER_SEQUENCE_NUMBER is a gap.
#[test]
fn a_proven_gap_takes_a_new_epoch_at_0() {
    let (options, watch) = Watch::on(options(1), |context| {
        if context.nth == 1 { Fault::Error(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) } else { Fault::None }
    });
    let mut world = World::new(53, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = vec![send_one(&mut world, &topic, 1, 0)];
    finish(&mut world, &deliveries);
    deliveries.push(send_one(&mut world, &topic, 1, 1));
    finish(&mut world, &deliveries);
    deliveries.push(send_one(&mut world, &topic, 1, 2));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 53);
    assert_eq!(watch.stamps(), [(0, 0), (0, 1), (1, 0), (1, 1)]);
}

/// Brokers before Kafka 2.4 forgot a producer with its last record. Nothing of it is in doubt here, so it starts anew.
#[test]
fn an_unknown_producer_id_is_taken_for_a_gap() {
    let (options, watch) = Watch::on(options(1), |context| {
        if context.nth == 1 { Fault::Error(ErrorCode::UNKNOWN_PRODUCER_ID) } else { Fault::None }
    });
    let mut world = World::new(54, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = vec![send_one(&mut world, &topic, 1, 0)];
    finish(&mut world, &deliveries);
    deliveries.push(send_one(&mut world, &topic, 1, 1));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 54);
    assert_eq!(watch.stamps(), [(0, 0), (0, 1), (1, 0)]);
}

/// DUPLICATE_SEQUENCE_NUMBER: it is in the log already.
#[test]
fn a_duplicate_is_delivered() {
    let (options, watch) = Watch::on(options(1), |context| {
        if context.nth == 1 { Fault::StoredThenError(ErrorCode::DUPLICATE_SEQUENCE_NUMBER) } else { Fault::None }
    });
    let mut world = World::new(55, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let deliveries: Vec<Delivery> = (0..3)
        .map(|number| {
            let delivery = [send_one(&mut world, &topic, 1, number)];
            finish(&mut world, &delivery);
            let [delivery] = delivery;
            delivery
        })
        .collect();
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 55);
    assert_eq!(watch.stamps(), [(0, 0), (0, 1), (0, 2)]);
}

/// One partition loses a batch for good and starts a new epoch; the other one, in the middle of its retries, goes on.
#[test]
fn a_new_epoch_is_its_partitions_own() {
    let mut came = [0; 2];
    let (options, watch) = Watch::on(BrokerOptions { ack_delay: 5 * MS, ..options(2) }, move |context| {
        came[context.partition as usize] += 1;
        match (context.partition, came[context.partition as usize]) {
            (0, 4) => Fault::Error(ErrorCode::INVALID_RECORD),
            (1, 4..8) => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            _ => Fault::None,
        }
    });
    let config = config().linger(Duration::ZERO).retry_backoff(5 * MS, 5 * MS);
    let mut world = World::new(56, options, config);
    let topic = world.topic("t");
    let deliveries: Vec<Delivery> = (0..60).map(|number| send_one(&mut world, &topic, 2, number)).collect();
    let outcomes = finish(&mut world, &deliveries);
    let of = |partition: i32| watch.all().into_iter().filter(move |met| met.partition == partition);
    assert!(of(0).any(|met| met.epoch == 1), "{:?}", watch.all());
    assert!(of(1).all(|met| met.epoch == 0), "{:?}", watch.all());
    assert!(of(1).count() > of(1).map(|met| met.sequence).collect::<HashSet<_>>().len(), "it was retried");
    assert!(outcomes.iter().skip(1).step_by(2).all(Result::is_ok), "{outcomes:?}");
    let odd: Vec<String> = (0..30).map(|n| format!("{:06}", 2 * n + 1)).collect();
    assert_eq!(world.log("t", 1), odd);
    let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(!failed.is_empty() && failed.iter().all(|error| error.written() == Written::No), "{failed:?}");
}

/// A stuck partition, whose numbers are in doubt, holds up nobody else at the same broker.
#[test]
fn a_partition_in_doubt_does_not_stop_others_of_its_broker() {
    let (options, watch) = Watch::on(options(2), |context| match (context.partition, context.base_sequence) {
        (0, 1..) => Fault::Error(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
        (0, 0) if context.producer_epoch > 0 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        _ => Fault::None,
    });
    let mut world = World::new(57, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let first = [send_one(&mut world, &topic, 2, 0)];
    finish(&mut world, &first);
    let stuck = send_one(&mut world, &topic, 2, 2);
    for number in 0..100 {
        let other = [send_one(&mut world, &topic, 2, 2 * number + 1)];
        assert!(finish(&mut world, &other)[0].is_ok());
    }
    assert!(stuck.try_result().is_none());
    assert!(watch.all().iter().any(|met| met.partition == 0 && met.epoch == 1), "{:?}", watch.all());
}

/// The leader moves with batches in flight, and metadata says so before the old one has answered: the partition changes
/// its connection only when nothing is on the old one, so answers of two brokers never cross.
#[test]
fn answers_of_two_leaders_never_cross() {
    for idempotent in [true, false] {
        let options = BrokerOptions { brokers: 2, ack_delay: 10 * MS, ..options(1) };
        let (options, watch) = Watch::on(options, |_| Fault::None);
        let config = config().linger(Duration::ZERO).enable_idempotence(idempotent).retry_backoff(MS, MS);
        let mut world = World::new(58, options, config);
        let topic = world.topic("t");
        let mut deliveries = vec![send_one(&mut world, &topic, 1, 0)];
        finish(&mut world, &deliveries);
        for number in 1..5 {
            deliveries.push(send_one(&mut world, &topic, 1, number));
        }
        assert_eq!(world.sender.partitions[0].unacked, 4);
        world.model.move_leader("t", 0, 1);
        // What is known of all topics comes with it.
        let other = world.shared.topic("other");
        world.shared.want(&other);
        world.run_while(|world| world.sender.partitions[0].leader == 0);
        assert!(world.sender.partitions[0].unacked > 0, "the old leader has not answered yet");
        for number in 5..12 {
            deliveries.push(send_one(&mut world, &topic, 1, number));
            let produce = |request: &Request| matches!(request.asked, Asked::Produce { .. });
            let connections = world.sender.connections.values();
            let lanes = connections.filter(|connection| connection.unanswered.iter().any(produce)).count();
            assert!(lanes <= 1, "in flight on {lanes} connections: {:?}", world.sender.partitions[0]);
        }
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 1, &outcomes, 58);
        let met = watch.all();
        assert!(met.iter().map(|met| met.node).is_sorted() && met.iter().all(|met| met.epoch <= 0), "{met:?}");
    }
}

/// A world whose partition 0 is `before` records short of the last sequence number.
fn near_the_wrap(seed: u64, options: BrokerOptions, before: u32) -> (World, Arc<crate::sender::TopicShared>) {
    let mut world = World::new(seed, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    world.run_while(|world| !matches!(world.sender.identity, Identity::Known(..)));
    let Identity::Known(id, epoch) = world.sender.identity else { unreachable!() };
    world.sender.partitions[0].sequences.stamp((id, epoch), i32::MAX as u32 + 1 - before);
    (world, topic)
}

/// Across 2,147,483,647 to 0 with batches in flight, refused and sent again.
#[test]
fn retries_pass_the_wrap_of_sequence_numbers() {
    for before in [3, 10, 12, 13] {
        let (options, watch) = Watch::on(BrokerOptions { ack_delay: 10 * MS, ..options(1) }, |context| {
            if context.nth % 6 == 3 { Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS) } else { Fault::None }
        });
        let (mut world, topic) = near_the_wrap(59, options, before);
        let mut deliveries = Vec::new();
        for number in 0..10 {
            deliveries.extend(send_all(&mut world, &topic, 1, number * 3..number * 3 + 3, Duration::ZERO));
            pass(&mut world, MS);
            if number == 0 {
                finish(&mut world, &deliveries);
            }
        }
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 1, &outcomes, 59);
        let stamps = watch.stamps();
        assert_eq!(stamps[0], (0, i32::MAX - before as i32 + 1));
        assert!(stamps.iter().all(|(epoch, sequence)| *epoch == 0 && *sequence >= 0), "{stamps:?}");
        assert!(stamps.iter().any(|(_, sequence)| *sequence < 30), "{stamps:?}");
    }
}

/// Five batches stored around the wrap, their answers lost, and a leader that remembers the last of them only.
#[test]
fn a_restarted_leader_passes_the_wrap_of_sequence_numbers() {
    for before in 1..7 {
        let (options, watch) = Watch::on(BrokerOptions { ack_delay: 30 * MS, ..options(1) }, |_| Fault::None);
        let (mut world, topic) = near_the_wrap(60, options, before);
        restart_with_five_stored(&mut world, &topic, &watch);
    }
}

/// Out of order four times, then a duplicate: all are acknowledged, nothing twice, and no new epoch for that.
#[test]
fn a_restarted_leader_needs_no_new_epoch() {
    let (options, watch) = Watch::on(BrokerOptions { ack_delay: 30 * MS, ..options(1) }, |_| Fault::None);
    let mut world = World::new(61, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    restart_with_five_stored(&mut world, &topic, &watch);
}

fn restart_with_five_stored(world: &mut World, topic: &crate::sender::TopicShared, watch: &Watch) {
    let mut deliveries = vec![send_one(world, topic, 1, 0)];
    finish(world, &deliveries);
    deliveries.extend((1..6).map(|number| send_one(world, topic, 1, number)));
    world.run_while(|world| world.log("t", 0).len() < 6);
    let before = watch.len();
    assert!(deliveries.iter().filter(|delivery| delivery.try_result().is_none()).count() >= 1);
    world.kill(0);
    let outcomes = finish(world, &deliveries);
    check_log(world, "t", 1, &outcomes, 61);
    assert!(watch.len() > before, "some were sent again");
    assert!(watch.stamps().iter().all(|(epoch, _)| *epoch == 0), "{:?}", watch.stamps());
}

/// Time runs out around the wrap, in any order of losses and refusals: what is told is true.
#[test]
fn expiry_passes_the_wrap_of_sequence_numbers() {
    let mut failed = 0;
    for seed in 0..40 {
        let mut chance = Random::new(seed ^ 0x3d);
        let options = options(1).on_produce(move |_| match chance.next() % 10 {
            0 => Fault::HangAfter,
            1 => Fault::HangBefore,
            2 => Fault::CloseAfter,
            3 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            4 => Fault::Delay(250 * MS),
            _ => Fault::None,
        });
        let mut world = World::new(seed, options, config().request_timeout(300 * MS).delivery_timeout(700 * MS));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        world.run_while(|world| !matches!(world.sender.identity, Identity::Known(..)));
        let Identity::Known(id, epoch) = world.sender.identity else { unreachable!() };
        world.sender.partitions[0].sequences.stamp((id, epoch), i32::MAX as u32 - 10);
        let deliveries = send_all(&mut world, &topic, 1, 0..60, 20 * MS);
        let outcomes = finish(&mut world, &deliveries);
        pass(&mut world, 20 * SECOND);
        check_told(&world, &outcomes, seed);
        failed += outcomes.iter().filter(|outcome| outcome.is_err()).count();
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
    assert!(failed > 0, "nothing expired");
}

/// Stored and not confirmed in time (REQUEST_TIMED_OUT with an offset), then the leader changes: reported once, stored
/// once.
#[test]
fn stored_but_timed_out_and_a_new_leader_is_stored_once() {
    let options = BrokerOptions { brokers: 2, ack_delay: 10 * MS, ..options(1) };
    let (options, watch) = Watch::on(options, |context| {
        if context.nth == 1 { Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT) } else { Fault::None }
    });
    let mut world = World::new(62, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = vec![send_one(&mut world, &topic, 1, 0)];
    finish(&mut world, &deliveries);
    deliveries.push(send_one(&mut world, &topic, 1, 1));
    world.run_while(|_| watch.len() < 2);
    world.model.move_leader("t", 0, 1);
    deliveries.push(send_one(&mut world, &topic, 1, 2));
    let outcomes = finish(&mut world, &deliveries);
    check_log(&world, "t", 1, &outcomes, 62);
    assert!(watch.all().iter().any(|met| met.node == 1 && met.sequence == 1), "{:?}", watch.all());
    assert_eq!(outcomes[1].as_ref().unwrap().offset(), Some(1), "where the first copy is");
}

/// A close that does not wait, while the producer id is used up and nobody gives a new one.
#[test]
fn a_close_while_a_new_producer_id_is_wanted_returns() {
    let options = options(1)
        .on_produce(|context| if context.nth == 1 { Fault::Error(ErrorCode::INVALID_RECORD) } else { Fault::None });
    let mut world = World::new(63, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let first = [send_one(&mut world, &topic, 1, 0)];
    finish(&mut world, &first);
    while world.sender.partitions[0].sequences.bump() {}
    let bad = [send_one(&mut world, &topic, 1, 1)];
    world.run_while(|_| bad[0].try_result().is_none());
    world.kill_for(0, 1000 * SECOND);
    let waiting = [send_one(&mut world, &topic, 1, 2)];
    pass(&mut world, SECOND);
    assert!(waiting[0].try_result().is_none(), "there is no producer id");
    world.shared.command(Command::Close(Duration::ZERO));
    let asked = world.now;
    world.run_while(|world| !world.sender.is_closed());
    assert!(world.now - asked < SECOND, "{:?}", world.now - asked);
    assert_eq!((world.shared.report().unwrap().records(), waiting[0].try_result().unwrap().is_err()), (1, true));
    assert_eq!(world.accumulator.free(), free);
}
