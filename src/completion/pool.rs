//! Free completions: a stack of slots that are never given back to the allocator while the pool lives.
//!
//! Slots live in chunks of doubling size and are named by number, so that the stack's head fits one word together
//! with a count of its changes: a slot that left the stack and came back between another thread's look and its CAS is
//! noticed by the count (which would have to wrap, 2^32 changes in between, to deceive). Taking and putting are one
//! CAS each; only growing locks and allocates, and the pool grows to the most completions ever in use at once.

use std::sync::{Arc, OnceLock};

use super::primitives::{Acquire, AtomicU64, Mutex, Relaxed, held, order};
use super::slot::Slot;
use crate::sync::Release;

/// Slots in the first chunk; chunk `k` holds `FIRST << k`.
const FIRST: u32 = if cfg!(loom) { 2 } else { 64 };
const CHUNKS: usize = 24;

/// Hands out completions, and takes them back by itself once nobody refers to them any more.
pub(crate) struct CompletionPool {
    /// High half: changes so far. Low half: the newest free slot's number plus 1; 0: none.
    head: AtomicU64,
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
    /// How many chunks there are.
    grown: Mutex<usize>,
}

impl CompletionPool {
    /// An empty pool; memory is taken as completions are.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { head: AtomicU64::new(0), chunks: [const { OnceLock::new() }; CHUNKS], grown: Mutex::new(0) })
    }

    /// A slot that nobody else has.
    pub(super) fn pop(&self) -> &Slot {
        match self.pop_free() {
            Some(slot) => slot,
            None => self.grow(),
        }
    }

    fn pop_free(&self) -> Option<&Slot> {
        let mut head = self.head.load(order("completion_pop", Acquire));
        loop {
            let slot = self.slot((head as u32).checked_sub(1)?);
            // If another thread takes the slot meanwhile, what is read here may be anything, and the CAS fails.
            let next = slot.next();
            match self.head.compare_exchange_weak(head, changed(head, next), Relaxed, order("completion_pop", Acquire))
            {
                Ok(_) => return Some(slot),
                Err(now) => head = now,
            }
        }
    }

    /// Gives a slot back. The caller has no use for it any more.
    pub(super) fn push(&self, slot: &Slot) {
        self.push_chain(slot, slot);
    }

    /// Puts slots that are already linked on the stack: `first` on top.
    fn push_chain(&self, first: &Slot, last: &Slot) {
        let mut head = self.head.load(Relaxed);
        loop {
            last.set_next(head as u32);
            match self.head.compare_exchange_weak(
                head,
                changed(head, first.number() + 1),
                order("completion_push", Release),
                Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    #[cold]
    fn grow(&self) -> &Slot {
        let mut grown = held(self.grown.lock());
        // Whoever had the lock before may have grown it for us too.
        if let Some(slot) = self.pop_free() {
            return slot;
        }
        let k = *grown;
        assert!(k < CHUNKS, "2^30 completions in use at once");
        let start = FIRST * ((1 << k) - 1);
        let chunk = self.chunks[k].get_or_init(|| (0..FIRST << k).map(|n| Slot::new(start + n)).collect());
        *grown += 1;
        let [slot, rest @ ..] = &**chunk else { unreachable!("a chunk has slots") };
        for pair in rest.windows(2) {
            pair[0].set_next(pair[1].number() + 1);
        }
        if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
            self.push_chain(first, last);
        }
        slot
    }

    fn slot(&self, number: u32) -> &Slot {
        let k = (number / FIRST + 1).ilog2();
        let chunk = self.chunks[k as usize].get();
        let chunk = chunk.map_or(&[][..], |chunk| chunk);
        &chunk[(number - FIRST * ((1 << k) - 1)) as usize]
    }

    /// How many slots there are, free or not.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.chunks.iter().filter_map(OnceLock::get).map(|chunk| chunk.len()).sum()
    }

    /// How many slots are free; only true while nobody takes or gives any.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        let mut count = 0;
        let mut next = self.head.load(Acquire) as u32;
        while next != 0 {
            count += 1;
            next = self.slot(next - 1).next();
        }
        count
    }
}

/// The head after one more change, with `next` (a number plus 1, or 0) on top.
fn changed(head: u64, next: u32) -> u64 {
    let changes = (head >> 32).wrapping_add(1);
    changes << 32 | u64::from(next)
}
