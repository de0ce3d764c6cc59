//! A batch on its way, and what the sender knows of each partition: its window, its queue of retries, its sequences.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::hint::Hint;
use super::idempotence::{Sequences, Stamp};
use super::knowledge::{Copies, Knowledge};
use super::pace::Pace;
use super::search::Search;
use super::timers::Armed;
use super::transmit::ConnectionId;
use crate::accumulator::{Lease, Partition};
use crate::error::{BrokerError, Written};
use crate::metadata::{Leader, TopicId};

/// Records of one segment, in a batch.
#[derive(Debug)]
pub struct Part {
    /// The records, and who waits for them.
    pub lease: Lease,
    /// Its outcome was reported. If the batch goes on all the same, somebody may be reading these bytes, so they are not to be
    /// written again.
    pub reported: bool,
}

/// A sealed batch: its records where the writers put them, its header's fields, and what has happened to it.
#[derive(Debug)]
pub struct Batch {
    /// Index of its partition in the sender.
    pub partition: u32,
    /// Its number among the partition's batches; parts of a split keep the number of what was split.
    pub number: u64,
    /// Of such a part: how many of the split batch's records come before it.
    pub part: u32,
    /// Its records, in order.
    pub parts: Vec<Part>,
    /// How many records.
    pub count: u32,
    /// Length of the records, without the batch header.
    pub bytes: u32,
    /// Milliseconds since the Unix epoch.
    pub base_timestamp: i64,
    /// The highest of its records' timestamps.
    pub max_timestamp: i64,
    /// Ring position of its first segment, for flush.
    pub position: u64,
    /// Id of the topic that it was last sent to.
    pub topic_id: TopicId,
    /// When its first record was seen.
    pub opened: Duration,
    /// Producer id, epoch and sequence; `None` before the first drain and without idempotence.
    pub stamp: Option<Stamp>,
    /// CRC-32C of the header under `stamp` and the records, once computed.
    pub crc: Option<u32>,
    /// The broker that it was last sent to; -1: none.
    pub node: i32,
    /// How often it was sent.
    pub attempts: u32,
    /// How often in a row the connection ended with nothing but this batch in its oldest request.
    pub died_alone: u32,
    /// Whether its records may be in the log. While that is doubtful it is never stamped again.
    pub known: Knowledge,
    /// Handed to a connection, and neither answered nor lost.
    pub on_lane: bool,
    /// What the broker said last.
    pub last_error: Option<BrokerError>,
    /// What went wrong last, unless that is what a broker said: with whom, and what.
    pub trouble: Option<Arc<str>>,
}

/// The order of a partition's batches: their numbers, and of the parts of one, the records before each.
pub type Place = (u64, u32);

/// Whose outcome was reported, of a batch that is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reported {
    /// Everybody waits.
    Nobody,
    /// Some records had less time than the others. They are left out of the batch before it is stamped (again).
    Some,
    /// Only the bookkeeping is left: sequence numbers, memory.
    All,
}

/// Some records of a batch, in order.
#[derive(Debug)]
pub struct Piece {
    /// The records.
    pub parts: Vec<Part>,
    /// How many records.
    pub count: u32,
    /// Their length, bytes.
    pub bytes: u32,
    /// The largest of their timestamp deltas.
    pub max_timestamp_delta: i64,
}

impl Default for Piece {
    fn default() -> Self {
        Self { parts: Vec::new(), count: 0, bytes: 0, max_timestamp_delta: i64::MIN }
    }
}

impl Batch {
    /// A batch of some of its records that is to be sent, or told of, in its place, with all that has happened to it.
    pub fn of_piece(&self, piece: Piece) -> Self {
        Self {
            partition: self.partition,
            number: self.number,
            part: self.part,
            parts: piece.parts,
            count: piece.count,
            bytes: piece.bytes,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.base_timestamp.saturating_add(piece.max_timestamp_delta),
            position: self.position,
            topic_id: self.topic_id,
            opened: self.opened,
            stamp: self.stamp,
            crc: None,
            node: self.node,
            attempts: self.attempts,
            died_alone: self.died_alone,
            known: self.known,
            on_lane: self.on_lane,
            last_error: self.last_error.clone(),
            trouble: self.trouble.clone(),
        }
    }

    /// Its place among the partition's batches and their parts.
    pub fn place(&self) -> Place {
        (self.number, self.part)
    }

    /// How many of its records have no result yet.
    pub fn live(&self) -> u32 {
        self.parts.iter().filter(|part| !part.reported).map(|part| part.lease.count()).sum()
    }

    /// Whose outcome was reported, though the batch goes on.
    pub fn reported(&self) -> Reported {
        match self.parts.iter().filter(|part| part.reported).count() {
            0 => Reported::Nobody,
            some if some < self.parts.len() => Reported::Some,
            _ => Reported::All,
        }
    }

    /// Whether its records may be in the log, now or later, for all that is known.
    pub fn may_be_written(&self) -> bool {
        self.known.written() == Written::Possibly
    }

    /// It may be in the log, and sending it again will tell.
    pub fn is_unclear(&self) -> bool {
        self.stamp.is_some() && self.known.copies() == Copies::PossiblyWritten
    }
}

