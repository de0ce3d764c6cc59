//! The sender's half: which partitions are ready, what may leave, drain in ring order, close, put back.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{
    Accumulator, Partition,
    completions::Place,
    lease::{Hold, Lease},
    pool::class_for,
    ring::Look,
    segment::Header,
    word::Slot,
};
use crate::sync::{Acquire, Relaxed, Release, order};

/// When may a chain leave that is not sealed `last`?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// Only when it is closed by its seals, or ended already.
    Complete,
    /// Now (linger is over, flush, enough bytes): the open segment is sealed as the last, an empty next slot is ended.
    /// A record that is just being written holds it back; its commit makes the partition ready again, so `Now` is a
    /// state to be applied at every visit, not one action.
    Now,
}

/// What waits at the head of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Peek {
    /// Bytes of records claimed in the chain that leaves next.
    pub bytes: u64,
    /// Records were accepted and not drained.
    pub any: bool,
    /// The chain that leaves next is closed and complete: `drain` with [`Leave::Complete`] gives it.
    pub complete: bool,
    /// Where that chain begins in the ring.
    pub head: u64,
    /// The newest position that holds records, `head` at least.
    pub newest: u64,
}

/// Sealed segments in ring order, to leave under one header. Never without a record; no segment without one.
#[derive(Debug, Default)]
pub struct Chain {
    /// The batch's records, in order.
    pub segments: Vec<Lease>,
    /// How many records.
    pub count: u32,
    /// Their length, bytes, without the batch header.
    pub bytes: u32,
    /// What timestamp deltas are relative to, Unix ms.
    pub base_timestamp: i64,
    /// The largest timestamp, Unix ms.
    pub max_timestamp: i64,
    /// Where in the ring it began.
    pub first_position: u64,
    /// The position behind it.
    pub end_position: u64,
}

#[derive(Debug)]
struct Head {
    partition: Arc<Partition>,
    /// The next position to drain.
    position: u64,
    /// The ring is full; the batch at its end is to go on no further.
    end_next: bool,
}

/// The sender's half of an accumulator.
pub struct Drain {
    accumulator: Arc<Accumulator>,
    heads: Vec<Head>,
    /// Which share a leader's partitions count in, by node id.
    leaders: HashMap<i32, u32>,
    spare: Vec<Vec<Lease>>,
    /// The walk of the chain that is being drained.
    walked: Vec<u32>,
    /// See [`Drain::wake_callers`].
    made_room: bool,
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("partitions", &self.heads.len()).finish_non_exhaustive()
    }
}

impl Drain {
    pub(super) fn new(accumulator: Arc<Accumulator>) -> Self {
        Self { accumulator, heads: vec![], leaders: HashMap::new(), spare: vec![], walked: vec![], made_room: false }
    }

    /// The other half.
    pub fn accumulator(&self) -> &Arc<Accumulator> {
        &self.accumulator
    }

    /// A new partition; its id is the number of those before.
    pub fn add_partition(&mut self, place: Arc<Place>) -> Arc<Partition> {
        let Accumulator { slots, batch_size, max_request_size, .. } = *self.accumulator;
        let limit = u32::try_from(max_request_size).unwrap_or(u32::MAX);
        let partition = Arc::new(Partition::new(self.heads.len() as u32, place, slots, limit, batch_size));
        self.heads.push(Head { partition: partition.clone(), position: slots as u64, end_next: false });
        partition
    }

    /// A partition that was added. Panics for any other id: a bug of ours.
    #[cfg(test)]
    pub fn partition(&self, id: u32) -> &Arc<Partition> {
        &self.heads[id as usize].partition
    }

    /// The partition is led by this node now; -1: by nobody known. Its segments from now on count in that node's share.
    pub fn set_leader(&mut self, id: u32, node: i32) {
        let share = match node {
            -1 => 0,
            _ => *self.leaders.entry(node).or_insert_with(|| self.accumulator.pool.add_broker()),
        };
        let partition = &self.heads[id as usize].partition;
        // Who was refused for the old leader's share may be within the new one's.
        self.made_room |= partition.share.swap(share, Relaxed) != share;
        partition.leader.store(node, Relaxed);
    }

    /// Appends the ids of the partitions that became ready since the last call. Each must be looked at; whatever becomes
    /// ready from now on comes with the next call.
    pub fn visit_ready(&mut self, out: &mut Vec<u32>) {
        let heads = &self.heads;
        self.accumulator.ready.visit(|id| &heads[id as usize].partition.link, |id| out.push(id));
    }

