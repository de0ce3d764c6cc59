//! A broker that is cut off from its controller: it goes on serving, by what it knew then.

use std::collections::BTreeMap;

use super::broker::{BrokerModel, TopicState};
use crate::wire::error_code::ErrorCode;
use crate::wire::metadata::{Partition, Topic};
use crate::wire::produce::TopicRef;

/// What a broker knew of a topic: its id, and each partition's leader and leader epoch.
#[derive(Debug)]
struct Known {
    id: [u8; 16],
    leaders: Vec<(i32, i32)>,
}

/// What a broker knew of the cluster.
#[derive(Debug, Default)]
pub(super) struct View(BTreeMap<String, Known>);

impl View {
    fn of(topics: &BTreeMap<String, TopicState>) -> Self {
        let known = |topic: &TopicState| Known {
            id: topic.id,
            leaders: topic.partitions.iter().map(|partition| (partition.leader, partition.leader_epoch)).collect(),
        };
        Self(topics.iter().map(|(name, topic)| (name.clone(), known(topic))).collect())
    }

    /// What it answers of a topic that it is asked for.
    pub(super) fn describe(&self, name: &str) -> Topic {
        let Some(known) = self.0.get(name) else {
            let error = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            return Topic { error, name: Some(name.to_owned()), id: [0; 16], partitions: Vec::new() };
        };
        let partitions = (0..).zip(&known.leaders).map(|(index, &(leader_id, leader_epoch))| Partition {
            error: if leader_id < 0 { ErrorCode::LEADER_NOT_AVAILABLE } else { ErrorCode::NONE },
            index,
            leader_id,
            leader_epoch,
            replicas: 1,
            in_sync: 1,
        });
        let (name, id) = (Some(name.to_owned()), known.id);
        Topic { error: ErrorCode::NONE, name, id, partitions: partitions.collect() }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Leader and epoch of a partition, for all that it knows.
    pub(super) fn leader(&self, topic: TopicRef<'_>, index: i32) -> Result<(i32, i32), ErrorCode> {
        let known = match topic {
            TopicRef::Name(name) => self.0.get(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?,
            TopicRef::Id(id) => self.0.values().find(|known| known.id == id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?,
        };
        let leader = usize::try_from(index).ok().and_then(|at| known.leaders.get(at));
        leader.copied().ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }
}

impl BrokerModel {
    /// From now on `node` knows of topics and leaders only what is known at this moment. It refuses what it does not lead
    /// for all that it knows; where another one leads since, it believes that it still does and cannot replicate
    /// (NOT_ENOUGH_REPLICAS; without `acks=all` a real one would store what is lost later, and this one says
    /// NOT_LEADER_OR_FOLLOWER).
    pub fn cut_off(&mut self, node: i32) {
        self.views.insert(node, View::of(&self.topics));
    }

    /// It knows again what the others know.
    pub fn catch_up(&mut self, node: i32) {
        self.views.remove(&node);
    }

    /// Why `node` does not append to a partition that `leader` leads in truth; and whom it takes for the leader.
    pub(super) fn believed_leader(
        view: Option<&View>,
        (node, acks): (i32, i16),
        (topic, index): (TopicRef<'_>, i32),
        leader: (i32, i32),
    ) -> Result<(), (ErrorCode, Option<(i32, i32)>)> {
        let believed = match view {
            None => leader,
            Some(view) => view.leader(topic, index).map_err(|error| (error, None))?,
        };
        match (believed.0 == node, leader.0 == node) {
            (true, true) => Ok(()),
            (true, false) if acks == -1 => Err((ErrorCode::NOT_ENOUGH_REPLICAS, None)),
            (true, false) => Err((ErrorCode::NOT_LEADER_OR_FOLLOWER, None)),
            (false, _) => Err((ErrorCode::NOT_LEADER_OR_FOLLOWER, Some(believed))),
        }
    }
}
