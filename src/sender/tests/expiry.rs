//! `delivery.timeout.ms`: when a record's time is over, and what that does to what is still on its way.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crate::wire::record::Fields;

use super::world::World;
use super::{MS, Outcome, Watch, config, finish, no_memory_leaked, options, pass, send_all, send_one};
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::connection::Asked;
use crate::sender::{Command, Ticket};
use crate::testing::{BrokerOptions, ErrorCode, Fault};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_nanos(1);
const FOR_EVER: Duration = Duration::from_secs(100_000_000);

fn expired(outcome: &Outcome) -> Written {
    let error = outcome.as_ref().unwrap_err();
    assert_eq!(error.kind(), DeliveryErrorKind::Expired, "{error}");
    error.written()
}

/// Records of several partitions that wait for a dead broker end together, at their time.
#[test]
fn what_waits_ends_when_its_time_is_over_and_not_before() {
    let mut world = World::new(40, options(3), config().delivery_timeout(700 * MS));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    world.kill_for(0, FOR_EVER);
    pass(&mut world, SECOND);
    let sent = world.now;
    let deliveries = send_all(&mut world, &topic, 3, 0..3, Duration::ZERO);
    world.run_until(sent);
    world.run_until(sent + 700 * MS - MOMENT);
    assert!(deliveries.iter().all(|delivery| delivery.try_result().is_none()), "not a moment before");
    world.run_until(sent + 701 * MS);
    for delivery in &deliveries {
        let outcome = delivery.try_result().expect("its time is over");
        assert_eq!(expired(&outcome), Written::No);
        let error = outcome.unwrap_err();
        assert_eq!((error.waited(), error.attempts()), (700 * MS, 0));
    }
    drop(deliveries);
    no_memory_leaked(&mut world, free);
}

/// A trickle of records for a dead broker: who comes late to a batch does not end with those who began it, but has seven
/// eighths of the time at least.
#[test]
fn who_comes_late_has_its_time_as_well() {
    let mut world = World::new(46, options(1), config().delivery_timeout(800 * MS));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    world.kill_for(0, FOR_EVER);
    pass(&mut world, SECOND);
    let mut waiting = Vec::new();
    for number in 0..300 {
        waiting.push((world.now, send_all(&mut world, &topic, 1, number..number + 1, Duration::ZERO).remove(0)));
        pass(&mut world, 5 * MS);
        waiting.retain(|(sent, delivery)| {
            let Some(outcome) = delivery.try_result() else { return true };
            assert_eq!(expired(&outcome), Written::No);
            let took = world.now - *sent;
            assert!(took >= 700 * MS && took <= 810 * MS, "{took:?}");
            false
        });
    }
    assert!(waiting.len() < 200, "{} are left", waiting.len());
    pass(&mut world, SECOND);
    assert!(waiting.iter().all(|(_, delivery)| delivery.try_result().is_some()));
    drop(waiting);
    no_memory_leaked(&mut world, free);
}

/// The longest delivery timeout there is, almost all of it spent lingering.
#[test]
fn the_longest_delivery_timeout_does_not_overflow() {
    let longest = Duration::from_millis(i32::MAX as u64);
    let linger = longest - 60 * SECOND;
    let config = config().linger(linger).delivery_timeout(longest).metadata_max_age(longest);
    let mut world = World::new(41, options(1), config);
    let topic = world.topic("t");
    let sent = world.now;
    let deliveries = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    world.run_until(sent + linger);
    assert!(deliveries[0].try_result().is_none());
    world.kill_for(0, FOR_EVER);
    world.run_until(sent + longest - MOMENT);
    assert!(deliveries[0].try_result().is_none());
    world.run_until(sent + longest + MS);
    assert_eq!(expired(&deliveries[0].try_result().unwrap()), Written::No);
}

/// Never sent, never numbered: expiry leaves no gap and takes no new epoch.
#[test]
fn what_expires_unsent_costs_no_sequence() {
    let (options, watch) = Watch::on(options(1), |_| Fault::None);
    let mut world = World::new(42, options, config().delivery_timeout(700 * MS));
    let topic = world.topic("t");
    let first = send_all(&mut world, &topic, 1, 0..3, Duration::ZERO);
    finish(&mut world, &first);
    world.kill_for(0, 3 * SECOND);
    pass(&mut world, 100 * MS);
    let lost = send_all(&mut world, &topic, 1, 3..6, Duration::ZERO);
    assert!(finish(&mut world, &lost).iter().all(|outcome| expired(outcome) == Written::No));
    pass(&mut world, 5 * SECOND);
    let last = send_all(&mut world, &topic, 1, 6..7, Duration::ZERO);
    assert!(finish(&mut world, &last)[0].is_ok());
    assert_eq!(watch.stamps(), [(0, 0), (0, 3)]);
}

