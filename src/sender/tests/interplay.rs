//! Where two of the sender's mechanisms meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::world::World;
use super::{MS, check_told, config, finish, options, pass, send_all, send_one};
use crate::testing::{BrokerOptions, ErrorCode, Fault};

/// A batch without its refused record waits for a new epoch; the last one in flight is refused by a leader that is only
/// hearsay. Back to the leader that metadata names: but the new epoch is taken with that batch, not without it.
#[test]
fn a_doubted_hint_takes_no_epoch_without_the_batch_that_was_refused() {
    let options =
        BrokerOptions { brokers: 2, ack_delay: 20 * MS, ..options(1) }.on_produce(|context| match context.nth {
            3 => Fault::RecordErrors(ErrorCode::INVALID_RECORD, &[1]),
            4 => Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            _ => Fault::None,
        });
    let mut world = World::new(90, options, config().linger(2 * MS));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    world.model.move_leader("t", 0, 1);
    // Metadata lags behind.
    world.spoil = Some(Box::new(|response| {
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            (partition.leader_id, partition.leader_epoch) = (0, 0);
        }
    }));
    let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    finish(&mut world, &second);
    assert!(world.sender.partitions[0].hint.is_some());
    let mut deliveries = send_all(&mut world, &topic, 1, 2..5, Duration::ZERO);
    let until = world.now + 3 * MS;
    world.run_until(until);
    deliveries.extend(send_all(&mut world, &topic, 1, 5..6, Duration::ZERO));
    let until = world.now + 3 * MS;
    world.run_until(until);
    assert_eq!(world.sender.partitions[0].unacked, 2);
    let outcomes = finish(&mut world, &deliveries);
    let failed: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false, false], "{outcomes:?}");
    assert_eq!(world.log("t", 0), ["000000", "000001", "000002", "000004", "000005"]);
}

/// What the old leader acknowledges says nothing of what the new one knows of this producer: one batch at a time there.
#[test]
fn an_answer_of_the_old_leader_opens_no_window_on_the_new_one() {
    let options = BrokerOptions { brokers: 2, ack_delay: 300 * MS, ..options(1) };
    let mut world = World::new(91, options, config().linger(Duration::ZERO).metadata_max_age(5 * MS));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    world.run_while(|world| world.log("t", 0).len() < 2);
    world.model.move_leader("t", 0, 1);
    world.run_while(|world| world.sender.partitions[0].leader != 1);
    assert!(second[0].try_result().is_none() && !world.sender.partitions[0].sequences.acked());
    assert!(finish(&mut world, &second)[0].is_ok());
    assert!(!world.sender.partitions[0].sequences.acked());
    let third = send_all(&mut world, &topic, 1, 2..3, Duration::ZERO);
    assert!(finish(&mut world, &third)[0].is_ok());
    assert!(world.sender.partitions[0].sequences.acked());
}

/// Three batches are stored, their answers lost; the broker comes back when the first has almost no time left, and
/// remembers the last alone. While that one waits to be asked about again, the first runs out of time: the others have
/// theirs.
#[test]
fn what_expires_during_a_search_takes_nothing_behind_it_along() {
    let options = options(1).on_produce(|context| match context.nth {
        // The search: first the oldest, then the newest, which is told to come back later.
        5 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        _ => Fault::None,
    });
    let config = config().linger(Duration::ZERO).request_timeout(400 * MS).retry_backoff(100 * MS, 100 * MS);
    let config = config.delivery_timeout(2000 * MS).reconnect_backoff(MS, MS);
    let mut world = World::new(92, options, config);
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    let begun = world.now;
    world.storm.mute = 1000;
    let mut deliveries = Vec::new();
    for number in 1..4 {
        deliveries.push(send_one(&mut world, &topic, 1, number));
        pass(&mut world, 99 * MS);
    }
    assert_eq!(world.log("t", 0), ["000000", "000001", "000002", "000003"]);
    world.storm.mute = 0;
    world.kill_for(0, 1920 * MS - (world.now - begun));
    let outcomes = finish(&mut world, &deliveries);
    let failed: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
    assert_eq!(failed, [true, false, false], "{outcomes:?}");
    check_told(&world, &[&[first[0].try_result().unwrap()], &outcomes[..]].concat(), 92);
}

/// One partition's producer id is refused, and there is no other to be had: partitions that have theirs go on.
#[test]
fn a_producer_id_that_cannot_be_had_fails_those_that_need_one() {
    let hold = Arc::new(AtomicBool::new(false));
    let held = hold.clone();
    let options = options(2).on_produce(move |context| match (context.partition, held.load(Ordering::Relaxed)) {
        (0, true) => Fault::Error(ErrorCode::INVALID_PRODUCER_EPOCH),
        (1, true) => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        _ => Fault::None,
    });
    let mut world = World::new(93, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 2, 0..2, Duration::ZERO);
    finish(&mut world, &first);
    hold.store(true, Ordering::Relaxed);
    (world.storm.identity, world.storm.identity_code) = (1000, ErrorCode::CLUSTER_AUTHORIZATION_FAILED.0);
    let mut deliveries = send_all(&mut world, &topic, 2, 2..4, Duration::ZERO);
    world.run_while(|_| deliveries[0].try_result().is_none());
    // It needs a new producer id, and hears that there is none.
    deliveries.extend(send_all(&mut world, &topic, 2, 4..5, Duration::ZERO));
    world.run_while(|_| deliveries[2].try_result().is_none());
    hold.store(false, Ordering::Relaxed);
    let outcomes = finish(&mut world, &deliveries);
    let failed: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
    assert_eq!(failed, [true, false, true], "{outcomes:?}");
}
