//! Records that a broker refuses by name (KIP-467): they fail alone, with their own words, and their neighbours are sent
//! again: each once, in order. A topic that wants keys is the honest case; lists that make no sense are the other.

use std::collections::BTreeSet;
use std::time::Duration;

use super::properties::seeds;
use super::world::{Weather, World};
use super::{MS, Outcome, config, finish, no_memory_leaked, options};
use crate::completion::Delivery;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::backoff::Random;
use crate::sender::{Command, Ticket, TopicShared};
use crate::testing::{BrokerOptions, ErrorCode, Fault};
use crate::wire::record::Fields;

/// A topic whose records must have keys: who sends one without sends poison.
fn keyed() -> BrokerOptions {
    let mut options = options(1);
    options.topic.compacted = true;
    options
}

/// Sends the numbers, of different lengths; `poison` have no key.
fn send(
    world: &mut World,
    topic: &TopicShared,
    numbers: std::ops::Range<usize>,
    poison: impl Fn(usize) -> bool,
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let value = format!("{number:06}{}", "x".repeat(number * 7 % 90));
        let key = (!poison(number)).then_some(&b"key"[..]);
        let fields = Fields { key, value: Some(value.as_bytes()), headers: &[] };
        loop {
            if let Some(delivery) = world.append(topic, 0, &fields, None) {
                deliveries.push(delivery);
                break;
            }
            world.turn();
        }
    }
    deliveries
}

fn wait(world: &mut World, pause: Duration) {
    let until = world.now + pause;
    world.run_until(until);
}

/// The numbers in the log, each with the whole of its value.
fn stored(world: &World) -> Vec<usize> {
    let number = |value: String| {
        let number: usize = value[..6].parse().unwrap();
        assert_eq!(value.len(), 6 + number * 7 % 90, "{value}");
        number
    };
    world.log("t", 0).into_iter().map(number).collect()
}

/// The log has what was delivered, once and in order, at the offsets that were told; nothing that is told as not
/// written; and what is open at most once. Returns what failed.
fn check(world: &World, outcomes: &[Outcome], seed: u64) -> Vec<usize> {
    let log = stored(world);
    assert!(log.is_sorted_by(|a, b| a < b), "seed {seed}: twice or out of order: {log:?}");
    let there: BTreeSet<usize> = log.iter().copied().collect();
    let mut failed = Vec::new();
    for (number, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(metadata) => {
                assert!(there.contains(&number), "seed {seed}: {number} was acknowledged");
                if let Some(offset) = metadata.offset() {
                    assert_eq!(log[offset as usize], number, "seed {seed}");
                }
            }
            Err(error) => {
                failed.push(number);
                assert!(error.written() == Written::Possibly || !there.contains(&number), "seed {seed}: {error}");
            }
        }
    }
    failed
}

fn refused_alone(outcome: &Outcome) {
    let error = outcome.as_ref().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Broker(ErrorCode::INVALID_RECORD), Written::No));
    let words = error.broker().and_then(|broker| broker.message()).unwrap_or_default();
    assert!(words.contains("without key") && error.to_string().contains("127.0.0.1:1000"), "{error}");
}

/// Ten records in a batch, some of them poison, at every place of the batch.
#[test]
fn good_neighbours_are_sent_by_themselves() {
    for idempotent in [true, false] {
        for poison in [&[4][..], &[0], &[9], &[0, 1, 2], &[7, 8, 9], &[1, 3, 5, 7, 9], &[0, 2, 3, 6, 9]] {
            let config = config().linger(10 * MS).enable_idempotence(idempotent);
            let mut world = World::new(20, keyed(), config);
            let topic = world.topic("t");
            let free = world.accumulator.free();
            let deliveries = send(&mut world, &topic, 0..10, |number| poison.contains(&number));
            let outcomes = finish(&mut world, &deliveries);
            assert_eq!(check(&world, &outcomes, 20), poison);
            poison.iter().for_each(|number| refused_alone(&outcomes[*number]));
            let good = outcomes.iter().flatten();
            assert!(good.map(|m| m.offset().unwrap()).eq(0..10 - poison.len() as i64), "{outcomes:?}");
            let stats = world.shared.stats();
            assert_eq!((stats.failed_not_written, stats.failed_possibly_written), (poison.len() as u64, 0));
            drop(deliveries);
            no_memory_leaked(&mut world, free);
        }
    }
}