/// Answers take 250 ms, and a record has 500: refused once, it is in flight again when its time is over.
struct Late {
    world: World,
    watch: Watch,
    topic: std::sync::Arc<crate::sender::TopicShared>,
    deliveries: Vec<Delivery>,
    free: usize,
}

/// `answer`: what its second copy meets.
fn late(config: ProducerConfig, answer: Fault) -> Late {
    let (options, watch) =
        Watch::on(BrokerOptions { ack_delay: 250 * MS, ..options(1) }, move |context| match context.nth {
            1 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            2 => answer,
            _ => Fault::None,
        });
    let config = config.linger(MS).request_timeout(300 * MS).delivery_timeout(500 * MS);
    let mut world = World::new(43, options, config);
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let first = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    assert!(finish(&mut world, &first)[0].is_ok());
    let sent = world.now;
    let deliveries = send_all(&mut world, &topic, 1, 1..11, Duration::ZERO);
    world.run_until(sent + 499 * MS);
    assert_eq!((watch.len(), world.sender.partitions[0].unacked), (3, 1), "in flight again");
    assert!(deliveries.iter().all(|delivery| delivery.try_result().is_none()));
    world.run_until(sent + 503 * MS);
    for delivery in &deliveries {
        assert_eq!(expired(&delivery.try_result().expect("its time is over")), Written::Possibly);
    }
    assert_eq!(world.sender.partitions[0].unacked, 1, "the answer is still to come");
    assert!(world.accumulator.free() < free, "the kernel or the broker may be reading it");
    Late { world, watch, topic, deliveries, free }
}

#[test]
fn a_late_success_changes_nothing_and_resolves_the_numbers() {
    let Late { mut world, watch, topic, deliveries, free } = late(config(), Fault::None);
    world.run_while(|world| world.sender.partitions[0].unacked > 0);
    assert_eq!(world.log("t", 0).len(), 11);
    assert!(deliveries.iter().all(|delivery| expired(&delivery.try_result().unwrap()) == Written::Possibly));
    drop(deliveries);
    no_memory_leaked(&mut world, free);
    let last = send_all(&mut world, &topic, 1, 11..12, Duration::ZERO);
    assert_eq!(finish(&mut world, &last)[0].as_ref().unwrap().offset(), Some(11));
    assert_eq!(watch.stamps(), [(0, 0), (0, 1), (0, 1), (0, 11)], "no new epoch");
}

/// The caller knows, and all other memory is written to: what the kernel or the broker may be reading stays as it is.
#[test]
fn what_is_on_its_way_is_not_overwritten() {
    let Late { mut world, topic, deliveries, free, .. } = late(config(), Fault::None);
    let in_flight = |world: &World| -> Vec<Vec<u8>> {
        let requests = world.sender.connections.values().flat_map(|connection| &connection.unanswered);
        let batches = requests.filter_map(|request| match &request.asked {
            Asked::Produce { batches, .. } => Some(batches.iter().flatten()),
            _ => None,
        });
        let parts = batches.flatten().flat_map(|batch| &batch.parts).map(|part| &part.lease);
        parts.map(|lease| lease.bytes().to_vec()).collect()
    };
    let before = in_flight(&world);
    assert_eq!(before.len(), 1);
    drop(deliveries);
    let ring = topic.partition(0).unwrap().clone();
    let claim = || world.accumulator.claim(&ring, &Fields::default(), 900, None, None).ok();
    let mut others: Vec<_> = std::iter::from_fn(claim).collect();
    others.iter_mut().for_each(|claim| claim.value_mut().fill(b'#'));
    assert_eq!(world.accumulator.free(), 0);
    assert_eq!(in_flight(&world), before);
    drop(others);
    no_memory_leaked(&mut world, free);
}

