//! Produce (0), versions 3 to 13: the request is written around batches that lie elsewhere, the response is read in
//! place, one call per partition.

use std::ops::RangeInclusive;

use super::codec::{Reader, WireError, Writer};
use super::error_code::ErrorCode;
use super::header::{ApiKey, begin_request, end_request};

/// The versions we send; 3 is the first with this batch format.
pub const VERSIONS: RangeInclusive<i16> = 3..=13;
/// The first version that names topics by id (KIP-516).
pub const VERSION_TOPIC_IDS: i16 = 13;

/// Writes a request's head piece by piece into one buffer. Call `begin`, then for each topic `topic`, for each of its
/// partitions `partition` and `end_partition`, `end_topic`, and last `end` and `patch_size`.
///
/// Between `partition` and `end_partition` stands the batch. Its 61 header bytes are appended by the caller; where its
/// records are sent from elsewhere, the caller notes the buffer's length there and tells `patch_size` how many bytes.
#[derive(Clone, Copy, Debug)]
pub struct ProduceWriter {
    version: i16,
    start: usize,
}

impl ProduceWriter {
    /// Appends room for the size, the header and the body up to the topics, of which there will be `topics`.
    pub fn begin(
        out: &mut Vec<u8>,
        version: i16,
        correlation_id: i32,
        client_id: &str,
        acks: i16,
        timeout_ms: i32,
        topics: usize,
    ) -> Self {
        let start = begin_request(out, ApiKey::PRODUCE, version, correlation_id, client_id);
        let writer = Self { version, start };
        let mut w = writer.fields(out);
        w.nullable_string(None); // transactional_id
        w.i16(acks);
        w.i32(timeout_ms);
        w.array(topics);
        writer
    }

    fn fields<'a>(&self, out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer::new(out, self.version >= 9)
    }

    /// Begins a topic with so many partitions. The name is used up to version 12, the id from 13.
    pub fn topic(&self, out: &mut Vec<u8>, name: &str, id: &[u8; 16], partitions: usize) {
        let mut w = self.fields(out);
        if self.version >= VERSION_TOPIC_IDS {
            w.uuid(id);
        } else {
            w.string(name);
        }
        w.array(partitions);
    }

    /// Begins a partition whose one batch is `batch_len` bytes long, its 61 header bytes included.
    pub fn partition(&self, out: &mut Vec<u8>, index: i32, batch_len: usize) {
        let mut w = self.fields(out);
        w.i32(index);
        w.bytes_len(batch_len);
    }

    /// Ends a partition, after the batch.
    pub fn end_partition(&self, out: &mut Vec<u8>) {
        self.fields(out).no_tags();
    }

    /// Ends a topic.
    pub fn end_topic(&self, out: &mut Vec<u8>) {
        self.fields(out).no_tags();
    }

    /// Ends the request.
    pub fn end(&self, out: &mut Vec<u8>) {
        self.fields(out).no_tags();
    }

    /// Fills in the size: what was appended since `begin`, and `arena_bytes` that are sent from elsewhere.
    pub fn patch_size(&self, out: &mut [u8], arena_bytes: usize) {
        end_request(out, self.start, arena_bytes);
    }
}

/// How a response names a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    /// Up to version 12.
    Name(&'a str),
    /// From version 13.
    Id([u8; 16]),
}

/// What a broker says of one partition's batch. Topics and partitions come in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAnswer<'a> {
    /// The topic, as the request named it.
    pub topic: TopicRef<'a>,
    /// The partition's number.
    pub index: i32,
    /// NONE when the batch is stored.
    pub error: ErrorCode,
    /// Offset of the batch's first record. Set together with an error it says: appended, but not confirmed.
    pub base_offset: i64,
    /// The time the broker gave the records on a LogAppendTime topic, else -1 (but see a duplicate's answer).
    pub log_append_time: i64,
    /// First offset of the log; -1 where not known, and before version 5.
    pub log_start_offset: i64,
    /// The records that were refused, by their place in the batch, each perhaps with a message. From version 8.
    pub record_errors: Vec<(i32, Option<String>)>,
    /// The broker's own words, often missing. From version 8.
    pub error_message: Option<&'a str>,
    /// Node id and epoch of the new leader (KIP-951), from version 10. The epoch may be known where the leader is not:
    /// the id is then -1.
    pub current_leader: Option<(i32, i32)>,
}

/// What stands after the partitions.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ProduceTail {
    /// Milliseconds for which the broker does not read this connection.
    pub throttle_ms: i32,
    /// Addresses of the leaders that the partitions named, from version 10; a leader may be named without one.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A broker's address, as a leader hint gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker's id.
    pub node_id: i32,
    /// Host name or address to connect to.
    pub host: String,
    /// TCP port.
    pub port: i32,
    /// The rack it stands in.
    pub rack: Option<String>,
}

