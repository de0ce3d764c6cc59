//! The way to a broker: names, addresses, set-up times, backoffs, whom to ask, and when to start again from the list that
//! the user gave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::stage::{Host, Stage, address};
use crate::config::ProducerConfig;
use crate::sender::TopicShared;
use crate::testing::{BrokerOptions, ErrorCode, TopicOptions};
use crate::wire::header::ApiKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> ProducerConfig {
    ProducerConfig::new().linger(MS)
}

fn options(brokers: usize) -> BrokerOptions {
    let topic = TopicOptions { partitions: brokers as i32, ..TopicOptions::default() };
    BrokerOptions { brokers, topic, ..BrokerOptions::default() }
}

/// The brokers call themselves `broker-0` and so on, at port 9092, and each name leads to where its broker is.
fn named(brokers: usize, config: ProducerConfig) -> Stage {
    let mut stage = Stage::new(options(brokers), config, "bootstrap:9092");
    let topic = options(brokers).topic;
    stage.model.create_topic("t", topic);
    let at: Vec<SocketAddr> = (0..brokers as u8).map(|node| SocketAddr::from(([10, 0, 0, node], 9092))).collect();
    stage.hosts = at.iter().zip(0..).map(|(at, node)| (*at, Host::Node(node))).collect();
    stage.names.insert("bootstrap".to_owned(), vec![at[0]]);
    stage.names.extend((0..brokers).map(|node| (format!("broker-{node}"), vec![at[node]])));
    name_brokers(&mut stage);
    stage
}

fn name_brokers(stage: &mut Stage) {
    stage.spoil = Some(Box::new(|_, response| {
        for broker in &mut response.brokers {
            (broker.host, broker.port) = (format!("broker-{}", broker.node_id), 9092);
        }
    }));
}

fn ip(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 9092))
}

/// One record to each partition; all delivered within `time`?
fn is_served(stage: &mut Stage, topic: &TopicShared, time: Duration) -> bool {
    let deliveries: Vec<_> = (0..topic.count()).map(|partition| stage.send(topic, partition)).collect();
    stage.run(time);
    deliveries.iter().all(|delivery| delivery.try_result().is_some_and(|result| result.is_ok()))
}

/// No name server yet, or no entry: asked again and again, at the pace of the backoff.
#[test]
fn a_name_without_address_is_asked_for_again() {
    let mut stage = named(1, config());
    let known = stage.names.remove("bootstrap").unwrap();
    let topic = stage.shared.topic("t");
    stage.run(60 * SECOND);
    assert!((30..100).contains(&stage.look_ups.len()), "{} look-ups in a minute", stage.look_ups.len());
    assert!(stage.shared.trouble().is_some_and(|why| why.contains("bootstrap:9092: no such host")));
    stage.names.insert("bootstrap".to_owned(), known);
    stage.run(3 * SECOND);
    assert_eq!(topic.count(), 1);
}

/// Java: testConnectionSetupTimeout, testFailedConnectionToFirstAddress. Each has its time, and none is waited for so long.
#[test]
fn every_address_of_a_name_is_tried() {
    let mut stage = named(1, config());
    let dead = [ip(7), ip(8)];
    stage.hosts.insert(dead[0], Host::Silence);
    stage.names.insert("bootstrap".to_owned(), vec![dead[0], dead[1], ip(0)]);
    let topic = stage.shared.topic("t");
    stage.run(SECOND);
    assert_eq!(topic.count(), 1);
    let tried: Vec<_> = stage.connects.iter().map(|(_, at)| *at).collect();
    assert_eq!(tried[..3], [dead[0], dead[1], ip(0)]);
    assert_eq!(stage.connects[1].0 - stage.connects[0].0, 250 * MS, "one that is silent");
    assert_eq!(stage.connects[2].0, stage.connects[1].0, "one that refuses costs nothing");
}

/// `socket.connection.setup.timeout.ms` doubles up to `….max.ms`, and begins again after a success.
#[test]
fn the_time_for_set_up_doubles_and_begins_again() {
    let mut stage = named(1, config());
    stage.hosts.insert(ip(0), Host::Silence);
    let topic = stage.shared.topic("t");
    stage.run(Duration::from_secs(300));
    let gaps: Vec<_> = stage.connects.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let within = |gap: &Duration, plain: u64| {
        let plain = Duration::from_secs(plain);
        // The set-up's own time, 20 % more or less, and a reconnect backoff.
        (plain * 8 / 10..=plain * 12 / 10 + 2 * SECOND).contains(gap)
    };
    assert!(within(&gaps[0], 10) && within(&gaps[1], 20), "{gaps:?}");
    assert!(gaps[2..].iter().all(|gap| within(gap, 30)) && gaps.len() > 5, "{gaps:?}");
    stage.hosts.insert(ip(0), Host::Node(0));
    stage.run(40 * SECOND);
    assert_eq!(topic.count(), 1);
    stage.hosts.insert(ip(0), Host::Silence);
    stage.kill(&[ip(0)]);
    stage.hosts.insert(ip(0), Host::Silence);
    let before = stage.connects.len();
    stage.run(60 * SECOND);
    let gaps: Vec<_> = stage.connects[before..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().any(|gap| within(gap, 10)), "{gaps:?}");
}

