//! A completion, shared by the sender and the deliveries of one segment.
//!
//! *Why this is sound.*
//!
//! (a) A slot lies in a chunk of its pool, which is freed with the pool only, and a slot in use holds its pool. So a
//!     pointer to a slot in use is valid.
//! (b) A slot is in use from `take` until its references reach zero. It starts with `SENDER` of them. The sender's
//!     last call subtracts `SENDER` less the number of deliveries that were made, and each delivery's drop subtracts
//!     1: so zero is reached exactly once, when the sender and all deliveries have let go, in whatever order.
//! (c) The sender's calls are made through `CompletionRef`s, from any thread. `resolve` touches only what is atomic or
//!     locked, so several may be called at once. A `CompletionRef` forgets its slot with the last call. Only `from_raw` can
//!     make a second one of a slot, and its caller promises that the last call is made once, and that all resolves
//!     happened before it.
//! (d) `whole` is written by whoever took the slot before anyone else can know it, by the sender before it sets
//!     `DONE`, and by whoever brought the references to zero. Deliveries read it only after they have seen `DONE`
//!     (Release by the sender's RMW, Acquire by their load), and before their own drop (Release; zero is Acquire).

#![allow(unsafe_code, reason = "argued above")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::Waker;

use super::delivery::Delivery;
use super::metadata::{Outcome, RecordMetadata};
use super::pool::CompletionPool;
use super::primitives::{AcqRel, Acquire, AtomicU32, AtomicU64, Mutex, Relaxed, UnsafeCell, held, order};
use crate::error::{DeliveryError, DeliveryErrorKind};
use crate::record::Place;
use crate::sync::Wakers;

/// The references that the sender holds: more than there can be deliveries.
const SENDER: u64 = 1 << 62;

/// `whole` says the rest: what no part covers.
const DONE: u32 = 1;
/// There are parts.
const PARTIAL: u32 = 2;
/// There may be waiters.
const WAITERS: u32 = 4;

/// Alone on its lines: deliveries of neighbouring segments are dropped by different threads.
#[repr(align(128))]
pub(super) struct Slot {
    state: AtomicU32,
    /// This slot's own number in its pool.
    number: u32,
    /// While free: the number of the slot below it on the pool's stack, plus 1; 0: none.
    next: AtomicU32,
    references: AtomicU64,
    whole: UnsafeCell<Whole>,
    shared: Mutex<Option<Box<Shared>>>,
}

// SAFETY: `whole` is the one field that is not atomic or locked, and (d) says who touches it when.
unsafe impl Sync for Slot {}

#[cfg(all(not(loom), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Slot>() == 128);

#[derive(Default)]
struct Whole {
    pool: Option<Arc<CompletionPool>>,
    result: Option<(Arc<Place>, Outcome)>,
}

/// What is needed only where a batch was split or a delivery is polled before it is done.
#[derive(Default)]
struct Shared {
    /// By the first record of each: the record behind its last one, and what became of them.
    parts: BTreeMap<u32, (u32, Arc<Place>, Outcome)>,
    /// By record index, of which each has one delivery at most.
    waiters: Wakers,
}

impl Shared {
    /// The part that record `index` is in, and its number there.
    fn part(&self, index: u32) -> Option<(u32, &Arc<Place>, &Outcome)> {
        let (start, (end, place, outcome)) = self.parts.range(..=index).next_back()?;
        (index < *end).then_some((index - start, place, outcome))
    }
}

