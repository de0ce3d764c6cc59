//! Records that have less time than `delivery.timeout.ms`: each fails alone and in time, and what is told is true.

use std::sync::Arc;
use std::time::Duration;

use super::world::World;
use super::{MS, Outcome, Watch, check_told, config, finish, no_memory_leaked, options, pass, send_one};
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::{Command, Ticket, TopicShared};
use crate::testing::{BrokerOptions, ErrorCode, Fault, ProduceContext};

const SECOND: Duration = Duration::from_secs(1);

/// Sends the numbers 0, 1, 2… with these limits; `None` has as much time as the configuration gives.
fn send(world: &mut World, topic: &TopicShared, limits: &[Option<Duration>]) -> Vec<Delivery> {
    let send = |(number, limit): (usize, &Option<Duration>)| {
        let value = format!("{number:06}");
        match limit {
            Some(limit) => world.send_within(topic, 0, value.as_bytes(), *limit),
            None => world.send(topic, 0, value.as_bytes()),
        }
    };
    limits.iter().enumerate().filter_map(send).collect()
}

fn world(faults: impl FnMut(&ProduceContext<'_>) -> Fault + Send + 'static, config: ProducerConfig) -> (World, Watch) {
    let (options, watch) = Watch::on(options(1), faults);
    (World::new(77, options, config), watch)
}

fn expired(outcome: &Outcome, written: Written, waited: Duration) {
    let error = outcome.as_ref().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Expired, written), "{error}");
    assert!(error.waited() >= waited && error.waited() < waited + 5 * MS, "{error}");
}

fn delivered(outcomes: &[Outcome], offsets: &[i64]) {
    let told: Vec<_> = outcomes.iter().flatten().map(|metadata| metadata.offset().unwrap_or(-1)).collect();
    assert_eq!(told, offsets, "{outcomes:?}");
}

