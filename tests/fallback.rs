//! What could not be delivered: that every such record reaches the sink, whole and once, over both drivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, Fault, TopicOptions};
use ringmail::{
    DeadLetterTopic, DeliveryError, DeliveryErrorKind, DriverChoice, ErrorCode, FailedRecordsFile, Header, Producer,
    ProducerBuilder, Record, RecordMetadata, SendError, UndeliverableSink, UndeliveredRecord, Written,
};

/// Each test as one test per driver.
macro_rules! over_both_drivers {
    ($($name:ident)*) => {
        mod io_uring { $(#[test] fn $name() { super::$name(super::DriverChoice::IoUring); })* }
        mod epoll { $(#[test] fn $name() { super::$name(super::DriverChoice::Epoll); })* }
    };
}

over_both_drivers! {
    a_refused_record_is_kept_as_it_was
    expired_in_the_ring_is_not_written
    expired_in_flight_is_possibly_written
    one_with_less_time_is_kept_before_its_neighbours
    one_too_large_among_many_is_kept_alone
    a_split_segment_stays_until_the_sink_has_read_it
    what_close_gives_up_is_kept
    every_kind_of_waiting_hears_of_it_after_the_sink
    a_sink_that_panics_gets_the_next_record
    a_slow_sink_stops_acceptance_not_sending
    delivered_records_never_reach_the_sink
    whatever_happens_each_failure_is_kept_once
    a_dead_letter_tells_where_it_comes_from
    a_dead_letter_that_fails_does_not_come_back
    every_dead_letter_is_there_when_a_close_is_over
    a_close_is_bound_by_its_timeout_whatever_the_sink_waits_for
    a_dead_letter_cluster_that_is_away_is_waited_for_once
    another_clusters_topic_of_the_same_name_takes_letters
    a_file_holds_what_failed
}

/// A record as the sink saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kept {
    topic: String,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: i64,
    kind: DeliveryErrorKind,
    written: Written,
    attempts: u32,
    waited: Duration,
}

/// Remembers everything.
#[derive(Clone, Default)]
struct Keeper {
    kept: Arc<Mutex<Vec<Kept>>>,
    finished: Arc<AtomicU64>,
}

impl UndeliverableSink for Keeper {
    fn undeliverable(&mut self, record: UndeliveredRecord<'_>) {
        assert_eq!(self.finished.load(Ordering::Relaxed), 0, "finish is the last call");
        assert_eq!(record.error().topic(), Some(record.topic()));
        self.kept.lock().unwrap().push(Kept {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
            headers: record.headers().iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect(),
            timestamp: record.timestamp(),
            kind: record.error().kind(),
            written: record.written(),
            attempts: record.attempts(),
            waited: record.waited(),
        });
    }

    fn finish(&mut self, _: Duration) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }
}

impl Keeper {
    fn kept(&self) -> Vec<Kept> {
        self.kept.lock().unwrap().clone()
    }

    fn values(&self) -> Vec<String> {
        let text = |kept: Kept| String::from_utf8(kept.value.unwrap()).unwrap();
        self.kept().into_iter().map(text).collect()
    }
}

fn builder(broker: &Broker, driver: DriverChoice) -> ProducerBuilder {
    Producer::builder().bootstrap_servers(&broker.bootstrap()).driver(driver).set("retry.backoff.ms", "5")
}

fn start(options: BrokerOptions) -> Broker {
    Broker::start(options).expect("a broker on loopback")
}

fn one_partition() -> BrokerOptions {
    BrokerOptions { topic: TopicOptions { partitions: 1, ..TopicOptions::default() }, ..BrokerOptions::default() }
}

/// Refuses everything that is sent to `topic`.
fn refusing(topic: &'static str) -> BrokerOptions {
    one_partition().on_produce(move |context| {
        if context.topic == topic { Fault::Error(ErrorCode::INVALID_RECORD) } else { Fault::None }
    })
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// The books balance: so many delivered, so many failed, all of the latter in the sink.
fn settled(producer: &Producer, keeper: &Keeper, delivered: u64, failed: u64) {
    let stats = producer.stats();
    assert!(stats.adds_up(), "{stats:?}");
    assert_eq!((stats.delivered, stats.failed(), stats.outstanding()), (delivered, failed, 0), "{stats:?}");
    let kept = keeper.kept();
    let possibly = kept.iter().filter(|kept| kept.written == Written::Possibly).count() as u64;
    assert_eq!((kept.len() as u64, possibly), (failed, stats.failed_possibly_written), "{stats:?}");
}

fn a_refused_record_is_kept_as_it_was(driver: DriverChoice) {
    let broker = start(refusing("t"));
    let keeper = Keeper::default();
    let producer = builder(&broker, driver).on_undeliverable(keeper.clone()).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let all: Vec<u8> = (0..=255).collect();
    let headers = [
        Header { key: "a", value: Some(&all) },
        Header { key: "ä", value: None },
        Header { key: "a", value: Some(b"") },
    ];
    let large = vec![0xab; 900_000];
    let records = [
        Record::value(&all).with_key(&all).with_headers(&headers).with_timestamp(1_700_000_000_000),
        Record::new().with_timestamp(5),
        Record::value("").with_key("").with_timestamp(1_700_000_000_001),
        Record::value(&large).with_timestamp(1_600_000_000_000),
    ];
    let mut deliveries: Vec<_> = records.iter().map(|record| topic.send(*record).unwrap()).collect();
    let mut claim = topic.claim(5, Some(b"claimed"), &headers[1..]).unwrap();
    claim.copy_from_slice(b"in it");
    deliveries.push(claim.commit().unwrap());
    for delivery in deliveries {
        assert_eq!(delivery.wait().unwrap_err().kind(), DeliveryErrorKind::Broker(ErrorCode::INVALID_RECORD));
    }
    let kept = keeper.kept();
    let shape = |kept: &Kept| (kept.key.clone(), kept.value.clone(), kept.timestamp);
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    assert_eq!(
        kept[..4].iter().map(shape).collect::<Vec<_>>(),
        [
            (some(&all), some(&all), 1_700_000_000_000),
            (None, None, 5),
            (some(b""), some(b""), 1_700_000_000_001),
            (None, some(&large), 1_600_000_000_000),
        ]
    );
    let own = |headers: &[Header<'_>]| -> Vec<_> {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    };
    assert_eq!((&kept[0].headers, kept[1].headers.len()), (&own(&headers), 0));
    assert_eq!(
        (&kept[4].key, &kept[4].value, &kept[4].headers),
        (&some(b"claimed"), &some(b"in it"), &own(&headers[1..]))
    );
    for kept in &kept {
        assert_eq!((&*kept.topic, kept.partition, kept.written), ("t", 0, Written::No));
        assert!(kept.attempts >= 1, "{kept:?}");
    }
    settled(&producer, &keeper, 0, 5);
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    assert_eq!(keeper.finished.load(Ordering::Relaxed), 1, "close waits for it");
    // All memory is back: the callback thread returned what it was lent.
    assert_eq!(producer.stats().buffer_used, 0);
}

fn expired_in_the_ring_is_not_written(driver: DriverChoice) {
    let broker = start(one_partition());
    broker.create_topic("t", 1);
    let keeper = Keeper::default();
    let producer = builder(&broker, driver)
        .request_timeout(Duration::from_millis(100))
        .delivery_timeout(Duration::from_millis(250))
        .on_undeliverable(keeper.clone())
        .build()
        .unwrap();
    producer.warm_up(&["t"]).unwrap();
    broker.move_leader("t", 0, -1);
    // One that finds no leader makes the producer look, and then the rest waits in the ring.
    let topic = producer.topic("t").unwrap();
    let deliveries: Vec<_> = (0..50).map(|n: u32| topic.send(Record::value(&n.to_string())).unwrap()).collect();
    for delivery in deliveries {
        let error = delivery.wait().unwrap_err();
        assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Expired, Written::No), "{error}");
    }
    assert_eq!(keeper.values(), numbers(0..50));
    assert!(keeper.kept().iter().all(|kept| kept.waited >= Duration::from_millis(250)));
    settled(&producer, &keeper, 0, 50);
}

fn expired_in_flight_is_possibly_written(driver: DriverChoice) {
    let broker = start(one_partition().on_produce(|_| Fault::HangAfter));
    let keeper = Keeper::default();
    let producer = builder(&broker, driver)
        .linger(Duration::ZERO)
        // It expires while its first request is not answered, and its memory is still the kernel's and the broker's.
        .request_timeout(Duration::from_millis(200))
        .delivery_timeout(Duration::from_millis(200))
        .on_undeliverable(keeper.clone())
        .build()
        .unwrap();
    let topic = producer.topic("t").unwrap();
    producer.warm_up(&["t"]).unwrap();
    let delivery = topic.send(Record::value("?").with_key("k")).unwrap();
    assert_eq!(delivery.wait().unwrap_err().written(), Written::Possibly);
    let kept = keeper.kept();
    assert_eq!((kept.len(), kept[0].written, kept[0].attempts), (1, Written::Possibly, 1));
    assert_eq!((kept[0].key.as_deref(), kept[0].value.as_deref()), (Some(&b"k"[..]), Some(&b"?"[..])));
    settled(&producer, &keeper, 0, 1);
    assert_eq!(broker.log("t", 0).len(), 1, "and indeed it was");
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    settled(&producer, &keeper, 0, 1);
    assert_eq!(producer.stats().buffer_used, 0);
}

/// In flight and in the ring: who has less time is kept and told alone, whichever way it is waited for, and its neighbours
/// are delivered.
fn one_with_less_time_is_kept_before_its_neighbours(driver: DriverChoice) {
    let late = |context: &ringmail::testing::ProduceContext<'_>| match context.nth {
        0 => Fault::Delay(Duration::from_millis(2500)),
        _ => Fault::None,
    };
    let broker = start(one_partition().on_produce(late));
    let keeper = Keeper::default();
    let (told, heard) = mpsc::channel();
    let listener = move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
        told.send((tag, result.map(|metadata| metadata.offset()).map_err(DeliveryError::written))).unwrap();
    };
    let producer =
        builder(&broker, driver).on_undeliverable(keeper.clone()).listener(listener).set("linger.ms", "20").build();
    let producer = producer.unwrap();
    producer.warm_up(&["t"]).unwrap();
    let topic = producer.topic("t").unwrap();
    let short = Duration::from_millis(300);
    let send = |value: &str, limited: bool, tag: Option<u64>| {
        let record = Record::value(value);
        let record = if limited { record.with_delivery_timeout(short) } else { record };
        match tag {
            Some(tag) => topic.send_tagged(record, tag).map(|()| None),
            None => topic.send(record).map(Some),
        }
        .unwrap()
    };
    // Before the first acknowledgement one batch is in flight: what comes now is in it, and the rest waits in the ring.
    let began = Instant::now();
    let (a, b) = (send("a", false, None).unwrap(), send("b", true, None).unwrap());
    send("c", true, Some(1));
    send("d", false, Some(2));
    while producer.stats().in_flight == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    let e = send("e", true, None).unwrap();
    send("f", false, None);
    send("g", true, Some(3));
    assert_eq!([b, e].map(|delivery| delivery.wait().unwrap_err().written()), [Written::Possibly, Written::No]);
    let mut values = keeper.values();
    assert!(values.contains(&"b".to_owned()) && values.contains(&"e".to_owned()), "kept before it is told: {values:?}");
    assert!(a.try_result().is_none(), "its batch has no answer yet");
    producer.flush().unwrap();
    values = keeper.values();
    values.sort();
    assert_eq!(values, ["b", "c", "e", "g"]);
    for kept in keeper.kept() {
        assert_eq!(kept.kind, DeliveryErrorKind::Expired);
        assert!(kept.waited >= short, "{kept:?}");
    }
    let mut heard: Vec<_> = heard.try_iter().collect();
    heard.sort_by_key(|(tag, _)| *tag);
    assert_eq!(heard, [(1, Err(Written::Possibly)), (2, Ok(Some(3))), (3, Err(Written::No))]);
    settled(&producer, &keeper, 3, 4);
    let stored: Vec<_> =
        broker.with_model(|model| model.records("t", 0)).into_iter().map(|record| record.value.unwrap()).collect();
    assert_eq!(stored, [b"a", b"b", b"c", b"d", b"f"]);
}

