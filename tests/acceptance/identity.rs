//! The producer id: what happens while the cluster gives none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmail::testing::hostile::{Asked, Deed, HostileBroker, Occasion, body_at};
use ringmail::{DeliveryErrorKind, ErrorCode, Record, Written};

use crate::{builder, partitions, settled};

const INIT_PRODUCER_ID: i16 = 22;

/// The same answer with an error and no producer id.
fn refuse(asked: &Asked, error: ErrorCode) -> Vec<u8> {
    let mut answer = asked.answer.clone();
    // The frame's size, the response header, throttle_time_ms; then error_code, producer_id and producer_epoch.
    let at = body_at(asked.api, asked.version) + 4;
    answer[at..at + 2].copy_from_slice(&error.0.to_be_bytes());
    answer[at + 2..at + 12].fill(0xff);
    answer
}

/// A broker that answers `error` to InitProducerId until it is told to give an id.
fn stingy(error: ErrorCode) -> (HostileBroker, Arc<AtomicBool>) {
    let allowed = Arc::new(AtomicBool::new(false));
    let gives = allowed.clone();
    let broker = HostileBroker::start(partitions(1), move |occasion| match occasion {
        Occasion::Accepted => Deed::Send(Vec::new()),
        Occasion::Asked(asked) if asked.api == INIT_PRODUCER_ID && !gives.load(Ordering::SeqCst) => {
            Deed::Send(refuse(&asked, error))
        }
        Occasion::Asked(asked) => Deed::Send(asked.answer),
    });
    (broker.unwrap(), allowed)
}

/// Not permitted: what was sent fails and says so; once it is permitted, the same producer goes on.
#[test]
fn without_permission_for_a_producer_id_records_fail_and_it_recovers() {
    let (broker, allowed) = stingy(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    let producer = builder(&broker.address().to_string()).linger(Duration::ZERO).build().unwrap();
    let topic = producer.topic("t").unwrap();
    for _ in 0..3 {
        let error = topic.send(Record::value("x")).unwrap().wait().unwrap_err();
        assert_eq!(error.kind(), DeliveryErrorKind::Broker(ErrorCode::CLUSTER_AUTHORIZATION_FAILED), "{error}");
        assert_eq!((error.written(), error.attempts()), (Written::No, 0));
    }
    allowed.store(true, Ordering::SeqCst);
    // The refusal may still be on its way.
    let delivered = (0..1000).any(|_| topic.send(Record::value("y")).unwrap().wait().is_ok());
    assert!(delivered, "{:?}", producer.stats());
    let stored = broker.with_model(|model| model.records("t", 0));
    assert!(stored.len() == 1 && stored[0].producer_id >= 0, "{stored:?}");
}

/// The coordinator is not there yet, as for a second after a broker's start: nothing fails, everything waits.
#[test]
fn while_the_coordinator_loads_records_wait() {
    let (broker, allowed) = stingy(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    let producer = builder(&broker.address().to_string()).linger(Duration::ZERO).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let deliveries: Vec<_> = (0..10).map(|_| topic.send(Record::value("x")).unwrap()).collect();
    while broker.asked(INIT_PRODUCER_ID) < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(deliveries.iter().all(|delivery| delivery.try_result().is_none()));
    allowed.store(true, Ordering::SeqCst);
    for (offset, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.wait().unwrap().offset(), Some(offset));
    }
    settled(&producer, 10, 0);
}
