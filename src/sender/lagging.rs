//! Brokers that answer and know only what was. A metadata answer helps whoever waits, or it does not: then the next
//! question goes to another broker, and once nobody's answers have helped for `metadata.recovery.rebootstrap.trigger.ms`
//! everything starts again from the bootstrap servers. The pauses between questions stay as they are.
//!
//! Whoever waits: a partition with something to send whose leader nobody knows, cannot be connected to, or refused, under
//! the very leader epoch that the answer names again; and a caller for a topic that the answer does not know.

use std::time::Duration;

use super::Sender;
use super::connection::{Cause, Role, State};
use super::endpoint::Step;
use super::in_flight::Batch;
use super::steps::{self, stepped};
use super::transmit::ConnectionId;
use crate::metadata::Leader;
use crate::wire::error_code::ErrorCode;

/// A look-up or a connection that takes longer than this may never come to an end: the broker may be replaced by now.
pub const SLOW_SETUP: Duration = Duration::from_secs(1);

/// So many failures in a row, whatever the errors, put a leader in doubt. One that is cut off from the other brokers may
/// answer NOT_ENOUGH_REPLICAS, or nothing, and never that it leads no more.
const FAILURES: u32 = 2;

/// So many more questions a broker is asked at most before it is left, where nobody's answers help.
const QUESTIONS_MAX: u32 = 10;

impl Sender {
    /// A leader refused this batch because of what we know of leaders or topics.
    pub(super) fn note_refusal(&mut self, batch: &Batch, error: ErrorCode) {
        let partition = &mut self.partitions[batch.partition as usize];
        if batch.node == partition.leader {
            partition.refused = Some(Leader { node: partition.leader, epoch: partition.leader_epoch });
        }
        let unknown =
            [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::INCONSISTENT_TOPIC_ID];
        if unknown.contains(&error) {
            self.cluster.refuse_id(&partition.ring.place.topic, batch.topic_id);
        }
    }

    /// The partition's leader has failed once more.
    pub(super) fn suspect_leader(&mut self, id: u32) {
        let partition = &mut self.partitions[id as usize];
        if partition.failures >= FAILURES {
            partition.refused = Some(Leader { node: partition.leader, epoch: partition.leader_epoch });
            self.want_metadata();
        }
    }

    /// It has something to send and nobody to send it to.
    fn lacks_leader(&self, id: u32) -> bool {
        let partition = &self.partitions[id as usize];
        let warming = self.topics[partition.topic as usize].warming;
        let waits = partition.seen.first().is_some() || !partition.queue.is_empty() || warming;
        let leader = Leader { node: partition.leader, epoch: partition.leader_epoch };
        let refused = partition.failures > 0 && partition.refused == Some(leader);
        waits && (refused || self.is_out_of_reach(leader.node))
    }

    pub(super) fn is_out_of_reach(&self, node: i32) -> bool {
        let now = self.now.monotonic;
        let Some(node) = self.nodes.get(&node) else { return true };
        match node.lane.and_then(|lane| self.connections.get(&lane)) {
            Some(lane) if lane.state == State::Ready => false,
            Some(lane) => node.endpoint.trouble.is_some() || now >= lane.begun() + SLOW_SETUP,
            None => match node.endpoint.peek(now) {
                Step::Resolving(since) if now >= since + SLOW_SETUP => true,
                _ => node.endpoint.trouble.is_some(),
            },
        }
    }

    /// Some partition does.
    pub(super) fn needs_news(&self) -> bool {
        self.topics.iter().flat_map(|topic| &topic.partitions).any(|id| self.lacks_leader(*id))
    }

    /// Before an answer is taken over: leaders that are of no use may give way to older ones that it names. One that is
    /// tried again stays in doubt until it is of use.
    pub(super) fn doubt_leaders(&mut self) {
        let now = self.now.monotonic;
        for id in 0..self.partitions.len() as u32 {
            let partition = &self.partitions[id as usize];
            let place = partition.ring.place.clone();
            let known = self.cluster.leader(&place.topic, place.partition);
            let tried_again = partition.unacked > 0 && partition.failures > 0;
            if partition.leader == known.node && self.lacks_leader(id) {
                self.cluster.doubt(&place.topic, place.partition, now);
            } else if partition.leader != known.node || !tried_again {
                self.cluster.trust(&place.topic, place.partition);
            }
        }
    }

    /// An answer came on connection `id`. `needed`: it did not help a partition that waits; `missing`: it does not know a
    /// topic that somebody waits for.
    pub(super) fn judge_answer(&mut self, id: ConnectionId, needed: bool, missing: bool) {
        if !needed {
            self.control.wanting_since = None;
        }
        self.control.lacking = if needed || missing { self.control.lacking.saturating_add(1) } else { 0 };
        // A topic that is not there may be about to be created, or not exist: other brokers are asked once each.
        let others = 2..self.nodes.len() as u32 + 2;
        self.control.leave = needed || missing && others.contains(&self.control.lacking);
        let Some(connection) = self.connections.get(&id) else { return };
        let (peer, address, leave) = (connection.peer, connection.address, self.control.leave);
        if let Some(endpoint) = self.endpoint(peer) {
            endpoint.asked_in_vain = 0;
        }
        self.each_endpoint_at(peer, address, |endpoint| {
            endpoint.lagging = if leave { endpoint.lagging.saturating_add(1) } else { 0 };
        });
    }

    /// Before metadata is asked for on connection `id`: if its last answer did not help, another broker is asked, one of
    /// those that were asked in vain less often. Once all were, nobody may know better: each is asked a few times more before
    /// it is left, so that connections are not made for every question. True: this connection is given up.
    pub(super) fn leave_lagging(&mut self, id: ConnectionId) -> bool {
        if !std::mem::take(&mut self.control.leave) {
            return false;
        }
        let peer = self.connections.get(&id).map(|connection| connection.peer);
        let own = peer.and_then(|peer| self.known_endpoint(peer)).map_or(0, |endpoint| endpoint.in_vain());
        let rounds = (self.control.lacking / self.nodes.len().max(1) as u32).min(QUESTIONS_MAX);
        let leaves = self.has_other_peer(id, |other| other.in_vain().saturating_add(rounds) < own);
        if leaves {
            stepped(steps::Step::LeavesLagging);
            self.give_up(id, Cause::Replaced, "its metadata did not help: another broker is asked".into());
        }
        leaves
    }

    /// What is known is another cluster: nothing more goes to the old one.
    pub(super) fn leave_cluster(&mut self) {
        tracing::warn!("the bootstrap servers belong to another cluster now; records go there");
        let lanes = self.connections.iter().filter(|(_, connection)| connection.role == Role::Lane);
        for id in lanes.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up(id, Cause::Broken, "the cluster was replaced by another one".into());
        }
    }
}
