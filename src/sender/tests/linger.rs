//! When a batch leaves: at linger, at `batch.size` or when it has grown, and neither before nor much later.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::stage::Stage;
use super::world::World;
use super::{MS, Watch, config, finish, options, pass, send_all};
use crate::accumulator::Attach;
use crate::sender::TopicShared;
use crate::testing::Fault;
use crate::wire::header::ApiKey;
use crate::wire::record::Fields;

const LONG: Duration = Duration::from_secs(100);

#[test]
fn a_batch_waits_for_linger_and_no_longer() {
    let mut world = World::new(20, options(1), config().linger(10 * MS));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    finish(&mut world, &first);
    pass(&mut world, 100 * MS);
    let sent = world.now;
    let deliveries = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    world.run_until(sent);
    assert_eq!(world.sender.poll_timeout(), Some(sent + 10 * MS), "it asks to be woken then, not before");
    world.run_until(sent + 9 * MS);
    assert_eq!(world.sender.partitions[0].unacked, 0, "9 ms are not 10");
    world.run_until(sent + 10 * MS + Duration::from_nanos(1));
    assert_eq!(world.sender.partitions[0].unacked, 1);
    assert_eq!(finish(&mut world, &deliveries)[0].as_ref().unwrap().offset(), Some(1));
}

#[test]
fn a_full_batch_leaves_at_once_and_not_before() {
    let (options, watch) = Watch::on(options(1), |_| Fault::None);
    let mut world = World::new(21, options, config().linger(LONG).batch_size(1000));
    let topic = world.topic("t");
    let value = [b'v'; 100];
    let send = |world: &mut World| world.send(&topic, 0, &value).unwrap();
    let mut deliveries: Vec<_> = (0..9).map(|_| send(&mut world)).collect();
    pass(&mut world, LONG / 2);
    assert_eq!(watch.len(), 0, "9 records of 109 bytes are less than 1000");
    deliveries.push(send(&mut world));
    pass(&mut world, 5 * MS);
    let counts: Vec<_> = watch.all().iter().map(|met| met.count).collect();
    assert_eq!(counts, [10], "all in one batch");
    let outcomes = finish(&mut world, &deliveries);
    let offsets: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().unwrap().offset().unwrap()).collect();
    assert!(offsets.iter().copied().eq(0..10), "in the order in which they were appended: {offsets:?}");
}

#[test]
fn a_record_above_batch_size_leaves_at_once() {
    let (options, watch) = Watch::on(options(1), |_| Fault::None);
    let mut world = World::new(22, options, config().linger(LONG).batch_size(1000));
    let topic = world.topic("t");
    let delivery = world.send(&topic, 0, &[b'v'; 50_000]).unwrap();
    pass(&mut world, 5 * MS);
    assert_eq!(watch.all().iter().map(|met| met.count).collect::<Vec<_>>(), [1]);
    assert_eq!(finish(&mut world, &[delivery])[0].as_ref().unwrap().offset(), Some(0));
    assert_eq!(world.log("t", 0)[0].len(), 50_000);
}

const US: Duration = Duration::from_micros(1);

/// A broker that answers at once, and a topic of one partition. Nothing left for a while.
fn quiet(batch_size: u32) -> (Stage, Arc<TopicShared>) {
    let config = config().linger(LONG).batch_size(batch_size).enable_idempotence(false);
    let mut stage = Stage::new(options(1), config, "127.0.0.1:1000");
    let topic = stage.topic("t");
    stage.run(5 * MS);
    (stage, topic)
}

/// So many records of a little more than 1 kB, at once. Their deliveries are kept by nobody.
fn burst(stage: &mut Stage, topic: &TopicShared, records: usize) {
    let fields = Fields { value: Some(&[b'v'; 1000]), ..Fields::default() };
    for _ in 0..records {
        let ring = topic.partition(0).unwrap();
        drop(stage.accumulator.append(ring, &fields, None, Attach::Delivery, true, None).unwrap());
    }
    stage.run(Duration::ZERO);
}

/// When produce requests left, from `since` on.
fn left(stage: &Stage, since: Duration) -> Vec<Duration> {
    let produced = stage.asked.iter().filter(|asked| asked.api == ApiKey::PRODUCE);
    produced.map(|asked| asked.at).filter(|at| *at >= since).map(|at| at - since).collect()
}

#[test]
fn a_fast_stream_leaves_in_large_batches() {
    let (mut stage, topic) = quiet(16_384);
    let start = stage.now;
    // 1 GB/s: 16 KiB take 16 µs, 256 KiB 260 µs.
    for _ in 0..300 {
        burst(&mut stage, &topic, 10);
        stage.run(10 * US);
    }
    let left = left(&stage, start);
    assert_eq!(left[0], 10 * US, "nothing had left for long");
    assert!(left[1..].windows(2).all(|pair| pair[1] - pair[0] >= 250 * US), "{left:?}");
    assert!(left.len() >= 11, "{left:?}");
}

#[test]
fn the_faster_a_stream_the_larger_its_batches() {
    let (mut stage, topic) = quiet(16_384);
    let start = stage.now;
    // 200 MB/s: 16 KiB take 80 µs, 256 KiB 1.3 ms.
    for _ in 0..300 {
        burst(&mut stage, &topic, 2);
        stage.run(10 * US);
        let told_at = topic.partition(0).unwrap().leave_at.load(Ordering::Relaxed);
        assert!((16_384..70_000).contains(&told_at), "writers tell of {told_at} bytes");
    }
    let left = left(&stage, start);
    let apart: Vec<_> = left[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(apart.len() > 8 && apart.iter().all(|apart| (200 * US..=300 * US).contains(apart)), "{apart:?}");
}

#[test]
fn what_a_stream_leaves_behind_does_not_linger() {
    let (mut stage, topic) = quiet(16_384);
    burst(&mut stage, &topic, 17);
    stage.run(100 * US);
    let since = stage.now;
    for _ in 0..5 {
        burst(&mut stage, &topic, 10);
    }
    stage.run(LONG / 2);
    assert_eq!(left(&stage, since), [250 * US]);
}

#[test]
fn a_slow_stream_leaves_at_batch_size() {
    let (mut stage, topic) = quiet(16_384);
    let start = stage.now;
    // 40 MB/s: after 250 µs there is no more than what had to come for `batch.size`.
    for _ in 0..40 {
        burst(&mut stage, &topic, 10);
        stage.run(250 * US);
    }
    let expected: Vec<_> = (0..20).map(|nth| (500 * nth + 250) * US).collect();
    assert_eq!(left(&stage, start), expected);
}

#[test]
fn a_burst_after_silence_leaves_at_once() {
    let (mut stage, topic) = quiet(16_384);
    let start = stage.now;
    for _ in 0..3 {
        burst(&mut stage, &topic, 17);
        stage.run(2 * MS);
    }
    assert_eq!(left(&stage, start), [Duration::ZERO, 2 * MS, 4 * MS]);
}

#[test]
fn records_that_fill_a_small_batch_each_leave_at_once() {
    let (mut stage, topic) = quiet(1);
    let start = stage.now;
    for _ in 0..5 {
        burst(&mut stage, &topic, 1);
        stage.run(10 * US);
    }
    assert_eq!(left(&stage, start), [0, 10, 20, 30, 40].map(|at| at * US));
}
