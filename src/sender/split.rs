//! A batch that is too large for its topic leaves in parts. Its records stay where they are: a record under a smaller
//! offset delta is never longer, so each part is written anew over its own bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Sender;
use super::drain::BATCH_HEADER;
use super::idempotence::Stamp;
use super::in_flight::{Batch, Part, Piece, Reported, Run};
use super::knowledge::Event;
use super::outbox::{Deliveries, Waiting};
use crate::completion::{CompletionRef, Outcome};
use crate::error::DeliveryErrorKind;
use crate::record::Place;
use crate::wire::codec::Reader;
use crate::wire::error_code::ErrorCode;

/// The least that a topic's limit is taken for, in bytes, batch header included.
const LIMIT_MIN: u32 = 512;

/// A segment whose records belong to several batches.
#[derive(Debug)]
pub struct SplitSegment {
    /// Parts that are not done.
    left: u32,
    /// A part of it was lent to the callback thread.
    lent: bool,
    /// Shared with reports that tell of parts; its completion ends with the last of them.
    waiting: Arc<Mutex<Waiting>>,
}

/// The callback thread will read a part of a split segment and tell its Deliveries.
pub fn lend(split_segments: &mut HashMap<u32, SplitSegment>, segment: u32) -> Option<Deliveries> {
    let split = split_segments.get_mut(&segment)?;
    split.lent = true;
    Some(Deliveries::Part(split.waiting.clone()))
}

impl Sender {
    /// Remembers the topic's limit, and queues the batch's records in smaller batches, in order, under the sequence
    /// numbers they had: a refused batch uses up none. An earlier copy may be in the log all the same, since brokers look
    /// at the size first: then the first part, which leaves alone, is out of order, and accepted otherwise.
    pub(super) fn split(&mut self, batch: Batch) {
        if batch.reported() == Reported::All {
            return self.drop_told(batch);
        }
        let room = self.learn_limit(&batch);
        self.divide(batch, room);
    }

    /// Queues the batch's records in batches with so many bytes of records at most, but for single ones.
    pub(super) fn divide(&mut self, mut batch: Batch, room: u32) {
        if batch.known.has_copy() && self.partitions[batch.partition as usize].search.is_some() {
            // What stands before it is not known either: any part of it is out of order.
            return self.fail(batch, DeliveryErrorKind::Broker(ErrorCode::MESSAGE_TOO_LARGE));
        }
        batch.known.learn(Event::Divided);
        let mut pieces = vec![Piece::default()];
        for part in std::mem::take(&mut batch.parts) {
            self.deal_out(part, room, &mut pieces);
        }
        let (mut stamp, mut part, last) = (batch.stamp, batch.part, pieces.len() - 1);
        let batches: Vec<Batch> = pieces
            .into_iter()
            .enumerate()
            .map(|(at, piece)| {
                let count = piece.count;
                // The numbers that are left out are those behind the last piece.
                let own = stamp.map(|stamp| Stamp { shortened: stamp.shortened && at == last, ..stamp });
                let batch = Batch { stamp: own, part, died_alone: 0, ..batch.of_piece(piece) };
                (stamp, part) = (stamp.map(|stamp| stamp.after(count)), part + count);
                batch
            })
            .collect();
        let partition = &mut self.partitions[batch.partition as usize];
        for batch in batches.into_iter().rev() {
            partition.requeue(batch);
        }
    }

    /// Lowers the topic's limit below the size of `batch`; returns how many bytes of records a batch may have.
    fn learn_limit(&mut self, batch: &Batch) -> u32 {
        let size = batch.bytes + BATCH_HEADER;
        // First down to batch.size, which topics are usually made for, then by halves.
        let below = if size / 2 > self.config.batch_size { self.config.batch_size } else { size / 2 };
        let topic = &mut self.topics[self.partitions[batch.partition as usize].topic as usize];
        let room = below.min(topic.limit).saturating_sub(BATCH_HEADER).max(1);
        let limit = below.max(LIMIT_MIN);
        if limit < topic.limit {
            topic.limit = limit;
            tracing::info!(topic = %topic.shared.name, limit, "the topic takes smaller batches only");
            topic.partitions.clone().into_iter().for_each(|id| self.refresh_limit(id));
        }
        room
    }

