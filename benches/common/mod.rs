//! What the benches share: a producer by hand, and rounds that keep all but the measured calls off the clock.
#![allow(dead_code, reason = "no bench uses all of it")]

use std::time::{Duration, Instant};

use criterion::Criterion;
use ringmail::testing::internals::ByHand;
use ringmail::{DeliveryError, Producer, ProducerBuilder, RecordMetadata, Topic};

/// For calls that are measured in nanoseconds: short, because the spread comes from the machine and not from the code.
pub fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
}

/// Defaults. Without a listener batches have no room for tags.
pub fn plain() -> ProducerBuilder {
    Producer::builder()
}

/// Defaults, and a listener that looks at each result.
pub fn listening() -> ProducerBuilder {
    plain().listener(|_: u64, result: Result<&RecordMetadata, &DeliveryError>| assert!(result.is_ok()))
}

/// A producer by hand with one topic.
pub fn by_hand(builder: ProducerBuilder, partitions: i32) -> (ByHand, Topic) {
    let mut hand = ByHand::new(builder, partitions).unwrap();
    let topic = hand.topic("bench").unwrap();
    (hand, topic)
}

/// The same with one partition, and whatever was accepted leaves as one batch, up to 1 MiB.
pub fn in_large_batches(builder: ProducerBuilder) -> (ByHand, Topic) {
    by_hand(builder.batch_size(1 << 20), 1)
}

/// The time of `calls` calls alone. After each `round` of them everything is sent, acknowledged and told, off the clock.
pub fn rounds(hand: &mut ByHand, calls: u64, round: u64, mut call: impl FnMut(u64)) -> Duration {
    let mut taken = Duration::ZERO;
    let mut done = 0;
    while done < calls {
        let until = calls.min(done + round);
        let started = Instant::now();
        for number in done..until {
            call(number);
        }
        taken += started.elapsed();
        done = until;
        assert!(hand.settle());
    }
    taken
}