/// Reads the body of the response to a request of `version`, calling `visit` for each partition. Allocates only for
/// record errors and endpoints. After an error the calls already made stand for nothing certain.
pub fn decode_response(
    body: &[u8],
    version: i16,
    visit: &mut dyn FnMut(PartitionAnswer<'_>),
) -> Result<ProduceTail, WireError> {
    let r = &mut Reader::new(body, version >= 9);
    for _ in 0..r.array("responses")? {
        let topic = if version >= VERSION_TOPIC_IDS {
            TopicRef::Id(r.uuid("topic_id")?)
        } else {
            TopicRef::Name(r.string("topic name")?)
        };
        for _ in 0..r.array("partition_responses")? {
            visit(decode_partition(r, version, topic)?);
        }
        r.skip_tagged()?;
    }
    let mut tail = ProduceTail { throttle_ms: r.i32("throttle_time_ms")?, node_endpoints: Vec::new() };
    r.tagged(|tag, field| {
        if version >= 10 && tag == 0 {
            for _ in 0..field.array("node_endpoints")? {
                tail.node_endpoints.push(decode_endpoint(field)?);
            }
        }
        Ok(())
    })?;
    Ok(tail)
}

fn decode_partition<'a>(
    r: &mut Reader<'a>,
    version: i16,
    topic: TopicRef<'a>,
) -> Result<PartitionAnswer<'a>, WireError> {
    let mut answer = PartitionAnswer {
        topic,
        index: r.i32("index")?,
        error: ErrorCode(r.i16("error_code")?),
        base_offset: r.i64("base_offset")?,
        log_append_time: r.i64("log_append_time_ms")?,
        log_start_offset: if version >= 5 { r.i64("log_start_offset")? } else { -1 },
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    };
    if version >= 8 {
        for _ in 0..r.array("record_errors")? {
            let index = r.i32("batch_index")?;
            let message = r.nullable_string("batch_index_error_message")?.map(str::to_owned);
            r.skip_tagged()?;
            answer.record_errors.push((index, message));
        }
        answer.error_message = r.nullable_string("error_message")?;
    }
    r.tagged(|tag, field| {
        if version >= 10 && tag == 0 {
            answer.current_leader = Some((field.i32("leader_id")?, field.i32("leader_epoch")?));
            field.skip_tagged()?;
        }
        Ok(())
    })?;
    Ok(answer)
}

fn decode_endpoint(r: &mut Reader<'_>) -> Result<NodeEndpoint, WireError> {
    let endpoint = NodeEndpoint {
        node_id: r.i32("node_id")?,
        host: r.string("host")?.to_owned(),
        port: r.i32("port")?,
        rack: r.nullable_string("rack")?.map(str::to_owned),
    };
    r.skip_tagged()?;
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::super::record_batch::{LEN, tests as batch};
    use super::*;

    /// A request for topic-a/3 with the golden batch: its head, and where in it the records belong.
    fn golden_request(version: i16) -> (Vec<u8>, usize) {
        let records = batch::golden_records();
        let mut out = Vec::new();
        let writer = ProduceWriter::begin(&mut out, version, 1, "cli", -1, 30_000, 1);
        writer.topic(&mut out, "topic-a", &[7; 16], 1);
        writer.partition(&mut out, 3, LEN + records.len());
        let at = out.len();
        out.resize(at + LEN, 0);
        let crc = batch::GOLDEN_HEADER.crc([&records[..]].into_iter());
        let head: &mut [u8; LEN] = (&mut out[at..]).try_into().unwrap();
        batch::GOLDEN_HEADER.put(head, records.len() as u32, crc);
        let at = out.len();
        writer.end_partition(&mut out);
        writer.end_topic(&mut out);
        writer.end(&mut out);
        writer.patch_size(&mut out, records.len());
        (out, at)
    }

    #[test]
    fn a_version_9_request_has_the_bytes_that_another_client_gives_it() {
        let (head, at) = golden_request(9);
        let frame = [&head[..at], &batch::golden_records(), &head[at..]].concat();
        let before = "0000009000000009000000010003636c690000ffff000075300208746f7069632d6102000000036a";
        let expected = [batch::hex(before), batch::hex(batch::GOLDEN), batch::hex("000000")].concat();
        assert_eq!(frame, expected);
    }

    #[test]
    fn an_answer_in_version_3_has_no_more_than_offset_and_time() {
        let mut body = batch::hex("00000001 0001 74 00000001 00000002 0006 ffffffffffffffff ffffffffffffffff 00000009");
        let mut answers = Vec::new();
        let tail = decode_response(&body, 3, &mut |answer| answers.push((answer.index, answer.error))).unwrap();
        assert_eq!(answers, [(2, ErrorCode::NOT_LEADER_OR_FOLLOWER)]);
        assert_eq!(tail.throttle_ms, 9);
        body.pop();
        assert!(decode_response(&body, 3, &mut |_| {}).is_err());
    }
}
