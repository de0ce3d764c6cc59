//! What does choosing a partition cost? With a key it is a hash over every byte of it, for each record; without one it is
//! a choice per batch.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmail::testing::{internals, partition_for_key};

fn partitioner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("murmur2");
    // Up to 3 bytes are the tail's; 36 is a UUID in text.
    for len in [0, 3, 8, 16, 36, 256, 4096] {
        let key = vec![0xa5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| partition_for_key(black_box(&key), black_box(12)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("sticky, next partition");
    for partitions in [1, 2, 12, 1000] {
        let mut next = internals::sticky(1, partitions);
        group.bench_function(BenchmarkId::from_parameter(partitions), |bencher| bencher.iter(&mut next));
    }
    group.finish();
}

criterion_group! { name = benches; config = common::short(); targets = partitioner }
criterion_main!(benches);
