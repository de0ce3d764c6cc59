//! One partition's log: batches with their offsets, and what is remembered of each producer.

use std::collections::{HashMap, VecDeque};

use super::options::{FirstSequence, TimestampType};
use super::validate::Checked;
use crate::wire::batch_view::{BatchView, attributes};
use crate::wire::error_code::ErrorCode;
use crate::wire::record_batch::CRC_FROM;

/// How many batches of a producer are remembered, to know duplicates by.
const BATCHES_REMEMBERED: usize = 5;

/// A batch as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The largest timestamp among the records.
    pub max_timestamp: i64,
    /// The bytes, with base offset, leader epoch, timestamp type and CRC as the broker set them.
    pub bytes: Vec<u8>,
}

/// Where a batch was stored, now or the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// What the answer says: -1 unless the broker set the timestamps, or the batch is a duplicate.
    pub log_append_time: i64,
    /// Whether it was stored before and nothing was done now.
    pub duplicate: bool,
}

/// A batch of a producer that was stored.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    max_timestamp: i64,
}

#[derive(Debug)]
struct ProducerState {
    epoch: i16,
    /// The newest last; never empty.
    batches: VecDeque<Seen>,
}

/// The broker's settings that an append goes by.
#[derive(Clone, Copy, Debug)]
pub struct AppendRules {
    /// Keep offsets and counts alone.
    pub discard: bool,
    /// What is accepted of a producer that is not known.
    pub first_sequence: FirstSequence,
}

/// A partition's log.
#[derive(Debug, Default)]
pub struct Log {
    /// Offset of the first record that is still there.
    pub start_offset: i64,
    /// Offset that the next record gets.
    pub next_offset: i64,
    /// Bytes ever stored.
    pub bytes: u64,
    batches: Vec<StoredBatch>,
    producers: HashMap<i64, ProducerState>,
}

/// The sequence number `n` records after `sequence`: 2,147,483,647 is followed by 0.
fn sequence_after(sequence: i32, n: i32) -> i32 {
    (i64::from(sequence) + i64::from(n)).rem_euclid(1 << 31) as i32
}

impl Log {
    /// Stores a batch, or finds that it is stored already. `now` is Unix milliseconds.
    pub fn append(
        &mut self,
        checked: &Checked<'_>,
        timestamp_type: TimestampType,
        leader_epoch: i32,
        now: i64,
        rules: AppendRules,
    ) -> Result<Appended, ErrorCode> {
        let batch = &checked.batch;
        if let Some(seen) = self.check_sequence(batch, rules.first_sequence)? {
            let Seen { base_offset, max_timestamp, .. } = seen;
            // Kafka says the stored timestamp here, even where the producer sets it.
            return Ok(Appended { base_offset, log_append_time: max_timestamp, duplicate: true });
        }
        let by_broker = timestamp_type == TimestampType::LogAppendTime;
        let max_timestamp = if by_broker { now } else { checked.max_timestamp };
        let base_offset = self.next_offset;
        self.next_offset += i64::from(batch.count());
        self.bytes += batch.bytes().len() as u64;
        self.remember(batch, base_offset, max_timestamp);
        if rules.discard {
            self.start_offset = self.next_offset;
        } else {
            let bytes = stored_bytes(batch, base_offset, leader_epoch, by_broker, max_timestamp);
            let last_offset = self.next_offset - 1;
            self.batches.push(StoredBatch { base_offset, last_offset, max_timestamp, bytes });
        }
        Ok(Appended { base_offset, log_append_time: if by_broker { now } else { -1 }, duplicate: false })
    }

