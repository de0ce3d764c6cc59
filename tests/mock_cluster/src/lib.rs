//! librdkafka's mock cluster, for ringmail to produce to: a broker and a reader that share nothing with ringmail. Not a
//! member of the workspace, since it builds librdkafka from its C source. `ci/mock_cluster.sh` runs it.
//!
//! What the mock does not do, so that no test here leans on it (a real Kafka is needed for that):
//!
//! - It checks neither CRC nor lengths, and never looks into a record. The reader does check the CRC.
//! - It checks no sequence numbers outside transactions. What is sent twice is stored twice: an answer that is lost after
//!   the append makes a duplicate that is not ringmail's. And what comes behind a batch that failed is stored before it:
//!   with faults, order is only asked for with one batch in flight.
//! - An injected error stands for the whole request, and nothing of it is stored, also with REQUEST_TIMED_OUT and
//!   NOT_ENOUGH_REPLICAS_AFTER_APPEND.
//! - Its answer to Produce v5 lacks the log start offset, and that to ApiVersions v3 and above is in no known shape.
//! - It answers acks=0, knows no replicas, no throttle, no record errors, and every answer says log_append_time 1234.
//! - A partition without leader makes it crash when it is asked with Produce v10 (a null pointer).
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use ringmail::{Delivery, DeliveryError, Producer, Record, RecordMetadata, Topic};

/// The mock cluster of one test.
pub type Cluster = MockCluster<'static, DefaultProducerContext>;

/// What is read back: partition and offset, and the value there.
pub type Log = BTreeMap<(i32, i64), String>;

/// A cluster with a topic `t`.
pub fn cluster(brokers: i32, partitions: i32) -> Cluster {
    let cluster = MockCluster::new(brokers).unwrap();
    cluster.create_topic("t", partitions, 1).unwrap();
    cluster
}

/// A producer with these settings, and short pauses; what hangs is told within 40 s.
pub fn producer(cluster: &Cluster, settings: &[(&str, &str)]) -> Producer {
    let builder = Producer::builder().set("bootstrap.servers", &cluster.bootstrap_servers());
    let builder = builder.set("retry.backoff.ms", "10").set("reconnect.backoff.ms", "10");
    let builder = builder.set("max.block.ms", "20000").set("request.timeout.ms", "5000");
    let builder = builder.set("delivery.timeout.ms", "40000");
    settings.iter().fold(builder, |builder, (key, value)| builder.set(key, value)).build().unwrap()
}

/// A record on its way: its value, and what will say how it ends.
pub type Sent = Vec<(String, Delivery)>;

/// Sends `count` records `name 0`, `name 1`…, one key in seven.
pub fn send(topic: &Topic, name: &str, count: usize) -> Sent {
    let one = |n: usize| {
        let value = format!("{name} {n}");
        let key = format!("{name} {}", n % 7);
        let delivery = topic.send(Record::value(&value).with_key(&key)).unwrap();
        (value, delivery)
    };
    (0..count).map(one).collect()
}

/// How the records ended.
pub type Ends = Vec<(String, Result<RecordMetadata, DeliveryError>)>;

pub fn wait(sent: Sent) -> Ends {
    sent.into_iter().map(|(value, delivery)| (value, delivery.wait())).collect()
}

/// Reads all partitions of `t` from the start to the end. librdkafka checks each batch's CRC.
pub fn read(cluster: &Cluster, partitions: i32) -> Log {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    (0..partitions).for_each(|p| all.add_partition_offset("t", p, Offset::Beginning).unwrap());
    consumer.assign(&all).unwrap();
    let mut log = Log::new();
    let mut left = partitions;
    let began = Instant::now();
    while left > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
                let before = log.insert((message.partition(), message.offset()), value);
                assert!(before.is_none(), "an offset was read twice");
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => println!("the reader: {error}"),
            None => {}
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the reader does not get to the end");
    }
    log
}

/// Every record that was delivered lies where it was said to lie, nothing else does, and each name's records are in
/// order in each partition.
pub fn check(log: &Log, ends: &Ends) {
    check_places(log, ends);
    check_order(log);
}

/// Every record that was delivered lies where it was said to lie, and nothing else does.
pub fn check_places(log: &Log, ends: &Ends) {
    let mut expected = Log::new();
    for (value, end) in ends {
        if let Ok(metadata) = end {
            let place = (metadata.partition(), metadata.offset().unwrap());
            assert_eq!(expected.insert(place, value.clone()), None, "two records at {place:?}");
        }
    }
    let stray = log.iter().find(|(place, value)| expected.get(place) != Some(value));
    assert_eq!(stray, None, "in the log, but not delivered so");
    let lost = expected.iter().find(|(place, _)| !log.contains_key(place));
    assert_eq!(lost, None, "delivered, but not in the log");
}

/// Of each name's records, those of a partition come in the order of their numbers, where each comes first.
pub fn check_order(log: &Log) {
    let mut newest: BTreeMap<(i32, &str), usize> = BTreeMap::new();
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for ((partition, offset), value) in log {
        if seen.insert(value, ()).is_some() {
            continue;
        }
        let (name, n) = value.rsplit_once(' ').unwrap();
        let n: usize = n.parse().unwrap();
        let before = newest.insert((*partition, name), n);
        assert!(before.is_none_or(|before| before < n), "{value} at {partition}/{offset} stands behind {before:?}");
    }
}
