//! Station 3: per-partition lock-free rings of pooled segments. Many writers, one sender, no lock.
//!
//! ```text
//! append ─► look ─► claim (CAS) ─► write ─► commit ──┐ complete?
//!             │ does not fit: seal ─► settle ────────┴─► ReadySet ─► Doorbell ─► Drain::drain ─► Chain ─► Lease
//!             └ sealed: install the next segment
//! ```
//! The memory: `arena`, `pool` its runs, `share` who holds how much, `segment` a run's header, `word` all bit layouts.
//! The writers' half: `partition` a ring, `ring` appends, `private_claim` records with a run of their own, `entry`
//! listener entries, `deadline` records with less time, `room` waiting for memory. The sender's half: `ready` which
//! partitions to look at, `drain`, and `lease`, `renumber` what may be done with what came out. For everyone: `census`, what
//! is where.

pub mod arena;
mod census;
mod completions;
mod deadline;
mod drain;
mod entry;
mod lease;
mod partition;
mod pool;
mod private_claim;
mod ready;
#[cfg(not(loom))]
mod renumber;
mod ring;
mod room;
mod segment;
mod share;
mod word;

#[cfg(loom)]
#[cfg(test)]
mod models;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use self::{
    arena::Arena,
    completions::{CompletionPool, Delivery},
    pool::{Pool, units},
    ready::ReadySet,
    ring::BATCH_HEADER,
    word::{ENTRY, SEGMENTS_MAX, SLOTS_MAX},
};
use crate::sync::{Doorbell, Relaxed, WaitList, plain};
use crossbeam_queue::SegQueue;

#[cfg(feature = "fuzzing")]
pub use self::drain::Chain;
pub use self::{
    deadline::Deadline,
    drain::{Drain, Leave},
    entry::Entry,
    lease::{Hold, Lease},
    partition::Partition,
    private_claim::PrivateClaim,
    room::Ask,
    segment::UNIT,
};

/// The least `buffer.memory` that is worth having, bytes.
pub const BUFFER_MEMORY_MIN: usize = 64 << 10;

/// What an accumulator is made from.
#[derive(Clone, Copy, Debug)]
pub struct AccumulatorConfig {
    /// Bytes of record memory (`buffer.memory`), [`BUFFER_MEMORY_MIN`] at least; rounded down to whole KiB.
    pub buffer_memory: usize,
    /// From how many bytes on a batch may leave (`batch.size`).
    pub batch_size: usize,
    /// The largest batch, with its header (`max.request.size`).
    pub max_request_size: usize,
    /// Segments per partition that are not yet drained: a power of two, 2 to 256.
    pub slots: usize,
    /// Bytes of a segment that are used: under loom units are few.
    #[cfg(loom)]
    pub capacity: usize,
    /// The model waits for room: the others are spared those steps.
    #[cfg(loom)]
    pub waits: bool,
}

impl Default for AccumulatorConfig {
    fn default() -> Self {
        Self {
            buffer_memory: 32 << 20,
            batch_size: 16 << 10,
            max_request_size: 1 << 20,
            slots: 16,
            #[cfg(loom)]
            capacity: UNIT,
            #[cfg(loom)]
            waits: false,
        }
    }
}

/// Why an accumulator cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// `buffer.memory` is below [`BUFFER_MEMORY_MIN`].
    TooSmall,
    /// `buffer.memory` is above 32 GiB, or more than this machine can address.
    TooLarge,
    /// The number of slots is not a power of two from 2 to 256.
    Slots,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSmall => "buffer.memory is below 65536 bytes",
            Self::TooLarge => "buffer.memory is above 32 GiB or cannot be allocated",
            Self::Slots => "the slots of a partition must be a power of two from 2 to 256",
        })
    }
}

/// Who is told about a record's end besides nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attach {
    /// Nobody: of no use but in tests.
    #[cfg(test)]
    None,
    /// The `Delivery` that the append returns.
    Delivery,
    /// The listener, with this tag.
    Tag(u64),
    /// A callback. The value is the caller's own; the sender finds it in the record's [`Entry`]. Refused: it stays the
    /// caller's.
    Callback(u64),
}

impl Attach {
    #[inline]
    fn needs_entry(self) -> bool {
        matches!(self, Self::Tag(_) | Self::Callback(_))
    }
}

/// An accepted record.
#[derive(Debug)]
pub struct Appended {
    /// Some for [`Attach::Delivery`].
    pub delivery: Option<Delivery>,
}

/// Why a record was not accepted. Nothing of it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No memory now, or none for this partition's broker.
    BufferFull,
    /// The same for a record that needs several units in one piece: who waits for it does well to [`Accumulator::ask`].
    NoRun,
    /// The partition has as many undrained segments as its ring has slots.
    RingFull,
    /// The partition was closed.
    Closed,
    /// The record can never fit: `max.request.size` or the memory as a whole is smaller.
    TooLarge,
    /// It would have started a new batch, and `may_open` was false.
    WouldOpen,
}

