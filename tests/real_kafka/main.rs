//! The library against a real Kafka: what it says of each record, compared with what a foreign reader finds.
//!
//! Ignored by default, for they need Java: `ci/real_kafka.sh library` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Beliefs, Cluster};
use ringmail::{Delivery, DeliveryError, Header, Producer, Record, RecordMetadata, SendError};

/// A producer with these settings, all through Kafka's own names.
fn producer(cluster: &Cluster, settings: &[(&str, &str)]) -> Producer {
    let builder = Producer::builder().set("bootstrap.servers", &cluster.bootstrap);
    settings.iter().fold(builder, |builder, (key, value)| builder.set(key, value)).build().unwrap()
}

/// A record that was accepted, and what will say how it ends.
struct Sent {
    key: Option<String>,
    value: String,
    delivery: Delivery,
}

/// Sends unique records, half of them with keys, at about 10,000 a second, until told to stop.
fn send_until(stop: &AtomicBool, producer: &Producer, topic: &str, name: &str) -> Vec<Sent> {
    let topic = producer.topic(topic).unwrap();
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..50 {
            let value = format!("{name} {}", sent.len());
            let key = (sent.len() % 2 == 0).then(|| format!("{name}-{}", sent.len() % 97));
            let mut record = Record::value(&value);
            if let Some(key) = &key {
                record = record.with_key(key);
            }
            match topic.send(record) {
                Ok(delivery) => sent.push(Sent { key, value, delivery }),
                // Refused, so it must not be there: it is simply not noted, and the reader complains if it finds it.
                Err(SendError::Timeout { .. } | SendError::BufferFull) => {}
                Err(error) => panic!("{error}"),
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    sent
}

/// Two threads send while `meanwhile` troubles the brokers; then every record's end is compared with the log.
fn send_through_trouble(
    cluster: &Cluster,
    settings: &[(&str, &str)],
    check: &[&str],
    meanwhile: impl FnOnce(),
) -> Beliefs {
    let producer = producer(cluster, settings);
    producer.warm_up(&["t"]).unwrap();
    let stop = AtomicBool::new(false);
    let mut sent = Vec::new();
    thread::scope(|scope| {
        let names = ["one", "two"];
        let (stop, producer) = (&stop, &producer);
        let threads = names.map(|name| scope.spawn(move || send_until(stop, producer, "t", name)));
        thread::sleep(Duration::from_secs(2));
        // The threads end also when it panics.
        let panicked = panic::catch_unwind(AssertUnwindSafe(meanwhile));
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        panicked.unwrap_or_else(|panic| panic::resume_unwind(panic));
        for thread in threads {
            sent.extend(thread.join().unwrap());
        }
    });
    let mut beliefs = Beliefs::default();
    let mut last_error = None;
    for Sent { key, value, delivery } in sent {
        let result = delivery.wait();
        beliefs.note(key.as_deref(), &value, &result);
        last_error = result.err().or(last_error);
    }
    if let Some(error) = last_error {
        println!("{} failed, one of them: {error}", beliefs.failed);
    }
    cluster.check("t", &beliefs, check);
    beliefs
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh library"]
fn a_broker_killed_and_restarted_loses_nothing_silently() {
    for driver in ["io_uring", "epoll"] {
        let cluster = Cluster::start("killed", "one", &[]);
        cluster.topic("t", 6, &[]);
        let settings = [("delivery.timeout.ms", "40000"), ("driver", driver)];
        let beliefs = send_through_trouble(&cluster, &settings, &[], || {
            cluster.kill9(1);
            thread::sleep(Duration::from_secs(1));
            cluster.restart(1);
        });
        assert!(beliefs.delivered > 20_000, "{} delivered", beliefs.delivered);
    }
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh library"]
fn a_killed_leader_is_replaced_and_nothing_is_lost() {
    let cluster = Cluster::start("leader", "three", &["min.insync.replicas=2"]);
    cluster.topic("t", 6, &["--replication-factor", "3"]);
    let beliefs = send_through_trouble(&cluster, &[("delivery.timeout.ms", "60000")], &[], || {
        cluster.kill9(2);
        thread::sleep(Duration::from_secs(5));
        cluster.restart(2);
    });
    assert_eq!(beliefs.failed, 0, "two of three brokers were there all the time");
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh library"]
fn a_broker_that_expires_records_tells_which() {
    let cluster = Cluster::start("expired", "one", &[]);
    cluster.topic("t", 6, &[]);
    let settings = [("delivery.timeout.ms", "3000"), ("request.timeout.ms", "1000"), ("linger.ms", "5")];
    let beliefs = send_through_trouble(&cluster, &settings, &[], || {
        cluster.signal(1, "STOP");
        thread::sleep(Duration::from_secs(5));
        cluster.signal(1, "CONT");
    });
    assert!(beliefs.delivered > 10_000 && beliefs.failed > 0, "{} and {}", beliefs.delivered, beliefs.failed);
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh library"]
fn acks_0_on_a_dead_connection_is_never_a_success_with_an_offset() {
    let cluster = Cluster::start("acks0", "one", &[]);
    cluster.topic("t", 1, &[]);
    let mut settings = vec![("acks", "0"), ("delivery.timeout.ms", "3000"), ("request.timeout.ms", "1000")];
    settings.extend([("linger.ms", "0"), ("max.block.ms", "1000"), ("send.buffer.bytes", "65536")]);
    let producer = producer(&cluster, &settings);
    producer.warm_up(&["t"]).unwrap();
    let topic = producer.topic("t").unwrap();
    let mut sent = vec![("first".to_string(), topic.send(Record::value("first")).unwrap())];
    producer.flush().unwrap();
    // The broker reads no more: what the kernel cannot buffer is stuck in the middle of a request.
    cluster.signal(1, "STOP");
    let filler = "x".repeat(1000);
    for i in 0..20_000 {
        let value = format!("{i} {filler}");
        match topic.send(Record::value(&value)) {
            Ok(delivery) => sent.push((value, delivery)),
            Err(SendError::Timeout { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let mut beliefs = Beliefs::default();
    let mut cut_off: Option<DeliveryError> = None;
    for (value, delivery) in sent {
        let result = delivery.wait();
        if let Ok(metadata) = &result {
            assert_eq!(metadata.offset(), None, "nobody answered, so nobody named an offset");
        }
        beliefs.note(None, &value, &result);
        cut_off = cut_off.or(result.err());
    }
    let cut_off = cut_off.expect("all of it cannot have fitted into the socket's buffers");
    println!("{} went into the kernel, {} failed, the first: {cut_off}", beliefs.delivered, beliefs.failed);
    cluster.signal(1, "CONT");
    thread::sleep(Duration::from_secs(1));
    cluster.check("t", &beliefs, &[]);
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh library"]
fn records_arrive_as_they_were_given() {
    let cluster = Cluster::shared("fields");
    cluster.topic("fields", 3, &[]);
    let producer = producer(&cluster, &[]);
    let topic = producer.topic("fields").unwrap();
    let headers = [
        Header { key: "b", value: Some(b"1") },
        Header { key: "a", value: None },
        Header { key: "b", value: Some(b"") },
    ];
    let full =
        Record::value("v").with_key("k").with_headers(&headers).with_partition(2).with_timestamp(1_700_000_000_000);
    let metadata = topic.send(full).unwrap().wait().unwrap();
    assert_eq!((metadata.topic(), metadata.partition(), metadata.offset()), ("fields", 2, Some(0)));
    assert_eq!(metadata.timestamp(), 1_700_000_000_000);
    let null = topic.send(Record::new().with_partition(2)).unwrap().wait().unwrap();
    assert_eq!(null.offset(), Some(1));
    let mut claim = topic.claim(5, Some(b"ck"), &[]).unwrap();
    claim.copy_from_slice(b"in it");
    let claimed = claim.commit().unwrap().wait().unwrap();

    let dump = cluster.dump("fields");
    let first = r#"{"partition": 2, "offset": 0, "timestamp": 1700000000000, "key": "k", "value": "v", "headers": [["b", "1"], ["a", null], ["b", ""]]}"#;
    assert!(dump.contains(first), "{dump}");
    assert!(dump.contains(r#""key": null, "value": null, "headers": []"#), "{dump}");
    assert!(dump.contains(r#""key": "ck", "value": "in it", "headers": []"#), "{dump}");
    assert!(dump.contains(&format!(r#""timestamp": {}"#, claimed.timestamp())), "{dump}");
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh library"]
fn the_brokers_time_is_reported_where_the_topic_says_so() {
    let cluster = Cluster::shared("append-time");
    cluster.topic("append-time", 1, &["--config", "message.timestamp.type=LogAppendTime"]);
    let producer = producer(&cluster, &[]);
    let old = Record::value("v").with_timestamp(1000);
    let metadata = producer.topic("append-time").unwrap().send(old).unwrap().wait().unwrap();
    assert!(metadata.timestamp() > 1_700_000_000_000, "{}", metadata.timestamp());
    assert!(cluster.dump("append-time").contains(&format!(r#""timestamp": {}"#, metadata.timestamp())));
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh library"]
fn close_waits_and_then_refuses() {
    let cluster = Cluster::shared("closed");
    cluster.topic("closed", 6, &[]);
    let producer = producer(&cluster, &[("linger.ms", "60000"), ("delivery.timeout.ms", "120000")]);
    let topic = producer.topic("closed").unwrap();
    let deliveries: Vec<Delivery> = (0..1000).map(|i| topic.send(Record::value(&i.to_string())).unwrap()).collect();
    let began = Instant::now();
    assert!(producer.close(Duration::from_secs(20)).unwrap().is_clean());
    assert!(began.elapsed() < Duration::from_secs(20), "close waited for linger.ms");
    let ended: Result<Vec<RecordMetadata>, DeliveryError> = deliveries.into_iter().map(Delivery::wait).collect();
    assert_eq!(ended.unwrap().len(), 1000);
    let refused = topic.send(Record::value("late")).map(drop).unwrap_err();
    assert_eq!(refused, SendError::Closed);
    assert!(refused.to_string().contains("closed"), "{refused}");
    assert_eq!(cluster.dump("closed").lines().count(), 1000);
}
