//! Fetch (1), versions 4 to 12, as a broker sees it: enough for a consumer to read back. Sessions are not kept: every
//! request stands for itself.

use crate::wire::codec::{Reader, WireError, Writer};
use crate::wire::error_code::ErrorCode;

/// The lowest version that is understood.
pub const VERSION_MIN: i16 = 4;
/// The highest version that is understood: the last that names topics.
pub const VERSION_MAX: i16 = 12;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest<'a> {
    /// For how long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// How much is worth an answer.
    pub min_bytes: i32,
    /// How much the answer may hold; one batch more than that if it is the first.
    pub max_bytes: i32,
    /// By topic.
    pub topics: Vec<(&'a str, Vec<FetchPartition>)>,
}

/// Where to read in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition's number.
    pub index: i32,
    /// The leader epoch that the client knows, -1 if none.
    pub current_leader_epoch: i32,
    /// Offset of the first record wanted.
    pub fetch_offset: i64,
    /// How much of this partition.
    pub max_bytes: i32,
}

/// What was read of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    /// The partition's number.
    pub index: i32,
    /// NONE, or why there are no records.
    pub error: ErrorCode,
    /// The offset after the last one that may be read, -1 with an error.
    pub high_watermark: i64,
    /// The log's first offset, -1 with an error.
    pub log_start_offset: i64,
    /// Whole batches.
    pub records: Vec<u8>,
}

/// Reads the body of a request.
pub fn decode_request(body: &[u8], version: i16) -> Result<FetchRequest<'_>, WireError> {
    let r = &mut Reader::new(body, version >= 12);
    r.i32("replica_id")?;
    let mut request = FetchRequest {
        max_wait_ms: r.i32("max_wait_ms")?,
        min_bytes: r.i32("min_bytes")?,
        max_bytes: r.i32("max_bytes")?,
        topics: Vec::new(),
    };
    r.i8("isolation_level")?;
    if version >= 7 {
        r.i32("session_id")?;
        r.i32("session_epoch")?;
    }
    for _ in 0..r.array("topics")? {
        let topic = r.string("topic")?;
        let mut partitions = Vec::new();
        for _ in 0..r.array("partitions")? {
            partitions.push(decode_partition(r, version)?);
        }
        r.skip_tagged()?;
        request.topics.push((topic, partitions));
    }
    if version >= 7 {
        for _ in 0..r.array("forgotten_topics_data")? {
            r.string("topic")?;
            r.skip_i32s("partitions")?;
            r.skip_tagged()?;
        }
    }
    if version >= 11 {
        r.string("rack_id")?;
    }
    r.skip_tagged()?;
    Ok(request)
}

fn decode_partition(r: &mut Reader<'_>, version: i16) -> Result<FetchPartition, WireError> {
    let index = r.i32("partition")?;
    let current_leader_epoch = if version >= 9 { r.i32("current_leader_epoch")? } else { -1 };
    let fetch_offset = r.i64("fetch_offset")?;
    if version >= 12 {
        r.i32("last_fetched_epoch")?;
    }
    if version >= 5 {
        r.i64("log_start_offset")?;
    }
    let max_bytes = r.i32("partition_max_bytes")?;
    r.skip_tagged()?;
    Ok(FetchPartition { index, current_leader_epoch, fetch_offset, max_bytes })
}

/// Appends the body of a response.
pub fn encode_response(out: &mut Vec<u8>, version: i16, topics: &[(&str, Vec<FetchedPartition>)]) {
    let mut w = Writer::new(out, version >= 12);
    w.i32(0); // throttle_time_ms
    if version >= 7 {
        w.i16(0); // error_code
        w.i32(0); // session_id: none
    }
    w.array(topics.len());
    for (topic, partitions) in topics {
        w.string(topic);
        w.array(partitions.len());
        for partition in partitions {
            w.i32(partition.index);
            w.i16(partition.error.0);
            w.i64(partition.high_watermark);
            w.i64(partition.high_watermark); // last_stable_offset: there are no transactions
            if version >= 5 {
                w.i64(partition.log_start_offset);
            }
            w.array(0); // aborted_transactions
            if version >= 11 {
                w.i32(-1); // preferred_read_replica
            }
            w.bytes_len(partition.records.len());
            w.raw(&partition.records);
            w.no_tags();
        }
        w.no_tags();
    }
    w.no_tags();
}
