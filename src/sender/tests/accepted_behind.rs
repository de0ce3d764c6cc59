//! A batch whose answer said that it may not stay (REQUEST_TIMED_OUT), while those behind it were accepted: it is in the
//! log, because brokers accept nothing behind a gap. Found by ci/chaos.sh.

use std::time::Duration;

use super::world::World;
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::error::Written;
use crate::testing::{BrokerOptions, ErrorCode, Fault, TopicOptions};

const MS: Duration = Duration::from_millis(1);

/// Six records, each a batch: the first one opens the window, the second is answered with REQUEST_TIMED_OUT, those behind
/// it are accepted. What comes `later` than these six goes as it may.
fn timed_out_then_accepted(later: Fault, config: ProducerConfig) -> (World, Vec<Delivery>) {
    let options = BrokerOptions {
        ack_delay: 10 * MS,
        topic: TopicOptions { partitions: 1, ..TopicOptions::default() },
        ..BrokerOptions::default()
    };
    let options = options.on_produce(move |context| match context.nth {
        1 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
        0..6 => Fault::None,
        _ => later,
    });
    let mut world = World::new(1, options, config.linger(Duration::ZERO));
    let topic = world.topic("t");
    let mut deliveries = Vec::new();
    for number in 0..6 {
        deliveries.extend(world.send(&topic, 0, number.to_string().as_bytes()));
        let until = world.now + if number == 0 { 20 * MS } else { MS };
        world.run_until(until);
    }
    // It is sent again when all others have their answers.
    world.run_while(|_| deliveries[5].try_result().is_none());
    let done: Vec<bool> = deliveries.iter().map(|delivery| delivery.try_result().is_some()).collect();
    assert_eq!(done, [true, false, true, true, true, true]);
    (world, deliveries)
}

/// The broker restarts and remembers only the last batch: what it says of an earlier one proves nothing.
#[test]
fn is_not_sent_under_new_numbers() {
    let (mut world, deliveries) = timed_out_then_accepted(Fault::None, ProducerConfig::new());
    world.kill(0);
    world.run_while(|_| deliveries.iter().any(|delivery| delivery.try_result().is_none()));
    assert_eq!(world.log("t", 0), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(deliveries[1].try_result().unwrap().unwrap().offset(), None, "nobody said so again");
}

/// A broker that still knows it says where it is.
#[test]
fn gets_its_offset_where_that_is_known() {
    let (mut world, deliveries) = timed_out_then_accepted(Fault::None, ProducerConfig::new());
    world.run_while(|_| deliveries.iter().any(|delivery| delivery.try_result().is_none()));
    assert_eq!(world.log("t", 0), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(deliveries[1].try_result().unwrap().unwrap().offset(), Some(1));
}

/// No broker ever says so, but it follows from what they said.
#[test]
fn is_delivered_when_its_time_is_over() {
    let config = ProducerConfig::new().request_timeout(500 * MS).delivery_timeout(2000 * MS);
    let (mut world, deliveries) = timed_out_then_accepted(Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS), config);
    world.run_while(|_| deliveries.iter().any(|delivery| delivery.try_result().is_none()));
    let results: Vec<Option<Written>> =
        deliveries.iter().map(|delivery| delivery.try_result().unwrap().err().map(|error| error.written())).collect();
    assert_eq!(results, [None; 6]);
}
