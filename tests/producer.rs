//! The producer against the embedded broker, the same list over both drivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmail::testing::{Broker, BrokerOptions, Fault, StoredRecord, TopicOptions};
use ringmail::{
    Acks, DeliveryError, DeliveryErrorKind, DriverChoice, ErrorCode, Header, IdleStrategy, Producer, ProducerBuilder,
    Record, RecordMetadata, SendError, Written,
};

/// Each test as one test per driver.
macro_rules! over_both_drivers {
    ($($name:ident)*) => {
        mod io_uring { $(#[test] fn $name() { super::$name(super::DriverChoice::IoUring); })* }
        mod epoll { $(#[test] fn $name() { super::$name(super::DriverChoice::Epoll); })* }
    };
}

over_both_drivers! {
    every_kind_of_record_arrives_as_it_was
    threads_keep_their_order
    nothing_is_lost_or_doubled_through_faults
    errors_that_pass_are_retried_in_order
    a_topic_with_small_batches_gets_everything
    acks_0_and_1
    acks_0_on_a_dead_connection_is_no_success
    a_full_buffer_gives_the_record_back
    an_unanswered_record_is_possibly_written
    a_refused_record_is_not_written
    a_slow_listener_stops_acceptance_not_sending
    close_waits_for_a_listener_far_behind
    keyless_records_leave_a_full_partition
    keyless_records_find_a_broker_with_room
    callbacks_come_also_after_deliveries
    callbacks_may_not_block
    a_panicking_callback_harms_nobody
    a_panicking_listener_harms_nobody
    claims_are_written_in_place
    the_last_drop_sends_what_was_accepted
    close_lists_what_was_left
    futures_need_no_runtime
    refusals_name_their_reason
    an_unreachable_broker_is_named
    leaders_move_without_loss
    many_partitions_share_requests
    a_flush_does_not_wait_for_linger
    log_append_time_reaches_the_caller
    every_produce_version_works
    a_warm_producer_sends_at_once
    a_record_after_a_pause_has_its_own_time
}

fn builder(broker: &Broker, driver: DriverChoice) -> ProducerBuilder {
    Producer::builder()
        .bootstrap_servers(&broker.bootstrap())
        .driver(driver)
        .set("retry.backoff.ms", "5")
        .set("reconnect.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "50")
}

fn start(options: BrokerOptions) -> Broker {
    Broker::start(options).expect("a broker on loopback")
}

fn one_partition() -> BrokerOptions {
    BrokerOptions { topic: TopicOptions { partitions: 1, ..TopicOptions::default() }, ..BrokerOptions::default() }
}

/// At rest: every accepted record is delivered, failed, or still on its way. Returns how many are none of the former.
fn outstanding(producer: &Producer) -> u64 {
    let stats = producer.stats();
    assert!(stats.adds_up() && stats.buffer_used <= stats.buffer_total, "{stats:?}");
    stats.outstanding()
}

/// Everything has its end: so many were delivered, so many not.
fn settled(producer: &Producer, delivered: u64, failed: u64) {
    let stats = producer.stats();
    let numbers = (stats.accepted, stats.delivered, stats.failed(), stats.waiting, stats.in_flight);
    assert_eq!(numbers, (delivered + failed, delivered, failed, 0, 0), "{stats:?}");
    assert!(stats.adds_up());
}

fn values(records: &[StoredRecord]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.value.clone().unwrap_or_default()).unwrap()).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn every_kind_of_record_arrives_as_it_was(driver: DriverChoice) {
    let broker = start(BrokerOptions::default());
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("kinds").unwrap();
    let large = vec![b'x'; 900_000];
    let headers = [
        Header { key: "a", value: Some(b"1") },
        Header { key: "b", value: None },
        Header { key: "a", value: Some(b"") },
    ];
    let records = [
        Record::new(),
        Record::value(""),
        Record::value("v").with_key("k").with_headers(&headers).with_timestamp(1_700_000_000_000),
        Record::new().with_key(""),
        Record::value("p").with_partition(2),
        Record::value(&large).with_key("large"),
        Record::value(&large),
    ];
    let deliveries: Vec<_> = records.iter().map(|record| topic.send(*record).unwrap()).collect();
    let sent: Vec<RecordMetadata> = deliveries.into_iter().map(|delivery| delivery.wait().unwrap()).collect();
    for metadata in &sent {
        let log = broker.log("kinds", metadata.partition());
        let stored = log.iter().find(|stored| Some(stored.offset) == metadata.offset()).expect("at its offset");
        assert_eq!(stored.timestamp, metadata.timestamp());
        assert_eq!(metadata.topic(), "kinds");
    }
    let mut all: Vec<StoredRecord> = (0..3).flat_map(|partition| broker.log("kinds", partition)).collect();
    all.sort_by_key(|record| (record.key.clone(), record.value.clone().map(|value| value.len())));
    let shape = |record: &StoredRecord| (record.key.clone(), record.value.clone().map(|value| value.len()));
    let text = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(
        all.iter().map(shape).collect::<Vec<_>>(),
        [
            (None, None),
            (None, Some(0)),
            (None, Some(1)),
            (None, Some(900_000)),
            (text(""), None),
            (text("k"), Some(1)),
            (text("large"), Some(900_000)),
        ]
    );
    let with_headers = all.iter().find(|record| record.key == text("k")).unwrap();
    let one = |key: &str, value: Option<&[u8]>| (key.to_owned(), value.map(<[u8]>::to_vec));
    assert_eq!(with_headers.headers, [one("a", Some(b"1")), one("b", None), one("a", Some(b""))]);
    assert_eq!(with_headers.timestamp, 1_700_000_000_000);
    assert_eq!(sent[4].partition(), 2);
    assert_eq!(sent[2].partition(), ringmail::testing::partition_for_key(b"k", 3));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    assert!((now - 60_000..=now + 1000).contains(&sent[0].timestamp()), "the clock's time");
    settled(&producer, 7, 0);
}

fn threads_keep_their_order(driver: DriverChoice) {
    const THREADS: usize = 4;
    const EACH: usize = 20_000;
    let broker = start(BrokerOptions::default());
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("order").unwrap();
    std::thread::scope(|scope| {
        let producer = producer.clone();
        scope.spawn(move || {
            let mut before = producer.stats();
            while before.delivered < (THREADS * EACH) as u64 / 2 {
                let stats = producer.stats();
                assert!(
                    stats.accepted >= before.accepted && stats.delivered >= before.delivered,
                    "{before:?} {stats:?}"
                );
                assert!(stats.delivered <= stats.accepted && stats.failed() == 0, "{stats:?}");
                before = stats;
            }
        });
        for thread in 0..THREADS {
            let topic = topic.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let key = (number % 50).to_string();
                    let record = format!("{thread}:{number}");
                    drop(topic.send(Record::value(&record).with_key(&key)).unwrap());
                }
            });
        }
    });
    producer.flush().unwrap();
    let mut seen = 0;
    for partition in 0..3 {
        let mut last: HashMap<(String, Vec<u8>), usize> = HashMap::new();
        for record in broker.log("order", partition) {
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            let (thread, number) = value.split_once(':').unwrap();
            let number: usize = number.parse().unwrap();
            let key = record.key.unwrap();
            assert_eq!(ringmail::testing::partition_for_key(&key, 3), partition);
            let before = last.insert((thread.to_owned(), key), number);
            assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
            seen += 1;
        }
    }
    assert_eq!(seen, THREADS * EACH);
    settled(&producer, (THREADS * EACH) as u64, 0);
}

fn nothing_is_lost_or_doubled_through_faults(driver: DriverChoice) {
    let faults = [
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
        Fault::HangAfter,
        Fault::HangBefore,
        Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        Fault::Delay(Duration::from_millis(3)),
        Fault::Throttle(Duration::from_millis(3)),
    ];
    let broker = start(one_partition().on_produce(move |context| {
        if context.nth % 4 == 1 { faults[(context.nth / 4) as usize % faults.len()] } else { Fault::None }
    }));
    let producer = builder(&broker, driver)
        .request_timeout(Duration::from_millis(150))
        .linger(Duration::from_millis(1))
        .build()
        .unwrap();
    let topic = producer.topic("faults").unwrap();
    let mut deliveries = Vec::new();
    for number in 0..600 {
        deliveries.push(topic.send(Record::value(&number.to_string())).unwrap());
        if number % 10 == 9 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let offsets: Vec<_> = deliveries.into_iter().map(|delivery| delivery.wait().expect("delivered").offset()).collect();
    assert_eq!(values(&broker.log("faults", 0)), numbers(0..600));
    for (number, offset) in offsets.iter().enumerate() {
        assert!(offset.is_none_or(|offset| offset == number as i64), "{number} at {offset:?}");
    }
    settled(&producer, 600, 0);
}

fn errors_that_pass_are_retried_in_order(driver: DriverChoice) {
    let left = Arc::new(AtomicUsize::new(30));
    let broker = start(one_partition().on_produce(move |context| {
        let pass = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err();
        if pass || context.nth.is_multiple_of(3) { Fault::None } else { Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS) }
    }));
    let producer = builder(&broker, driver).linger(Duration::ZERO).build().unwrap();
    let topic = producer.topic("retry").unwrap();
    for number in 0..200 {
        drop(topic.send(Record::value(&number.to_string())).unwrap());
        std::thread::yield_now();
    }
    producer.flush().unwrap();
    assert_eq!(values(&broker.log("retry", 0)), numbers(0..200));
    settled(&producer, 200, 0);
}

fn a_topic_with_small_batches_gets_everything(driver: DriverChoice) {
    let options = TopicOptions { partitions: 1, max_message_bytes: 20_000, ..TopicOptions::default() };
    let broker = start(BrokerOptions { topic: options, ..BrokerOptions::default() });
    let reports = Arc::new(AtomicU64::new(0));
    let counted = reports.clone();
    let producer = builder(&broker, driver)
        .batch_size(200_000)
        .listener(move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            assert_eq!(result.expect("delivered").offset(), Some(tag as i64));
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .unwrap();
    let topic = producer.topic("small").unwrap();
    let padding = "x".repeat(90);
    let mut deliveries = Vec::new();
    for number in 0..20_000_u64 {
        let value = format!("{number} {padding}");
        if number % 2 == 0 {
            deliveries.push((number, topic.send(Record::value(&value)).unwrap()));
        } else {
            topic.send_tagged(Record::value(&value), number).unwrap();
        }
    }
    producer.flush().unwrap();
    assert_eq!(reports.load(Ordering::Relaxed), 10_000);
    for (number, delivery) in deliveries {
        assert_eq!(delivery.wait().unwrap().offset(), Some(number as i64));
    }
    let log = broker.log("small", 0);
    let stored: Vec<u64> = values(&log).iter().map(|value| value.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(stored, (0..20_000).collect::<Vec<_>>());
    // One record that is too large by itself.
    let error = topic.send(Record::value(&vec![b'y'; 30_000])).unwrap().wait().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::TooLarge, Written::No), "{error}");
    topic.send(Record::value("after")).unwrap().wait().unwrap();
    settled(&producer, 20_001, 1);
}

fn acks_0_and_1(driver: DriverChoice) {
    for (acks, offset) in [(Acks::None, false), (Acks::Leader, true)] {
        let broker = start(one_partition());
        let producer = builder(&broker, driver).acks(acks).build().unwrap();
        let topic = producer.topic("acks").unwrap();
        let deliveries: Vec<_> =
            (0..100).map(|number: u32| topic.send(Record::value(&number.to_string())).unwrap()).collect();
        for delivery in deliveries {
            assert_eq!(delivery.wait().unwrap().offset().is_some(), offset);
        }
        settled(&producer, 100, 0);
        let _ = producer.close(Duration::from_secs(5)).unwrap();
        settled(&producer, 100, 0);
        // With acks=0 the broker may still be reading.
        let deadline = Instant::now() + Duration::from_secs(10);
        while broker.log("acks", 0).len() < 100 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(values(&broker.log("acks", 0)), numbers(0..100));
    }
}

fn acks_0_on_a_dead_connection_is_no_success(driver: DriverChoice) {
    let broker = start(one_partition());
    let producer = builder(&broker, driver)
        .acks(Acks::None)
        .request_timeout(Duration::from_millis(200))
        .delivery_timeout(Duration::from_millis(500))
        .linger(Duration::ZERO)
        .build()
        .unwrap();
    let topic = producer.topic("dead").unwrap();
    topic.send(Record::value("alive")).unwrap().wait().unwrap();
    broker.shutdown();
    let results: Vec<_> = (0..20)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(2));
            topic.send(Record::value("dead")).unwrap()
        })
        .collect();
    let mut failed = 0;
    for delivery in results {
        match delivery.wait() {
            // Taken by the kernel before the end was known: sent, and no more is claimed.
            Ok(metadata) => assert_eq!(metadata.offset(), None),
            Err(_) => failed += 1,
        }
    }
    assert!(failed >= 18, "{failed}");
    settled(&producer, 21 - failed, failed);
}

