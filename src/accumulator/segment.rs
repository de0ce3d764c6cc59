//! A segment's header: claim word, commit word, and what a writer must know of the segment. One per unit of the arena;
//! a segment uses the header of its run's first unit, so headers are never freed and a late reader reads *a* header.
//!
//! *Why this is sound*: (a) every field of `Header` is an atomic integer or pointer, for which zero is a valid value, so a zeroed
//! allocation is a valid table; (b) the completion of a header was put there by `into_raw` when the segment was prepared,
//! before its claim word said open, and is read only by the owner of a claim of that generation or of a lease; the last call is
//! made by the only lease, or by the last one before it ends, and takes the completion out, so that none follows; (c) the table's memory is zeroed, aligned to a page and large enough,
//! lives as long as the table and is used for nothing else, and `Header` is `Sync`.

#![allow(unsafe_code, reason = "argued above")]

#[cfg(not(loom))]
use std::ptr::NonNull;

#[cfg(not(loom))]
use super::arena::Arena;
use super::{
    completions::CompletionRef,
    pool::Account,
    word::{Base, Claim, Commit, Extent},
};
use crate::sync::{AcqRel, Acquire, AtomicU64, Relaxed, Release, order, plain};

/// The smallest run, bytes.
pub const UNIT: usize = if cfg!(loom) { 27 } else { 1024 };

/// A hold, in a header's count.
const HOLD: u64 = 1 << 32;

#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

/// Two lines: the first is read by every writer, the second only written.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Header {
    pub claim: AtomicU64,
    base: AtomicU64,
    timestamp: AtomicU64,
    extent: plain::AtomicU64,
    completion: plain::AtomicPtr<()>,
    max_timestamp: plain::AtomicI64,
    /// Of a run with a single record: where it begins and how long it is. Zero otherwise.
    start: plain::AtomicU32,
    len: plain::AtomicU32,
    /// Where the run is counted, and where it goes back to.
    account: plain::AtomicU32,
    /// Units in the run's middle that were given back before the rest: first << 32 | how many.
    hole: plain::AtomicU64,
    /// 1: its memory was given back. A hint, for who keeps records in mind.
    released: plain::AtomicU32,
    /// Once it was drained: holds on its memory:32 | leases of its records:32.
    leases: AtomicU64,
    commit: Line<AtomicU64>,
}

/// How a segment begins.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    pub base: Base,
    pub extent: Extent,
    pub account: Account,
    /// From `CompletionRef::into_raw`.
    pub completion: *mut (),
}

/// The only record of a run.
#[derive(Clone, Copy, Debug)]
pub struct Alone {
    /// Where in the run it begins, bytes.
    pub start: u32,
    /// Its length, bytes.
    pub len: u32,
    /// It has a `Delivery`.
    pub delivery: bool,
    /// The batch goes on behind it.
    pub continues: bool,
    /// Its timestamp, Unix ms.
    pub timestamp: i64,
}

impl Header {
    #[inline]
    pub fn claim(&self) -> Claim {
        Claim(self.claim.load(order("claim_load", Acquire)))
    }

    /// Valid only if a CAS that names this generation succeeds afterwards: Acquire, so that whoever read a later
    /// owner's base also sees that the segment was sealed in between. The same holds for `extent`.
    #[inline]
    pub fn base(&self) -> Base {
        let packed = self.base.load(order("base_load", Acquire));
        Base::unpack(packed, self.timestamp.load(order("base_load", Acquire)) as i64)
    }

    #[inline]
    pub fn extent(&self) -> Extent {
        Extent::from_word(self.extent.load(Acquire))
    }

    /// Where the run is counted, and its length in units. For who took the run.
    pub fn run(&self) -> (Account, u32) {
        (Account::from_word(self.account.load(Relaxed)), self.extent.load(Relaxed) as u32)
    }

    /// The units that were given back already: the first, counted in the run, and how many. For who drained it.
    pub fn hole(&self) -> (u32, u32) {
        let hole = self.hole.load(Relaxed);
        ((hole >> 32) as u32, hole as u32)
    }

    /// `units` from `first` on were given back.
    pub fn set_hole(&self, first: u32, units: u32) {
        self.hole.store(u64::from(first) << 32 | u64::from(units), Relaxed);
    }

    /// Its completion. For who owns a claim of it, or has drained it.
    #[inline]
    pub fn completion(&self) -> CompletionRef {
        // SAFETY: clause (b).
        unsafe { CompletionRef::from_raw(self.completion.load(Relaxed)) }
    }

