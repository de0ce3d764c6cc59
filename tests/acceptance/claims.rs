//! Everything that a send does about partitions, limits and room, a claim does too: one list for every way to hand a
//! record over.

use std::time::Duration;

use ringmail::testing::{Broker, BrokerOptions, Fault};
use ringmail::{Delivery, DeliveryErrorKind, Producer, Record, SendError, Topic};

use crate::{block_on, builder, partitions, start};

/// Every call that takes a record; the value is the record's own.
const WAYS: [(&str, Way); 6] = [
    ("send", |topic, record| topic.send(record)),
    ("try_send", |topic, record| topic.try_send(record).map_err(|refused| refused.error)),
    ("send_async", |topic, record| block_on(topic.send_async(record))),
    ("claim", |topic, record| fill(topic.claim_record(record, 10)?).commit()),
    ("try_claim", |topic, record| fill(topic.try_claim(record, 10)?).commit()),
    ("try_commit", |topic, record| fill(topic.claim_record(record, 10)?).try_commit().map_err(|(_, error)| error)),
];

type Way = fn(&Topic, Record<'_>) -> Result<Delivery, SendError>;

fn fill(mut claim: ringmail::Claim) -> ringmail::Claim {
    claim.fill(b'c');
    claim
}

/// A producer, and its topic of `count` partitions with every partition known.
fn producer(broker: &Broker, topic: &str) -> (Producer, Topic) {
    let producer = builder(&broker.bootstrap()).max_block(Duration::from_secs(5)).build().unwrap();
    let topic = producer.topic(topic).unwrap();
    producer.warm_up(&[topic.name()]).unwrap();
    (producer, topic)
}

#[test]
fn every_way_goes_to_the_partition_that_is_named_or_the_keys_own() {
    let broker = start(partitions(6));
    let (_producer, topic) = producer(&broker, "t");
    for (name, way) in WAYS {
        for partition in 0..6 {
            let record = Record::value("0123456789").with_partition(partition).with_timestamp(77);
            let metadata = way(&topic, record).unwrap().wait().unwrap();
            assert_eq!((metadata.partition(), metadata.timestamp()), (partition, 77), "{name}");
        }
        for key in ["a", "b", "", "a long key"] {
            let metadata = way(&topic, Record::value("0123456789").with_key(key)).unwrap().wait().unwrap();
            assert_eq!(metadata.partition(), ringmail::testing::partition_for_key(key.as_bytes(), 6), "{name}");
        }
    }
}

#[test]
fn every_way_refuses_the_same() {
    let broker = start(partitions(2));
    // The topic is made with more time than those have who wait in vain.
    builder(&broker.bootstrap()).build().unwrap().warm_up(&["t"]).unwrap();
    let producer = builder(&broker.bootstrap()).max_block(Duration::from_millis(200)).build().unwrap();
    let topic = producer.topic("t").unwrap();
    producer.warm_up(&["t"]).unwrap();
    for (name, way) in WAYS {
        let refused = |record: Record<'_>| way(&topic, record).map(drop).unwrap_err();
        let record = Record::value("0123456789");
        assert_eq!(refused(record.with_timestamp(-3)), SendError::InvalidTimestamp { timestamp: -3 }, "{name}");
        for partition in [-1, 2, i32::MAX] {
            let expected = SendError::InvalidPartition { topic: "t".into(), partition, count: 2 };
            assert_eq!(refused(record.with_partition(partition)), expected, "{name}");
        }
        let key = vec![b'k'; 2 << 20];
        assert!(matches!(refused(record.with_key(&key)), SendError::RecordTooLarge { .. }), "{name}");
    }
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    for (name, way) in WAYS {
        assert_eq!(way(&topic, Record::value("late")).map(drop), Err(SendError::Closed), "{name}");
    }
}

/// Whatever length somebody asks for: it is refused as too large, and nothing is kept.
#[test]
fn a_claim_of_any_length_is_refused_or_granted() {
    let broker = start(partitions(1));
    let (producer, topic) = producer(&broker, "t");
    let ends = [usize::MAX, isize::MAX as usize, u32::MAX as usize, 1 << 31, 1 << 30, 1 << 20];
    for len in ends.into_iter().flat_map(|end| (0..130).map(move |less| end - less)) {
        for key in [None, Some(&b"key"[..])] {
            let error = match topic.claim(len, key, &[]) {
                Err(error) => error,
                Ok(claim) => {
                    assert!(claim.len() == len && len < 1 << 20);
                    continue;
                }
            };
            assert!(matches!(error, SendError::RecordTooLarge { limit: 1_048_576, .. }), "{len}: {error}");
        }
    }
    let stats = producer.stats();
    assert_eq!((stats.buffer_used, stats.accepted), (0, 0));
    topic.send(Record::value("after")).unwrap().wait().unwrap();
}

/// A record without key or partition: however long it takes for a way that does not wait.
fn insist(topic: &Topic, way: Way) -> Delivery {
    loop {
        match way(topic, Record::value("0123456789")) {
            Ok(delivery) => return delivery,
            Err(SendError::BufferFull) => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// One at a time: each batch is gone before the next record comes, and its partition with it.
#[test]
fn every_way_spreads_records_without_a_key() {
    let broker = start(partitions(6));
    let producer = builder(&broker.bootstrap()).linger(Duration::ZERO).build().unwrap();
    let topic = producer.topic("t").unwrap();
    producer.warm_up(&["t"]).unwrap();
    for (name, way) in WAYS {
        let mut counts = [0; 6];
        for _ in 0..600 {
            counts[insist(&topic, way).wait().unwrap().partition() as usize] += 1;
        }
        assert!(counts.iter().all(|count| *count > 20), "{name}: {counts:?}");
    }
}

/// While one batch fills, its partition is kept: else batches would be small.
#[test]
fn every_way_stays_with_a_partition_while_its_batch_fills() {
    let broker = start(partitions(6));
    let (producer, topic) = producer(&broker, "t");
    for (name, way) in WAYS {
        let sent: Vec<Delivery> = (0..3_000).map(|_| insist(&topic, way)).collect();
        producer.flush().unwrap();
        let went: Vec<i32> = sent.into_iter().map(|delivery| delivery.wait().unwrap().partition()).collect();
        let moves = went.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(moves < 1_000, "{name}: {moves} moves");
    }
}

#[test]
fn every_way_leaves_a_broker_that_is_stuck() {
    for (name, way) in WAYS {
        let options = BrokerOptions { brokers: 2, ..partitions(6) };
        let broker =
            start(options.on_produce(|context| if context.node == 0 { Fault::HangBefore } else { Fault::None }));
        let producer = builder(&broker.bootstrap())
            .buffer_memory(2 << 20)
            .set("max.request.size", "200000")
            .max_block(Duration::from_secs(5))
            .build()
            .unwrap();
        let topic = producer.topic("t").unwrap();
        producer.warm_up(&["t"]).unwrap();
        let value = [b'v'; 1000];
        for number in 0..6_000 {
            match way(&topic, Record::value(&value)) {
                Ok(delivery) => drop(delivery),
                // It does not wait; the others go on.
                Err(SendError::BufferFull) if name.starts_with("try") => std::thread::sleep(Duration::from_micros(200)),
                Err(error) => panic!("{name}: record {number}: {error}"),
            }
        }
        let _ = producer.close(Duration::ZERO).unwrap();
    }
}

#[test]
fn every_way_takes_a_time_of_its_own() {
    let broker = start(partitions(1).on_produce(|_| Fault::HangBefore));
    let (producer, topic) = producer(&broker, "t");
    for (name, way) in WAYS {
        let record = Record::value("0123456789").with_delivery_timeout(Duration::from_millis(30));
        let error = way(&topic, record).unwrap().wait().unwrap_err();
        assert_eq!(error.kind(), DeliveryErrorKind::Expired, "{name}: {error}");
    }
    let _ = producer.close(Duration::ZERO).unwrap();
}
