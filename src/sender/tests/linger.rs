//! When a batch leaves: at linger, at `batch.size` or when it has grown, and neither before nor much later.

use std::time::Duration;

use super::stage::Stage;
use super::world::World;
use super::{MS, Watch, config, finish, options, pass, send_all};
use crate::sender::TopicShared;
use crate::testing::Fault;
use crate::testing::simulation::last_answer::{append, left, quiet};

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

/// So many records of a little more than 1 kB, at once.
fn burst(stage: &mut Stage, topic: &TopicShared, records: usize) {
    (0..records).for_each(|_| append(&stage.accumulator, topic, 1000));
    stage.run(Duration::ZERO);
}

/// Times between one and the next, without the first few.
fn apart(left: &[Duration]) -> Vec<Duration> {
    left[2..].windows(2).map(|pair| pair[1] - pair[0]).collect()
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
    assert_eq!(left[0], 10 * US, "nothing was in flight");
    assert!(apart(&left).len() > 7 && apart(&left).iter().all(|apart| *apart >= 240 * US), "{left:?}");
}

#[test]
fn the_faster_a_stream_the_larger_its_batches() {
    let (mut stage, topic) = quiet(16_384);
    let start = stage.now;
    let mut told_at = Vec::new();
    // 200 MB/s: 16 KiB take 80 µs, 256 KiB 1.3 ms.
    for _ in 0..300 {
        burst(&mut stage, &topic, 2);
        stage.run(10 * US);
        told_at.push(topic.partition(0).unwrap().leave_at_hint());
    }
    let left = left(&stage, start);
    assert!(apart(&left).iter().all(|apart| (200 * US..=300 * US).contains(apart)), "{left:?}");
    let waits = told_at.iter().filter(|at| (30_000..70_000).contains(*at)).count();
    assert!(waits > 100, "writers tell of what there will be: {told_at:?}");
}

#[test]
fn what_a_stream_leaves_behind_does_not_linger() {
    let (mut stage, topic) = quiet(16_384);
    let start = stage.now;
    burst(&mut stage, &topic, 17);
    burst(&mut stage, &topic, 50);
    stage.run(LONG / 2);
    assert_eq!(left(&stage, start), [Duration::ZERO, 250 * US]);
}

/// The sender was busy and looks for the first time when the answer is there, too.
#[test]
fn what_came_before_the_answer_was_handled_did_not_wait_for_it() {
    let (mut stage, topic) = quiet(16_384);
    let start = stage.now;
    burst(&mut stage, &topic, 17);
    stage.run(49 * US);
    (0..40).for_each(|_| append(&stage.accumulator, &topic, 1000));
    stage.now += US;
    stage.run(LONG / 2);
    assert_eq!(left(&stage, start), [Duration::ZERO, 250 * US]);
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

/// Whoever waits for all answers before the next record would wait for nothing.
#[test]
fn who_waits_for_answers_is_not_held_up() {
    for records in [17, 60] {
        let (mut stage, topic) = quiet(16_384);
        for _ in 0..5 {
            let start = stage.now;
            burst(&mut stage, &topic, records);
            stage.run(110 * US);
            // What did not fit the first batch goes at its answer.
            let left = left(&stage, start);
            assert!(left == [Duration::ZERO] || left == [Duration::ZERO, 50 * US], "{left:?}");
        }
    }
}

#[test]
fn records_that_fill_a_small_batch_each_leave_at_once() {
    let (mut stage, topic) = quiet(1);
    let start = stage.now;
    for _ in 0..5 {
        burst(&mut stage, &topic, 1);
        burst(&mut stage, &topic, 1);
        stage.run(120 * US);
    }
    // The second one of a pair waits for the answer to the first, as ever.
    let expected = [0, 50, 120, 170, 240, 290, 360, 410, 480, 530].map(|at| at * US);
    assert_eq!(left(&stage, start), expected);
}

#[test]
fn a_stream_has_few_timers() {
    let (mut stage, topic) = quiet(16_384);
    for _ in 0..5_000 {
        burst(&mut stage, &topic, 10);
        stage.run(10 * US);
    }
    assert!(stage.sender.timers.len() < 30, "{}", stage.sender.timers.len());
}
