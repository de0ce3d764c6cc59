//! Connections that are slow to come up get rivals: what is silent costs a fraction of a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::stage::{Host, Stage, address};
use crate::config::ProducerConfig;
use crate::sender::TopicShared;
use crate::testing::{BrokerOptions, TopicOptions};
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

/// Two brokers at ports 1000 and 1001, a topic with a partition on each, and what the client is told.
fn stage(servers: &str) -> Stage {
    let mut stage = Stage::new(options(2), config(), servers);
    stage.model.create_topic("t", options(2).topic);
    stage
}

fn silent(stage: &mut Stage, port: u16) {
    stage.hosts.insert(address(port), Host::Silence);
}

/// How long it takes until the topic is known.
fn known_after(stage: &mut Stage) -> Duration {
    let (topic, began) = (stage.shared.topic("t"), stage.now);
    while topic.count() == 0 {
        assert!(stage.now < began + 60 * SECOND, "{:?}", stage.connects);
        stage.run(10 * MS);
    }
    stage.now - began
}

/// How long a record for this partition takes.
fn takes(stage: &mut Stage, topic: &TopicShared, partition: u32) -> Duration {
    let (delivery, began) = (stage.send(topic, partition), stage.now);
    while delivery.try_result().is_none() {
        assert!(stage.now < began + 60 * SECOND, "{:?}", stage.connects);
        stage.run(10 * MS);
    }
    assert!(delivery.try_result().unwrap().is_ok());
    stage.now - began
}

/// The topic, with a connection to each broker.
fn connected(stage: &mut Stage) -> Arc<TopicShared> {
    let topic = stage.topic("t");
    for partition in 0..topic.count() {
        takes(stage, &topic, partition);
    }
    topic
}

#[test]
fn a_silent_bootstrap_server_costs_a_quarter_of_a_second() {
    let mut stage = stage("127.0.0.1:900,127.0.0.1:1000");
    silent(&mut stage, 900);
    assert_eq!(known_after(&mut stage), 250 * MS);
    stage.run(SECOND);
    assert!(!stage.open().contains(&address(900)), "and is given up: {:?}", stage.open());
}

/// Its listener accepts, and nobody is behind it.
#[test]
fn a_bootstrap_server_that_accepts_and_says_nothing() {
    let mut stage = stage("127.0.0.1:900,127.0.0.1:1000");
    stage.hosts.insert(address(900), Host::Node(7));
    stage.mute.insert((7, ApiKey::API_VERSIONS));
    assert_eq!(known_after(&mut stage), SECOND);
}

/// A quarter of a shorter set-up timeout.
#[test]
fn the_delay_follows_the_set_up_timeout() {
    let config = config().set("socket.connection.setup.timeout.ms", "200");
    let mut stage = Stage::new(options(2), config, "127.0.0.1:900,127.0.0.1:1000");
    stage.model.create_topic("t", options(2).topic);
    silent(&mut stage, 900);
    assert_eq!(known_after(&mut stage), 50 * MS);
}

/// Where nobody answers nobody is stormed: each rival waits twice as long, and there are eight in all. And the first that
/// comes up is found.
#[test]
fn many_silent_servers_are_tried_one_after_the_other() {
    let servers: Vec<String> = (900..950).map(|port| format!("127.0.0.1:{port}")).collect();
    let mut stage = stage(&servers.join(","));
    (900..950).for_each(|port| silent(&mut stage, port));
    let topic = stage.shared.topic("t");
    stage.run(9 * SECOND);
    let begun: Vec<_> = stage.connects.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(begun, [0, 250, 750, 1750, 3750, 5750, 7750]);
    assert_eq!(stage.open().len(), 7);
    stage.run(50 * SECOND);
    assert!(stage.open().len() <= 8 && stage.connects.len() < 40, "{}", stage.connects.len());
    let tried: std::collections::HashSet<_> = stage.connects.iter().map(|(_, at)| *at).collect();
    assert_eq!(tried.len(), stage.connects.len(), "no server twice before all were tried");
    stage.hosts.extend((900..950).map(|port| (address(port), Host::Node(0))));
    stage.run(3 * SECOND);
    assert_eq!(topic.count(), 2);
}