fn one_too_large_among_many_is_kept_alone(driver: DriverChoice) {
    let options = TopicOptions { partitions: 1, max_message_bytes: 20_000, ..TopicOptions::default() };
    let broker = start(BrokerOptions { topic: options, ..BrokerOptions::default() });
    for tagged in [false, true] {
        let name = if tagged { "tagged" } else { "plain" };
        let keeper = Keeper::default();
        let told = Arc::new(AtomicU64::new(0));
        let counted = told.clone();
        let producer = builder(&broker, driver)
            .batch_size(400_000)
            .linger(Duration::from_secs(1))
            .listener(move |_: u64, _: Result<&RecordMetadata, &DeliveryError>| {
                counted.fetch_add(1, Ordering::Relaxed);
            })
            .on_undeliverable(keeper.clone())
            .build()
            .unwrap();
        let topic = producer.topic(name).unwrap();
        producer.warm_up(&[name]).unwrap();
        let padding = "x".repeat(200);
        let bad = "y".repeat(25_000);
        let mut deliveries = Vec::new();
        for number in 0..1000_u32 {
            let padding = if number % 400 == 399 { &bad } else { &padding };
            let value = format!("{number} {padding}");
            let record = Record::value(&value);
            if tagged && number % 3 == 0 {
                topic.send_tagged(record, u64::from(number)).unwrap();
            } else {
                deliveries.push((number, topic.send(record).unwrap()));
            }
        }
        producer.flush().unwrap();
        for (number, delivery) in deliveries {
            match delivery.wait() {
                Ok(_) => assert_ne!(number % 400, 399),
                Err(error) => {
                    assert_eq!(number % 400, 399, "{error}");
                    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::TooLarge, Written::No));
                }
            }
        }
        assert_eq!(told.load(Ordering::Relaxed), if tagged { 334 } else { 0 });
        let kept: Vec<_> = keeper.values().iter().map(|value| value.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(kept, ["399", "799"]);
        assert!(keeper.values().iter().all(|value| value.ends_with(&bad)), "whole");
        settled(&producer, &keeper, 998, 2);
        assert_eq!(broker.log(name, 0).len(), 998);
        let _ = producer.close(Duration::from_secs(5)).unwrap();
        assert_eq!(producer.stats().buffer_used, 0, "the segments of split batches are back, too");
    }
}

