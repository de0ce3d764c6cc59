//! What a producer costs that has nothing to do: sends one record to each of its partitions, then waits, and prints the
//! share of a core that the whole process used meanwhile.
//!
//! Without arguments: 1,000 partitions on an embedded broker in the same process, one second. Else: `idle BROKER TOPIC
//! PARTITIONS SECONDS [key=value…]`.
#![allow(clippy::unwrap_used, reason = "an example shows the calls, not the handling of every error")]

use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{Producer, Record};

/// Time that this process's threads have run, in seconds, to a nanosecond (Linux).
fn cpu_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    nanos.filter_map(|line| line.split_whitespace().next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let topic = TopicOptions { partitions: 1000, ..TopicOptions::default() };
    let options = BrokerOptions { topic, discard: true, ..BrokerOptions::default() };
    let embedded = if arguments.is_empty() { Some(Broker::start(options)?) } else { None };
    let own = embedded.as_ref().map(Broker::bootstrap).unwrap_or_default();
    let argument = |at: usize, default: &str| arguments.get(at).cloned().unwrap_or_else(|| default.to_owned());
    let (broker, topic) = (argument(0, &own), argument(1, "idle"));
    let (partitions, seconds): (i32, f64) = (argument(2, "1000").parse()?, argument(3, "1").parse()?);

    let mut builder = Producer::builder().bootstrap_servers(&broker);
    for setting in arguments.iter().skip(4) {
        let (key, value) = setting.split_once('=').ok_or("settings are key=value")?;
        builder = builder.set(key, value);
    }
    let producer = builder.build()?;
    producer.warm_up(&[&topic])?;
    let topic = producer.topic(&topic)?;
    for partition in 0..partitions {
        drop(topic.send(Record::value("x").with_partition(partition))?);
    }
    producer.flush()?;
    std::thread::sleep(Duration::from_millis(100));

    let (started, cpu) = (Instant::now(), cpu_seconds());
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let used = (cpu_seconds() - cpu) / started.elapsed().as_secs_f64();
    println!("{}, {partitions} partitions: {:.4} % of a core", producer.driver_name(), used * 100.0);
    Ok(())
}