impl Slot {
    pub(super) fn new(number: u32) -> Self {
        Self {
            state: AtomicU32::new(0),
            number,
            next: AtomicU32::new(0),
            references: AtomicU64::new(0),
            whole: UnsafeCell::new(Whole::default()),
            shared: Mutex::new(None),
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Only the CAS on the stack's head tells whether this still means anything.
    pub(super) fn next(&self) -> u32 {
        self.next.load(Relaxed)
    }

    pub(super) fn set_next(&self, next: u32) {
        self.next.store(next, Relaxed);
    }

    /// Wakes those who wait for a record of `range`; `None`: all.
    fn wake(&self, range: Option<&Range<u32>>) {
        let woken = {
            let mut shared = held(self.shared.lock());
            let Some(shared) = shared.as_deref_mut() else { return };
            match range {
                None => shared.waiters.take_all(),
                Some(range) => shared.waiters.take_range(u64::from(range.start)..u64::from(range.end)),
            }
        };
        let room = woken.wake();
        // The next time this slot is waited for, there is room already.
        if let Some(shared) = held(self.shared.lock()).as_deref_mut() {
            shared.waiters.keep(room);
        }
    }

    /// Puts the slot back and returns what it held. What it returns may be all that keeps the pool, and with it the
    /// slot: to be dropped where no reference to the slot is around any more.
    ///
    /// # Safety
    /// The caller alone knows the slot: it just took it, or brought its references to zero.
    unsafe fn recycle(&self) -> Whole {
        // SAFETY: (d), the caller's promise.
        let whole = self.whole.with_mut(|whole| unsafe { std::mem::take(&mut *whole) });
        if self.state.load(Relaxed) & (PARTIAL | WAITERS) != 0
            && let Some(shared) = held(self.shared.lock()).as_deref_mut()
        {
            const KEPT: usize = 64;
            shared.parts.clear();
            debug_assert!(shared.waiters.is_empty(), "whoever waited had a reference");
            shared.waiters.shrink_to(KEPT);
        }
        if let Some(pool) = &whole.pool {
            pool.push(self);
        }
        whole
    }
}

/// Gives up `references` to a slot; the last one puts it back.
///
/// # Safety
/// The caller has that many, of a slot in use, and does not use them again.
unsafe fn release(slot: NonNull<Slot>, references: u64) {
    // SAFETY: (a), in use by the caller's own references.
    let count = unsafe { &slot.as_ref().references };
    let left = count.fetch_sub(references, order("completion_release", AcqRel)) - references;
    if left == 0 {
        // SAFETY: (b), zero: nobody else knows it any more, and the pool lives as long as `held`.
        let held = unsafe { slot.as_ref().recycle() };
        drop(held);
    }
}

impl CompletionPool {
    /// Takes a completion for one segment. It stays in use until the sender has said what became of it
    /// ([`CompletionRef::finish`]) and all its deliveries are dropped.
    pub(crate) fn take(self: &Arc<Self>) -> CompletionRef {
        let slot = self.pop();
        // SAFETY: (d), just taken.
        slot.whole.with_mut(|whole| unsafe { (*whole).pool = Some(self.clone()) });
        slot.state.store(0, Relaxed);
        slot.references.store(SENDER, Relaxed);
        CompletionRef(Cell::new(Some(NonNull::from(slot))))
    }
}

#[cfg(test)]
impl CompletionPool {
    /// A completion with `n` deliveries, whose timestamps are 100, 101, …; it must be finished with that `n`.
    pub(crate) fn take_with_deliveries(self: &Arc<Self>, n: u32) -> (CompletionRef, Vec<Delivery>) {
        let raw = self.take().into_raw();
        // SAFETY: it is in use, the caller finishes it with `n`, and makes the sender's calls through what is returned.
        let completion = || unsafe { CompletionRef::from_raw(raw) };
        // SAFETY: as above.
        let deliveries = (0..n).map(|i| unsafe { Delivery::new(completion(), i, 100 + i64::from(i)) }).collect();
        (completion(), deliveries)
    }
}

#[cfg(all(test, loom))]
impl CompletionRef {
    /// Another one, for a thread that resolves a part before the last call is made.
    pub(crate) fn another(&self) -> Self {
        Self(Cell::new(self.0.get()))
    }
}

/// The sender's side of a completion. Its last call, one of [`complete`](Self::complete), [`finish`](Self::finish) and
/// [`put_unused`](Self::put_unused), must come, else the deliveries wait for ever; it empties the `CompletionRef`.
/// Calls after that are a bug and panic.
pub(crate) struct CompletionRef(Cell<Option<NonNull<Slot>>>);

// SAFETY: (c), it is the sender's alone, whichever thread that is; what deliveries share is atomic, locked or (d).
unsafe impl Send for CompletionRef {}

impl CompletionRef {
    /// As a pointer, to be kept in a word of a segment. Never null.
    pub(crate) fn into_raw(self) -> *mut () {
        self.slot().as_ptr().cast()
    }

    /// Back from [`into_raw`](Self::into_raw). Dropping a `CompletionRef` does nothing, so it may be made again and
    /// again, say for [`Delivery::new`].
    ///
    /// # Safety
    /// `raw` comes from `into_raw`, and the last call has not been made. Of all that are made from it, one alone makes the last
    /// call (`complete`, `finish` or `put_unused`), after every `resolve` of the others.
    pub(crate) unsafe fn from_raw(raw: *mut ()) -> Self {
        Self(Cell::new(NonNull::new(raw.cast())))
    }

    fn slot(&self) -> NonNull<Slot> {
        let slot = self.0.get();
        assert!(slot.is_some(), "a completion is used after its last call");
        slot.unwrap_or(NonNull::dangling())
    }

    /// Gives back a completion of which no delivery was ever made.
    pub(crate) fn put_unused(&self) {
        self.finish(0, None);
    }

    /// Says what became of the records `range` of the segment, before the rest is known. Ranges do not overlap.
    pub(crate) fn resolve(&self, place: &Arc<Place>, range: Range<u32>, outcome: &Outcome) {
        // SAFETY: (a), kept in use by the sender's references.
        let slot = unsafe { self.slot().as_ref() };
        {
            let mut shared = held(slot.shared.lock());
            let part = (range.end, place.clone(), outcome.clone());
            shared.get_or_insert_default().parts.insert(range.start, part);
            slot.state.fetch_or(PARTIAL, AcqRel);
        }
        slot.wake(Some(&range));
    }

    /// The last call in the common case: all records of the segment share `outcome`, whose base offset is that of the
    /// segment's first record. `deliveries` is the exact number that was made.
    pub(crate) fn complete(&self, deliveries: u32, place: &Arc<Place>, outcome: Outcome) {
        self.finish(deliveries, Some((place, outcome)));
    }

    /// The last call. `rest` is for the records that no [`resolve`](Self::resolve) named; its base offset, too, is
    /// that of the segment's first record. `deliveries` is the exact number that was made.
    pub(crate) fn finish(&self, deliveries: u32, rest: Option<(&Arc<Place>, Outcome)>) {
        let pointer = self.slot();
        self.0.set(None);
        if deliveries > 0 {
            // SAFETY: (a), kept in use by the sender's references.
            let slot = unsafe { pointer.as_ref() };
            if let Some((place, outcome)) = rest {
                let result = Some((place.clone(), outcome));
                // SAFETY: (d), before DONE.
                slot.whole.with_mut(|whole| unsafe { (*whole).result = result });
            }
            let before = slot.state.fetch_or(DONE, order("completion_done", AcqRel));
            if before & WAITERS != 0 {
                slot.wake(None);
            }
        }
        // SAFETY: (b), the sender's last call.
        unsafe { release(pointer, SENDER - u64::from(deliveries)) }
    }
}

impl fmt::Debug for CompletionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CompletionRef").field(&self.0.get()).finish()
    }
}

