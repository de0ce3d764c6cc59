//! Records that have less time than `delivery.timeout.ms`. One whose time is over fails alone: out of a batch that was
//! never sent, or that brokers refused for certain, it is taken, and *not written*; out of any other it cannot be, for a
//! broker knows a batch by its first and last number: it is told as *possibly written*, and the batch goes on with it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Sender;
use super::in_flight::{Batch, Part, Piece, Run};
use super::steps::{Step, stepped};
use super::timers::{Armed, Timer};
use crate::accumulator::{Deadline, Drain, Leave};
use crate::completion::Outcome;
use crate::error::DeliveryErrorKind;

/// So many records that are done are kept at least, until they are looked for.
const KEPT: usize = 1024;

/// The records with a limit of their own, the earliest first; some are done already.
#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(Duration, Deadline)>>,
    /// How many there were when those that are done were last thrown out.
    held: usize,
    armed: Armed,
}

impl Deadlines {
    /// What memory holds bounds how many there are: those of records whose memory has another use by now are thrown out.
    fn push(&mut self, at: Duration, deadline: Deadline, drain: &Drain) {
        if self.heap.len() >= 2 * self.held + KEPT {
            self.heap.retain(|Reverse((_, deadline))| drain.may_be_held(deadline));
            self.held = self.heap.len();
        }
        self.heap.push(Reverse((at, deadline)));
    }

    fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn due(&mut self, now: Duration) -> Option<(Duration, Deadline)> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(due)| due)
    }
}

impl Batch {
    /// Which of its parts has the record.
    fn part_of(&self, deadline: &Deadline) -> Option<usize> {
        let has =
            |run: &Run| run.segment == deadline.segment && (run.first..run.first + run.count).contains(&deadline.index);
        self.parts.iter().position(|part| !part.told && has(&part.run))
    }

    /// Its place in the batch, in the part `at`.
    fn place_of(&self, at: usize, deadline: &Deadline) -> u32 {
        let before: u32 = self.parts[..at].iter().map(|part| part.run.count).sum();
        before + deadline.index - self.parts[at].run.first
    }
}

impl Sender {
    /// Records with a limit of their own were accepted: their time counts from here, and their batch lingers for half of
    /// it at most.
    pub(super) fn hear_deadlines(&mut self) {
        let now = self.now.monotonic;
        while let Some(deadline) = self.drain.next_deadline() {
            let timeout = Duration::from_millis(u64::from(deadline.timeout.get()));
            if timeout < self.config.delivery_timeout {
                self.deadlines.push(now + timeout, deadline, &self.drain);
            }
            if timeout / 2 < self.config.linger {
                let mark = self.drain.tail_position(deadline.partition);
                let partition = &mut self.partitions[deadline.partition as usize];
                let (at, to) = partition.hurry.unwrap_or((now + timeout / 2, mark));
                partition.hurry = Some((at.min(now + timeout / 2), to.max(mark)));
                self.consider(deadline.partition);
            }
        }
        self.arm_deadlines();
    }

    /// How many are kept.
    #[cfg(all(test, feature = "testing"))]
    pub(super) fn deadlines_kept(&self) -> usize {
        self.deadlines.heap.len()
    }

    fn arm_deadlines(&mut self) {
        if let Some(at) = self.deadlines.next() {
            self.deadlines.armed.at(&mut self.timers, at, Timer::Deadlines);
        }
    }

    /// Ends the records whose own time is over.
    pub(super) fn expire_records(&mut self) {
        let now = self.now.monotonic;
        self.deadlines.armed.fired(now);
        while let Some((at, deadline)) = self.deadlines.due(now) {
            if self.drain.may_be_held(&deadline) && !self.expire_record(at, &deadline) {
                // A writer is between its claim and its commit.
                let soon = now + Duration::from_millis(1);
                self.deadlines.push(soon, deadline, &self.drain);
            }
        }
        self.arm_deadlines();
    }

    /// False: the record lies in a batch that cannot be taken out of its ring now.
    fn expire_record(&mut self, at: Duration, deadline: &Deadline) -> bool {
        let id = deadline.partition;
        let accepted = at.saturating_sub(Duration::from_millis(u64::from(deadline.timeout.get())));
        let ring = self.partitions[id as usize].ring.clone();
        while self.drain.is_in_ring(&ring, deadline) {
            let Some(batch) = self.drain_ring(id, Leave::Now) else { return false };
            self.partitions[id as usize].requeue(batch);
        }
        let queue = &self.partitions[id as usize].queue;
        match queue.iter().position(|batch| batch.part_of(deadline).is_some()) {
            Some(place) => self.expire_queued(id, place, deadline, accepted),
            None => self.expire_in_flight(id, deadline, accepted),
        }
        self.consider(id);
        true
    }

