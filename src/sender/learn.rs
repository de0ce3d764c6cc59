//! What a metadata answer changes: brokers that come, go and move, topics and their partitions, and who leads these.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Sender;
use super::connection::{Cause, State};
use super::endpoint::Endpoint;
use super::in_flight::PartitionState;
use super::lanes::Node;
use crate::accumulator::Leave;
use crate::error::DeliveryErrorKind;
use crate::metadata::BELIEVED;
use crate::record::Place;

impl Sender {
    pub(super) fn take_brokers(&mut self) {
        let bootstrapped = std::mem::take(&mut self.control.bootstrapping);
        // Where they are used next, the names may lead elsewhere.
        self.bootstrap.iter_mut().for_each(Endpoint::forget);
        let (mut moved, mut renewed) = (Vec::new(), Vec::new());
        let named = &self.cluster.brokers;
        self.nodes.retain(|id, node| named.contains_key(id) || node.lane.is_some() || !node.ready.is_empty());
        for (id, address) in &self.cluster.brokers {
            match self.nodes.get_mut(id) {
                Some(node) if node.endpoint.host == address.host && node.endpoint.port == address.port => {}
                Some(node) => {
                    node.endpoint = Endpoint::new(&address.host, address.port);
                    moved.extend(node.lane.iter().chain(&node.rivals));
                    renewed.push(*id);
                }
                None => {
                    self.nodes.insert(*id, Node::new(&address.host, address.port));
                }
            }
        }
        renewed.into_iter().for_each(|id| self.forget_size_limit(id));
        // A connection that works is kept otherwise: brokers may be known by several addresses.
        for lane in moved {
            let works = self.connections.get(&lane).is_some_and(|lane| lane.state == State::Ready);
            if bootstrapped || !works {
                let cause = if works { Cause::Broken } else { Cause::Replaced };
                self.give_up(lane, cause, "its broker has another address now".into());
            }
        }
    }

    /// True when a partition of it has no leader that can be connected to, or one that is in doubt.
    pub(super) fn take_topic(&mut self, at: usize, count: usize, recreated: bool) -> bool {
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
            ring.set_leave_at(self.config.batch_size);
            topic.shared.push(index as u32, ring.clone());
            self.partitions.push(PartitionState::new(ring, at as u32));
        }
        let ids = topic.partitions.clone();
        let shared = topic.shared.clone();
        let mut leaderless = false;
        for (index, id) in ids.iter().enumerate() {
            let leader = self.cluster.leader(&name, index as i32);
            let (gone, now) = (index >= count, self.now.monotonic);
            let partition = &mut self.partitions[*id as usize];
            partition.gone_since = gone.then(|| partition.gone_since.unwrap_or(now));
            if recreated {
                self.partitions[*id as usize].hint = None;
                if self.config.idempotence {
                    self.partitions[*id as usize].lose_log();
                }
            }
            leaderless |= self.heard_leader(*id, leader) && !gone;
        }
        shared.publish(count as u32);
        leaderless
    }

    /// Ends what waits for partitions that the topic has not had for a while, since it was created again with fewer. No
    /// record moves to another partition: its key or its caller chose this one.
    pub(super) fn fail_gone(&mut self, at: usize) {
        let now = self.now.monotonic;
        for id in self.topics[at].partitions.clone() {
            if self.partitions[id as usize].gone_since.is_none_or(|since| now < since + BELIEVED) {
                continue;
            }
            while let Some(batch) = self.partitions[id as usize].queue.pop_front() {
                self.fail(batch, DeliveryErrorKind::PartitionGone);
            }
            while let Some(batch) = self.drain_ring(id, Leave::Now) {
                self.fail(batch, DeliveryErrorKind::PartitionGone);
            }
        }
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
        let busy = partition.active || !partition.queue.is_empty();
        self.refresh_limit(id);
        if busy {
            self.consider(id);
        }
    }
}