    /// Deals the records of `part` out to the last piece and as many new ones as it takes.
    fn deal_out(&mut self, mut part: Part, room: u32, pieces: &mut Vec<Piece>) {
        let cuts = self.cut(part.run, part.run.count, |_, len| {
            let (count, bytes) = pieces.last().map_or((0, 0), |piece| (piece.count, piece.bytes));
            if count > 0 && bytes + len > room {
                pieces.push(Piece::default());
            }
            let piece = pieces.len() - 1;
            pieces[piece].count += 1;
            pieces[piece].bytes += len;
            piece
        });
        let mut completion = self.share_completion(&mut part, cuts.len() as u32);
        for (mut cut, piece) in cuts {
            let piece = &mut pieces[piece];
            let before: u32 = piece.parts.iter().map(|part| part.run.count).sum();
            piece.bytes -= cut.len;
            self.renumber(&mut cut, before, piece);
            piece.parts.push(Part {
                run: cut,
                completion: completion.take(),
                deliveries: part.deliveries,
                reported: false,
            });
        }
    }

    /// The records of `part` are dealt out to so many parts. Its completion, for the one that has them all; else it is
    /// kept by segment, and all of them tell their results there.
    pub(super) fn share_completion(&mut self, part: &mut Part, among: u32) -> Option<CompletionRef> {
        let completion = part.completion.take();
        if among == 1 {
            return completion;
        }
        let segment = part.run.segment;
        match completion {
            Some(completion) => {
                let waiting = Waiting { completion: Some(completion), deliveries: part.deliveries };
                let split = SplitSegment { left: among, lent: false, waiting: Arc::new(Mutex::new(waiting)) };
                self.split_segments.insert(segment, split);
            }
            None => {
                if let Some(split) = self.split_segments.get_mut(&segment) {
                    split.left = (split.left + among).saturating_sub(1);
                }
            }
        }
        None
    }

    /// Writes the records of `run` again where they lie, as the next ones of `piece`, of which `before` are there.
    pub(super) fn renumber(&mut self, run: &mut Run, before: u32, piece: &mut Piece) {
        let moved = self.drain.renumber(run.offset, run.len as usize, run.count, before);
        run.len = moved.len as u32;
        piece.bytes += run.len;
        piece.max_timestamp_delta = piece.max_timestamp_delta.max(moved.max_timestamp_delta);
    }

    /// Cuts a run between records of different kinds. `kind`: what a record is, by its place in the segment and its length;
    /// it is asked for the first `most` records and one more, and all behind are of that one's kind.
    pub(super) fn cut<K: PartialEq>(&self, run: Run, most: u32, mut kind: impl FnMut(u32, u32) -> K) -> Vec<(Run, K)> {
        let mut cuts: Vec<(Run, K)> = Vec::new();
        let (mut at, mut done) = (0, 0);
        while done < run.count {
            let (offset, first) = (run.offset + at as usize, run.first + done);
            let mut record = Run { offset, len: self.record_len(offset, run.len - at), first, count: 1, ..run };
            let kind = kind(first, record.len);
            if done == most {
                (record.len, record.count) = (run.len - at, run.count - done);
            }
            at += record.len;
            done += record.count;
            match cuts.last_mut() {
                Some((cut, of)) if *of == kind => {
                    cut.len += record.len;
                    cut.count += record.count;
                }
                _ => cuts.push((record, kind)),
            }
        }
        cuts
    }

    /// Length of the record at `offset`, of which at most `left` bytes can be.
    pub(super) fn record_len(&self, offset: usize, left: u32) -> u32 {
        let bytes = self.shared.accumulator.bytes(offset, left as usize);
        let mut reader = Reader::new(bytes, false);
        let body = reader.varint("record length").ok().and_then(|body| u32::try_from(body).ok());
        let len = body.map_or(left, |body| body.saturating_add(reader.position() as u32));
        debug_assert!(body.is_some() && len <= left, "a record that we wrote ourselves");
        len.min(left)
    }

    /// The result of a part of a split segment.
    pub(super) fn tell_split(&mut self, run: &Run, place: &Arc<Place>, outcome: &Outcome) {
        if let Some(split) = self.split_segments.get(&run.segment) {
            split.waiting.lock().unwrap_or_else(PoisonError::into_inner).resolve(run, place, outcome);
        }
    }

    /// A part of this segment is done. Some when so is the whole segment, which one that was never split is at once:
    /// whether a part of it was lent.
    pub(super) fn leave_split(&mut self, segment: u32) -> Option<bool> {
        let Some(split) = self.split_segments.get_mut(&segment) else { return Some(false) };
        split.left -= 1;
        if split.left > 0 {
            return None;
        }
        self.split_segments.remove(&segment).map(|split| split.lent)
    }
}
