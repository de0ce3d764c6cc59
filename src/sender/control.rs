//! The control connection: metadata and the producer id. It goes to any broker that can be reached, first those that
//! the cluster named, then the bootstrap servers; batches never wait behind it and it never waits behind batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connection::{Asked, Peer, Role};
use super::endpoint::Step;
use super::idempotence::{Identity, ProducerEpoch, ProducerId};
use super::in_flight::PartitionState;
use super::lanes::Node;
use super::timers::{Armed, Timer};
use super::transmit::{Action, ConnectionId};
use super::{Sender, TopicShared, TopicState};
use crate::error::BrokerError;
use crate::metadata::TopicChange;
use crate::record::Place;
use crate::wire::error_code::ErrorCode;
use crate::wire::header::ApiKey;
use crate::wire::{init_producer_id, metadata};

/// Upkeep of metadata.
#[derive(Debug, Default)]
pub struct Control {
    connection: Option<ConnectionId>,
    /// Rotates over the peers, so that a bad one is not asked for ever.
    turn: usize,
    wanted: bool,
    asked: bool,
    not_before: Duration,
    last_answer: Duration,
    failures: u32,
    /// Its timer.
    pub armed: Armed,
}

impl Control {
    /// This connection is gone.
    pub fn lost(&mut self, id: ConnectionId) {
        if self.connection == Some(id) {
            self.connection = None;
            self.asked = false;
        }
    }
}

impl Sender {
    /// Metadata is to be asked for, as soon as the backoff allows.
    pub(super) fn want_metadata(&mut self) {
        self.control.wanted = true;
    }

    /// Somebody asked for this topic.
    pub(super) fn want_topic(&mut self, shared: &Arc<TopicShared>) -> usize {
        let now = self.now.monotonic;
        let at = match self.topic_index.get(&shared.name) {
            Some(at) => *at as usize,
            None => {
                self.topic_index.insert(shared.name.clone(), self.topics.len() as u32);
                self.unknown_topics += 1;
                self.topics.push(TopicState {
                    shared: shared.clone(),
                    partitions: Vec::new(),
                    limit: self.config.max_request_size,
                    log_append_time: false,
                    wanted: true,
                    last_used: now,
                });
                // A topic that is new is asked for at once, whatever became of others.
                (self.control.not_before, self.control.failures) = (now, 0);
                self.topics.len() - 1
            }
        };
        let topic = &mut self.topics[at];
        (topic.wanted, topic.last_used) = (true, now);
        self.want_metadata();
        at
    }

    /// The next step of the control connection's work.
    pub(super) fn step_control(&mut self) {
        let now = self.now.monotonic;
        if self.closed {
            return;
        }
        let due = (self.control.last_answer + self.config.metadata_max_age).max(self.control.not_before);
        if !self.control.asked && !self.topics.is_empty() && now >= due {
            self.control.wanted = true;
        }
        let identity_due = match self.identity {
            Identity::Wanted { retry_at, .. } => Some(retry_at),
            _ => None,
        };
        let metadata_due = (self.control.wanted && !self.control.asked).then_some(self.control.not_before);
        let next = [identity_due, metadata_due].into_iter().flatten().min();
        let Some(next) = next else {
            // An answer that is due looks again by itself.
            if !self.topics.is_empty() && !self.control.asked {
                self.control.armed.at(&mut self.timers, due, Timer::Control);
            }
            return;
        };
        if now < next {
            return self.control.armed.at(&mut self.timers, next, Timer::Control);
        }
        let Some(id) = self.control.connection else { return self.connect_control() };
        let Some(connection) = self.connections.get(&id) else { return };
        if !connection.can_send(now) || !connection.unanswered.is_empty() {
            return;
        }
        let versions = connection.versions;
        if metadata_due.is_some_and(|due| due <= now) {
            self.ask_metadata(id, versions.metadata);
        } else if let Some(version) = versions.init_producer_id {
            self.ask_producer_id(id, version);
        } else {
            let why = "the broker has no InitProducerId; set enable.idempotence=false for brokers before 0.11";
            self.shared.set_trouble(Some(why.into()));
        }
    }