/// Its leader is away: a record that is not sent yet is taken out of its batch in time, and never sent.
#[test]
fn one_that_was_not_sent_is_taken_out_of_its_batch() {
    for idempotent in [true, false] {
        let (mut world, watch) = world(|_| Fault::None, config().enable_idempotence(idempotent));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        world.kill_for(0, SECOND);
        pass(&mut world, 50 * MS);
        let short = Some(100 * MS);
        let deliveries = send(&mut world, &topic, &[short, None, None, short, Some(200 * MS), None, short]);
        pass(&mut world, 99 * MS);
        assert!(deliveries.iter().all(|delivery| delivery.try_result().is_none()), "not a moment before");
        pass(&mut world, 2 * MS);
        let told: Vec<bool> = deliveries.iter().map(|delivery| delivery.try_result().is_some()).collect();
        assert_eq!(told, [true, false, false, true, false, false, true]);
        let outcomes = finish(&mut world, &deliveries);
        for (number, waited) in [(0, 100), (3, 100), (4, 200), (6, 100)] {
            expired(&outcomes[number], Written::No, waited * MS);
        }
        delivered(&outcomes, &[0, 1, 2]);
        assert_eq!(world.log("t", 0), ["000001", "000002", "000005"]);
        assert_eq!((watch.len(), world.shared.stats().failed_not_written), (1, 4));
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// No answer yet: the record is told, its batch goes on, and the offsets of the others are what they are.
#[test]
fn one_in_flight_is_told_and_its_batch_goes_on() {
    for limits in [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[0, 1, 2]] {
        let (mut world, _) = world(|_| Fault::Delay(300 * MS), config().linger(Duration::ZERO));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let limit = |number| limits.contains(&number).then_some(100 * MS);
        let deliveries = send(&mut world, &topic, &[limit(0), limit(1), limit(2)]);
        let sent = world.now;
        world.run_while(|_| limits.iter().any(|number| deliveries[*number].try_result().is_none()));
        assert!(world.now >= sent + 100 * MS && world.now < sent + 102 * MS);
        let stats = world.shared.stats();
        assert_eq!(stats.failed_possibly_written, limits.len() as u64);
        assert_eq!(stats.in_flight, 3 - limits.len() as u64);
        let outcomes = finish(&mut world, &deliveries);
        limits.iter().for_each(|number| expired(&outcomes[*number], Written::Possibly, 100 * MS));
        delivered(&outcomes, &(0..3).filter(|number| !limits.contains(&(*number as usize))).collect::<Vec<_>>());
        let more = send_one(&mut world, &topic, 1, 3);
        assert!(finish(&mut world, &[more])[0].is_ok());
        assert_eq!(world.log("t", 0).len(), 4);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// Refused for certain, and waiting to be sent again: the record is not sent any more, and the others are, in order.
#[test]
fn one_that_brokers_refused_is_taken_out_of_its_batch() {
    for idempotent in [true, false] {
        let refuse = |context: &ProduceContext<'_>| match context.nth {
            0..4 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            _ => Fault::None,
        };
        let config = config().linger(Duration::ZERO).retry_backoff(100 * MS, 100 * MS).enable_idempotence(idempotent);
        let (mut world, watch) = world(refuse, config);
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let mut deliveries = send(&mut world, &topic, &[None, Some(150 * MS), None]);
        pass(&mut world, MS);
        deliveries.push(send_one(&mut world, &topic, 1, 3));
        let outcomes = finish(&mut world, &deliveries);
        expired(&outcomes[1], Written::No, 150 * MS);
        delivered(&outcomes, &[0, 1, 2]);
        assert_eq!(world.log("t", 0), ["000000", "000002", "000003"]);
        if idempotent {
            assert_eq!(watch.stamps().last(), Some(&(1, 0)), "a new epoch: {:?}", watch.all());
        }
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// Its batch may be stored, the answer lost: it is told as possibly written, goes along when its batch is sent again, and
/// is there once.
#[test]
fn one_that_may_be_stored_stays_in_its_batch() {
    for stored in [true, false] {
        let lose = move |context: &ProduceContext<'_>| match context.nth {
            0 if stored => Fault::HangAfter,
            0 => Fault::HangBefore,
            1..3 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            _ => Fault::None,
        };
        let config = config().linger(Duration::ZERO).retry_backoff(100 * MS, 100 * MS);
        let (mut world, _) = world(lose, config);
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let deliveries = send(&mut world, &topic, &[None, Some(600 * MS), None]);
        let outcomes = finish(&mut world, &deliveries);
        expired(&outcomes[1], Written::Possibly, 600 * MS);
        delivered(&outcomes, &[0, 2]);
        assert_eq!(world.log("t", 0), ["000000", "000001", "000002"]);
        check_told(&world, &outcomes, 77);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// All of a batch are told, while it may be stored: it goes on, so that no number is missing. A copy that may be stored a
/// second time, as there are no numbers, does not.
#[test]
fn a_batch_of_which_all_were_told_goes_on_if_it_has_numbers() {
    for idempotent in [true, false] {
        let hang = |context: &ProduceContext<'_>| if context.nth == 0 { Fault::HangBefore } else { Fault::None };
        let (mut world, watch) = world(hang, config().linger(Duration::ZERO).enable_idempotence(idempotent));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let deliveries = send(&mut world, &topic, &[Some(100 * MS), Some(200 * MS), Some(300 * MS)]);
        let flush = |world: &mut World| {
            let ticket: Arc<Ticket> = Arc::default();
            world.shared.command(Command::Flush(ticket.clone()));
            pass(world, MS);
            ticket
        };
        pass(&mut world, 50 * MS);
        world.kill_for(0, 2 * SECOND);
        pass(&mut world, 50 * MS);
        // Nobody waits for what nobody waits for.
        let early = flush(&mut world);
        let outcomes = finish(&mut world, &deliveries);
        for (outcome, waited) in outcomes.iter().zip([100, 200, 300]) {
            expired(outcome, Written::Possibly, waited * MS);
        }
        pass(&mut world, MS);
        assert!(early.is_done() && flush(&mut world).is_done());
        pass(&mut world, 3 * SECOND);
        let more = send_one(&mut world, &topic, 1, 3);
        assert!(finish(&mut world, &[more])[0].is_ok());
        if idempotent {
            assert_eq!(world.log("t", 0), ["000000", "000001", "000002", "000003"]);
            assert_eq!(watch.stamps(), [(0, 0), (0, 0), (0, 3)]);
        } else {
            assert_eq!(world.log("t", 0), ["000003"]);
        }
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// A batch of which a record was told turns out too large for its topic, or one of its records is refused by itself: what
/// was told is left out, for somebody may be reading its bytes; the others are delivered in parts.
#[test]
fn what_was_told_is_not_written_again() {
    for (error, named) in [(ErrorCode::MESSAGE_TOO_LARGE, &[][..]), (ErrorCode::INVALID_RECORD, &[0, 5])] {
        let refuse = move |context: &ProduceContext<'_>| match context.nth {
            1 => Fault::RecordErrors(error, named),
            _ => Fault::None,
        };
        let (options, watch) = Watch::on(BrokerOptions { ack_delay: 200 * MS, ..options(1) }, refuse);
        let mut world = World::new(78, options, config().linger(Duration::ZERO));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let first = send_one(&mut world, &topic, 1, 9);
        assert!(finish(&mut world, &[first])[0].is_ok());
        let deliveries = send(&mut world, &topic, &[None, None, Some(150 * MS), None, None, None]);
        let outcomes = finish(&mut world, &deliveries);
        expired(&outcomes[2], Written::Possibly, 150 * MS);
        let log = world.log("t", 0);
        match named {
            [] => {
                assert_eq!(log, ["000009", "000000", "000001", "000003", "000004", "000005"], "{outcomes:?}");
            }
            _ => {
                assert!(outcomes[0].is_err() && outcomes[5].is_err(), "{outcomes:?}");
                assert_eq!(log, ["000009", "000001", "000003", "000004"], "{outcomes:?}");
            }
        }
        assert!(watch.len() >= 3);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// Two batches that may be stored are asked about, the newest first, while all that is left of one before them ends: they
/// stay in order.
#[test]
fn what_ends_during_a_search_leaves_the_others_in_order() {
    let faults = |context: &ProduceContext<'_>| match context.nth {
        1 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        2 => Fault::HangBefore,
        // The search: the last one first, then this one.
        4 => Fault::Delay(200 * MS),
        _ => Fault::None,
    };
    let config = config().linger(Duration::ZERO).retry_backoff(100 * MS, 100 * MS).reconnect_backoff(MS, MS);
    let (options, _) = Watch::on(BrokerOptions { ack_delay: 10 * MS, ..options(1) }, faults);
    let mut world = World::new(79, options, config);
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let first = send_one(&mut world, &topic, 1, 9);
    assert!(finish(&mut world, &[first])[0].is_ok());
    let mut deliveries = send(&mut world, &topic, &[Some(50 * MS), Some(250 * MS)]);
    for number in 2..4 {
        pass(&mut world, 2 * MS);
        deliveries.push(send_one(&mut world, &topic, 1, number));
    }
    world.run_while(|world| world.sender.partitions[0].queue.is_empty());
    world.kill_for(0, 10 * MS);
    world.run_while(|_| deliveries[1].try_result().is_none());
    let partition = &world.sender.partitions[0];
    assert_eq!((partition.queue.len(), partition.unacked), (1, 1), "the newest was refused, the other is asked about");
    let outcomes = finish(&mut world, &deliveries);
    for (number, waited) in [(0, 50), (1, 250)] {
        expired(&outcomes[number], Written::No, waited * MS);
    }
    assert!(outcomes[2].is_ok() && outcomes[3].is_ok(), "{outcomes:?}");
    assert_eq!(world.log("t", 0), ["000009", "000002", "000003"]);
    drop(deliveries);
    no_memory_leaked(&mut world, free);
}

/// Two batches are stored, their answers lost; the broker comes back and remembers the last alone, of which all records
/// are told by now. It is asked about all the same, for it tells of the other.
#[test]
fn what_was_told_still_tells_of_what_was_sent_before_it() {
    // In flight or in the queue when its time is over.
    for away in [10 * MS, 200 * MS] {
        let (mut world, watch) = world(|_| Fault::None, config().linger(Duration::ZERO).reconnect_backoff(MS, MS));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let first = send_one(&mut world, &topic, 1, 9);
        assert!(finish(&mut world, &[first])[0].is_ok());
        world.storm.mute = 1000;
        let mut deliveries = vec![send_one(&mut world, &topic, 1, 0)];
        pass(&mut world, 2 * MS);
        deliveries.extend(send(&mut world, &topic, &[Some(100 * MS)]));
        pass(&mut world, 2 * MS);
        assert_eq!(world.log("t", 0), ["000009", "000000", "000000"]);
        world.storm.mute = 0;
        if away < 100 * MS {
            pass(&mut world, 100 * MS);
        }
        world.kill_for(0, away);
        let outcomes = finish(&mut world, &deliveries);
        expired(&outcomes[1], Written::Possibly, 100 * MS);
        assert!(outcomes[0].is_ok(), "{outcomes:?}");
        assert_eq!(world.log("t", 0).len(), 3, "{:?}", watch.all());
        // And what follows is sent under a new epoch, or the old one.
        let more = send_one(&mut world, &topic, 1, 1);
        assert!(finish(&mut world, &[more])[0].is_ok());
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// The limit is shorter than linger: the batch leaves when half of it is over.
#[test]
fn a_batch_lingers_for_half_of_the_limit_at_most() {
    let (mut world, _) = world(|_| Fault::None, config().linger(SECOND));
    let topic = world.topic("t");
    let sent = world.now;
    let deliveries = send(&mut world, &topic, &[None, Some(100 * MS), None]);
    let outcomes = finish(&mut world, &deliveries);
    delivered(&outcomes, &[0, 1, 2]);
    let took = world.now - sent;
    assert!(took >= 50 * MS && took < 60 * MS, "{took:?}");
    // And the next ones linger as ever.
    for (limit, least) in [(None, SECOND), (Some(400 * MS), 200 * MS), (Some(400 * MS), 200 * MS), (None, SECOND)] {
        let sent = world.now;
        let deliveries = send(&mut world, &topic, &[limit]);
        finish(&mut world, &deliveries);
        assert!(world.now - sent >= least, "{:?}", world.now - sent);
    }
}

/// Who comes late to a batch that waits has waited for as long as it has, not for as long as the batch.
#[test]
fn each_is_told_how_long_it_waited_itself() {
    let (mut world, _) = world(|_| Fault::None, config());
    let topic = world.topic("t");
    world.kill_for(0, 10 * SECOND);
    pass(&mut world, 50 * MS);
    let mut deliveries = send(&mut world, &topic, &[None, Some(5200 * MS)]);
    pass(&mut world, 5 * SECOND);
    deliveries.extend(send(&mut world, &topic, &[Some(100 * MS), Some(200 * MS), Some(200 * MS)]));
    let outcomes = finish(&mut world, &deliveries);
    for (number, waited) in [(1, 5200), (2, 100), (3, 200), (4, 200)] {
        expired(&outcomes[number], Written::No, waited * MS);
    }
    assert!(outcomes[0].is_ok());
}

/// A batch full of limits that end together, then one by one: none is told twice, all are told.
#[test]
fn many_limits_end() {
    for delay in [None, Some(3 * SECOND)] {
        let fault = move |_: &ProduceContext<'_>| delay.map_or(Fault::None, Fault::Delay);
        let (mut world, _) = world(fault, config().linger(Duration::ZERO).request_timeout(5 * SECOND));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        if delay.is_none() {
            world.kill_for(0, 3 * SECOND);
            pass(&mut world, 50 * MS);
        }
        let limits: Vec<_> = (0..4000)
            .map(|n| match n % 4 {
                0 => None,
                1 | 2 => Some(500 * MS),
                _ => Some((600 + n as u32 % 800) * MS),
            })
            .collect();
        let deliveries = send(&mut world, &topic, &limits);
        assert_eq!(deliveries.len(), 4000);
        let outcomes = finish(&mut world, &deliveries);
        let mut possibly = 0;
        for (outcome, limit) in outcomes.iter().zip(&limits) {
            match limit {
                Some(limit) => {
                    let sent = outcome.as_ref().is_err_and(|error| error.attempts() > 0);
                    possibly += usize::from(sent);
                    expired(outcome, if sent { Written::Possibly } else { Written::No }, *limit);
                }
                None => assert!(outcome.is_ok(), "{outcome:?}"),
            }
        }
        assert_eq!(possibly > 0, delay.is_some());
        assert_eq!(world.log("t", 0).len(), 1000 + possibly);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// Delivered in time, and its memory used again: the limit means nobody any more. What memory holds bounds what is kept.
#[test]
fn a_limit_ends_with_its_record() {
    let (mut world, _) = world(|_| Fault::None, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    for _ in 0..50 {
        let deliveries = send(&mut world, &topic, &[Some(10 * SECOND); 100]);
        assert!(finish(&mut world, &deliveries).iter().all(Result::is_ok));
    }
    assert!(world.sender.deadlines_kept() < 3000, "{}", world.sender.deadlines_kept());
    let deliveries = send(&mut world, &topic, &[None]);
    pass(&mut world, 11 * SECOND);
    assert!(finish(&mut world, &deliveries)[0].is_ok());
    let stats = world.shared.stats();
    assert_eq!((stats.delivered, stats.failed(), world.sender.deadlines_kept()), (5001, 0, 0));
}

/// With acks=0 what the kernel has taken is as good as it gets.
#[test]
fn without_acks_what_was_sent_is_delivered() {
    let (mut world, _) = world(|_| Fault::None, config().acks(crate::config::Acks::None).enable_idempotence(false));
    let topic = world.topic("t");
    let deliveries = send(&mut world, &topic, &[Some(50 * MS), None]);
    assert!(finish(&mut world, &deliveries).iter().all(Result::is_ok));
    pass(&mut world, SECOND);
    assert_eq!(world.shared.stats().delivered, 2);
}
