//! What is known of the cluster while time goes by: news, no news, old news, and what is no longer of interest.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::stage::Stage;
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::metadata::PARTITIONS_MAX;
use crate::testing::{BrokerOptions, ErrorCode, Fault, TopicOptions};
use crate::wire::header::ApiKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> ProducerConfig {
    ProducerConfig::new().linger(MS)
}

fn options(brokers: usize, partitions: i32) -> BrokerOptions {
    BrokerOptions { brokers, topic: topic(partitions), ..BrokerOptions::default() }
}

fn topic(partitions: i32) -> TopicOptions {
    TopicOptions { partitions, ..TopicOptions::default() }
}

fn stage(options: BrokerOptions, config: ProducerConfig) -> Stage {
    Stage::new(options, config, "127.0.0.1:1000")
}

fn is_delivered(delivery: &Delivery) -> bool {
    delivery.try_result().is_some_and(|result| result.is_ok())
}

/// A broker that is behind names the leader of before (Java: testRejectOldMetadata).
#[test]
fn an_older_leader_epoch_is_ignored() {
    let mut stage = stage(options(2, 1), config().metadata_max_age(SECOND));
    stage.model.create_topic("t", topic(1));
    stage.model.move_leader("t", 0, 1);
    let topic = stage.topic("t");
    stage.spoil = Some(Box::new(|_, response| {
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            (partition.leader_id, partition.leader_epoch) = (0, 0);
        }
    }));
    let since = stage.now;
    stage.run(10 * SECOND);
    assert!(stage.count(ApiKey::METADATA, since) > 5, "it was asked and answered");
    let delivery = stage.send(&topic, 0);
    stage.run(10 * MS);
    assert!(is_delivered(&delivery), "the later leader has it: {:?}", delivery.try_result());
}

/// Another topic id under the same name: its epochs begin again, and what was not sent goes there
/// (Java: testEpochUpdateOnChangedTopicIds).
#[test]
fn a_topic_created_again_is_taken_over() {
    let mut stage = stage(options(2, 1), config());
    stage.model.create_topic("t", topic(1));
    for node in [1, 0, 1] {
        stage.model.move_leader("t", 0, node);
    }
    let shared = stage.topic("t");
    let first = stage.send(&shared, 0);
    stage.run(SECOND);
    assert!(is_delivered(&first));
    stage.model.delete_topic("t");
    stage.model.create_topic("t", topic(1));
    let more: Vec<_> = (0..3)
        .map(|_| {
            let delivery = stage.send(&shared, 0);
            stage.run(SECOND);
            delivery
        })
        .collect();
    stage.run(10 * SECOND);
    assert!(more.iter().all(is_delivered), "{:?}", more[0].try_result());
    assert_eq!(stage.model.records("t", 0).len(), 3, "all of it in the new topic");
}

/// Partitions that are added appear with the next refresh; sending goes on meanwhile.
#[test]
fn partitions_are_added_while_records_are_sent() {
    let mut stage = stage(options(1, 2), config().metadata_max_age(30 * SECOND));
    let topic = stage.topic("t");
    stage.model.grow_topic("t", 7);
    let mut deliveries = Vec::new();
    while topic.count() < 7 {
        assert!(stage.now < 60 * SECOND, "they are never seen");
        deliveries.push(stage.send(&topic, 0));
        stage.run(SECOND);
        assert!(deliveries.iter().all(is_delivered));
    }
    deliveries.extend((0..7).map(|partition| stage.send(&topic, partition)));
    stage.run(SECOND);
    assert!(deliveries.iter().all(is_delivered));
}

/// An answer about one topic says nothing of the others (Java: testPartialMetadataUpdate).
#[test]
fn an_answer_about_one_topic_keeps_the_others() {
    let mut stage = stage(options(2, 2), config());
    let (a, b) = (stage.topic("a"), stage.topic("b"));
    stage.run(10 * SECOND);
    stage.spoil = Some(Box::new(|_, response| response.topics.retain(|topic| topic.name.as_deref() == Some("c"))));
    let c = stage.topic("c");
    let since = stage.now;
    let deliveries: Vec<_> = [&a, &b, &c].into_iter().flat_map(|t| [(t, 0), (t, 1)]).collect();
    let deliveries: Vec<_> = deliveries.into_iter().map(|(topic, at)| stage.send(topic, at)).collect();
    stage.run(10 * MS);
    assert!(deliveries.iter().all(is_delivered));
    assert_eq!(stage.count(ApiKey::METADATA, since), 0);
}

