//! The writers' half: look, claim, write, commit; seal, settle, install; end.
//!
//! *Why this is sound*: bytes are written only (a) in the range that a successful CAS of the claim word gave, in the
//! generation that the CAS named, before that range's commit (clause (e) of `arena.rs`); the entry's 16 bytes at the
//! run's end belong to the same claim, because `Extent::fits` counts them; (b) a `Delivery` is made only before a
//! commit that counts it; (c) a completion that never got into the ring is known to nobody else.

#![allow(unsafe_code, reason = "argued above")]

use std::num::NonZeroU32;

use super::{
    Accumulator, Appended, Ask, Attach, Deadline, Refused,
    completions::{CompletionRef, Delivery},
    entry,
    partition::Partition,
    pool::{Run, class_for, units_for},
    segment::{Fresh, Header, UNIT},
    word::{Base, Claim, ENTRY, Extent, Slot},
};
use crate::{
    sync::{Acquire, Relaxed, Release, order},
    wire::record::{Fields, Shape},
};

/// Length of a batch's header: it counts against `Partition::limit`, but lies outside the segments.
pub(super) const BATCH_HEADER: u64 = 61;

/// loom's counts are tiny: there each offset delta is a multiple of 64, so that a record's length depends on its place
/// in the models as well.
pub(super) const DELTA_STEP: i32 = if cfg!(loom) { 64 } else { 1 };

/// No record of this shape is longer.
#[inline]
pub(super) fn longest(shape: Shape) -> usize {
    if cfg!(loom) { shape.len(0, DELTA_STEP) } else { shape.len_max() }
}

/// What a partition's newest position looks like.
pub(super) enum Look<'a> {
    /// Claims are possible.
    Open { index: u32, segment: &'a Header, claim: Claim },
    /// Nothing is open. `from` is the slot word that what comes next must replace: only while it stands is `base` true.
    /// Without a base a batch starts.
    Next { position: u64, from: Slot, base: Option<Base> },
    /// The next slot still holds a segment of the lap before.
    Full,
    /// Closed.
    Closed,
}

/// What a record needs where there is no place for it yet.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Its longest form, bytes.
    need: usize,
    timestamp: i64,
    /// It has a listener entry.
    tagged: bool,
    may_open: bool,
    ask: Option<&'a Ask>,
}

/// Where in its batch a claim lies.
#[derive(Clone, Copy)]
struct Place {
    /// Of its segment.
    base: Base,
    /// Before the claim.
    claim: Claim,
}

impl Place {
    #[inline(always)]
    fn offset_delta(&self) -> i32 {
        (self.base.delta + self.claim.count()) as i32 * DELTA_STEP
    }

    /// The first record of a batch tells the sender to arm linger; the one that crosses `leave_at`, that it may go.
    #[inline(always)]
    fn sender_must_know(&self, len: u64, leave_at: u32) -> bool {
        let first = self.base.delta + self.claim.count() == 0;
        let (before, leave_at) = (self.base.bytes + self.claim.bytes(), u64::from(leave_at));
        first || (before < leave_at && before + len >= leave_at)
    }
}

impl Accumulator {
    /// Encodes a record into the partition's open batch. `timestamp` in Unix ms, or `None` for the clock. With
    /// `may_open` false, a record that would start a new batch is refused and nothing changes. `timeout`, in ms, if it has
    /// less time than others. Never blocks; no lock, allocation or system call but the doorbell, and that only if the
    /// sender must know.
    #[cfg(any(test, feature = "testing"))]
    pub fn append(
        &self,
        partition: &Partition,
        fields: &Fields<'_>,
        timestamp: Option<i64>,
        attach: Attach,
        may_open: bool,
        timeout: Option<NonZeroU32>,
    ) -> Result<Appended, Refused> {
        self.append_asking(partition, fields, timestamp, attach, may_open, timeout, None)
    }

    /// The same for a caller that waits for room and may have an ask, which takes a lock.
    #[expect(clippy::too_many_arguments, reason = "as `append_inline`")]
    pub fn append_asking(
        &self,
        partition: &Partition,
        fields: &Fields<'_>,
        timestamp: Option<i64>,
        attach: Attach,
        may_open: bool,
        timeout: Option<NonZeroU32>,
        ask: Option<&Ask>,
    ) -> Result<Appended, Refused> {
        let delivery = self.append_inline(partition, fields, timestamp, attach, may_open, timeout, ask, Some)?;
        Ok(Appended { delivery })
    }