fn a_full_buffer_gives_the_record_back(driver: DriverChoice) {
    let broker = start(one_partition().on_produce(|_| Fault::HangBefore));
    let producer = builder(&broker, driver)
        .buffer_memory(1 << 20)
        .set("max.request.size", "200000")
        .max_block(Duration::from_millis(100))
        .request_timeout(Duration::from_millis(300))
        .delivery_timeout(Duration::from_millis(700))
        .build()
        .unwrap();
    let topic = producer.topic("full").unwrap();
    producer.warm_up(&["full"]).unwrap();
    let value = vec![b'v'; 10_000];
    let mut deliveries = Vec::new();
    let refused = loop {
        match topic.try_send(Record::value(&value)) {
            Ok(delivery) => deliveries.push(delivery),
            Err(refused) => break refused,
        }
        assert!(deliveries.len() < 1000, "the limit is not kept");
    };
    assert_eq!(refused.error, SendError::BufferFull);
    assert!(deliveries.len() > 50, "{} of about 100 found room", deliveries.len());
    let error = topic.send(refused.record).unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error}");
    let (failed, stats) = (deliveries.len() as u64, producer.stats());
    assert_eq!(stats.accepted, failed, "what was refused does not count");
    assert!(stats.buffer_used > stats.buffer_total / 2, "{stats:?}");
    for delivery in deliveries {
        let error = delivery.wait().unwrap_err();
        assert!(matches!(error.kind(), DeliveryErrorKind::Expired | DeliveryErrorKind::RequestTimedOut), "{error}");
    }
    settled(&producer, 0, failed);
    // Everything has its end, so there is room again.
    drop(topic.send(Record::value(&value)).unwrap());
}

