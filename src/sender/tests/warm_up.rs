//! After a warm-up the first record finds its leader's connection.

use std::sync::Arc;
use std::time::Duration;

use super::stage::{Host, Stage, address};
use crate::config::ProducerConfig;
use crate::sender::{Command, Ticket};
use crate::testing::{BrokerOptions, TopicOptions};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Three brokers, and a topic with a partition on each.
fn stage() -> Stage {
    let topic = TopicOptions { partitions: 3, ..TopicOptions::default() };
    let options = BrokerOptions { brokers: 3, topic, ..BrokerOptions::default() };
    let mut stage = Stage::new(options, ProducerConfig::new().linger(MS), "127.0.0.1:1000");
    stage.model.create_topic("t", options_of(3));
    stage
}

fn options_of(partitions: i32) -> TopicOptions {
    TopicOptions { partitions, ..TopicOptions::default() }
}

/// Brokers go by names: `broker-0` and so on.
fn by_names(stage: &mut Stage) {
    for node in 0..3 {
        stage.names.insert(format!("broker-{node}"), vec![address(1000 + node)]);
    }
    stage.spoil = Some(Box::new(|_, response| {
        response.brokers.iter_mut().for_each(|broker| broker.host = format!("broker-{}", broker.node_id));
    }));
}

/// How long it takes.
fn warm_up(stage: &mut Stage) -> Duration {
    let (ticket, began) = (Arc::<Ticket>::default(), stage.now);
    stage.shared.command(Command::WarmUp(stage.shared.topic("t"), ticket.clone()));
    while !ticket.is_done() {
        assert!(stage.now < began + 20 * SECOND, "{:?}", stage.connects);
        stage.run(10 * MS);
    }
    stage.now - began
}

/// No connection is made by the first records.
fn is_warm(stage: &mut Stage, partitions: &[u32]) {
    // The one that is out of reach is tried again by itself.
    let connects = |stage: &Stage| stage.connects.iter().filter(|(_, at)| *at != address(1001)).count();
    let (topic, before) = (stage.topic("t"), connects(stage));
    let sent: Vec<_> = partitions.iter().map(|partition| stage.send(&topic, *partition)).collect();
    stage.run(50 * MS);
    assert!(sent.iter().all(|delivery| delivery.try_result().is_some_and(|result| result.is_ok())));
    assert_eq!(connects(stage), before, "{:?}", stage.connects);
}

#[test]
fn every_leader_is_connected() {
    for names in [false, true] {
        let mut stage = stage();
        if names {
            by_names(&mut stage);
        }
        assert!(warm_up(&mut stage) < SECOND);
        assert_eq!(stage.connects.len(), 4, "control, and a lane to each");
        is_warm(&mut stage, &[0, 1, 2]);
        // Again, when all is there, and when connections were lost since.
        assert!(warm_up(&mut stage) < 100 * MS);
        stage.kill(&[address(1001)]);
        stage.hosts.insert(address(1001), Host::Node(1));
        assert!(warm_up(&mut stage) < SECOND);
        is_warm(&mut stage, &[0, 1, 2]);
    }
}

/// One leader is away, swallows packets, or says nothing: it is waited for a second, and the others are there.
#[test]
fn a_leader_out_of_reach_is_not_waited_for_long() {
    for what in ["refuses", "silent", "moves"] {
        let mut stage = stage();
        stage.hosts.remove(&address(1001));
        match what {
            "silent" => drop(stage.hosts.insert(address(1001), Host::Silence)),
            "moves" => drop(stage.model.move_leader("t", 1, 2)),
            _ => {}
        }
        let took = warm_up(&mut stage);
        assert!(took < 1200 * MS, "{what}: {took:?}");
        is_warm(&mut stage, if what == "moves" { &[0, 1, 2] } else { &[0, 2] });
    }
}

/// A topic that was just created has no leaders for a moment.
#[test]
fn leaders_that_come_late_are_waited_for() {
    let mut stage = stage();
    let mut answers = 0;
    stage.spoil = Some(Box::new(move |_, response| {
        answers += 1;
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.filter(|_| answers < 4).for_each(|partition| partition.leader_id = -1);
    }));
    let took = warm_up(&mut stage);
    assert!(took < SECOND, "{took:?}");
    is_warm(&mut stage, &[0, 1, 2]);
}

/// Its caller has gone: nothing goes on for it.
#[test]
fn a_warm_up_that_nobody_waits_for_ends() {
    let mut stage = stage();
    stage.topic("t");
    stage.shared.command(Command::WarmUp(stage.shared.topic("t"), Arc::default()));
    stage.run(SECOND);
    assert_eq!(stage.connects.len(), 1, "{:?}", stage.connects);
}
