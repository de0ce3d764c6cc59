//! What happens to an append when several threads append at once? On one partition they share a claim word and a commit
//! word; on many they share nothing but the ready set and the pool. Time per record of all threads together, from the
//! first one's start to the last one's end; with more threads than cores they also wait for each other.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmail::testing::internals::ByHand;
use ringmail::{Record, Topic};

/// Of all threads together: well within one ring and the memory, so that nothing waits.
const ROUND: u64 = 8_000;

fn contended(criterion: &mut Criterion) {
    for (group, partitions) in [("contended, one partition", 1), ("contended, a partition per thread", 8)] {
        let (mut hand, topic) = common::by_hand(common::listening(), partitions);
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(1));
        for threads in [1, 2, 4, 8] {
            group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
                bencher.iter_custom(|calls| {
                    let mut taken = Duration::ZERO;
                    for done in (0..calls).step_by(ROUND as usize) {
                        taken += round(&topic, threads, ROUND.min(calls - done), partitions);
                        settle(&mut hand);
                    }
                    taken
                });
            });
        }
        group.finish();
    }
}

/// One round: `records` shared out among so many threads.
fn round(topic: &Topic, threads: u64, records: u64, partitions: i32) -> Duration {
    let start = Barrier::new(threads as usize);
    let append = |thread: u64| {
        let record = Record::value(&[7; 100]).with_partition(thread as i32 % partitions);
        start.wait();
        let started = Instant::now();
        for tag in (thread..records).step_by(threads as usize) {
            topic.try_send_tagged(record, tag).unwrap();
        }
        (started, Instant::now())
    };
    let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let append = &append;
                    move || append(thread)
                })
            })
            .collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = times.iter().map(|(started, _)| *started).min().unwrap();
    times.iter().map(|(_, ended)| *ended).max().unwrap() - first
}

fn settle(hand: &mut ByHand) {
    assert!(hand.settle());
}

criterion_group! { name = benches; config = common::short(); targets = contended }
criterion_main!(benches);
