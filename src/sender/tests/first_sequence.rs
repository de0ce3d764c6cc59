//! Which sequence number a broker accepts first from a producer that it does not know: Kafka's versions differ, and with
//! each of them everything arrives once and in order.

use std::time::Duration;

use super::world::World;
use super::{MS, Watch, check_log, config, finish, options, send_one};
use crate::completion::Delivery;
use crate::error::{DeliveryErrorKind, Written};
use crate::testing::FirstSequence::{Any, Zero, ZeroWhenNew};
use crate::testing::{BrokerOptions, ErrorCode, Fault, FirstSequence, TopicOptions};

const RULES: [FirstSequence; 3] = [Any, ZeroWhenNew, Zero];

fn of(rule: FirstSequence) -> BrokerOptions {
    BrokerOptions { first_sequence: rule, ..options(1) }
}

/// Sends these numbers, each alone in its batch and acknowledged before the next one leaves.
fn send_in_turn(world: &mut World, numbers: std::ops::Range<usize>) -> Vec<Delivery> {
    let topic = world.topic("t");
    let one = |number| {
        let delivery = [send_one(world, &topic, 1, number)];
        finish(world, &delivery);
        let [delivery] = delivery;
        delivery
    };
    numbers.map(one).collect()
}

/// What KAFKA-15591 mends in the broker: requests on their way while the topic is being made, of which the first finds no
/// leader and the second one does. We never have a second one on its way then, whatever the broker would do about it.
#[test]
fn nothing_overtakes_the_first_batch_of_a_topic_that_is_being_made() {
    for rule in RULES {
        let (options, watch) = Watch::on(BrokerOptions { ack_delay: 10 * MS, ..of(rule) }, |context| {
            if context.nth == 0 { Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER) } else { Fault::None }
        });
        let mut world = World::new(1, options, config().linger(Duration::ZERO).max_in_flight(5));
        let topic = world.topic("t");
        let deliveries: Vec<_> = (0..5).map(|number| send_one(&mut world, &topic, 1, number)).collect();
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 1, &outcomes, 1);
        let stamps = watch.stamps();
        assert_eq!(stamps[..2], [(0, 0), (0, 0)], "{rule:?}: {stamps:?}");
        assert!(stamps.is_sorted() && stamps.iter().all(|(epoch, _)| *epoch == 0), "{rule:?}: {stamps:?}");
    }
}

/// The numbers of the topic that is gone are no good in the new one.
#[test]
fn a_topic_made_again_under_its_name_is_begun_at_0_where_that_is_asked_for() {
    for rule in RULES {
        let (options, watch) = Watch::on(BrokerOptions { produce_max_version: 12, ..of(rule) }, |_| Fault::None);
        let mut world = World::new(2, options, config().linger(Duration::ZERO));
        let old = send_in_turn(&mut world, 0..2);
        assert!(finish(&mut world, &old).iter().all(Result::is_ok));
        world.model.delete_topic("t");
        world.model.create_topic("t", TopicOptions { partitions: 1, ..TopicOptions::default() });
        let new = send_in_turn(&mut world, 2..5);
        assert!(finish(&mut world, &new).iter().all(Result::is_ok), "{rule:?}");
        assert_eq!(world.log("t", 0), ["000002", "000003", "000004"], "{rule:?}");
        let expected: &[(i16, i32)] = match rule {
            Any => &[(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)],
            ZeroWhenNew | Zero => &[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)],
        };
        assert_eq!(watch.stamps(), expected, "{rule:?}");
    }
}

/// Nothing is in doubt when the broker forgets: then nothing is lost and nothing is there twice.
#[test]
fn a_producer_that_was_forgotten_goes_on() {
    for rule in RULES {
        let (options, watch) = Watch::on(of(rule), |_| Fault::None);
        let mut world = World::new(3, options, config().linger(Duration::ZERO));
        let mut deliveries = send_in_turn(&mut world, 0..2);
        world.model.expire_producers();
        deliveries.extend(send_in_turn(&mut world, 2..4));
        let outcomes = finish(&mut world, &deliveries);
        check_log(&world, "t", 1, &outcomes, 3);
        let expected: &[(i16, i32)] = match rule {
            Any | ZeroWhenNew => &[(0, 0), (0, 1), (0, 2), (0, 3)],
            Zero => &[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)],
        };
        assert_eq!(watch.stamps(), expected, "{rule:?}");
    }
}

/// A first batch that is refused for good loses its numbers: the next one does not go on behind the gap.
#[test]
fn what_follows_a_first_batch_that_failed_begins_at_0() {
    for rule in RULES {
        let (options, watch) =
            Watch::on(
                of(rule),
                |context| {
                    if context.nth == 0 { Fault::Error(ErrorCode::INVALID_RECORD) } else { Fault::None }
                },
            );
        let mut world = World::new(4, options, config().linger(Duration::ZERO));
        let deliveries = send_in_turn(&mut world, 0..3);
        let outcomes = finish(&mut world, &deliveries);
        assert!(outcomes[0].is_err() && outcomes[1..].iter().all(Result::is_ok), "{rule:?}: {outcomes:?}");
        assert_eq!(world.log("t", 0), ["000001", "000002"], "{rule:?}");
        assert_eq!(watch.stamps(), [(0, 0), (1, 0), (1, 1)], "{rule:?}: refused once and no more");
    }
}

/// A batch that may not be sent again fails for what the broker said, whichever of the two words for a gap that was (seed
/// 230222).
#[test]
fn a_gap_has_the_brokers_own_name() {
    for code in [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::UNKNOWN_PRODUCER_ID] {
        let options = options(1).on_produce(move |context| match context.nth {
            0 => Fault::None,
            1 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            _ => Fault::Error(code),
        });
        let options = BrokerOptions { ack_delay: 10 * MS, ..options };
        let mut world = World::new(4, options, config().linger(Duration::ZERO).retries(1));
        let first = send_in_turn(&mut world, 0..1);
        assert!(finish(&mut world, &first).iter().all(Result::is_ok));
        let topic = world.topic("t");
        let refused = send_one(&mut world, &topic, 1, 1);
        super::pass(&mut world, 15 * MS);
        // It leaves with the other one's second try, so that what is said of that is no news of a gap yet.
        let _behind = send_one(&mut world, &topic, 1, 2);
        let outcome = finish(&mut world, &[refused])[0].clone().unwrap_err();
        assert_eq!(outcome.kind(), DeliveryErrorKind::Broker(code), "{outcome}");
        assert_eq!(outcome.written(), Written::No);
    }
}
