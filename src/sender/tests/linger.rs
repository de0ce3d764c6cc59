//! When a batch leaves: at linger, at `batch.size`, and neither before nor much later.

use std::time::Duration;

use super::world::World;
use super::{MS, Watch, config, finish, options, pass, send_all};
use crate::testing::Fault;

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
