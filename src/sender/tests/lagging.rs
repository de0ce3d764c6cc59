//! Brokers that answer and know only what was, and answers that are wrong: what is sound is found all the same.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::stage::{Host, Stage, address};
use crate::completion::Delivery;
use crate::config::{Acks, ProducerConfig};
use crate::sender::TopicShared;
use crate::testing::{BrokerOptions, ErrorCode, Fault, TopicOptions};
use crate::wire::header::ApiKey;
use crate::wire::metadata::{MetadataResponse, Partition};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn config() -> ProducerConfig {
    ProducerConfig::new().linger(MS)
}

/// Brokers that do not name leaders when they refuse (before KIP-951), so that metadata alone tells.
fn options(brokers: usize) -> BrokerOptions {
    let topic = TopicOptions { partitions: brokers as i32, ..TopicOptions::default() };
    BrokerOptions { brokers, topic, produce_max_version: 9, ..BrokerOptions::default() }
}

/// A stage whose topic `t` is served: partition p is led by broker p, and the control connection goes to broker 0.
fn stage(brokers: usize, config: ProducerConfig) -> (Stage, Arc<TopicShared>) {
    let mut stage = Stage::new(options(brokers), config, "127.0.0.1:1000");
    let topic = stage.topic("t");
    for partition in 0..brokers as u32 {
        let delivery = stage.send(&topic, partition);
        stage.run(SECOND);
        assert!(is_delivered(&delivery));
    }
    (stage, topic)
}

fn is_delivered(delivery: &Delivery) -> bool {
    delivery.try_result().is_some_and(|result| result.is_ok())
}

/// How long a record for this partition takes, a minute at most.
fn takes(stage: &mut Stage, topic: &TopicShared, partition: u32) -> Option<Duration> {
    let (delivery, began) = (stage.send(topic, partition), stage.now);
    while stage.now < began + MINUTE && delivery.try_result().is_none() {
        stage.run(10 * MS);
    }
    is_delivered(&delivery).then(|| stage.now - began)
}

/// Who was asked for metadata since then.
fn asked_for_metadata(stage: &Stage, since: Duration) -> HashSet<i32> {
    let asked = stage.asked.iter().filter(|asked| asked.at >= since && asked.api == ApiKey::METADATA);
    asked.map(|asked| asked.node).collect()
}

fn each_partition(response: &mut MetadataResponse, mut change: impl FnMut(&mut Partition)) {
    response.topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(&mut change);
}

/// The broker that we ask was cut off from its controller before the leader moved. It leads no more and says so, or it
/// does not even know that (NOT_ENOUGH_REPLICAS), or it answers nothing any more, or is gone.
#[test]
fn a_broker_that_knows_only_what_was_is_left() {
    for (case, leader) in [("another leader", 1), ("itself", 0)] {
        let (mut stage, topic) = stage(3, config());
        stage.model.cut_off(0);
        stage.model.move_leader("t", leader, 2);
        let since = stage.now;
        let took = takes(&mut stage, &topic, leader as u32);
        assert!(took.is_some_and(|took| took < 2 * SECOND), "{case}: {took:?}, asked {:?}", &stage.asked[6..]);
        assert!(asked_for_metadata(&stage, since).len() > 1);
    }
}

/// The leader is gone and another one leads, and the broker that we ask repeats what it knew.
#[test]
fn a_leader_that_cannot_be_connected_to() {
    for silent in [false, true] {
        let (mut stage, topic) = stage(3, config());
        stage.model.cut_off(0);
        stage.model.move_leader("t", 1, 2);
        stage.kill(&[address(1001)]);
        if silent {
            stage.hosts.insert(address(1001), Host::Silence);
        }
        let took = takes(&mut stage, &topic, 1);
        assert!(took.is_some_and(|took| took < 4 * SECOND), "silent {silent}: {took:?}");
    }
}

/// The leader takes connections and requests and answers none: with each request timeout it is doubted anew.
#[test]
fn a_leader_that_answers_nothing() {
    let (mut stage, topic) = stage(3, config().request_timeout(3 * SECOND));
    stage.model.cut_off(0);
    stage.model.move_leader("t", 1, 2);
    stage.mute.insert((1, ApiKey::PRODUCE));
    let took = takes(&mut stage, &topic, 1);
    assert!(took.is_some_and(|took| took < 10 * SECOND), "{took:?}");
}

/// A topic that was created since: callers hear of it from a broker that knows.
#[test]
fn a_topic_that_the_broker_does_not_know_yet() {
    let (mut stage, _) = stage(3, config());
    stage.model.cut_off(0);
    stage.model.create_topic("new", TopicOptions::default());
    let new = stage.shared.topic("new");
    let since = stage.now;
    // A caller asks again after each answer.
    while new.count() == 0 && stage.now < since + 10 * SECOND {
        stage.shared.want(&new);
        stage.run(20 * MS);
    }
    assert_eq!(new.count(), 3, "{:?}", asked_for_metadata(&stage, since));
    assert!(stage.now < since + 2 * SECOND, "{:?}", stage.now - since);
}

