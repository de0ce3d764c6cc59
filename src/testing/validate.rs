//! What a broker checks in the bytes of one partition of a Produce request, and in which order.

use super::options::{TimestampType, TopicOptions};
use crate::wire::batch_view::{BatchView, attributes};
use crate::wire::codec::WireError;
use crate::wire::error_code::ErrorCode;
use crate::wire::record_batch::{LEN, LENGTH_FROM};

/// The largest batch that fits a segment (`log.segment.bytes`).
const SEGMENT_BYTES: usize = 1 << 30;

/// Why a batch is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The partition's error.
    pub error: ErrorCode,
    /// What is said of it; mostly nothing.
    pub message: Option<&'static str>,
    /// The records at fault, where it is single records.
    pub record_errors: Vec<(i32, Option<String>)>,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self { error, message: None, record_errors: Vec::new() }
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
    let Some(head) = bytes.first_chunk::<LENGTH_FROM>() else { return Ok(None) };
    let length = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    // 14 bytes is the smallest body of any format that ever was.
    if length < 14 {
        return Err(ErrorCode::CORRUPT_MESSAGE);
    }
    let Some(&magic) = bytes.get(16) else { return Ok(None) };
    if magic > 2 {
        return Err(ErrorCode::CORRUPT_MESSAGE);
    }
    // Java's sum overflows, and nobody expects what then happens.
    let whole = length.checked_add(LENGTH_FROM as i32).ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)? as usize;
    Ok((whole <= bytes.len()).then_some((magic as i8, whole)))
}

/// What is looked at in every partition's bytes before anything else; a refusal is for the whole request.
pub fn check_for_request(records: &[u8], transactional: bool) -> Result<(), Refusal> {
    let first = next_batch(records).map_err(|error| {
        let message = (error == ErrorCode::CORRUPT_MESSAGE).then_some("The records are not of a known format");
        Refusal { message, ..error.into() }
    })?;
    let is_transactional = matches!(first, Some((2, _))) && attributes_of(records) & attributes::TRANSACTIONAL != 0;
    if is_transactional && !transactional {
        return Err(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED.into());
    }
    Ok(())
}

/// What is checked once the partition is known to exist: exactly one batch, of a format and codec that the version
/// allows.
pub fn check_for_partition(records: &[u8], version: i16) -> Result<(), ErrorCode> {
    let Some((2, whole)) = next_batch(records)? else { return Err(ErrorCode::INVALID_RECORD) };
    if next_batch(&records[whole..])?.is_some() {
        return Err(ErrorCode::INVALID_RECORD);
    }
    if attributes_of(records) & attributes::CODEC == 4 && version < 7 {
        return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
    }
    Ok(())
}

fn attributes_of(batch: &[u8]) -> i16 {
    batch.get(21..23).map_or(0, |bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
}

/// What is checked by the log: everything in the batch but its sequence numbers. `now` is Unix milliseconds.
pub fn check_batch<'a>(
    records: &'a [u8],
    topic: &TopicOptions,
    any_offset_deltas: bool,
    now: i64,
) -> Result<Checked<'a>, Refusal> {
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
    check_header(&batch)?;
    let max_timestamp = check_records(&batch, topic, any_offset_deltas, now)?;
    Ok(Checked { batch, max_timestamp })
}

fn check_header(batch: &BatchView<'_>) -> Result<(), ErrorCode> {
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
    Ok(())
}

/// Walks over the records and returns their largest timestamp. Every record at fault is listed, and a timestamp out of
/// range names the error even where records before it break other rules.
fn check_records(
    batch: &BatchView<'_>,
    topic: &TopicOptions,
    any_offset_deltas: bool,
    now: i64,
) -> Result<i64, Refusal> {
    let mut refusal: Option<Refusal> = None;
    let mut max_timestamp = -1;
    let by_broker = topic.timestamp_type == TimestampType::LogAppendTime;
    let says_by_broker = batch.attributes() & attributes::LOG_APPEND_TIME != 0;
    let earliest = now.saturating_sub(topic.timestamp_before_max_ms);
    let latest = now.saturating_add(topic.timestamp_after_max_ms);
    for (i, record) in (0..).zip(batch.records()) {
        let record = record.map_err(|error| Refusal::from(unreadable(batch, error)))?;
        let timestamp = batch.base_timestamp().wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        let (error, message) = if topic.compacted && record.key.is_none() {
            (ErrorCode::INVALID_RECORD, "Compacted topic cannot accept message without key.")
        } else if by_broker && says_by_broker {
            (ErrorCode::INVALID_TIMESTAMP, "The broker sets the time, not the producer.")
        } else if !by_broker && timestamp != -1 && !(earliest..=latest).contains(&timestamp) {
            (ErrorCode::INVALID_TIMESTAMP, "Timestamp is out of the range that the topic allows.")
        } else if record.offset_delta != i && !any_offset_deltas {
            (ErrorCode::INVALID_RECORD, "Offset deltas must be 0, 1, 2 and so on.")
        } else {
            continue;
        };
        let refusal = refusal.get_or_insert(error.into());
        if error == ErrorCode::INVALID_TIMESTAMP {
            refusal.error = error;
        }
        refusal.message = Some("One or more records have been rejected");
        refusal.record_errors.push((i, Some(message.to_owned())));
    }
    refusal.map_or(Ok(max_timestamp), Err)
}

/// INVALID_RECORD, but for a record's length of more than five bytes, for which Kafka has no words.
fn unreadable(batch: &BatchView<'_>, error: WireError) -> ErrorCode {
    let varint = batch.bytes().get(error.at..error.at + 5).unwrap_or_default();
    let endless = !varint.is_empty() && varint.iter().all(|byte| byte & 0x80 != 0);
    if error.what == "record length" && endless {
        return ErrorCode::UNKNOWN_SERVER_ERROR;
    }
    ErrorCode::INVALID_RECORD
}
