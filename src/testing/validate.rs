//! What a broker checks in the bytes of one partition of a Produce request, and in which order.

use super::options::{TimestampType, TopicOptions};
use crate::wire::batch_view::{BatchView, attributes};
use crate::wire::error_code::ErrorCode;
use crate::wire::record_batch::{LEN, LENGTH_FROM};

/// How far in the future a record may lie (`message.timestamp.after.max.ms`), milliseconds.
const FUTURE_MAX_MS: i64 = 3_600_000;
/// The largest batch that fits a segment (`log.segment.bytes`).
const SEGMENT_BYTES: usize = 1 << 30;

/// Why a batch is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The partition's error.
    pub error: ErrorCode,
    /// The records at fault, where it is single records.
    pub record_errors: Vec<(i32, Option<String>)>,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self { error, record_errors: Vec::new() }
    }
}

/// A batch that may be stored.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// The batch.
    pub batch: BatchView<'a>,
    /// The largest timestamp among its records.
    pub max_timestamp: i64,
}

/// One step of Kafka's walk over the batches in some bytes: the next batch's magic and length, nothing when too few
/// bytes are left for one.
fn next_batch(bytes: &[u8]) -> Result<Option<(i8, usize)>, ErrorCode> {
    let Some(head) = bytes.first_chunk::<17>() else { return Ok(None) };
    let length = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let magic = head[16] as i8;
    // 14 bytes is the smallest body of any format that ever was.
    if length < 14 || !(0..=2).contains(&magic) {
        return Err(ErrorCode::CORRUPT_MESSAGE);
    }
    let whole = length as usize + LENGTH_FROM;
    Ok((whole <= bytes.len()).then_some((magic, whole)))
}

/// What is checked before the partition is looked up: exactly one batch, of a format and codec that the version allows.
pub fn check_request(records: &[u8], version: i16, transactional: bool) -> Result<(), ErrorCode> {
    let Some((magic, whole)) = next_batch(records)? else { return Err(ErrorCode::INVALID_RECORD) };
    if magic != 2 {
        return Err(ErrorCode::INVALID_RECORD);
    }
    if next_batch(&records[whole..])?.is_some() {
        return Err(ErrorCode::INVALID_RECORD);
    }
    let attributes = records.get(21..23).map_or(0, |bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
    if attributes & attributes::CODEC == 4 && version < 7 {
        return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
    }
    if attributes & attributes::TRANSACTIONAL != 0 && !transactional {
        return Err(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    Ok(())
}

/// What is checked by the log: everything in the batch but its sequence numbers. `now` is Unix milliseconds.
pub fn check_batch<'a>(records: &'a [u8], topic: &TopicOptions, now: i64) -> Result<Checked<'a>, Refusal> {
    let base_offset = records.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes));
    if base_offset != Some(0) {
        return Err(ErrorCode::INVALID_RECORD.into());
    }
    let Ok(Some((_, whole))) = next_batch(records) else { return Err(ErrorCode::CORRUPT_MESSAGE.into()) };
    if whole > topic.max_message_bytes {
        return Err(ErrorCode::MESSAGE_TOO_LARGE.into());
    }
    if whole > SEGMENT_BYTES {
        return Err(ErrorCode::RECORD_LIST_TOO_LARGE.into());
    }
    if whole < LEN {
        return Err(ErrorCode::CORRUPT_MESSAGE.into());
    }
    let batch = BatchView::parse(records).map_err(|_| Refusal::from(ErrorCode::CORRUPT_MESSAGE))?;
    check_header(&batch, topic)?;
    let max_timestamp = check_records(&batch, topic, now)?;
    Ok(Checked { batch, max_timestamp })
}

fn check_header(batch: &BatchView<'_>, topic: &TopicOptions) -> Result<(), ErrorCode> {
    let bits = batch.attributes();
    match bits & attributes::CODEC {
        0 => {}
        1..=4 => return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE),
        _ => return Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
    let count_fits = batch.count() > 0 && batch.last_offset_delta() == batch.count() - 1;
    let sequence_fits = batch.producer_id() < 0 || batch.base_sequence() >= 0;
    if bits & attributes::CONTROL != 0 || !count_fits || !sequence_fits {
        return Err(ErrorCode::INVALID_RECORD);
    }
    if bits & attributes::TRANSACTIONAL != 0 {
        return Err(ErrorCode::INVALID_TXN_STATE);
    }
    if bits & attributes::LOG_APPEND_TIME != 0 && topic.timestamp_type == TimestampType::LogAppendTime {
        return Err(ErrorCode::INVALID_TIMESTAMP);
    }
    Ok(())
}

/// Walks over the records and returns their largest timestamp. Every record at fault is listed, and a timestamp out of
/// range names the error even where other records break other rules.
fn check_records(batch: &BatchView<'_>, topic: &TopicOptions, now: i64) -> Result<i64, Refusal> {
    let mut refusal: Option<Refusal> = None;
    let mut max_timestamp = -1;
    for (i, record) in (0..).zip(batch.records()) {
        let record = record.map_err(|_| Refusal::from(ErrorCode::INVALID_RECORD))?;
        let timestamp = batch.base_timestamp().wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        let early_enough = topic.timestamp_type == TimestampType::LogAppendTime || timestamp <= now + FUTURE_MAX_MS;
        let (error, message) = if !early_enough {
            (ErrorCode::INVALID_TIMESTAMP, "Timestamp is more than an hour in the future.")
        } else if topic.compacted && record.key.is_none() {
            (ErrorCode::INVALID_RECORD, "Compacted topic cannot accept message without key.")
        } else if record.offset_delta != i {
            (ErrorCode::INVALID_RECORD, "Offset deltas must be 0, 1, 2 and so on.")
        } else {
            continue;
        };
        let refusal = refusal.get_or_insert(error.into());
        if error == ErrorCode::INVALID_TIMESTAMP {
            refusal.error = error;
        }
        refusal.record_errors.push((i, Some(message.to_owned())));
    }
    refusal.map_or(Ok(max_timestamp), Err)
}
