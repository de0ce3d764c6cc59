//! Where records are and what became of them, as numbers that any thread may read.
//!
//! What is in a ring is counted there (`accumulator/census.rs`). From then on a batch is either waiting in the sender or
//! in flight, and carries its count from one number to the other as it moves; the tests walk queues and connections and
//! compare. The sender alone writes them, once per batch and step, so nothing here is shared on the path of a record.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::completion::Outcome;
use crate::error::Written;

/// Where a producer's records are and what became of them: [`Producer::stats`](crate::Producer::stats).
///
/// A record counts as accepted once it has its place in a batch: when `send` returned, or a claim's commit; never when
/// it was refused or its claim dropped. From then on it counts in exactly one of the other five. While nothing moves,
/// say after [`Producer::flush`](crate::Producer::flush) or `close`, the numbers are exact and
/// [`adds_up`](Self::adds_up). While records move, `accepted`, `delivered` and the two `failed` never go back and never
/// more has ended than was accepted, but a batch that moves just then may be seen twice or not at all in `waiting` and
/// `in_flight`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Records taken so far.
    pub accepted: u64,
    /// Acknowledged (with `acks=0`: handed to the kernel).
    pub delivered: u64,
    /// Failed, and certainly not in the log.
    pub failed_not_written: u64,
    /// Failed, and nobody can tell whether they are in the log.
    pub failed_possibly_written: u64,
    /// In buffers: not given to a connection yet, or to be sent again.
    pub waiting: u64,
    /// Given to a connection and not answered. A record whose `delivery.timeout.ms` or own limit ran out there has
    /// failed and does not count here any more.
    pub in_flight: u64,
    /// Undelivered records that the sink panicked at: see [`UndeliverableSink`](crate::UndeliverableSink).
    pub sink_panics: u64,
    /// Bytes of `buffer.memory` in use, by batches, open claims, and what listeners have not taken. Approximate.
    pub buffer_used: usize,
    /// Bytes of `buffer.memory`, in whole KiB.
    pub buffer_total: usize,
}

impl Stats {
    /// Records that were accepted and could not be delivered.
    pub fn failed(&self) -> u64 {
        self.failed_not_written + self.failed_possibly_written
    }

    /// Records that were accepted and have no result yet.
    pub fn outstanding(&self) -> u64 {
        self.waiting + self.in_flight
    }

    /// Every accepted record is delivered, failed or outstanding. Always so while nothing moves.
    pub fn adds_up(&self) -> bool {
        self.accepted == self.delivered + self.failed() + self.outstanding()
    }
}

/// The sender's numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    delivered: AtomicU64,
    failed_not_written: AtomicU64,
    failed_possibly_written: AtomicU64,
    waiting: AtomicU64,
    in_flight: AtomicU64,
    /// The callback thread's.
    sink_panics: AtomicU64,
}

/// Only the sender's thread writes, so a load and a store will do. Release: whoever sees a record's end sees its drain.
fn add(number: &AtomicU64, records: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(records), Ordering::Release);
}

fn take(number: &AtomicU64, records: u64) {
    let before = number.load(Ordering::Relaxed);
    debug_assert!(before >= records, "{records} records leave where {before} are");
    number.store(before.saturating_sub(records), Ordering::Release);
}

impl Tally {
    /// Records came out of a ring.
    pub fn drained(&self, records: u32) {
        add(&self.waiting, u64::from(records));
    }

    /// A batch was given to a connection.
    pub fn left(&self, records: u32) {
        take(&self.waiting, u64::from(records));
        add(&self.in_flight, u64::from(records));
    }

    /// A batch was answered or lost, and its records have no result yet.
    pub fn came_back(&self, records: u32) {
        take(&self.in_flight, u64::from(records));
        add(&self.waiting, u64::from(records));
    }

    /// Records have their result.
    pub fn ended(&self, records: u32, in_flight: bool, outcome: &Outcome) {
        take(if in_flight { &self.in_flight } else { &self.waiting }, u64::from(records));
        let end = match outcome {
            Outcome::Delivered { .. } => &self.delivered,
            Outcome::Failed(error) if error.written() == Written::No => &self.failed_not_written,
            Outcome::Failed(_) => &self.failed_possibly_written,
        };
        add(end, u64::from(records));
    }

    /// The sender is at its end: what it still counts was lost from its hands by a panic, and told as possibly written
    /// when it was dropped.
    pub fn lost(&self) {
        let records = self.waiting.swap(0, Ordering::AcqRel) + self.in_flight.swap(0, Ordering::AcqRel);
        add(&self.failed_possibly_written, records);
    }

    /// The sink panicked at a record.
    pub fn sink_panicked(&self) {
        self.sink_panics.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, what has ended first.
    pub fn read(&self) -> Stats {
        let read = |number: &AtomicU64| number.load(Ordering::Acquire);
        Stats {
            delivered: read(&self.delivered),
            failed_not_written: read(&self.failed_not_written),
            failed_possibly_written: read(&self.failed_possibly_written),
            in_flight: read(&self.in_flight),
            waiting: read(&self.waiting),
            sink_panics: read(&self.sink_panics),
            ..Stats::default()
        }
    }
}
