//! Records with a run of their own: those too large to share a segment, and values that the caller writes in place.
//!
//! The run is filled first and is in no slot meanwhile, so nobody waits for it; the record's head is written in front of
//! the rest once its place is known, and one CAS links the run, sealed and complete.
//!
//! *Why this is sound*: (a) until that CAS the run belongs to whoever took it from the pool (clause (d) of `arena.rs`);
//! (b) the completion is known to nobody else until that CAS, and the commit word that it publishes counts the
//! `Delivery`; one that was made for a run that was not linked is forgotten, not dropped.

#![allow(unsafe_code, reason = "argued above")]

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{
    Accumulator, Appended, Ask, Attach, Deadline, Refused,
    completions::{CompletionRef, Delivery},
    entry,
    partition::Partition,
    pool::{Run, units_for},
    ring::{BATCH_HEADER, DELTA_STEP, Look, longest},
    segment::{Alone, Fresh, UNIT},
    word::{Base, ENTRY, Extent, Slot},
};
use crate::{
    sync::{Relaxed, Release, order},
    wire::{
        record::{Fields, Shape, put_bytes, put_headers},
        varint::put_signed,
    },
};

/// The longest a record can be before its key: length, attributes, both deltas.
const HEAD: usize = if cfg!(loom) { 5 } else { 5 + 1 + 10 + 5 };

/// A filled run that is in no slot.
#[derive(Debug)]
struct Prepared {
    run: Run,
    shape: Shape,
    timestamp: i64,
    /// Where in the run the value lies.
    value: (usize, usize),
}

impl Prepared {
    fn offset(&self) -> usize {
        self.run.index as usize * UNIT
    }
}

impl Accumulator {
    /// Appends a record in a run of its own.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "as `append_inline`")]
    pub(super) fn append_alone(
        &self,
        partition: &Partition,
        fields: &Fields<'_>,
        timestamp: i64,
        attach: Attach,
        may_open: bool,
        timeout: Option<NonZeroU32>,
        ask: Option<&Ask>,
    ) -> Result<Appended, Refused> {
        let prepared = self.prepare(partition, fields, fields.value.map(<[u8]>::len), timestamp, ask)?;
        let (appended, generation) =
            self.link(partition, &prepared, attach, may_open).inspect_err(|_| self.put(&prepared))?;
        if let Some(timeout) = timeout {
            let (partition, segment) = (partition.id, prepared.run.index);
            self.note_deadline(Deadline { partition, segment, generation, index: 0, timeout });
        }
        Ok(appended)
    }

    /// A run of the caller's own for a record with these fields, whose value of `value_len` bytes it writes in place.
    /// `timestamp` in Unix ms, or `None` for the clock's now. `ask`, if the caller waits for room.
    pub fn claim(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        fields: &Fields<'_>,
        value_len: usize,
        timestamp: Option<i64>,
        ask: Option<&Ask>,
    ) -> Result<PrivateClaim, Refused> {
        let timestamp = timestamp.unwrap_or_else(|| self.now());
        let fields = Fields { value: None, ..*fields };
        let prepared = self.prepare(partition, &fields, Some(value_len), timestamp, ask)?;
        Ok(PrivateClaim { accumulator: self.clone(), partition: partition.clone(), prepared: Some(prepared) })
    }

    /// Whether the ring would take such a record now; with `may_open` false, without a new batch.
    pub fn takes(
        &self,
        partition: &Partition,
        fields: &Fields<'_>,
        value_len: usize,
        may_open: bool,
    ) -> Result<(), Refused> {
        let need = longest(Shape::with_value_len(fields, Some(value_len.min(self.max_request_size))));
        let goes_on = match self.look(partition) {
            Look::Full => {
                partition.note_refused();
                match self.look(partition) {
                    Look::Full => return Err(Refused::RingFull),
                    _ => false,
                }
            }
            Look::Closed => return Err(Refused::Closed),
            Look::Open { segment, claim, .. } => self.continues(partition, segment.base(), claim.bytes(), need),
            Look::Next { base, .. } => base.is_some_and(|base| partition.room(base.bytes) >= need as u64),
        };
        if goes_on || may_open { Ok(()) } else { Err(Refused::WouldOpen) }
    }

