//! The records of a drained segment, or some of them, and the memory that they lie in: as a lease, which is moved, divided
//! and shared, never copied. Whoever has one may read its bytes, on any thread; the end of the last one makes the
//! completion's last call. A hold keeps the memory only, for the kernel. When the last of both ends, the memory goes back.
//!
//! *Why this is sound*: (a) a segment's first lease is of all its records, and is made by `Drain`, once, when it has taken the
//! complete segment out of its slot of the ring: so no writer has it any more, and the memory is the leases' (clause (f) of
//! `arena.rs`) until the last one ends. `new`, `release` and `trim` are for `Drain` alone; what `Header::lease` asserts finds
//! mistakes, but is no proof; (b) `cut_front` divides a lease's bytes between two, so two leases lie
//! over the same bytes only where `share` made one of the other, and both know that; (c) bytes are written through `&mut` of
//! a lease that is not shared: nobody else can name them. A hold gives no bytes. (That the kernel is done with bytes that are
//! written is the sender's promise: it concerns what is sent, not what this program reads.)

#![allow(unsafe_code, reason = "argued above")]

use std::fmt;
use std::sync::Arc;

use super::{
    Accumulator,
    entry::{self, Entry},
    pool::Run,
    segment::{Header, UNIT},
    word::ENTRY,
};
#[cfg(not(loom))]
use crate::completion::Outcome;
#[cfg(not(loom))]
use crate::record::Place;

/// Runs from this size on are trimmed when they are drained.
const TRIM_UNITS: u32 = 16;

/// See the module.
pub struct Lease {
    accumulator: Arc<Accumulator>,
    segment: u32,
    /// Where the records lie in the arena.
    offset: usize,
    /// How long they are.
    len: u32,
    /// Place in the segment of the first record.
    first: u32,
    /// How many records.
    count: u32,
    /// They are all of the segment's.
    whole: bool,
    /// Another lease is of the same records.
    shared: bool,
    ended: bool,
}

impl Lease {
    /// Of all records of a segment that was taken out of the ring, at least one: where they begin in the run, how long they are,
    /// and how many. Panics when the segment is not complete or has leases: a bug of ours.
    pub(super) fn new(accumulator: &Arc<Accumulator>, segment: u32, (start, len): (u32, u32), count: u32) -> Self {
        accumulator.pool.header(segment).lease();
        let offset = segment as usize * UNIT + start as usize;
        let accumulator = accumulator.clone();
        Self { accumulator, segment, offset, len, first: 0, count, whole: true, shared: false, ended: false }
    }

    fn header(&self) -> &Header {
        self.accumulator.pool.header(self.segment)
    }

    /// The segment.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Where the records lie in the arena.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How long they are, bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Place in the segment of the first record.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// How many records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The segment's records have listener entries.
    pub fn tagged(&self) -> bool {
        self.header().extent().tagged()
    }

    /// How many of the segment's records have a `Delivery`.
    pub fn deliveries(&self) -> u32 {
        self.header().committed().deliveries()
    }

    /// What the records' timestamp deltas count from, Unix ms.
    pub fn base_timestamp(&self) -> i64 {
        self.header().base().timestamp
    }

