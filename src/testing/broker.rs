//! The broker as a state machine: one request in, one reply out. All nodes of a cluster share it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::cut_off::View;
use super::decode::{StoredRecord, decode_batch};
use super::log::Log;
use super::options::{BrokerOptions, TopicOptions};
use crate::wire::api_versions::{ApiRange, ApiVersionsResponse};
use crate::wire::codec::WireError;
use crate::wire::error_code::ErrorCode;
use crate::wire::header::ApiKey;
use crate::wire::init_producer_id::InitProducerIdResponse;
use crate::wire::metadata::{Broker as BrokerAddress, MetadataResponse, Partition, Topic};
use crate::wire::server::{self, RequestHeader, api_versions, fetch, find_coordinator, init_producer_id};
use crate::wire::server::{list_offsets, metadata};

/// The id of a model without a server; a server gives each cluster an id of its own.
const CLUSTER_ID: &str = "ringmail-testing";

/// One request that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The node that it was sent to.
    pub node: i32,
    /// The connection it came on: any number that no other connection has.
    pub connection: u64,
    /// The broker's clock, Unix milliseconds.
    pub unix_ms: i64,
    /// Whether a Fetch that finds nothing may be told to wait.
    pub may_wait: bool,
    /// The request without its size.
    pub frame: &'a [u8],
}

/// What to do about a request. The next one of that connection is looked at only when this one is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send the frame that was appended (with its size) after `delay`, then read nothing for `mute`.
    Answer {
        /// How long the work takes.
        delay: Duration,
        /// How long the connection is throttled afterwards.
        mute: Duration,
    },
    /// There is no answer (acks=0).
    Nothing,
    /// Close the connection.
    Close,
    /// Keep the connection open, answer nothing and read nothing more.
    Hang,
    /// Hand the same request in again when something was appended, or after so long with `may_wait` off.
    Wait(Duration),
}

impl Reply {
    /// An answer without any delay.
    pub(super) const AT_ONCE: Self = Self::Answer { delay: Duration::ZERO, mute: Duration::ZERO };
}

/// A partition of a topic.
#[derive(Debug)]
pub(super) struct PartitionState {
    /// Node id, -1 for none.
    pub(super) leader: i32,
    pub(super) leader_epoch: i32,
    pub(super) log: Log,
}

/// A topic.
#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) id: [u8; 16],
    pub(super) options: TopicOptions,
    pub(super) partitions: Vec<PartitionState>,
}

/// A cluster's state, and all that its brokers do. Sans-IO: whoever holds it brings the requests, the time and the
/// connections.
pub struct BrokerModel {
    pub(super) options: BrokerOptions,
    /// Where each node listens, by node id.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) topics: BTreeMap<String, TopicState>,
    pub(super) topic_names: HashMap<[u8; 16], String>,
    topics_made: u64,
    next_producer_id: i64,
    /// Produce requests that were carried out or refused.
    pub(super) produce_requests: u64,
    /// Batches that the fault hook was asked about.
    pub(super) batches_seen: u64,
    /// APIs that single nodes neither offer nor answer, by node id and number.
    denied: HashSet<(i32, i16)>,
    /// What nodes know that are cut off from the controller.
    pub(super) views: HashMap<i32, View>,
}

impl fmt::Debug for BrokerModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerModel").field("options", &self.options).finish_non_exhaustive()
    }
}

impl BrokerModel {
    /// A cluster whose nodes listen at these addresses, node 0 first.
    pub fn new(options: BrokerOptions, addresses: Vec<SocketAddr>) -> Self {
        Self {
            options,
            addresses,
            topics: BTreeMap::new(),
            topic_names: HashMap::new(),
            topics_made: 0,
            next_producer_id: 1000,
            produce_requests: 0,
            batches_seen: 0,
            denied: HashSet::new(),
            views: HashMap::new(),
        }
    }

    /// From now on `node` offers this API, by number, or neither offers nor answers it. A client that knows its versions
    /// is not told.
    pub fn offer_api(&mut self, node: i32, api: i16, offered: bool) {
        if offered {
            self.denied.remove(&(node, api));
        } else {
            self.denied.insert((node, api));
        }
    }