    /// The same where it is called, for what is called millions of times: what it takes and gives stays in registers.
    /// Through memory it is written in parts and read as a whole, for which the processor waits (PERF.md). `keep` makes
    /// of the `Delivery` what the caller wants, and there is none but for [`Attach::Delivery`]; it
    /// is called between claim and commit, so it must not panic.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "in registers")]
    pub fn append_inline<R: Default>(
        &self,
        partition: &Partition,
        fields: &Fields<'_>,
        timestamp: Option<i64>,
        attach: Attach,
        may_open: bool,
        timeout: Option<NonZeroU32>,
        ask: Option<&Ask>,
        keep: impl FnOnce(Delivery) -> R,
    ) -> Result<R, Refused> {
        let shape = Shape::of(fields);
        let need = longest(shape);
        let timestamp = timestamp.unwrap_or_else(|| self.now());
        if need > self.ordinary {
            let alone = self.append_alone(partition, fields, timestamp, attach, may_open, timeout, ask)?;
            return Ok(alone.delivery.map(keep).unwrap_or_default());
        }
        let wanted = || Wanted { need, timestamp, tagged: attach.needs_entry(), may_open, ask };
        let mut noted = false;
        loop {
            let (index, segment, claim) = match self.look(partition) {
                Look::Open { index, segment, claim } => (index, segment, claim),
                Look::Next { position, from, base } => {
                    self.open_next(partition, position, from, base, wanted())?;
                    continue;
                }
                Look::Full if !noted => {
                    partition.note_refused();
                    noted = true;
                    continue;
                }
                Look::Full => return Err(Refused::RingFull),
                Look::Closed => return Err(Refused::Closed),
            };
            let (base, extent) = (segment.base(), segment.extent());
            let place = Place { base, claim };
            let run = index as usize * UNIT;
            let timestamp_delta = timestamp.wrapping_sub(base.timestamp);
            let len = shape.len(timestamp_delta, place.offset_delta()) as u64;
            if !extent.fits(claim, len, UNIT as u64) || (attach.needs_entry() && !extent.tagged()) {
                self.seal_full(partition, segment, claim, wanted())?;
                continue;
            }
            // Nothing is published here: the install's release reaches every claimer through the RMW chain.
            if segment.claim.compare_exchange(claim.0, claim.add(len).0, Relaxed, Relaxed).is_err() {
                continue;
            }
            // SAFETY: clause (a).
            unsafe {
                self.pool.arena.write(run + claim.bytes() as usize, len as usize, |out| {
                    shape.put(out, fields, timestamp_delta, place.offset_delta());
                });
                if extent.tagged() {
                    let at = entry::offset(run, extent.units(), claim.count() as u32);
                    self.pool.arena.write(at, ENTRY as usize, |out| entry::put(out, attach, timestamp_delta));
                }
            }
            segment.raise_timestamp(timestamp);
            let wants_delivery = attach == Attach::Delivery;
            let kept = if wants_delivery {
                // SAFETY: clause (b).
                keep(unsafe { Delivery::new(segment.completion(), claim.count() as u32, timestamp) })
            } else {
                R::default()
            };
            let complete = segment.commit(len, wants_delivery);
            if complete || place.sender_must_know(len, partition.leave_at_after_claim()) {
                self.notify(partition);
            }
            if let Some(timeout) = timeout {
                let (generation, place) = (claim.generation() as u32, claim.count() as u32);
                self.note_deadline(Deadline {
                    partition: partition.id,
                    segment: index,
                    generation,
                    index: place,
                    timeout,
                });
            }
            return Ok(kept);
        }
    }

    /// The record does not fit behind `claim`.
    #[cold]
    fn seal_full(
        &self,
        partition: &Partition,
        segment: &Header,
        claim: Claim,
        record: Wanted<'_>,
    ) -> Result<(), Refused> {
        if !record.may_open && !self.continues(partition, segment.base(), claim.bytes(), record.need) {
            return Err(Refused::WouldOpen);
        }
        self.seal(partition, segment, claim, record.need);
        Ok(())
    }

