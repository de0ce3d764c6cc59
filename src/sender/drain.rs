//! What leaves, when, and packed how.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Sender;
use super::connection::{Asked, Request, State};
use super::idempotence::Identity;
use super::in_flight::{Batch, Part, Reported};
use super::pace::GROW_TO;
use super::steps::{Step, stepped};
use super::timers::Timer;
use super::transmit::{ConnectionId, Piece, Transmit};
use crate::accumulator::Leave;
use crate::error::DeliveryErrorKind;
use crate::wire::produce::ProduceWriter;
use crate::wire::record_batch::{self, BatchHeader};

/// Length of a batch's header on the wire.
pub const BATCH_HEADER: u32 = record_batch::LEN as u32;

/// What a request says of a batch besides its records and its topic's name or id, at most.
const PARTITION_HEAD: u64 = record_batch::LEN as u64 + 32;

/// How often all active partitions are looked at while callers wait for room.
const RELIEF_EVERY: Duration = Duration::from_millis(1);

/// May a partition send now?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Yes.
    Now,
    /// Not before this time, if nothing else happens.
    At(Duration),
    /// It could, but will soon be larger: not before it has so many bytes, or this time.
    Grown(u32, Duration),
    /// An event will tell: an ack, metadata, a producer id.
    OnEvent,
}

impl Sender {
    /// Looks at a partition: expires what is too old, and lists it with its leader when something may leave.
    pub(super) fn consider(&mut self, id: u32) {
        let now = self.now.monotonic;
        let Some(at) = self.partitions.get(id as usize) else { return };
        if at.expires.is_some_and(|expires| expires <= now) || !at.queue.is_empty() || at.seen.first().is_some() {
            self.expire(id);
        }
        let Some(at) = self.partitions.get(id as usize) else { return };
        if at.unacked == 0 && at.queue.is_empty() {
            // Before the look: who is past `batch.size` and does not tell is seen by it.
            self.let_grow(id, None);
        }
        let peek = self.drain.peek(id);
        let partition = &mut self.partitions[id as usize];
        if peek.any {
            if partition.seen.first().is_none() {
                partition.pace.begin(now, partition.unacked > 0);
            }
            partition.seen.note(peek.head, peek.newest, now);
            if !partition.active {
                partition.active = true;
                self.active.push(id);
            }
        } else {
            partition.seen.clear();
        }
        if peek.any {
            self.end_old_batch(id);
        }
        if self.partitions[id as usize].unacked == 0 && self.partitions[id as usize].sequences.spoiled() {
            self.take_new_epoch(id);
        }
        let partition = &self.partitions[id as usize];
        if partition.leader < 0 && (peek.any || !partition.queue.is_empty()) {
            self.want_metadata();
        }
        let verdict = self.verdict(id, peek.any, peek.bytes, peek.complete);
        match verdict {
            Verdict::Now => self.list(id),
            Verdict::At(at) => self.arm_partition(id, at),
            Verdict::Grown(to, at) => {
                stepped(Step::WaitsToGrow);
                self.let_grow(id, Some(to));
                // Always in the future, and `verdict` lets it leave then.
                self.partitions[id as usize].growth_armed.at(&mut self.timers, at, Timer::Partition(id));
            }
            Verdict::OnEvent => {}
        }
        self.arm_expiry(id);
    }

    /// Whether the open batch goes on beyond `batch.size`, and from how many bytes on the sender is told.
    fn let_grow(&mut self, id: u32, to: Option<u32>) {
        let partition = &mut self.partitions[id as usize];
        // Writers have these in their caches.
        if partition.pace.let_grow(to) {
            partition.ring.busy.store(to.is_some(), Ordering::Relaxed);
            partition.ring.set_leave_at(to.unwrap_or(self.config.batch_size));
        }
    }

    /// A batch's time counts from its first record. One that cannot leave takes no more for long, so that those who come
    /// late have theirs as well: seven eighths of `delivery.timeout.ms`, whatever happens.
    fn end_old_batch(&mut self, id: u32) {
        let now = self.now.monotonic;
        let most = self.batch_time();
        let partition = &mut self.partitions[id as usize];
        if now >= partition.pace.begun() + most {
            partition.pace.end(now);
            self.drain.end_batch(id);
            self.note_waiting(id);
        }
    }

    /// How long a batch takes records.
    fn batch_time(&self) -> Duration {
        (self.config.delivery_timeout / 8).max(self.config.linger)
    }