    /// Whether a batch may follow what is known of its producer; the stored one if it is a duplicate.
    fn check_sequence(&self, batch: &BatchView<'_>, first_sequence: FirstSequence) -> Result<Option<Seen>, ErrorCode> {
        let id = batch.producer_id();
        if id < 0 {
            return Ok(None);
        }
        let first = batch.base_sequence();
        let Some(state) = self.producers.get(&id) else {
            return match first_sequence {
                FirstSequence::ZeroWhenNew if first != 0 && self.next_offset == 0 => {
                    Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
                }
                FirstSequence::Zero if first != 0 => Err(ErrorCode::UNKNOWN_PRODUCER_ID),
                _ => Ok(None),
            };
        };
        let last = sequence_after(first, batch.last_offset_delta());
        if batch.producer_epoch() < state.epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if batch.producer_epoch() > state.epoch {
            return if first == 0 { Ok(None) } else { Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) };
        }
        let same = |seen: &&Seen| seen.first_sequence == first && seen.last_sequence == last;
        if let Some(seen) = state.batches.iter().find(same) {
            return Ok(Some(*seen));
        }
        match state.batches.back() {
            Some(newest) if first != sequence_after(newest.last_sequence, 1) => {
                Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
            }
            _ => Ok(None),
        }
    }

    fn remember(&mut self, batch: &BatchView<'_>, base_offset: i64, max_timestamp: i64) {
        if batch.producer_id() < 0 {
            return;
        }
        let epoch = batch.producer_epoch();
        let new = || ProducerState { epoch, batches: VecDeque::with_capacity(BATCHES_REMEMBERED) };
        let state = self.producers.entry(batch.producer_id()).or_insert_with(new);
        if state.epoch != epoch {
            state.epoch = epoch;
            state.batches.clear();
        }
        if state.batches.len() == BATCHES_REMEMBERED {
            state.batches.pop_front();
        }
        let first_sequence = batch.base_sequence();
        let last_sequence = sequence_after(first_sequence, batch.last_offset_delta());
        state.batches.push_back(Seen { first_sequence, last_sequence, base_offset, max_timestamp });
    }

    /// Deletes the records before an offset, and the batches that end before it.
    pub fn delete_before(&mut self, offset: i64) -> bool {
        if offset > self.next_offset {
            return false;
        }
        self.start_offset = self.start_offset.max(offset);
        self.batches.retain(|batch| batch.last_offset >= offset);
        true
    }

    /// What a restarted broker remembers: of each producer the last batch alone.
    pub fn restart(&mut self) {
        for state in self.producers.values_mut() {
            let newest = state.batches.len().saturating_sub(1);
            state.batches.drain(..newest);
        }
    }

    /// What is left of a producer after `producer.id.expiration.ms`: nothing.
    pub fn expire_producers(&mut self) {
        self.producers.clear();
    }

    /// Something is known of a producer.
    pub fn knows_producers(&self) -> bool {
        !self.producers.is_empty()
    }

    /// Something is known of this one.
    pub fn knows_producer(&self, id: i64) -> bool {
        self.producers.contains_key(&id)
    }

    /// The batches, in order.
    pub fn batches(&self) -> &[StoredBatch] {
        &self.batches
    }

    /// The batches from the one that holds `offset` on.
    pub fn batches_from(&self, offset: i64) -> &[StoredBatch] {
        let first = self.batches.partition_point(|batch| batch.last_offset < offset);
        &self.batches[first..]
    }

    /// Offset and timestamp of the first record whose timestamp is `at_least` this.
    pub fn find_timestamp(&self, at_least: i64) -> Option<(i64, i64)> {
        let batch = self.batches.iter().find(|batch| batch.max_timestamp >= at_least)?;
        self.records_of(batch).find(|&(_, timestamp)| timestamp >= at_least)
    }

    /// Offset and timestamp of the first record with the largest timestamp.
    pub fn find_max_timestamp(&self) -> Option<(i64, i64)> {
        self.find_timestamp(self.batches.iter().map(|batch| batch.max_timestamp).max()?)
    }

    fn records_of<'a>(&self, stored: &'a StoredBatch) -> impl Iterator<Item = (i64, i64)> + use<'a> {
        BatchView::parse_unhashed(&stored.bytes).into_iter().flat_map(move |batch| {
            let by_broker = batch.attributes() & attributes::LOG_APPEND_TIME != 0;
            batch.records().flatten().map(move |record| {
                let own = batch.base_timestamp().wrapping_add(record.timestamp_delta);
                let timestamp = if by_broker { stored.max_timestamp } else { own };
                (batch.base_offset() + i64::from(record.offset_delta), timestamp)
            })
        })
    }
}

/// The bytes as the log keeps them: what the broker sets, and the CRC again if it covers any of that.
fn stored_bytes(
    batch: &BatchView<'_>,
    base_offset: i64,
    leader_epoch: i32,
    by_broker: bool,
    max_timestamp: i64,
) -> Vec<u8> {
    let mut bytes = batch.bytes().to_vec();
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    let mut bits = batch.attributes() & !attributes::LOG_APPEND_TIME;
    if by_broker {
        bits |= attributes::LOG_APPEND_TIME;
    }
    if bits != batch.attributes() || max_timestamp != batch.max_timestamp() {
        bytes[21..23].copy_from_slice(&bits.to_be_bytes());
        bytes[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}
