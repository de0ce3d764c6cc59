//! Closes a producer whose broker has died: `close` returns in the time it was given, and every record that was taken is
//! accounted for, by name, with what is known of it.
//!
//! `cargo run --example farewell`; it brings a broker of its own, and kills it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, Fault, TopicOptions};
use ringmail::{Producer, Record, UndeliveredRecord, Written};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The broker answers its first batches, stores one more without a word, and is gone.
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let options = BrokerOptions { topic, ..BrokerOptions::default() };
    let broker =
        Broker::start(options.on_produce(|context| if context.nth < 2 { Fault::None } else { Fault::HangAfter }))?;

    // A sink has each record that failed, whole, before anyone hears of the failure.
    let lost = Arc::new(Mutex::new(BTreeMap::new()));
    let kept = lost.clone();
    let producer = Producer::builder()
        .bootstrap_servers(&broker.bootstrap())
        .linger(Duration::ZERO)
        .on_undeliverable(move |record: UndeliveredRecord<'_>| {
            let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            if let Ok(mut kept) = kept.lock() {
                kept.insert(value, (record.written(), record.error().to_string()));
            }
        })
        .build()?;
    let topic = producer.topic("letters")?;

    let mut deliveries = Vec::new();
    let mut send = |number: usize| -> Result<(), ringmail::SendError> {
        let value = format!("letter {number:02}");
        let delivery = topic.send(Record::value(&value))?;
        deliveries.push((value, delivery));
        Ok(())
    };
    for number in 0..2 {
        send(number)?;
        producer.flush()?;
    }
    send(2)?;
    while broker.log("letters", 0).len() < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    broker.shutdown();
    for number in 3..12 {
        send(number)?;
    }

    let patience = Duration::from_millis(500);
    let started = Instant::now();
    let report = producer.close(patience)?;
    println!("close({patience:?}) took {:.1?}: {report}", started.elapsed());
    for left in report.leftovers() {
        let never = left.records - left.possibly_written;
        println!("{}-{}: {} possibly written, {never} not written", left.topic, left.partition, left.possibly_written);
    }

    let lost = lost.lock().map_err(|_| "the sink panicked")?;
    for (value, delivery) in deliveries {
        match delivery.wait() {
            Ok(metadata) => println!("{value}: delivered at offset {:?}", metadata.offset()),
            Err(error) => {
                let (written, why) = lost.get(&value).ok_or("a record that failed and was not kept")?;
                assert_eq!((*written, why), (error.written(), &error.to_string()), "both hear the same");
                let fate = if *written == Written::No { "not written" } else { "possibly written" };
                println!("{value}: {fate}: {why}");
            }
        }
    }
    assert_eq!(lost.len() as u64, report.records(), "the report counts what the sink got");
    Ok(())
}
