//! What is known of the cluster: brokers, topics, partition leaders and their epochs.
//!
//! Pure data with one rule book: how an answer changes what was known. The upkeep (when to ask, whom) is the sender's.

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

/// The longest host name that can have an address (RFC 1035), with room for what resolvers add.
const HOST_MAX: usize = 255;

impl BrokerAddress {
    /// An address that a cluster named, or why nobody can connect to it. What is kept is fit to be shown.
    pub fn new(host: &str, port: i32) -> Result<Self, String> {
        let unfit = |c: char| c.is_control() || c.is_whitespace();
        match u16::try_from(port) {
            _ if host.is_empty() => Err("an empty host name".to_owned()),
            _ if host.len() > HOST_MAX => Err(format!("a host name of {} bytes", host.len())),
            _ if host.contains(unfit) => Err("a host name with blanks or control characters".to_owned()),
            Err(_) | Ok(0) => Err(format!("port {port}")),
            Ok(port) => Ok(Self { host: host.to_owned(), port }),
        }
    }
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
    /// Takes over `response` and tells what it said of each topic that is `asked` for. Older leader epochs are ignored,
    /// addresses that cannot be connected to are left out, a topic without an error and without a partition says
    /// nothing. An answer without any broker changes nothing; the error says in words what it has instead.
    pub fn merge(
        &mut self,
        response: &MetadataResponse,
        asked: impl Fn(&str) -> bool,
    ) -> Result<Vec<(Arc<str>, TopicChange)>, String> {
        let mut brokers = HashMap::new();
        let mut unfit = None;
        for broker in &response.brokers {
            match BrokerAddress::new(&broker.host, broker.port) {
                Ok(address) => drop(brokers.insert(broker.node_id, address)),
                Err(why) => drop(unfit.get_or_insert_with(|| format!(" (broker {} has {why})", broker.node_id))),
            }
        }
        if brokers.is_empty() {
            return Err(format!("its metadata names no broker to connect to{}", unfit.unwrap_or_default()));
        }
        self.brokers = brokers;
        let mut changes = Vec::new();
        for topic in &response.topics {
            let Some(name) = topic.name.as_deref().filter(|name| asked(name)) else { continue };
            let name = self.topics.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _)| known.clone());
            let change = match topic.partitions.iter().any(|partition| partition.index >= 0) {
                true => self.merge_topic(&name, topic),
                false if topic.error != ErrorCode::NONE => TopicChange::Refused(topic.error),
                false => continue,
            };
            changes.push((name, change));
        }
        Ok(changes)
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