/// Two records of one segment fail, those between and behind them are delivered: the segment's last part ends well, and
/// still its memory is the sink's until the second has been read.
fn a_split_segment_stays_until_the_sink_has_read_it(driver: DriverChoice) {
    let options = TopicOptions { partitions: 1, max_message_bytes: 20_000, ..TopicOptions::default() };
    let broker = start(BrokerOptions { topic: options, ..BrokerOptions::default() });
    let (go, gate) = mpsc::channel::<()>();
    let keeper = Keeper::default();
    let mut inner = keeper.clone();
    let producer = builder(&broker, driver)
        .buffer_memory(1 << 20)
        .set("max.request.size", "200000")
        .batch_size(150_000)
        .linger(Duration::from_secs(1))
        .on_undeliverable(move |record: UndeliveredRecord<'_>| {
            if inner.kept().is_empty() {
                gate.recv().unwrap();
            }
            inner.undeliverable(record);
        })
        .build()
        .unwrap();
    producer.warm_up(&["split", "other"]).unwrap();
    let (split, other) = (producer.topic("split").unwrap(), producer.topic("other").unwrap());
    let (good, bad) = ("x".repeat(200), "y".repeat(25_000));
    let value = |number: u32| format!("{number} {}", if matches!(number, 10 | 20) { &bad } else { &good });
    let mut deliveries: Vec<_> = (0..60).map(|n| split.send(Record::value(&value(n))).unwrap()).collect();
    deliveries.pop().unwrap().wait().unwrap();
    // Over and over everything that is free.
    let noise = vec![b'z'; 10_000];
    for _ in 0..500 {
        drop(other.send(Record::value(&noise)).unwrap());
    }
    other.send(Record::value(&noise)).unwrap().wait().unwrap();
    assert!(keeper.kept().is_empty());
    go.send(()).unwrap();
    producer.flush().unwrap();
    assert!(keeper.values() == [value(10), value(20)]);
    settled(&producer, &keeper, 58 + 501, 2);
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    assert_eq!(producer.stats().buffer_used, 0);
}