/// Fifty partitions whose leader says that it is none, and metadata that says it is: asking again and again helps
/// nobody (Java: testMetadataEquivalentResponsesBackoff).
#[test]
fn answers_without_news_are_asked_for_less_and_less_often() {
    let failing = Arc::new(AtomicUsize::new(1));
    let fails = failing.clone();
    let options = options(1, 50).on_produce(move |_| match fails.load(Ordering::Relaxed) {
        0 => Fault::None,
        _ => Fault::Error(ErrorCode::NOT_LEADER_OR_FOLLOWER),
    });
    let mut stage = stage(options, config());
    let topic = stage.topic("t");
    // Not all at the same time.
    let deliveries: Vec<_> = (0..50)
        .map(|partition| {
            stage.run(20 * MS);
            stage.send(&topic, partition)
        })
        .collect();
    stage.run(10 * SECOND);
    let since = stage.now;
    stage.run(60 * SECOND);
    let asked = stage.count(ApiKey::METADATA, since);
    assert!((20..90).contains(&asked), "{asked} times in a minute");
    failing.store(0, Ordering::Relaxed);
    stage.run(5 * SECOND);
    assert!(deliveries.iter().all(is_delivered));
}

/// What topics the requests of a time name; the model is asked for them by each answer.
fn names_asked(stage: &mut Stage, time: Duration) -> HashSet<String> {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let notes = seen.clone();
    stage.spoil = Some(Box::new(move |_, response| {
        notes.lock().unwrap().extend(response.topics.iter().filter_map(|topic| topic.name.clone()));
    }));
    stage.run(time);
    stage.spoil = None;
    seen.lock().unwrap().clone()
}

/// A topic that nothing is sent to is no longer asked for, and comes back with the first record
/// (Java: testMetadataTopicExpiry).
#[test]
fn an_idle_topic_is_dropped_and_comes_back() {
    let mut stage = stage(options(1, 1), config().metadata_max_age(10 * SECOND).metadata_max_idle(60 * SECOND));
    let (idle, busy) = (stage.topic("idle"), stage.topic("busy"));
    for _ in 0..20 {
        drop(stage.send(&busy, 0));
        stage.run(5 * SECOND);
    }
    assert_eq!(names_asked(&mut stage, 20 * SECOND), HashSet::from(["busy".to_owned()]));
    stage.model.grow_topic("idle", 3);
    let delivery = stage.send(&idle, 0);
    let since = stage.now;
    stage.run(10 * MS);
    assert!(is_delivered(&delivery), "what was known of it still serves");
    stage.run(1500 * MS);
    assert_eq!(stage.count(ApiKey::METADATA, since), 1, "and it is looked up as soon as the backoff allows");
    assert_eq!(idle.count(), 3);
    assert!(names_asked(&mut stage, 20 * SECOND).contains("idle"));
}

/// A record now and then keeps a topic in the requests, though nothing of it is on its way when they are made.
#[test]
fn a_topic_with_little_to_send_is_not_dropped() {
    let mut stage = stage(options(1, 1), config().metadata_max_age(10 * SECOND).metadata_max_idle(60 * SECOND));
    let topic = stage.topic("t");
    for _ in 0..20 {
        drop(stage.send(&topic, 0));
        stage.run(45 * SECOND);
    }
    stage.model.grow_topic("t", 2);
    stage.run(11 * SECOND);
    assert_eq!(topic.count(), 2);
}

/// A topic that does not exist is not asked for when nobody wants it any more.
#[test]
fn a_topic_that_is_not_there_is_forgotten() {
    let options = BrokerOptions { auto_create: false, ..options(1, 1) };
    let mut stage = stage(options, config().metadata_max_age(10 * SECOND).metadata_max_idle(60 * SECOND));
    let absent = stage.shared.topic("absent");
    stage.run(SECOND);
    stage.run(5 * SECOND);
    assert!(absent.refusal().is_some());
    stage.run(80 * SECOND);
    assert_eq!(names_asked(&mut stage, 60 * SECOND), HashSet::new());
    // Whoever comes back for it is told the truth of today.
    stage.model.create_topic("absent", topic(4));
    assert_eq!(stage.topic("absent").count(), 4);
}

