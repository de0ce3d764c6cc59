//! A topic that was created again with fewer partitions: what waits for one that is no more ends soon, with the reason.

use std::sync::Arc;
use std::time::Duration;

use super::stage::Stage;
use crate::config::ProducerConfig;
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::TopicShared;
use crate::testing::{BrokerOptions, TopicOptions};
use crate::wire::header::ApiKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn topic_of(partitions: i32) -> TopicOptions {
    TopicOptions { partitions, ..TopicOptions::default() }
}

/// Two brokers, and a topic with four partitions, each of which has got a record. `version`: of Produce, at most.
fn stage(version: i16, config: ProducerConfig) -> (Stage, Arc<TopicShared>) {
    let options =
        BrokerOptions { brokers: 2, produce_max_version: version, topic: topic_of(4), ..BrokerOptions::default() };
    let mut stage = Stage::new(options, config.linger(MS), "127.0.0.1:1000,127.0.0.1:1001");
    stage.model.create_topic("t", topic_of(4));
    let topic = stage.topic("t");
    let sent: Vec<_> = (0..4).map(|partition| stage.send(&topic, partition)).collect();
    stage.run(SECOND);
    assert!(sent.iter().all(|delivery| delivery.try_result().is_some_and(|result| result.is_ok())));
    (stage, topic)
}

fn create_again(stage: &mut Stage, partitions: i32) {
    stage.model.delete_topic("t");
    stage.model.create_topic("t", topic_of(partitions));
}

/// Batches go by topic id, or by name.
#[test]
fn a_partition_that_is_no_more_ends_its_records_soon() {
    for version in [13, 9] {
        let (mut stage, topic) = stage(version, ProducerConfig::new());
        create_again(&mut stage, 2);
        let sent: Vec<_> = (0..4).map(|partition| stage.send(&topic, partition)).collect();
        stage.run(10 * SECOND);
        for (partition, delivery) in sent.iter().enumerate() {
            match delivery.try_result() {
                Some(Ok(_)) if partition < 2 => {}
                Some(Err(error)) if partition >= 2 => {
                    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::PartitionGone, Written::No));
                    let text = error.to_string();
                    println!("{text}");
                    assert!(text.contains("created again, and has 2 partitions now"), "{text}");
                }
                other => panic!("version {version}, partition {partition}: {other:?}"),
            }
        }
        assert_eq!(topic.count(), 2);
        // And nobody is asked without end for what is no more.
        let since = stage.now;
        stage.run(60 * SECOND);
        assert!(stage.count(ApiKey::METADATA, since) < 5, "{:?}", stage.asked);
        // What comes by a race with the callers' look at the count ends as well.
        let late = stage.send(&topic, 3);
        stage.run(2 * SECOND);
        assert!(late.try_result().is_some_and(|result| result.is_err()));
    }
}

/// The broker has the request, and nobody will know what became of it.
#[test]
fn what_may_be_written_says_so() {
    let (mut stage, topic) = stage(13, ProducerConfig::new().request_timeout(2 * SECOND));
    stage.mute.extend([(0, ApiKey::PRODUCE), (1, ApiKey::PRODUCE)]);
    let delivery = stage.send(&topic, 3);
    stage.run(100 * MS);
    create_again(&mut stage, 1);
    stage.mute.clear();
    stage.run(12 * SECOND);
    let error = delivery.try_result().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::PartitionGone, Written::Possibly), "{error}");
}

/// A record whose time is over before says the same.
#[test]
fn one_that_expires_before_tells_the_reason() {
    let config = ProducerConfig::new().request_timeout(SECOND).delivery_timeout(3 * SECOND);
    let (mut stage, topic) = stage(13, config);
    create_again(&mut stage, 2);
    let delivery = stage.send(&topic, 2);
    stage.run(4 * SECOND);
    let error = delivery.try_result().unwrap().unwrap_err();
    assert_eq!(error.kind(), DeliveryErrorKind::Expired);
    assert!(error.to_string().contains("created again, and has 2 partitions now"), "{error}");
}

/// The partition comes back in time: nothing is lost.
#[test]
fn a_partition_that_comes_back_gets_its_records() {
    let (mut stage, topic) = stage(13, ProducerConfig::new());
    create_again(&mut stage, 2);
    let delivery = stage.send(&topic, 3);
    stage.run(3 * SECOND);
    assert!(delivery.try_result().is_none());
    stage.model.grow_topic("t", 4);
    stage.run(5 * SECOND);
    assert!(delivery.try_result().is_some_and(|result| result.is_ok()), "{:?}", delivery.try_result());
    assert_eq!(topic.count(), 4);
}

/// A close has nothing to wait for.
#[test]
fn a_close_is_clean_soon() {
    let (mut stage, topic) = stage(13, ProducerConfig::new());
    create_again(&mut stage, 2);
    let _record = stage.send(&topic, 3);
    stage.run(100 * MS);
    stage.shared.command(crate::sender::Command::Close(60 * SECOND));
    stage.run(10 * SECOND);
    assert!(stage.shared.report().is_some_and(|report| report.is_clean()), "{:?}", stage.shared.report());
}
