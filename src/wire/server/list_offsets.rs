//! ListOffsets (2), versions 1 to 7, as a broker sees it.

use crate::wire::codec::{Reader, WireError, Writer};
use crate::wire::error_code::ErrorCode;

/// The lowest version that is understood.
pub const VERSION_MIN: i16 = 1;
/// The highest version that is understood.
pub const VERSION_MAX: i16 = 7;
/// The timestamp that asks for the end of the log.
pub const LATEST: i64 = -1;
/// The timestamp that asks for the start of the log.
pub const EARLIEST: i64 = -2;
/// The timestamp that asks for the record with the largest timestamp.
pub const MAX_TIMESTAMP: i64 = -3;

/// The question for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetQuery {
    /// The partition's number.
    pub index: i32,
    /// The leader epoch that the client knows, -1 if none.
    pub current_leader_epoch: i32,
    /// Unix milliseconds, or one of the constants here.
    pub timestamp: i64,
}

/// The answer for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// The partition's number.
    pub index: i32,
    /// NONE when the question could be answered, even with -1.
    pub error: ErrorCode,
    /// Timestamp of the record found, else -1.
    pub timestamp: i64,
    /// The offset found, else -1.
    pub offset: i64,
    /// The leader's epoch.
    pub leader_epoch: i32,
}

/// Questions by topic.
pub type ListOffsetsRequest<'a> = Vec<(&'a str, Vec<OffsetQuery>)>;

/// Reads the body of a request.
pub fn decode_request(body: &[u8], version: i16) -> Result<ListOffsetsRequest<'_>, WireError> {
    let mut r = Reader::new(body, version >= 6);
    r.i32("replica_id")?;
    if version >= 2 {
        r.i8("isolation_level")?;
    }
    let mut topics = Vec::new();
    for _ in 0..r.array("topics")? {
        let topic = r.string("name")?;
        let mut partitions = Vec::new();
        for _ in 0..r.array("partitions")? {
            partitions.push(OffsetQuery {
                index: r.i32("partition_index")?,
                current_leader_epoch: if version >= 4 { r.i32("current_leader_epoch")? } else { -1 },
                timestamp: r.i64("timestamp")?,
            });
            r.skip_tagged()?;
        }
        r.skip_tagged()?;
        topics.push((topic, partitions));
    }
    r.skip_tagged()?;
    Ok(topics)
}

/// Appends the body of a response.
pub fn encode_response(out: &mut Vec<u8>, version: i16, topics: &[(&str, Vec<OffsetAnswer>)]) {
    let mut w = Writer::new(out, version >= 6);
    if version >= 2 {
        w.i32(0); // throttle_time_ms
    }
    w.array(topics.len());
    for (topic, partitions) in topics {
        w.string(topic);
        w.array(partitions.len());
        for partition in partitions {
            w.i32(partition.index);
            w.i16(partition.error.0);
            w.i64(partition.timestamp);
            w.i64(partition.offset);
            if version >= 4 {
                w.i32(partition.leader_epoch);
            }
            w.no_tags();
        }
        w.no_tags();
    }
    w.no_tags();
}
