//! What a simulation looks at that no driver needs.

use std::fmt::Debug;
use std::sync::Arc;

use super::Sender;
use super::connection::Asked;
use super::in_flight::Batch;
use crate::accumulator::Partition;

impl Sender {
    /// Records without a result that lie in queues, and in windows, counted there.
    pub fn held(&self) -> (u64, u64) {
        let count = |batch: &Batch| if batch.told { 0 } else { u64::from(batch.count) };
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
    pub fn rings(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().map(|partition| &partition.ring)
    }

    /// What it knows of its partitions, for messages.
    pub fn inspect(&self) -> impl Debug {
        &self.partitions
    }
}
