//! The control connection: metadata and the producer id. Batches never wait behind it and it never waits behind batches.
//!
//! It goes to whichever broker is likely to answer soonest (`peers` chooses) and stays there until it is lost, idle, or
//! throttled.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Asked, Cause, Peer, Role};
use super::idempotence::Identity;
use super::timers::{Armed, Timer};
use super::transmit::ConnectionId;
use super::{Sender, TopicShared, TopicState};
use crate::error::BrokerError;
use crate::metadata::{Heard, PARTITIONS_MAX, TopicChange};
use crate::wire::error_code::ErrorCode;
use crate::wire::header::ApiKey;
use crate::wire::metadata;

/// So many peers are tried one right after the other. Each has a backoff of its own; further ones wait all the same,
/// for a cluster may name any number of them.
const PEERS_AT_ONCE: u32 = 10;

/// A throttle time that is shorter is waited for, though another broker could be asked.
const WORTH_A_CONNECTION: Duration = Duration::from_secs(1);

/// Upkeep of metadata.
#[derive(Debug, Default)]
pub struct Control {
    /// The connection, once it is begun.
    pub connection: Option<ConnectionId>,
    /// Others that are on their way to its place.
    pub(super) rivals: Vec<ConnectionId>,
    /// A name is looked up for the next of them, beside this one.
    pub(super) rival_looked_up: Option<ConnectionId>,
    /// Questions in a row that were asked elsewhere before they were answered.
    pub(super) overtaken: u32,
    /// Rotates over the peers, so that a bad one is not asked for ever.
    pub(super) turn: usize,
    /// Peers tried in vain since one was of use, and when the next may be.
    vain: u32,
    pub(super) connect_at: Duration,
    pub(super) wanted: bool,
    pub(super) asked: bool,
    pub(super) not_before: Duration,
    pub(super) last_answer: Duration,
    failures: u32,
    /// Answers in a row that told nothing new.
    stale: u32,
    /// Answers in a row that did not help somebody who waits.
    pub(super) lacking: u32,
    /// The last answer did not help: the next question goes to another broker.
    pub(super) leave: bool,
    /// Metadata was asked for last: if a producer id is wanted too, that comes next.
    pub(super) identity_next: bool,
    /// Since when metadata has been wanted and not been got.
    pub(super) wanting_since: Option<Duration>,
    /// The bootstrap servers are asked first, until somebody answers.
    pub(super) bootstrapping: bool,
    /// Who gave the last answer.
    source: Option<Arc<str>>,
    /// Somebody may be waiting for a topic that is known to have another partition.
    pub growth_wanted: bool,
    /// Its timer.
    pub armed: Armed,
    /// The timer that ends the wait for metadata.
    pub recovery_armed: Armed,
}

impl Sender {
    /// This connection is gone, for that reason; `of_use`: it was, or could have been. What was asked on it must be asked
    /// again.
    pub(super) fn lose_control(&mut self, id: ConnectionId, peer: Peer, of_use: bool, trouble: &str) {
        let mut in_vain = !of_use;
        if self.leave_place(Role::Control, peer, id) {
            // A peer that answered once may have fallen silent since: the others come first now.
            in_vain |= std::mem::take(&mut self.control.asked) || matches!(self.identity, Identity::Asked { .. });
            self.lose_identity_request(trouble);
        }
        if in_vain && let Some(endpoint) = self.endpoint(peer) {
            endpoint.asked_in_vain = endpoint.asked_in_vain.saturating_add(1);
        }
        if !of_use {
            self.control_failed();
        }
    }

    /// One more peer was tried in vain.
    pub(super) fn control_failed(&mut self) {
        self.control.vain = self.control.vain.saturating_add(1);
        let beyond = self.control.vain.saturating_sub(PEERS_AT_ONCE);
        let pause = self.reconnect_backoff().after(beyond, self.random.next());
        self.control.connect_at = self.now.monotonic + pause;
    }

    /// The control connection is of use.
    pub(super) fn prove_control(&mut self, id: ConnectionId) {
        if self.control.connection == Some(id) {
            self.control.vain = 0;
        }
    }

    /// Metadata is to be asked for, as soon as the backoff allows.
    pub(super) fn want_metadata(&mut self) {
        let now = self.now.monotonic;
        if !std::mem::replace(&mut self.control.wanted, true) {
            self.control.wanting_since.get_or_insert(now);
            // This turn's look at the control connection may be over.
            self.control.armed.at(&mut self.timers, self.control.not_before.max(now), Timer::Control);
        }
    }

