//! What callers see of topics and partitions that are not known, not allowed, not there yet or gone, over both drivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::protocol::{Decodable, Encodable};
use ringmail::testing::hostile::{Asked, Deed, HostileBroker, Occasion, body_at};
use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{DriverChoice, ErrorCode, Producer, ProducerBuilder, Record, SendError, WaitedFor};

/// Each test as one test per driver.
macro_rules! over_both_drivers {
    ($($name:ident)*) => {
        mod io_uring { $(#[test] fn $name() { super::$name(super::DriverChoice::IoUring); })* }
        mod epoll { $(#[test] fn $name() { super::$name(super::DriverChoice::Epoll); })* }
    };
}

over_both_drivers! {
    a_missing_topic_ends_with_what_the_broker_said
    a_missing_partition_ends_with_the_count
    a_partition_added_meanwhile_is_waited_for
    what_the_broker_refuses_for_good_ends_at_once
    close_ends_sends_that_wait_for_metadata
    batches_go_on_while_metadata_hangs
    a_broker_without_producer_ids_is_named
    after_warm_up_the_first_records_find_their_connections
}

const METADATA: i16 = 3;

fn builder(servers: &str, driver: DriverChoice) -> ProducerBuilder {
    Producer::builder()
        .bootstrap_servers(servers)
        .driver(driver)
        .set("retry.backoff.ms", "5")
        .set("reconnect.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "50")
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Thread(std::thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A broker whose metadata answers are changed.
fn changed(change: impl Fn(&mut MetadataResponse) + Send + Sync + 'static) -> HostileBroker {
    HostileBroker::start(BrokerOptions::default(), move |occasion| match occasion {
        Occasion::Asked(Asked { api: METADATA, version, answer, .. }) => {
            let at = body_at(METADATA, version);
            let mut response = MetadataResponse::decode(&mut &answer[at..], version).unwrap();
            change(&mut response);
            let mut out = answer[..at].to_vec();
            response.encode(&mut out, version).unwrap();
            let size = u32::try_from(out.len() - 4).unwrap();
            out[..4].copy_from_slice(&size.to_be_bytes());
            Deed::Send(out)
        }
        Occasion::Asked(asked) => Deed::Send(asked.answer),
        Occasion::Accepted => Deed::Send(Vec::new()),
    })
    .unwrap()
}

/// Java: testMetadataTimeoutWithMissingTopic, and the cause is carried.
fn a_missing_topic_ends_with_what_the_broker_said(driver: DriverChoice) {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    let limit = Duration::from_millis(300);
    let producer = builder(&broker.bootstrap(), driver).max_block(limit).build().unwrap();
    let topic = producer.topic("absent").unwrap();
    let errors = [
        topic.send(Record::value("x")).map(drop).unwrap_err(),
        block_on(topic.send_async(Record::value("x"))).map(drop).unwrap_err(),
        topic.claim(1, None, &[]).map(drop).unwrap_err(),
        producer.partitions_for("absent").map(drop).unwrap_err(),
    ];
    for error in errors {
        let SendError::UnknownTopic { waited, cause: Some(cause), .. } = &error else { panic!("{error}") };
        assert!(*waited >= limit, "{error}");
        assert_eq!(cause.code(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(cause.broker(), Some(&*broker.bootstrap()), "who said so");
        assert!(error.to_string().contains(&broker.bootstrap()), "{error}");
    }
}

/// Java: testMetadataTimeoutWithPartitionOutOfRange.
fn a_missing_partition_ends_with_the_count(driver: DriverChoice) {
    let broker = Broker::start(BrokerOptions::default()).unwrap();
    broker.create_topic("t", 2);
    let limit = Duration::from_millis(200);
    let producer = builder(&broker.bootstrap(), driver).max_block(limit).build().unwrap();
    producer.warm_up(&["t"]).unwrap();
    let topic = producer.topic("t").unwrap();
    let record = || Record::value("x").with_partition(2);
    let expected = SendError::InvalidPartition { topic: "t".into(), partition: 2, count: 2 };
    let started = Instant::now();
    assert_eq!(topic.send(record()).map(drop), Err(expected.clone()));
    assert!(started.elapsed() >= limit, "it may be added meanwhile");
    assert_eq!(block_on(topic.send_async(record())).map(drop), Err(expected.clone()));
    assert!(started.elapsed() >= 2 * limit);
    assert_eq!(topic.try_send(record()).map(drop).unwrap_err().error, expected);
    let negative = Record::value("x").with_partition(-1);
    assert!(matches!(topic.send(negative), Err(SendError::InvalidPartition { partition: -1, .. })));
}

/// Java: testTopicRefreshInMetadata.
fn a_partition_added_meanwhile_is_waited_for(driver: DriverChoice) {
    let broker = HostileBroker::start(
        BrokerOptions { topic: TopicOptions { partitions: 1, ..TopicOptions::default() }, ..BrokerOptions::default() },
        |occasion| match occasion {
            Occasion::Asked(asked) => Deed::Send(asked.answer),
            Occasion::Accepted => Deed::Send(Vec::new()),
        },
    )
    .unwrap();
    let producer = builder(&broker.address().to_string(), driver).build().unwrap();
    producer.warm_up(&["t"]).unwrap();
    let topic = producer.topic("t").unwrap();
    let record = |partition| Record::value("x").with_partition(partition);
    std::thread::scope(|scope| {
        let sends = [
            scope.spawn(|| topic.send(record(3)).map(|delivery| delivery.wait().is_ok())),
            scope.spawn(|| block_on(topic.send_async(record(3))).map(|delivery| delivery.wait().is_ok())),
        ];
        // Not before both have asked for it in vain.
        let asked = broker.asked(METADATA);
        while broker.asked(METADATA) < asked + 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        topic.send(record(0)).unwrap().wait().unwrap();
        broker.with_model(|model| assert!(model.grow_topic("t", 4)));
        for send in sends {
            assert_eq!(send.join().unwrap(), Ok(true));
        }
    });
    assert_eq!(producer.partitions_for("t").unwrap().len(), 4);
}

/// Java: testSendToInvalidTopic; and TOPIC_AUTHORIZATION_FAILED. Long before max.block.ms.
fn what_the_broker_refuses_for_good_ends_at_once(driver: DriverChoice) {
    for (code, invalid) in [(17, true), (29, false)] {
        let broker = changed(move |response| {
            for topic in &mut response.topics {
                topic.error_code = code;
                topic.partitions.clear();
            }
        });
        let producer = builder(&broker.address().to_string(), driver).build().unwrap();
        let topic = producer.topic("t").unwrap();
        let errors = [
            topic.send(Record::value("x")).map(drop).unwrap_err(),
            block_on(topic.send_async(Record::value("x"))).map(drop).unwrap_err(),
            topic.try_send(Record::value("x")).map(drop).unwrap_err().error,
            producer.warm_up(&["t"]).unwrap_err(),
        ];
        for error in errors {
            match &error {
                SendError::InvalidTopic { topic } if invalid => assert_eq!(&**topic, "t"),
                SendError::TopicAuthorization { topic } if !invalid => assert_eq!(&**topic, "t"),
                other => panic!("{code}: {other}"),
            }
        }
    }
}

/// Java: testCloseWhenWaitingForMetadataUpdate.
fn close_ends_sends_that_wait_for_metadata(driver: DriverChoice) {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    broker.create_topic("known", 1);
    let producer = builder(&broker.bootstrap(), driver).max_block(Duration::from_secs(600)).build().unwrap();
    producer.warm_up(&["known"]).unwrap();
    let (absent, known) = (producer.topic("absent").unwrap(), producer.topic("known").unwrap());
    std::thread::scope(|scope| {
        let sends = [
            scope.spawn(|| absent.send(Record::value("x")).map(drop)),
            scope.spawn(|| block_on(absent.send_async(Record::value("x"))).map(drop)),
            scope.spawn(|| known.send(Record::value("x").with_partition(7)).map(drop)),
            scope.spawn(|| block_on(known.send_async(Record::value("x").with_partition(7))).map(drop)),
        ];
        std::thread::sleep(Duration::from_millis(100));
        assert!(sends.iter().all(|send| !send.is_finished()), "they wait");
        assert!(producer.close(Duration::from_secs(600)).unwrap().is_clean());
        for send in sends {
            assert_eq!(send.join().unwrap(), Err(SendError::Closed));
        }
    });
}

/// Metadata is asked for all the time and never comes again; what goes to known leaders is none of its business.
fn batches_go_on_while_metadata_hangs(driver: DriverChoice) {
    let broker = HostileBroker::start(BrokerOptions::default(), |occasion| match occasion {
        Occasion::Asked(Asked { api: METADATA, nth: 4.., .. }) => Deed::SendAndHang(Vec::new()),
        Occasion::Asked(asked) => Deed::Send(asked.answer),
        Occasion::Accepted => Deed::Send(Vec::new()),
    })
    .unwrap();
    let producer = builder(&broker.address().to_string(), driver)
        .set("metadata.max.age.ms", "20")
        .request_timeout(Duration::from_millis(300))
        .max_block(Duration::from_millis(500))
        .build()
        .unwrap();
    producer.warm_up(&["t"]).unwrap();
    let topic = producer.topic("t").unwrap();
    while broker.asked(METADATA) < 7 {
        topic.send(Record::value("x")).unwrap().wait().unwrap();
    }
    // Only what is not known yet waits, and says for what.
    let other = producer.topic("other").unwrap();
    match other.send(Record::value("x")).map(drop) {
        Err(SendError::Timeout { waited_for: WaitedFor::Metadata { trouble: Some(trouble), .. }, .. }) => {
            assert!(trouble.to_string().contains("request.timeout.ms"), "{trouble}");
        }
        other => panic!("{other:?}"),
    }
    topic.send(Record::value("x")).unwrap().wait().unwrap();
}

/// A broker before 0.11, or a proxy: whoever waits hears that it has no producer ids, and how to do without.
fn a_broker_without_producer_ids_is_named(driver: DriverChoice) {
    let broker = Broker::start(BrokerOptions { denied_apis: vec![22], ..BrokerOptions::default() }).unwrap();
    let producer = builder(&broker.bootstrap(), driver)
        .max_block(Duration::from_millis(800))
        .request_timeout(Duration::from_millis(600))
        .delivery_timeout(Duration::from_millis(700))
        .build()
        .unwrap();
    // The topic is created meanwhile, which is no reason to say that it does not exist.
    let warm = producer.warm_up(&["t"]).unwrap_err();
    assert!(matches!(&warm, SendError::Timeout { waited_for: WaitedFor::ProducerId { .. }, .. }), "{warm}");
    let delivery = producer.topic("t").unwrap().send(Record::value("x")).unwrap().wait().unwrap_err();
    for text in [warm.to_string(), delivery.to_string()] {
        for part in [&*broker.bootstrap(), "InitProducerId", "enable.idempotence=false"] {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }
    let without = builder(&broker.bootstrap(), driver).enable_idempotence(false).build().unwrap();
    without.warm_up(&["t"]).unwrap();
    without.topic("t").unwrap().send(Record::value("x")).unwrap().wait().unwrap();
}

fn after_warm_up_the_first_records_find_their_connections(driver: DriverChoice) {
    let broker = Broker::start(BrokerOptions { brokers: 3, ..BrokerOptions::default() }).unwrap();
    broker.create_topic("t", 6);
    let producer = builder(&broker.bootstrap(), driver).build().unwrap();
    producer.warm_up(&["t"]).unwrap();
    assert_eq!(broker.stats().connections, 4, "control, and one to each leader");
    let topic = producer.topic("t").unwrap();
    for partition in 0..6 {
        topic.send(Record::value("x").with_partition(partition)).unwrap().wait().unwrap();
    }
    assert_eq!(broker.stats().connections, 4);
}
