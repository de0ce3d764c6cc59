//! Close: what it waits for, what it gives up, and that it says so.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::world::World;
use super::{MS, config, finish, options, pass, send_all};
use crate::accumulator::Attach;
use crate::completion::Delivery;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::Command;
use crate::testing::Fault;
use crate::wire::record::Fields;

/// A close that does not wait: what lies in the ring and what is on its way both end at once, told apart; the memory of
/// what the kernel may be reading comes back when the connection is gone, and not before.
#[test]
fn a_forced_close_ends_every_record_and_gives_all_memory_back() {
    let options = options(2).on_produce(|_| Fault::HangBefore);
    let mut world = World::new(90, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let mut deliveries = send_all(&mut world, &topic, 1, 0..3, Duration::ZERO);
    pass(&mut world, 20 * MS);
    assert_eq!(world.sender.partitions[0].unacked, 1, "on its way");
    // Behind it: before the first acknowledgement there is one in flight.
    deliveries.extend(send_all(&mut world, &topic, 1, 3..8, Duration::ZERO));
    pass(&mut world, 20 * MS);
    world.shared.command(Command::Close(Duration::ZERO));
    world.run_while(|world| world.shared.report().is_none());
    let outcomes = finish(&mut world, &deliveries);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        let written = if number < 3 { Written::Possibly } else { Written::No };
        assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Closed, written), "{number}: {error}");
    }
    let report = world.shared.report().unwrap();
    assert_eq!((report.records(), report.possibly_written()), (8, 3), "{report}");
    world.run_while(|world| !world.sender.is_closed());
    drop(deliveries);
    assert_eq!(world.accumulator.free(), free);
}

/// The sender dies while a writer is between its claim and its commit, for however long: the writer's record has its end
/// when the writer goes on.
#[test]
fn a_writer_that_was_preempted_when_the_sender_died_is_told() {
    let mut world = World::new(91, options(1), config());
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let ring = topic.partition(0).unwrap().clone();
    let accumulator = world.accumulator.clone();
    let ((claimed, is_claimed), (go_on, goes_on)) = (channel(), channel());
    let writer = std::thread::spawn(move || {
        let fields = Fields { value: Some(b"late"), ..Fields::default() };
        let preempted = |delivery: Delivery| {
            claimed.send(()).unwrap();
            goes_on.recv().unwrap();
            Some(delivery)
        };
        accumulator.append_inline(&ring, &fields, None, Attach::Delivery, true, None, None, preempted).unwrap().unwrap()
    });
    is_claimed.recv().unwrap();
    let others = send_all(&mut world, &topic, 1, 0..3, Duration::ZERO);
    for _ in 0..3 {
        assert!(world.sender.abandon(), "there is a record without an end");
    }
    go_on.send(()).unwrap();
    let delivery = writer.join().unwrap();
    assert!(!world.sender.abandon());
    for delivery in others.iter().chain([&delivery]) {
        let error = delivery.try_result().expect("nobody waits for ever").unwrap_err();
        assert_eq!(error.kind(), DeliveryErrorKind::SenderPanicked);
    }
    drop((others, delivery));
    assert_eq!(world.accumulator.free(), free);
    assert!(world.shared.stats().adds_up());
}
