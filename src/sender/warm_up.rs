//! Warm-ups: connections to leaders before there is anything to send to them.

use std::sync::Arc;
use std::time::Duration;

use super::connection::State;
use super::lagging::SLOW_SETUP;
use super::shared::Ticket;
use super::{Sender, TopicShared};

/// A warm-up under way.
#[derive(Debug)]
pub struct WarmUp {
    ticket: Arc<Ticket>,
    topic: usize,
    /// From then on leaders that are out of reach are not waited for.
    patient_until: Duration,
}

impl Sender {
    pub(super) fn start_warm_up(&mut self, topic: &Arc<TopicShared>, ticket: Arc<Ticket>) {
        let topic = self.want_topic(topic);
        let patient_until = self.now.monotonic + SLOW_SETUP;
        self.warm_ups.push(WarmUp { ticket, topic, patient_until });
    }

    /// Once per turn: connects to leaders that have no connection, and ends the warm-ups that nothing more can be done for.
    pub(super) fn step_warm_ups(&mut self) {
        if self.warm_ups.is_empty() {
            return;
        }
        let mut warm_ups = std::mem::take(&mut self.warm_ups);
        for WarmUp { topic, .. } in &warm_ups {
            self.topics[*topic].warming = false;
        }
        warm_ups.retain(|warm_up| {
            // Its caller may have gone.
            let goes_on = Arc::strong_count(&warm_up.ticket) > 1 && !self.is_warm(warm_up);
            if !goes_on {
                warm_up.ticket.finish();
                self.shared.changed.wake_all();
            }
            self.topics[warm_up.topic].warming |= goes_on;
            goes_on
        });
        self.warm_ups = warm_ups;
    }

    fn is_warm(&mut self, warm_up: &WarmUp) -> bool {
        let now = self.now.monotonic;
        let topic = &self.topics[warm_up.topic];
        let ids = topic.partitions.iter().take(topic.shared.count() as usize);
        let mut leaders: Vec<i32> = ids.map(|id| self.partitions[*id as usize].leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        for leader in &leaders {
            self.step_node(*leader);
        }
        let left = now >= warm_up.patient_until;
        !leaders.is_empty()
            && leaders.iter().all(|node| self.is_connected(*node) || left && self.is_out_of_reach(*node))
    }

    fn is_connected(&self, node: i32) -> bool {
        let lane = self.nodes.get(&node).and_then(|node| self.connections.get(&node.lane?));
        lane.is_some_and(|lane| lane.state == State::Ready)
    }
}
