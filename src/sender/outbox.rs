//! From the sender to the thread that runs listeners and callbacks. Bounded and without allocation; what does not fit
//! waits on the sender's side. The segments that a report names stay taken until it was read: a slow listener uses up
//! `buffer.memory` and stops acceptance, never sending.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::sync::{Parker, Unparker};

use super::shared::Ticket;
use crate::accumulator::Lease;
use crate::completion::Outcome;
use crate::record::Place;

/// How many reports lie between the two threads before the sender keeps them back.
const CAPACITY: usize = 1024;

/// What the callback thread is told, in order.
#[derive(Debug)]
pub enum Report {
    /// These records have their result.
    Records {
        /// Their topic and partition.
        place: Arc<Place>,
        /// The records, and their memory until this was read.
        lease: Lease,
        /// Their result.
        outcome: Outcome,
        /// Their deliveries have yet to hear of it, once the sink has the records.
        deliveries: bool,
    },
    /// A flush or close is done once everything before it was told.
    Done(Arc<Ticket>),
    /// Nothing follows.
    End,
}

/// The queue between the two threads.
pub struct Outbox {
    queue: ArrayQueue<Report>,
    /// Somebody keeps what cannot be delivered: every record that failed is reported, and its Delivery told there.
    has_sink: bool,
    /// What a sender that is gone could not fit into the queue; read when that is empty.
    rest: Mutex<VecDeque<Report>>,
    unparker: Unparker,
    kept_back: AtomicBool,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("len", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// The queue, and what the callback thread sleeps on.
    pub fn new(has_sink: bool) -> (Arc<Self>, Parker) {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        let outbox = Self {
            queue: ArrayQueue::new(CAPACITY),
            has_sink,
            rest: Mutex::default(),
            unparker,
            kept_back: AtomicBool::new(false),
        };
        (Arc::new(outbox), parker)
    }

    /// Records that failed are to be reported with their bytes.
    pub fn has_sink(&self) -> bool {
        self.has_sink
    }

    /// Callback thread: the next report, sleeping until there is one. `refill` rings the sender, which has more.
    pub fn take(&self, parker: &Parker, refill: impl Fn()) -> Report {
        loop {
            if let Some(report) = self.try_take() {
                return report;
            }
            if self.kept_back.swap(false, Ordering::AcqRel) {
                refill();
            }
            parker.park();
        }
    }

    /// The next report, if there is one.
    pub fn try_take(&self) -> Option<Report> {
        self.queue.pop().or_else(|| self.rest().pop_front())
    }

    /// There is no sender any more: whatever was reported before, nothing follows.
    pub fn end(&self) {
        self.rest().push_back(Report::End);
        self.unparker.unpark();
    }

    fn rest(&self) -> MutexGuard<'_, VecDeque<Report>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sender's end.
#[derive(Debug, Default)]
pub struct OutboxTail {
    backlog: VecDeque<Report>,
}

impl OutboxTail {
    /// The sender goes: what was kept back is read after the queue, and then nothing.
    pub fn hand_over(&mut self, outbox: &Outbox) {
        self.refill(outbox);
        outbox.rest().append(&mut self.backlog);
        outbox.end();
    }
}

impl OutboxTail {
    /// How many reports the other thread has still to take.
    pub fn untaken(&self, outbox: &Outbox) -> usize {
        self.backlog.len() + outbox.queue.len()
    }

    /// Sends a report, in order.
    pub fn push(&mut self, outbox: &Outbox, report: Report) {
        self.backlog.push_back(report);
        self.refill(outbox);
    }

    /// Hands over what was kept back, as far as there is room.
    pub fn refill(&mut self, outbox: &Outbox) {
        if self.backlog.is_empty() {
            return;
        }
        while let Some(report) = self.backlog.pop_front() {
            if let Err(report) = outbox.queue.push(report) {
                self.backlog.push_front(report);
                // Before the wake-up: whoever empties the queue after it sees the flag.
                outbox.kept_back.store(true, Ordering::Release);
                break;
            }
        }
        outbox.unparker.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order_however_slow_the_reader() {
        let (outbox, parker) = Outbox::new(false);
        let mut tail = OutboxTail::default();
        let tickets: Vec<_> = (0..3 * CAPACITY).map(|_| Arc::new(Ticket::default())).collect();
        for ticket in &tickets {
            tail.push(&outbox, Report::Done(ticket.clone()));
        }
        tail.push(&outbox, Report::End);
        let rung = AtomicBool::new(false);
        for ticket in &tickets {
            let report = loop {
                // One thread plays both: the refill is what the sender does when it was rung.
                if let Some(report) = outbox.queue.pop() {
                    break report;
                }
                assert!(outbox.kept_back.swap(false, Ordering::AcqRel), "nothing lies here and nothing is kept back");
                tail.refill(&outbox);
            };
            let Report::Done(got) = report else { panic!("out of order") };
            assert!(Arc::ptr_eq(&got, ticket));
        }
        tail.refill(&outbox);
        assert!(matches!(outbox.take(&parker, || rung.store(true, Ordering::Relaxed)), Report::End));
        assert!(!rung.load(Ordering::Relaxed), "it lay there");
    }
}
