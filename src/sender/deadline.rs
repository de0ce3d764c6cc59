//! Records that have less time than `delivery.timeout.ms`. One whose time is over fails alone. If its batch was not sent, or
//! brokers refused it for certain, it is *not written*, and left out before the batch is stamped (again). Out of any other
//! batch it cannot be taken, for a broker knows one by its first and last number: then it is told as *possibly written*,
//! and the batch goes on with it, also when all of it is told.
//!
//! What ends together is told together: a batch is gone through once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Sender;
use super::in_flight::{Batch, Part, Piece, Reported};
use super::knowledge::Event;
use super::split::cut;
use super::steps::{Step, stepped};
use super::timers::{Armed, Timer};
use crate::accumulator::{Deadline, Drain, Lease, Leave};
use crate::completion::Outcome;
use crate::error::DeliveryErrorKind;

/// So many records that are done are kept at least, until they are looked for.
const KEPT: usize = 1024;

/// A record whose time is over, and when it was accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Due {
    deadline: Deadline,
    accepted: Duration,
}

/// The records with a limit of their own, the earliest first; some are done already.
#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(Duration, Due)>>,
    /// How many there were when those that are done were last thrown out.
    held: usize,
    armed: Armed,
    /// Those that are due.
    due: Vec<Due>,
}

impl Deadlines {
    /// What memory holds bounds how many there are: those of records whose memory was given back are thrown out.
    fn push(&mut self, at: Duration, due: Due, drain: &Drain) {
        if self.heap.len() >= 2 * self.held + KEPT {
            self.heap.retain(|Reverse((_, due))| drain.may_be_held(&due.deadline));
            self.held = self.heap.len();
        }
        self.heap.push(Reverse((at, due)));
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn pop(&mut self, now: Duration) -> Option<Due> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse((_, due))| due)
    }
}

/// Of `due`, which is sorted, the records of this partition.
fn of_partition(due: &[Due], partition: u32) -> &[Due] {
    let from = due.partition_point(|due| due.deadline.partition < partition);
    let to = due.partition_point(|due| due.deadline.partition <= partition);
    &due[from..to]
}

/// Of `due`, which is sorted and of one partition, the records of `lease`.
fn of_lease<'a>(due: &'a [Due], lease: &Lease) -> &'a [Due] {
    let place = |due: &Due| (due.deadline.segment, due.deadline.index);
    let from = due.partition_point(|due| place(due) < (lease.segment(), lease.first()));
    let to = due.partition_point(|due| place(due) < (lease.segment(), lease.first() + lease.count()));
    &due[from..to]
}

impl Batch {
    /// It has one of these records, untold.
    fn has_due(&self, due: &[Due]) -> bool {
        self.parts.iter().any(|part| !part.reported && !of_lease(due, &part.lease).is_empty())
    }
}

impl Sender {
    /// Records with a limit of their own were accepted: their time counts from here, and their batch lingers for half of
    /// it at most.
    pub(super) fn hear_deadlines(&mut self) {
        let now = self.now.monotonic;
        // Not those that come meanwhile: there is more to do.
        for _ in 0..self.drain.deadlines() {
            let Some(deadline) = self.drain.next_deadline() else { break };
            let timeout = Duration::from_millis(u64::from(deadline.timeout.get()));
            if timeout < self.config.delivery_timeout {
                self.deadlines.push(now + timeout, Due { deadline, accepted: now }, &self.drain);
            }
            if timeout / 2 < self.config.linger {
                self.hurry(deadline.partition, now + timeout / 2);
            }
        }
        self.arm_deadlines();
    }

    /// What was accepted so far lingers no longer than to this time.
    fn hurry(&mut self, id: u32, by: Duration) {
        let (mark, head) = (self.drain.tail_position(id), self.drain.head_position(id));
        let partition = &mut self.partitions[id as usize];
        let earlier = partition.hurry.filter(|(_, mark)| *mark > head).map(|(at, _)| at).filter(|at| *at <= by);
        partition.hurry = Some((earlier.unwrap_or(by), mark));
        if earlier.is_none() {
            self.consider(id);
        }
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
        let mut due = std::mem::take(&mut self.deadlines.due);
        while let Some(record) = self.deadlines.pop(now) {
            if self.drain.may_be_held(&record.deadline) {
                due.push(record);
            }
        }
        // By partition, segment and place.
        due.sort_unstable();
        for of_segment in due.chunk_by(|a, b| a.deadline.is_beside(&b.deadline)) {
            self.expire_in_ring(of_segment);
        }
        // Where one lay that is done by now, another record may lie since.
        due.retain(|due| self.drain.may_be_held(&due.deadline));
        // In the order of the records: what came back, what is on its way, what waits behind that.
        for of_partition in due.chunk_by(|a, b| a.deadline.partition == b.deadline.partition) {
            self.expire_queued(of_partition[0].deadline.partition, of_partition, true);
        }
        self.expire_in_flight(&due);
        for of_partition in due.chunk_by(|a, b| a.deadline.partition == b.deadline.partition) {
            self.expire_queued(of_partition[0].deadline.partition, of_partition, false);
        }
        for of_partition in due.chunk_by(|a, b| a.deadline.partition == b.deadline.partition) {
            self.consider(of_partition[0].deadline.partition);
        }
        due.clear();
        self.deadlines.due = due;
        self.arm_deadlines();
    }

