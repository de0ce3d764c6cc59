//! What a callback may do, and what it is told.

use std::sync::mpsc;
use std::time::Duration;

use ringmail::testing::Fault;
use ringmail::{DeliveryErrorKind, ErrorCode, Record};

use crate::{builder, partitions, settled, start};

/// Sending from the callback of a record whose time is over takes the record, and nobody waits for anybody.
#[test]
fn a_callback_of_an_expired_record_may_send() {
    let broker =
        start(partitions(1).on_produce(|context| if context.count == 2 { Fault::HangBefore } else { Fault::None }));
    let producer = builder(&broker.bootstrap())
        .linger(Duration::from_millis(30))
        .request_timeout(Duration::from_millis(200))
        .delivery_timeout(Duration::from_millis(400))
        .build()
        .unwrap();
    let topic = producer.topic("again").unwrap();
    producer.warm_up(&["again"]).unwrap();
    let (told, expired) = mpsc::channel();
    // The two share a batch, which the broker never looks at.
    let mut claim = topic.claim(1, None, &[]).unwrap();
    claim.fill(b'0');
    let again = topic.clone();
    let first = topic.try_send(Record::value("1"));
    topic
        .send_with(Record::value("2"), move |result| {
            let sent = again.send(Record::value("again"));
            told.send((result.unwrap_err().kind(), sent)).unwrap();
        })
        .unwrap();
    drop(claim);
    let (kind, sent) = expired.recv_timeout(Duration::from_secs(30)).expect("the callback was called");
    assert_eq!(kind, DeliveryErrorKind::Expired);
    assert!(first.unwrap().wait().is_err());
    // The new one is alone in its batch.
    sent.expect("a callback may send").wait().unwrap();
    settled(&producer, 1, 2);
}

/// Whoever is told of a failure is told where the record was to go.
#[test]
fn an_error_names_topic_and_partition() {
    let broker = start(partitions(3).on_produce(|_| Fault::Error(ErrorCode::INVALID_RECORD)));
    let producer = builder(&broker.bootstrap()).build().unwrap();
    let topic = producer.topic("where").unwrap();
    let (told, errors) = mpsc::channel();
    for partition in 0..3 {
        let told = told.clone();
        let record = Record::value("x").with_partition(partition);
        topic.send_with(record, move |result| told.send((partition, result.unwrap_err())).unwrap()).unwrap();
    }
    for _ in 0..3 {
        let (partition, error) = errors.recv_timeout(Duration::from_secs(30)).expect("the callback was called");
        assert_eq!((error.topic(), error.partition()), (Some("where"), Some(partition)), "{error}");
    }
    producer.flush().unwrap();
    settled(&producer, 0, 3);
}
