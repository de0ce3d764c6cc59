//! What does one thread pay to put a record into its batch, when nobody else is at work? By how the caller wants to hear
//! of it, and by what the record holds. Batches open, fill and are sealed as in real life; sender, broker and callbacks
//! run between the rounds, off the clock. What the same calls cost beside a running sender: `send.rs`.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmail::testing::internals::ByHand;
use ringmail::{Header, Record, Topic};

fn append(criterion: &mut Criterion) {
    let mut listening = common::by_hand(common::listening(), 1);
    let mut plain = common::by_hand(common::plain(), 1);
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    let (small, large, key) = ([7; 100], [7; 10_000], [9; 16]);
    let headers = [Header { key: "trace", value: Some(&[1; 16]) }, Header { key: "source", value: Some(b"bench") }];
    // A round is far from filling the ring or the memory: nothing waits.
    let mut one = |name: &str, (hand, topic): &mut (ByHand, Topic), round: u64, call: &dyn Fn(&Topic, u64)| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| common::rounds(hand, calls, round, |number| call(black_box(topic), number)));
        });
    };
    one("tagged, 100 bytes", &mut listening, 2_000, &|topic, tag| {
        topic.try_send_tagged(Record::value(&small), tag).unwrap()
    });
    one("delivery dropped, 100 bytes", &mut plain, 2_000, &|topic, _| {
        drop(topic.try_send(Record::value(&small)).unwrap())
    });
    one("tagged, 100 bytes, 16-byte key", &mut listening, 2_000, &|topic, tag| {
        topic.try_send_tagged(Record::value(&small).with_key(&key), tag).unwrap();
    });
    one("tagged, 100 bytes, two headers", &mut listening, 2_000, &|topic, tag| {
        topic.try_send_tagged(Record::value(&small).with_headers(&headers), tag).unwrap();
    });
    one("callback, 100 bytes", &mut plain, 2_000, &|topic, _| topic.send_with(Record::value(&small), |_| {}).unwrap());
    one("tagged, 10 kB", &mut listening, 50, &|topic, tag| topic.try_send_tagged(Record::value(&large), tag).unwrap());
    group.finish();
}

criterion_group! { name = benches; config = common::short(); targets = append }
criterion_main!(benches);