fn an_unanswered_record_is_possibly_written(driver: DriverChoice) {
    let broker =
        start(one_partition().on_produce(|context| if context.count == 1 { Fault::HangAfter } else { Fault::None }));
    let producer = builder(&broker, driver)
        .request_timeout(Duration::from_millis(100))
        .delivery_timeout(Duration::from_millis(250))
        .linger(Duration::ZERO)
        .build()
        .unwrap();
    let topic = producer.topic("hang").unwrap();
    let error = topic.send(Record::value("?")).unwrap().wait().unwrap_err();
    assert_eq!(error.written(), Written::Possibly, "{error}");
    assert!(error.to_string().contains("hang-0"), "{error}");
    assert_eq!(producer.stats().failed_possibly_written, 1);
    settled(&producer, 0, 1);
}

fn a_refused_record_is_not_written(driver: DriverChoice) {
    let broker =
        start(one_partition().on_produce(|context| {
            if context.nth == 0 { Fault::Error(ErrorCode::INVALID_RECORD) } else { Fault::None }
        }));
    let producer = builder(&broker, driver).linger(Duration::ZERO).build().unwrap();
    let topic = producer.topic("refused").unwrap();
    let error = topic.send(Record::value("bad")).unwrap().wait().unwrap_err();
    assert_eq!(error.kind(), DeliveryErrorKind::Broker(ErrorCode::INVALID_RECORD));
    assert_eq!(error.written(), Written::No);
    // Its sequence number is lost; the next ones come under a new epoch.
    for number in 0..20 {
        topic.send(Record::value(&number.to_string())).unwrap().wait().unwrap();
    }
    let log = broker.log("refused", 0);
    assert_eq!(values(&log), numbers(0..20));
    assert!(log.iter().all(|record| record.producer_epoch == 1));
    assert_eq!(producer.stats().failed_not_written, 1);
    settled(&producer, 20, 1);
}