/// The first address of a name swallows packets: for the control connection, and for a leader's lane.
#[test]
fn a_silent_address_of_a_name() {
    let mut stage = stage("bootstrap:9092");
    let good: Vec<SocketAddr> = (0..2).map(|node| address(1000 + node)).collect();
    silent(&mut stage, 800);
    silent(&mut stage, 801);
    stage.names.insert("bootstrap".into(), vec![address(800), good[0]]);
    for (node, good) in good.iter().enumerate() {
        stage.names.insert(format!("broker-{node}"), vec![address(800), address(801), *good]);
    }
    stage.spoil = Some(Box::new(|_, response| {
        response.brokers.iter_mut().for_each(|broker| broker.host = format!("broker-{}", broker.node_id));
    }));
    assert_eq!(known_after(&mut stage), 250 * MS);
    let topic = stage.topic("t");
    let took = takes(&mut stage, &topic, 1);
    assert!((750 * MS..=760 * MS).contains(&took), "the second rival is begun 250 ms and 500 ms later: {took:?}");
    stage.run(SECOND);
    assert!(stage.open().iter().all(|at| at.port() >= 1000), "{:?}", stage.open());
}

/// One that fails makes way at once.
#[test]
fn a_rival_that_is_refused_is_followed_at_once() {
    let mut stage = stage("127.0.0.1:900,127.0.0.1:901,127.0.0.1:902,127.0.0.1:1000");
    silent(&mut stage, 900);
    assert_eq!(known_after(&mut stage), 250 * MS);
    let order: Vec<_> = stage.connects.iter().map(|(_, at)| at.port()).collect();
    assert_eq!(order[..4], [900, 901, 902, 1000]);
}

/// A name that the resolver is stuck on, before another one; and the name of a rival.
#[test]
fn a_look_up_that_hangs_is_not_waited_for() {
    let mut first = stage("stuck:9092,127.0.0.1:1000");
    first.unresolved.insert("stuck".into());
    assert_eq!(known_after(&mut first), 250 * MS);
    let mut second = stage("127.0.0.1:900,stuck:9092,127.0.0.1:1000");
    second.unresolved.insert("stuck".into());
    silent(&mut second, 900);
    let took = known_after(&mut second);
    assert!(took <= 2300 * MS, "{took:?}");
    let mut third = stage("127.0.0.1:900,name:9092");
    third.names.insert("name".into(), vec![address(1000)]);
    silent(&mut third, 900);
    assert_eq!(known_after(&mut third), 250 * MS);
}

/// A known broker stands still and keeps its connections: what it is asked is asked elsewhere.
#[test]
fn a_question_that_is_not_answered_is_asked_elsewhere() {
    for api in [ApiKey::METADATA, ApiKey::INIT_PRODUCER_ID] {
        let mut stage = stage("127.0.0.1:1000,127.0.0.1:1001");
        stage.mute.insert((0, api));
        let topic = stage.shared.topic("t");
        stage.run(5 * SECOND);
        assert_eq!((topic.count(), stage.shared.identity_trouble()), (2, None), "{:?}", stage.asked);
        assert!(takes(&mut stage, &topic, 0) < 100 * MS);
        // And it is not asked again.
        stage.run(SECOND);
        assert!(stage.count(api, Duration::ZERO) <= 3, "{:?}", stage.asked);
    }
}

/// One that needs its time gets it, when all do.
#[test]
fn brokers_that_are_slow_are_not_asked_without_end() {
    let mut stage = stage("127.0.0.1:1000,127.0.0.1:1001");
    stage.mute.extend([(0, ApiKey::METADATA), (1, ApiKey::METADATA)]);
    let topic = stage.shared.topic("t");
    stage.run(300 * SECOND);
    let asked = stage.count(ApiKey::METADATA, Duration::ZERO);
    assert!(asked <= 16, "{asked} times in five minutes of 30 s each");
    stage.mute.clear();
    stage.run(35 * SECOND);
    assert_eq!(topic.count(), 2);
}

/// The broker has moved while a connection to its old address is on its way.
#[test]
fn an_address_that_is_no_more_is_not_waited_for() {
    let mut stage = stage("127.0.0.1:1000");
    let topic = connected(&mut stage);
    stage.kill(&[address(1001)]);
    silent(&mut stage, 1001);
    stage.run(SECOND);
    let delivery = stage.send(&topic, 1);
    stage.run(100 * MS);
    assert!(stage.open().contains(&address(1001)));
    stage.hosts.insert(address(1100), Host::Node(1));
    stage.spoil = Some(Box::new(|_, response| {
        response.brokers.iter_mut().filter(|broker| broker.node_id == 1).for_each(|broker| broker.port = 1100);
    }));
    stage.run(3 * SECOND);
    assert!(delivery.try_result().is_some_and(|result| result.is_ok()), "{:?}", stage.connects);
}

/// All is well: no second connection to anybody.
#[test]
fn without_trouble_there_is_no_race() {
    let mut stage = stage("127.0.0.1:1000,127.0.0.1:1001");
    connected(&mut stage);
    stage.run(60 * SECOND);
    assert_eq!(stage.connects.len(), 3, "control, and a lane to each: {:?}", stage.connects);
}