/// All that are known lag, and the bootstrap name leads to one that does not (KIP-1102): answers that do not help are as
/// good as none.
#[test]
fn when_no_answer_helps_it_starts_again() {
    let config = config().set("metadata.recovery.rebootstrap.trigger.ms", "10000").request_timeout(5 * SECOND);
    let mut stage = Stage::new(options(3), config, "bootstrap:9092");
    stage.names.insert("bootstrap".into(), vec![address(1000)]);
    let topic = stage.topic("t");
    assert!(takes(&mut stage, &topic, 1).is_some());
    (0..2).for_each(|node| stage.model.cut_off(node));
    stage.kill(&[address(1001)]);
    stage.model.move_leader("t", 1, 2);
    stage.names.insert("bootstrap".into(), vec![address(1002)]);
    // Not by its own name.
    stage.spoil = Some(Box::new(|node, response| {
        response.brokers.retain(|broker| node == 2 || broker.node_id != 2);
    }));
    stage.model.catch_up(2);
    let took = takes(&mut stage, &topic, 1);
    assert!(took.is_some(), "{:?}", asked_for_metadata(&stage, Duration::ZERO));
}

/// Nobody knows better: a broker that has been down for long is no reason to storm the others.
#[test]
fn where_nobody_knows_better_nobody_is_stormed() {
    let (mut stage, topic) = stage(5, config().delivery_timeout(10 * MINUTE));
    stage.kill(&[address(1004)]);
    let _waits = stage.send(&topic, 4);
    let (since, connects) = (stage.now, stage.connects.len());
    stage.run(5 * MINUTE);
    let questions = stage.count(ApiKey::METADATA, since);
    let sound = |(_, at): &&(Duration, std::net::SocketAddr)| *at != address(1004);
    let connects = stage.connects[connects..].iter().filter(sound).count();
    println!("{questions} questions and {connects} connections in five minutes");
    assert!(questions <= 400 && connects <= 60, "{questions} questions, {connects} connections");
    assert_eq!(asked_for_metadata(&stage, since), HashSet::from([0, 1, 2, 3]), "all that are there are asked");
    for partition in 0..4 {
        assert!(takes(&mut stage, &topic, partition).is_some_and(|took| took < SECOND), "the others go on");
    }
}

/// While the others lag, the one that does not is not left again.
#[test]
fn who_has_helped_is_kept() {
    let (mut stage, topic) = stage(3, config().metadata_max_age(5 * SECOND));
    stage.model.cut_off(0);
    for leader in [2, 1, 2, 1] {
        stage.model.move_leader("t", 0, leader);
        assert!(takes(&mut stage, &topic, 0).is_some_and(|took| took < 2 * SECOND));
    }
    let since = stage.now;
    stage.run(MINUTE);
    assert!(!asked_for_metadata(&stage, since).contains(&0));
}

// ---- answers that are wrong ------------------------------------------------------------------------------------

/// One answer, the first or a later one, has a leader epoch that no later one comes near, and a leader that is none, or
/// gone, or even right; and then the leader moves.
#[test]
fn a_leader_epoch_that_makes_no_sense_does_not_hold() {
    for epoch in [3, 10_000, i32::MAX] {
        for (named, dead) in [(1, false), (1, true), (7, false), (0, false)] {
            for first in [true, false] {
                let mut stage = Stage::new(options(3), config(), "127.0.0.1:1000");
                stage.model.create_topic("t", options(3).topic);
                let answers = Arc::new(AtomicUsize::new(usize::from(!first)));
                let wrong = answers.clone();
                stage.spoil = Some(Box::new(move |_, response| {
                    if wrong.fetch_add(1, Ordering::Relaxed) == 0 {
                        each_partition(response, |partition| {
                            if partition.index == 0 {
                                (partition.leader_id, partition.leader_epoch) = (named, epoch);
                            }
                        });
                    }
                }));
                let topic = stage.topic("t");
                if dead {
                    stage.kill(&[address(1001)]);
                }
                if !first {
                    answers.store(0, Ordering::Relaxed);
                    stage.sender.want_metadata_now();
                    stage.run(SECOND);
                }
                stage.model.move_leader("t", 0, 2);
                let took = takes(&mut stage, &topic, 0);
                let case = format!("epoch {epoch}, leader {named}, dead {dead}, first {first}");
                assert!(took.is_some_and(|took| took < 12 * SECOND), "{case}: {took:?}");
                // From then on epochs count again.
                stage.model.move_leader("t", 0, 0);
                let took = takes(&mut stage, &topic, 0);
                assert!(took.is_some_and(|took| took < SECOND), "{case}: and then {took:?}");
            }
        }
    }
}