    /// Makes a topic; partition p is led by node p modulo the number of nodes. False when it exists or its name is not
    /// allowed.
    pub fn create_topic(&mut self, name: &str, options: TopicOptions) -> bool {
        if !is_valid_name(name) || self.topics.contains_key(name) {
            return false;
        }
        let nodes = self.addresses.len().max(1) as i32;
        let partition = |index| PartitionState { leader: index % nodes, leader_epoch: 0, log: Log::default() };
        let partitions = (0..options.partitions.max(1)).map(partition).collect();
        self.topics_made += 1;
        let mut id = [0xaa; 16];
        id[8..].copy_from_slice(&self.topics_made.to_be_bytes());
        self.topic_names.insert(id, name.to_owned());
        self.topics.insert(name.to_owned(), TopicState { id, options, partitions });
        true
    }

    /// Deletes a topic. Its id is never used again, its name may be.
    pub fn delete_topic(&mut self, name: &str) -> bool {
        let Some(topic) = self.topics.remove(name) else { return false };
        self.topic_names.remove(&topic.id);
        true
    }

    /// Changes a topic's settings; batches that were stored are not looked at again. False when there is no such topic.
    pub fn configure_topic(&mut self, name: &str, change: impl FnOnce(&mut TopicOptions)) -> bool {
        let Some(topic) = self.topics.get_mut(name) else { return false };
        change(&mut topic.options);
        true
    }

    /// Deletes the records of a partition that lie before an offset. What is known of their producers stays. False when
    /// there is no such partition, or the offset lies behind its end.
    pub fn delete_records(&mut self, topic: &str, partition: i32, before: i64) -> bool {
        self.partition_mut(topic, partition).is_some_and(|state| state.log.delete_before(before))
    }

    /// Adds partitions to a topic, up to `count` in all.
    pub fn grow_topic(&mut self, name: &str, count: i32) -> bool {
        let nodes = self.addresses.len().max(1) as i32;
        let Some(topic) = self.topics.get_mut(name) else { return false };
        for index in topic.partitions.len() as i32..count {
            topic.partitions.push(PartitionState { leader: index % nodes, leader_epoch: 0, log: Log::default() });
        }
        true
    }

    /// Makes `node` (-1: nobody) lead a partition; the leader epoch grows by one. False when there is no such
    /// partition.
    pub fn move_leader(&mut self, topic: &str, partition: i32, node: i32) -> bool {
        let Some(state) = self.partition_mut(topic, partition) else { return false };
        state.leader = node;
        state.leader_epoch += 1;
        true
    }

    /// What a node forgets when it is restarted: of each producer it remembers the last batch alone.
    pub fn restart_node(&mut self, node: i32) {
        let partitions = self.topics.values_mut().flat_map(|topic| &mut topic.partitions);
        partitions.filter(|partition| partition.leader == node).for_each(|partition| partition.log.restart());
    }