/// A pod that comes back has another address under the same name (Java: testReconnectAfterAddressChange).
#[test]
fn a_broker_is_found_at_its_new_address() {
    let mut stage = named(2, config());
    let topic = stage.topic("t");
    assert!(is_served(&mut stage, &topic, SECOND));
    for (round, new) in [20, 30, 40].into_iter().enumerate() {
        let old = stage.names["broker-1"][0];
        stage.names.insert("broker-1".to_owned(), vec![ip(new)]);
        stage.hosts.insert(ip(new), Host::Node(1));
        stage.kill(&[old]);
        assert!(is_served(&mut stage, &topic, 5 * SECOND), "move {round}");
    }
}

/// Behind one name stand several addresses, and a connection to the first was lost: another one is tried first
/// (Java: testSkipLastAttemptedIp).
#[test]
fn the_address_that_was_lost_is_not_the_next_one() {
    let mut stage = named(1, config());
    stage.hosts.insert(ip(9), Host::Node(0));
    stage.names.insert("bootstrap".to_owned(), vec![ip(9), ip(0)]);
    stage.names.insert("broker-0".to_owned(), vec![ip(9), ip(0)]);
    let topic = stage.topic("t");
    assert!(is_served(&mut stage, &topic, SECOND));
    stage.hosts.insert(ip(9), Host::Silence);
    stage.kill(&[ip(9)]);
    stage.hosts.insert(ip(9), Host::Silence);
    // Well before the set-up of a connection to the first one could time out.
    assert!(is_served(&mut stage, &topic, 5 * SECOND));
}

/// Java: testExponentialReconnectBackoff.
#[test]
fn the_reconnect_backoff_grows_and_begins_again() {
    let mut stage = named(1, config());
    let topic = stage.topic("t");
    assert!(is_served(&mut stage, &topic, SECOND));
    for _ in 0..3 {
        stage.kill(&[ip(0)]);
        let lost = stage.now;
        let delivery = stage.send(&topic, 0);
        stage.run(30 * SECOND);
        let tries: Vec<_> = stage.connects.iter().map(|(at, _)| *at).filter(|at| *at > lost).collect();
        assert!(tries.len() >= 20 && tries.len() < 150, "{} tries in half a minute", tries.len());
        assert!(tries[0] - lost < 100 * MS, "soon at first: {:?}", tries[0] - lost);
        let last = &tries[tries.len() - 6..];
        assert!(last.windows(3).all(|w| w[2] - w[0] >= 300 * MS), "then seldom: {last:?}");
        stage.hosts.insert(ip(0), Host::Node(0));
        stage.run(3 * SECOND);
        assert!(delivery.try_result().is_some_and(|result| result.is_ok()));
    }
}

/// The whole cluster was replaced: no broker that is known exists any more, and the bootstrap name leads to the new ones
/// (KIP-899).
fn replaced(config: ProducerConfig) -> (Stage, Arc<TopicShared>) {
    let mut stage = named(2, config);
    let topic = stage.topic("t");
    assert!(is_served(&mut stage, &topic, SECOND));
    for node in 0..2 {
        stage.names.remove(&format!("broker-{node}"));
        stage.hosts.insert(ip(100 + node), Host::Node(i32::from(node)));
        stage.names.insert(format!("new-{node}"), vec![ip(100 + node)]);
    }
    stage.names.insert("bootstrap".to_owned(), vec![ip(100)]);
    stage.spoil = Some(Box::new(|_, response| {
        for broker in &mut response.brokers {
            (broker.host, broker.port) = (format!("new-{}", broker.node_id), 9092);
        }
    }));
    (stage, topic)
}

#[test]
fn when_no_known_broker_is_left_it_starts_again() {
    let (mut stage, topic) = replaced(config());
    stage.kill(&[ip(0), ip(1)]);
    assert!(is_served(&mut stage, &topic, 10 * SECOND), "{:?}", stage.shared.trouble());
}

#[test]
fn without_recovery_it_stays_with_the_brokers_it_knows() {
    let (mut stage, topic) = replaced(config().set("metadata.recovery.strategy", "none"));
    let since = stage.now;
    stage.kill(&[ip(0), ip(1)]);
    assert!(!is_served(&mut stage, &topic, 100 * SECOND));
    assert!(
        stage.look_ups.iter().all(|(at, name)| *at <= since || name.starts_with("broker-")),
        "{:?}",
        stage.look_ups
    );
}

