//! A record is what it was when it was handed over, whatever happens to it on its way.

use std::time::Duration;

use ringmail::testing::{BrokerOptions, Fault, TopicOptions};
use ringmail::{Header, Record};

use crate::{builder, partitions, settled, start};

/// The caller may use its memory again as soon as `send` returns.
#[test]
fn what_is_sent_is_what_was_handed_over() {
    let broker = start(partitions(1));
    let producer = builder(&broker.bootstrap())
        .linger(Duration::from_secs(1000))
        .delivery_timeout(Duration::from_secs(2000))
        .build()
        .unwrap();
    let topic = producer.topic("copied").unwrap();
    let (mut key, mut value, mut header) = (*b"key-a", *b"value-a", *b"header-a");
    for letter in b'a'..=b'z' {
        (key[4], value[6], header[7]) = (letter, letter, letter);
        let headers = [Header { key: "h", value: Some(&header) }];
        let record = Record::value(&value).with_key(&key).with_headers(&headers);
        drop(topic.send(record).unwrap());
        (key, value, header) = (*b"key-?", *b"value-?", *b"header-?");
    }
    producer.flush().unwrap();
    for (letter, stored) in ('a'..='z').zip(broker.log("copied", 0)) {
        assert_eq!(stored.key.unwrap(), format!("key-{letter}").as_bytes());
        assert_eq!(stored.value.unwrap(), format!("value-{letter}").as_bytes());
        assert_eq!(stored.headers, [("h".to_owned(), Some(format!("header-{letter}").into_bytes()))]);
    }
    settled(&producer, 26, 0);
}

/// Keys, headers and timestamps of a batch that had to be cut up.
#[test]
fn the_parts_of_a_split_batch_keep_keys_headers_and_timestamps() {
    let topic = TopicOptions { partitions: 1, max_message_bytes: 2_000, ..TopicOptions::default() };
    let broker = start(BrokerOptions { topic, ..BrokerOptions::default() });
    let producer = builder(&broker.bootstrap()).batch_size(100_000).linger(Duration::from_millis(50)).build().unwrap();
    let topic = producer.topic("split").unwrap();
    producer.warm_up(&["split"]).unwrap();
    let time = |number: usize| 1_700_000_000_000 + (number as i64 * 7_919) % 1_000 - 500;
    let deliveries: Vec<_> = (0..500)
        .map(|number| {
            let (key, value) = (format!("k{number}"), format!("{number:0100}"));
            let headers =
                [Header { key: "number", value: Some(value.as_bytes()) }, Header { key: "null", value: None }];
            let record = Record::value(&value).with_key(&key).with_timestamp(time(number));
            topic.send(if number % 3 == 0 { record.with_headers(&headers) } else { record }).unwrap()
        })
        .collect();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        let metadata = delivery.wait().unwrap();
        assert_eq!((metadata.offset(), metadata.timestamp()), (Some(number as i64), time(number)));
    }
    for (number, stored) in broker.log("split", 0).into_iter().enumerate() {
        let value = format!("{number:0100}").into_bytes();
        assert_eq!((stored.key, stored.timestamp), (Some(format!("k{number}").into_bytes()), time(number)));
        let headers = [("number".to_owned(), Some(value.clone())), ("null".to_owned(), None)];
        assert_eq!(stored.headers, if number % 3 == 0 { headers.to_vec() } else { Vec::new() });
        assert_eq!(stored.value, Some(value));
    }
    assert!(broker.stats().produce_requests > 30, "{:?}", broker.stats());
    settled(&producer, 500, 0);
}

/// A broker tells a duplicate's stored time also where the producer sets the times: each record keeps its own.
#[test]
fn a_duplicates_time_does_not_replace_the_records_own() {
    let lost = |context: &ringmail::testing::ProduceContext<'_>| {
        if context.nth == 0 { Fault::CloseAfter } else { Fault::None }
    };
    let broker = start(partitions(1).on_produce(lost));
    let producer = builder(&broker.bootstrap()).linger(Duration::from_millis(30)).build().unwrap();
    let topic = producer.topic("times").unwrap();
    producer.warm_up(&["times"]).unwrap();
    let times = [1_600_000_000_000, 1_600_000_005_000, 1_600_000_001_000];
    let deliveries = times.map(|time| topic.send(Record::value("x").with_timestamp(time)).unwrap());
    for ((offset, time), delivery) in (0..).zip(times).zip(deliveries) {
        let metadata = delivery.wait().unwrap();
        assert_eq!((metadata.offset(), metadata.timestamp()), (Some(offset), time));
    }
    assert!(broker.stats().produce_requests > 1, "it was sent twice");
    settled(&producer, 3, 0);
}