    /// Forgets all producers, as after `producer.id.expiration.ms` without a batch.
    pub fn expire_producers(&mut self) {
        let partitions = self.topics.values_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.log.expire_producers());
    }

    /// The records of a partition, in the order of their offsets, read by the independent decoder. Panics when a stored
    /// batch cannot be read: the broker should have refused it.
    pub fn records(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        let mut records = Vec::new();
        for batch in self.log(topic, partition).map_or(&[][..], |log| log.batches()) {
            let decoded = decode_batch(&batch.bytes);
            assert!(decoded.is_ok(), "{topic}/{partition} at offset {}: {decoded:?}", batch.base_offset);
            records.extend(decoded.unwrap_or_default());
        }
        records
    }

    /// The log of a partition.
    pub(super) fn log(&self, topic: &str, partition: i32) -> Option<&Log> {
        let index = usize::try_from(partition).ok()?;
        Some(&self.topics.get(topic)?.partitions.get(index)?.log)
    }

    fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut PartitionState> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get_mut(topic)?.partitions.get_mut(index)
    }

    /// What a node speaks: API, lowest and highest version.
    fn apis(&self, node: i32) -> Vec<ApiRange> {
        let apis = [
            // A real broker offers Produce from 0 and closes the connection on 0 to 2: so does this one.
            (ApiKey::PRODUCE, 0, self.options.produce_max_version),
            (ApiKey::FETCH, fetch::VERSION_MIN, fetch::VERSION_MAX),
            (ApiKey::LIST_OFFSETS, list_offsets::VERSION_MIN, list_offsets::VERSION_MAX),
            (ApiKey::METADATA, 0, 13),
            (ApiKey::FIND_COORDINATOR, 0, find_coordinator::VERSION_MAX),
            (ApiKey::API_VERSIONS, 0, api_versions::VERSION_MAX),
            (ApiKey::INIT_PRODUCER_ID, 0, 5),
        ];
        let denied = |api: i16| self.options.denied_apis.contains(&api) || self.denied.contains(&(node, api));
        let offered = apis.into_iter().filter(|(api, ..)| !denied(api.0));
        offered.map(|(api, min, max)| ApiRange { key: api.0, min, max }).collect()
    }

    /// Carries out one request; an answer is appended to `out`. What cannot be read or is not offered closes the
    /// connection, as it does with Kafka.
    pub fn handle(&mut self, incoming: &Incoming<'_>, out: &mut Vec<u8>) -> Reply {
        let start = out.len();
        let reply = self.dispatch(incoming, out).unwrap_or(Reply::Close);
        if !matches!(reply, Reply::Answer { .. }) {
            out.truncate(start);
        }
        reply
    }

    fn dispatch(&mut self, incoming: &Incoming<'_>, out: &mut Vec<u8>) -> Result<Reply, WireError> {
        if incoming.frame.len() > self.options.socket_request_max_bytes {
            return Ok(Reply::Close);
        }
        let (header, body) = server::request_header(incoming.frame)?;
        let RequestHeader { api, version, correlation_id, .. } = header;
        let offered = self.apis(incoming.node).into_iter().find(|range| range.key == api.0);
        let Some(offered) = offered else { return Ok(Reply::Close) };
        let known = (offered.min..=offered.max).contains(&version);
        if !known && api != ApiKey::API_VERSIONS {
            return Ok(Reply::Close);
        }
        let start = server::begin_response(out, api, version, correlation_id);
        let mut reply = Reply::AT_ONCE;
        match api {
            ApiKey::API_VERSIONS => self.api_versions(incoming.node, version, known.then_some(body), out)?,
            ApiKey::METADATA => self.metadata(incoming.node, version, body, out)?,
            ApiKey::INIT_PRODUCER_ID => self.init_producer_id(version, body, out)?,
            ApiKey::PRODUCE => reply = self.produce(incoming, version, body, out)?,
            ApiKey::FETCH => reply = self.fetch(incoming, version, body, out)?,
            ApiKey::LIST_OFFSETS => self.list_offsets(incoming.node, version, body, out)?,
            ApiKey::FIND_COORDINATOR => {
                find_coordinator::decode_request(body, version)?;
                find_coordinator::encode_response(out, version, ErrorCode::COORDINATOR_NOT_AVAILABLE);
            }
            _ => return Ok(Reply::Close),
        }
        server::end_response(out, start);
        Ok(reply)
    }

    fn api_versions(&self, node: i32, version: i16, body: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), WireError> {
        let Some(body) = body else {
            let apis = self.apis(node).into_iter().filter(|range| range.key == ApiKey::API_VERSIONS.0).collect();
            let error = ErrorCode::UNSUPPORTED_VERSION;
            api_versions::encode_response(out, 0, &ApiVersionsResponse { error, apis, throttle_ms: 0 });
            return Ok(());
        };
        let client = api_versions::decode_request(body, version)?;
        let valid = |text: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            let ends = |c: char| c.is_ascii_alphanumeric();
            text.starts_with(ends) && text.ends_with(ends) && text.chars().all(inner)
        };
        let valid = version < 3 || valid(client.software_name) && valid(client.software_version);
        let error = match client.cluster_id {
            _ if !valid => ErrorCode::INVALID_REQUEST,
            // Both or neither.
            id if id.is_none() != (client.node_id == -1) => ErrorCode::INVALID_REQUEST,
            Some(id) if id != self.cluster_id() || client.node_id != node => ErrorCode::REBOOTSTRAP_REQUIRED,
            _ => ErrorCode::NONE,
        };
        let apis = if error.is_none() { self.apis(node) } else { Vec::new() };
        api_versions::encode_response(out, version, &ApiVersionsResponse { error, apis, throttle_ms: 0 });
        Ok(())
    }

    fn cluster_id(&self) -> &str {
        self.options.cluster_id.as_deref().unwrap_or(CLUSTER_ID)
    }

    fn init_producer_id(&mut self, version: i16, body: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let request = init_producer_id::decode_request(body, version)?;
        let error = match request.transactional_id {
            _ if (request.producer_id == -1) != (request.epoch == -1) => ErrorCode::INVALID_REQUEST,
            None => ErrorCode::NONE,
            Some("") => ErrorCode::INVALID_REQUEST,
            Some(_) => ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        };
        let (producer_id, epoch) = if error.is_none() { (self.next_producer_id, 0) } else { (-1, -1) };
        self.next_producer_id += 1;
        let response = InitProducerIdResponse { throttle_ms: 0, error, producer_id, epoch };
        init_producer_id::encode_response(out, version, &response);
        Ok(())
    }

    fn metadata(&mut self, node: i32, version: i16, body: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let request = metadata::decode_request(body, version)?;
        let brokers = (0..).zip(&self.addresses).map(|(node_id, address)| BrokerAddress {
            node_id,
            host: address.ip().to_string(),
            port: i32::from(address.port()),
            rack: None,
        });
        let brokers = brokers.collect();
        let nameless = |query: &metadata::TopicQuery<'_>| query.name.is_none() && query.id == [0; 16];
        if let Some(queries) = request.topics.as_ref().filter(|queries| queries.iter().any(nameless)) {
            metadata::encode_response(out, version, &failed_metadata(queries));
            return Ok(());
        }
        let topics = match request.topics {
            // Nobody asks one by topic id.
            asked if let Some(view) = self.views.get(&node) => match asked {
                None => view.names().map(|name| view.describe(name)).collect(),
                Some(queries) => {
                    queries.iter().filter_map(|query| query.name).map(|name| view.describe(name)).collect()
                }
            },
            None => self.topics.iter().map(|(name, topic)| describe(name, topic)).collect(),
            Some(queries) => {
                let create = request.auto_create && self.options.auto_create;
                // Each once; and where one is asked for by its id, those without are left out.
                let by_id = queries.iter().any(|query| query.id != [0; 16]);
                let mut seen = HashSet::new();
                let wanted = queries.iter().filter(|query| !by_id || query.id != [0; 16]);
                let once = wanted.filter(|query| seen.insert((query.id, query.name)));
                once.map(|query| self.describe_or_create(query, create)).collect()
            }
        };
        let response = MetadataResponse {
            throttle_ms: 0,
            brokers,
            cluster_id: Some(self.cluster_id().to_owned()),
            controller_id: 0,
            topics,
            error: ErrorCode::NONE,
        };
        metadata::encode_response(out, version, &response);
        Ok(())
    }

    fn describe_or_create(&mut self, query: &metadata::TopicQuery<'_>, create: bool) -> Topic {
        let absent = |error, name: Option<&str>| Topic {
            error,
            name: name.map(str::to_owned),
            id: query.id,
            partitions: Vec::new(),
        };
        // An id wins over a name.
        let Some(name) = query.name.filter(|_| query.id == [0; 16]) else {
            let named = self.topic_names.get(&query.id).and_then(|name| self.topics.get_key_value(name));
            return named
                .map_or_else(|| absent(ErrorCode::UNKNOWN_TOPIC_ID, None), |(name, topic)| describe(name, topic));
        };
        if let Some(topic) = self.topics.get(name) {
            return describe(name, topic);
        }
        if !is_valid_name(name) {
            return absent(ErrorCode::INVALID_TOPIC_EXCEPTION, Some(name));
        }
        if create {
            // It is there for the next request: the first answer of a real broker says so as well.
            let options = self.options.topic.clone();
            self.create_topic(name, options);
        }
        absent(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Some(name))
    }
}

/// What Kafka answers where a topic has neither name nor id: it fails on it, and all topics with it.
fn failed_metadata(queries: &[metadata::TopicQuery<'_>]) -> MetadataResponse {
    let error = ErrorCode::UNKNOWN_SERVER_ERROR;
    let failed = |query: &metadata::TopicQuery<'_>| Topic {
        error,
        name: Some(query.name.unwrap_or("").to_owned()),
        id: query.id,
        partitions: Vec::new(),
    };
    let topics = queries.iter().map(failed).collect();
    MetadataResponse { throttle_ms: 0, brokers: Vec::new(), cluster_id: None, controller_id: -1, topics, error }
}

fn describe(name: &str, topic: &TopicState) -> Topic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| Partition {
        error: if partition.leader < 0 { ErrorCode::LEADER_NOT_AVAILABLE } else { ErrorCode::NONE },
        index,
        leader_id: partition.leader,
        leader_epoch: partition.leader_epoch,
        replicas: 1,
        in_sync: 1,
    });
    Topic { error: ErrorCode::NONE, name: Some(name.to_owned()), id: topic.id, partitions: partitions.collect() }
}

/// Kafka's rule for topic names.
fn is_valid_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(allowed)
}