    fn arm_partition(&mut self, id: u32, at: Duration) {
        // What is due now and was not resolved by this look will not be by another one at the same time.
        let at = at.max(self.now.monotonic + Duration::from_millis(1));
        self.partitions[id as usize].armed.at(&mut self.timers, at, Timer::Partition(id));
    }

    /// A look when the oldest of its records reaches its delivery timeout, or writers have been at a batch for long enough.
    fn arm_expiry(&mut self, id: u32) {
        if let Some(at) = self.expiry_due(id) {
            let at = at.max(self.now.monotonic + Duration::from_millis(1));
            self.partitions[id as usize].expiry_armed.at(&mut self.timers, at, Timer::Expiry(id));
        }
    }

    /// When that is.
    pub(super) fn expiry_due(&self, id: u32) -> Option<Duration> {
        let partition = &self.partitions[id as usize];
        let timeout = self.config.delivery_timeout;
        let queued = partition.queue.iter().map(|batch| batch.opened).chain(partition.seen.first()).min();
        let earliest = queued.map(|opened| opened + timeout).into_iter().chain(partition.expires);
        let ends = partition.seen.first().map(|_| partition.pace.begun() + self.batch_time());
        earliest.chain(ends).min()
    }

    /// Callers wait for room: nothing that may leave is to wait for more. What becomes ready from now on is looked at by
    /// itself, unless nobody waits at that moment: hence once more a little later, as long as somebody does.
    pub(super) fn relieve(&mut self) {
        let now = self.now.monotonic;
        let due = self.relieved.map_or(now, |at| at + RELIEF_EVERY);
        if now >= due {
            self.relieved = Some(now);
            self.consider_active();
        } else {
            self.relief_armed.at(&mut self.timers, due, Timer::Pressure);
        }
    }

    /// Every partition with something in its ring or queue that could leave.
    pub(super) fn consider_active(&mut self) {
        let mut active = std::mem::take(&mut self.active);
        active.retain(|id| {
            let keep = {
                let partition = &self.partitions[*id as usize];
                partition.seen.first().is_some() || !partition.queue.is_empty() || partition.unacked > 0
            };
            self.partitions[*id as usize].active = keep;
            keep
        });
        for id in &active {
            let partition = &self.partitions[*id as usize];
            let window = partition.window(self.config.max_in_flight as u32, self.config.idempotence);
            // Else an answer will tell. (A look touches the ring, which writers have in their caches.)
            if partition.unacked < window {
                self.consider(*id);
            }
        }
        // Looking may have added some.
        active.append(&mut self.active);
        self.active = active;
    }

    fn verdict(&self, id: u32, any: bool, bytes: u64, complete: bool) -> Verdict {
        let now = self.now.monotonic;
        let partition = &self.partitions[id as usize];
        let identity_ready = self.identity.ready() || partition.sequences.producer().is_some();
        if partition.queue.is_empty() && !any {
            return Verdict::OnEvent;
        }
        let window = partition.window(self.config.max_in_flight as u32, self.config.idempotence);
        let spoiled = partition.sequences.spoiled() && partition.search.is_none();
        if partition.unacked >= window || !identity_ready || spoiled {
            return Verdict::OnEvent;
        }
        if partition.leader < 0 {
            return Verdict::OnEvent;
        }
        // It changes its connection only when nothing is in flight on the old one.
        let lane = self.nodes.get(&partition.leader).and_then(|node| node.lane);
        if partition.unacked > 0 && partition.lane != lane {
            return Verdict::OnEvent;
        }
        if now < partition.retry_at {
            return Verdict::At(partition.retry_at);
        }
        if !partition.queue.is_empty() {
            return Verdict::Now;
        }
        let since = partition.seen.first().unwrap_or(now);
        let due = since + self.config.linger;
        let head = self.drain.head_position(id);
        let due = partition.hurry.filter(|(_, mark)| *mark > head).map_or(due, |(at, _)| due.min(at));
        let must = complete
            || now >= due
            || partition.flush_to > head
            || self.closing.is_some()
            || self.shared.accumulator.under_pressure();
        let most = partition.ring.limit.load(Ordering::Relaxed) / 2;
        let grown = u64::from(GROW_TO.max(self.config.batch_size).min(most));
        let enough = if partition.unacked > 0 { grown } else { u64::from(self.config.batch_size.min(most)) };
        if must || bytes >= grown {
            Verdict::Now
        } else if bytes < enough {
            Verdict::At(due)
        } else {
            match partition.pace.comes_to(now, bytes, grown) {
                // It is not worth a wake-up.
                to if to < bytes + bytes / 4 => Verdict::Now,
                to => Verdict::Grown(to as u32, due.min(partition.pace.grows_until())),
            }
        }
    }

