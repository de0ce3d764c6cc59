//! Brokers without InitProducerId, and who is told what of that.

use std::time::Duration;

use super::stage::Stage;
use crate::config::ProducerConfig;
use crate::sender::idempotence::{ProducerEpoch, ProducerId};
use crate::testing::{BrokerOptions, TopicOptions};
use crate::wire::header::ApiKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The only broker has no InitProducerId, and the topic is created by being asked for: metadata does not wait for a
/// producer id that never comes.
#[test]
fn metadata_is_had_without_a_producer_id() {
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let options = BrokerOptions { denied_apis: vec![ApiKey::INIT_PRODUCER_ID.0], topic, ..BrokerOptions::default() };
    let mut stage = Stage::new(options, ProducerConfig::new(), "127.0.0.1:1000");
    let topic = stage.shared.topic("t");
    stage.run(10 * MS);
    assert!(topic.refusal().is_some(), "the first answer: it is being created");
    // Whoever waits for it asks again, once.
    stage.shared.want(&topic);
    stage.run(SECOND);
    assert_eq!(topic.count(), 1, "{:?}", stage.asked);
    let trouble = stage.shared.identity_trouble().unwrap();
    assert!(trouble.contains("InitProducerId") && trouble.contains("enable.idempotence=false"), "{trouble}");
}

/// The broker that is asked first has none, another one has: that one is asked, and no other is bothered for long.
#[test]
fn a_broker_that_has_it_is_asked() {
    for lacking in [&[0][..], &[0, 1], &[0, 2]] {
        let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
        let options = BrokerOptions { brokers: 3, topic, ..BrokerOptions::default() };
        let mut stage = Stage::new(options, ProducerConfig::new(), "127.0.0.1:1000");
        lacking.iter().for_each(|node| stage.model.offer_api(*node, ApiKey::INIT_PRODUCER_ID.0, false));
        let topic = stage.topic("t");
        let delivery = stage.send(&topic, 0);
        stage.run(2 * SECOND);
        assert!(delivery.try_result().is_some_and(|result| result.is_ok()), "{lacking:?}: {:?}", stage.asked);
        assert!(stage.connects.len() <= 5, "{lacking:?}: {:?}", stage.connects);
        assert_eq!(stage.shared.identity_trouble(), None);
    }
}

/// No broker has it: each is asked for its versions once, and the record fails with words that help.
#[test]
fn where_no_broker_has_it_nobody_is_hunted() {
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let denied_apis = vec![ApiKey::INIT_PRODUCER_ID.0];
    let options = BrokerOptions { brokers: 3, denied_apis, topic, ..BrokerOptions::default() };
    let mut stage = Stage::new(options, ProducerConfig::new().delivery_timeout(60 * SECOND), "127.0.0.1:1000");
    let topic = stage.topic("t");
    let delivery = stage.send(&topic, 0);
    stage.run(61 * SECOND);
    let error = delivery.try_result().unwrap().unwrap_err().to_string();
    assert!(error.contains("InitProducerId") && error.contains("enable.idempotence=false"), "{error}");
    assert!(stage.connects.len() <= 6, "{:?}", stage.connects);
}

/// A partition's epochs are used up while requests are packed: this turn's look at what is to be asked for is over by then
/// (seed 60860).
#[test]
fn what_is_wanted_late_in_a_turn_is_asked_for() {
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let options = BrokerOptions { topic, ..BrokerOptions::default() };
    let mut stage = Stage::new(options, ProducerConfig::new(), "127.0.0.1:1000");
    stage.topic("t");
    stage.run(SECOND);
    let sequences = &mut stage.sender.partitions[0].sequences;
    sequences.stamp((ProducerId(1000), ProducerEpoch(i16::MAX)), 1);
    sequences.spoil();
    stage.sender.consider(0);
    assert_eq!(stage.sender.poll_timeout(), Some(stage.now), "another turn follows at once");
    stage.run(10 * MS);
    assert_eq!(stage.count(ApiKey::INIT_PRODUCER_ID, SECOND), 1, "{:?}", stage.asked);
}
