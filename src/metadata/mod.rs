//! What is known of the cluster: brokers, topics, partition leaders and their epochs.
//!
//! Pure data with one rule book: how an answer changes what was known. The upkeep (when to ask, whom) is the sender's.

mod cluster_name;
#[cfg(all(test, not(loom)))]
mod properties;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub use self::cluster_name::ClusterName;
use crate::wire::error_code::ErrorCode;
use crate::wire::metadata::{MetadataResponse, Topic};

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

/// The most partitions that a producer takes, of all its topics together. Each costs about a kilobyte here and eighteen
/// bytes in an answer, so that an answer must not decide alone.
pub const PARTITIONS_MAX: usize = 100_000;

/// The most brokers that a cluster can have; ten times what any has.
pub const BROKERS_MAX: usize = 20_000;

/// The cluster as last heard.
#[derive(Debug, Default)]
pub struct Cluster {
    /// By node id.
    pub brokers: BTreeMap<i32, BrokerAddress>,
    /// By name.
    pub topics: HashMap<Arc<str>, TopicMetadata>,
    changes: u64,
}

/// What a metadata answer said of one topic.
#[derive(Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// Known now, with this many partitions; `recreated` when the name means another topic than before.
    Known { partitions: usize, recreated: bool },
    /// The broker refused or does not know it.
    Refused(ErrorCode),
    /// It has that many partitions, and together with the other topics more than [`PARTITIONS_MAX`]. Nothing is changed.
    TooMany(usize),
}