    /// What waits at the partition's head. Chains that were closed without a record do not count: `drain` skips them.
    pub fn peek(&self, id: u32) -> Peek {
        let Head { partition, position, .. } = &self.heads[id as usize];
        let mut head = *position;
        loop {
            let (mut peek, behind) = self.peek_chain(partition, head);
            match behind {
                Some(behind) if !peek.any => head = behind,
                _ => {
                    peek.complete = peek.any && behind.is_some();
                    peek.newest = head.max(self.newest(partition));
                    return peek;
                }
            }
        }
    }

    /// What waits in the chain that begins at `head`, and if the chain is closed and complete, the position behind it.
    fn peek_chain(&self, partition: &Partition, head: u64) -> (Peek, Option<u64>) {
        let mut peek = Peek { head, ..Peek::default() };
        let mut complete = true;
        for position in head..head + partition.slots.len() as u64 {
            let word = Slot(partition.slot(position).load(Acquire));
            if !word.is_installed() || word.lap() != partition.lap(position) & 1 {
                let ended = position > head && word != Slot::empty(position);
                return (peek, (complete && ended).then_some(position));
            }
            let header = self.accumulator.pool.header(word.segment());
            if position > head && header.base().index == 0 {
                return (peek, complete.then_some(position));
            }
            let claim = header.claim();
            peek.bytes += header.claimed(claim);
            peek.any |= claim.count() > 0;
            complete &= header.is_complete();
            if !claim.continues() {
                return (peek, complete.then_some(position + 1));
            }
        }
        (peek, complete.then_some(head + partition.slots.len() as u64))
    }

    /// The newest position of the ring that has records, or did until they were drained.
    fn newest(&self, partition: &Partition) -> u64 {
        let tail = partition.tail.load(Acquire);
        let word = Slot(partition.slot(tail).load(Acquire));
        // Drained, perhaps used again: then the count is another's, and there is nothing newer to tell of anyway.
        let empty = word.is_installed() && self.accumulator.pool.header(word.segment()).claim().count() == 0;
        if empty { tail.saturating_sub(1) } else { tail }
    }

    /// The next batch of this partition that may leave.
    pub fn drain(&mut self, id: u32, leave: Leave) -> Option<Chain> {
        loop {
            let mut walked = std::mem::take(&mut self.walked);
            walked.clear();
            let complete = self.walk(id, leave, &mut walked);
            let chain = complete.then(|| self.take(id, &walked));
            self.walked = walked;
            match chain? {
                chain if chain.count > 0 => return Some(chain),
                empty => self.recycle(empty),
            }
        }
    }

    /// Collects the head chain's segments. False: it may not leave.
    fn walk(&self, id: u32, leave: Leave, chain: &mut Vec<u32>) -> bool {
        let Head { partition, position: head, .. } = &self.heads[id as usize];
        loop {
            let position = head + chain.len() as u64;
            let slot = partition.slot(position);
            // A full ring's worth of chain would bring us back to our own head.
            assert!(chain.len() < partition.slots.len(), "a chain that nobody can end");
            let word = Slot(slot.load(order("slot_load", Acquire)));
            if !word.is_installed() {
                if chain.is_empty() {
                    return false;
                }
                if word != Slot::empty(position) {
                    return true;
                }
                if leave == Leave::Complete {
                    return false;
                }
                let ended = Slot::ended(position).0;
                // Relaxed: the word itself says everything; `free_slot` orders it before the chain's removal.
                if slot.compare_exchange(word.0, ended, Relaxed, Relaxed).is_ok() {
                    return true;
                }
                continue;
            }
            let header = self.accumulator.pool.header(word.segment());
            // A writer ended the chain here, and the next batch has begun.
            if !chain.is_empty() && header.base().index == 0 {
                return true;
            }
            if leave == Leave::Now && !seal_last(header, chain.is_empty()) {
                return false;
            }
            if !header.is_complete() {
                return false;
            }
            chain.push(word.segment());
            if !header.claim().continues() {
                return true;
            }
        }
    }

    /// Takes the walked segments out of the ring.
    fn take(&mut self, id: u32, walked: &[u32]) -> Chain {
        let accumulator = &self.accumulator;
        let Head { partition, position, end_next } = &mut self.heads[id as usize];
        let mut chain = Chain {
            segments: self.spare.pop().unwrap_or_default(),
            first_position: *position,
            max_timestamp: i64::MIN,
            ..Chain::default()
        };
        partition.drained.begin();
        for index in walked {
            let header = accumulator.pool.header(*index);
            let (start, len) = header.records();
            let count = header.claim().count() as u32;
            // A plain store: nobody else changes an installed slot. Release: whoever reads it also sees that the chain's
            // end was settled before.
            let next = *position + partition.slots.len() as u64;
            // In a full ring, the first of these is what the batch at its end would go on with.
            let free = if std::mem::take(end_next) { Slot::ended(next) } else { Slot::empty(next) };
            partition.slot(*position).store(free.0, order("free_slot", Release));
            *position += 1;
            if count == 0 {
                if let Some(completion) = header.take_completion() {
                    completion.put_unused();
                }
                accumulator.release(*index);
                self.made_room = true;
                continue;
            }
            self.made_room |= accumulator.trim(*index, start + len, count);
            chain.count += count;
            chain.bytes += len;
            chain.base_timestamp = header.base().timestamp;
            chain.max_timestamp = chain.max_timestamp.max(header.max_timestamp());
            chain.segments.push(Lease::new(accumulator, *index, (start, len), count));
        }
        chain.end_position = *position;
        partition.drained.end(*position, chain.count);
        // What this batch needed, the next one is likely to need; up to half of it in a second segment.
        partition.hint.store(class_for(chain.bytes as usize / 2) as u32, Relaxed);
        // Who was refused because the ring was full may try again.
        self.made_room |= partition.changed();
        chain
    }