    /// Takes a run and writes everything but the head (and the value, when `fields` has none but `value_len` says so).
    fn prepare(
        &self,
        partition: &Partition,
        fields: &Fields<'_>,
        value_len: Option<usize>,
        timestamp: i64,
        ask: Option<&Ask>,
    ) -> Result<Prepared, Refused> {
        // A length that nobody has measured: sums of it could wrap.
        if value_len.is_some_and(|len| len > self.max_request_size) {
            return Err(Refused::TooLarge);
        }
        let shape = Shape::with_value_len(fields, value_len);
        let bytes = longest(shape) + ENTRY as usize;
        if longest(shape) + BATCH_HEADER as usize > self.max_request_size || bytes > self.pool.longest() {
            return Err(Refused::TooLarge);
        }
        let share = partition.share.load(Relaxed);
        let needs = units_for(bytes);
        let mut wake = false;
        let run = self.pool.take_bytes(bytes, share, &mut wake);
        if wake {
            self.made_room();
        }
        let run = run.or_else(|| ask?.collect(needs, share)).ok_or(Refused::no_room(needs))?;
        let mut value = (0, 0);
        let start = run.index as usize * UNIT + HEAD;
        // SAFETY: clause (a).
        unsafe {
            self.pool.arena.write(start, longest(shape) - HEAD, |out| {
                let mut at = put_bytes(out, fields.key);
                at += put_signed(&mut out[at..], value_len.map_or(-1, |len| len as i64));
                let len = value_len.unwrap_or(0);
                if let Some(bytes) = fields.value {
                    out[at..at + len].copy_from_slice(bytes);
                }
                value = (HEAD + at, len);
                put_headers(&mut out[at + len..], fields.headers);
            });
        }
        Ok(Prepared { run, shape, timestamp, value })
    }

    /// Makes the run the partition's next segment: the record's place is the place of this call. With the generation that
    /// the segment has now.
    fn link(
        &self,
        partition: &Partition,
        prepared: &Prepared,
        attach: Attach,
        may_open: bool,
    ) -> Result<(Appended, u32), Refused> {
        let completion = self.completions.take().into_raw();
        // SAFETY: clause (b).
        let delivery = (attach == Attach::Delivery)
            .then(|| unsafe { Delivery::new(CompletionRef::from_raw(completion), 0, prepared.timestamp) });
        match self.link_with(partition, prepared, attach, may_open, completion) {
            Ok(generation) => Ok((Appended { delivery }, generation)),
            Err(why) => {
                std::mem::forget(delivery);
                // SAFETY: clause (b).
                unsafe { CompletionRef::from_raw(completion) }.put_unused();
                Err(why)
            }
        }
    }