/// Metadata that never comes holds up no batch, and no other broker is spared the question.
#[test]
fn batches_go_on_while_metadata_hangs() {
    let config = config().metadata_max_age(SECOND).request_timeout(5 * SECOND);
    let mut stage = stage(options(2, 4), config);
    let topic = stage.topic("t");
    stage.mute.extend([(0, ApiKey::METADATA), (1, ApiKey::METADATA)]);
    let since = stage.now;
    for turn in 0..600 {
        let delivery = stage.send(&topic, turn % 4);
        stage.run(100 * MS);
        assert!(is_delivered(&delivery), "at {:?}: {:?}", stage.now, delivery.try_result());
    }
    let asked: HashSet<i32> =
        stage.asked.iter().filter(|a| a.api == ApiKey::METADATA && a.at > since).map(|a| a.node).collect();
    assert_eq!(asked, HashSet::from([0, 1]), "both are asked");
    assert!(stage.count(ApiKey::METADATA, since) < 20, "once per request timeout");
    // And when it comes again, it is taken.
    stage.mute.clear();
    stage.model.grow_topic("t", 6);
    stage.run(20 * SECOND);
    assert_eq!(topic.count(), 6);
}

/// Nor does it keep the producer id away.
#[test]
fn a_producer_id_is_had_while_metadata_hangs() {
    let config = config().metadata_max_age(SECOND).request_timeout(2 * SECOND);
    let mut stage = stage(options(1, 1), config);
    stage.mute.insert((0, ApiKey::INIT_PRODUCER_ID));
    let topic = stage.topic("t");
    let delivery = stage.send(&topic, 0);
    stage.run(SECOND);
    stage.mute = HashSet::from([(0, ApiKey::METADATA)]);
    stage.run(10 * SECOND);
    assert!(is_delivered(&delivery), "{:?}", stage.asked);
}

/// Who said that the topic does not exist, and in which words.
#[test]
fn a_refusal_names_the_broker() {
    let mut stage = stage(BrokerOptions { auto_create: false, ..options(1, 1) }, config());
    let topic = stage.shared.topic("absent");
    stage.run(SECOND);
    let refusal = topic.refusal().unwrap();
    assert_eq!((refusal.code(), refusal.broker()), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Some("127.0.0.1:1000")));
}

/// A partition costs about a kilobyte here, and eighteen bytes in an answer.
#[test]
fn more_partitions_than_there_can_be_are_not_believed() {
    let mut stage = stage(options(1, 1), config());
    let topic = stage.topic("good");
    stage.spoil = Some(Box::new(|_, response| {
        for topic in response.topics.iter_mut().filter(|topic| topic.name.as_deref() != Some("good")) {
            let Some(like) = topic.partitions.first().copied() else { continue };
            topic.partitions =
                (0..=PARTITIONS_MAX as i32).map(|index| crate::wire::metadata::Partition { index, ..like }).collect();
        }
    }));
    let bad = stage.shared.topic("bad");
    for _ in 0..5 {
        stage.run(SECOND);
        stage.shared.want(&bad);
    }
    assert_eq!((bad.count(), stage.sender.partitions.len()), (0, 1));
    let trouble = stage.shared.trouble().unwrap();
    assert!(trouble.contains("127.0.0.1:1000") && trouble.contains("'bad'") && trouble.contains("100001"), "{trouble}");
    let delivery = stage.send(&topic, 0);
    stage.run(SECOND);
    assert!(is_delivered(&delivery), "the others go on");
    stage.spoil = None;
    assert_eq!(stage.topic("bad").count(), 1);
}

/// A frame that no answer to the question can fill is refused before it is there.
#[test]
fn an_answer_is_bounded_by_its_question() {
    for (size, given_up) in [(1_000_000_i32, 0), (90_000_000, 1)] {
        let mut stage = stage(options(1, 1), config());
        let topic = stage.topic("t");
        stage.mute.insert((0, ApiKey::PRODUCE));
        let delivery = stage.send(&topic, 0);
        stage.run(SECOND);
        let before = stage.connects.len();
        stage.answer_with(ApiKey::PRODUCE, &size.to_be_bytes());
        stage.mute.clear();
        stage.run(SECOND);
        assert_eq!(stage.connects.len(), before + given_up, "{size}");
        assert_eq!(is_delivered(&delivery), given_up == 1, "{size}");
    }
}
