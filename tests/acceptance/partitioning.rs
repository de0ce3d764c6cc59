//! Records without a key: one partition for a whole batch, then another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmail::Record;
use ringmail::testing::Fault;

use crate::{builder, partitions, settled, start};

const BATCH: usize = 4_000;
/// 100 bytes and what a record needs around them.
const RECORD: usize = 107;

/// With a linger that never ends, each run of records on one partition fills a batch, every batch but the last is
/// full, and all partitions get their share.
#[test]
fn keyless_records_fill_a_batch_then_move_on() {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = batches.clone();
    let broker = start(partitions(4).on_produce(move |context| {
        seen.lock().unwrap().push(context.count as usize);
        Fault::None
    }));
    let producer = builder(&broker.bootstrap())
        .batch_size(BATCH as u32)
        .linger(Duration::from_secs(1000))
        .delivery_timeout(Duration::from_secs(2000))
        .build()
        .unwrap();
    let topic = producer.topic("sticky").unwrap();
    producer.warm_up(&["sticky"]).unwrap();
    let mut deliveries = Vec::new();
    // A batch whose partition waits for an answer grows: time for answers in between makes more batches.
    while batches.lock().unwrap().len() < 40 {
        deliveries.extend((0..40).map(|_| topic.send(Record::value(&[b'v'; 100])).unwrap()));
        std::thread::sleep(Duration::from_millis(1));
    }
    let records = deliveries.len() as u64;
    producer.flush().unwrap();
    let places: Vec<i32> = deliveries.into_iter().map(|delivery| delivery.wait().unwrap().partition()).collect();
    let runs: Vec<usize> = places.chunk_by(|a, b| a == b).map(<[i32]>::len).collect();
    let (last, full) = runs.split_last().unwrap();
    assert!(*last > 0 && full.iter().all(|records| records * RECORD > BATCH * 9 / 10), "{runs:?}");
    assert!(runs.len() >= 20 && (0..4).all(|partition| places.contains(&partition)), "{runs:?}");
    let batches = batches.lock().unwrap();
    let fractions = batches.iter().filter(|records| **records * RECORD < BATCH * 9 / 10).count();
    assert!(fractions <= 1, "{batches:?}");
    settled(&producer, records, 0);
}
