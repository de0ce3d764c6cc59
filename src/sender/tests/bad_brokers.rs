//! A table of bad brokers: what the broker that is asked for metadata does, by what the old leader does, when a leader has
//! moved. Whatever it is, a sound broker is found, and the record is delivered. The test prints how long each takes.

use std::time::Duration;

use super::stage::{Host, Stage, address};
use crate::config::ProducerConfig;
use crate::testing::{BrokerOptions, TopicOptions};
use crate::wire::header::ApiKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// No cell takes longer: request timeouts, and the 5 s for which what is known is believed against one broker.
const LIMIT: Duration = Duration::from_secs(15);

/// What the broker does that is asked for metadata.
const ASKED: [&str; 9] = [
    "is sound",
    "knows only what was",
    "epoch 2^31-1",
    "epoch a little ahead",
    "another cluster's",
    "names no broker",
    "answers nothing",
    "refuses connections",
    "swallows packets",
];

/// What the leader does that leads no more.
const LEADER: [&str; 5] = ["NOT_LEADER", "NOT_ENOUGH_REPLICAS", "silent", "refuses", "swallows"];

/// Broker 0 is asked, and broker 1 has led partition 1. Broker 2 leads from now on, and is sound.
fn stage(asked: &str, leader: &str) -> Stage {
    let topic = TopicOptions { partitions: 3, ..TopicOptions::default() };
    // Leaders are named by metadata alone (before KIP-951).
    let options = BrokerOptions { brokers: 3, topic, produce_max_version: 9, ..BrokerOptions::default() };
    let config = ProducerConfig::new().linger(MS).request_timeout(3 * SECOND);
    let mut stage = Stage::new(options, config, "127.0.0.1:1000");
    let topic = stage.topic("t");
    for partition in 0..3 {
        let delivery = stage.send(&topic, partition);
        stage.run(SECOND);
        assert!(delivery.try_result().is_some_and(|result| result.is_ok()));
    }
    match asked {
        "knows only what was" => stage.model.cut_off(0),
        "answers nothing" => drop(stage.mute.insert((0, ApiKey::METADATA))),
        "refuses connections" => stage.kill(&[address(1000)]),
        "swallows packets" => {
            stage.kill(&[address(1000)]);
            stage.hosts.insert(address(1000), Host::Silence);
        }
        _ => {}
    }
    match leader {
        "NOT_ENOUGH_REPLICAS" => stage.model.cut_off(1),
        "silent" => drop(stage.mute.insert((1, ApiKey::PRODUCE))),
        "refuses" => stage.kill(&[address(1001)]),
        "swallows" => {
            stage.kill(&[address(1001)]);
            stage.hosts.insert(address(1001), Host::Silence);
        }
        _ => {}
    }
    stage.model.move_leader("t", 1, 2);
    let asked = asked.to_owned();
    stage.spoil = Some(Box::new(move |node, response| {
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let ahead = partitions.filter(|partition| node == 0 && partition.index == 1);
        match &*asked {
            "epoch 2^31-1" => ahead.for_each(|partition| (partition.leader_id, partition.leader_epoch) = (1, i32::MAX)),
            "epoch a little ahead" => ahead.for_each(|partition| {
                (partition.leader_id, partition.leader_epoch) = (1, partition.leader_epoch + 3);
            }),
            "another cluster's" if node == 0 => response.cluster_id = Some("another".into()),
            "names no broker" if node == 0 => response.brokers.clear(),
            _ => {}
        }
    }));
    stage
}

#[test]
fn whatever_the_asked_broker_and_the_old_leader_do() {
    let mut table = format!("{:>24}", "asked \\ old leader");
    LEADER.iter().for_each(|leader| table += &format!("{leader:>22}"));
    let mut late = Vec::new();
    for asked in ASKED {
        table += &format!("\n{asked:>24}");
        for leader in LEADER {
            let mut stage = stage(asked, leader);
            let topic = stage.shared.topic("t");
            let (delivery, began) = (stage.send(&topic, 1), stage.now);
            while delivery.try_result().is_none() && stage.now < began + 60 * SECOND {
                stage.run(10 * MS);
            }
            let took = stage.now - began;
            let delivered = delivery.try_result().is_some_and(|result| result.is_ok());
            table += &format!("{:>19} ms", took.as_millis());
            if !delivered || took > LIMIT {
                late.push(format!("{asked}, {leader}: {took:?}"));
            }
        }
    }
    println!("{table}");
    assert!(late.is_empty(), "{late:?}\n{table}");
}
