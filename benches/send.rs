//! What one `send` costs its caller while the sender drains into the embedded broker (which keeps no records). One
//! question: how long does the call take, by how the caller wants to hear of the record?
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{DeliveryError, Producer, Record, RecordMetadata, Topic};

/// The time of `calls` calls alone: a full buffer is waited out between the calls, off the clock.
fn timed(producer: &Producer, calls: u64, mut call: impl FnMut(u64)) -> Duration {
    let mut taken = Duration::ZERO;
    let mut done = 0;
    while done < calls {
        let some = (calls - done).min(20_000);
        let started = Instant::now();
        for number in done..done + some {
            call(number);
        }
        taken += started.elapsed();
        done += some;
        producer.flush().unwrap();
    }
    taken
}

fn send(criterion: &mut Criterion) {
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let broker = Broker::start(BrokerOptions { topic, discard: true, ..BrokerOptions::default() }).unwrap();
    let quiet = |_: u64, _: Result<&RecordMetadata, &DeliveryError>| {};
    let producer = Producer::builder().bootstrap_servers(&broker.bootstrap()).listener(quiet).build().unwrap();
    let topic = producer.topic("bench").unwrap();
    producer.warm_up(&["bench"]).unwrap();

    let mut group = criterion.benchmark_group("send");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(3));
    let key = [9; 16];
    let small = [7; 100];
    let large = [7; 1024];
    let mut one = |name: &str, call: &dyn Fn(&Topic, u64)| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| timed(&producer, calls, |number| call(black_box(&topic), number)));
        });
    };
    one("delivery dropped, 100 bytes", &|topic, _| drop(topic.send(Record::value(&small)).unwrap()));
    one("tagged, 100 bytes", &|topic, number| topic.send_tagged(Record::value(&small), number).unwrap());
    one("tagged, 100 bytes, key", &|topic, number| {
        topic.send_tagged(Record::value(&small).with_key(&key), number).unwrap();
    });
    one("tagged, 1 KiB", &|topic, number| topic.send_tagged(Record::value(&large), number).unwrap());
    one("claim, 1 KiB", &|topic, number| {
        let mut claim = topic.claim(1024, None, &[]).unwrap();
        claim[0] = number as u8;
        drop(claim.commit().unwrap());
    });
    group.finish();
}

criterion_group!(benches, send);
criterion_main!(benches);
