//! In steady state nothing is allocated per record, neither by the caller's thread nor by the sender's, also when
//! every batch holds one record. The broker runs in a process of its own, so that all that is counted is the client's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{DeliveryError, DriverChoice, Producer, Record, RecordMetadata};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: as `System`, which does the work; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The broker's process: this very test, run again by its name.
struct OtherProcess {
    child: Child,
    /// Kept open: the process has a last word.
    _output: BufReader<ChildStdout>,
    bootstrap: String,
}

impl OtherProcess {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "broker_process", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.by_ref().lines().map_while(Result::ok);
        let address = lines.find_map(|line| Some(line.split_once("broker at ")?.1.to_owned()));
        Self { child, _output: output, bootstrap: address.expect("the broker's address") }
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "run by the other test in a process of its own"]
fn broker_process() {
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let broker = Broker::start(BrokerOptions { topic, discard: true, ..BrokerOptions::default() }).unwrap();
    println!("broker at {}", broker.bootstrap());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn allocations(records: u64, mut send: impl FnMut(u64)) -> f64 {
    (0..records).for_each(&mut send);
    let before = ALLOCATIONS.load(Relaxed);
    (0..records).for_each(&mut send);
    (ALLOCATIONS.load(Relaxed) - before) as f64 / records as f64
}

#[test]
fn a_record_in_steady_state_allocates_nothing() {
    let broker = OtherProcess::start();
    for driver in [DriverChoice::IoUring, DriverChoice::Epoll] {
        let told = Arc::new(AtomicU64::new(0));
        let counted = told.clone();
        let builder = || Producer::builder().bootstrap_servers(&broker.bootstrap).driver(driver);

        // Full batches, with a delivery each, dropped.
        let producer = builder().build().unwrap();
        let topic = producer.topic("full").unwrap();
        let per_record = allocations(300_000, |_| drop(topic.send(Record::value(&[7; 100])).unwrap()));
        println!("{driver:?}: {per_record:.6} allocations per record in full batches");
        assert!(per_record < 0.001, "{per_record}");
        drop(producer);

        // One record per batch, each told to the listener before the next is sent.
        let producer = builder()
            .linger(Duration::ZERO)
            .listener(move |_: u64, result: Result<&RecordMetadata, &DeliveryError>| {
                assert!(result.is_ok());
                counted.fetch_add(1, Relaxed);
            })
            .build()
            .unwrap();
        let topic = producer.topic("single").unwrap();
        let per_record = allocations(5000, |tag| {
            let before = told.load(Relaxed);
            topic.send_tagged(Record::value(&[7; 100]), tag).unwrap();
            while told.load(Relaxed) == before {
                std::thread::yield_now();
            }
        });
        println!("{driver:?}: {per_record:.6} allocations per record, one record per batch");
        assert!(per_record < 0.001, "{per_record}");
    }
}
