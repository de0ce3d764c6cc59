//! What is known of the cluster: brokers, topics, partition leaders and their epochs.
//!
//! Pure data with one rule book: how an answer changes what was known. The upkeep (when to ask, whom) is the sender's.

mod cluster_name;
mod doubt;
#[cfg(all(test, not(loom)))]
mod properties;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use self::cluster_name::ClusterName;
use crate::wire::error_code::ErrorCode;
use crate::wire::metadata::{MetadataResponse, Topic};
use doubt::{Another, Doubt};
pub use doubt::{BELIEVED, Heard};

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
#[derive(Debug, Default)]
pub struct TopicMetadata {
    /// Its id, or zero.
    pub id: TopicId,
    /// By partition index.
    pub leaders: Vec<Leader>,
    /// A broker that should know the id has said that it does not.
    id_refused: bool,
    /// Answers tell another id, or, without any, so many partitions that are fewer.
    another: Option<Another<(TopicId, usize)>>,
    /// Ids that it had before, the newest last.
    former: Vec<TopicId>,
}

/// So many former ids of a topic are kept.
const FORMER_IDS: usize = 4;

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
    /// Its id, if brokers tell it.
    id: Option<String>,
    /// Answers tell another one.
    another: Option<Another<String>>,
    /// How often that was believed.
    generation: u32,
    /// Leaders that are of no use, by topic and partition.
    doubts: HashMap<(Arc<str>, i32), Doubt>,
    /// What is known of a leader that is of no use gives way to an earlier epoch however near that is. Else only to one that
    /// is so far behind that what is known makes no sense: with `acks` 0 or 1 a leader that was replaced and does not know
    /// it yet acknowledges what will be lost.
    any_epoch_back: bool,
}