    /// When the partition's next batch may leave, as far as the partition itself decides that: now, or at a later time.
    /// `None`: an event will tell.
    #[cfg(feature = "testing")]
    pub(super) fn may_leave_at(&self, id: u32) -> Option<Duration> {
        let peek = self.drain.peek(id);
        match self.verdict(id, peek.any, peek.bytes, peek.complete) {
            Verdict::Now => Some(self.now.monotonic),
            Verdict::At(at) | Verdict::Grown(_, at) => Some(at),
            Verdict::OnEvent => None,
        }
    }

    /// Puts the partition into its leader's list.
    pub(super) fn list(&mut self, id: u32) {
        let partition = &mut self.partitions[id as usize];
        let leader = partition.leader;
        let Some(node) = self.nodes.get_mut(&leader) else {
            return self.want_metadata();
        };
        if !partition.listed {
            partition.listed = true;
            node.ready.push_back(id);
        }
        self.list_node(leader);
    }

    /// A node has partitions to be served, or can serve them now.
    pub(super) fn list_node(&mut self, id: i32) {
        let Some(node) = self.nodes.get(&id) else { return };
        if node.ready.is_empty() {
            return;
        }
        match node.lane.and_then(|lane| self.connections.get(&lane)) {
            None => self.step_node(id),
            Some(connection) if connection.state == State::Ready => {
                if !self.waiting_nodes.contains(&id) {
                    self.waiting_nodes.push(id);
                }
            }
            Some(_) => {}
        }
    }

