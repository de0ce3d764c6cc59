//! How many records a partition has accepted, counted by any thread at any time, at no cost to an append.
//!
//! What was drained is a number that the sender keeps; what was not is counted in the ring's segments. A drain moves
//! records from the one to the other: `turn` is odd meanwhile, and whoever saw it odd, or saw it change, counts again.
//! Whatever a drain changes it changes by a release after `turn` became odd, and is read by an acquire before `turn` is
//! read again, so a count that was disturbed is always noticed.

use super::{Accumulator, Partition, word::Slot};
use crate::sync::{Acquire, AtomicU64, Relaxed, Release, order, plain};

/// A disturbed count is repeated so often; only a sender that died in the middle of a drain disturbs for ever.
#[cfg(not(loom))]
const TRIES: u32 = 20_000;

/// What the sender has taken out of a ring.
#[derive(Debug)]
pub(super) struct Drained {
    /// Odd while a drain is under way.
    turn: AtomicU64,
    /// The ring's first position that was not drained.
    head: AtomicU64,
    records: AtomicU64,
    /// The most that was ever counted as accepted.
    counted: plain::AtomicU64,
}

/// A partition's records, counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Census {
    /// Everything that was ever accepted. Never less than at an earlier count.
    pub accepted: u64,
    /// Of these, what is still in the ring.
    pub waiting: u64,
}

impl Drained {
    pub(super) fn new(head: u64) -> Self {
        Self {
            turn: AtomicU64::new(0),
            head: AtomicU64::new(head),
            records: AtomicU64::new(0),
            counted: plain::AtomicU64::new(0),
        }
    }

    /// The sender is about to take segments out of the ring.
    pub(super) fn begin(&self) {
        // An RMW, whose acquire keeps what follows behind it.
        self.turn.fetch_or(1, order("census_begin", Acquire));
    }

    /// It took `records`; the ring begins at `head` now.
    pub(super) fn end(&self, head: u64, records: u32) {
        let before = self.records.load(Relaxed);
        self.records.store(before + u64::from(records), order("census_end", Release));
        self.head.store(head, order("census_end", Release));
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn + 1, Release);
    }
}

impl Accumulator {
    /// Counts a partition's records. Exact while nobody appends and nothing is drained.
    #[cfg(not(loom))]
    pub fn census(&self, partition: &Partition) -> Census {
        let mut census = None;
        for attempt in 0..TRIES {
            census = self.try_census(partition);
            if census.is_some() {
                break;
            } else if attempt < 100 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        let drained = &partition.drained;
        let mut census = census.unwrap_or_else(|| {
            let accepted = drained.records.load(Acquire);
            Census { accepted, waiting: 0 }
        });
        census.accepted = census.accepted.max(drained.counted.fetch_max(census.accepted, Relaxed));
        census
    }

    /// `None`: disturbed by a drain.
    pub(super) fn try_census(&self, partition: &Partition) -> Option<Census> {
        let drained = &partition.drained;
        let turn = drained.turn.load(Acquire);
        if turn & 1 != 0 {
            return None;
        }
        let head = drained.head.load(order("census_read", Acquire));
        let records = drained.records.load(order("census_read", Acquire));
        let mut waiting = 0;
        for position in head..head + partition.slots.len() as u64 {
            let word = Slot(partition.slot(position).load(order("census_read", Acquire)));
            if !word.is_installed() || word.lap() != partition.lap(position) & 1 {
                break;
            }
            let claim = self.pool.header(word.segment()).claim();
            if claim.generation() != word.generation() {
                return None;
            }
            waiting += claim.count();
        }
        let undisturbed = drained.turn.load(Acquire) == turn;
        undisturbed.then_some(Census { accepted: records + waiting, waiting })
    }
}