    /// [`Lease::end`], for the sender.
    pub fn give_back(&mut self, lease: Lease) {
        self.made_room |= lease.end() > 0;
    }

    /// [`Hold::end`], for the sender.
    pub fn let_go(&mut self, hold: Hold) {
        self.made_room |= hold.end() > 0;
    }

    /// Wakes callers who wait for room, if something was drained or released since the last time.
    pub fn wake_callers(&mut self) {
        if std::mem::take(&mut self.made_room) {
            self.accumulator.made_room();
        }
    }

    /// Gives a chain's vector back for reuse.
    pub fn recycle(&mut self, mut chain: Chain) {
        chain.segments.clear();
        self.spare.push(chain.segments);
    }

    /// The position behind everything accepted so far: once [`Drain::head_position`] has reached it, all of that was
    /// drained.
    pub fn tail_position(&self, id: u32) -> u64 {
        // An accepted record's position was seen installed by its writer, so `tail` has reached it.
        let tail = self.heads[id as usize].partition.tail.load(order("tail_load", Acquire));
        tail + 1
    }

    /// The next position to be drained.
    pub fn head_position(&self, id: u32) -> u64 {
        self.heads[id as usize].position
    }

    /// Ends the batch that writers are at: what they append from now on starts another one. Nothing leaves.
    pub fn end_batch(&mut self, id: u32) {
        let Head { partition, end_next, .. } = &mut self.heads[id as usize];
        loop {
            match self.accumulator.look(partition) {
                // Unless a writer sealed it meanwhile, to go on in another segment.
                Look::Open { segment, .. }
                    if seal_last(segment, segment.base().index == 0) && segment.claim().continues() =>
                {
                    continue;
                }
                Look::Next { position, from, base: Some(_) } => {
                    // Relaxed: as in `walk`.
                    let ended = Slot::ended(position).0;
                    if partition.slot(position).compare_exchange(from.0, ended, Relaxed, Relaxed).is_err() {
                        continue;
                    }
                }
                // There is no slot yet to end it at.
                Look::Full => *end_next = true,
                Look::Open { .. } | Look::Next { base: None, .. } | Look::Closed => {}
            }
            return;
        }
    }

    /// True: nothing can be appended any more; what was accepted is in the ring. False: the ring is full; drain, then
    /// try again.
    pub fn close_partition(&mut self, id: u32) -> bool {
        let accumulator = &*self.accumulator;
        let partition = &*self.heads[id as usize].partition;
        loop {
            match accumulator.look(partition) {
                Look::Closed => return true,
                Look::Full => return false,
                Look::Open { segment, .. } => {
                    seal_last(segment, false);
                }
                // An empty slot has no claim word to mark: the slot itself must say closed.
                Look::Next { position, from, .. } => {
                    let closed = Slot::closed(position).0;
                    if partition.slot(position).compare_exchange(from.0, closed, Relaxed, Relaxed).is_ok() {
                        // Who waits for room here waits in vain.
                        accumulator.made_room();
                        return true;
                    }
                }
            }
        }
    }

    /// Everything accepted by a closed partition has been drained.
    pub fn is_drained(&self, id: u32) -> bool {
        let Head { partition, position, .. } = &self.heads[id as usize];
        partition.slot(*position).load(Acquire) == Slot::closed(*position).0
    }
}

/// Seals an open segment as its batch's last. False: it is empty and starts a batch; nothing to seal.
fn seal_last(segment: &Header, starts: bool) -> bool {
    loop {
        let claim = segment.claim();
        if claim.sealed() {
            return true;
        }
        if starts && claim.count() == 0 {
            return false;
        }
        if segment.try_seal(claim, false) {
            // Complete or not, we look at it next; the last committer tells us if it is not.
            let _ = segment.settle(claim.bytes());
            return true;
        }
    }
}