/// Neither sent again nor in parts; its numbers are lost, and what follows starts a new epoch at 0.
#[test]
fn a_late_refusal_is_not_acted_on() {
    for refusal in [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::MESSAGE_TOO_LARGE, ErrorCode::INVALID_RECORD] {
        let Late { mut world, watch, topic, deliveries, free } = late(config(), Fault::Error(refusal));
        world.run_while(|world| world.sender.partitions[0].unacked > 0);
        let last = send_all(&mut world, &topic, 1, 11..12, Duration::ZERO);
        assert!(finish(&mut world, &last)[0].is_ok(), "{refusal:?}");
        pass(&mut world, SECOND);
        assert_eq!(watch.stamps(), [(0, 0), (0, 1), (0, 1), (1, 0)], "{refusal:?}");
        assert_eq!(world.log("t", 0), ["000000", "000011"]);
        drop((deliveries, last));
        no_memory_leaked(&mut world, free);
    }
}

/// All that was sent is lost with its connection after its time was over: nothing leaves under the old numbers.
#[test]
fn after_a_late_loss_a_new_epoch_begins() {
    let Late { mut world, watch, topic, deliveries, free } = late(config(), Fault::HangBefore);
    world.run_while(|world| world.sender.partitions[0].unacked > 0);
    let last = send_all(&mut world, &topic, 1, 11..12, Duration::ZERO);
    assert!(finish(&mut world, &last)[0].is_ok());
    assert_eq!(watch.stamps(), [(0, 0), (0, 1), (0, 1), (1, 0)]);
    drop((deliveries, last));
    no_memory_leaked(&mut world, free);
}

/// One in flight at a time, without idempotence: what comes next waits for the answer of what has expired.
#[test]
fn an_expired_batch_keeps_its_place_until_its_answer() {
    let config = config().enable_idempotence(false).max_in_flight(1);
    let Late { mut world, watch, topic, deliveries, free } = late(config, Fault::None);
    let last = [send_one(&mut world, &topic, 1, 11)];
    assert_eq!(world.shared.stats().waiting, 1, "it is not on its way");
    world.run_while(|world| {
        assert!(world.sender.partitions[0].unacked <= 1);
        watch.len() < 4
    });
    assert!(finish(&mut world, &last)[0].is_ok());
    assert_eq!(world.log("t", 0).last().map(String::as_str), Some("000011"));
    drop((deliveries, last));
    no_memory_leaked(&mut world, free);
}

/// A flush waits for what has expired, too: its memory is in use until the answer.
#[test]
fn a_flush_ends_though_what_it_waits_for_expires() {
    let Late { mut world, deliveries, .. } = late(config(), Fault::HangBefore);
    let ticket = std::sync::Arc::new(Ticket::default());
    world.shared.command(Command::Flush(ticket.clone()));
    world.run_while(|_| !ticket.is_done());
    assert!(deliveries.iter().all(|delivery| delivery.try_result().is_some()));
    assert_eq!(world.sender.partitions[0].unacked, 0);
}

/// Notes the number of a record whose waker is woken.
struct Noted(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

/// Some on their way, some that wait to be sent, all late at one look: they end in the order in which they were accepted,
/// by `delivery.timeout.ms` and by limits of their own.
#[test]
fn what_is_late_ends_in_order() {
    for (all, own) in [(300 * MS, 30 * SECOND), (60 * SECOND, 300 * MS)] {
        let options = options(1).on_produce(|_| Fault::HangBefore);
        let config = config().linger(Duration::ZERO).batch_size(1).request_timeout(300 * MS).delivery_timeout(all);
        let mut world = World::new(45, options, config.max_in_flight(2));
        let topic = world.topic("t");
        pass(&mut world, SECOND);
        let send = |world: &mut World, number: usize| {
            world.send_within(&topic, 0, format!("{number:06}").as_bytes(), own).unwrap()
        };
        let mut deliveries = vec![send(&mut world, 0)];
        pass(&mut world, 5 * MS);
        deliveries.extend((1..6).map(|number| send(&mut world, number)));
        pass(&mut world, 5 * MS);
        let sent = world.now;
        assert!(world.sender.partitions[0].unacked > 0);
        let order = Arc::new(Mutex::new(Vec::new()));
        for (number, delivery) in deliveries.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Noted(number, order.clone())));
            assert!(Pin::new(delivery).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        // The sender's thread did not run for a while.
        world.now = sent + 310 * MS;
        world.run_until(sent + 311 * MS);
        assert!(deliveries.iter().all(|delivery| delivery.try_result().is_some()));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5], "{all:?}, {own:?}");
    }
}
