//! A partition as writers see it: its ring of slots and the few settings that the sender keeps for it.

use std::sync::Arc;

use super::{census::Drained, completions::Place, ready::ReadyLink, word::Slot};
use crate::sync::{AcqRel, AtomicU32, AtomicU64, Relaxed, Release, SeqCst, fence, fence_after_rmw, order, plain};

/// One partition's ring. Shared by every writer and the sender; made by `Drain::add_partition`.
#[derive(Debug)]
pub struct Partition {
    /// Counts from 0 in the order of `Drain::add_partition`.
    pub id: u32,
    /// Topic and partition number.
    pub place: Arc<Place>,
    /// The newest position that anyone saw installed. A hint that never runs ahead, and lags by at most one.
    pub(super) tail: AtomicU64,
    pub(super) slots: Box<[AtomicU64]>,
    /// The sender cannot send this partition now: a full segment is continued. A hint.
    pub busy: plain::AtomicBool,
    /// The largest batch, in bytes, with its header: the smaller of `max.request.size` and what the topic is known to
    /// refuse. A hint: it bounds what is appended from now on.
    pub limit: plain::AtomicU32,
    leave_at: AtomicU32,
    /// The leader's node id, -1 while unknown. For the partitioner.
    pub leader: plain::AtomicI32,
    /// Which share of the memory its segments count in: see `share.rs`.
    pub(super) share: plain::AtomicU32,
    /// Size class with which the next batch opens.
    pub(super) hint: plain::AtomicU32,
    pub(super) link: ReadyLink,
    /// 1: an append was refused as full since the last [`Partition::changed`].
    refused: AtomicU32,
    /// What was taken out of the ring.
    pub(super) drained: Drained,
}

impl Partition {
    pub(super) fn new(id: u32, place: Arc<Place>, slots: usize, limit: u32, leave_at: u32) -> Self {
        // Positions start at `slots`, as if the lap before had been consumed.
        let first = |at| if at + 1 == slots { 2 * slots - 1 } else { slots + at };
        Self {
            id,
            place,
            tail: AtomicU64::new(slots as u64 - 1),
            slots: (0..slots).map(|at| AtomicU64::new(Slot::empty(first(at) as u64).0)).collect(),
            busy: plain::AtomicBool::new(false),
            limit: plain::AtomicU32::new(limit),
            leave_at: AtomicU32::new(leave_at),
            leader: plain::AtomicI32::new(-1),
            share: plain::AtomicU32::new(0),
            hint: plain::AtomicU32::new(0),
            link: ReadyLink::default(),
            refused: AtomicU32::new(0),
            drained: Drained::new(slots as u64),
        }
    }

    #[inline]
    pub(super) fn slot(&self, position: u64) -> &AtomicU64 {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    #[inline]
    pub(super) fn lap(&self, position: u64) -> u64 {
        position >> self.slots.len().trailing_zeros()
    }

    /// The open chain's bytes at which the sender wants to be told; below it a full segment is continued.
    #[inline]
    pub fn leave_at_hint(&self) -> u32 {
        self.leave_at.load(Relaxed)
    }

    /// The same for whoever has just claimed: either this is what the sender set before its last look, or that look saw the
    /// claim.
    #[inline]
    pub(super) fn leave_at_after_claim(&self) -> u32 {
        fence_after_rmw();
        self.leave_at_hint()
    }

    /// The sender wants to be told at `bytes`; then it looks at what is claimed.
    pub fn set_leave_at(&self, bytes: u32) {
        self.leave_at.store(bytes, Relaxed);
        fence(SeqCst);
    }

    /// An append finds no room here. It looks once more after this, and only then says so: a change of the ring that it
    /// does not see there finds the note. One word, a read-modify-write on both sides.
    pub(super) fn note_refused(&self) {
        self.refused.swap(1, order("refused_set", AcqRel));
    }

    /// Something was installed, or taken out. True: somebody was refused before, and must look again.
    #[must_use]
    pub(super) fn changed(&self) -> bool {
        self.refused.swap(0, order("refused_take", AcqRel)) != 0
    }

    /// Whoever saw `position` installed helps the hint on.
    pub(super) fn advance(&self, position: u64) {
        let _ = self.tail.compare_exchange(position - 1, position, order("tail_advance", Release), Relaxed);
    }
}