/// The known brokers take connections and answer nothing: after `metadata.recovery.rebootstrap.trigger.ms` the bootstrap
/// servers are asked, and their names looked up afresh (KIP-1102).
#[test]
fn without_metadata_for_too_long_it_starts_again() {
    for (strategy, recovers) in [("rebootstrap", true), ("none", false)] {
        let config = config()
            .set("metadata.recovery.strategy", strategy)
            .set("metadata.recovery.rebootstrap.trigger.ms", "20000")
            .metadata_max_age(SECOND)
            .request_timeout(5 * SECOND);
        let (mut stage, topic) = replaced(config);
        // The old ones still stand there, and so do the connections for batches.
        stage.hosts.insert(ip(0), Host::Node(0));
        stage.hosts.insert(ip(100), Host::Node(2));
        stage.hosts.insert(ip(101), Host::Node(3));
        for node in 0..2 {
            stage.names.insert(format!("broker-{node}"), vec![ip(node)]);
            stage.mute.insert((i32::from(node), ApiKey::METADATA));
        }
        let since = stage.now;
        assert!(is_served(&mut stage, &topic, 10 * SECOND), "batches are not held up");
        stage.run(10 * SECOND);
        let first = |stage: &Stage| stage.asked.iter().find(|asked| asked.node == 2).map(|asked| asked.at - since);
        stage.run(30 * SECOND);
        assert_eq!(first(&stage).is_some(), recovers, "{strategy}: {:?}", first(&stage));
        if recovers {
            assert!(stage.sender.cluster.brokers.values().all(|broker| broker.host.starts_with("new-")));
        }
    }
}

/// No time at all is no reason to give up what has just begun.
#[test]
fn a_trigger_of_zero_does_no_harm() {
    let config = config().set("metadata.recovery.rebootstrap.trigger.ms", "0").metadata_max_age(SECOND);
    let mut stage = named(2, config);
    let topic = stage.topic("t");
    for _ in 0..10 {
        assert!(is_served(&mut stage, &topic, SECOND));
    }
    assert!(stage.connects.len() < 10, "{:?}", stage.connects);
}

/// To start again is no one-way street: where the bootstrap servers are gone for good, the known brokers still serve.
#[test]
fn known_brokers_that_come_back_are_found_without_bootstrap() {
    let config = config().set("metadata.recovery.rebootstrap.trigger.ms", "5000").metadata_max_age(SECOND);
    let mut stage = named(2, config);
    let topic = stage.topic("t");
    stage.names.remove("bootstrap");
    stage.kill(&[ip(0), ip(1)]);
    stage.run(60 * SECOND);
    assert!(stage.look_ups.iter().filter(|(_, name)| name == "bootstrap").count() > 20);
    stage.hosts.insert(ip(1), Host::Node(1));
    stage.hosts.insert(ip(0), Host::Node(0));
    assert!(is_served(&mut stage, &topic, 5 * SECOND));
    stage.model.grow_topic("t", 3);
    stage.run(5 * SECOND);
    assert_eq!(topic.count(), 3);
}

/// A broker says REBOOTSTRAP_REQUIRED in Metadata v13 (KIP-1102).
#[test]
fn a_broker_may_ask_for_a_new_start() {
    for (strategy, recovers) in [("rebootstrap", true), ("none", false)] {
        let config = config().set("metadata.recovery.strategy", strategy).metadata_max_age(SECOND);
        let mut stage = named(2, config);
        let topic = stage.topic("t");
        let sent_away = Arc::new(AtomicBool::new(true));
        let sends_away = sent_away.clone();
        stage.hosts.insert(ip(50), Host::Node(1));
        stage.names.insert("bootstrap".to_owned(), vec![ip(50)]);
        stage.spoil = Some(Box::new(move |_, response| {
            if sends_away.load(Ordering::Relaxed) {
                response.error = ErrorCode::REBOOTSTRAP_REQUIRED;
                (response.brokers, response.topics) = (Vec::new(), Vec::new());
            }
            for broker in &mut response.brokers {
                (broker.host, broker.port) = (format!("broker-{}", broker.node_id), 9092);
            }
        }));
        let (since, asked) = (stage.now, stage.asked.len());
        stage.run(20 * SECOND);
        let trouble = stage.shared.trouble().unwrap();
        assert!(trouble.contains("REBOOTSTRAP_REQUIRED"), "{trouble}");
        let bootstrapped = stage.connects.iter().any(|(at, to)| *at > since && *to == ip(50));
        assert_eq!(bootstrapped, recovers, "{strategy}");
        assert!(stage.asked.len() - asked < 200, "no storm: {}", stage.asked.len() - asked);
        assert!(is_served(&mut stage, &topic, SECOND), "batches go on");
        sent_away.store(false, Ordering::Relaxed);
        stage.run(5 * SECOND);
        stage.model.grow_topic("t", 5);
        stage.run(5 * SECOND);
        assert_eq!(topic.count(), 5, "{strategy}: its answers count again");
    }
}