    fn expire_queued(&mut self, id: u32, place: usize, deadline: &Deadline, accepted: Duration) {
        let Some(mut batch) = self.partitions[id as usize].queue.remove(place) else { return };
        let Some(part) = batch.part_of(deadline).filter(|_| !batch.told) else {
            return self.partitions[id as usize].queue.insert(place, batch);
        };
        if self.is_stored(&batch) {
            return self.delivered_before(batch);
        }
        if batch.live() == 1 {
            batch.opened = accepted;
            return self.fail(batch, DeliveryErrorKind::Expired);
        }
        if batch.may_be_written() {
            self.tell_record(&mut batch, deadline, accepted);
            return self.partitions[id as usize].queue.insert(place, batch);
        }
        stepped(Step::TakenOut);
        let refused = vec![(batch.place_of(part, deadline) as i32, None)];
        // Parts of a split have one number: only its place tells which comes first.
        if let Some(rest) = self.without(batch, DeliveryErrorKind::Expired, &refused) {
            self.partitions[id as usize].queue.insert(place, rest);
        }
    }

    fn expire_in_flight(&mut self, id: u32, deadline: &Deadline, accepted: Duration) {
        let Some(lane) = self.partitions[id as usize].lane else { return };
        let requests = self.connections.get(&lane).map_or(0, |connection| connection.unanswered.len());
        for request in 0..requests {
            let Some(batches) = self.produced(lane, request) else { continue };
            let has = |batch: &Batch| batch.partition == id && !batch.told && batch.part_of(deadline).is_some();
            let Some(slot) = batches.iter().position(|batch| batch.as_ref().is_some_and(has)) else { continue };
            let Some(mut batch) = batches[slot].take() else { return };
            let trouble = self.connections.get(&lane).map(|c| format!("{}: no answer so far", c.name).into());
            let before = batch.trouble.clone();
            if batch.trouble.is_none() && batch.last_error.is_none() {
                batch.trouble = trouble;
            }
            self.tell_record(&mut batch, deadline, accepted);
            batch.trouble = before;
            if let Some(place) = self.produced(lane, request).and_then(|batches| batches.get_mut(slot)) {
                *place = Some(batch);
            }
            return;
        }
    }

    /// Tells of one record of a batch that goes on with it.
    fn tell_record(&mut self, batch: &mut Batch, deadline: &Deadline, accepted: Duration) {
        let Some(at) = batch.part_of(deadline) else { return };
        stepped(Step::ToldAlone);
        let mut part = batch.parts.remove(at);
        let (run, before) = (part.run, deadline.index - part.run.first);
        // The records before it, itself, and those behind it.
        let mut cuts: Vec<Run> = Vec::new();
        let mut offset = 0;
        for (nth, count) in [(0, before), (before, 1), (before + 1, run.count - before - 1)] {
            let start = offset;
            for _ in 0..count {
                offset += self.record_len(run.offset + offset as usize, run.len - offset);
            }
            let (first, offset, len) = (run.first + nth, run.offset + start as usize, offset - start);
            cuts.extend((count > 0).then_some(Run { offset, len, first, count, ..run }));
        }
        let mut completion = self.share_completion(&mut part, cuts.len() as u32);
        for (nth, run) in cuts.into_iter().enumerate() {
            let part = Part { run, completion: completion.take(), deliveries: part.deliveries, told: false };
            batch.parts.insert(at + nth, part);
        }
        let Some(at) = batch.part_of(deadline) else { return };
        let part = batch.parts.remove(at);
        let bytes = part.run.len;
        let mut told = batch.of_piece(Piece { parts: vec![part], count: 1, bytes, max_timestamp_delta: 0 });
        (told.possibly_written, told.opened) = (true, accepted);
        let error = self.error(&told, DeliveryErrorKind::Expired);
        self.tell(&mut told, &Outcome::Failed(error));
        batch.lent |= told.lent;
        for mut part in told.parts {
            part.told = true;
            batch.parts.insert(at, part);
        }
        batch.told = batch.live() == 0;
    }
}