    /// The records.
    #[cfg(not(loom))]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: clauses (a) and (c).
        unsafe { self.accumulator.pool.arena.slice(self.offset, self.len as usize) }
    }

    /// The same for the models: loom's bytes are no slice.
    #[cfg(loom)]
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: clause (a).
        unsafe { self.accumulator.pool.arena.read(self.offset, self.len as usize, <[u8]>::to_vec) }
    }

    /// Who is to be told about the records.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let header = self.header();
        let (run, units, base_timestamp) = (self.segment as usize * UNIT, header.run().1, header.base().timestamp);
        let tagged = header.extent().tagged();
        (self.first..self.first + self.count).map(move |i| {
            if !tagged {
                return Entry::None;
            }
            let at = entry::offset(run, units, i);
            // SAFETY: clause (a): entries are written before their record is committed, and never again.
            unsafe { self.accumulator.pool.arena.read(at, ENTRY as usize, |bytes| entry::read(bytes, base_timestamp)) }
        })
    }

    /// Another lease of the same records. From now on neither may write them again.
    pub fn share(&mut self) -> Self {
        self.shared = true;
        self.header().share_lease();
        Self { accumulator: self.accumulator.clone(), ended: false, ..*self }
    }

    /// Keeps the memory until it ends, too.
    pub fn hold(&self) -> Hold {
        self.header().hold();
        Hold { accumulator: self.accumulator.clone(), segment: self.segment, ended: false }
    }

    /// The first `count` records, which are `len` bytes long, as a lease of their own; the others stay here.
    pub fn cut_front(&mut self, count: u32, len: u32) -> Self {
        let (counts, bytes) = (1..self.count, 1..self.len);
        assert!(counts.contains(&count) && bytes.contains(&len), "a lease is cut between its records");
        self.header().share_lease();
        self.whole = false;
        let front = Self { accumulator: self.accumulator.clone(), count, len, ended: false, ..*self };
        self.offset += len as usize;
        (self.len, self.first, self.count) = (self.len - len, self.first + count, self.count - count);
        front
    }

    /// Lets `change` write the bytes again, and keeps as many of them as it says. Panics when the lease is shared: a bug of
    /// ours. The kernel must hold nothing of them.
    #[cfg(not(loom))]
    pub(super) fn rewrite<R>(&mut self, change: impl FnOnce(&mut [u8]) -> (usize, R)) -> R {
        assert!(!self.shared, "somebody else may be reading these bytes");
        // SAFETY: clauses (a) and (c).
        let (len, result) = unsafe { self.accumulator.pool.arena.write(self.offset, self.len as usize, change) };
        assert!(len <= self.len as usize, "written beyond its end");
        self.len = len as u32;
        result
    }

    /// Says what became of the records, once, through this lease or one that shares it; `outcome`'s base offset is the first
    /// record's.
    #[cfg(not(loom))]
    pub fn report(&mut self, place: &Arc<Place>, outcome: Outcome) {
        let header = self.header();
        let deliveries = header.committed().deliveries();
        if self.whole && header.has_one_lease() {
            // The common case: one result for the segment.
            if let Some(completion) = header.take_completion() {
                completion.complete(deliveries, place, outcome);
            }
        } else if deliveries > 0 {
            header.completion().resolve(place, self.first..self.first + self.count, &outcome);
        }
    }

    /// Ends the lease. How many bytes of memory came back with that: none while there are other leases of the segment. To be
    /// followed by [`Accumulator::made_room`], once for many segments: a caller that is woken for each would find room for
    /// a few records only, and sleep again.
    pub fn end(mut self) -> usize {
        self.give_back()
    }

    fn give_back(&mut self) -> usize {
        if std::mem::replace(&mut self.ended, true) {
            return 0;
        }
        let header = self.header();
        // What has no result yet ends as possibly written.
        let finish = || {
            if let Some(completion) = header.take_completion() {
                completion.finish(self.deliveries(), None);
            }
        };
        if header.end_lease(finish) { self.accumulator.release(self.segment) } else { 0 }
    }
}

/// Keeps the memory of a segment.
pub struct Hold {
    accumulator: Arc<Accumulator>,
    segment: u32,
    ended: bool,
}

impl Hold {
    /// Ends the hold. How many bytes of memory came back with that, as [`Lease::end`] says.
    pub fn end(mut self) -> usize {
        self.give_back()
    }

    fn give_back(&mut self) -> usize {
        let last = !std::mem::replace(&mut self.ended, true) && self.accumulator.pool.header(self.segment).end_hold();
        if last { self.accumulator.release(self.segment) } else { 0 }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}", self.segment)
    }
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        self.segment == other.segment
    }
}

impl Eq for Hold {}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, len, first, count, .. } = self;
        write!(f, "segment {segment}: records {first} to {}, {len} bytes at {offset}", first + count)
    }
}

impl Accumulator {
    /// Gives a segment's memory back. Returns how many bytes.
    pub(super) fn release(&self, segment: u32) -> usize {
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

    /// Fills a run that was taken from the pool and is in no ring.
    #[cfg(all(test, not(loom)))]
    pub(super) fn overwrite(&self, run: &Run, byte: u8) {
        // SAFETY: clause (d) of `arena.rs`: whoever took it has it for itself.
        unsafe {
            self.pool.arena.write(run.index as usize * UNIT, run.units as usize * UNIT, |bytes| bytes.fill(byte))
        };
    }

    /// Bytes that a transmit names, of which it has a hold.
    #[cfg(all(feature = "testing", not(loom)))]
    pub fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: clause (a), by that hold.
        unsafe { self.pool.arena.slice(offset, len) }
    }
}