/// A broker that is there, and not busy, is asked before one that nobody has spoken to yet; one that refuses to
/// be asked comes last (Java: testLeastLoadedNode*).
#[test]
fn the_least_loaded_broker_is_asked() {
    // Six nodes; batches go to 3 and 4 only, and 4 is held up.
    let mut stage = Stage::new(options(6), config().metadata_max_age(Duration::from_secs(700)), "127.0.0.1:1000");
    let topic = stage.topic("t");
    let deliveries = [3, 4].map(|partition| stage.send(&topic, partition));
    stage.run(SECOND);
    assert!(deliveries.iter().all(|delivery| delivery.try_result().is_some()));
    stage.mute.insert((4, ApiKey::PRODUCE));
    let _held = stage.send(&topic, 4);
    stage.run(SECOND);
    let _more = stage.send(&topic, 3);
    stage.kill(&[address(1000)]);
    let since = stage.now;
    stage.run(SECOND);
    let asked = stage.asked.iter().find(|asked| asked.at >= since && asked.api == ApiKey::METADATA).unwrap();
    assert_eq!(asked.node, 3);
    // It is cut off each time that it is asked: the others have their turn.
    stage.mute.insert((3, ApiKey::METADATA));
    let since = stage.now;
    stage.shared.topic("u");
    stage.run(65 * SECOND);
    assert!(stage.asked.iter().any(|asked| asked.at > since && asked.api == ApiKey::METADATA && asked.node != 3));
}

/// What a broker asked for with throttle_time_ms is kept to on every connection; another broker is asked meanwhile
/// (Java: testLeastLoadedNodeConsidersThrottledConnections).
#[test]
fn a_throttled_broker_is_not_asked() {
    let mut stage = Stage::new(options(3), config(), "127.0.0.1:1000");
    let topic = stage.topic("t");
    let throttling = Arc::new(AtomicBool::new(true));
    let throttles = throttling.clone();
    stage.spoil = Some(Box::new(move |node, response| {
        response.throttle_ms = if node == 0 && throttles.load(Ordering::Relaxed) { 60_000 } else { 0 };
    }));
    stage.shared.topic("u");
    stage.run(SECOND);
    let since = stage.now;
    stage.model.create_topic("v", TopicOptions::default());
    let more = stage.shared.topic("v");
    stage.run(2 * SECOND);
    assert!(more.count() > 0, "another broker told of it");
    let nodes: Vec<_> =
        stage.asked.iter().filter(|a| a.at >= since && a.api == ApiKey::METADATA).map(|a| a.node).collect();
    assert!(!nodes.is_empty() && !nodes.contains(&0), "{nodes:?}");
    assert!(is_served(&mut stage, &topic, SECOND), "its batches were not throttled");
}

/// One request that is not answered in time ends its connection, and with it all requests behind it
/// (Java: testRequestTimeout, testDisconnectWithMultipleInFlights). They are sent again on the next one.
#[test]
fn a_request_timeout_ends_the_connection_and_all_its_requests() {
    let topic = TopicOptions { partitions: 3, ..TopicOptions::default() };
    let options = BrokerOptions { topic, ..BrokerOptions::default() };
    let mut stage = Stage::new(options, config().request_timeout(2 * SECOND), "127.0.0.1:1000");
    let topic = stage.topic("t");
    assert!(is_served(&mut stage, &topic, SECOND));
    stage.mute.insert((0, ApiKey::PRODUCE));
    let (since, connects) = (stage.now, stage.connects.len());
    let deliveries: Vec<_> = (0..3)
        .map(|partition| {
            let delivery = stage.send(&topic, partition);
            stage.run(100 * MS);
            delivery
        })
        .collect();
    assert_eq!(stage.count(ApiKey::PRODUCE, since), 3, "three requests on one connection");
    assert_eq!(stage.connects.len(), connects);
    stage.run(1700 * MS);
    assert_eq!(stage.connects.len(), connects, "request.timeout.ms is not over");
    stage.mute.clear();
    stage.run(SECOND);
    assert_eq!(stage.connects.len(), connects + 1);
    assert!(deliveries.iter().all(|delivery| delivery.try_result().is_some_and(|result| result.is_ok())));
    assert_eq!(stage.model.records("t", 2).len(), 2, "none is stored twice");
}
