//! What does a batch cost the sender before its request goes to the kernel, and how much of that is the CRC? A turn of
//! the sender seals, drains, stamps and packs one batch; appending, answering and completing are off the clock. The CRC
//! alone runs over as many bytes, which are as warm.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmail::Record;
use ringmail::testing::internals::{self, ByHand};

/// One batch of so many bytes, in records of 100.
fn batch(hand: &mut ByHand, topic: &ringmail::Topic, bytes: usize) -> Duration {
    let records = bytes.div_ceil(108) as u64;
    (0..records).for_each(|tag| topic.try_send_tagged(Record::value(&[7; 100]), tag).unwrap());
    hand.flush();
    let started = Instant::now();
    hand.pack();
    let taken = started.elapsed();
    assert_eq!(hand.answer(), records, "all in one request");
    assert!(hand.settle());
    taken
}

fn seal(criterion: &mut Criterion) {
    let (mut hand, topic) = common::in_large_batches(common::listening());
    let mut group = criterion.benchmark_group("seal");
    // One record; `batch.size`; what leaves while another batch is in flight; nearly `max.request.size`.
    for bytes in [100, 16 << 10, 256 << 10, 1_000_000] {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("seal, drain, stamp, crc, pack", bytes), |bencher| {
            bencher.iter_custom(|batches| (0..batches).map(|_| batch(&mut hand, &topic, bytes)).sum());
        });
        let records = vec![7; bytes];
        group.bench_function(BenchmarkId::new("crc alone", bytes), |bencher| {
            bencher.iter(|| internals::crc(black_box(&records)));
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = common::short(); targets = seal }
criterion_main!(benches);
