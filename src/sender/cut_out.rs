//! A batch that was refused because of some of its records, which the broker names (KIP-467): those fail, each with its
//! own error, and the others are sent again by themselves. Kafka stores nothing of such a batch.
//!
//! Records stay where they are: what is left between two that failed is written again over its own bytes, under smaller
//! offset deltas, so that the callback thread may read those that failed.

use super::Sender;
use super::in_flight::{Batch, Part, Piece, Reported};
use super::knowledge::Event;
use super::split::cut;
use crate::accumulator::Lease;
use crate::completion::Outcome;
use crate::error::DeliveryErrorKind;

/// The records at fault, as an answer lists them: place in the batch, and the broker's words.
pub type Refused = Vec<(i32, Option<String>)>;

/// Keeps what can be meant: places in a batch of `count` records, in order, each once.
pub fn tidy(refused: &mut Refused, count: u32) {
    refused.retain(|(place, _)| u32::try_from(*place).is_ok_and(|place| place < count));
    refused.sort_by_key(|(place, _)| *place);
    refused.dedup_by_key(|(place, _)| *place);
}

/// Records in a row of one part: those that stay, or those that were refused with the same words.
type Cut<'a> = (Lease, Option<Option<&'a str>>);

impl Sender {
    /// Ends the `refused` records (tidy) of a batch that is not in flight, leaves out those that were told already, and
    /// queues the others. An idempotent batch's numbers are lost thereby, and all that is not acknowledged is stamped again
    /// once nothing is in flight. Unless an earlier copy of the batch may be in the log: then the others keep the batch's
    /// first numbers and leave alone. They are accepted if it is not there, and out of order if it is.
    pub(super) fn cut_out(&mut self, batch: Batch, kind: DeliveryErrorKind, refused: &Refused) {
        let id = batch.partition as usize;
        if let Some(rest) = self.without(batch, kind, refused) {
            self.partitions[id].requeue(rest);
        }
    }

    /// The same, and returns the others, to be queued in the batch's place.
    pub(super) fn without(&mut self, mut batch: Batch, kind: DeliveryErrorKind, refused: &Refused) -> Option<Batch> {
        if batch.reported() == Reported::All {
            self.drop_told(batch);
            return None;
        }
        if self.is_stored(&batch) {
            // As a whole: brokers look at records before they look for duplicates.
            self.delivered_before(batch);
            return None;
        }
        let id = batch.partition as usize;
        if batch.stamp.is_some() && self.partitions[id].gap.is_some_and(|gap| gap < batch.number) {
            // Sent only to find out, and nothing is accepted behind a gap.
            batch.known.learn(Event::BehindGap);
        }
        let unclear = batch.known.has_copy();
        // What stands before it is not known either: then it cannot be told by its numbers.
        let walking = unclear && self.partitions[id].search.is_some();
        let mut rest = Piece::default();
        let mut bad = Vec::new();
        let (mut next, mut nth) = (refused.iter().peekable(), 0);
        for part in std::mem::take(&mut batch.parts) {
            if part.reported {
                nth += part.lease.count() as i32;
                while next.next_if(|(place, _)| *place < nth).is_some() {}
                bad.push((part, None));
                continue;
            }
            let count = part.lease.count();
            let cuts = cut(part.lease, count, |_, _| {
                nth += 1;
                next.next_if(|(place, _)| *place == nth - 1).map(|(_, words)| words.as_deref())
            });
            deal(cuts, &mut rest, &mut bad);
        }
        if batch.stamp.is_some() && (rest.count == 0 || !unclear || walking) {
            self.lose_numbers(&batch);
        }
        let last_error = batch.last_error.clone();
        for (part, words) in bad {
            let (count, bytes) = (part.lease.count(), part.lease.len());
            let mut failed = batch.of_piece(Piece { parts: vec![part], count, bytes, max_timestamp_delta: 0 });
            if let (Some(words), Some(last)) = (words, &last_error) {
                failed.last_error = Some(last.with_message(words));
            }
            let error = self.error(&failed, kind);
            self.resolve(failed, &Outcome::Failed(error));
        }
        if rest.count == 0 {
            return None;
        }
        let mut rest = batch.of_piece(rest);
        match &mut rest.stamp {
            Some(_) if walking => {
                let error = self.error(&rest, kind);
                self.resolve(rest, &Outcome::Failed(error));
                return None;
            }
            Some(stamp) if unclear => {
                stamp.shortened = true;
                rest.known.learn(Event::Divided);
            }
            stamp => *stamp = None,
        }
        Some(rest)
    }
}

/// Deals records out: what stays to `rest`, what was refused to `bad`.
fn deal<'a>(cuts: Vec<Cut<'a>>, rest: &mut Piece, bad: &mut Vec<(Part, Option<&'a str>)>) {
    for (lease, refused) in cuts {
        match refused {
            Some(words) => bad.push((Part { lease, reported: false }, words)),
            None => {
                let (before, count) = (rest.count, lease.count());
                rest.count += count;
                rest.take(lease, before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_in_the_batch_each_once() {
        let mut refused: Refused = [7, -1, 3, 3, 10, i32::MIN, i32::MAX, 0].map(|place| (place, None)).into();
        refused.push((7, Some("late".into())));
        tidy(&mut refused, 10);
        assert_eq!(refused, [(0, None), (3, None), (7, None)]);
        tidy(&mut refused, 0);
        assert_eq!(refused, []);
    }
}