    fn prepare(&self, fresh: &Fresh) {
        let Fresh { base, extent, account, completion } = *fresh;
        self.base.store(base.pack(), order("base_store", Release));
        self.timestamp.store(base.timestamp as u64, order("base_store", Release));
        self.extent.store(extent.word(), Release);
        self.account.store(account.word(), Relaxed);
        self.hole.store(0, Relaxed);
        self.released.store(0, Relaxed);
        self.completion.store(completion, Relaxed);
    }

    /// The same, for whoever makes its last call; `None`: that was made.
    pub fn take_completion(&self) -> Option<CompletionRef> {
        let completion = self.completion.swap(std::ptr::null_mut(), Relaxed);
        // SAFETY: clause (b).
        (!completion.is_null()).then(|| unsafe { CompletionRef::from_raw(completion) })
    }

    /// The first lease of its records is made. Panics unless it is complete, not released, and has none.
    pub fn lease(&self) {
        let fresh = self.is_complete() && !self.is_released() && self.leases.load(Relaxed) == 0;
        assert!(fresh, "a segment is drained once, when it is complete");
        self.leases.store(1, Relaxed);
    }

    /// Another lease is made of one.
    pub fn share_lease(&self) {
        self.leases.fetch_add(1, Relaxed);
    }

    /// For a lease's owner: there is no other one, and what the others did is done.
    pub fn has_one_lease(&self) -> bool {
        self.leases.load(Acquire) as u32 == 1
    }

    /// A lease ends; `last` is called if it is the last one. True: there is no hold either, and what the others did is done.
    pub fn end_lease(&self, last: impl FnOnce()) -> bool {
        let mut count = self.leases.load(Acquire);
        loop {
            if count as u32 == 1 {
                // Before it ends: behind that, the end of a hold could give the header to another segment.
                last();
                return self.leases.fetch_sub(1, order("lease_last", AcqRel)) == 1;
            }
            match self.leases.compare_exchange(count, count - 1, order("lease_end", AcqRel), Acquire) {
                Ok(_) => return false,
                Err(now) => count = now,
            }
        }
    }

    /// A lease's owner makes a hold.
    pub fn hold(&self) {
        self.leases.fetch_add(HOLD, Relaxed);
    }

    /// A hold ends. True: it was the last, there is no lease either, and what the others did is done.
    pub fn end_hold(&self) -> bool {
        self.leases.fetch_sub(HOLD, order("hold_end", AcqRel)) == HOLD
    }

    /// Its memory is given back. For the owner of its last lease.
    pub fn release(&self) {
        self.released.store(1, Relaxed);
    }

    pub fn is_released(&self) -> bool {
        self.released.load(Relaxed) != 0
    }

    /// Open and empty, under the next generation, which is returned. For who took the run from the pool; nobody can
    /// claim in it before its slot is installed.
    pub fn open(&self, fresh: &Fresh) -> u64 {
        self.prepare(fresh);
        self.max_timestamp.store(i64::MIN, Relaxed);
        self.start.store(0, Relaxed);
        self.len.store(0, Relaxed);
        self.commit.0.store(0, Relaxed);
        let claim = Claim::open(self.next_generation());
        self.claim.store(claim.0, order("open_store", Release));
        claim.generation()
    }

    /// Sealed and complete with one record, under the next generation, before anyone can see it.
    pub fn prepare_alone(&self, fresh: &Fresh, alone: &Alone) -> u64 {
        self.prepare(fresh);
        self.max_timestamp.store(alone.timestamp, Relaxed);
        self.start.store(alone.start, Relaxed);
        self.len.store(alone.len, Relaxed);
        self.commit.0.store(Commit::complete() + Commit::record(0, alone.delivery), Relaxed);
        let claim = Claim::open(self.next_generation()).add(0).seal(alone.continues);
        self.claim.store(claim.0, Release);
        claim.generation()
    }

    fn next_generation(&self) -> u64 {
        let generation = Claim(self.claim.load(Relaxed)).generation();
        generation + 1
    }

    /// The record's timestamp counts for the batch's maximum. Before its commit. Almost always a load only.
    #[inline]
    pub fn raise_timestamp(&self, timestamp: i64) {
        if timestamp > self.max_timestamp.load(Relaxed) {
            self.max_timestamp.fetch_max(timestamp, Relaxed);
        }
    }

