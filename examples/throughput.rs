//! Sends 100-byte records as fast as they are taken, and prints how many per second and how much processor time.
//!
//! Without arguments: 200,000 records to an embedded broker. Else: `throughput BROKER TOPIC RECORDS tag|delivery
//! [key=value…]`, where `tag` tells a listener of each record and `delivery` makes a `Delivery` and drops it.
#![allow(clippy::unwrap_used, reason = "an example shows the calls, not the handling of every error")]

use std::time::{Duration, Instant};

use ringmail::testing::Broker;
use ringmail::{DeliveryError, Producer, Record, RecordMetadata};

/// User and system time of this process, in seconds, to a hundredth (Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let embedded = if arguments.is_empty() { Some(Broker::start(Default::default())?) } else { None };
    let own = embedded.as_ref().map(Broker::bootstrap).unwrap_or_default();
    let argument = |at: usize, default: &str| arguments.get(at).cloned().unwrap_or_else(|| default.to_owned());
    let (broker, topic, tagged) = (argument(0, &own), argument(1, "throughput"), argument(3, "tag") == "tag");
    let records: u64 = argument(2, "200000").parse()?;

    let mut builder = Producer::builder().bootstrap_servers(&broker);
    for setting in arguments.iter().skip(4) {
        let (key, value) = setting.split_once('=').ok_or("settings are key=value")?;
        builder = builder.set(key, value);
    }
    if tagged {
        builder = builder.listener(|_: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            result.unwrap();
        });
    }
    let producer = builder.build()?;
    producer.warm_up(&[&topic])?;
    let topic = producer.topic(&topic)?;

    let value = [7; 100];
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for number in 0..records {
        if tagged {
            topic.send_tagged(Record::value(&value), number)?;
        } else {
            drop(topic.send(Record::value(&value))?);
        }
    }
    producer.flush()?;
    let (seconds, millions) = (started.elapsed().as_secs_f64(), records as f64 / 1e6);
    let cpu = (cpu_seconds() - cpu) / millions;
    println!("{}: {:.2} M records/s, {cpu:.3} CPU s per million", producer.driver_name(), millions / seconds);
    assert!(producer.close(Duration::from_secs(10))?.is_clean());
    Ok(())
}