    /// Metadata is to be asked for at once.
    pub(super) fn want_metadata_now(&mut self) {
        self.control.not_before = self.now.monotonic;
        self.want_metadata();
        self.control.armed.at(&mut self.timers, self.now.monotonic, Timer::Control);
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
                    warming: false,
                    named: false,
                    last_used: now,
                });
                // A topic that is new is asked for at once, whatever became of others.
                (self.control.not_before, self.control.failures) = (now, 0);
                self.topics.len() - 1
            }
        };
        let topic = &mut self.topics[at];
        (topic.wanted, topic.last_used) = (true, now);
        self.control.growth_wanted |= !topic.partitions.is_empty();
        self.want_metadata();
        at
    }

    /// Something of this topic leaves: it stays in the metadata requests for another `metadata.max.idle.ms`.
    pub(super) fn use_topic(&mut self, at: u32) {
        let (now, idle) = (self.now.monotonic, self.config.metadata_max_idle);
        if let Some(topic) = self.topics.get_mut(at as usize) {
            // What is known of it may be as old as that.
            let forgotten = now >= std::mem::replace(&mut topic.last_used, now) + idle;
            if forgotten {
                self.want_metadata();
            }
        }
    }

    /// The next step of the control connection's work.
    pub(super) fn step_control(&mut self) {
        let now = self.now.monotonic;
        if self.closed {
            return;
        }
        self.watch_recovery();
        self.refresh_metadata();
        let metadata_due = (self.control.wanted && !self.control.asked).then_some(self.control.not_before);
        let identity_due = match self.identity {
            Identity::Wanted { retry_at, .. } => Some(retry_at),
            _ => None,
        };
        for due in [metadata_due, identity_due].into_iter().flatten().filter(|due| *due > now) {
            self.control.armed.at(&mut self.timers, due, Timer::Control);
        }
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        let (metadata, identity) = (is_due(metadata_due), is_due(identity_due));
        if !metadata && !identity {
            return;
        }
        let Some(id) = self.control.connection else { return self.connect_control() };
        let Some(connection) = self.connections.get(&id) else { return };
        if !connection.can_send(now) || !connection.unanswered.is_empty() {
            let throttle = connection.throttled_until.saturating_sub(now);
            let idle = connection.unanswered.is_empty();
            if idle && throttle > WORTH_A_CONNECTION && self.has_other_peer(id, |other| other.asked_in_vain == 0) {
                self.give_up(id, Cause::Replaced, "throttled: another broker is asked".into());
            }
            return;
        }
        let versions = connection.versions;
        // In turn: metadata that never comes must not keep the producer id from being asked for.
        let identity_first = self.control.identity_next && identity && versions.init_producer_id.is_some();
        if metadata && !identity_first {
            if self.leave_lagging(id) {
                return;
            }
            self.ask_metadata(id, versions.metadata);
        } else if let Some(version) = versions.init_producer_id {
            self.ask_producer_id(id, version);
        } else {
            self.miss_identity(id);
        }
    }

    /// What is known is asked for again when it is `metadata.max.age.ms` old.
    fn refresh_metadata(&mut self) {
        let now = self.now.monotonic;
        if self.topics.is_empty() || self.control.asked {
            return;
        }
        let due = (self.control.last_answer + self.config.metadata_max_age).max(self.control.not_before);
        if now >= due {
            self.want_metadata();
        } else {
            self.control.armed.at(&mut self.timers, due, Timer::Control);
        }
    }

    fn ask_metadata(&mut self, id: ConnectionId, version: i16) {
        let (now, idle) = (self.now.monotonic, self.config.metadata_max_idle);
        (self.control.wanted, self.control.asked, self.control.identity_next) = (false, true, true);
        if now > self.control.last_answer + 2 * self.config.retry_backoff_max {
            // That nothing has changed in a quiet time says nothing of the trouble that there may be now.
            self.control.stale = 0;
        }
        let mut names: Vec<Arc<str>> = Vec::new();
        for topic in &mut self.topics {
            // What has something to send is in use, and so is what somebody may still be waiting for.
            let busy = |id: &u32| {
                let partition = &self.partitions[*id as usize];
                partition.seen.first().is_some() || partition.unacked > 0 || !partition.queue.is_empty()
            };
            let in_use = topic.wanted || topic.shared.is_asked() || now < topic.last_used + idle;
            topic.named = in_use || topic.partitions.iter().any(busy);
            topic.wanted = false;
            if topic.named {
                names.push(topic.shared.name.clone());
            }
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
        let now = self.now.monotonic;
        if response.error != ErrorCode::NONE {
            if response.error == ErrorCode::REBOOTSTRAP_REQUIRED {
                self.start_again("a broker asks for it (REBOOTSTRAP_REQUIRED)", true);
            }
            return Err(format!("it answers Metadata with {}: {}", response.error, response.error.describe()));
        }
        self.doubt_leaders();
        let (before, generation) = (self.cluster.changes(), self.cluster.generation());
        // One without brokers may come from a broker that is starting: another one is asked.
        let Some(connection) = self.connections.get(&id) else { return Ok(()) };
        let heard = Heard { now, from: connection.address };
        let changes = self.cluster.merge(&response, heard, |name| self.topic_index.contains_key(name))?;
        if self.cluster.generation() != generation {
            self.leave_cluster();
        }
        self.control.asked = false;
        if let Some(id) = &response.cluster_id {
            self.shared.cluster.set_id(id);
        }
        // Who waits on asks again.
        self.control.growth_wanted = false;
        self.control.last_answer = now;
        let source = self.connections.get(&id).map(|connection| connection.name.clone());
        self.control.source = source.clone();
        self.prove(id);
        let trouble = self.note_unanswered(&changes);
        let mut troubled = trouble.is_some();
        self.shared.set_trouble(trouble.zip(source.as_ref()).map(|(why, source)| format!("{source}: {why}")));
        self.take_brokers();
        self.note_metadata(None);
        self.throttle(id, response.throttle_ms);
        let (mut missing, mut unsure) = (false, false);
        for (name, change) in changes {
            let Some(at) = self.topic_index.get(&name).map(|at| *at as usize) else { continue };
            match change {
                TopicChange::Known { partitions, recreated } => {
                    troubled |= self.take_topic(at, partitions, recreated);
                    self.fail_gone(at);
                    self.note_topic(&name, None);
                }
                TopicChange::Unsure => {
                    unsure = true;
                    let known = self.topics[at].shared.count() as usize;
                    self.take_topic(at, known, false);
                }
                TopicChange::Refused(error) => {
                    (troubled, missing) = (true, missing | self.topics[at].partitions.is_empty());
                    let error = BrokerError::new(error, None);
                    let error = source.iter().fold(error, |error, source| error.from(source.clone()));
                    self.note_topic(&name, Some(error.to_string()));
                    self.topics[at].shared.set_refused(error);
                }
                TopicChange::TooMany(count) => {
                    self.note_topic(&name, Some(format!("{count} partitions are more than one producer takes")));
                }
            }
        }
        let needed = unsure || self.needs_news();
        let news = self.cluster.changes() != before;
        if news {
            // Whoever did not help before may do now.
            self.control.lacking = 0;
        }
        self.judge_answer(id, needed, missing);
        if troubled || unsure {
            self.metadata_failed();
        } else {
            self.control.failures = 0;
            self.control.stale = if news { 0 } else { self.control.stale.saturating_add(1) };
            // Not again at once, whatever the batches run into; and the later, the longer it has told nothing new.
            let pause = self.retry_backoff().after(self.control.stale.saturating_add(1), self.random.next());
            self.control.not_before = now + pause;
        }
        if needed {
            self.want_metadata();
        }
        self.consider_active();
        Ok(())
    }

    /// Lets those ask again who wait for a topic that the answer says nothing usable of. The first such, in words.
    fn note_unanswered(&self, changes: &[(Arc<str>, TopicChange)]) -> Option<String> {
        let mut first = None;
        let told: std::collections::HashMap<_, _> = changes.iter().map(|(name, change)| (name, change)).collect();
        for topic in self.topics.iter().filter(|topic| topic.named) {
            let name = &topic.shared.name;
            let why = match told.get(name) {
                Some(TopicChange::TooMany(count)) => {
                    format!(
                        "its metadata gives topic '{name}' {count} partitions; one producer takes {PARTITIONS_MAX} in all"
                    )
                }
                None if topic.partitions.is_empty() => format!("its metadata tells no partition of topic '{name}'"),
                _ => continue,
            };
            topic.shared.set_unanswered();
            first.get_or_insert(why);
        }
        first
    }

    /// Why a partition cannot be sent to, in words, as far as that can be said of it alone.
    pub(super) fn trouble_of_partition(&self, id: u32) -> Option<Arc<str>> {
        let partition = self.partitions.get(id as usize)?;
        let leader = partition.leader;
        let source = self.control.source.as_deref().unwrap_or("the cluster");
        if partition.gone_since.is_some() {
            let count = self.cluster.topics.get(&partition.ring.place.topic).map_or(0, |topic| topic.leaders.len());
            return Some(format!("{source}: the topic was created again, and has {count} partitions now").into());
        }
        if leader < 0 {
            return Some(format!("{source}: it names no leader of the partition").into());
        }
        let Some(node) = self.nodes.get(&leader) else {
            return Some(format!("{source}: it names broker {leader} as leader and no address of it").into());
        };
        if let Some(why) = &node.endpoint.trouble {
            return Some(format!("{}:{} (broker {leader}): {why}", node.endpoint.host, node.endpoint.port).into());
        }
        if !self.identity.ready() && partition.sequences.producer().is_none() {
            let why = self.shared.identity_trouble().or_else(|| self.shared.trouble());
            return Some(
                format!("no producer id{}{}", if why.is_some() { "; " } else { "" }, why.unwrap_or_default()).into(),
            );
        }
        let connection = self.connections.get(&node.lane?)?;
        (self.now.monotonic < connection.throttled_until)
            .then(|| format!("{}: {}", connection.name, connection.throttle_words()).into())
    }

    fn metadata_failed(&mut self) {
        self.control.failures = self.control.failures.saturating_add(1);
        self.control.not_before =
            self.now.monotonic + self.retry_backoff().after(self.control.failures, self.random.next());
    }
}