/// A delivery's reference to its completion.
pub(super) struct Hold(NonNull<Slot>);

// SAFETY: what a delivery does to a slot is atomic, locked, or reading by (d).
unsafe impl Send for Hold {}
// SAFETY: as above; `&Hold` gives no more than that.
unsafe impl Sync for Hold {}

impl Delivery {
    /// The delivery of record `index` of the segment that `completion` belongs to. `timestamp` is the record's own,
    /// in milliseconds since the Unix epoch.
    ///
    /// # Safety
    /// It is counted in the `deliveries` of the sender's last call, which has not been made. There is no other for
    /// this index.
    pub(crate) unsafe fn new(completion: CompletionRef, index: u32, timestamp: i64) -> Self {
        Self::from_parts(Hold(completion.slot()), index, timestamp)
    }
}

impl Hold {
    fn slot(&self) -> &Slot {
        // SAFETY: (a), kept in use by this reference.
        unsafe { self.0.as_ref() }
    }

    /// The result of record `index`, if it is known.
    pub(super) fn look(&self, index: u32, timestamp: i64) -> Option<Result<RecordMetadata, DeliveryError>> {
        let slot = self.slot();
        let state = slot.state.load(order("completion_look", Acquire));
        if state & PARTIAL != 0
            && let Some((nth, place, outcome)) =
                held(slot.shared.lock()).as_deref().and_then(|shared| shared.part(index))
        {
            return Some(outcome.of_record(place, nth, timestamp));
        }
        if state & DONE == 0 {
            return None;
        }
        let result = slot.whole.with(|whole| {
            // SAFETY: (d), DONE was seen, and this reference keeps the slot in use.
            let (place, outcome) = unsafe { &*whole }.result.as_ref()?;
            Some(outcome.of_record(place, index, timestamp))
        });
        // A record in no part and without a rest is a bug of the sender: better said than waited for.
        Some(result.unwrap_or_else(|| Err(DeliveryError::placeless(DeliveryErrorKind::Unresolved))))
    }

    /// Has `waker` woken, in place of an earlier one, when record `index` is done. `false`: it is done, look again.
    pub(super) fn register(&self, index: u32, waker: &Waker) -> bool {
        let slot = self.slot();
        // Wakers are the caller's code: cloned before the lock is taken, dropped after it is free.
        let waker = waker.clone();
        let replaced;
        {
            let mut shared = held(slot.shared.lock());
            let shared = shared.get_or_insert_default();
            if shared.part(index).is_some() {
                return false;
            }
            replaced = shared.waiters.put(u64::from(index), waker);
        }
        drop(replaced);
        // One word, changed by both sides: either DONE is seen here, or the sender sees WAITERS and looks for wakers.
        let before = slot.state.fetch_or(WAITERS, AcqRel);
        let pending = before & DONE == 0;
        if !pending {
            self.deregister(index);
        }
        pending
    }

    /// Forgets the waker of record `index`.
    pub(super) fn deregister(&self, index: u32) {
        let mut shared = held(self.slot().shared.lock());
        let waker = shared.as_deref_mut().and_then(|shared| shared.waiters.take(u64::from(index)));
        drop(shared);
        drop(waker);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // SAFETY: (b), a delivery's own reference, and its end.
        unsafe { release(self.0, 1) }
    }
}
