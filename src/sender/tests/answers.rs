//! Every error code that an answer to Produce may have, stored and not stored, with idempotence and without.

use std::time::Duration;

use super::world::World;
use super::{MS, Outcome, check_told, config, finish, options, send_all};
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::ack::{Decision, Refusal};
use crate::testing::{ErrorCode, Fault, TimestampType};

/// Those of the table, and some that no broker answers Produce with.
fn codes() -> impl Iterator<Item = ErrorCode> {
    (-1..=130).chain([-2, 12_345, i16::MIN, i16::MAX]).filter(|code| *code != 0).map(ErrorCode)
}

/// One record; ten in a batch that meets `fault`; one more. What became of them.
fn ten(fault: Fault, idempotent: bool) -> (World, Vec<Outcome>) {
    let options = options(1).on_produce(move |context| if context.nth == 1 { fault } else { Fault::None });
    let mut world = World::new(40, options, config().linger(10 * MS).enable_idempotence(idempotent));
    let topic = world.topic("t");
    let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &deliveries);
    deliveries.extend(send_all(&mut world, &topic, 1, 1..11, Duration::ZERO));
    finish(&mut world, &deliveries);
    deliveries.extend(send_all(&mut world, &topic, 1, 11..12, Duration::ZERO));
    let outcomes = finish(&mut world, &deliveries);
    assert!(outcomes[0].is_ok() && outcomes[11].is_ok(), "{fault:?}: what follows goes on: {:?}", outcomes[11]);
    (world, outcomes)
}

fn failed_as(outcomes: &[Outcome], written: Written, code: ErrorCode) {
    for outcome in &outcomes[1..11] {
        let error = outcome.as_ref().unwrap_err();
        assert_eq!((error.written(), error.attempts()), (written, 1), "{error}");
        assert_eq!(error.broker().map(|broker| broker.code()), Some(code), "{error}");
        let kind = match code {
            ErrorCode::UNSUPPORTED_VERSION => DeliveryErrorKind::UnsupportedVersion,
            ErrorCode::MESSAGE_TOO_LARGE => DeliveryErrorKind::TooLarge,
            code => DeliveryErrorKind::Broker(code),
        };
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn refused_once_and_not_stored() {
    let told_of_duplicates = |code: &ErrorCode| *code == ErrorCode::DUPLICATE_SEQUENCE_NUMBER;
    for (code, idempotent) in codes().flat_map(|code| [(code, true), (code, false)]) {
        if told_of_duplicates(&code) && idempotent {
            continue;
        }
        let (world, outcomes) = ten(Fault::Error(code), idempotent);
        check_told(&world, &outcomes, 40);
        let refusal = Refusal { records: 10, named: 0, idempotent };
        match Decision::of(code, &refusal) {
            Decision::Fail => failed_as(&outcomes, Written::No, code),
            _ => assert!(outcomes.iter().all(Result::is_ok), "{code}, idempotent {idempotent}: {outcomes:?}"),
        }
    }
}

/// An answer with an error and an offset: appended, and not confirmed.
#[test]
fn stored_and_not_confirmed() {
    for (code, idempotent) in codes().flat_map(|code| [(code, true), (code, false)]) {
        let (world, outcomes) = ten(Fault::StoredThenError(code), idempotent);
        let log = world.log("t", 0);
        let open = |outcome: &Outcome| outcome.as_ref().is_err_and(|error| error.written() == Written::Possibly);
        match code {
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER if idempotent => assert!(outcomes.iter().all(Result::is_ok)),
            // One that was stored is not out of order.
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID if idempotent => continue,
            code if code.is_retriable() => {
                assert!(outcomes.iter().all(Result::is_ok), "{code}: {outcomes:?}");
                let times = if idempotent { 1 } else { 2 };
                assert_eq!(log.len(), 2 + 10 * times, "{code}: without numbers it is stored again");
                continue;
            }
            // In parts, without numbers: again.
            ErrorCode::MESSAGE_TOO_LARGE if !idempotent => continue,
            ErrorCode::MESSAGE_TOO_LARGE => assert!(outcomes[1..11].iter().all(open), "{outcomes:?}"),
            code => failed_as(&outcomes, Written::Possibly, code),
        }
        assert_eq!(log.len(), 12, "{code}");
        check_told(&world, &outcomes, 40);
    }
}

/// A broker that wants nothing more of a producer id: the partition goes on with another one.
#[test]
fn a_refused_producer_id_is_replaced() {
    for code in [47, 49, 90].map(ErrorCode) {
        let (world, _) = ten(Fault::Error(code), true);
        let records = world.model.records("t", 0);
        let (first, last) = (&records[0], &records[records.len() - 1]);
        assert_ne!(first.producer_id, last.producer_id, "{code}");
        assert_eq!((last.producer_epoch, last.sequence), (0, 0));
    }
    let (world, _) = ten(Fault::Error(ErrorCode::INVALID_RECORD), true);
    let records = world.model.records("t", 0);
    assert_eq!((records[1].producer_id, records[1].producer_epoch), (records[0].producer_id, 1), "a new epoch will do");
}

/// A duplicate's answer carries the time of the stored batch. That is the records' own only where brokers stamp them.
#[test]
fn a_duplicates_time_is_not_the_records() {
    for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
        let mut options = options(1);
        options.topic.timestamp_type = timestamp_type;
        let options = options.on_produce(|context| match context.nth {
            1 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
            _ => Fault::None,
        });
        let mut world = World::new(41, options, config().linger(10 * MS));
        let topic = world.topic("t");
        let mut deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
        finish(&mut world, &deliveries);
        deliveries.extend(send_all(&mut world, &topic, 1, 1..3, Duration::ZERO));
        let until = world.now + 5 * MS;
        world.run_until(until);
        deliveries.extend(send_all(&mut world, &topic, 1, 3..5, Duration::ZERO));
        let outcomes = finish(&mut world, &deliveries);
        check_told(&world, &outcomes, 41);
        let times: Vec<i64> = outcomes.iter().map(|outcome| outcome.as_ref().unwrap().timestamp()).collect();
        let stored: Vec<i64> = world.model.records("t", 0).iter().map(|record| record.timestamp).collect();
        assert_eq!(times, stored, "{timestamp_type:?}");
        assert_eq!(times[1] == times[4], timestamp_type == TimestampType::LogAppendTime, "{times:?}");
    }
}