fn a_slow_listener_stops_acceptance_not_sending(driver: DriverChoice) {
    let broker = start(one_partition());
    let (go, gate) = mpsc::channel::<()>();
    let told = Arc::new(AtomicU64::new(0));
    let counted = told.clone();
    let producer = builder(&broker, driver)
        .buffer_memory(1 << 20)
        .set("max.request.size", "200000")
        .listener(move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            if tag == 0 {
                gate.recv().unwrap();
            }
            assert!(result.is_ok());
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .unwrap();
    let topic = producer.topic("slow").unwrap();
    producer.warm_up(&["slow"]).unwrap();
    let value = vec![b'v'; 1000];
    let mut accepted = 0;
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(300) {
        match topic.try_send_tagged(Record::value(&value), accepted) {
            Ok(()) => (accepted, quiet) = (accepted + 1, Instant::now()),
            Err(refused) => assert_eq!(refused.error, SendError::BufferFull),
        }
    }
    assert!((100..=1100).contains(&accepted), "{accepted}: acceptance stops at buffer.memory");
    assert_eq!(told.load(Ordering::Relaxed), 0, "the listener is held");
    assert_eq!(broker.log("slow", 0).len() as u64, accepted, "everything accepted was sent all the same");
    go.send(()).unwrap();
    producer.flush().unwrap();
    assert_eq!(told.load(Ordering::Relaxed), accepted, "flush returns after the listener");
    settled(&producer, accepted, 0);
}

fn close_waits_for_a_listener_far_behind(driver: DriverChoice) {
    const RECORDS: u64 = 2500;
    let broker = start(one_partition());
    let (go, gate) = mpsc::channel::<()>();
    let told = Arc::new(AtomicU64::new(0));
    let counted = told.clone();
    let producer = builder(&broker, driver)
        .listener(move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            if tag == 0 {
                gate.recv().unwrap();
            }
            assert!(result.is_ok());
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .unwrap();
    let topic = producer.topic("behind").unwrap();
    for tag in 0..RECORDS {
        // A segment each, and so a report each: more than fit between the two threads.
        let mut claim = topic.claim(8, None, &[]).unwrap();
        claim.fill(b'x');
        claim.commit_tagged(tag).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while broker.log("behind", 0).len() < RECORDS as usize {
                std::thread::sleep(Duration::from_millis(5));
            }
            go.send(()).unwrap();
        });
        assert!(producer.close(Duration::from_secs(20)).unwrap().is_clean());
    });
    assert_eq!(told.load(Ordering::Relaxed), RECORDS);
    settled(&producer, RECORDS, 0);
}

