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
    /// Another id that was told last, and by whom first; and ids that were replaced.
    told: BTreeMap<String, (TopicId, u16)>,
    former: BTreeMap<String, Vec<TopicId>>,
    counts: BTreeMap<String, i32>,
    leaders: BTreeMap<(String, i32), (i32, i32)>,
}

impl Model {
    fn merge(&mut self, response: &MetadataResponse, from: u16) -> Option<Vec<(String, TopicChange)>> {
        let usable = |broker: &&Broker| !broker.host.is_empty() && (1..=65_535).contains(&broker.port);
        let brokers: Vec<_> = response.brokers.iter().filter(usable).collect();
        if brokers.is_empty() {
            return None;
        }
        self.brokers = brokers.iter().map(|b| (b.node_id, (b.host.clone(), b.port as u16))).collect();
        let all = &response.topics;
        let first = |at: usize| all[at].name.is_some() && all[..at].iter().all(|topic| topic.name != all[at].name);
        let named = (0..all.len()).filter(|at| first(*at)).map(|at| &all[at]);
        Some(named.filter_map(|topic| Some((topic.name.clone().unwrap(), self.topic(topic, from)?))).collect())
    }

    /// `None`: the answer says nothing of the topic.
    fn topic(&mut self, heard: &Topic, from: u16) -> Option<TopicChange> {
        let name = heard.name.clone().unwrap();
        let entries = heard.partitions.len() as i32;
        let highest = heard.partitions.iter().map(|p| p.index).filter(|index| (0..entries).contains(index)).max();
        let Some(highest) = highest else {
            return (heard.error != ErrorCode::NONE).then_some(TopicChange::Refused(heard.error));
        };
        let known = self.ids.get(&name).copied().unwrap_or_default();
        let recreated = known != [0; 16] && heard.id != [0; 16] && known != heard.id;
        let told = self.told.remove(&name).filter(|(id, _)| *id == heard.id);
        // By two, in a row, and not what was replaced: nobody refuses the one that is known, and no time goes by.
        let former = self.former.entry(name.clone()).or_default();
        if recreated && (told.is_none_or(|(_, first)| first == from) || former.contains(&heard.id)) {
            // Of what several have told everyone is one of several.
            let first =
                if told.is_some_and(|(_, first)| first != from) { 0 } else { told.map_or(from, |(_, first)| first) };
            self.told.insert(name, (heard.id, first));
            return Some(TopicChange::Unsure);
        }
        if recreated {
            former.push(known);
        }
        self.ids.insert(name.clone(), if heard.id == [0; 16] { known } else { heard.id });
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
    (name, error, prop_oneof![1 => Just(0_u8), 6 => 1..4_u8], partitions).prop_map(|(name, error, id, partitions)| {
        Topic { error: ErrorCode(error), name: name.map(str::to_owned), id: [id; 16], partitions }
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
    fn as_the_model_has_it(answers in vec((answer(), 1..3_u16), 1..16)) {
        let (mut cluster, mut model) = (Cluster::default(), Model::default());
        for (response, from) in answers {
            let (before, counts) = (leaders(&cluster), model.counts.clone());
            let changes = cluster.merge(&response, heard_at(Duration::ZERO, from), |_| true).ok();
            let changes =
                changes.map(|all| all.into_iter().map(|(name, change)| (name.to_string(), change)).collect::<Vec<_>>());
            let recreated = changes.iter().flatten().any(|(_, change)| matches!(change, TopicChange::Known { recreated: true, .. }));
            let old_broker = response.topics.iter().flat_map(|t| &t.partitions).any(|p| p.leader_epoch < 0);
            prop_assert_eq!(changes, model.merge(&response, from));
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

fn heard_at(now: Duration, from: u16) -> Heard {
    Heard { now, from: std::net::SocketAddr::from(([127, 0, 0, 1], from)) }
}

/// One answer about one partition, so much later than the one before; and whether its leader is of no use by then.
#[derive(Clone, Copy, Debug)]
struct Step {
    later_ms: u64,
    doubted: bool,
    leader: Leader,
}

fn step() -> impl Strategy<Value = Step> {
    let epoch = prop_oneof![8 => 0..6_i32, 1 => Just(2_000), 1 => Just(i32::MAX), 1 => Just(-1)];
    (0..4_000_u64, proptest::bool::weighted(0.8), -1..3_i32, epoch).prop_map(|(later_ms, doubted, node, epoch)| Step {
        later_ms,
        doubted,
        leader: Leader { node, epoch },
    })
}

fn answer_of(leader: Leader) -> MetadataResponse {
    let broker = Broker { node_id: 0, host: "h".into(), port: 1, rack: None };
    let (leader_id, leader_epoch) = (leader.node, leader.epoch);
    let partition = Partition { error: ErrorCode::NONE, index: 0, leader_id, leader_epoch, replicas: 1, in_sync: 1 };
    let topic = Topic { error: ErrorCode::NONE, name: Some("a".into()), id: [1; 16], partitions: vec![partition] };
    MetadataResponse { brokers: vec![broker], topics: vec![topic], ..MetadataResponse::default() }
}

proptest! {
    /// What is known goes back to an earlier epoch when, and only when, it has been of no use for long and most answers
    /// since then contradict it: recounted from the list of all answers.
    #[test]
    fn an_earlier_epoch_is_believed_in_time_and_for_a_reason(
        answers in vec(step(), 1..40),
        any: bool,
    ) {
        let name: Arc<str> = "a".into();
        let mut cluster = Cluster::new(any);
        let mut now = Duration::ZERO;
        // Since this answer, and that time, the leader that is known has been of no use.
        let mut doubted: Option<(usize, Duration)> = None;
        for (at, heard) in answers.iter().enumerate() {
            now += Duration::from_millis(heard.later_ms);
            let known = cluster.leader("a", 0);
            if heard.doubted && at > 0 {
                cluster.doubt(&name, 0, now);
                doubted.get_or_insert((at, now));
            } else {
                cluster.trust(&name, 0);
                doubted = None;
            }
            cluster.merge(&answer_of(heard.leader), heard_at(now, 1), |_| true).unwrap();
            let since = doubted.map_or(&[][..], |(from, _)| &answers[from..=at]);
            let earlier = |heard: &&Step| heard.leader.epoch >= 0 && heard.leader.epoch < known.epoch;
            let contradict: Vec<Leader> = since.iter().filter(earlier).map(|heard| heard.leader).collect();
            let confirm = since.iter().filter(|heard| heard.leader == known).count();
            let best = contradict.iter().rev().filter(|leader| leader.node >= 0).max_by_key(|leader| leader.epoch);
            let long = doubted.is_some_and(|(_, since)| now >= since + BELIEVED);
            let enough = contradict.len() >= 2 && contradict.len() > confirm && earlier(&heard);
            let expected = match best {
                _ if heard.leader.epoch < 0 || heard.leader.epoch >= known.epoch => heard.leader,
                Some(best) if long && enough && (any || known.epoch - best.epoch > 1000) => *best,
                _ => known,
            };
            let after = cluster.leader("a", 0);
            // Of two with one epoch the newer one, or the older one: nobody can tell.
            prop_assert_eq!(after.epoch, expected.epoch, "at {:?}: {:?}", now, since);
            prop_assert!(after == expected || contradict.contains(&after));
            if after != known {
                doubted = None;
            }
        }
    }

    /// However wrong one answer was: those that follow set it right, if it is of no use.
    #[test]
    fn no_answer_holds_for_ever(
        before in proptest::option::of((0..3_i32, 0..9_i32)),
        wrong in (-1..3_i32, any::<i32>(), any::<u8>()),
        right in (0..3_i32, 0..9_i32),
        step_ms in 1..3_000_u64,
    ) {
        let name: Arc<str> = "a".into();
        let mut cluster = Cluster::new(true);
        if let Some((node, epoch)) = before {
            let epoch = epoch.min(right.1);
            cluster.merge(&answer_of(Leader { node, epoch }), heard_at(Duration::ZERO, 1), |_| true).unwrap();
        }
        let mut spoiled = answer_of(Leader { node: wrong.0, epoch: wrong.1 });
        spoiled.topics[0].id = [wrong.2; 16];
        let _ = cluster.merge(&spoiled, heard_at(Duration::ZERO, 1), |_| true);
        let right = Leader { node: right.0, epoch: right.1 };
        let mut now = Duration::ZERO;
        let limit = 2 * BELIEVED + Duration::from_millis(4 * step_ms);
        while cluster.leader("a", 0) != right || cluster.topics["a"].id != [1; 16] {
            prop_assert!(now <= limit, "{:?} and {:?} after {:?}", cluster.leader("a", 0), cluster.topics["a"].id, now);
            now += Duration::from_millis(step_ms);
            cluster.doubt(&name, 0, now);
            let id = cluster.topics["a"].id;
            if id != [1; 16] {
                cluster.refuse_id("a", id);
            }
            cluster.merge(&answer_of(right), heard_at(now, 1), |_| true).unwrap();
        }
    }
}