/// What a metadata answer said of one topic.
#[derive(Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// Known now, with this many partitions; `recreated` when the name means another topic than before.
    Known { partitions: usize, recreated: bool },
    /// The broker refused or does not know it.
    Refused(ErrorCode),
    /// It has another id than the one that is known, which may be a slip: nothing is changed until another answer says so too.
    Unsure,
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
    /// Nothing is known yet. `acks_all`: what is acknowledged is replicated.
    pub fn new(acks_all: bool) -> Self {
        Self { any_epoch_back: acks_all, ..Self::default() }
    }

    /// Takes over `response`, heard then and there, and tells what it said of each topic that is `asked` for. Older leader
    /// epochs are ignored unless what is known is doubted, addresses that cannot be connected to are left out, a topic
    /// without an error and without a partition says nothing. An answer without any broker, or of another cluster, changes
    /// nothing; the error says in words what it has instead.
    pub fn merge(
        &mut self,
        response: &MetadataResponse,
        heard: Heard,
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
        if let Some(id) = &response.cluster_id {
            self.hear_cluster(id, heard)?;
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
                    let change = self.merge_topic(&name, topic, count, heard);
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

    /// An answer comes from the cluster with this id.
    fn hear_cluster(&mut self, id: &str, heard: Heard) -> Result<(), String> {
        match &self.id {
            Some(known) if known != id => {
                if !Another::hear(&mut self.another, id.to_owned(), heard).is_told_for_long(heard.now) {
                    return Err(format!("it belongs to cluster '{id}', and the others to '{known}'"));
                }
                self.generation += 1;
                self.forget_epochs();
                self.topics.values_mut().for_each(|topic| topic.id_refused = true);
                self.id = Some(id.to_owned());
            }
            Some(_) => {}
            None => self.id = Some(id.to_owned()),
        }
        self.another = None;
        Ok(())
    }

    /// Whether `topic` means another one than the one that is known by its name: `None` when that is not sure.
    fn is_another(&mut self, name: &Arc<str>, topic: &Topic, count: usize, heard: Heard) -> Option<bool> {
        let none = TopicId::default();
        let Some(known) = self.topics.get_mut(name) else { return Some(false) };
        let fewer = known.id == none && topic.id == none && count < known.leaders.len();
        let differs = known.id != topic.id && known.id != none && topic.id != none;
        if !fewer && !differs {
            // It may be an old answer that tells once more what brokers refuse.
            known.another.take_if(|_| !known.id_refused);
            return Some(false);
        }
        // Something of the topic that is known is of no use; of its last partitions, where those are gone.
        let from = if fewer { count as i32 } else { 0 };
        let useless = known.id_refused || self.doubts.keys().any(|(of, index)| of == name && *index >= from);
        let another = Another::hear(&mut known.another, if fewer { (none, count) } else { (topic.id, 0) }, heard);
        let sure = if fewer {
            // Without ids (brokers before 2.8) a topic that was created again shows only where it has fewer partitions.
            useless && another.is_told_for_long(heard.now)
        } else if known.former.contains(&topic.id) {
            // What was replaced does not come back, unless what replaced it was a slip.
            useless && another.is_told_for_long(heard.now)
        } else {
            useless || another.is_told_by_several() || another.is_told_for_long(heard.now)
        };
        // Fewer partitions are no news until they are believed.
        if sure { Some(true) } else { fewer.then_some(false) }
    }

    fn merge_topic(&mut self, name: &Arc<str>, topic: &Topic, count: usize, heard: Heard) -> TopicChange {
        let Some(recreated) = self.is_another(name, topic, count, heard) else { return TopicChange::Unsure };
        let known = self.topics.entry(name.clone()).or_default();
        if recreated {
            known.leaders.clear();
            (known.id_refused, known.another) = (false, None);
            known.former.push(known.id);
            known.former.retain(|id| *id != topic.id && *id != TopicId::default());
            known.former.drain(..known.former.len().saturating_sub(FORMER_IDS));
            self.doubts.retain(|(of, _), _| of != name);
        }
        let tells_id = topic.id != TopicId::default();
        let mut news = recreated || tells_id && known.id != topic.id || count > known.leaders.len();
        if tells_id {
            known.id = topic.id;
        }
        if count > known.leaders.len() {
            known.leaders.resize(count, Leader::NONE);
        }
        for partition in &topic.partitions {
            let leader = Leader { node: partition.leader_id, epoch: partition.leader_epoch };
            let Some(known) = usize::try_from(partition.index).ok().and_then(|at| known.leaders.get_mut(at)) else {
                continue;
            };
            let doubt = match self.doubts.is_empty() {
                true => None,
                false => self.doubts.get_mut(&(name.clone(), partition.index)).filter(|doubt| doubt.is_of(*known)),
            };
            if leader.epoch >= known.epoch || leader.epoch < 0 {
                news |= *known != leader;
                doubt.filter(|_| *known == leader).into_iter().for_each(Doubt::confirm);
                *known = leader;
            } else if let Some(leader) =
                doubt.and_then(|doubt| doubt.contradict(leader, heard.now, self.any_epoch_back))
            {
                news = true;
                *known = leader;
            }
        }
        let change = TopicChange::Known { partitions: known.leaders.len(), recreated };
        self.changes += u64::from(news);
        change
    }

    /// The leader that is known of this partition refuses, or nobody can connect to it.
    pub fn doubt(&mut self, topic: &Arc<str>, partition: i32, now: Duration) {
        let leader = self.leader(topic, partition);
        let doubt = self.doubts.entry((topic.clone(), partition)).or_insert_with(|| Doubt::new(leader, now));
        if !doubt.is_of(leader) {
            *doubt = Doubt::new(leader, now);
        }
    }

    /// Since when the leader that is known, or the one before, has been of no use.
    #[cfg(feature = "testing")]
    pub fn doubted_since(&self, topic: &Arc<str>, partition: i32) -> Option<Duration> {
        self.doubts.get(&(topic.clone(), partition)).map(Doubt::since)
    }

    /// The leader that is known of this partition is of use, or nobody needs it.
    pub fn trust(&mut self, topic: &Arc<str>, partition: i32) {
        if !self.doubts.is_empty() {
            self.doubts.remove(&(topic.clone(), partition));
        }
    }

    /// A broker that should know this topic by its id does not.
    pub fn refuse_id(&mut self, topic: &str, id: TopicId) {
        if let Some(topic) = self.topics.get_mut(topic).filter(|topic| topic.id == id && id != TopicId::default()) {
            topic.id_refused = true;
        }
    }

    /// Counts the clusters that were believed one after the other.
    pub fn generation(&self) -> u32 {
        self.generation
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
        (self.id, self.another) = (None, None);
        self.doubts.clear();
    }

    /// Believes the next answer on the leaders that are of no use, whatever epochs it has.
    pub fn forget_doubted_epochs(&mut self) {
        for ((topic, partition), _) in self.doubts.drain() {
            let leaders = self.topics.get_mut(&topic).map(|topic| &mut topic.leaders);
            if let Some(leader) = leaders.and_then(|all| all.get_mut(usize::try_from(partition).ok()?)) {
                leader.epoch = Leader::NONE.epoch;
            }
        }
        (self.id, self.another) = (None, None);
    }

    /// Who leads this partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Leader {
        let leaders = self.topics.get(topic).map(|topic| &topic.leaders);
        leaders.and_then(|all| all.get(usize::try_from(partition).ok()?).copied()).unwrap_or(Leader::NONE)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;
    use crate::wire::metadata::{Broker, Partition};

    const HEARD: Heard = Heard { now: Duration::ZERO, from: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1) };

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
        cluster.merge(&answer(ErrorCode::NONE, vec![partition(0, 1, 1)]), HEARD, |_| true).unwrap();
        let spoiled = MetadataResponse { brokers: vec![broker(3, "host", 0)], ..answer(ErrorCode::NONE, vec![]) };
        let error = cluster.merge(&spoiled, HEARD, |_| true).unwrap_err();
        assert_eq!(error, "its metadata names no broker to connect to (broker 3 has port 0)");
        assert_eq!((cluster.brokers.len(), cluster.leader("t", 0).node), (1, 1));
    }

    #[test]
    fn indexes_and_names_from_the_network_allocate_nothing() {
        let mut cluster = Cluster::default();
        let partitions = [i32::MAX, 1_000_000_000, -1, i32::MIN, 0, 0].map(|index| partition(index, 1, 0)).to_vec();
        let changes = cluster.merge(&answer(ErrorCode::NONE, partitions), HEARD, |name| name == "t").unwrap();
        // One: no other index is accounted for by the entries.
        assert_eq!(changes, [("t".into(), TopicChange::Known { partitions: 1, recreated: false })]);
        assert_eq!((cluster.leader("t", 0).node, cluster.leader("t", 1)), (1, Leader::NONE));
        assert_eq!(cluster.topics.len(), 1);
    }

    #[test]
    fn a_topic_without_partitions_says_nothing_but_its_error() {
        let mut cluster = Cluster::default();
        cluster.merge(&answer(ErrorCode::NONE, vec![partition(0, 1, 1)]), HEARD, |_| true).unwrap();
        for partitions in [vec![], vec![partition(-1, 1, 1)], vec![partition(i32::MAX, 1, 1)]] {
            assert_eq!(cluster.merge(&answer(ErrorCode::NONE, partitions), HEARD, |_| true), Ok(vec![]));
        }
        let changes = cluster.merge(&answer(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, vec![]), HEARD, |name| name == "t");
        assert_eq!(changes, Ok(vec![("t".into(), TopicChange::Refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))]));
        assert_eq!(cluster.leader("t", 0).node, 1, "what was known stays");
    }
}
