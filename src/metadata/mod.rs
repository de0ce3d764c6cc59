//! What is known of the cluster: brokers, topics, partition leaders and their epochs.
//!
//! Pure data with one rule book: how an answer changes what was known. The upkeep (when to ask, whom) is the sender's.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::wire::error_code::ErrorCode;
use crate::wire::metadata::MetadataResponse;

/// A 16-byte topic id (KIP-516). All zero: unknown.
pub type TopicId = [u8; 16];

/// Where a broker listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerAddress {
    /// Host name or address literal, as the cluster advertises it.
    pub host: String,
    /// TCP port, 1 to 65535.
    pub port: u16,
}

/// A partition's leader as last heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leader {
    /// Node id; -1 when the partition has no leader now.
    pub node: i32,
    /// Grows by one with each leader change; -1 when the broker is too old to say.
    pub epoch: i32,
}

impl Leader {
    /// Nobody leads, as far as is known.
    pub const NONE: Self = Self { node: -1, epoch: -1 };
}

/// What is known of one topic.
#[derive(Clone, Debug, Default)]
pub struct TopicMetadata {
    /// Its id, or zero.
    pub id: TopicId,
    /// By partition index.
    pub leaders: Vec<Leader>,
}

/// The cluster as last heard.
#[derive(Debug, Default)]
pub struct Cluster {
    /// By node id.
    pub brokers: HashMap<i32, BrokerAddress>,
    /// By name.
    pub topics: HashMap<Arc<str>, TopicMetadata>,
}

/// What a metadata answer said of one topic.
#[derive(Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// Known now, with this many partitions; `recreated` when the name means another topic than before.
    Known { partitions: usize, recreated: bool },
    /// The broker refused or does not know it.
    Refused(ErrorCode),
}

impl Cluster {
    /// Takes over `response` and tells what it said of each topic in it. Older leader epochs are ignored, an answer
    /// without brokers changes nothing (`None`), addresses that cannot be connected to are left out.
    pub fn merge(&mut self, response: &MetadataResponse) -> Option<Vec<(Arc<str>, TopicChange)>> {
        let brokers: HashMap<i32, BrokerAddress> = response
            .brokers
            .iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok().filter(|port| *port != 0)?;
                let host = Some(broker.host.clone()).filter(|host| !host.is_empty())?;
                Some((broker.node_id, BrokerAddress { host, port }))
            })
            .collect();
        if brokers.is_empty() {
            return None;
        }
        self.brokers = brokers;
        let mut changes = Vec::with_capacity(response.topics.len());
        for topic in &response.topics {
            let Some(name) = topic.name.as_deref() else { continue };
            let name = self.topics.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _)| known.clone());
            let change = if topic.error == ErrorCode::NONE || !topic.partitions.is_empty() {
                self.merge_topic(&name, topic)
            } else {
                TopicChange::Refused(topic.error)
            };
            changes.push((name, change));
        }
        Some(changes)
    }

    fn merge_topic(&mut self, name: &Arc<str>, heard: &crate::wire::metadata::Topic) -> TopicChange {
        let known = self.topics.entry(name.clone()).or_default();
        // Without ids (brokers before 2.8) a re-created topic cannot be told from the old one.
        let recreated = known.id != heard.id && known.id != TopicId::default() && heard.id != TopicId::default();
        if recreated {
            known.leaders.clear();
        }
        known.id = heard.id;
        let count = heard.partitions.iter().filter_map(|p| usize::try_from(p.index).ok()).map(|i| i + 1).max();
        // The indexes come from the network: believe as many as there are entries.
        let count = count.unwrap_or(0).min(heard.partitions.len());
        if count > known.leaders.len() {
            known.leaders.resize(count, Leader::NONE);
        }
        for partition in &heard.partitions {
            let leader = Leader { node: partition.leader_id, epoch: partition.leader_epoch };
            let Some(known) = usize::try_from(partition.index).ok().and_then(|at| known.leaders.get_mut(at)) else {
                continue;
            };
            if leader.epoch >= known.epoch || leader.epoch < 0 {
                *known = leader;
            }
        }
        TopicChange::Known { partitions: known.leaders.len(), recreated }
    }

    /// Who leads this partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Leader {
        let leaders = self.topics.get(topic).map(|topic| &topic.leaders);
        leaders.and_then(|all| all.get(usize::try_from(partition).ok()?).copied()).unwrap_or(Leader::NONE)
    }

    /// A leader hint from a Produce answer (KIP-951). True when it is news: a later epoch and a broker whose address
    /// is known.
    pub fn hint(&mut self, topic: &str, partition: i32, leader: Leader) -> bool {
        let known = self.topics.get_mut(topic).and_then(|t| t.leaders.get_mut(usize::try_from(partition).ok()?));
        match known {
            Some(known) if leader.epoch > known.epoch && self.brokers.contains_key(&leader.node) => {
                *known = leader;
                true
            }
            _ => false,
        }
    }
}
