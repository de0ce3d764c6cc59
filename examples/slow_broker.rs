//! One thread per partition, all on one producer and one `buffer.memory`; prints each thread's records per second.
//! Shows that a broker that is slow, or answers nothing, does not take the others' memory or time.
//!
//! Without arguments: an embedded cluster of three whose first broker never answers. Else: `slow_broker BROKER TOPIC
//! PARTITIONS SECONDS [key=value…]`, where `threads=N` lets thread t of N send to the partitions t, t + N, t + 2 N… in
//! turn, `skip=N` leaves out the first N threads, and with `others=N` all threads but the first send to N partitions only.
#![allow(clippy::unwrap_used, reason = "an example shows the calls, not the handling of every error")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, Fault};
use ringmail::{DeliveryError, Producer, Record, RecordMetadata};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let silent = |options: BrokerOptions| {
        options.on_produce(|context| if context.node == 0 { Fault::HangBefore } else { Fault::None })
    };
    let options = BrokerOptions { brokers: 3, discard: true, ..BrokerOptions::default() };
    let embedded = if arguments.is_empty() { Some(Broker::start(silent(options))?) } else { None };
    let own = embedded.as_ref().map(Broker::bootstrap).unwrap_or_default();
    let argument = |at: usize, default: &str| arguments.get(at).cloned().unwrap_or_else(|| default.to_owned());
    let (broker, topic) = (argument(0, &own), argument(1, "slow"));
    let (partitions, seconds): (usize, f64) = (argument(2, "3").parse()?, argument(3, "0.5").parse()?);

    let number = |key: &str| arguments.iter().find_map(|setting| setting.strip_prefix(key)?.parse::<usize>().ok());
    let (threads, skipped) = (number("threads=").unwrap_or(partitions), number("skip=").unwrap_or(0));
    let others = number("others=").unwrap_or(partitions);

    let delivered: &'static [AtomicU64] = (0..threads).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak();
    let mut builder = Producer::builder().bootstrap_servers(&broker).max_block(Duration::from_millis(200)).listener(
        move |thread: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            if result.is_ok() {
                delivered[thread as usize].fetch_add(1, Relaxed);
            }
        },
    );
    for setting in arguments.iter().skip(4) {
        let (key, value) = setting.split_once('=').ok_or("settings are key=value")?;
        if !["threads", "skip", "others"].contains(&key) {
            builder = builder.set(key, value);
        }
    }
    let producer = builder.build()?;
    producer.warm_up(&[&topic])?;
    let topic = producer.topic(&topic)?;

    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let rates = std::thread::scope(|scope| {
        for thread in skipped..threads {
            let (topic, stop) = (&topic, &stop);
            scope.spawn(move || {
                let record = Record::value(&[7; 100]);
                let most = if thread == 0 { partitions } else { others };
                let mut its = (thread..partitions).step_by(threads).take(most).cycle();
                while let Some(partition) = its.next().filter(|_| !stop.load(Relaxed)) {
                    // No room within max.block.ms: the broker is behind, and its records are not taken now.
                    let _ = topic.send_tagged(record.with_partition(partition as i32), thread as u64);
                }
            });
        }
        // The first half fills the buffer; only what comes after counts.
        std::thread::sleep(Duration::from_secs_f64(seconds / 2.0));
        let (halfway, at) = (delivered.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>(), started.elapsed());
        std::thread::sleep(Duration::from_secs_f64(seconds / 2.0));
        let took = (started.elapsed() - at).as_secs_f64();
        let rates = delivered.iter().zip(halfway).map(|(count, before)| (count.load(Relaxed) - before) as f64 / took);
        let rates: Vec<f64> = rates.collect();
        stop.store(true, Relaxed);
        rates
    });
    for (thread, rate) in rates.iter().enumerate() {
        println!("thread {thread}: {:.0} records/s", rate);
    }
    let left = producer.close(Duration::from_millis(200))?;
    println!("left behind: {} records", left.records());
    Ok(())
}
