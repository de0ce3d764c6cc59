//! ringmail against librdkafka's mock cluster, with faults. What the mock can show and what not: see the library here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Code};
use ringmail::{Producer, Written};
use ringmail_mock_cluster::{Cluster, Ends, check, check_order, check_places, cluster, producer, read, send, wait};

const RETRIABLE: [Code; 7] = [
    Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
];
const CUT: Code = Code::RD_KAFKA_RESP_ERR__TRANSPORT;
const ONE_IN_FLIGHT: (&str, &str) = ("max.in.flight.requests.per.connection", "1");
const DRIVERS: [&str; 2] = ["io_uring", "epoll"];

/// Two threads send until `meanwhile` is through with the cluster; then everything must have ended well.
fn under_load(cluster: &Cluster, producer: &Producer, meanwhile: impl FnOnce(&Cluster)) -> Ends {
    producer.warm_up(&["t"]).unwrap();
    let stop = AtomicBool::new(false);
    let sender = |name: &'static str| {
        let (stop, topic) = (&stop, producer.topic("t").unwrap());
        move || {
            let mut sent = Vec::new();
            let mut round = 0;
            while !stop.load(Relaxed) {
                sent.extend(send(&topic, &format!("{name}{round}"), 50));
                round += 1;
                thread::sleep(Duration::from_millis(2));
            }
            sent
        }
    };
    let sent = thread::scope(|scope| {
        let threads = [scope.spawn(sender("a")), scope.spawn(sender("b"))];
        meanwhile(cluster);
        stop.store(true, Relaxed);
        threads.map(|thread| thread.join().unwrap())
    });
    let ends = wait(sent.into_iter().flatten().collect());
    assert!(ends.len() >= 200, "only {} records were sent", ends.len());
    ends
}

fn all_delivered(ends: &Ends) {
    let failed = ends.iter().find_map(|(value, end)| end.as_ref().err().map(|error| (value, error)));
    assert!(failed.is_none(), "{failed:?}");
}

fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

#[test]
fn without_faults() {
    for driver in DRIVERS {
        let cluster = cluster(3, 6);
        let producer = producer(&cluster, &[("driver", driver)]);
        let ends = wait(send(&producer.topic("t").unwrap(), "n", 20_000));
        all_delivered(&ends);
        check(&read(&cluster, 6), &ends);
    }
}

#[test]
fn every_version_of_produce_that_both_speak() {
    // In version 5 the mock leaves out the log start offset, which Kafka has there.
    for version in (3..=10).filter(|version| *version != 5) {
        let cluster = cluster(1, 2);
        cluster.apiversion(Api::Produce, Some(0), Some(version)).unwrap();
        let producer = producer(&cluster, &[]);
        let ends = wait(send(&producer.topic("t").unwrap(), "n", 100));
        all_delivered(&ends);
        check(&read(&cluster, 2), &ends);
    }
}

#[test]
fn requests_that_fail_and_may_be_sent_again() {
    for (driver, in_flight) in [("io_uring", "5"), ("epoll", "5"), ("io_uring", "1"), ("epoll", "1")] {
        let cluster = cluster(3, 6);
        let settings = [("driver", driver), ("max.in.flight.requests.per.connection", in_flight)];
        let producer = producer(&cluster, &settings);
        let ends = under_load(&cluster, &producer, |cluster| {
            for code in RETRIABLE.iter().cycle().take(14) {
                cluster.request_errors(Api::Produce, &[*code]);
                pause(20);
                cluster.request_errors(Api::Produce, &[*code, *code]);
                pause(20);
            }
        });
        all_delivered(&ends);
        let log = read(&cluster, 6);
        check_places(&log, &ends);
        if in_flight == "1" {
            check_order(&log);
        }
    }
}

/// One partition for each broker and one batch at a time: so nothing is cut off but the request that is not carried out.
#[test]
fn connections_cut_before_the_append() {
    for driver in DRIVERS {
        let cluster = cluster(3, 3);
        (0..3).for_each(|p| cluster.partition_leader("t", p, Some(p + 1)).unwrap());
        let settings = [("driver", driver), ONE_IN_FLIGHT];
        let producer = producer(&cluster, &settings);
        let ends = under_load(&cluster, &producer, |cluster| {
            for _ in 0..25 {
                cluster.request_errors(Api::Produce, &[CUT]);
                pause(30);
            }
        });
        all_delivered(&ends);
        check(&read(&cluster, 3), &ends);
    }
}

#[test]
fn leaders_that_move() {
    let cluster = cluster(3, 4);
    let producer = producer(&cluster, &[ONE_IN_FLIGHT]);
    let ends = under_load(&cluster, &producer, |cluster| {
        for i in 0..40 {
            cluster.partition_leader("t", i % 4, Some(1 + i % 3)).unwrap();
            pause(15);
        }
    });
    all_delivered(&ends);
    check(&read(&cluster, 4), &ends);
}