/// Five batches in flight, of which two have poison: what stands behind waits, is stamped again and arrives in order.
#[test]
fn order_holds_behind_a_poisoned_batch() {
    let mut world = World::new(21, BrokerOptions { ack_delay: 20 * MS, ..keyed() }, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let poison = |number| number == 3 || number == 8;
    let mut deliveries = send(&mut world, &topic, 0..1, poison);
    finish(&mut world, &deliveries);
    for first in [1, 4, 7, 10, 13] {
        deliveries.extend(send(&mut world, &topic, first..first + 3, poison));
        let ticket = std::sync::Arc::new(Ticket::default());
        world.shared.command(Command::Flush(ticket));
        wait(&mut world, MS);
    }
    assert_eq!(world.sender.partitions[0].unacked, 5);
    let outcomes = finish(&mut world, &deliveries);
    assert_eq!(check(&world, &outcomes, 21), [3, 8]);
    let records = world.model.records("t", 0);
    let epochs: Vec<i16> = records.iter().map(|record| record.producer_epoch).collect();
    // Both were refused before anything was stamped again.
    assert!(epochs[0] == 0 && epochs[1..].iter().all(|epoch| *epoch == 1), "{epochs:?}");
}

/// A batch whose records are all poison, and one of a single record.
#[test]
fn nothing_is_left_to_send() {
    for count in [1, 10] {
        let mut world = World::new(22, keyed(), config().linger(10 * MS));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let deliveries = send(&mut world, &topic, 0..count, |_| true);
        let outcomes = finish(&mut world, &deliveries);
        assert_eq!(check(&world, &outcomes, 22).len(), count);
        outcomes.iter().for_each(refused_alone);
        let next = send(&mut world, &topic, 0..3, |_| false);
        assert!(finish(&mut world, &next).iter().all(Result::is_ok));
        drop((deliveries, next));
        no_memory_leaked(&mut world, free);
    }
}

/// What becomes of ten records in a batch that meets the faults, one each time it is sent; then of one more.
fn ten(faults: &'static [Fault]) -> Vec<Outcome> {
    let mut options = options(1);
    options = options.on_produce(|context| faults.get(context.nth as usize).copied().unwrap_or(Fault::None));
    let mut world = World::new(23, options, config().linger(10 * MS));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let mut deliveries = send(&mut world, &topic, 0..10, |_| false);
    finish(&mut world, &deliveries);
    deliveries.extend(send(&mut world, &topic, 10..11, |_| false));
    let outcomes = finish(&mut world, &deliveries);
    check(&world, &outcomes, 23);
    assert!(outcomes[10].is_ok(), "what follows goes on: {:?}", outcomes[10]);
    drop(deliveries);
    no_memory_leaked(&mut world, free);
    outcomes
}

fn failed(outcomes: &[Outcome]) -> Vec<usize> {
    (0..outcomes.len()).filter(|number| outcomes[*number].is_err()).collect()
}

/// A list may say anything: what it cannot mean is left out, and a batch of which it means nothing fails as a whole.
#[test]
fn a_list_that_makes_no_sense() {
    const BAD: ErrorCode = ErrorCode::INVALID_RECORD;
    const ALL: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    assert_eq!(failed(&ten(&[Fault::RecordErrors(BAD, &[])])), ALL);
    assert_eq!(failed(&ten(&[Fault::RecordErrors(BAD, &[-1, 10, i32::MAX, i32::MIN])])), ALL);
    assert_eq!(failed(&ten(&[Fault::RecordErrors(BAD, &[7, 2, 7, 2, 10, -1, 2])])), [2, 7]);
    assert_eq!(failed(&ten(&[Fault::RecordErrors(BAD, &[9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3])])), ALL);
    assert_eq!(failed(&ten(&[Fault::RecordErrors(ErrorCode::INVALID_TIMESTAMP, &[5])])), [5]);
    // A list beside an error that does not concern single records changes nothing.
    assert_eq!(failed(&ten(&[Fault::RecordErrors(ErrorCode::POLICY_VIOLATION, &[5])])), ALL);
    assert_eq!(failed(&ten(&[Fault::RecordErrors(ErrorCode::NOT_ENOUGH_REPLICAS, &[5])])), []);
    let outcomes = ten(&[Fault::RecordErrors(BAD, &[4, 6])]);
    for (place, number) in [4, 6].into_iter().enumerate() {
        let error = outcomes[number].as_ref().unwrap_err();
        assert_eq!(error.broker().unwrap().message(), Some(&*format!("not record {}", [4, 6][place])), "its own words");
    }
}

/// Places count in what was sent: cut out again and again, the same batch gets shorter each time.
#[test]
fn cut_out_again_and_again() {
    const BAD: ErrorCode = ErrorCode::INVALID_RECORD;
    let outcomes =
        ten(&[Fault::RecordErrors(BAD, &[0, 5]), Fault::RecordErrors(BAD, &[0, 7]), Fault::RecordErrors(BAD, &[2])]);
    // 1 2 3 4 6 7 8 9, then 2 3 4 6 7 8, then 2 3 6 7 8.
    assert_eq!(failed(&outcomes), [0, 1, 4, 5, 9]);
}

/// Too large, then poisoned; poisoned, then too large.
#[test]
fn cut_out_of_parts_and_parts_of_what_was_cut() {
    const BAD: Fault = Fault::RecordErrors(ErrorCode::INVALID_RECORD, &[1]);
    const LARGE: Fault = Fault::Error(ErrorCode::MESSAGE_TOO_LARGE);
    assert_eq!(failed(&ten(&[LARGE, BAD])), [1]);
    assert_eq!(failed(&ten(&[BAD, LARGE])), [1]);
    assert_eq!(failed(&ten(&[BAD, LARGE, BAD])), [1, 2]);
    let outcomes = ten(&[LARGE, BAD, BAD, LARGE, BAD]);
    assert_eq!(failed(&outcomes).len(), 3, "{outcomes:?}");
}

/// An earlier copy was lost. Where it was not stored, nothing is lost but the poison; where it was, nobody can tell of
/// the poison, and nothing is stored twice.
#[test]
fn poison_in_a_batch_that_may_be_stored() {
    const BAD: Fault = Fault::RecordErrors(ErrorCode::INVALID_RECORD, &[1, 4]);
    for lost in
        [&[Fault::CloseBefore, BAD][..], &[Fault::HangBefore, BAD], &[Fault::CloseBefore, BAD, Fault::CloseBefore]]
    {
        let outcomes = ten(Box::leak(lost.to_vec().into_boxed_slice()));
        assert_eq!(failed(&outcomes), [1, 4], "{lost:?}");
        assert!(
            [1, 4].iter().all(|number| outcomes[*number].as_ref().is_err_and(|e| e.written() == Written::Possibly))
        );
    }
    const UNCONFIRMED: Fault = Fault::StoredThenError(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND);
    for stored in [&[Fault::CloseAfter, BAD][..], &[Fault::HangAfter, BAD], &[UNCONFIRMED, BAD]] {
        let outcomes = ten(Box::leak(stored.to_vec().into_boxed_slice()));
        let open = outcomes[..10].iter().all(|o| o.as_ref().is_err_and(|e| e.written() == Written::Possibly));
        assert!(open, "{stored:?}: {outcomes:?}");
    }
}

/// The batch behind it was accepted, so it is in the log as a whole, whatever is said of its second copy: as when its
/// timestamps have become too old meanwhile.
#[test]
fn poison_in_a_batch_that_is_stored() {
    const OLD: Fault = Fault::RecordErrors(ErrorCode::INVALID_TIMESTAMP, &[1]);
    let options = BrokerOptions { ack_delay: 20 * MS, ..options(1) }.on_produce(|context| match context.nth {
        1 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
        3 => OLD,
        _ => Fault::None,
    });
    let mut world = World::new(27, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = send(&mut world, &topic, 0..1, |_| false);
    finish(&mut world, &deliveries);
    for first in [1, 4] {
        deliveries.extend(send(&mut world, &topic, first..first + 3, |_| false));
        world.shared.command(Command::Flush(std::sync::Arc::new(Ticket::default())));
        wait(&mut world, MS);
    }
    assert_eq!(world.sender.partitions[0].unacked, 2);
    let outcomes = finish(&mut world, &deliveries);
    assert_eq!(check(&world, &outcomes, 27), [0_usize; 0]);
    assert_eq!(stored(&world), [0, 1, 2, 3, 4, 5, 6]);
}

/// The answer comes when its time is over: the records are told already, and the memory comes back.
#[test]
fn a_list_that_comes_too_late() {
    let options = BrokerOptions { ack_delay: 600 * MS, ..keyed() };
    let config = config().request_timeout(500 * MS).delivery_timeout(550 * MS).linger(10 * MS);
    let mut world = World::new(24, options, config.request_timeout(Duration::from_millis(540)));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let deliveries = send(&mut world, &topic, 0..10, |number| number == 3);
    let outcomes = finish(&mut world, &deliveries);
    assert!(outcomes.iter().all(|o| o.as_ref().is_err_and(|e| e.kind() == DeliveryErrorKind::Expired)), "{outcomes:?}");
    drop(deliveries);
    no_memory_leaked(&mut world, free);
}

/// Several segments under one header, poison at their ends, and a batch with thousands of records of which every other
/// one is poison.
#[test]
fn long_batches() {
    let options = BrokerOptions { ack_delay: 20 * MS, ..keyed() };
    for every in [2, 250, 1700] {
        let mut world = World::new(25, BrokerOptions { ack_delay: options.ack_delay, ..keyed() }, config());
        let topic = world.topic("t");
        let free = world.accumulator.free();
        let poison = |number: usize| number > 0 && (number.is_multiple_of(every) || number % every == 1 && every > 2);
        let mut deliveries = send(&mut world, &topic, 0..1, poison);
        finish(&mut world, &deliveries);
        deliveries.extend(send(&mut world, &topic, 1..3, poison));
        wait(&mut world, 5 * MS);
        // They wait behind that one, in a chain.
        deliveries.extend(send(&mut world, &topic, 3..8000, poison));
        let outcomes = finish(&mut world, &deliveries);
        let expected: Vec<usize> = (0..8000).filter(|number| poison(*number)).collect();
        assert_eq!(check(&world, &outcomes, 25), expected);
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
}

/// Poison in any weather: it never gets into the log, and nothing good is lost but what nobody can know of.
#[test]
fn poison_in_any_weather() {
    let mut sums = [0; 4];
    for seed in seeds() {
        let mut chance = Random::new(seed ^ 0x77);
        let harsh = seed % 3;
        let options = BrokerOptions { brokers: 2, ..keyed() }.on_produce(move |_| match chance.next() % 100 {
            0..3 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            3..6 if harsh > 0 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
            6 if harsh > 1 => Fault::HangAfter,
            7 if harsh > 1 => Fault::HangBefore,
            8..10 => Fault::CloseAfter,
            10..12 => Fault::CloseBefore,
            12..20 => Fault::Delay(5 * MS),
            _ => Fault::None,
        });
        let mut world = World::new(seed, options, config().enable_idempotence(true));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        world.weather = Weather { cut_request: 20, cut_answer: 20, restart: if harsh == 2 { 10 } else { 0 } };
        let rare = 3 + seed as usize % 20;
        let poison = |number: usize| ((number * 2_654_435_761) >> 7).is_multiple_of(rare);
        let mut deliveries = Vec::new();
        for round in 0..60 {
            deliveries.extend(send(&mut world, &topic, round * 5..(round + 1) * 5, poison));
            if seed % 2 == 0 && round % 20 == 19 {
                let node = (world.random.next() % 2) as i32;
                world.model.move_leader("t", 0, node);
            }
            let pause = (world.random.next() % 3) as u32 * MS;
            wait(&mut world, pause);
        }
        world.weather = Weather::default();
        let outcomes = finish(&mut world, &deliveries);
        check(&world, &outcomes, seed);
        let log: BTreeSet<usize> = stored(&world).into_iter().collect();
        for (number, outcome) in outcomes.iter().enumerate() {
            assert!(!(poison(number) && (outcome.is_ok() || log.contains(&number))), "seed {seed}: {number} is poison");
            match outcome {
                Ok(_) => sums[0] += 1,
                Err(_) if poison(number) => sums[1] += 1,
                Err(error) => {
                    assert_eq!(error.written(), Written::Possibly, "seed {seed}: {number} is good: {error}");
                    sums[if log.contains(&number) { 2 } else { 3 }] += 1;
                }
            }
        }
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
    println!("delivered, poison; good and told as possibly written: stored, not stored: {sums:?}");
    assert!(sums[1] > 0 && sums[0] > 50 * (sums[2] + sums[3]), "{sums:?}");
}

/// A broker that has forgotten the producer takes what stands behind a gap. It is not proof of what was cut out before it.
#[test]
fn a_broker_that_forgets() {
    let options = BrokerOptions { ack_delay: 20 * MS, ..keyed() }.on_produce(|context| match context.nth {
        // The batch behind the poisoned one is not confirmed, so that it is asked for again.
        2 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
        _ => Fault::None,
    });
    let mut world = World::new(26, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = send(&mut world, &topic, 0..1, |_| false);
    finish(&mut world, &deliveries);
    for first in [1, 4] {
        deliveries.extend(send(&mut world, &topic, first..first + 3, |number| number == 2));
        world.shared.command(Command::Flush(std::sync::Arc::new(Ticket::default())));
        wait(&mut world, MS);
    }
    assert_eq!(world.sender.partitions[0].unacked, 2);
    // The first of the two was looked at, and the other one not yet.
    wait(&mut world, 5 * MS);
    world.model.expire_producers();
    let outcomes = finish(&mut world, &deliveries);
    assert_eq!(failed(&outcomes), [2]);
    refused_alone(&outcomes[2]);
    // Order cannot be kept: the second batch was in the log first.
    assert_eq!(stored(&world), [0, 4, 5, 6, 1, 3]);
}

/// Lists that name any records, limits that come and go, answers that are lost, time that runs out: nothing false is
/// told.
#[test]
fn what_is_told_is_true_whatever_is_named() {
    let mut sums = [0; 3];
    const LISTS: [&[i32]; 6] = [&[0], &[1, 2], &[-4, 3, 99], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[5, 4, 5], &[2, 9, 11]];
    for seed in seeds() {
        let mut chance = Random::new(seed ^ 0x99);
        let options = options(1).on_produce(move |_| match chance.next() % 20 {
            0 | 1 => Fault::CloseAfter,
            2 => Fault::CloseBefore,
            3..8 => Fault::RecordErrors(ErrorCode::INVALID_RECORD, LISTS[(chance.next() % 6) as usize]),
            8 => Fault::Error(ErrorCode::MESSAGE_TOO_LARGE),
            9 if seed % 4 == 0 => Fault::HangAfter,
            10 => Fault::StoredThenError(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
            11 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            12 | 13 => Fault::Delay(10 * MS),
            _ => Fault::None,
        });
        let timeout = if seed % 4 == 0 { 900 } else { 120_000 };
        let config = config().batch_size(1000).delivery_timeout(timeout * MS);
        let mut world = World::new(seed, options, config);
        let topic = world.topic("t");
        let free = world.accumulator.free();
        world.weather = Weather { cut_request: 20, cut_answer: 20, restart: if seed % 2 == 0 { 20 } else { 0 } };
        let mut deliveries = Vec::new();
        for round in 0..60 {
            deliveries.extend(send(&mut world, &topic, round * 4..(round + 1) * 4, |_| false));
            let pause = (world.random.next() % 3) as u32 * MS;
            wait(&mut world, pause);
        }
        world.weather = Weather::default();
        finish(&mut world, &deliveries);
        // Late answers may still come in.
        wait(&mut world, Duration::from_secs(5));
        let outcomes = finish(&mut world, &deliveries);
        check(&world, &outcomes, seed);
        for outcome in &outcomes {
            sums[outcome.as_ref().map_or_else(|e| if e.written() == Written::No { 1 } else { 2 }, |_| 0)] += 1;
        }
        drop(deliveries);
        no_memory_leaked(&mut world, free);
    }
    println!("delivered, not written, possibly written: {sums:?}");
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}");
}