fn what_close_gives_up_is_kept(driver: DriverChoice) {
    let arrived = Arc::new(AtomicBool::new(false));
    let seen = arrived.clone();
    let broker = start(one_partition().on_produce(move |_| {
        seen.store(true, Ordering::Release);
        Fault::HangBefore
    }));
    let keeper = Keeper::default();
    let producer = builder(&broker, driver).on_undeliverable(keeper.clone()).build().unwrap();
    let topic = producer.topic("t").unwrap();
    for number in 0..100_u32 {
        drop(topic.send(Record::value(&number.to_string())).unwrap());
        // Some in flight, the rest in the ring.
        while number == 50 && !arrived.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let report = producer.close(Duration::from_millis(100)).unwrap();
    assert_eq!(report.records(), 100, "{report}");
    let mut values: Vec<u32> = keeper.values().iter().map(|value| value.parse().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, (0..100).collect::<Vec<_>>(), "each once");
    let kept = keeper.kept();
    assert!(kept.iter().all(|kept| kept.kind == DeliveryErrorKind::Closed));
    assert!(kept.iter().any(|kept| kept.written == Written::Possibly), "what was in flight");
    assert!(kept.iter().any(|kept| kept.written == Written::No), "what was not sent");
    settled(&producer, &keeper, 0, 100);
    assert_eq!(keeper.finished.load(Ordering::Relaxed), 1);
}

fn every_kind_of_waiting_hears_of_it_after_the_sink(driver: DriverChoice) {
    let broker = start(refusing("t"));
    let keeper = Keeper::default();
    let heard = Arc::new(AtomicU64::new(0));
    let hear = |keeper: &Keeper, heard: &Arc<AtomicU64>| {
        let (keeper, heard) = (keeper.clone(), heard.clone());
        move |number: u64, failed: bool| {
            assert!(failed && keeper.values().contains(&number.to_string()), "{number} was kept before");
            heard.fetch_add(1, Ordering::Relaxed);
        }
    };
    let listen = hear(&keeper, &heard);
    let producer = builder(&broker, driver)
        .listener(move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| listen(tag, result.is_err()))
        .on_undeliverable(keeper.clone())
        .build()
        .unwrap();
    let topic = producer.topic("t").unwrap();
    let mut waiting = Vec::new();
    for number in 0..300_u64 {
        let (value, listen) = (number.to_string(), hear(&keeper, &heard));
        match number % 3 {
            0 => waiting.push((number, topic.send(Record::value(&value)).unwrap())),
            1 => topic.send_tagged(Record::value(&value), number).unwrap(),
            _ => topic.send_with(Record::value(&value), move |result| listen(number, result.is_err())).unwrap(),
        }
    }
    let listen = hear(&keeper, &heard);
    for (number, delivery) in waiting {
        listen(number, delivery.wait().is_err());
    }
    producer.flush().unwrap();
    assert_eq!(heard.load(Ordering::Relaxed), 300);
    settled(&producer, &keeper, 0, 300);
}

fn a_sink_that_panics_gets_the_next_record(driver: DriverChoice) {
    let broker = start(refusing("t"));
    let called = Arc::new(AtomicU64::new(0));
    let counted = called.clone();
    let producer = builder(&broker, driver)
        .on_undeliverable(move |record: UndeliveredRecord<'_>| {
            counted.fetch_add(1, Ordering::Relaxed);
            // Not `panic!`: its hook would write to the test's output.
            if record.value() == Some(b"3") {
                std::panic::resume_unwind(Box::new("a sink's own bug"));
            }
        })
        .build()
        .unwrap();
    let topic = producer.topic("t").unwrap();
    let deliveries: Vec<_> = numbers(0..10).iter().map(|n| topic.send(Record::value(n)).unwrap()).collect();
    assert!(deliveries.into_iter().all(|delivery| delivery.wait().is_err()));
    let stats = producer.stats();
    assert_eq!((called.load(Ordering::Relaxed), stats.sink_panics, stats.failed()), (10, 1, 10));
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    assert_eq!(producer.stats().buffer_used, 0);
}

