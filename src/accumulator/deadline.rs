//! Records that have less time than `delivery.timeout.ms`: which they are, told to the sender. A record without a limit
//! of its own costs nothing here; one with it an entry in a queue, which allocates once per some thirty.

use std::num::NonZeroU32;

use super::{Accumulator, Drain, Partition, word::Slot};
use crate::sync::Acquire;

/// A record with a limit of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline {
    /// Of its partition.
    pub partition: u32,
    /// Where it lies.
    pub segment: u32,
    /// Of the segment: if it has another one, the record is done.
    pub generation: u32,
    /// Its place in the segment.
    pub index: u32,
    /// How long it may take, ms.
    pub timeout: NonZeroU32,
}

impl Deadline {
    /// Both lie, or lay, in one segment of one partition.
    pub fn is_beside(&self, other: &Self) -> bool {
        let of = |deadline: &Self| (deadline.partition, deadline.segment, deadline.generation);
        of(self) == of(other)
    }
}

impl Accumulator {
    /// Tells the sender of an accepted record's limit.
    #[cold]
    pub(super) fn note_deadline(&self, deadline: Deadline) {
        self.deadlines.push(deadline);
        self.doorbell.ring();
    }
}

impl Drain {
    /// How many records with a limit of their own were accepted and not heard of.
    pub fn deadlines(&self) -> usize {
        self.accumulator().deadlines.len()
    }

    /// The next of them.
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.accumulator().deadlines.pop()
    }

    /// The record's memory was not given back, as far as this thread knows: it may not be done yet.
    pub fn may_be_held(&self, deadline: &Deadline) -> bool {
        let header = self.accumulator().pool.header(deadline.segment);
        header.claim().generation() == u64::from(deadline.generation) && !header.is_released()
    }

    /// The record was not drained yet.
    pub fn is_in_ring(&self, partition: &Partition, deadline: &Deadline) -> bool {
        let of = |slot: &crate::sync::AtomicU64| Slot(slot.load(Acquire));
        let here = |word: Slot| {
            word.is_installed()
                && word.segment() == deadline.segment
                && word.generation() == u64::from(deadline.generation)
        };
        partition.slots.iter().map(of).any(here)
    }
}