/// With acks=1 a leader that was replaced and does not know it acknowledges what will be lost: no going back to it. An
/// epoch that makes no sense is another matter.
#[test]
fn without_acks_all_only_nonsense_gives_way() {
    for (epoch, heals) in [(9, false), (1_000_000, true)] {
        let (mut stage, topic) = stage(3, config().acks(Acks::Leader).enable_idempotence(false));
        stage.spoil = Some(Box::new(move |_, response| {
            each_partition(response, |partition| {
                if partition.index == 0 {
                    (partition.leader_id, partition.leader_epoch) = (1, epoch);
                }
            });
        }));
        stage.sender.want_metadata_now();
        stage.run(SECOND);
        stage.spoil = None;
        assert_eq!(takes(&mut stage, &topic, 0).is_some(), heals, "epoch {epoch}");
    }
}

/// One answer has another topic id: the next one has the right one again, and nothing has changed in between.
#[test]
fn a_topic_id_that_is_a_slip_changes_nothing() {
    let options = BrokerOptions { produce_max_version: 13, ..options(1) };
    let mut stage = Stage::new(options, config().metadata_max_age(SECOND), "127.0.0.1:1000");
    let topic = stage.topic("t");
    stage.produce_takes = 300 * MS;
    let answers = Arc::new(AtomicUsize::new(0));
    let count = answers.clone();
    stage.spoil = Some(Box::new(move |_, response| {
        if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            response.topics.iter_mut().for_each(|topic| topic.id = [9; 16]);
        }
    }));
    let mut deliveries = std::collections::VecDeque::new();
    for _ in 0..100 {
        deliveries.push_back(stage.send(&topic, 0));
        stage.run(100 * MS);
        while deliveries.len() > 5 {
            let delivery = deliveries.pop_front().unwrap();
            assert!(is_delivered(&delivery), "at {:?}: {:?}", stage.now, delivery.try_result());
        }
    }
    stage.run(SECOND);
    assert!(answers.load(Ordering::Relaxed) > 10);
    assert!(deliveries.iter().all(is_delivered));
    assert_eq!(stage.model.records("t", 0).len(), 100);
}

/// A topic id that was told for long and is wrong: what brokers refuse is given up for what it was before.
#[test]
fn a_topic_id_that_is_wrong_does_not_hold() {
    let options = BrokerOptions { produce_max_version: 13, ..options(1) };
    let mut stage = Stage::new(options, config().metadata_max_age(SECOND), "127.0.0.1:1000");
    let topic = stage.topic("t");
    stage.spoil = Some(Box::new(|_, response| response.topics.iter_mut().for_each(|topic| topic.id = [9; 16])));
    stage.run(8 * SECOND);
    assert_eq!(stage.sender.cluster.topics["t"].id, [9; 16]);
    stage.spoil = None;
    let took = takes(&mut stage, &topic, 0);
    assert!(took.is_some_and(|took| took < 8 * SECOND), "{took:?}");
}

/// An address leads to a broker of another cluster, as when it was given to another pod: it is not listened to. Where all
/// say that the cluster is another one, they are believed, and the old one gets nothing more.
#[test]
fn another_cluster_is_believed_only_when_it_stays() {
    let stranger = |response: &mut MetadataResponse| {
        response.cluster_id = Some("another".into());
        response.brokers.iter_mut().for_each(|broker| broker.port += 100);
        response.topics.iter_mut().for_each(|topic| topic.id = [9; 16]);
    };
    let (mut stage, topic) = stage(3, config().metadata_max_age(SECOND));
    stage.spoil = Some(Box::new(move |node, response| {
        if node == 0 {
            stranger(response);
        }
    }));
    let since = stage.now;
    for _ in 0..20 {
        assert!(takes(&mut stage, &topic, 0).is_some_and(|took| took < SECOND));
        stage.run(SECOND);
    }
    assert!(stage.connects.iter().all(|(_, at)| at.port() < 1100), "nobody goes there: {:?}", stage.connects);
    assert!(stage.count(ApiKey::METADATA, since) > 10, "the others are asked");
    // And now all of them.
    stage.spoil = Some(Box::new(move |_, response| stranger(response)));
    stage.hosts.extend((1100..1103).zip(0..).map(|(port, node)| (address(port), Host::Node(node))));
    let since = stage.now;
    stage.run(12 * SECOND);
    assert!(takes(&mut stage, &topic, 0).is_some());
    assert!(stage.connects.iter().any(|(at, to)| *at > since && to.port() >= 1100), "{:?}", stage.connects);
}

/// A leader that refuses for any reason, again and again: metadata is asked whether it still leads.
#[test]
fn any_failure_that_stays_is_a_reason_to_ask() {
    for error in [2, 7, 14, 15, 16, 19, 20, 51, 56, 75, 89].map(ErrorCode) {
        assert!(error.is_retriable());
        let options = options(2).on_produce(move |context| match (context.node, context.nth) {
            (0, 2..) => Fault::NamesLeader { error, leader: -1, epoch: -1, address: false },
            _ => Fault::None,
        });
        let mut stage = Stage::new(options, config(), "127.0.0.1:1000");
        let topic = stage.topic("t");
        for partition in 0..2 {
            assert!(takes(&mut stage, &topic, partition).is_some());
        }
        stage.model.move_leader("t", 0, 1);
        let took = takes(&mut stage, &topic, 0);
        assert!(took.is_some_and(|took| took < 2 * SECOND), "{error}: {took:?}");
    }
}
