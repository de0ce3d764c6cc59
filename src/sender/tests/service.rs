//! What a request has, and how many are under way, where answers are slow; and that all is as ever where they are not.

use std::time::Duration;

use super::stage::Stage;
use super::{MS, config, options};
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::wire::header::ApiKey;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PARTITIONS: u32 = 6;

fn stage(config: ProducerConfig, produce_takes: Duration, one_by_one: bool) -> Stage {
    let mut stage = Stage::new(options(PARTITIONS as i32), config.buffer_memory(64 * MIB), "127.0.0.1:1000");
    (stage.produce_takes, stage.one_by_one) = (produce_takes, one_by_one);
    stage
}

/// All partitions always have something, for this long. The sizes of the requests in the second half of it, and how many were
/// under way at most.
fn saturate(stage: &mut Stage, time: Duration) -> (Vec<usize>, usize) {
    let topic = stage.topic("t");
    let value = vec![b'v'; 250 * KIB];
    let (start, mut most) = (stage.now, 0);
    let mut deliveries: Vec<Delivery> = Vec::new();
    while stage.now < start + time {
        while (0..PARTITIONS)
            .any(|at| stage.try_send_value(&topic, at, &value).map(|one| deliveries.push(one)).is_some())
        {}
        stage.run(MS);
        let lanes = stage.sender.connections.values();
        most = most.max(lanes.map(|connection| connection.unanswered.len()).max().unwrap_or(0));
    }
    stage.run(2 * time);
    assert!(deliveries.iter().all(|delivery| matches!(delivery.try_result(), Some(Ok(_)))));
    let late = stage.asked.iter().filter(|asked| asked.api == ApiKey::PRODUCE && asked.at >= start + time / 2);
    (late.filter(|asked| asked.at < start + time).map(|asked| asked.bytes).collect(), most)
}

fn mean(sizes: &[usize]) -> usize {
    sizes.iter().sum::<usize>() / sizes.len()
}

#[test]
fn a_slow_broker_gets_all_partitions_in_one_request() {
    for takes in [5 * MS, 20 * MS] {
        let (sizes, most) = saturate(&mut stage(config(), takes, true), 80 * takes);
        let (least, mean) = (sizes.iter().min().unwrap(), mean(&sizes));
        assert!(mean > 5 * MIB && *least > 3 * MIB, "{takes:?}: {least} at least, {mean} on average");
        assert!(most <= 17, "what was sent before anything was known: {most}");
    }
}

#[test]
fn a_request_keeps_to_its_limit() {
    // What is given, and how large a request may be then.
    for (config, limit) in [
        (config().max_request_size(MIB as u32), MIB),
        (config().max_request_size(300_000), 300_000),
        (config().request_max_bytes(3 * MIB as u32), 3 * MIB),
        (config().max_request_size(300_000).request_max_bytes(MIB as u32), MIB),
    ] {
        let (sizes, _) = saturate(&mut stage(config, 5 * MS, true), 400 * MS);
        let most = *sizes.iter().max().unwrap();
        assert!(most <= limit + 100, "{most} of {limit}");
        assert!(most + 300_000 > limit, "{most} of {limit}");
    }
}

#[test]
fn fast_answers_leave_requests_as_they_are() {
    for takes in [Duration::ZERO, MS / 10, MS / 2] {
        let (sizes, _) = saturate(&mut stage(config(), takes, true), 40 * MS);
        assert!(sizes.iter().all(|size| *size <= MIB + 100), "{takes:?}: {:?}", sizes.iter().max());
    }
}

/// 1,000 records a second, each to the next partition: how long those after the first 200 took.
fn trickle(stage: &mut Stage) -> Vec<Duration> {
    let topic = stage.topic("t");
    let (mut waiting, mut took): (Vec<(Duration, Delivery)>, _) = (Vec::new(), Vec::new());
    for at in 0..2_000 {
        waiting.push((stage.now, stage.send(&topic, at % PARTITIONS)));
        stage.run(MS);
        let now = stage.now;
        waiting.retain(|(sent, delivery)| {
            let result = delivery.try_result();
            if let Some(result) = &result {
                result.as_ref().unwrap();
                took.extend((at > 200).then(|| now - *sent));
            }
            result.is_none()
        });
    }
    took.sort();
    took
}

/// The broker serves 200 requests a second. With as many under way as there are windows a record would wait for 30 of them;
/// like this for the next answer, and three of them if one more leaves to see whether it is still so.
#[test]
fn a_trickle_does_not_queue_up_at_a_slow_broker() {
    for (linger, bound) in [(Duration::ZERO, 20 * MS), (5 * MS, 25 * MS)] {
        let took = trickle(&mut stage(config().linger(linger), 5 * MS, true));
        let worst = took[took.len() - 1];
        assert!(worst <= bound, "{linger:?}: {worst:?}");
    }
}

/// 50 ms away and fast: nothing is kept here for long. Five batches of a partition are under way: with six partitions, 30
/// requests in 50 ms.
#[test]
fn a_long_way_does_not_hold_a_trickle_up() {
    let took = trickle(&mut stage(config().linger(Duration::ZERO), 50 * MS, false));
    let (half, most) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(half <= 60 * MS && most <= 100 * MS, "{half:?}, {most:?}");
}