fn a_slow_sink_stops_acceptance_not_sending(driver: DriverChoice) {
    let broker = start(refusing("refused"));
    let (go, gate) = mpsc::channel::<()>();
    let kept = Arc::new(AtomicU64::new(0));
    let counted = kept.clone();
    let producer = builder(&broker, driver)
        .buffer_memory(1 << 20)
        .set("max.request.size", "200000")
        .on_undeliverable(move |_: UndeliveredRecord<'_>| {
            if counted.load(Ordering::Relaxed) == 0 {
                gate.recv().unwrap();
            }
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .unwrap();
    producer.warm_up(&["refused", "taken"]).unwrap();
    let (refused, taken) = (producer.topic("refused").unwrap(), producer.topic("taken").unwrap());
    let value = vec![b'v'; 1000];
    // The sink holds the callback thread; what is deliverable is delivered all the same.
    let held = refused.send(Record::value(&value)).unwrap();
    for _ in 0..3000 {
        drop(taken.send(Record::value(&value)).unwrap());
    }
    taken.send(Record::value(&value)).unwrap().wait().unwrap();
    assert_eq!(broker.log("taken", 0).len(), 3001, "three times the memory went past it");
    assert!(held.try_result().is_none(), "its failure is not told before the sink has it");
    let mut accepted = 1;
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(300) {
        match refused.try_send(Record::value(&value)) {
            Ok(delivery) => {
                drop(delivery);
                (accepted, quiet) = (accepted + 1, Instant::now());
            }
            Err(refused) => assert_eq!(refused.error, SendError::BufferFull),
        }
    }
    assert!((100..=1100).contains(&accepted), "{accepted}: acceptance stops at buffer.memory");
    assert_eq!(kept.load(Ordering::Relaxed), 0);
    go.send(()).unwrap();
    producer.flush().unwrap();
    assert_eq!(kept.load(Ordering::Relaxed), accepted, "flush returns after the sink");
    assert_eq!((producer.stats().delivered, producer.stats().failed()), (3001, accepted));
}

fn delivered_records_never_reach_the_sink(driver: DriverChoice) {
    let faults = [Fault::CloseAfter, Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS), Fault::CloseBefore];
    let broker = start(one_partition().on_produce(move |context| {
        if context.nth % 3 == 1 { faults[(context.nth / 3) as usize % faults.len()] } else { Fault::None }
    }));
    let keeper = Keeper::default();
    let producer = builder(&broker, driver).linger(Duration::ZERO).on_undeliverable(keeper.clone()).build().unwrap();
    let topic = producer.topic("t").unwrap();
    for number in 0..300 {
        drop(topic.send(Record::value(&number.to_string())).unwrap());
        std::thread::yield_now();
    }
    producer.flush().unwrap();
    assert_eq!(broker.log("t", 0).len(), 300);
    settled(&producer, &keeper, 300, 0);
    assert_eq!(producer.stats().buffer_used, 0);
}

