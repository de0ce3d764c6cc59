//! How long does it take from the first `send` to the last acknowledgement, over loopback to the embedded broker, with all
//! threads running? Many records give throughput, one record gives the round trip. The broker checks every record and
//! shares the cores, so this says how changes compare and not how fast the producer is: for that see PERF.md.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{Record, Topic};

/// Records of one iteration.
const MANY: u64 = 100_000;

fn end_to_end(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("end to end");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for driver in ["io_uring", "epoll"] {
        let options = TopicOptions { partitions: 6, ..TopicOptions::default() };
        let broker =
            Broker::start(BrokerOptions { topic: options, discard: true, ..BrokerOptions::default() }).unwrap();
        let producer = match common::listening().bootstrap_servers(&broker.bootstrap()).set("driver", driver).build() {
            Ok(producer) => producer,
            Err(error) => {
                println!("{driver} is left out: {error}");
                continue;
            }
        };
        producer.warm_up(&["bench"]).unwrap();
        let topic = producer.topic("bench").unwrap();
        let mut many = |name: &str, size: usize, call: &dyn Fn(&Topic, &[u8], u64)| {
            let value = vec![7; size];
            group.throughput(Throughput::Elements(MANY));
            group.bench_function(BenchmarkId::new(name, driver), |bencher| {
                bencher.iter(|| {
                    (0..MANY).for_each(|number| call(&topic, &value, number));
                    producer.flush().unwrap();
                });
            });
        };
        many("100,000 tagged, 100 bytes", 100, &|topic, value, tag| {
            topic.send_tagged(Record::value(value), tag).unwrap();
        });
        many("100,000 deliveries dropped, 100 bytes", 100, &|topic, value, _| {
            drop(topic.send(Record::value(value)).unwrap());
        });
        many("100,000 tagged, 1 kB", 1000, &|topic, value, tag| topic.send_tagged(Record::value(value), tag).unwrap());
        group.throughput(Throughput::Elements(1));
        // Without linger, or that is what is measured.
        let eager =
            common::listening().bootstrap_servers(&broker.bootstrap()).set("driver", driver).set("linger.ms", "0");
        let eager = eager.build().unwrap();
        eager.warm_up(&["bench"]).unwrap();
        let topic = eager.topic("bench").unwrap();
        group.bench_function(BenchmarkId::new("one record there and back", driver), |bencher| {
            bencher.iter(|| topic.send(Record::value(&[7; 100])).unwrap().wait().unwrap());
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = common::short(); targets = end_to_end }
criterion_main!(benches);