    fn connect_control(&mut self) {
        let now = self.now.monotonic;
        let mut nodes: Vec<i32> = self.nodes.keys().copied().collect();
        nodes.sort_unstable();
        let turn = self.control.turn;
        let rotated = |len: usize| (0..len).map(move |at| (at + turn) % len);
        let peers = rotated(nodes.len()).map(|at| Peer::Node(nodes[at]));
        let peers: Vec<Peer> = peers.chain(rotated(self.bootstrap.len()).map(Peer::Bootstrap)).collect();
        let mut earliest: Option<Duration> = None;
        for peer in peers {
            let Some(endpoint) = self.endpoint(peer) else { continue };
            match endpoint.step(now) {
                Step::Connect(address) => {
                    let name = format!("{}:{}", endpoint.host, endpoint.port);
                    self.control.turn = self.control.turn.wrapping_add(1);
                    self.control.connection = Some(self.connect(Role::Control, peer, address, name));
                    return;
                }
                Step::Resolve => {
                    let (host, port) = (endpoint.host.clone(), endpoint.port);
                    self.actions.push_back(Action::Resolve { host, port });
                    return;
                }
                Step::Resolving => return,
                Step::Wait(until) => earliest = Some(earliest.map_or(until, |at| at.min(until))),
            }
        }
        if let Some(until) = earliest {
            self.control.armed.at(&mut self.timers, until, Timer::Control);
        }
    }

    fn ask_metadata(&mut self, id: ConnectionId, version: i16) {
        let (now, idle) = (self.now.monotonic, self.config.metadata_max_idle);
        (self.control.wanted, self.control.asked) = (false, true);
        let mut names: Vec<Arc<str>> = Vec::new();
        for topic in &mut self.topics {
            // What has something to send is in use, and so is what somebody may still be waiting for.
            let busy = |id: &u32| {
                let partition = &self.partitions[*id as usize];
                partition.seen.first().is_some() || partition.unacked > 0 || !partition.queue.is_empty()
            };
            let in_use = topic.wanted || topic.partitions.is_empty() || now < topic.last_used + idle;
            if in_use || topic.partitions.iter().any(busy) {
                names.push(topic.shared.name.clone());
            }
            topic.wanted = false;
        }
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let auto_create = self.config.allow_auto_create;
        self.ask(id, ApiKey::METADATA, version, Asked::Metadata { version }, |out| {
            metadata::encode_request(out, version, Some(&names), auto_create);
        });
    }

    /// Reads a metadata answer and passes on what changed.
    pub(super) fn read_metadata(&mut self, id: ConnectionId, version: i16, body: &[u8]) -> Result<(), String> {
        let response = metadata::decode_response(body, version)
            .map_err(|error| format!("its metadata cannot be read: {error}"))?;
        self.throttle(id, response.throttle_ms);
        let now = self.now.monotonic;
        self.control.asked = false;
        let Some(changes) = self.cluster.merge(&response) else {
            // A broker that is starting, say: ask again.
            self.metadata_failed();
            self.want_metadata();
            return Ok(());
        };
        self.control.last_answer = now;
        let mut troubled = false;
        self.take_brokers();
        for (name, change) in changes {
            let Some(at) = self.topic_index.get(&name).map(|at| *at as usize) else { continue };
            match change {
                TopicChange::Known { partitions, recreated } => troubled |= self.take_topic(at, partitions, recreated),
                TopicChange::Refused(error) => {
                    troubled = true;
                    self.topics[at].shared.set_refused(error);
                }
            }
        }
        if troubled {
            self.metadata_failed();
            let needed = self.topics.iter().any(|topic| topic.partitions.iter().any(|id| self.needs_leader(*id)));
            self.control.wanted |= needed;
        } else {
            self.control.failures = 0;
            // Not again at once, whatever the batches run into.
            self.control.not_before = now + self.config.retry_backoff;
        }
        self.consider_active();
        Ok(())
    }

    fn metadata_failed(&mut self) {
        self.control.failures = self.control.failures.saturating_add(1);
        self.control.not_before =
            self.now.monotonic + self.retry_backoff().after(self.control.failures, self.random.next());
    }

    fn needs_leader(&self, id: u32) -> bool {
        let partition = &self.partitions[id as usize];
        partition.leader < 0 && (partition.active || !partition.queue.is_empty())
    }

    fn take_brokers(&mut self) {
        for (id, address) in &self.cluster.brokers {
            match self.nodes.get_mut(id) {
                Some(node) if node.endpoint.host == address.host && node.endpoint.port == address.port => {}
                Some(node) => node.endpoint = super::Endpoint::new(&address.host, address.port),
                None => {
                    self.nodes.insert(*id, Node::new(&address.host, address.port));
                }
            }
        }
    }