    fn link_with(
        &self,
        partition: &Partition,
        prepared: &Prepared,
        attach: Attach,
        may_open: bool,
        completion: *mut (),
    ) -> Result<u32, Refused> {
        let need = longest(prepared.shape);
        let mut noted = false;
        loop {
            match self.look(partition) {
                Look::Full if !noted => {
                    partition.note_refused();
                    noted = true;
                }
                Look::Full => return Err(Refused::RingFull),
                Look::Closed => return Err(Refused::Closed),
                Look::Open { segment, claim, .. } => {
                    if !may_open && !self.continues(partition, segment.base(), claim.bytes(), need) {
                        return Err(Refused::WouldOpen);
                    }
                    self.seal(partition, segment, claim, need);
                }
                Look::Next { position, from, base } => {
                    let room = base.map(|base| partition.room(base.bytes));
                    if !may_open && room.is_none_or(|room| room < need as u64) {
                        return Err(Refused::WouldOpen);
                    }
                    if room.is_some_and(|room| room < need as u64) {
                        self.end(partition, position, from);
                    } else if let Some(generation) =
                        self.link_at(partition, prepared, attach, completion, position, from, base)
                    {
                        self.notify(partition);
                        return Ok(generation);
                    }
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `link_with`")]
    fn link_at(
        &self,
        partition: &Partition,
        prepared: &Prepared,
        attach: Attach,
        completion: *mut (),
        position: u64,
        from: Slot,
        base: Option<Base>,
    ) -> Option<u32> {
        let Prepared { run: Run { index, units, account }, shape, timestamp, .. } = *prepared;
        let base = base.unwrap_or_else(|| Base::start(timestamp));
        let timestamp_delta = timestamp.wrapping_sub(base.timestamp);
        let mut head = [0; HEAD];
        let head_len = shape.put_head(&mut head, timestamp_delta, base.delta as i32 * DELTA_STEP);
        let start = HEAD - head_len;
        let len = longest(shape) - start;
        let tagged = attach.needs_entry();
        // SAFETY: clause (a).
        unsafe {
            self.pool.arena.write(prepared.offset() + start, head_len, |out| out.copy_from_slice(&head[..head_len]));
            if tagged {
                let at = entry::offset(prepared.offset(), units, 0);
                self.pool.arena.write(at, ENTRY as usize, |out| entry::put(out, attach, timestamp_delta));
            }
        }
        let alone = Alone {
            start: start as u32,
            len: len as u32,
            delivery: attach == Attach::Delivery,
            continues: self.continues(partition, base, len as u64, UNIT),
            timestamp,
        };
        let fresh = Fresh { base, extent: Extent::new(0, tagged, units), account, completion };
        let generation = self.pool.header(index).prepare_alone(&fresh, &alone);
        let word = Slot::installed(index, generation, partition.lap(position));
        let slot = partition.slot(position);
        if slot.compare_exchange(from.0, word.0, order("link", Release), Relaxed).is_err() {
            return None;
        }
        partition.advance(position);
        Some(generation as u32)
    }

    fn put(&self, prepared: &Prepared) {
        self.pool.put(prepared.run);
        self.made_room();
    }
}

/// A record whose value the caller writes in place. Dropping it gives its memory back; leaking it costs that memory.
/// Nobody waits for it before its commit.
pub struct PrivateClaim {
    accumulator: Arc<Accumulator>,
    partition: Arc<Partition>,
    prepared: Option<Prepared>,
}

impl std::fmt::Debug for PrivateClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateClaim").field("partition", &self.partition.place).finish_non_exhaustive()
    }
}

impl PrivateClaim {
    /// The value's bytes: what was written, else zeros or what lay there before.
    #[cfg(not(loom))]
    pub fn value(&self) -> &[u8] {
        let Some(prepared) = &self.prepared else { return &[] };
        let (start, len) = prepared.value;
        // SAFETY: clause (a), as long as `self` is borrowed.
        unsafe { self.accumulator.pool.arena.slice(prepared.offset() + start, len) }
    }

    /// Length of the value.
    pub fn len(&self) -> usize {
        self.prepared.as_ref().map_or(0, |prepared| prepared.value.1)
    }

    /// The value's bytes, to be written.
    #[cfg(not(loom))]
    pub fn value_mut(&mut self) -> &mut [u8] {
        let Some(prepared) = &self.prepared else { return &mut [] };
        let (start, len) = prepared.value;
        // SAFETY: clause (a), as long as `self` is borrowed.
        unsafe { self.accumulator.pool.arena.slice_mut(prepared.offset() + start, len) }
    }

    /// Writes the value. For the models: loom's bytes are no slice.
    #[cfg(loom)]
    pub fn write_value(&mut self, value: &[u8]) {
        if let Some(prepared) = &self.prepared {
            let (start, len) = prepared.value;
            // SAFETY: clause (a).
            unsafe {
                self.accumulator.pool.arena.write(prepared.offset() + start, len, |out| out.copy_from_slice(value))
            };
        }
    }

    /// [`PrivateClaim::commit_within`] no time of its own.
    #[cfg(any(test, feature = "testing"))]
    pub fn commit(self, attach: Attach) -> Result<Appended, (Self, Refused)> {
        self.commit_within(attach, None)
    }

    /// Makes the record the partition's next one. `timeout`, in ms from now, if it has less time than others. Refused: the
    /// claim is as good as before.
    pub fn commit_within(mut self, attach: Attach, timeout: Option<NonZeroU32>) -> Result<Appended, (Self, Refused)> {
        let Some(prepared) = &self.prepared else { return Err((self, Refused::Closed)) };
        match self.accumulator.link(&self.partition, prepared, attach, true) {
            Ok((appended, generation)) => {
                if let Some(timeout) = timeout {
                    let (partition, segment) = (self.partition.id, prepared.run.index);
                    self.accumulator.note_deadline(Deadline { partition, segment, generation, index: 0, timeout });
                }
                self.prepared = None;
                Ok(appended)
            }
            Err(why) => Err((self, why)),
        }
    }
}

impl Drop for PrivateClaim {
    fn drop(&mut self) {
        if let Some(prepared) = &self.prepared {
            self.accumulator.put(prepared);
        }
    }
}