    /// Makes the next position ready for the record: installs a segment, or ends a chain that has no room for it.
    #[cold]
    fn open_next(
        &self,
        partition: &Partition,
        position: u64,
        from: Slot,
        base: Option<Base>,
        record: Wanted<'_>,
    ) -> Result<(), Refused> {
        let room = base.map(|base| partition.room(base.bytes));
        if !record.may_open && room.is_none_or(|room| room < record.need as u64) {
            return Err(Refused::WouldOpen);
        }
        match room {
            Some(room) if room < record.need as u64 => self.end(partition, position, from),
            _ => return self.install(partition, position, from, base, record),
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn look<'a>(&'a self, partition: &Partition) -> Look<'a> {
        loop {
            let position = partition.tail.load(order("tail_load", Acquire));
            let here = Slot(partition.slot(position).load(order("slot_load", Acquire)));
            // Consumed already: then its chain ended here, and what follows starts a batch.
            let mut base = None;
            if here.is_installed() {
                let index = here.segment();
                let segment = self.pool.header(index);
                let claim = segment.claim();
                // Recycled since we read the slot: the word we just read belongs to another partition.
                if claim.generation() != here.generation() {
                    continue;
                }
                if !claim.sealed() {
                    return Look::Open { index, segment, claim };
                }
                if claim.continues() {
                    base = Some(segment.next_base(claim));
                }
            }
            if let Some(look) = self.look_next(partition, position + 1, base) {
                return look;
            }
        }
    }

