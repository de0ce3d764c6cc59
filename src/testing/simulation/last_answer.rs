//! A race that no seed shows, for the simulation has one thread: a writer comes to `batch.size` just while the last answer
//! is handled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::stage::Stage;
use crate::accumulator::{Accumulator, Attach};
use crate::config::ProducerConfig;
use crate::sender::TopicShared;
use crate::testing::{BrokerOptions, TopicOptions};
use crate::wire::header::ApiKey;
use crate::wire::record::Fields;

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);

/// A broker that answers after 50 µs, and a topic of one partition. Nothing left for a while.
pub fn quiet(batch_size: u32) -> (Stage, Arc<TopicShared>) {
    let config = ProducerConfig::new()
        .linger(Duration::from_secs(100))
        .batch_size(batch_size)
        .buffer_memory(4 << 20)
        .enable_idempotence(false);
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let options = BrokerOptions { topic, ..BrokerOptions::default() };
    let mut stage = Stage::new(options, config, "127.0.0.1:1000");
    stage.produce_takes = 50 * US;
    let topic = stage.topic("t");
    stage.run(5 * MS);
    (stage, topic)
}

/// A record with so many bytes of value. Nobody keeps its delivery.
pub fn append(accumulator: &Accumulator, topic: &TopicShared, len: usize) {
    let fields = Fields { value: Some(&vec![b'v'; len]), ..Fields::default() };
    drop(accumulator.append(topic.partition(0).unwrap(), &fields, None, Attach::Delivery, true, None).unwrap());
}

/// When produce requests left, from `since` on.
pub fn left(stage: &Stage, since: Duration) -> Vec<Duration> {
    let produced = stage.asked.iter().filter(|asked| asked.api == ApiKey::PRODUCE);
    produced.map(|asked| asked.at).filter(|at| *at >= since).map(|at| at - since).collect()
}

/// The writer or the sender sees that the batch is large enough. A mistake shows within some thousand rounds of a release
/// build, and hardly in a debug build.
pub fn no_batch_is_forgotten(rounds: usize) {
    let (mut stage, topic) = quiet(16_384);
    stage.shared_with_writers = true;
    let (go, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let writer = {
        let (go, done, topic, accumulator) = (go.clone(), done.clone(), topic.clone(), stage.accumulator.clone());
        std::thread::spawn(move || {
            for round in 1..=rounds {
                while go.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
                (0..round * 7 % 200).for_each(|_| std::hint::spin_loop());
                append(&accumulator, &topic, 1000);
                done.store(round, Ordering::Release);
            }
        })
    };
    for round in 1..=rounds {
        // So many that the next segment is a large one, whose end would tell the sender as well.
        (0..40).for_each(|_| append(&stage.accumulator, &topic, 1000));
        stage.run(Duration::ZERO);
        (0..16).for_each(|_| append(&stage.accumulator, &topic, 990));
        let before = left(&stage, Duration::ZERO).len();
        go.store(round, Ordering::Release);
        stage.run(60 * US);
        while done.load(Ordering::Acquire) < round {
            std::thread::yield_now();
        }
        stage.run(10 * MS);
        assert!(left(&stage, Duration::ZERO).len() > before, "round {round}: it waits for linger");
        stage.asked.clear();
    }
    writer.join().unwrap();
}
