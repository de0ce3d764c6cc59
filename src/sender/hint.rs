//! Leaders that brokers name when they refuse a batch (KIP-951), and how long they are believed against metadata.
//!
//! A hint of a later epoch than any known is followed at once when its broker's address is known, and when the next
//! metadata answer, asked for at once, names that broker otherwise. Metadata of an earlier epoch does not undo it: it may
//! come from a broker that lags behind. What does: the broker that it names refuses, saying that it does not lead or does
//! not know the partition; or metadata goes on contradicting, and nothing was acknowledged there for [`BELIEVED`]. So an
//! epoch that makes no sense holds no partition for ever.

use std::time::Duration;

use super::Sender;
use super::connection::State;
use crate::metadata::Leader;

/// How long a hint is believed against metadata, from when it came or something was acknowledged by its broker.
pub const BELIEVED: Duration = Duration::from_secs(5);

/// So many hints are followed at once without an acknowledgement in between; those after them wait for the backoff.
const AT_ONCE: u32 = 5;

/// A leader by hearsay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// Whom a broker named.
    pub leader: Leader,
    /// When it did, or something was acknowledged there.
    pub good_at: Duration,
}

impl Sender {
    /// `node` refused a batch because of what we know of leaders: a hint that named it is worth nothing any more.
    pub(super) fn doubt_hint(&mut self, id: u32, node: i32) {
        let partition = &mut self.partitions[id as usize];
        if partition.hint.is_some_and(|hint| hint.leader.node == node) {
            let epoch = partition.leader_epoch;
            partition.hint = None;
            let place = partition.ring.place.clone();
            let leader = self.cluster.leader(&place.topic, place.partition);
            let retry_at = partition.retry_at;
            self.set_leader(id, leader);
            if leader.epoch <= epoch {
                // Back to whom the hint led away from, no sooner than without it.
                self.partitions[id as usize].retry_at = retry_at;
                self.back_off(id);
            }
        }
    }

    /// `node` refused a batch and named `leader`.
    pub(super) fn take_hint(&mut self, id: u32, node: i32, leader: Leader) {
        let now = self.now.monotonic;
        let partition = &mut self.partitions[id as usize];
        let known = partition.hint.map_or(-1, |hint| hint.leader.epoch).max(partition.leader_epoch);
        if leader.epoch <= known {
            return;
        }
        partition.hint = Some(Hint { leader, good_at: now });
        partition.hints = partition.hints.saturating_add(1);
        let at_once = partition.hints <= AT_ONCE;
        if !self.nodes.contains_key(&leader.node) {
            if at_once {
                self.want_metadata_now();
            }
            return;
        }
        let retry_at = partition.retry_at;
        self.set_leader(id, leader);
        if !at_once || leader.node == node {
            self.partitions[id as usize].retry_at = retry_at;
        }
    }

    /// Metadata says that `leader` leads. True when the partition's leader, whoever that is now, is in doubt or cannot be
    /// connected to.
    pub(super) fn heard_leader(&mut self, id: u32, leader: Leader) -> bool {
        let now = self.now.monotonic;
        let partition = &mut self.partitions[id as usize];
        let hint = partition.hint.filter(|hint| {
            let older = leader.epoch >= 0 && leader.epoch < hint.leader.epoch;
            older && now < hint.good_at + BELIEVED
        });
        partition.hint = hint;
        let named = hint.map(|hint| hint.leader).filter(|named| self.nodes.contains_key(&named.node));
        self.set_leader(id, named.unwrap_or(leader));
        let Some(hint) = hint.filter(|hint| hint.leader.node != leader.node) else {
            return !self.nodes.contains_key(&leader.node);
        };
        // Contradicted: while that keeps records waiting, ask again.
        let partition = &self.partitions[id as usize];
        let waits = partition.active || !partition.queue.is_empty();
        let lane = self.nodes.get(&hint.leader.node).and_then(|node| self.connections.get(&node.lane?));
        let in_doubt = waits && lane.is_none_or(|lane| lane.state != State::Ready);
        if in_doubt {
            self.want_metadata();
        }
        in_doubt
    }
}