/// What the sender knows of a partition.
#[derive(Debug)]
pub struct PartitionState {
    /// What writers see of it.
    pub ring: Arc<Partition>,
    /// Index of its topic in the sender.
    pub topic: u32,
    /// Node id of the leader; -1: none known.
    pub leader: i32,
    /// Epoch of that leader.
    pub leader_epoch: i32,
    /// A leader that a broker named and metadata has not confirmed.
    pub hint: Option<Hint>,
    /// Hints since something was acknowledged.
    pub hints: u32,
    /// The leader, with its epoch, that was last of no use: it counts while there are failures.
    pub refused: Option<Leader>,
    /// Batches to be sent (again), in order, before anything new is drained.
    pub queue: VecDeque<Batch>,
    /// Batches handed to a connection and not answered.
    pub unacked: u32,
    /// Their ring positions, for flush.
    pub unacked_positions: Vec<u64>,
    /// The connection that they are on: it may change only when there are none.
    pub lane: Option<ConnectionId>,
    /// Sequence numbers.
    pub sequences: Sequences,
    /// For what is in the log.
    pub search: Option<Search>,
    /// Since when the topic, created again, has had fewer partitions.
    pub gone_since: Option<Duration>,
    /// The topic was created again since the last epoch: its log knows nothing of what was sent before.
    pub log_gone: bool,
    /// Number of the first batch of this epoch that is certainly not in the log and never will be under its sequence
    /// numbers: nothing that was stamped after it is accepted.
    pub gap: Option<u64>,
    /// Number of the next batch to be drained.
    pub next_number: u64,
    /// When what is still in the ring was first seen.
    pub seen: Seen,
    /// How fast its ring fills.
    pub pace: Pace,
    /// Failures in a row, for the backoff.
    pub failures: u32,
    /// Nothing is sent before this time.
    pub retry_at: Duration,
    /// Everything below this ring position is to leave without linger.
    pub flush_to: u64,
    /// What is below this ring position lingers no longer than to this time.
    pub hurry: Option<(Duration, u64)>,
    /// It stands in its leader's list of partitions to be served.
    pub listed: bool,
    /// It stands in the sender's list of partitions with something in the ring.
    pub active: bool,
    /// Earliest delivery timeout among its batches in flight.
    pub expires: Option<Duration>,
    /// Records that a close gave up, and how many of them are possibly written.
    pub left_behind: (u64, u64),
    /// Its timer for linger and backoff.
    pub armed: Armed,
    /// Its timer for a batch that waits to grow: near, so that it must not take the place of linger's.
    pub growth_armed: Armed,
    /// Its timer for delivery timeouts: far away, so that it must not be armed with every linger.
    pub expiry_armed: Armed,
}

/// When the batches in a ring were first seen, so that linger and delivery timeout of one that waits behind others
/// count from its own first record. At most one entry per slot of the ring.
#[derive(Debug, Default)]
pub struct Seen(VecDeque<(u64, Duration)>);

impl Seen {
    /// The ring holds records from `head` to `newest` now.
    pub fn note(&mut self, head: u64, newest: u64, now: Duration) {
        while self.0.pop_front_if(|(position, _)| *position < head).is_some() {}
        if self.0.back().is_none_or(|(position, _)| *position < newest) {
            self.0.push_back((newest, now));
        }
    }

    /// The ring is empty.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// When the ring's oldest batch was seen; `None` when nothing is known to be there.
    pub fn first(&self) -> Option<Duration> {
        self.0.front().map(|(_, at)| *at)
    }
}

impl PartitionState {
    /// A partition that nobody leads yet.
    pub fn new(ring: Arc<Partition>, topic: u32) -> Self {
        Self {
            ring,
            topic,
            leader: -1,
            leader_epoch: -1,
            hint: None,
            hints: 0,
            refused: None,
            queue: VecDeque::new(),
            unacked: 0,
            unacked_positions: Vec::new(),
            lane: None,
            sequences: Sequences::default(),
            search: None,
            gone_since: None,
            log_gone: false,
            gap: None,
            next_number: 0,
            seen: Seen::default(),
            pace: Pace::default(),
            failures: 0,
            retry_at: Duration::ZERO,
            flush_to: 0,
            hurry: None,
            listed: false,
            active: false,
            expires: None,
            left_behind: (0, 0),
            armed: Armed::default(),
            growth_armed: Armed::default(),
            expiry_armed: Armed::default(),
        }
    }

    /// How many batches may be unacknowledged now: 1 while anything is sent again or before the first ack of this
    /// producer id on this partition (a broker accepts any first sequence), else `max_in_flight`.
    pub fn window(&self, max_in_flight: u32, idempotent: bool) -> u32 {
        let again = !self.queue.is_empty() || self.search.is_some();
        if again || (idempotent && !self.sequences.acked()) { 1 } else { max_in_flight }
    }

    /// The topic is another one under the same name. An empty log accepts any first sequence number, so what it accepts
    /// proves nothing of what was sent before: what may be stored ends as possibly written, the rest goes on under a new
    /// epoch.
    pub fn lose_log(&mut self) {
        (self.search, self.log_gone) = (None, true);
        self.sequences.spoil();
    }

    /// Puts a batch that must be sent again in its place.
    pub fn requeue(&mut self, batch: Batch) {
        let at = self.queue.partition_point(|queued| queued.place() < batch.place());
        self.queue.insert(at, batch);
        debug_assert!(self.queue.iter().is_sorted_by_key(|queued| queued.place()), "batches out of order");
    }

    /// A close gives this batch up.
    pub fn leave_behind(&mut self, batch: &Batch) {
        let records = u64::from(batch.live());
        self.left_behind.0 += records;
        self.left_behind.1 += if batch.may_be_written() { records } else { 0 };
    }

    /// Everything at ring positions below `mark` is out of the ring and has its answer, or is told and waits. `head`: the
    /// ring's.
    pub fn is_flushed(&self, mark: u64, head: u64) -> bool {
        head >= mark
            && self.queue.iter().all(|batch| batch.reported() == Reported::All || batch.position >= mark)
            && self.unacked_positions.iter().all(|position| *position >= mark)
    }
}