    /// Takes what lies in the ring, of one segment, out of it into the queue. What cannot be taken now is looked at again a
    /// moment later.
    fn expire_in_ring(&mut self, due: &[Due]) {
        let (id, deadline) = (due[0].deadline.partition, due[0].deadline);
        while self.drain.is_in_ring(&self.partitions[id as usize].ring, &deadline) {
            let Some(batch) = self.drain_ring(id, Leave::Now) else {
                // A writer is between its claim and its commit.
                let soon = self.now.monotonic + Duration::from_millis(1);
                due.iter().for_each(|due| self.deadlines.push(soon, *due, &self.drain));
                break;
            };
            self.partitions[id as usize].requeue(batch);
        }
    }

    /// In the batches before all that are in flight, or in the others.
    fn expire_queued(&mut self, id: u32, due: &[Due], before: bool) {
        if self.partitions[id as usize].queue.is_empty() {
            return;
        }
        let (mut at, first) = (0, self.first_in_flight(id));
        while let Some(batch) = self.partitions[id as usize].queue.get(at) {
            at += 1;
            if (batch.number < first) != before || !batch.has_due(due) {
                continue;
            }
            let Some(mut batch) = self.partitions[id as usize].queue.remove(at - 1) else { break };
            if self.is_stored(&batch) {
                at -= 1;
                self.delivered_before(batch);
                continue;
            }
            if !batch.may_be_written() && batch.stamp.is_some() {
                // It is stamped again, without them.
                self.lose_numbers(&batch);
                (batch.stamp, batch.crc) = (None, None);
            }
            self.tell_records(&mut batch, due, false);
            if batch.live() > 0 || batch.is_unclear() {
                self.partitions[id as usize].queue.insert(at - 1, batch);
            } else {
                at -= 1;
                if batch.stamp.is_some() {
                    self.lose_numbers(&batch);
                }
                self.retire(batch);
            }
        }
    }

    fn expire_in_flight(&mut self, due: &[Due]) {
        let of = |due: &Due| &self.partitions[due.deadline.partition as usize];
        let sent = due.iter().map(of).filter(|partition| partition.unacked > 0);
        let mut lanes: Vec<_> = sent.filter_map(|partition| partition.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        for lane in lanes {
            let has_due = |batch: &Batch| batch.has_due(of_partition(due, batch.partition));
            self.each_in_flight(lane, has_due, |sender, batch| {
                sender.tell_records(batch, of_partition(due, batch.partition), true);
            });
        }
    }

    /// Tells of those of the batch's records that are due. Their bytes stay where they are.
    fn tell_records(&mut self, batch: &mut Batch, due: &[Due], in_flight: bool) {
        stepped(if in_flight || batch.may_be_written() { Step::ToldAlone } else { Step::TakenOut });
        for part in std::mem::take(&mut batch.parts) {
            let mine = of_lease(due, &part.lease);
            if part.reported || mine.is_empty() {
                batch.parts.push(part);
                continue;
            }
            let mut next = mine.iter().peekable();
            let last = mine.last().map_or(0, |due| due.deadline.index + 1 - part.lease.first());
            let cuts = cut(part.lease, last, |index, _| {
                next.next_if(|due| due.deadline.index == index).map(|due| due.accepted)
            });
            for (lease, accepted) in cuts {
                let part = Part { lease, reported: false };
                let Some(accepted) = accepted else {
                    batch.parts.push(part);
                    continue;
                };
                let (count, bytes) = (part.lease.count(), part.lease.len());
                let mut told = batch.of_piece(Piece { parts: vec![part], count, bytes, max_timestamp_delta: 0 });
                if in_flight {
                    told.known.learn(Event::LeftOpen);
                }
                told.opened = accepted;
                let error = self.error(&told, DeliveryErrorKind::Expired);
                self.tell(&mut told, &Outcome::Failed(error));
                batch.parts.append(&mut told.parts);
            }
        }
        // A flush may be over.
        self.settled |= batch.reported() == Reported::All;
    }
}