    /// True when a partition of it has no leader.
    fn take_topic(&mut self, at: usize, count: usize, recreated: bool) -> bool {
        let topic = &mut self.topics[at];
        let name = topic.shared.name.clone();
        if recreated {
            tracing::warn!(topic = %name, "the topic was deleted and created again; unsent records go to the new one");
        }
        if topic.partitions.is_empty() && count > 0 {
            self.unknown_topics -= 1;
        }
        for index in topic.partitions.len()..count {
            let place = Arc::new(Place { topic: name.clone(), partition: index as i32 });
            let ring = self.drain.add_partition(place);
            topic.partitions.push(ring.id);
            debug_assert_eq!(ring.id as usize, self.partitions.len(), "ids count up");
            ring.limit.store(topic.limit, Ordering::Relaxed);
            ring.leave_at.store(self.config.batch_size, Ordering::Relaxed);
            topic.shared.push(index as u32, ring.clone());
            self.partitions.push(PartitionState::new(ring, at as u32));
        }
        let ids = topic.partitions.clone();
        let shared = topic.shared.clone();
        let mut leaderless = false;
        for (index, id) in ids.iter().enumerate() {
            let leader = self.cluster.leader(&name, index as i32);
            leaderless |= leader.node < 0;
            if recreated {
                self.partitions[*id as usize].sequences.leader_changed();
            }
            self.set_leader(*id, leader);
        }
        shared.publish(count as u32);
        leaderless
    }

    /// Takes over a leader; a retry need not wait for its backoff when it is a new one (KIP-951).
    pub(super) fn set_leader(&mut self, id: u32, leader: crate::metadata::Leader) {
        let partition = &mut self.partitions[id as usize];
        if partition.leader == leader.node && partition.leader_epoch == leader.epoch {
            return;
        }
        if partition.leader != leader.node {
            self.drain.set_leader(id, leader.node);
            partition.sequences.leader_changed();
            // Its place is in the new leader's list; the old one may never be served again.
            if std::mem::take(&mut partition.listed)
                && let Some(node) = self.nodes.get_mut(&partition.leader)
            {
                node.ready.retain(|listed| *listed != id);
            }
        }
        (partition.leader, partition.leader_epoch) = (leader.node, leader.epoch);
        partition.retry_at = Duration::ZERO;
        if partition.active || !partition.queue.is_empty() {
            self.consider(id);
        }
    }

    fn ask_producer_id(&mut self, id: ConnectionId, version: i16) {
        let Identity::Wanted { failures, .. } = self.identity else { return };
        self.identity = Identity::Asked { failures };
        self.ask(id, ApiKey::INIT_PRODUCER_ID, version, Asked::InitProducerId { version }, |out| {
            init_producer_id::encode_request(out, version, None, i32::MAX, -1, -1);
        });
    }

    /// Reads the answer to InitProducerId.
    pub(super) fn read_producer_id(&mut self, id: ConnectionId, version: i16, body: &[u8]) -> Result<(), String> {
        let response = match init_producer_id::decode_response(body, version) {
            Ok(response) => response,
            Err(error) => {
                self.lose_identity_request();
                return Err(format!("its producer id cannot be read: {error}"));
            }
        };
        self.throttle(id, response.throttle_ms);
        if response.error == ErrorCode::NONE && response.producer_id >= 0 {
            self.identity = Identity::Known(ProducerId(response.producer_id), ProducerEpoch(response.epoch.max(0)));
            self.shared.identified.store(true, Ordering::Release);
            self.shared.changed.wake_all();
            self.consider_active();
            return Ok(());
        }
        self.lose_identity_request();
        let error = BrokerError::new(response.error, None);
        self.shared.set_trouble(Some(format!("no producer id: {error}")));
        if !response.error.is_retriable() {
            self.fail_everything_queued(&error);
        }
        self.step_control();
        Ok(())
    }

    /// The producer id must be asked for again.
    pub(super) fn lose_identity_request(&mut self) {
        if let Identity::Asked { failures } = self.identity {
            let failures = failures + 1;
            let retry_at = self.now.monotonic + self.retry_backoff().after(failures, self.random.next());
            self.identity = Identity::Wanted { retry_at, failures };
        }
    }
}
