//! Produce (0), versions 3 to 13, as a broker sees it.

use super::one_tag;
use crate::wire::codec::{Reader, WireError, Writer};
use crate::wire::produce::{PartitionAnswer, ProduceTail, TopicRef, VERSION_TOPIC_IDS};

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest<'a> {
    /// `None` outside transactions.
    pub transactional_id: Option<&'a str>,
    /// 0: no answer, 1: when the leader has it, -1: when all in-sync replicas have it.
    pub acks: i16,
    /// For how long the broker waits for replicas.
    pub timeout_ms: i32,
    /// Batches by topic.
    pub topics: Vec<(TopicRef<'a>, Vec<PartitionBatch<'a>>)>,
}

/// One partition's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionBatch<'a> {
    /// The partition's number.
    pub index: i32,
    /// One batch, if the client does it right.
    pub records: Option<&'a [u8]>,
}

/// Reads the body of a request.
pub fn decode_request(body: &[u8], version: i16) -> Result<ProduceRequest<'_>, WireError> {
    let mut r = Reader::new(body, version >= 9);
    let mut request = ProduceRequest {
        transactional_id: r.nullable_string("transactional_id")?,
        acks: r.i16("acks")?,
        timeout_ms: r.i32("timeout_ms")?,
        topics: Vec::new(),
    };
    for _ in 0..r.array("topic_data")? {
        let topic = if version >= VERSION_TOPIC_IDS {
            TopicRef::Id(r.uuid("topic_id")?)
        } else {
            TopicRef::Name(r.string("topic name")?)
        };
        let mut partitions = Vec::new();
        for _ in 0..r.array("partition_data")? {
            partitions.push(PartitionBatch { index: r.i32("index")?, records: r.nullable_bytes("records")? });
            r.skip_tagged()?;
        }
        r.skip_tagged()?;
        request.topics.push((topic, partitions));
    }
    r.skip_tagged()?;
    Ok(request)
}

/// Appends the body of a response.
pub fn encode_response(
    out: &mut Vec<u8>,
    version: i16,
    topics: &[(TopicRef<'_>, Vec<PartitionAnswer<'_>>)],
    tail: &ProduceTail,
) {
    let w = &mut Writer::new(out, version >= 9);
    w.array(topics.len());
    for (topic, partitions) in topics {
        match topic {
            TopicRef::Id(id) => w.uuid(id),
            TopicRef::Name(name) => w.string(name),
        }
        w.array(partitions.len());
        for partition in partitions {
            encode_partition(w, version, partition);
        }
        w.no_tags();
    }
    w.i32(tail.throttle_ms);
    if version < 10 || tail.node_endpoints.is_empty() {
        w.no_tags();
        return;
    }
    one_tag(w, 0, |w| {
        w.array(tail.node_endpoints.len());
        for endpoint in &tail.node_endpoints {
            w.i32(endpoint.node_id);
            w.string(&endpoint.host);
            w.i32(endpoint.port);
            w.nullable_string(endpoint.rack.as_deref());
            w.no_tags();
        }
    });
}

fn encode_partition(w: &mut Writer<'_>, version: i16, answer: &PartitionAnswer<'_>) {
    w.i32(answer.index);
    w.i16(answer.error.0);
    w.i64(answer.base_offset);
    w.i64(answer.log_append_time);
    if version >= 5 {
        w.i64(answer.log_start_offset);
    }
    if version >= 8 {
        w.array(answer.record_errors.len());
        for (index, message) in &answer.record_errors {
            w.i32(*index);
            w.nullable_string(message.as_deref());
            w.no_tags();
        }
        w.nullable_string(answer.error_message);
    }
    match answer.current_leader {
        Some((id, epoch)) if version >= 10 => one_tag(w, 0, |w| {
            w.i32(id);
            w.i32(epoch);
            w.no_tags();
        }),
        _ => w.no_tags(),
    }
}