impl Refused {
    /// There is no memory for what needs so many units in one piece.
    fn no_room(units: u32) -> Self {
        if units > 1 { Self::NoRun } else { Self::BufferFull }
    }

    /// Waiting for room may help.
    pub fn is_full(self) -> bool {
        matches!(self, Self::BufferFull | Self::NoRun | Self::RingFull)
    }
}

/// What [`Accumulator::clock`] says before the sender's first turn and while the sender sleeps.
const CLOCK_STOPPED: i64 = i64::MIN;
/// So many reads of the system's clock are paid before the sender is woken to spare the others.
const CLOCK_READS: u32 = 64;

/// What writers and the sender share.
pub struct Accumulator {
    pool: Pool,
    ready: ReadySet,
    completions: Arc<CompletionPool>,
    /// Wakes the sender.
    pub doorbell: Doorbell,
    /// Callers that were refused as full. Woken whenever memory or a slot became free.
    pub room: WaitList,
    /// Limits of their own that accepted records have, for the sender.
    deadlines: SegQueue<Deadline>,
    /// The coarse clock, Unix ms: the sender sets it each turn. [`CLOCK_STOPPED`] while the sender sleeps.
    pub clock: plain::AtomicI64,
    /// How often the system's clock was read since that one was last stopped.
    clock_reads: plain::AtomicU32,
    /// Segments are installed with listener entries.
    tagged: plain::AtomicBool,
    slots: usize,
    /// The longest record that shares a segment with others, bytes.
    ordinary: usize,
    batch_size: u32,
    max_request_size: usize,
    #[cfg(loom)]
    waits: bool,
}

impl fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accumulator").field("free", &self.free()).finish_non_exhaustive()
    }
}

impl Accumulator {
    /// The accumulator and the sender's half of it. `Doorbell::bind` comes next, before anyone appends.
    pub fn new(config: AccumulatorConfig) -> Result<(Arc<Self>, Drain), Unfit> {
        let AccumulatorConfig { buffer_memory, batch_size, max_request_size, slots, .. } = config;
        if buffer_memory < BUFFER_MEMORY_MIN && cfg!(not(loom)) {
            return Err(Unfit::TooSmall);
        }
        if buffer_memory as u64 / UNIT as u64 > SEGMENTS_MAX {
            return Err(Unfit::TooLarge);
        }
        if !slots.is_power_of_two() || slots < 2 || slots as u64 > SLOTS_MAX {
            return Err(Unfit::Slots);
        }
        let pool = Pool::new(buffer_memory / UNIT).ok_or(Unfit::TooLarge)?;
        let shared = units(pool.ordinary) as usize * UNIT - ENTRY as usize;
        #[cfg(loom)]
        let shared = config.capacity;
        let accumulator = Arc::new(Self {
            pool,
            ready: ReadySet::default(),
            completions: CompletionPool::new(),
            doorbell: Doorbell::default(),
            room: WaitList::default(),
            deadlines: SegQueue::new(),
            clock: plain::AtomicI64::new(CLOCK_STOPPED),
            clock_reads: plain::AtomicU32::new(0),
            tagged: plain::AtomicBool::new(false),
            slots,
            ordinary: shared.min(max_request_size.saturating_sub(BATCH_HEADER as usize)),
            batch_size: u32::try_from(batch_size).unwrap_or(u32::MAX),
            max_request_size,
            #[cfg(loom)]
            waits: config.waits,
        });
        Ok((accumulator.clone(), Drain::new(accumulator)))
    }

    /// From now on new segments have room for listener entries. Called once when a listener is configured; the first
    /// append with a tag or callback does it too.
    pub fn tag_records(&self) {
        self.tagged.store(true, Relaxed);
    }

    /// The sender sleeps: until its next turn nobody keeps the coarse clock going.
    pub fn stop_clock(&self) {
        self.clock_reads.store(0, Relaxed);
        self.clock.store(CLOCK_STOPPED, Relaxed);
    }

    /// What time a record without a timestamp gets, Unix ms: the coarse clock's, or the system's while nobody keeps
    /// that one going.
    #[inline]
    fn now(&self) -> i64 {
        match self.clock.load(Relaxed) {
            CLOCK_STOPPED => self.read_clock(),
            now => now,
        }
    }

    /// The system's clock costs as much as half an append: who needs it often wakes the sender to keep the coarse one.
    #[cold]
    fn read_clock(&self) -> i64 {
        if self.clock_reads.fetch_add(1, Relaxed) == CLOCK_READS {
            self.doorbell.ring();
        }
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    /// The memory that transmits refer to.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.pool.arena
    }

    /// Bytes of record memory in all.
    pub fn total(&self) -> usize {
        self.pool.shares.total() as usize * UNIT
    }

    /// The same, counted where the pieces lie. Exact while nobody takes, puts or asks.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn free_in_pieces(&self) -> usize {
        self.pool.free_in_pieces() as usize * UNIT
    }

    /// Bytes that no segment or claim holds now.
    pub fn free(&self) -> usize {
        self.pool.shares.free() as usize * UNIT
    }
}
