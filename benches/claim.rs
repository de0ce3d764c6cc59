//! From which size on is it cheaper to write a value in place than to have it copied? A claim has a segment and a slot of
//! its own; a send copies into the open batch. The caller's own writing of the value is part of both: it fills the
//! claim, or a buffer that it then sends.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmail::Record;

/// A claim takes a slot of the ring's 32; a few stay free.
const ROUND: u64 = 20;

fn claim(criterion: &mut Criterion) {
    let (mut hand, topic) = common::by_hand(common::plain(), 1);
    let mut group = criterion.benchmark_group("claim");
    for size in [100, 1_000, 10_000, 100_000, 500_000] {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("claim, fill, commit", size), |bencher| {
            bencher.iter_custom(|calls| {
                common::rounds(&mut hand, calls, ROUND, |number| {
                    let mut claim = topic.claim(size, None, &[]).unwrap();
                    black_box(&mut claim[..]).fill(number as u8);
                    drop(claim.commit().unwrap());
                })
            });
        });
        let mut buffer = vec![0; size];
        group.bench_function(BenchmarkId::new("fill, send", size), |bencher| {
            bencher.iter_custom(|calls| {
                common::rounds(&mut hand, calls, ROUND, |number| {
                    black_box(&mut buffer[..]).fill(number as u8);
                    drop(topic.send(Record::value(&buffer)).unwrap());
                })
            });
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = common::short(); targets = claim }
criterion_main!(benches);
