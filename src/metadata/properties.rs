//! Answers in any order, against a naive model; and what must hold of every change.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::metadata::{Broker, Partition, Topic};

const NAMES: [&str; 3] = ["a", "b", "c"];
const PARTITIONS: i32 = 8;

/// What a merge is about: everything by name, and a partition's leader by name and index.
#[derive(Debug, Default)]
struct Model {
    brokers: BTreeMap<i32, (String, u16)>,
    ids: BTreeMap<String, TopicId>,
    counts: BTreeMap<String, i32>,
    leaders: BTreeMap<(String, i32), (i32, i32)>,
}

impl Model {
    fn merge(&mut self, response: &MetadataResponse) -> Option<Vec<(String, TopicChange)>> {
        let usable = |broker: &&Broker| !broker.host.is_empty() && (1..=65_535).contains(&broker.port);
        let brokers: Vec<_> = response.brokers.iter().filter(usable).collect();
        if brokers.is_empty() {
            return None;
        }
        self.brokers = brokers.iter().map(|b| (b.node_id, (b.host.clone(), b.port as u16))).collect();
        let all = &response.topics;
        let first = |at: usize| all[at].name.is_some() && all[..at].iter().all(|topic| topic.name != all[at].name);
        let named = (0..all.len()).filter(|at| first(*at)).map(|at| &all[at]);
        Some(named.filter_map(|topic| Some((topic.name.clone().unwrap(), self.topic(topic)?))).collect())
    }

    /// `None`: the answer says nothing of the topic.
    fn topic(&mut self, heard: &Topic) -> Option<TopicChange> {
        let name = heard.name.clone().unwrap();
        let entries = heard.partitions.len() as i32;
        let highest = heard.partitions.iter().map(|p| p.index).filter(|index| (0..entries).contains(index)).max();
        let Some(highest) = highest else {
            return (heard.error != ErrorCode::NONE).then_some(TopicChange::Refused(heard.error));
        };
        let known = self.ids.insert(name.clone(), heard.id).unwrap_or_default();
        let recreated = known != [0; 16] && heard.id != [0; 16] && known != heard.id;
        let before = if recreated { 0 } else { self.counts.get(&name).copied().unwrap_or(0) };
        if recreated {
            self.leaders.retain(|(of, _), _| *of != name);
        }
        let count = before.max(highest + 1);
        self.counts.insert(name.clone(), count);
        for p in heard.partitions.iter().filter(|p| (0..count).contains(&p.index)) {
            let leader = self.leaders.entry((name.clone(), p.index)).or_insert((-1, -1));
            if p.leader_epoch < 0 || p.leader_epoch >= leader.1 {
                *leader = (p.leader_id, p.leader_epoch);
            }
        }
        Some(TopicChange::Known { partitions: count as usize, recreated })
    }
}

fn broker() -> impl Strategy<Value = Broker> {
    let port = prop_oneof![8 => 1..65_536_i32, 1 => Just(0), 1 => Just(-1), 1 => Just(65_536)];
    (0..4_i32, prop_oneof![5 => Just("h"), 1 => Just("")], port).prop_map(|(node_id, host, port)| Broker {
        node_id,
        host: host.into(),
        port,
        rack: None,
    })
}

fn partition() -> impl Strategy<Value = Partition> {
    let index = prop_oneof![8 => 0..PARTITIONS, 1 => Just(-1), 1 => Just(i32::MAX), 1 => Just(i32::MIN)];
    let epoch = prop_oneof![6 => 0..6_i32, 1 => Just(-1)];
    (index, -1..4_i32, epoch).prop_map(|(index, leader_id, leader_epoch)| Partition {
        error: ErrorCode::NONE,
        index,
        leader_id,
        leader_epoch,
        replicas: 1,
        in_sync: 1,
    })
}

fn topic() -> impl Strategy<Value = Topic> {
    let name = proptest::option::weighted(0.9, proptest::sample::select(&NAMES[..]));
    let error = prop_oneof![4 => Just(0), 1 => Just(3), 1 => Just(5)];
    // Indexes in order, as brokers mostly have them, or anything.
    let all = (1..PARTITIONS, vec(partition(), PARTITIONS as usize)).prop_map(|(count, all)| {
        let indexed = all.into_iter().zip(0..count).map(|(partition, index)| Partition { index, ..partition });
        indexed.collect::<Vec<_>>()
    });
    let partitions = prop_oneof![3 => all, 1 => vec(partition(), 0..6)];
    (name, error, 0..3_u8, partitions).prop_map(|(name, error, id, partitions)| Topic {
        error: ErrorCode(error),
        name: name.map(str::to_owned),
        id: [id; 16],
        partitions,
    })
}

fn answer() -> impl Strategy<Value = MetadataResponse> {
    (vec(broker(), 0..4), vec(topic(), 0..4)).prop_map(|(brokers, topics)| MetadataResponse {
        brokers,
        topics,
        ..MetadataResponse::default()
    })
}

fn leaders(cluster: &Cluster) -> Vec<Leader> {
    NAMES.iter().flat_map(|name| (-1..=PARTITIONS).map(|index| cluster.leader(name, index))).collect()
}

proptest! {
    #[test]
    fn as_the_model_has_it(answers in vec(answer(), 1..12)) {
        let (mut cluster, mut model) = (Cluster::default(), Model::default());
        for response in answers {
            let (before, counts) = (leaders(&cluster), model.counts.clone());
            let changes = cluster.merge(&response, |_| true).ok();
            let changes =
                changes.map(|all| all.into_iter().map(|(name, change)| (name.to_string(), change)).collect::<Vec<_>>());
            let recreated = changes.iter().flatten().any(|(_, change)| matches!(change, TopicChange::Known { recreated: true, .. }));
            let old_broker = response.topics.iter().flat_map(|t| &t.partitions).any(|p| p.leader_epoch < 0);
            prop_assert_eq!(changes, model.merge(&response));
            let after = leaders(&cluster);
            if !recreated && !old_broker {
                for (before, after) in before.iter().zip(&after) {
                    prop_assert!(after.epoch >= before.epoch, "an epoch went back: {:?} to {:?}", before, after);
                }
                for (name, count) in counts {
                    prop_assert!(model.counts[&name] >= count, "partitions went away");
                }
            }
            let expected = NAMES.iter().flat_map(|name| (-1..=PARTITIONS).map(|index| {
                model.leaders.get(&(name.to_string(), index)).map_or(Leader::NONE, |(node, epoch)| Leader { node: *node, epoch: *epoch })
            }));
            prop_assert_eq!(after, expected.collect::<Vec<_>>());
            for (name, topic) in &cluster.topics {
                prop_assert_eq!(Some(&(topic.leaders.len() as i32)), model.counts.get(&**name));
                prop_assert_eq!(Some(&topic.id), model.ids.get(&**name));
            }
            let brokers: BTreeMap<_, _> =
                cluster.brokers.iter().map(|(id, address)| (*id, (address.host.clone(), address.port))).collect();
            prop_assert_eq!(&brokers, &model.brokers);
        }
    }
}