    /// Packs what the waiting nodes have into one request each.
    pub(super) fn pack(&mut self) {
        let now = self.now.monotonic;
        while let Some(id) = self.waiting_nodes.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            let Some(lane) = node.lane else { continue };
            let Some(connection) = self.connections.get(&lane) else { continue };
            if connection.takes_batches(now) {
                let (least, most) = (self.config.max_request_size, self.config.request_max_bytes);
                let limit = connection.service.request_bytes(u64::from(least), u64::from(most));
                self.pack_request(id, lane, limit.min(self.request_limit(id)));
            }
            // Else it is listed again when its transmit was sent, answered, or its throttle is over.
        }
        // What left made room in the rings.
        self.drain.wake_callers();
        // What ended may be the last that a flush or a close waits for: this turn's look at those is over.
        if self.waits_for_a_look() {
            self.timers.arm(now, Timer::Close);
        }
    }

    /// One request of `limit` bytes at most; or of one batch, which has a limit of its own.
    fn pack_request(&mut self, node: i32, lane: ConnectionId, limit: u64) {
        let mut batches = self.spare_batches.pop().unwrap_or_default();
        let mut bytes = 0u64;
        let mut left = self.nodes.get(&node).map_or(0, |node| node.ready.len());
        while left > 0 {
            left -= 1;
            let Some(id) = self.nodes.get_mut(&node).and_then(|node| node.ready.pop_front()) else { break };
            let partition = &mut self.partitions[id as usize];
            partition.listed = false;
            if partition.leader != node {
                self.consider(id);
                continue;
            }
            let peek = self.drain.peek(id);
            if self.verdict(id, peek.any, peek.bytes, peek.complete) != Verdict::Now {
                self.consider(id);
                continue;
            }
            let partition = &self.partitions[id as usize];
            let largest = u64::from(partition.ring.limit.load(Ordering::Relaxed));
            let expected = partition.queue.front().map_or(peek.bytes.min(largest), |batch| u64::from(batch.bytes));
            let head = PARTITION_HEAD + self.topics[partition.topic as usize].shared.name.len() as u64;
            if !batches.is_empty() && bytes + head + expected > limit {
                // It opens the next request.
                self.partitions[id as usize].listed = true;
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.ready.push_front(id);
                }
                break;
            }
            let Some(batch) = self.next_batch(id) else {
                // A writer is between its claim and its commit; the commit lists the partition again.
                let later = self.now.monotonic + Duration::from_millis(1);
                self.arm_partition(id, later);
                continue;
            };
            bytes += head + u64::from(batch.bytes);
            batches.push(Some(batch));
        }
        if batches.is_empty() {
            self.spare_batches.push(batches);
            return;
        }
        // The request names each topic once.
        batches.sort_unstable_by_key(|batch| {
            batch.as_ref().map(|batch| (self.partitions[batch.partition as usize].topic, batch.partition))
        });
        self.write_request(lane, batches);
    }

    /// The partition's next batch, stamped: one to be sent again, or a new one out of the ring.
    fn next_batch(&mut self, id: u32) -> Option<Batch> {
        let partition = &mut self.partitions[id as usize];
        let mut batch = match partition.take_queued() {
            // Those whose own time is over are not sent any more.
            Some(batch) if batch.stamp.is_none() && batch.reported() != Reported::Nobody => {
                self.without(batch, DeliveryErrorKind::Expired, &Vec::new())?
            }
            Some(batch) => batch,
            None => self.drain_ring(id, Leave::Now)?,
        };
        if let Some(room) = self.is_to_be_cut(&batch) {
            batch = self.cut_down(batch, room)?;
        }
        let partition = &mut self.partitions[id as usize];
        if batch.stamp.is_none() && self.config.idempotence {
            let current = match self.identity {
                Identity::Known(producer, epoch) => (producer, epoch),
                // The partition stamps under an id it had before; `verdict` has made sure.
                _ => (partition.sequences.producer()?, super::idempotence::ProducerEpoch(0)),
            };
            batch.stamp = Some(partition.sequences.stamp(current, batch.count));
            batch.crc = None;
        }
        Some(batch)
    }

    /// Takes the next chain out of the ring as a batch without a stamp.
    pub(super) fn drain_ring(&mut self, id: u32, leave: Leave) -> Option<Batch> {
        let mut chain = self.drain.drain(id, leave)?;
        let mut parts = self.spare_parts.pop().unwrap_or_default();
        parts.extend(chain.segments.drain(..).map(|lease| Part { lease, reported: false }));
        let now = self.now.monotonic;
        self.use_topic(self.partitions[id as usize].topic);
        let partition = &mut self.partitions[id as usize];
        let opened = partition.seen.first().unwrap_or(now);
        let number = partition.next_number;
        partition.next_number += 1;
        let batch = Batch {
            partition: id,
            number,
            part: 0,
            parts,
            count: chain.count,
            bytes: chain.bytes,
            base_timestamp: chain.base_timestamp,
            max_timestamp: chain.max_timestamp,
            position: chain.first_position,
            topic_id: Default::default(),
            opened,
            stamp: None,
            crc: None,
            node: -1,
            attempts: 0,
            died_alone: 0,
            known: Default::default(),
            on_lane: false,
            last_error: None,
            trouble: None,
        };
        self.shared.tally.drained(batch.count);
        self.drain.recycle(chain);
        let left = self.drain.peek(id);
        let partition = &mut self.partitions[id as usize];
        partition.pace.drain(now, left.any.then_some(left.bytes));
        if left.any {
            partition.seen.note(left.head, left.newest, now)
        } else {
            partition.seen.clear()
        }
        Some(batch)
    }

    fn header(&self, batch: &Batch) -> BatchHeader {
        BatchHeader {
            attributes: 0,
            last_offset_delta: batch.count as i32 - 1,
            base_timestamp: batch.base_timestamp,
            max_timestamp: batch.max_timestamp,
            producer_id: batch.stamp.map_or(-1, |stamp| stamp.producer.0),
            producer_epoch: batch.stamp.map_or(-1, |stamp| stamp.epoch.0),
            base_sequence: batch.stamp.map_or(-1, |stamp| stamp.sequence.0),
            count: batch.count as i32,
        }
    }

    /// Writes the request's head around the batches' bytes, which stay where they are.
    fn write_request(&mut self, lane: ConnectionId, mut batches: Vec<Option<Batch>>) {
        let mut transmit = self.spare_transmits.pop().unwrap_or_default();
        let Some(connection) = self.connections.get_mut(&lane) else { return };
        let (version, correlation) = (connection.versions.produce, connection.correlate());
        transmit.connection = lane;
        let timeout = i32::try_from(self.config.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let topic_of =
            |batch: &Option<Batch>| batch.as_ref().map(|batch| self.partitions[batch.partition as usize].topic);
        let topics = batches.chunk_by(|a, b| topic_of(a) == topic_of(b)).count();
        let Transmit { head, pieces, holds, .. } = &mut transmit;
        let writer =
            ProduceWriter::begin(head, version, correlation, &self.config.client_id, self.acks(), timeout, topics);
        let (mut written, mut arena_bytes) = (0, 0);
        let mut from = 0;
        while from < batches.len() {
            let topic = topic_of(&batches[from]);
            let count = batches[from..].iter().take_while(|batch| topic_of(batch) == topic).count();
            let name = topic.map(|at| self.topics[at as usize].shared.name.clone()).unwrap_or_else(|| "".into());
            let id = self.cluster.topics.get(&name).map(|topic| topic.id).unwrap_or_default();
            writer.topic(head, &name, &id, count);
            for batch in batches[from..from + count].iter_mut().flatten() {
                batch.topic_id = id;
                let header = self.header(batch);
                let ranges = batch.parts.iter().map(|part| part.lease.bytes());
                let crc = *batch.crc.get_or_insert_with(|| header.crc(ranges));
                let index = self.partitions[batch.partition as usize].ring.place.partition;
                writer.partition(head, index, record_batch::LEN + batch.bytes as usize);
                let mut bytes = [0; record_batch::LEN];
                header.put(&mut bytes, batch.bytes, crc);
                head.extend_from_slice(&bytes);
                pieces.push(Piece::Head { start: written as u32, len: (head.len() - written) as u32 });
                written = head.len();
                for part in &batch.parts {
                    holds.push(part.lease.hold());
                    let (from, more) = (part.lease.offset(), part.lease.len());
                    match pieces.last_mut() {
                        // Parts of which some were reported lie side by side.
                        Some(Piece::Arena { offset, len }) if *offset + *len as usize == from => *len += more,
                        _ => pieces.push(Piece::Arena { offset: from, len: more }),
                    }
                    arena_bytes += more as usize;
                }
                writer.end_partition(head);
            }
            writer.end_topic(head);
            from += count;
        }
        writer.end(head);
        pieces.push(Piece::Head { start: written as u32, len: (head.len() - written) as u32 });
        writer.patch_size(head, arena_bytes);
        let bytes = head.len() + arena_bytes;
        for batch in batches.iter_mut().flatten() {
            batch.attempts += 1;
            self.book_in_flight(batch, lane);
        }
        if let Some(connection) = self.connections.get_mut(&lane) {
            let asked = Asked::Produce { version, batches };
            connection
                .asked(self.now.monotonic, Request { correlation, asked, sent: false, bytes, at: self.now.monotonic });
            let deadline = connection.head_since + self.config.request_timeout;
            connection.armed.at(&mut self.timers, deadline, Timer::Connection(lane));
        }
        self.transmits.push_back(transmit);
    }

    fn book_in_flight(&mut self, batch: &mut Batch, lane: ConnectionId) {
        let id = batch.partition;
        batch.on_lane = true;
        self.shared.tally.left(batch.live());
        let partition = &mut self.partitions[id as usize];
        batch.node = partition.leader;
        partition.unacked += 1;
        partition.unacked_positions.push(batch.position);
        partition.lane = Some(lane);
        self.let_grow(id, Some(GROW_TO.max(self.config.batch_size)));
        self.consider(id);
        // After the look: it counts only what its connection has already, which this batch is not.
        let expires = batch.opened + self.config.delivery_timeout;
        let partition = &mut self.partitions[id as usize];
        partition.expires = Some(partition.expires.map_or(expires, |at| at.min(expires)));
        self.arm_expiry(id);
    }

    /// An answer or a loss: the batch is no longer in flight. A look at the partition comes next.
    pub(super) fn book_out(&mut self, batch: &mut Batch) {
        if std::mem::take(&mut batch.on_lane) {
            self.shared.tally.came_back(batch.live());
        }
        let now = self.now.monotonic;
        let partition = &mut self.partitions[batch.partition as usize];
        partition.unacked = partition.unacked.saturating_sub(1);
        if let Some(at) = partition.unacked_positions.iter().position(|position| *position == batch.position) {
            partition.unacked_positions.swap_remove(at);
        }
        if partition.unacked == 0 {
            partition.lane = None;
            partition.expires = None;
            partition.pace.answer(now);
        }
        self.settled = true;
    }
}
