//! Records that the broker refuses by name, among others that it takes: whoever waits for a record hears of it and of no
//! other, and the sink gets those that failed as they were, however late it reads them. Over both drivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{
    DeliveryError, DeliveryErrorKind, DriverChoice, ErrorCode, Header, Producer, Record, RecordMetadata,
    UndeliveredRecord, Written,
};

/// Each test as one test per driver.
macro_rules! over_both_drivers {
    ($($name:ident)*) => {
        mod io_uring { $(#[test] fn $name() { super::$name(super::DriverChoice::IoUring); })* }
        mod epoll { $(#[test] fn $name() { super::$name(super::DriverChoice::Epoll); })* }
    };
}

over_both_drivers! {
    everyone_hears_of_their_own_record
}

/// A broker whose topics want a key in each record.
fn broker() -> Broker {
    let topic = TopicOptions { partitions: 1, compacted: true, ..TopicOptions::default() };
    Broker::start(BrokerOptions { topic, ack_delay: Duration::from_millis(2), ..BrokerOptions::default() }).unwrap()
}

fn is_poison(number: u64) -> bool {
    number % 7 == 3 || (500..520).contains(&number)
}

fn value(number: u64) -> String {
    format!("{number} {}", "v".repeat(number as usize * 13 % 300))
}

/// By number: who heard of it, and whether it was delivered.
type Heard = Arc<Mutex<Vec<(u64, &'static str, bool)>>>;

fn hear(heard: &Heard, number: u64, who: &'static str, result: Result<&RecordMetadata, &DeliveryError>) {
    if let Err(error) = result {
        assert_eq!(error.kind(), DeliveryErrorKind::Broker(ErrorCode::INVALID_RECORD));
        assert_eq!(error.written(), Written::No, "{error}");
        assert!(error.broker().unwrap().message().unwrap().contains("without key"), "{error}");
    }
    heard.lock().unwrap().push((number, who, result.is_ok()));
}

fn everyone_hears_of_their_own_record(driver: DriverChoice) {
    const COUNT: u64 = 2000;
    let broker = broker();
    let heard = Heard::default();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (go, gate) = mpsc::channel::<()>();
    let (listen, keep) = (heard.clone(), kept.clone());
    let producer = Producer::builder()
        .bootstrap_servers(&broker.bootstrap())
        .driver(driver)
        .linger(Duration::from_millis(30))
        .listener(move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| hear(&listen, tag, "tag", result))
        .on_undeliverable(move |record: UndeliveredRecord<'_>| {
            if keep.lock().unwrap().is_empty() {
                // The others are written again, sent and delivered meanwhile.
                gate.recv().unwrap();
            }
            let header = record.headers().iter().map(|header| header.key.to_owned()).collect::<String>();
            let value = String::from_utf8(record.value().unwrap().to_vec()).unwrap();
            keep.lock().unwrap().push((record.key().is_none(), value, header, record.timestamp()));
        })
        .build()
        .unwrap();
    producer.warm_up(&["t"]).unwrap();
    let topic = producer.topic("t").unwrap();
    let mut waiting = Vec::new();
    for number in 0..COUNT {
        let value = value(number);
        let name = format!("header-{number}");
        let headers = [Header { key: &name, value: None }];
        let record = Record::value(&value).with_headers(&headers).with_timestamp(1_700_000_000_000 + number as i64);
        let record = if is_poison(number) { record } else { record.with_key("key") };
        match number % 3 {
            0 => waiting.push((number, topic.send(record).unwrap())),
            1 => topic.send_tagged(record, number).unwrap(),
            _ => {
                let heard = heard.clone();
                topic.send_with(record, move |result| hear(&heard, number, "callback", result.as_ref())).unwrap();
            }
        }
    }
    // All that was good is in the log while the sink still holds the first that was not.
    let good = (0..COUNT).filter(|number| !is_poison(*number)).count() as u64;
    for _ in 0..60_000 {
        if producer.stats().delivered == good {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(producer.stats().delivered, good);
    assert!(kept.lock().unwrap().is_empty());
    go.send(()).unwrap();
    for (number, delivery) in waiting {
        let result = delivery.wait();
        hear(&heard, number, "delivery", result.as_ref());
    }
    producer.flush().unwrap();
    let mut heard = std::mem::take(&mut *heard.lock().unwrap());
    heard.sort_unstable();
    let who = |number: u64| ["delivery", "tag", "callback"][(number % 3) as usize];
    let expected: Vec<_> = (0..COUNT).map(|number| (number, who(number), !is_poison(number))).collect();
    assert_eq!(heard, expected);
    let as_sent = |number: u64| (true, value(number), format!("header-{number}"), 1_700_000_000_000 + number as i64);
    let expected: Vec<_> = (0..COUNT).filter(|number| is_poison(*number)).map(as_sent).collect();
    assert_eq!(*kept.lock().unwrap(), expected);
    let log = broker.log("t", 0);
    let values = log.iter().map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap());
    assert!(values.eq((0..COUNT).filter(|number| !is_poison(*number)).map(value)), "all the others, once, in order");
    let stats = producer.stats();
    assert_eq!((stats.delivered, stats.failed_not_written, stats.outstanding()), (good, COUNT - good, 0), "{stats:?}");
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    assert_eq!(producer.stats().buffer_used, 0);
}