#[test]
fn a_partition_without_leader_for_a_while() {
    let cluster = cluster(2, 2);
    cluster.apiversion(Api::Produce, Some(0), Some(9)).unwrap();
    let producer = producer(&cluster, &[ONE_IN_FLIGHT]);
    let ends = under_load(&cluster, &producer, |cluster| {
        for _ in 0..5 {
            cluster.partition_leader("t", 0, None).unwrap();
            pause(60);
            cluster.partition_leader("t", 0, Some(1)).unwrap();
            pause(60);
        }
    });
    all_delivered(&ends);
    check(&read(&cluster, 2), &ends);
}

#[test]
fn metadata_producer_ids_and_versions_that_fail_at_first() {
    let cluster = cluster(2, 2);
    let transient = Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    cluster.request_errors(Api::InitProducerId, &[transient, CUT, transient]);
    cluster.request_errors(Api::Metadata, &[CUT, CUT]);
    cluster.request_errors(Api::ApiVersion, &[CUT, CUT]);
    let producer = producer(&cluster, &[]);
    let ends = wait(send(&producer.topic("t").unwrap(), "n", 1000));
    all_delivered(&ends);
    check(&read(&cluster, 2), &ends);
}

#[test]
fn slow_brokers_of_which_one_is_slower() {
    let cluster = cluster(3, 6);
    cluster.broker_round_trip_time(-1, Duration::from_millis(20)).unwrap();
    cluster.broker_round_trip_time(2, Duration::from_millis(200)).unwrap();
    let producer = producer(&cluster, &[]);
    let ends = under_load(&cluster, &producer, |_| pause(800));
    all_delivered(&ends);
    check(&read(&cluster, 6), &ends);
}

#[test]
fn a_broker_that_is_away_with_nothing_in_flight() {
    for driver in DRIVERS {
        let cluster = cluster(2, 4);
        let producer = producer(&cluster, &[("driver", driver)]);
        let topic = producer.topic("t").unwrap();
        let mut ends = wait(send(&topic, "before", 1000));
        producer.flush().unwrap();
        cluster.broker_down(1).unwrap();
        let away = send(&topic, "away", 1000);
        pause(300);
        cluster.broker_up(1).unwrap();
        ends.extend(wait(away));
        ends.extend(wait(send(&topic, "after", 1000)));
        all_delivered(&ends);
        check(&read(&cluster, 4), &ends);
    }
}

/// Here answers get lost after the append, and the mock stores what is sent again once more: so each record must be
/// there, in order where it comes first, and more than that cannot be asked.
#[test]
fn brokers_dropped_under_load() {
    let cluster = cluster(3, 6);
    cluster.broker_round_trip_time(-1, Duration::from_millis(5)).unwrap();
    let producer = producer(&cluster, &[ONE_IN_FLIGHT]);
    let ends = under_load(&cluster, &producer, |cluster| {
        for i in 0..9 {
            cluster.broker_down(1 + i % 3).unwrap();
            pause(50);
            cluster.broker_up(1 + i % 3).unwrap();
            pause(50);
        }
    });
    all_delivered(&ends);
    let log = read(&cluster, 6);
    let stored: HashSet<&String> = log.values().collect();
    let lost = ends.iter().find(|(value, _)| !stored.contains(value));
    assert!(lost.is_none(), "{lost:?}");
    check_order(&log);
    println!("{} records, {} of them twice or more", ends.len(), log.len() - ends.len());
}

#[test]
fn a_batch_refused_as_too_large_is_split() {
    let cluster = cluster(1, 1);
    let producer = producer(&cluster, &[("linger.ms", "200"), ("batch.size", "100000")]);
    producer.warm_up(&["t"]).unwrap();
    cluster.request_errors(Api::Produce, &[Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 3]);
    let ends = wait(send(&producer.topic("t").unwrap(), "n", 1000));
    all_delivered(&ends);
    check(&read(&cluster, 1), &ends);
}

#[test]
fn what_is_refused_for_good_is_not_in_the_log_and_what_follows_is() {
    for code in [Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Code::RD_KAFKA_RESP_ERR_INVALID_MSG] {
        let cluster = cluster(1, 1);
        let producer = producer(&cluster, &[]);
        let topic = producer.topic("t").unwrap();
        let mut ends = wait(send(&topic, "before", 100));
        cluster.request_errors(Api::Produce, &[code]);
        let refused = wait(send(&topic, "refused", 1));
        let error = refused[0].1.as_ref().map(drop);
        // A record that is corrupt on the wire (INVALID_MSG is CORRUPT_MESSAGE) may be sent again.
        if code == Code::RD_KAFKA_RESP_ERR_INVALID_MSG {
            assert!(error.is_ok(), "{error:?}");
        } else {
            assert_eq!(error.unwrap_err().written(), Written::No);
        }
        ends.extend(refused);
        ends.extend(wait(send(&topic, "after", 100)));
        assert!(ends.iter().filter(|(_, end)| end.is_err()).count() <= 1);
        check(&read(&cluster, 1), &ends);
    }
}
