//! Under a broker that takes requests and never answers, a producer uses `buffer.memory` and little more, says so at
//! the door, ends every record with an error and then ends itself. The client runs in a process of its own, so that
//! the memory is its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, Fault, TopicOptions};
use ringmail::{DeliveryError, DeliveryErrorKind, DriverChoice, Producer, Record, RecordMetadata, SendError};

/// Set in the client's process: the broker, the driver and the size of a record.
const CLIENT: &str = "RINGMAIL_TEST_MEMORY_CLIENT";
const BUFFER: usize = 64 << 20;
/// What a producer may need beside its buffer.
const BESIDE: usize = 16 << 20;

/// The most memory this process has had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Fills the buffer, is refused in both ways, and waits until every accepted record has its error.
#[test]
#[ignore = "run by the other test in a process of its own"]
fn client_process() {
    let setup = std::env::var(CLIENT).unwrap();
    let [broker, driver, size] = setup.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let failed = Arc::new(AtomicU64::new(0));
    let counted = failed.clone();
    let delivery_timeout = Duration::from_secs(5);
    let producer = Producer::builder()
        .bootstrap_servers(broker)
        .driver(if driver == "epoll" { DriverChoice::Epoll } else { DriverChoice::IoUring })
        .buffer_memory(BUFFER)
        .linger(Duration::ZERO)
        .max_block(Duration::from_millis(300))
        .request_timeout(Duration::from_secs(2))
        .delivery_timeout(delivery_timeout)
        .listener(move |_: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            assert_eq!(result.err().map(DeliveryError::kind), Some(DeliveryErrorKind::Expired));
            counted.fetch_add(1, SeqCst);
        })
        .build()
        .unwrap();
    producer.warm_up(&["silent"]).unwrap();
    let topic = producer.topic("silent").unwrap();

    let value = vec![7; size.parse().unwrap()];
    let started = Instant::now();
    let mut accepted = 0;
    let refused = loop {
        match topic.try_send_tagged(Record::value(&value), accepted) {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.error, SendError::BufferFull);
    // Full is full, not some share of it: segments are rounded up, headers and tags take their part.
    assert!(accepted * value.len() as u64 > BUFFER as u64 / 2, "{accepted} records filled the buffer");
    if started.elapsed() < delivery_timeout / 2 {
        let refused = topic.send_tagged(Record::value(&value), accepted).unwrap_err();
        assert!(matches!(refused, SendError::Timeout { .. }), "{refused:?}");
    }

    while failed.load(SeqCst) < accepted {
        let failed = failed.load(SeqCst);
        assert!(started.elapsed() < 12 * delivery_timeout, "{failed} of {accepted} records ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(producer.close(Duration::from_secs(2)).unwrap().is_clean());
    assert_eq!(failed.load(SeqCst), accepted);
    let peak = peak();
    println!("{setup}: {accepted} records accepted, peak {} KiB of {} KiB", peak >> 10, (BUFFER + BESIDE) >> 10);
    assert!(peak <= BUFFER + BESIDE, "{peak} bytes");
}

#[test]
fn a_silent_broker_costs_the_buffer_and_little_more() {
    let topic = TopicOptions { partitions: 3, ..TopicOptions::default() };
    let broker = Broker::start(BrokerOptions { topic, ..BrokerOptions::default() }.on_produce(|_| Fault::HangBefore));
    let broker = broker.unwrap();
    let clients: Vec<_> = [("io_uring", 100), ("epoll", 100), ("io_uring", 10_000), ("epoll", 10_000)]
        .map(|(driver, size)| {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "client_process", "--ignored", "--nocapture"])
                .env(CLIENT, format!("{} {driver} {size}", broker.bootstrap()))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            (driver, size, child.unwrap())
        })
        .into();
    for (driver, size, child) in clients {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        assert!(output.status.success(), "{driver}, {size}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