fn keyless_records_leave_a_full_partition(driver: DriverChoice) {
    let options = BrokerOptions { brokers: 2, ..BrokerOptions::default() };
    let broker = start(options.on_produce(|context| if context.node == 0 { Fault::HangBefore } else { Fault::None }));
    broker.create_topic("stuck", 2);
    let producer = builder(&broker, driver)
        .buffer_memory(4 << 20)
        .set("max.request.size", "200000")
        .max_block(Duration::from_secs(20))
        .build()
        .unwrap();
    let topic = producer.topic("stuck").unwrap();
    producer.warm_up(&["stuck"]).unwrap();
    let value = vec![b'v'; 1000];
    // Far more than the memory holds: one broker answers nothing, the other takes them.
    for _ in 0..20_000 {
        drop(topic.send(Record::value(&value)).unwrap());
    }
    assert!(broker.log("stuck", 1).len() > 10_000, "{}", broker.log("stuck", 1).len());
    let left = producer.close(Duration::ZERO).unwrap().records();
    settled(&producer, 20_000 - left, left);
}

/// One of three brokers is stuck and has taken all the memory that it may: a record without key is never refused for its
/// sake, however many of the partitions are its own.
fn keyless_records_find_a_broker_with_room(driver: DriverChoice) {
    let options = BrokerOptions { brokers: 3, ..BrokerOptions::default() };
    let broker = start(options.on_produce(|context| if context.node == 0 { Fault::HangBefore } else { Fault::None }));
    broker.create_topic("third", 30);
    let producer = builder(&broker, driver).buffer_memory(4 << 20).set("max.request.size", "200000").build().unwrap();
    let topic = producer.topic("third").unwrap();
    producer.warm_up(&["third"]).unwrap();
    let leaders = producer.partitions_for("third").unwrap();
    let value = vec![b'v'; 1000];
    let mut lost = 0;
    for partition in leaders.iter().filter(|partition| partition.leader == Some(0)) {
        while topic.try_send(Record::value(&value).with_partition(partition.partition)).is_ok() {
            lost += 1;
        }
    }
    assert!(lost > 1000, "{lost}");
    for number in 0..500 {
        if let Err(refused) = topic.try_send(Record::value(&value)) {
            panic!("{number}: {}", refused.error);
        }
    }
    let _ = producer.close(Duration::from_millis(500)).unwrap();
}

/// A producer without a listener makes no room for callbacks until the first one comes; from then on, for all.
fn callbacks_come_also_after_deliveries(driver: DriverChoice) {
    let broker = start(one_partition());
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("late").unwrap();
    let called = Arc::new(AtomicU64::new(0));
    for round in 1..=20 {
        for _ in 0..5000 {
            drop(topic.send(Record::value("a delivery")).unwrap());
        }
        if round % 2 == 0 {
            producer.flush().unwrap();
        }
        for _ in 0..500 {
            let called = called.clone();
            let count = move |result: Result<RecordMetadata, DeliveryError>| {
                result.unwrap();
                called.fetch_add(1, Ordering::SeqCst);
            };
            topic.send_with(Record::value("a callback"), count).unwrap();
        }
        producer.flush().unwrap();
        assert_eq!(called.load(Ordering::SeqCst), round * 500);
    }
}

fn callbacks_may_not_block(driver: DriverChoice) {
    let broker = start(one_partition());
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("callbacks").unwrap();
    let (report, reports) = mpsc::channel();
    let (again, inner) = (topic.clone(), producer.clone());
    topic
        .send_with(Record::value("first"), move |result| {
            let flushed = inner.flush();
            let closed = inner.close(Duration::from_secs(1)).map(drop);
            let nested = again.try_send(Record::value("second")).map(|delivery| delivery.wait());
            report.send((result, flushed, closed, nested.map_err(|refused| refused.error))).unwrap();
        })
        .unwrap();
    let (result, flushed, closed, nested) = reports.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(result.unwrap().offset(), Some(0));
    assert_eq!(flushed, Err(SendError::WouldDeadlock));
    assert_eq!(closed, Err(SendError::WouldDeadlock));
    let waited = nested.expect("sending from a callback works").unwrap_err();
    assert_eq!(waited.kind(), DeliveryErrorKind::WouldDeadlock);
    producer.flush().unwrap();
    assert_eq!(values(&broker.log("callbacks", 0)), ["first", "second"]);
    settled(&producer, 2, 0);
}

fn a_panicking_callback_harms_nobody(driver: DriverChoice) {
    let broker = start(one_partition());
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("panic").unwrap();
    let called = Arc::new(AtomicU64::new(0));
    for number in 0..10 {
        let called = called.clone();
        topic
            .send_with(Record::value(&number.to_string()), move |_| {
                called.fetch_add(1, Ordering::Relaxed);
                assert!(number != 3, "a callback's own bug");
            })
            .unwrap();
    }
    producer.flush().unwrap();
    assert_eq!(called.load(Ordering::Relaxed), 10);
    settled(&producer, 10, 0);
}

