//! The oracle at the end: what the brokers' logs hold, against what callers were told.

use super::coverage::{Coverage, Sight};
use super::ledger::{Ledger, PARTITIONS_MAX, Place, Record, Told, filling, number};
use crate::testing::StoredBatch;
use crate::wire::batch_view::BatchView;

/// A partition's log, of this life of its topic or an earlier one.
pub struct FoundLog<'a> {
    pub place: Place,
    pub batches: &'a [StoredBatch],
}

/// Records of a place that may be there twice or out of order, by their places in the order of all: those without an
/// outcome when a broker forgot all it knew of their producer, and what was accepted from then on until the partition
/// came to rest again under what the broker learned anew. So it is when producer ids expire, and when a topic is created
/// again, requests name it by its name, and a new log accepts any first sequence. Where they name it by its id, no batch
/// for the old topic gets into the new one; and where a new log is begun at 0, none does that has others before it: then
/// all that is excused is that what is told as not written may lie in the log that is gone.
#[derive(Clone, Copy, Debug)]
pub struct Forgotten {
    pub place: Place,
    pub from: u32,
    pub to: Option<u32>,
    /// The old topic's batches did not get in between those of the new one.
    pub kept_apart: bool,
}

/// What the logs can be held to.
pub struct Rules<'a> {
    pub idempotent: bool,
    pub max_in_flight: usize,
    pub acks: i16,
    pub forgotten: &'a [Forgotten],
}

impl Rules<'_> {
    fn excuses(&self, record: &Record, kept_apart: bool) -> bool {
        let of_place = self.forgotten.iter().filter(|f| f.place == record.place && (kept_apart || !f.kept_apart));
        of_place.into_iter().any(|f| record.order >= f.from && f.to.is_none_or(|to| record.order <= to))
    }
}

/// Goes through all logs.
pub fn check_logs(logs: &[FoundLog<'_>], ledger: &Ledger, rules: &Rules<'_>, coverage: &mut Coverage) {
    let records = &ledger.records;
    // In which log it was met last; counts from 1.
    let mut met = vec![0; records.len()];
    let mut at_its_offset = vec![false; records.len()];
    for (log, nth) in logs.iter().zip(1..) {
        let (mut last, mut producer) = (None, None);
        check_sequences(log, rules, coverage);
        for batch in log.batches {
            let view = BatchView::parse_unhashed(&batch.bytes).unwrap();
            for (stored, delta) in view.records().zip(0..) {
                let stored = stored.unwrap();
                let id = number(stored.value);
                let Some(record) = records.get(id as usize) else { panic!("record {id} was never offered") };
                let place = log.place;
                let tell =
                    || format!("record {id} in the log of {}/{}", place / PARTITIONS_MAX, place % PARTITIONS_MAX);
                assert_eq!(record.place, place, "{}", tell());
                let value = stored.value.unwrap_or_default();
                let whole = value.len() == record.len as usize && value[4..].iter().all(|byte| *byte == filling(id));
                assert!(whole, "{} is not what was sent", tell());
                assert!(record.order != u32::MAX, "{} was not accepted", tell());
                assert!(!record.bad, "{} should have been refused", tell());
                let excused = rules.excuses(record, false);
                assert!(
                    rules.excuses(record, true) || record.told != Told::NotWritten,
                    "{} is told as not written",
                    tell()
                );
                let again = std::mem::replace(&mut met[id as usize], nth) == nth;
                at_its_offset[id as usize] |= record.told == Told::Delivered(batch.base_offset + delta);
                if excused {
                    continue;
                }
                // A late copy under a producer id that is no longer in use: no broker holds it to what came since.
                let late = producer.is_some_and(|now| view.producer_id() < now);
                assert!(!(again && rules.idempotent) || late, "{} is there twice", tell());
                // Without idempotence late copies may turn up anywhere; each record's first is where it belongs.
                let in_turn = rules.idempotent
                    || rules.acks != 0
                        && rules.max_in_flight == 1
                        && !again
                        && matches!(record.told, Told::Delivered(_));
                let astray = late && (again || record.told == Told::PossiblyWritten);
                if in_turn && !astray {
                    producer = Some(view.producer_id());
                    assert!(last.is_none_or(|last| last < record.order), "{} is out of order", tell());
                    last = Some(record.order);
                }
            }
        }
    }
    if rules.acks == 0 {
        return;
    }
    for (id, record) in records.iter().enumerate() {
        if let Told::Delivered(offset) = record.told {
            // What an accepted batch proves of those before it holds as long as the broker remembers them.
            if offset < 0 && rules.excuses(record, false) {
                continue;
            }
            assert!(met[id] > 0, "record {id} was acknowledged and is not there");
            assert!(offset < 0 || at_its_offset[id], "record {id} is not at offset {offset}");
        }
    }
}

/// Within a producer id and epoch each batch follows the one before; a new epoch begins at zero.
fn check_sequences(log: &FoundLog<'_>, rules: &Rules<'_>, coverage: &mut Coverage) {
    let mut known: Vec<(i64, i16, i64)> = Vec::new();
    let forgot = rules.forgotten.iter().any(|forgotten| forgotten.place == log.place && !forgotten.kept_apart);
    for batch in log.batches {
        let view = BatchView::parse_unhashed(&batch.bytes).unwrap();
        let (producer, epoch, first) = (view.producer_id(), view.producer_epoch(), i64::from(view.base_sequence()));
        if producer < 0 {
            continue;
        }
        let end = first + i64::from(view.count());
        if end > 1 << 31 {
            coverage.saw(Sight::SequenceWrap);
        }
        let next = end % (1 << 31);
        match known.iter_mut().find(|(id, ..)| *id == producer) {
            None => known.push((producer, epoch, next)),
            Some((_, of, due)) => {
                let right = if epoch == *of { first == *due } else { epoch > *of && first == 0 };
                assert!(right || forgot, "epoch {epoch}, sequence {first} after {of}, {due} in place {}", log.place);
                (*of, *due) = (epoch, next);
            }
        }
    }
}