    /// The position behind one that takes no claims any more. `None`: somebody was quicker, look again.
    #[cold]
    fn look_next<'a>(&'a self, partition: &Partition, position: u64, base: Option<Base>) -> Option<Look<'a>> {
        let there = Slot(partition.slot(position).load(order("slot_load", Acquire)));
        if there == Slot::empty(position) {
            return Some(Look::Next { position, from: there, base });
        } else if there == Slot::ended(position) {
            return Some(Look::Next { position, from: there, base: None });
        } else if there == Slot::closed(position) {
            return Some(Look::Closed);
        } else if there.is_installed() && there.lap() != partition.lap(position) & 1 {
            // A lap behind; but only if `position` is still the next one, else we looked too late.
            if partition.tail.load(Acquire) == position - 1 {
                return Some(Look::Full);
            }
        } else {
            partition.advance(position);
        }
        None
    }

    /// Tells the sender to look at the partition.
    #[cold]
    pub(super) fn notify(&self, partition: &Partition) {
        if self.ready.push(&partition.link, partition.id) {
            self.doorbell.ring();
        }
    }

    /// Whether a batch with `bytes` claimed in the segment at `base` goes on in the next segment, where `need` more
    /// bytes are wanted.
    pub(super) fn continues(&self, partition: &Partition, base: Base, bytes: u64, need: usize) -> bool {
        // A chain must leave one slot that the sender can end it at, so its last-but-one segment cannot continue further.
        let slots = base.index + 1 < self.slots as u64;
        let bytes = base.bytes + bytes;
        slots
            && partition.room(bytes) >= need as u64
            && (partition.busy.load(Relaxed)
                || bytes < u64::from(partition.leave_at_hint())
                || partition.has_backlog(base))
    }

    pub(super) fn seal(&self, partition: &Partition, segment: &Header, claim: Claim, need: usize) {
        if !segment.try_seal(claim, self.continues(partition, segment.base(), claim.bytes(), need)) {
            return;
        }
        if segment.settle(claim.bytes()) {
            self.notify(partition);
        }
    }

    /// Ends the chain before `position`: what comes there starts a batch. The sender is told, for nobody else will.
    pub(super) fn end(&self, partition: &Partition, position: u64, from: Slot) {
        let ended = Slot::ended(position).0;
        // Relaxed: the word itself says everything; `notify` publishes it.
        if partition.slot(position).compare_exchange(from.0, ended, Relaxed, Relaxed).is_ok() {
            self.notify(partition);
        }
    }

    /// Installs a fresh segment with room for the record, if nobody else does.
    fn install(
        &self,
        partition: &Partition,
        position: u64,
        from: Slot,
        base: Option<Base>,
        record: Wanted<'_>,
    ) -> Result<(), Refused> {
        let slot = partition.slot(position);
        let tagged = self.tagged.load(Relaxed) || record.tagged;
        if record.tagged {
            self.tag_records();
        }
        let base = base.unwrap_or_else(|| Base::start(record.timestamp));
        let share = partition.share.load(Relaxed);
        let mut wake = false;
        let need = record.need + if tagged { ENTRY as usize } else { 0 };
        let Some(run) = self.take_for(partition, base, need, share, record.ask, &mut wake) else {
            if wake {
                self.made_room();
            }
            // Say so only if it is still for us to install.
            partition.note_refused();
            return if slot.load(Acquire) == from.0 { Err(Refused::no_room(units_for(need))) } else { Ok(()) };
        };
        let capacity = partition.room(base.bytes).max(record.need as u64).min(u64::from(run.units) * UNIT as u64);
        let extent = Extent::new(self.cut(capacity as u32), tagged, run.units);
        let completion = self.completions.take().into_raw();
        let account = run.account;
        let generation = self.pool.header(run.index).open(&Fresh { base, extent, account, completion });
        let word = Slot::installed(run.index, generation, partition.lap(position));
        if slot.compare_exchange(from.0, word.0, order("install", Release), Relaxed).is_err() {
            // SAFETY: clause (c).
            unsafe { CompletionRef::from_raw(completion) }.put_unused();
            self.pool.put(Run { account, ..run });
            self.made_room();
            return Ok(());
        }
        partition.advance(position);
        // Who was refused because we held the last run must look again. Nobody else: one who waits for memory would wake
        // up in vain with each segment of the others.
        if partition.changed() || wake {
            self.made_room();
        }
        Ok(())
    }

    /// As a writer that is descheduled before its claim.
    #[cfg(test)]
    pub(super) fn install_for_test(
        &self,
        partition: &Partition,
        position: u64,
        from: Slot,
        base: Option<Base>,
        fields: &Fields<'_>,
    ) {
        let need = longest(Shape::of(fields));
        let wanted = Wanted { need, timestamp: 0, tagged: false, may_open: true, ask: None };
        assert!(self.install(partition, position, from, base, wanted).is_ok());
    }

    /// A run for the segment at `base`: what the batch is likely to need, or what the record needs.
    fn take_for(
        &self,
        partition: &Partition,
        base: Base,
        need: usize,
        share: u32,
        ask: Option<&Ask>,
        wake: &mut bool,
    ) -> Option<Run> {
        let least = class_for(need);
        let leave_at = u64::from(partition.leave_at_hint());
        let wanted = match base.bytes.checked_div(base.index) {
            // A batch that waits behind another will not leave small.
            None if partition.has_backlog(base) => {
                class_for(leave_at as usize).max(partition.hint()).max(class_for(self.newest_bytes(partition)))
            }
            None => partition.hint(),
            // On the way to `leave_at`, what is missing; beyond it, a class above what there is on average.
            Some(_) if base.bytes < leave_at => class_for((leave_at - base.bytes) as usize),
            Some(average) => class_for(average as usize) + 1,
        };
        // Not more than what `limit` leaves.
        let most = class_for(partition.room(base.bytes) as usize);
        let run = self.pool.take(wanted.min(most).clamp(least, self.pool.ordinary.max(least)), least, share, wake);
        run.or_else(|| ask?.collect(units_for(need), share))
    }

    /// Bytes that claims of the newest segment hold. A hint.
    fn newest_bytes(&self, partition: &Partition) -> usize {
        let word = Slot(partition.slot(partition.tail.load(Relaxed)).load(Relaxed));
        if word.is_installed() { self.pool.header(word.segment()).claim().bytes() as usize } else { 0 }
    }

    #[cfg(not(loom))]
    fn cut(&self, capacity: u32) -> u32 {
        capacity
    }

    /// Units are few and small under loom; a model says how much of one is used.
    #[cfg(loom)]
    fn cut(&self, capacity: u32) -> u32 {
        capacity.min(self.ordinary as u32)
    }
}

impl Partition {
    /// Whether the batch of the newest segment, whose place in it `base` tells, stands behind one that was not drained:
    /// then it may as well grow. A hint: the newest position may lag by one.
    fn has_backlog(&self, base: Base) -> bool {
        let Some(before) = self.tail.load(Relaxed).checked_sub(base.index + 1) else { return false };
        let word = Slot(self.slot(before).load(Relaxed));
        word.is_installed() && word.lap() == self.lap(before) & 1
    }

    fn hint(&self) -> usize {
        self.hint.load(Relaxed) as usize
    }

    /// Bytes of records that may still follow `bytes` in one batch.
    #[inline]
    pub(super) fn room(&self, bytes: u64) -> u64 {
        u64::from(self.limit.load(Relaxed)).saturating_sub(BATCH_HEADER + bytes)
    }
}