/// Tags and callbacks of one batch: after a panic the next ones hear, each once, of its own offset.
fn a_panicking_listener_harms_nobody(driver: DriverChoice) {
    let broker = start(one_partition());
    let (report, reports) = mpsc::channel();
    let of_callbacks = report.clone();
    let listener = move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
        report.send((tag, result.unwrap().offset().unwrap(), result.unwrap().timestamp())).unwrap();
        assert!(!matches!(tag, 0 | 4 | 9), "a listener's own bug");
    };
    let producer = builder(&broker, driver).listener(listener).build().unwrap();
    let topic = producer.topic("panic").unwrap();
    for number in 0..10_u64 {
        let value = number.to_string();
        let record = Record::value(&value).with_timestamp(1_700_000_000_000 + number as i64);
        if number % 4 == 3 {
            let report = of_callbacks.clone();
            topic
                .send_with(record, move |result| {
                    let metadata = result.unwrap();
                    report.send((number, metadata.offset().unwrap(), metadata.timestamp())).unwrap();
                    assert!(number != 7, "a callback's own bug");
                })
                .unwrap();
        } else {
            topic.send_tagged(record, number).unwrap();
        }
    }
    producer.flush().unwrap();
    let expected: Vec<_> = (0..10).map(|n| (n, n as i64, 1_700_000_000_000 + n as i64)).collect();
    assert_eq!(reports.try_iter().collect::<Vec<_>>(), expected);
    settled(&producer, 10, 0);
}

fn claims_are_written_in_place(driver: DriverChoice) {
    let broker = start(one_partition());
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("claims").unwrap();
    let headers = [Header { key: "h", value: Some(b"1") }];
    let mut first = topic.claim(5, Some(b"k"), &headers).unwrap();
    let abandoned = topic.claim(100_000, None, &[]).unwrap();
    let leaked = topic.claim(10, None, &[]).unwrap();
    std::mem::forget(leaked);
    let between = topic.send(Record::value("sent")).unwrap();
    producer.flush().unwrap();
    settled(&producer, 1, 0);
    assert_eq!(between.wait().unwrap().offset(), Some(0), "open claims hold up nobody");
    first.copy_from_slice(b"claim");
    drop(abandoned);
    assert_eq!(first.commit().unwrap().wait().unwrap().offset(), Some(1));
    let mut large = topic.claim(900_000, None, &[]).unwrap();
    large.fill(b'L');
    assert_eq!(large.commit().unwrap().wait().unwrap().offset(), Some(2));
    let mut empty = topic.claim(0, None, &[]).unwrap();
    assert!(empty.is_empty());
    empty.fill(0);
    let delivery = empty.try_commit().map_err(|(_, error)| error).unwrap();
    assert_eq!(delivery.wait().unwrap().offset(), Some(3));
    let log = broker.log("claims", 0);
    assert_eq!(log[1].value.as_deref(), Some(&b"claim"[..]));
    assert_eq!(log[1].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(log[1].headers, [("h".to_owned(), Some(b"1".to_vec()))]);
    assert_eq!(log[2].value.as_deref(), Some(&vec![b'L'; 900_000][..]));
    assert_eq!(log[3].value.as_deref(), Some(&b""[..]));
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    assert!(matches!(topic.claim(1, None, &[]), Err(SendError::Closed)));
    settled(&producer, 4, 0);
}

fn the_last_drop_sends_what_was_accepted(driver: DriverChoice) {
    let broker = start(one_partition());
    let producer =
        builder(&broker, driver).linger(Duration::from_secs(100)).set("delivery.timeout.ms", "200000").build();
    let producer = producer.unwrap();
    let topic = producer.topic("drop").unwrap();
    let other = producer.clone();
    for number in 0..1000 {
        drop(topic.send(Record::value(&number.to_string())).unwrap());
    }
    assert_eq!((outstanding(&producer), producer.stats().waiting), (1000, 1000), "counted in the ring");
    drop(producer);
    drop(topic.send(Record::value("1000")).unwrap());
    drop(other);
    assert_eq!(values(&broker.log("drop", 0)), numbers(0..1001));
    assert!(matches!(topic.send(Record::value("late")), Err(SendError::Closed)));
}

fn close_lists_what_was_left(driver: DriverChoice) {
    let broker = start(one_partition().on_produce(|_| Fault::HangBefore));
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("left").unwrap();
    let deliveries: Vec<_> = (0..100).map(|_| topic.send(Record::value("x")).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(producer.stats().outstanding(), 100);
    let report = producer.close(Duration::from_millis(200)).unwrap();
    assert_eq!(report.records(), 100, "{report}");
    assert_eq!(&*report.leftovers()[0].topic, "left");
    for delivery in deliveries {
        assert_eq!(delivery.wait().unwrap_err().kind(), DeliveryErrorKind::Closed);
    }
    assert_eq!(producer.close(Duration::ZERO).unwrap(), report, "once is enough, and the truth stays");
    settled(&producer, 0, 100);
}

/// A future's whole runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn futures_need_no_runtime(driver: DriverChoice) {
    let broker = start(BrokerOptions { ack_delay: Duration::from_millis(1), ..one_partition() });
    let producer = builder(&broker, driver).buffer_memory(256 << 10).set("max.request.size", "100000").build().unwrap();
    let topic = producer.topic("async").unwrap();
    let value = vec![b'v'; 5000];
    block_on(async {
        // More than the buffer holds: it has to wait for room, too.
        let mut deliveries = Vec::new();
        for _ in 0..300 {
            deliveries.push(topic.send_async(Record::value(&value)).await.unwrap());
        }
        for (number, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivery.await.unwrap().offset(), Some(number as i64));
        }
        drop(topic.send(Record::value("last")).unwrap());
        producer.flush_async().await.unwrap();
        assert_eq!(broker.log("async", 0).len(), 301);
        settled(&producer, 301, 0);
        assert!(producer.close_async(Duration::from_secs(5)).await.unwrap().is_clean());
        assert_eq!(topic.send_async(Record::value("late")).await.map(drop), Err(SendError::Closed));
    });
}

