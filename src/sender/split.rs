//! A batch that is too large for its topic leaves in parts. Its records stay where they are: a record under a smaller
//! offset delta is never longer, so each part is written anew over its own bytes.

use super::Sender;
use super::drain::BATCH_HEADER;
use super::idempotence::Stamp;
use super::in_flight::{Batch, Part, Piece, Reported};
use super::knowledge::Event;
use crate::accumulator::Lease;
use crate::error::DeliveryErrorKind;
use crate::wire::codec::Reader;
use crate::wire::error_code::ErrorCode;

/// The least that a topic's limit is taken for, in bytes, batch header included.
const LIMIT_MIN: u32 = 512;

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
    fn deal_out(&mut self, part: Part, room: u32, pieces: &mut Vec<Piece>) {
        let count = part.lease.count();
        let cuts = cut(part.lease, count, |_, len| {
            let (count, bytes) = pieces.last().map_or((0, 0), |piece| (piece.count, piece.bytes));
            if count > 0 && bytes + len > room {
                pieces.push(Piece::default());
            }
            let piece = pieces.len() - 1;
            pieces[piece].count += 1;
            pieces[piece].bytes += len;
            piece
        });
        for (lease, piece) in cuts {
            let piece = &mut pieces[piece];
            let before: u32 = piece.parts.iter().map(|part| part.lease.count()).sum();
            piece.bytes -= lease.len();
            piece.take(lease, before);
        }
    }
}

impl Piece {
    /// Takes in records as its next ones, of which `before` are there, and writes them again where they lie.
    pub fn take(&mut self, mut lease: Lease, before: u32) {
        let largest = lease.renumber(before);
        self.bytes += lease.len();
        self.max_timestamp_delta = self.max_timestamp_delta.max(largest);
        self.parts.push(Part { lease, reported: false });
    }
}

/// Cuts a lease between records of different kinds. `kind`: what a record is, by its place in the segment and its length;
/// it is asked for the first `most` records and one more, and all behind are of that one's kind.
pub(super) fn cut<K: PartialEq>(mut lease: Lease, most: u32, mut kind: impl FnMut(u32, u32) -> K) -> Vec<(Lease, K)> {
    // How many records in a row, how many bytes, of which kind.
    let mut runs: Vec<(u32, u32, K)> = Vec::new();
    let (bytes, mut at, mut done) = (lease.bytes(), 0, 0);
    while done < lease.count() {
        let left = &bytes[at as usize..];
        let mut len = record_len(left);
        let kind = kind(lease.first() + done, len);
        let mut count = 1;
        if done == most {
            (len, count) = (left.len() as u32, lease.count() - done);
        }
        at += len;
        done += count;
        match runs.last_mut() {
            Some((counted, bytes, of)) if *of == kind => {
                *counted += count;
                *bytes += len;
            }
            _ => runs.push((count, len, kind)),
        }
    }
    let last = runs.pop();
    let mut cuts: Vec<(Lease, K)> =
        runs.into_iter().map(|(count, len, kind)| (lease.cut_front(count, len), kind)).collect();
    cuts.extend(last.map(|(.., kind)| (lease, kind)));
    cuts
}

/// Length of the record that `bytes` begin with.
pub(super) fn record_len(bytes: &[u8]) -> u32 {
    let left = bytes.len() as u32;
    let mut reader = Reader::new(bytes, false);
    let body = reader.varint("record length").ok().and_then(|body| u32::try_from(body).ok());
    let len = body.map_or(left, |body| body.saturating_add(reader.position() as u32));
    debug_assert!(body.is_some() && len <= left, "a record that we wrote ourselves");
    len.min(left)
}
