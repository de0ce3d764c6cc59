//! What a simulation looks at, and sets, that no driver needs.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::Sender;
use super::connection::Asked;
use super::idempotence::Identity;
use super::in_flight::Batch;
use crate::accumulator::Partition;

impl Sender {
    /// Records without a result that lie in queues, and in windows, counted there.
    pub fn held(&self) -> (u64, u64) {
        let count = |batch: &Batch| u64::from(batch.live());
        let queued = self.partitions.iter().flat_map(|partition| &partition.queue).map(count).sum();
        let requests = self.connections.values().flat_map(|connection| &connection.unanswered);
        let produced = requests.filter_map(|request| match &request.asked {
            Asked::Produce { batches, .. } => Some(batches.iter().flatten()),
            _ => None,
        });
        let unconfirmed = self.unconfirmed.iter().map(|held| &held.batch);
        (queued, produced.flatten().chain(unconfirmed).map(count).sum())
    }

    /// The rings of all partitions.
    pub fn rings(&self) -> impl ExactSizeIterator<Item = &Arc<Partition>> {
        self.partitions.iter().map(|partition| &partition.ring)
    }

    /// The leader epochs that it knows of, and how long that leader, or the one before, has been of no use.
    pub fn leader_epochs(&self) -> impl Iterator<Item = (i32, Duration)> {
        let places = self.partitions.iter().map(|partition| &partition.ring.place);
        places.map(|place| {
            let since = self.cluster.doubted_since(&place.topic, place.partition).unwrap_or(self.now.monotonic);
            let useless = self.now.monotonic.saturating_sub(since);
            (self.cluster.leader(&place.topic, place.partition).epoch, useless)
        })
    }

    /// What it knows of its partitions, for messages.
    pub fn inspect(&self) -> impl Debug {
        &self.partitions
    }

    /// Partitions that never stamped a batch begin at this sequence number.
    pub fn start_sequences_at(&mut self, next: u32) {
        for partition in &mut self.partitions {
            partition.sequences.start_at(next);
        }
    }

    /// Where the producer id stands: off, wanted, asked for, known.
    pub fn identity_state(&self) -> usize {
        match self.identity {
            Identity::Off => 0,
            Identity::Wanted { .. } => 1,
            Identity::Asked { .. } => 2,
            Identity::Known(..) => 3,
        }
    }

    /// Nothing of this partition waits, is in flight or in the ring.
    pub fn is_at_rest(&self, ring: &Partition) -> bool {
        let id = ring.id;
        let partition = self.partitions.get(id as usize);
        partition.is_none_or(|partition| partition.unacked == 0 && partition.queue.is_empty())
            && !self.drain.peek(id).any
    }

    /// Partitions of which something may leave, on a connection that could take it, although nobody works on that.
    pub fn idle_hands(&self, now: Duration, found: &mut Vec<u32>) {
        for (id, partition) in (0..).zip(&self.partitions) {
            let lane = self.nodes.get(&partition.leader).and_then(|node| node.lane);
            let lane = lane.and_then(|lane| self.connections.get(&lane));
            if lane.is_some_and(|lane| lane.takes_batches(now))
                && self.may_leave_at(id).is_some_and(|at| at <= self.now.monotonic)
            {
                found.push(id);
            }
        }
    }
}