fn refusals_name_their_reason(driver: DriverChoice) {
    let broker = start(BrokerOptions { auto_create: false, ..BrokerOptions::default() });
    broker.create_topic("known", 2);
    let producer = builder(&broker, driver).max_block(Duration::from_millis(300)).build().unwrap();
    let unknown = producer.topic("unknown").unwrap();
    let error = unknown.try_send(Record::value("x")).unwrap_err().error;
    assert!(matches!(error, SendError::NotReady { .. }), "{error}");
    let error = unknown.send(Record::value("x")).unwrap_err();
    assert!(matches!(error, SendError::UnknownTopic { .. }), "{error}");
    assert!(error.to_string().contains("'unknown'"), "{error}");
    let error = block_on(unknown.send_async(Record::value("x"))).unwrap_err();
    assert!(matches!(error, SendError::UnknownTopic { .. }), "{error}");
    assert!(matches!(producer.topic("a/b"), Err(SendError::InvalidTopic { .. })));
    assert_eq!(producer.partitions_for("known").unwrap().len(), 2);
    let known = producer.topic("known").unwrap();
    let error = known.send(Record::value("x").with_partition(2)).unwrap_err();
    assert!(matches!(error, SendError::InvalidPartition { partition: 2, count: 2, .. }), "{error}");
    let error = known.send(Record::value(&vec![0; 2 << 20])).unwrap_err();
    assert!(matches!(error, SendError::RecordTooLarge { key: "max.request.size", .. }), "{error}");
    let error = known.send(Record::value("x").with_timestamp(-1)).unwrap_err();
    assert!(matches!(error, SendError::InvalidTimestamp { timestamp: -1 }), "{error}");
    assert_eq!(known.send_tagged(Record::value("x"), 1), Err(SendError::NoListener));
    // Created meanwhile: what waits for it goes on.
    let later = producer.topic("later").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            broker.create_topic("later", 1);
        });
        later.send(Record::value("x")).unwrap().wait().unwrap();
    });
    let _ = producer.close(Duration::from_secs(1)).unwrap();
    assert_eq!(known.send(Record::value("x")).map(drop), Err(SendError::Closed));
    assert!(matches!(producer.topic("known"), Err(SendError::Closed)));
    assert_eq!(producer.flush(), Ok(()));
}

fn an_unreachable_broker_is_named(driver: DriverChoice) {
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let producer = Producer::builder()
        .bootstrap_servers(&format!("127.0.0.1:{port}"))
        .driver(driver)
        .max_block(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = producer.topic("t").unwrap().send(Record::value("x")).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("refused"), "{error}");
    let started = Instant::now();
    assert!(producer.close(Duration::from_secs(10)).unwrap().is_clean());
    assert!(started.elapsed() < Duration::from_secs(5), "nothing to wait for");
}

