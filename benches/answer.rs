//! What does it cost to read a broker's answer to Produce, per partition in it? Decoding alone: what the answer then
//! does to the records is in `completion.rs`. Version 8 is the last with fixed lengths, 12 the last that names topics.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmail::testing::internals;

fn answer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answer");
    for version in [8, 12, 13] {
        for partitions in [1, 10, 1000] {
            let body = internals::produce_answer(version, partitions);
            group.throughput(Throughput::Elements(partitions as u64));
            group.bench_function(BenchmarkId::new(format!("version {version}"), partitions), |bencher| {
                bencher.iter(|| internals::read_produce_answer(black_box(&body), version).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group! { name = benches; config = common::short(); targets = answer }
criterion_main!(benches);
