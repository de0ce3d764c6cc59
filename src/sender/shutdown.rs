//! Commands, flush, expiry and the end.

use std::sync::Arc;
use std::time::Duration;

use super::Sender;
use super::connection::{Asked, Cause};
use super::in_flight::{Batch, Reported};
use super::knowledge::Event;
use super::outbox::Report;
use super::shared::{Command, Life, Ticket};
use super::timers::{Armed, Timer};
use super::transmit::ConnectionId;
use crate::accumulator::Leave;
use crate::completion::{Outcome, ending};
use crate::error::{BrokerError, CloseReport, DeliveryErrorKind};

/// How often waiting callers are woken to look at their clocks: futures have no timer of their own.
pub(super) const WAITERS_EVERY: Duration = Duration::from_millis(50);

/// A flush under way.
#[derive(Debug)]
pub struct Flush {
    ticket: Arc<Ticket>,
    /// Partitions and the ring position that each must have passed.
    pending: Vec<(u32, u64)>,
}

/// A close under way.
#[derive(Debug)]
pub struct Closing {
    deadline: Duration,
    armed: Armed,
}

#[cfg(feature = "testing")]
impl Closing {
    /// When it gives up.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl Sender {
    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Want(topic) => {
                self.want_topic(&topic);
            }
            Command::WarmUp(topic, ticket) => self.start_warm_up(&topic, ticket),
            Command::Flush(ticket) => self.start_flush(ticket),
            Command::Close(timeout) => self.start_close(timeout),
            #[cfg(test)]
            Command::Panic => panic!("a test asked for it"),
        }
    }

    fn start_flush(&mut self, ticket: Arc<Ticket>) {
        let mut pending = Vec::new();
        for id in 0..self.partitions.len() as u32 {
            let partition = &self.partitions[id as usize];
            let idle = partition.unacked == 0 && partition.queue.is_empty();
            if idle && !self.drain.peek(id).any {
                continue;
            }
            // Exact for every append that has returned; an empty ring counts as passed.
            let mark = self.drain.tail_position(id);
            self.partitions[id as usize].flush_to = self.partitions[id as usize].flush_to.max(mark);
            pending.push((id, mark));
            self.consider(id);
        }
        self.flushes.push(Flush { ticket, pending });
        self.settled = true;
    }

    /// Something ended since the last look at flushes, and a flush or a close is under way.
    pub(super) fn waits_for_a_look(&self) -> bool {
        self.settled && (!self.flushes.is_empty() || self.closing.is_some())
    }

    /// Ends the flushes whose partitions have all passed their marks.
    pub(super) fn settle_flushes(&mut self) {
        if !std::mem::take(&mut self.settled) || self.flushes.is_empty() {
            return;
        }
        let mut flushes = std::mem::take(&mut self.flushes);
        flushes.retain_mut(|flush| {
            while let Some((id, mark)) = flush.pending.last() {
                let head = if self.drain.peek(*id).any { self.drain.head_position(*id) } else { u64::MAX };
                if !self.partitions[*id as usize].is_flushed(*mark, head) {
                    return true;
                }
                flush.pending.pop();
            }
            self.finish_ticket(&flush.ticket);
            false
        });
        self.flushes = flushes;
    }

    /// Tells a ticket, after all callbacks that were due before it.
    fn finish_ticket(&mut self, ticket: &Arc<Ticket>) {
        match self.shared.outbox.get() {
            Some(outbox) if !self.closed => self.outbox.push(outbox, Report::Done(ticket.clone())),
            _ => ticket.finish(),
        }
    }

    /// Of several closes the earliest deadline counts.
    fn start_close(&mut self, timeout: Duration) {
        self.shared.end(Life::Closed);
        let deadline = self.now.monotonic.saturating_add(timeout);
        if self.closed {
            // The callback thread is not waited for any longer than that either.
            self.parts_by = self.parts_by.min(deadline.saturating_add(ending::GRACE));
            self.timers.arm(self.parts_by, Timer::Close);
            return;
        }
        let closing = self.closing.get_or_insert_with(|| Closing { deadline, armed: Armed::default() });
        closing.deadline = closing.deadline.min(deadline);
        closing.armed.at(&mut self.timers, closing.deadline, Timer::Close);
        for id in 0..self.partitions.len() as u32 {
            self.partitions[id as usize].flush_to = u64::MAX;
            self.drain.close_partition(id);
            self.consider(id);
        }
        self.shared.wake_everyone();
    }

    /// Goes on with a close: done when every ring is closed and drained and everything has its answer.
    pub(super) fn step_closing(&mut self) {
        let now = self.now.monotonic;
        if self.closed {
            return self.part();
        }
        let Some(closing) = &mut self.closing else { return };
        closing.armed.fired(now);
        let deadline = closing.deadline;
        let late = now >= deadline;
        let mut busy = false;
        for id in 0..self.partitions.len() as u32 {
            if late {
                self.abandon_partition(id, DeliveryErrorKind::Closed);
            }
            let drained = self.drain.is_drained(id);
            if !drained && !self.drain.close_partition(id) {
                self.consider(id);
            }
            // An empty segment that was sealed by the close itself: nobody else would take it out.
            if !drained
                && !self.drain.peek(id).any
                && let Some(batch) = self.drain_ring(id, Leave::Now)
            {
                self.partitions[id as usize].requeue(batch);
                self.consider(id);
            }
            let partition = &self.partitions[id as usize];
            let waits = partition.queue.iter().any(|batch| batch.reported() != Reported::All);
            let partition_busy = !drained || waits || partition.unacked > 0;
            busy |= if late { !self.drain.is_drained(id) } else { partition_busy };
        }
        if busy || (!late && !self.unconfirmed.is_empty()) {
            // A full ring, or a writer between claim and commit: soon.
            let next = if late || self.has_undrained() { now + Duration::from_millis(1) } else { deadline };
            if let Some(closing) = &mut self.closing {
                closing.armed.at(&mut self.timers, next, Timer::Close);
            }
            return;
        }
        self.finish_close(late);
    }

    /// Lets everyone go who waits for a flush.
    pub(super) fn drop_tickets(&mut self) {
        for flush in std::mem::take(&mut self.flushes) {
            flush.ticket.finish();
        }
    }

    fn has_undrained(&self) -> bool {
        (0..self.partitions.len() as u32).any(|id| !self.drain.is_drained(id))
    }

    fn finish_close(&mut self, late: bool) {
        let Some(closing) = self.closing.take() else { return };
        let mut report = CloseReport::default();
        if late {
            self.abandon_in_flight(DeliveryErrorKind::Closed);
        }
        for partition in &mut self.partitions {
            let (left, possibly_written) = std::mem::take(&mut partition.left_behind);
            report.leave(&partition.ring.place.topic, partition.ring.place.partition, left, possibly_written);
        }
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.give_up(id, Cause::Shutdown, "the producer closes".into());
        }
        // Those that would have gone on although all of them was told.
        for id in 0..self.partitions.len() as u32 {
            self.abandon_partition(id, DeliveryErrorKind::Closed);
        }
        for flush in std::mem::take(&mut self.flushes) {
            self.finish_ticket(&flush.ticket);
        }
        self.shared.ending.set_report(report);
        self.closed = true;
        self.parts_by = closing.deadline.saturating_add(ending::GRACE);
        self.shared.wake_everyone();
        self.part();
    }

    /// Everything has its end: once no connection is left, nothing follows for the callback thread, which has a little time
    /// for what it was told.
    fn part(&mut self) {
        if self.connections.is_empty() && !std::mem::replace(&mut self.parting, true) {
            self.timers.arm(self.parts_by, Timer::Close);
            if let Some(outbox) = self.shared.outbox.get() {
                self.outbox.push(outbox, Report::End);
            }
        }
    }

    /// Ends what a partition has in its queue and its ring.
    fn abandon_partition(&mut self, id: u32, kind: DeliveryErrorKind) {
        while let Some(batch) = self.partitions[id as usize].queue.pop_front() {
            self.abandon_batch(batch, kind);
        }
        while let Some(batch) = self.drain_ring(id, Leave::Now) {
            self.abandon_batch(batch, kind);
        }
    }

    fn abandon_batch(&mut self, batch: Batch, kind: DeliveryErrorKind) {
        // One that a later batch was accepted behind ends as delivered.
        if batch.reported() != Reported::All && !self.is_stored(&batch) {
            self.partitions[batch.partition as usize].leave_behind(&batch);
        }
        self.fail(batch, kind);
    }

    /// Tells everyone who waits for a batch in flight that it is possibly written. The batches stay where they are:
    /// the kernel may be reading them.
    fn abandon_in_flight(&mut self, kind: DeliveryErrorKind) {
        for super::ack::Unconfirmed { batch, .. } in std::mem::take(&mut self.unconfirmed) {
            self.resolve(batch, &Outcome::Delivered { base_offset: None, log_append_time: None });
        }
        let lanes: Vec<_> = self.connections.keys().copied().collect();
        for lane in lanes {
            self.tell_in_flight(lane, |_| true, kind, true);
        }
    }

    /// Tells of the batches in flight on `lane` that `chosen` picks.
    fn tell_in_flight(
        &mut self,
        lane: ConnectionId,
        chosen: impl Fn(&Batch) -> bool,
        kind: DeliveryErrorKind,
        left_behind: bool,
    ) {
        self.each_in_flight(lane, chosen, |sender, batch| {
            batch.known.learn(Event::LeftOpen);
            if left_behind {
                sender.partitions[batch.partition as usize].leave_behind(batch);
            }
            let error = sender.error(batch, kind);
            sender.tell(batch, &Outcome::Failed(error));
        });
    }

    /// Goes through the batches in flight on `lane` that are not told and that `chosen` picks; each knows that it has no
    /// answer.
    pub(super) fn each_in_flight(
        &mut self,
        lane: ConnectionId,
        chosen: impl Fn(&Batch) -> bool,
        mut visit: impl FnMut(&mut Self, &mut Batch),
    ) {
        let requests = self.connections.get(&lane).map_or(0, |connection| connection.unanswered.len());
        for request in 0..requests {
            let Some(mut batches) = self.produced(lane, request).map(std::mem::take) else { continue };
            for batch in batches.iter_mut().flatten().filter(|batch| batch.reported() != Reported::All && chosen(batch))
            {
                if batch.trouble.is_none() && batch.last_error.is_none() {
                    batch.trouble = self.connections.get(&lane).map(|c| format!("{}: no answer so far", c.name).into());
                }
                visit(self, batch);
            }
            if let Some(place) = self.produced(lane, request) {
                *place = batches;
            }
        }
    }

    fn produced(&mut self, lane: ConnectionId, request: usize) -> Option<&mut Vec<Option<Batch>>> {
        match &mut self.connections.get_mut(&lane)?.unanswered.get_mut(request)?.asked {
            Asked::Produce { batches, .. } => Some(batches),
            _ => None,
        }
    }

    /// The sender cannot go on: everything outstanding ends as possibly written, every later call says so. True: a writer
    /// stands between its claim and its commit, and its batch is still to be ended: call again, a moment later.
    pub fn abandon(&mut self) -> bool {
        self.shared.end(Life::Panicked);
        let mut unfinished = false;
        for id in 0..self.partitions.len() as u32 {
            // A full ring is closed once it was drained.
            let mut closed = false;
            for _ in 0..2 {
                closed = self.drain.close_partition(id);
                self.abandon_partition(id, DeliveryErrorKind::SenderPanicked);
            }
            unfinished |= !(closed && self.drain.is_drained(id));
        }
        if !std::mem::replace(&mut self.closed, true) || !self.connections.is_empty() {
            self.abandon_rest();
        }
        unfinished
    }

    fn abandon_rest(&mut self) {
        self.abandon_in_flight(DeliveryErrorKind::SenderPanicked);
        for flush in std::mem::take(&mut self.flushes) {
            self.finish_ticket(&flush.ticket);
        }
        self.closing = None;
        while let Some(command) = self.shared.commands.pop() {
            if let Command::Flush(ticket) = command {
                self.finish_ticket(&ticket);
            }
        }
        self.connections.clear();
        self.shared.tally.lost();
        self.shared.wake_everyone();
    }

    /// Ends what has waited for `delivery.timeout.ms`: in the queue and the ring for good; in flight the caller is
    /// told, and the answer, whenever it comes, settles the rest.
    pub(super) fn expire(&mut self, id: u32) {
        let (now, timeout) = (self.now.monotonic, self.config.delivery_timeout);
        let late = |opened: Duration| now >= opened.saturating_add(timeout);
        if self.partitions[id as usize].expires.is_some_and(|expires| expires <= now) {
            // In the order of the records, whatever is late at one look.
            let first = self.first_in_flight(id);
            self.fail_queued(id, |batch| late(batch.opened) && batch.number < first);
            self.tell_expired(id);
        }
        self.fail_queued(id, |batch| late(batch.opened));
        while self.partitions[id as usize].seen.first().is_some_and(late)
            && let Some(mut batch) = self.drain_ring(id, Leave::Now)
        {
            batch.last_error = self.topic_trouble(id);
            self.fail(batch, DeliveryErrorKind::Expired);
        }
    }

    fn fail_queued(&mut self, id: u32, ends: impl Fn(&Batch) -> bool) {
        while let Some(at) = self.partitions[id as usize].queue.iter().position(&ends) {
            if let Some(batch) = self.partitions[id as usize].queue.remove(at) {
                self.fail(batch, DeliveryErrorKind::Expired);
            }
        }
    }

    fn topic_trouble(&self, id: u32) -> Option<BrokerError> {
        let topic = &self.topics[self.partitions[id as usize].topic as usize];
        topic.shared.refusal()
    }

    fn tell_expired(&mut self, id: u32) {
        let (now, timeout) = (self.now.monotonic, self.config.delivery_timeout);
        self.partitions[id as usize].expires = None;
        let Some(lane) = self.partitions[id as usize].lane else { return };
        let expires = |batch: &Batch| batch.opened.saturating_add(timeout);
        let late = |batch: &Batch| batch.partition == id && expires(batch) <= now;
        self.tell_in_flight(lane, late, DeliveryErrorKind::Expired, false);
        let next = self.in_flight_of(id).filter(|batch| batch.reported() != Reported::All).map(expires).min();
        self.partitions[id as usize].expires = next;
    }

    /// The number of the first batch of a partition that was sent and has no answer; `u64::MAX`: none has.
    pub(super) fn first_in_flight(&self, id: u32) -> u64 {
        self.in_flight_of(id).map(|batch| batch.number).min().unwrap_or(u64::MAX)
    }

    /// Batches of a partition that were sent and have no answer.
    fn in_flight_of(&self, id: u32) -> impl Iterator<Item = &Batch> {
        let connection = self.partitions[id as usize].lane.and_then(|lane| self.connections.get(&lane));
        let requests = connection.into_iter().flat_map(|connection| &connection.unanswered);
        let produced = requests.filter_map(|request| match &request.asked {
            Asked::Produce { batches, .. } => Some(batches.iter().flatten()),
            _ => None,
        });
        produced.flatten().filter(move |batch| batch.partition == id)
    }

    /// Callers that wait look at their own clocks now and then, also when nothing happens that would wake them.
    pub(super) fn watch_waiters(&mut self) {
        if !self.watching_waiters && self.has_waiters() {
            self.watching_waiters = true;
            self.timers.arm(self.now.monotonic + WAITERS_EVERY, Timer::Waiters);
        }
    }

    fn has_waiters(&self) -> bool {
        let unknown = || self.topics.iter().any(|topic| topic.partitions.is_empty() && topic.shared.changed.waiting());
        let growth = || self.topics.iter().any(|topic| topic.shared.changed.waiting());
        self.shared.accumulator.room.waiting()
            || self.shared.accumulator.is_asked()
            || !self.warm_ups.is_empty()
            || (self.unknown_topics > 0 && unknown())
            || (self.control.growth_wanted && growth())
    }

    pub(super) fn nudge_waiters(&mut self) {
        self.watching_waiters = false;
        if self.shared.accumulator.is_asked() {
            self.shared.accumulator.tick();
        }
        if self.shared.accumulator.room.waiting() {
            self.note_callers();
        }
        self.shared.accumulator.room.wake_all();
        let growth = self.control.growth_wanted;
        for topic in self.topics.iter().filter(|topic| growth || topic.partitions.is_empty()) {
            topic.shared.changed.wake_all();
        }
        self.shared.changed.wake_all();
    }

    /// No producer id can be had: what waits for one has failed. Partitions that have one go on.
    pub(super) fn fail_everything_queued(&mut self, error: &BrokerError) {
        for id in 0..self.partitions.len() as u32 {
            if self.partitions[id as usize].sequences.producer().is_some() {
                continue;
            }
            while let Some(mut batch) = self.partitions[id as usize].queue.pop_front() {
                batch.last_error = Some(error.clone());
                self.fail(batch, DeliveryErrorKind::Broker(error.code()));
            }
            while let Some(mut batch) = self.drain_ring(id, Leave::Now) {
                batch.last_error = Some(error.clone());
                self.fail(batch, DeliveryErrorKind::Broker(error.code()));
            }
        }
    }
}