    /// Publishes a record of `len` bytes. True: this commit made the segment complete. The caller does not touch the
    /// segment afterwards.
    #[inline]
    #[must_use]
    pub fn commit(&self, len: u64, delivery: bool) -> bool {
        let adds = Commit::record(len, delivery);
        Commit(self.commit.0.fetch_add(adds, order("commit", Release)).wrapping_add(adds)).is_complete()
    }

    /// Step one of a seal. Whoever wins owes step two. Release: who finds a segment sealed by the sender must also see
    /// the slots that the sender freed before, else it reports a full ring that is not.
    #[must_use]
    pub fn try_seal(&self, seen: Claim, continues: bool) -> bool {
        self.claim.compare_exchange(seen.0, seen.seal(continues).0, order("seal", Release), Relaxed).is_ok()
    }

    /// Step two of a seal: what was claimed is what must be committed. True: everything already is.
    #[must_use]
    pub fn settle(&self, bytes: u64) -> bool {
        let owed = Commit::sealed(bytes);
        Commit(self.commit.0.fetch_add(owed, order("settle", Release)).wrapping_add(owed)).is_complete()
    }

    /// The commit word. Acquire: when it is complete, every committed byte is seen, because commits and seal are one
    /// release sequence of RMWs.
    pub fn committed(&self) -> Commit {
        Commit(self.commit.0.load(order("complete_load", Acquire)))
    }

    /// Sealed, and every claim is committed.
    pub fn is_complete(&self) -> bool {
        self.committed().is_complete()
    }

    /// Bytes of the records that `claim` covers.
    pub fn claimed(&self, claim: Claim) -> u64 {
        u64::from(self.len.load(Relaxed)).max(claim.bytes())
    }

    /// Where the next segment of the batch stands; `claim` is this one's, sealed. Valid as `base` is, or if a CAS of the
    /// next slot's word succeeds afterwards.
    pub fn next_base(&self, claim: Claim) -> Base {
        self.base().next(claim.count(), self.claimed(claim))
    }

    /// Of a complete segment: where its records begin in the run, and their length together.
    pub fn records(&self) -> (u32, u32) {
        let len = self.len.load(Relaxed);
        if len > 0 { (self.start.load(Relaxed), len) } else { (0, self.claim().bytes() as u32) }
    }

    /// Of a complete segment: the largest timestamp, `i64::MIN` without records.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp.load(Relaxed)
    }
}

/// A header for each unit, in memory whose pages cost nothing until they are used.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct Table {
    first: NonNull<Header>,
    units: usize,
    _memory: Arena,
}

// SAFETY: clause (c).
#[cfg(not(loom))]
unsafe impl Send for Table {}
// SAFETY: clause (c).
#[cfg(not(loom))]
unsafe impl Sync for Table {}

#[cfg(not(loom))]
impl Table {
    pub fn len(&self) -> usize {
        self.units
    }

    /// Panics when there is no such header: a bug of ours. (No slice: a reference to all of it would take Miri hours.)
    #[inline(always)]
    pub fn at(&self, index: usize) -> &Header {
        assert!(index < self.units, "a header outside the table");
        // SAFETY: clause (c), inside the table.
        unsafe { self.first.add(index).as_ref() }
    }
}

/// A header for each of `units`, zeroed; `None` when there is no such memory.
#[cfg(not(loom))]
pub fn table(units: usize) -> Option<Table> {
    let bytes = units.checked_mul(size_of::<Header>())?;
    let memory = Arena::new(bytes)?;
    let first = NonNull::new(memory.at(0, bytes))?.cast();
    Some(Table { first, units, _memory: memory })
}

/// A header for each unit.
#[cfg(loom)]
#[derive(Debug)]
pub struct Table(Box<[Header]>);

#[cfg(loom)]
impl Table {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn at(&self, index: usize) -> &Header {
        &self.0[index]
    }
}

/// A header for each of `units`.
#[cfg(loom)]
pub fn table(units: usize) -> Option<Table> {
    let header = |_| Header {
        claim: AtomicU64::new(0),
        base: AtomicU64::new(0),
        timestamp: AtomicU64::new(0),
        extent: plain::AtomicU64::new(0),
        completion: plain::AtomicPtr::default(),
        max_timestamp: plain::AtomicI64::new(0),
        start: plain::AtomicU32::new(0),
        len: plain::AtomicU32::new(0),
        account: plain::AtomicU32::new(0),
        hole: plain::AtomicU64::new(0),
        released: plain::AtomicU32::new(0),
        leases: AtomicU64::new(0),
        commit: Line(AtomicU64::new(0)),
    };
    Some(Table((0..units).map(header).collect()))
}
