//! Drained segments: what the sender, and the callback thread it lends them to, may do with them until they are put back.
//!
//! *Why this is sound*: (a) a drained segment belongs to the sender until it calls `release` for it (clause (f) of
//! `arena.rs`). Every method here is the sender's, which has one thread, names only segments that its `Drain` gave it and
//! did not release, and writes only to those of which the kernel holds nothing; (b) of `entries`, `base_timestamp` and `bytes`
//! the callback thread makes use too: of runs that a report named, before the report that releases their segment. A run
//! that was reported has its result, and what has its result is never renumbered, though other parts of its segment may
//! be: so nobody writes what the callback thread reads. Those are promises of `sender/` that no type checks.

use std::ops::Range;

use super::{
    Accumulator,
    entry::{self, Entry},
    pool::Run,
    segment::UNIT,
    word::ENTRY,
};
/// Runs from this size on are trimmed when they are drained.
const TRIM_UNITS: u32 = 16;

impl Accumulator {
    /// Gives a drained segment's memory back: the broker has answered (or never will) and the kernel holds none of it.
    /// Once per segment. From any thread, which then calls [`Accumulator::made_room`], once for many segments: a caller
    /// that is woken for each would find room for a few records only, and sleep again. Returns how many bytes it were.
    pub fn release(&self, segment: u32) -> usize {
        let header = self.pool.header(segment);
        let ((account, units), (first, hole)) = (header.run(), header.hole());
        header.release();
        if hole > 0 {
            self.pool.put(Run { index: segment + first + hole, units: units - first - hole, account });
            self.pool.put(Run { index: segment, units: first, account });
        } else {
            self.pool.put(Run { index: segment, units, account });
        }
        (units - hole) as usize * UNIT
    }

    /// Gives back what a drained segment does not use of a large run: it may stay in flight for long. In quarters of the
    /// run, so that it is at most three pieces. Its records end `used` bytes into the run, wherever they begin.
    /// True: it did.
    pub(super) fn trim(&self, segment: u32, used: u32, count: u32) -> bool {
        let header = self.pool.header(segment);
        let ((account, units), extent) = (header.run(), header.extent());
        if units < TRIM_UNITS || !units.is_power_of_two() {
            return false;
        }
        let (unit, quarter) = (UNIT as u32, units / 4);
        let first = used.div_ceil(unit * quarter) * quarter;
        let entries = if extent.tagged() { count * ENTRY as u32 } else { 0 };
        let end = (units * unit - entries) / (unit * quarter) * quarter;
        if first < end {
            header.set_hole(first, end - first);
            self.pool.put(Run { index: segment + first, units: end - first, account });
        }
        first < end
    }

    /// Who is to be told about these records of a drained segment that is not released as long as that is used.
    pub fn entries(&self, segment: u32, records: Range<u32>) -> impl Iterator<Item = Entry> {
        let header = self.pool.header(segment);
        let count = if header.extent().tagged() { header.claim().count() as u32 } else { 0 };
        let (run, units, base_timestamp) = (segment as usize * UNIT, header.run().1, header.base().timestamp);
        records.map(move |i| {
            if i >= count {
                return Entry::None;
            }
            let at = entry::offset(run, units, i);
            // SAFETY: clauses (a) and (b).
            unsafe { self.pool.arena.read(at, ENTRY as usize, |bytes| entry::read(bytes, base_timestamp)) }
        })
    }

    /// What the timestamp deltas of a drained segment's records count from, Unix ms.
    #[cfg(not(loom))]
    pub fn base_timestamp(&self, segment: u32) -> i64 {
        self.pool.header(segment).base().timestamp
    }

    /// Bytes of a drained segment, until it is released.
    #[cfg(not(loom))]
    pub fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: clauses (a) and (b).
        unsafe { self.pool.arena.slice(offset, len) }
    }

    /// The same for the models: loom's bytes are no slice.
    #[cfg(loom)]
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        // SAFETY: clause (a).
        unsafe { self.pool.arena.read(offset, len, <[u8]>::to_vec) }
    }

    /// Lets `change` work on bytes of a drained segment that the kernel does not hold.
    #[cfg(not(loom))]
    pub(super) fn rewrite<R>(&self, offset: usize, len: usize, change: impl FnOnce(&mut [u8]) -> R) -> R {
        // SAFETY: clause (a).
        unsafe { self.pool.arena.write(offset, len, change) }
    }
}