/// How many partitions an answer gives a topic. Indexes come from the network: none is believed that the number of
/// entries does not account for.
fn partition_count(heard: &Topic) -> usize {
    let indexes = heard.partitions.iter().filter_map(|partition| usize::try_from(partition.index).ok());
    indexes.filter(|index| *index < heard.partitions.len()).max().map_or(0, |last| last + 1)
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
        if response.brokers.len() > BROKERS_MAX {
            return Err(format!("its metadata names {} brokers; {BROKERS_MAX} are taken", response.brokers.len()));
        }
        let mut brokers = BTreeMap::new();
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
        if self.brokers != brokers {
            self.changes += 1;
            self.brokers = brokers;
        }
        let mut partitions: usize = self.topics.values().map(|topic| topic.leaders.len()).sum();
        let (mut changes, mut told) = (Vec::new(), HashSet::new());
        for topic in &response.topics {
            // The first word on a topic counts: saying it again and again would cost a look at all its partitions each time.
            let Some(name) = topic.name.as_deref().filter(|name| asked(name) && told.insert(*name)) else { continue };
            let name = self.topics.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _)| known.clone());
            let known = self.topics.get(&name).map_or(0, |topic| topic.leaders.len());
            let change = match partition_count(topic) {
                count if count > known && partitions - known + count > PARTITIONS_MAX => TopicChange::TooMany(count),
                count @ 1.. => {
                    let change = self.merge_topic(&name, topic, count);
                    let now = self.topics.get(&name).map_or(0, |topic| topic.leaders.len());
                    partitions = partitions - known + now;
                    change
                }
                0 if topic.error != ErrorCode::NONE => TopicChange::Refused(topic.error),
                0 => continue,
            };
            changes.push((name, change));
        }
        Ok(changes)
    }

    fn merge_topic(&mut self, name: &Arc<str>, heard: &Topic, count: usize) -> TopicChange {
        let known = self.topics.entry(name.clone()).or_default();
        // Without ids (brokers before 2.8) a re-created topic cannot be told from the old one.
        let recreated = known.id != heard.id && known.id != TopicId::default() && heard.id != TopicId::default();
        if recreated {
            known.leaders.clear();
        }
        let mut news = known.id != heard.id || count > known.leaders.len();
        known.id = heard.id;
        if count > known.leaders.len() {
            known.leaders.resize(count, Leader::NONE);
        }
        for partition in &heard.partitions {
            let leader = Leader { node: partition.leader_id, epoch: partition.leader_epoch };
            let Some(known) = usize::try_from(partition.index).ok().and_then(|at| known.leaders.get_mut(at)) else {
                continue;
            };
            if leader.epoch >= known.epoch || leader.epoch < 0 {
                news |= *known != leader;
                *known = leader;
            }
        }
        let change = TopicChange::Known { partitions: known.leaders.len(), recreated };
        self.changes += u64::from(news);
        change
    }

    /// Counts what answers told that was new.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Believes the next answer whatever leader epochs it has: it may be about another cluster.
    pub fn forget_epochs(&mut self) {
        for leader in self.topics.values_mut().flat_map(|topic| &mut topic.leaders) {
            leader.epoch = Leader::NONE.epoch;
        }
    }

    /// Who leads this partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Leader {
        let leaders = self.topics.get(topic).map(|topic| &topic.leaders);
        leaders.and_then(|all| all.get(usize::try_from(partition).ok()?).copied()).unwrap_or(Leader::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::metadata::{Broker, Partition};

    fn broker(node_id: i32, host: &str, port: i32) -> Broker {
        Broker { node_id, host: host.to_owned(), port, rack: None }
    }

    fn partition(index: i32, leader_id: i32, leader_epoch: i32) -> Partition {
        Partition { error: ErrorCode::NONE, index, leader_id, leader_epoch, replicas: 1, in_sync: 1 }
    }

    fn answer(error: ErrorCode, partitions: Vec<Partition>) -> MetadataResponse {
        let topic =
            |name: &str| Topic { error, name: Some(name.to_owned()), id: [1; 16], partitions: partitions.clone() };
        let topics = vec![topic("t"), topic("unasked")];
        MetadataResponse { brokers: vec![broker(1, "host", 9092)], topics, ..MetadataResponse::default() }
    }

    #[test]
    fn addresses_that_nobody_can_connect_to() {
        assert!(BrokerAddress::new("host-1.example", 65_535).is_ok());
        assert!(BrokerAddress::new("::1", 1).is_ok());
        for port in [0, -1, 65_536, 70_000, i32::MIN, i32::MAX] {
            assert_eq!(BrokerAddress::new("host", port), Err(format!("port {port}")));
        }
        for host in ["", "a b", "a\nb", "\x1b[2J", &"h".repeat(256)] {
            assert!(BrokerAddress::new(host, 9092).is_err_and(|why| why.contains("host name")), "{host}");
        }
    }

    #[test]
    fn an_answer_without_a_broker_changes_nothing() {
        let mut cluster = Cluster::default();
        cluster.merge(&answer(ErrorCode::NONE, vec![partition(0, 1, 1)]), |_| true).unwrap();
        let spoiled = MetadataResponse { brokers: vec![broker(3, "host", 0)], ..answer(ErrorCode::NONE, vec![]) };
        let error = cluster.merge(&spoiled, |_| true).unwrap_err();
        assert_eq!(error, "its metadata names no broker to connect to (broker 3 has port 0)");
        assert_eq!((cluster.brokers.len(), cluster.leader("t", 0).node), (1, 1));
    }

    #[test]
    fn indexes_and_names_from_the_network_allocate_nothing() {
        let mut cluster = Cluster::default();
        let partitions = [i32::MAX, 1_000_000_000, -1, i32::MIN, 0, 0].map(|index| partition(index, 1, 0)).to_vec();
        let changes = cluster.merge(&answer(ErrorCode::NONE, partitions), |name| name == "t").unwrap();
        // One: no other index is accounted for by the entries.
        assert_eq!(changes, [("t".into(), TopicChange::Known { partitions: 1, recreated: false })]);
        assert_eq!((cluster.leader("t", 0).node, cluster.leader("t", 1)), (1, Leader::NONE));
        assert_eq!(cluster.topics.len(), 1);
    }

    #[test]
    fn a_topic_without_partitions_says_nothing_but_its_error() {
        let mut cluster = Cluster::default();
        cluster.merge(&answer(ErrorCode::NONE, vec![partition(0, 1, 1)]), |_| true).unwrap();
        for partitions in [vec![], vec![partition(-1, 1, 1)], vec![partition(i32::MAX, 1, 1)]] {
            assert_eq!(cluster.merge(&answer(ErrorCode::NONE, partitions), |_| true), Ok(vec![]));
        }
        let changes = cluster.merge(&answer(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, vec![]), |name| name == "t");
        assert_eq!(changes, Ok(vec![("t".into(), TopicChange::Refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))]));
        assert_eq!(cluster.leader("t", 0).node, 1, "what was known stays");
    }
}