fn whatever_happens_each_failure_is_kept_once(driver: DriverChoice) {
    let faults = [
        Fault::Error(ErrorCode::INVALID_RECORD),
        Fault::None,
        Fault::HangAfter,
        Fault::None,
        Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
        Fault::CloseAfter,
        Fault::HangBefore,
        Fault::None,
        Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        Fault::Delay(Duration::from_millis(5)),
    ];
    let options = TopicOptions { partitions: 3, max_message_bytes: 3000, ..TopicOptions::default() };
    let broker = start(
        BrokerOptions { topic: options, brokers: 2, ..BrokerOptions::default() }
            .on_produce(move |context| faults[context.nth as usize % faults.len()]),
    );
    let keeper = Keeper::default();
    let producer = builder(&broker, driver)
        .linger(Duration::from_millis(1))
        .request_timeout(Duration::from_millis(60))
        .delivery_timeout(Duration::from_millis(150))
        .buffer_memory(1 << 20)
        .set("max.request.size", "200000")
        .on_undeliverable(keeper.clone())
        .build()
        .unwrap();
    let topic = producer.topic("t").unwrap();
    producer.warm_up(&["t"]).unwrap();
    let mut deliveries = Vec::new();
    for number in 0..3000_u32 {
        let padding = "x".repeat(if number % 97 == 0 { 4000 } else { number as usize % 120 });
        let value = format!("{number} {padding}");
        deliveries.push((value.clone(), topic.send(Record::value(&value)).unwrap()));
        if number % 100 == 99 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let _ = producer.close(Duration::from_millis(50)).unwrap();
    let (mut failed, mut delivered) = (Vec::new(), 0);
    for (value, delivery) in deliveries {
        match delivery.wait() {
            Ok(_) => delivered += 1,
            Err(error) => failed.push((value, error.written() == Written::Possibly)),
        }
    }
    let values = keeper.values().into_iter().zip(keeper.kept());
    let mut kept: Vec<_> = values.map(|(value, kept)| (value, kept.written == Written::Possibly)).collect();
    settled(&producer, &keeper, delivered, failed.len() as u64);
    failed.sort();
    kept.sort();
    assert!(kept == failed, "{} kept, {} failed", kept.len(), failed.len());
    for possibly in [true, false] {
        assert!(kept.iter().any(|(_, written)| *written == possibly), "of each kind");
    }
    assert!(delivered > 0);
    assert_eq!(producer.stats().buffer_used, 0);
}

fn a_dead_letter_tells_where_it_comes_from(driver: DriverChoice) {
    let broker = start(refusing("orders"));
    let letters = DeadLetterTopic::open(builder(&broker, driver), "dead").unwrap();
    let other = letters.producer().clone();
    let producer = builder(&broker, driver).on_undeliverable(letters).build().unwrap();
    let topic = producer.topic("orders").unwrap();
    let binary = [0xff, 0, 0x80];
    let headers = [Header { key: "a", value: Some(&binary) }, Header { key: "a", value: None }];
    let first = Record::value("2 x tea").with_key(&binary).with_headers(&headers).with_timestamp(1_700_000_000_000);
    for record in [first, Record::new().with_key("tombstone")] {
        drop(topic.send(record).unwrap());
    }
    let _ = producer.close(Duration::from_secs(10)).unwrap();
    // The close has closed the other one, too: the letters are there.
    let stats = other.stats();
    assert!(stats.adds_up() && stats.delivered == 2, "{stats:?}");
    assert_eq!(other.topic("dead").map(drop), Err(SendError::Closed));
    let log = broker.log("dead", 0);
    assert_eq!((log[0].key.as_deref(), log[0].value.as_deref()), (Some(&binary[..]), Some(&b"2 x tea"[..])));
    assert_eq!((log[1].key.as_deref(), log[1].value.as_deref(), log.len()), (Some(&b"tombstone"[..]), None, 2));
    assert_eq!(log[0].headers[..2], [("a".to_owned(), Some(binary.to_vec())), ("a".to_owned(), None)]);
    let added: Vec<(&str, String)> = log[0].headers[2..]
        .iter()
        .map(|(key, value)| (&**key, String::from_utf8(value.clone().unwrap()).unwrap()))
        .collect();
    let names: Vec<_> = added.iter().map(|(key, _)| *key).collect();
    let expected = ["origin.topic", "origin.partition", "origin.timestamp", "error", "written", "attempts"];
    assert_eq!(names, expected.map(|name| format!("ringmail.{name}")));
    let [topic, partition, timestamp, error, written, attempts] = added.each_text();
    assert_eq!([topic, partition, timestamp, written, attempts], ["orders", "0", "1700000000000", "no", "1"]);
    assert!(error.contains("INVALID_RECORD"), "{error}");
    assert!(log[0].timestamp > 1_700_000_000_000, "its own time");
}

trait EachText {
    fn each_text(&self) -> [&str; 6];
}

impl EachText for Vec<(&str, String)> {
    fn each_text(&self) -> [&str; 6] {
        std::array::from_fn(|at| &*self[at].1)
    }
}

fn a_dead_letter_that_fails_does_not_come_back(driver: DriverChoice) {
    // Nothing can be delivered anywhere.
    let broker = start(one_partition().on_produce(|_| Fault::Error(ErrorCode::INVALID_RECORD)));
    let (letters_lost, not_taken) = (Keeper::default(), Keeper::default());
    let dead = builder(&broker, driver).on_undeliverable(letters_lost.clone());
    let letters = DeadLetterTopic::open(dead, "dead").unwrap().or_else(not_taken.clone());
    let other = letters.producer().clone();
    let producer = builder(&broker, driver).on_undeliverable(letters).build().unwrap();
    for name in ["orders", "dead"] {
        drop(producer.topic(name).unwrap().send(Record::value(name)).unwrap());
    }
    let _ = producer.close(Duration::from_secs(10)).unwrap();
    assert_eq!(not_taken.values(), ["dead"], "one of the dead-letter topic is not sent there again");
    assert_eq!(letters_lost.values(), ["orders"], "the letter itself failed, once");
    settled(&other, &letters_lost, 0, 1);
    assert_eq!((letters_lost.finished.load(Ordering::Relaxed), not_taken.finished.load(Ordering::Relaxed)), (1, 1));
    let wrong = DeadLetterTopic::open(builder(&broker, driver), "a/b").unwrap_err().to_string();
    assert!(wrong.contains("a/b"), "{wrong}");
}

/// Polls it to its end.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// However the producer ends, when that is over the letters are in their log.
fn every_dead_letter_is_there_when_a_close_is_over(driver: DriverChoice) {
    let ends: [fn(Producer); 3] = [
        |producer| drop(wait(producer.close_async(Duration::from_secs(10))).unwrap()),
        |producer| drop(producer.close(Duration::from_secs(10)).unwrap()),
        drop,
    ];
    for end in ends {
        // The letters take a moment to be written.
        let broker = start(one_partition().on_produce(|context| match context.topic {
            "orders" => Fault::Error(ErrorCode::INVALID_RECORD),
            _ => Fault::Delay(Duration::from_millis(50)),
        }));
        let letters = DeadLetterTopic::open(builder(&broker, driver), "dead").unwrap();
        let producer = builder(&broker, driver).on_undeliverable(letters).build().unwrap();
        let topic = producer.topic("orders").unwrap();
        for number in numbers(0..100) {
            drop(topic.send(Record::value(&number)).unwrap());
        }
        end(producer);
        let values: Vec<_> = broker.log("dead", 0).into_iter().map(|record| record.value.unwrap()).collect();
        assert_eq!(values, numbers(0..100).map_to_bytes());
    }
}

trait MapToBytes {
    fn map_to_bytes(self) -> Vec<Vec<u8>>;
}

impl MapToBytes for Vec<String> {
    fn map_to_bytes(self) -> Vec<Vec<u8>> {
        self.into_iter().map(String::into_bytes).collect()
    }
}

/// Nobody is there, and everything waits a long time for somebody.
fn away(driver: DriverChoice) -> ProducerBuilder {
    Producer::builder().bootstrap_servers("127.0.0.1:1").driver(driver)
}

fn a_close_is_bound_by_its_timeout_whatever_the_sink_waits_for(driver: DriverChoice) {
    const MAX_BLOCK: Duration = Duration::from_secs(100);
    let ends: [fn(Producer); 3] = [
        |producer| drop(producer.close(Duration::from_millis(300))),
        |producer| drop(wait(producer.close_async(Duration::from_millis(300)))),
        // `close.timeout.ms` is its timeout.
        drop,
    ];
    for end in ends {
        let broker = start(refusing("orders"));
        let not_taken = Keeper::default();
        let letters = DeadLetterTopic::open(away(driver).max_block(MAX_BLOCK), "dead").unwrap();
        let letters = letters.or_else(not_taken.clone());
        let builder = builder(&broker, driver).close_timeout(Duration::from_millis(300));
        let producer = builder.on_undeliverable(letters).build().unwrap();
        let topic = producer.topic("orders").unwrap();
        for number in numbers(0..20) {
            drop(topic.send(Record::value(&number)).unwrap());
        }
        let began = Instant::now();
        end(producer);
        assert!(began.elapsed() < MAX_BLOCK / 2, "{:?}", began.elapsed());
        // The first one was waited for until then, the others were not.
        let hurry = Instant::now();
        while not_taken.finished.load(Ordering::Relaxed) == 0 && hurry.elapsed() < MAX_BLOCK / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(not_taken.values(), numbers(0..20));
        assert_eq!(not_taken.finished.load(Ordering::Relaxed), 1);
    }
}

/// A thousand records that expire, and a dead-letter topic whose cluster does not answer: one wait, not a thousand.
fn a_dead_letter_cluster_that_is_away_is_waited_for_once(driver: DriverChoice) {
    const MAX_BLOCK: Duration = Duration::from_millis(300);
    let broker = start(one_partition().on_produce(|_| Fault::HangBefore));
    let not_taken = Keeper::default();
    let letters = DeadLetterTopic::open(away(driver).max_block(MAX_BLOCK), "dead").unwrap();
    let builder = builder(&broker, driver).set("delivery.timeout.ms", "300").set("request.timeout.ms", "300");
    let builder = builder.linger(Duration::ZERO);
    let producer = builder.on_undeliverable(letters.or_else(not_taken.clone())).build().unwrap();
    let topic = producer.topic("orders").unwrap();
    for number in numbers(0..1000) {
        drop(topic.send(Record::value(&number)).unwrap());
    }
    let began = Instant::now();
    producer.flush().unwrap();
    assert!(began.elapsed() < 100 * MAX_BLOCK, "{:?}", began.elapsed());
    assert_eq!(not_taken.values(), numbers(0..1000));
    settled(&producer, &not_taken, 0, 1000);
}

/// Names of topics say nothing of clusters: letters that go to the topic of the same name elsewhere make no circle; whether
/// two bootstrap servers lead to the same cluster its brokers say.
fn another_clusters_topic_of_the_same_name_takes_letters(driver: DriverChoice) {
    let here = start(refusing("orders"));
    let there = start(one_partition());
    for (dead, same) in [(&there, false), (&here, true)] {
        let not_taken = Keeper::default();
        let letters = DeadLetterTopic::open(builder(dead, driver), "orders").unwrap().or_else(not_taken.clone());
        letters.producer().warm_up(&["orders"]).unwrap();
        let producer = builder(&here, driver).on_undeliverable(letters).build().unwrap();
        let topic = producer.topic("orders").unwrap();
        for number in numbers(0..10) {
            drop(topic.send(Record::value(&number)).unwrap());
        }
        let _ = producer.close(Duration::from_secs(10)).unwrap();
        let values: Vec<_> = there.log("orders", 0).into_iter().map(|record| record.value.unwrap()).collect();
        assert_eq!(values, numbers(0..10).map_to_bytes(), "each once");
        assert_eq!(not_taken.values(), if same { numbers(0..10) } else { Vec::new() });
    }
}

fn a_file_holds_what_failed(driver: DriverChoice) {
    let broker = start(refusing("t"));
    let path = std::env::temp_dir().join(format!("ringmail-fallback-{driver:?}-{}", std::process::id()));
    let file = FailedRecordsFile::append(&path).unwrap();
    let producer = builder(&broker, driver).on_undeliverable(file).build().unwrap();
    let topic = producer.topic("t").unwrap();
    let delivery = topic.send(Record::value("v").with_key(&[0xff]).with_timestamp(7)).unwrap();
    let error = delivery.wait().unwrap_err();
    let text = std::fs::read_to_string(&path).unwrap();
    let start = r#"{"topic":"t","partition":0,"timestamp":7,"key":{"base64":"/w=="},"value":"v","headers":[],"#;
    assert!(text.starts_with(start) && text.ends_with("}\n"), "there before its delivery says so: {text}");
    assert!(text.contains(r#""written":"no","attempts":1,"#) && text.contains(&error.to_string()), "{text}");
    for number in numbers(0..500) {
        drop(topic.send(Record::value(&number)).unwrap());
    }
    let _ = producer.close(Duration::from_secs(10)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 501);
    for (number, line) in lines[1..].iter().enumerate() {
        assert!(line.contains(&format!(r#""value":"{number}","#)), "{line}");
    }
}