fn leaders_move_without_loss(driver: DriverChoice) {
    let broker = start(BrokerOptions { brokers: 3, ..one_partition() });
    broker.create_topic("moving", 1);
    let producer = builder(&broker, driver).linger(Duration::from_millis(1)).build().unwrap();
    let topic = producer.topic("moving").unwrap();
    for number in 0..500 {
        drop(topic.send(Record::value(&number.to_string())).unwrap());
        if number % 50 == 49 {
            broker.move_leader("moving", 0, (number / 50) % 3);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    producer.flush().unwrap();
    assert_eq!(values(&broker.log("moving", 0)), numbers(0..500));
    settled(&producer, 500, 0);
}

fn many_partitions_share_requests(driver: DriverChoice) {
    let broker = start(BrokerOptions { brokers: 2, ..BrokerOptions::default() });
    broker.create_topic("many", 200);
    let producer = builder(&broker, driver).linger(Duration::from_millis(50)).build().unwrap();
    let topic = producer.topic("many").unwrap();
    producer.warm_up(&["many"]).unwrap();
    for number in 0..2000_i32 {
        let record = number.to_string();
        drop(topic.send(Record::value(&record).with_partition(number % 200)).unwrap());
    }
    producer.flush().unwrap();
    for partition in 0..200 {
        let expected: Vec<_> = (0..10).map(|round| (round * 200 + partition).to_string()).collect();
        assert_eq!(values(&broker.log("many", partition)), expected);
    }
    let requests = broker.stats().produce_requests;
    assert!(requests <= 100, "{requests} requests for 200 partitions on 2 brokers");
    settled(&producer, 2000, 0);
}

fn a_flush_does_not_wait_for_linger(driver: DriverChoice) {
    let broker = start(BrokerOptions::default());
    let producer = builder(&broker, driver)
        .linger(Duration::from_secs(1000))
        .set("delivery.timeout.ms", "2000000")
        .build()
        .unwrap();
    let topic = producer.topic("flush").unwrap();
    for round in 1..=20 {
        for number in 0..30 {
            drop(topic.send(Record::value("x").with_key(&number.to_string())).unwrap());
        }
        producer.flush().unwrap();
        let stored: usize = (0..3).map(|partition| broker.log("flush", partition).len()).sum();
        assert_eq!(stored, round * 30);
    }
    settled(&producer, 600, 0);
}

fn log_append_time_reaches_the_caller(driver: DriverChoice) {
    let options = TopicOptions {
        partitions: 1,
        timestamp_type: ringmail::testing::TimestampType::LogAppendTime,
        ..TopicOptions::default()
    };
    let broker = start(BrokerOptions { topic: options, ..BrokerOptions::default() });
    let producer = builder(&broker, driver).build().unwrap();
    let topic = producer.topic("appended").unwrap();
    let metadata = topic.send(Record::value("x").with_timestamp(5)).unwrap().wait().unwrap();
    assert!(metadata.timestamp() > 1_600_000_000_000, "{}", metadata.timestamp());
    settled(&producer, 1, 0);
}

fn every_produce_version_works(driver: DriverChoice) {
    for version in 3..=13 {
        let broker = start(BrokerOptions { produce_max_version: version, ..one_partition() });
        let producer = builder(&broker, driver).build().unwrap();
        let topic = producer.topic("versions").unwrap();
        for number in 0..10 {
            let delivery = topic.send(Record::value(&number.to_string())).unwrap();
            assert_eq!(delivery.wait().unwrap().offset(), Some(number), "v{version}");
        }
        settled(&producer, 10, 0);
    }
}

fn a_warm_producer_sends_at_once(driver: DriverChoice) {
    let broker = start(one_partition());
    let producer = builder(&broker, driver).build().unwrap();
    assert_eq!(producer.driver_name(), if driver == DriverChoice::Epoll { "epoll" } else { "io_uring" });
    producer.warm_up(&["warm"]).unwrap();
    let topic = producer.topic("warm").unwrap();
    let delivery = topic.try_send(Record::value("x")).expect("metadata is there");
    assert_eq!(delivery.wait().unwrap().offset(), Some(0));
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let delivery = topic.send(Record::value("y")).unwrap();
                results.lock().unwrap().push(delivery.wait().unwrap().offset().unwrap());
            });
        }
    });
    let mut offsets = results.into_inner().unwrap();
    offsets.sort_unstable();
    assert_eq!(offsets, [1, 2, 3, 4]);
    settled(&producer, 5, 0);
}

/// Whatever the sender does while nothing comes, its clock does not stand still.
fn a_record_after_a_pause_has_its_own_time(driver: DriverChoice) {
    let broker = start(one_partition());
    let producers = [IdleStrategy::Park, IdleStrategy::SpinThenPark, IdleStrategy::Spin].map(|idle| {
        let producer = builder(&broker, driver).linger(Duration::ZERO).idle_strategy(idle).build().unwrap();
        producer.topic("pause").unwrap().send(Record::value("before")).unwrap().wait().unwrap();
        producer
    });
    let pause = Duration::from_secs(2);
    std::thread::sleep(pause);
    for producer in producers {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let delivery = producer.topic("pause").unwrap().send(Record::value("after")).unwrap();
        let behind = now - delivery.timestamp();
        assert!(behind < pause.as_millis() as i64 - 100, "{behind} ms behind");
        delivery.wait().unwrap();
    }
}
