//! Metadata (3), versions 0 to 13, as a broker sees it.

use crate::wire::codec::{Reader, WireError, Writer};
use crate::wire::metadata::{MetadataResponse, Topic};

/// One topic that a client asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicQuery<'a> {
    /// All zero: by name.
    pub id: [u8; 16],
    /// `None`: by id.
    pub name: Option<&'a str>,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataRequest<'a> {
    /// `None` for all topics.
    pub topics: Option<Vec<TopicQuery<'a>>>,
    /// Whether topics that do not exist may be created.
    pub auto_create: bool,
}

/// Reads the body of a request.
pub fn decode_request(body: &[u8], version: i16) -> Result<MetadataRequest<'_>, WireError> {
    let mut r = Reader::new(body, version >= 9);
    let mut topics = None;
    if let Some(count) = r.nullable_array("topics")? {
        let mut queries = Vec::new();
        for _ in 0..count {
            let id = if version >= 10 { r.uuid("topic_id")? } else { [0; 16] };
            queries.push(TopicQuery { id, name: r.nullable_string("topic name")? });
            r.skip_tagged()?;
        }
        // In version 0 an empty list asks for all.
        topics = (version > 0 || count > 0).then_some(queries);
    }
    let auto_create = version < 4 || r.bool("allow_auto_topic_creation")?;
    if (8..=10).contains(&version) {
        r.bool("include_cluster_authorized_operations")?;
    }
    if version >= 8 {
        r.bool("include_topic_authorized_operations")?;
    }
    r.skip_tagged()?;
    Ok(MetadataRequest { topics, auto_create })
}

/// Appends the body of a response. A partition's replicas are its leader and, beyond one, the ids that follow.
pub fn encode_response(out: &mut Vec<u8>, version: i16, response: &MetadataResponse) {
    let w = &mut Writer::new(out, version >= 9);
    if version >= 3 {
        w.i32(response.throttle_ms);
    }
    w.array(response.brokers.len());
    for broker in &response.brokers {
        w.i32(broker.node_id);
        w.string(&broker.host);
        w.i32(broker.port);
        if version >= 1 {
            w.nullable_string(broker.rack.as_deref());
        }
        w.no_tags();
    }
    if version >= 2 {
        w.nullable_string(response.cluster_id.as_deref());
    }
    if version >= 1 {
        w.i32(response.controller_id);
    }
    w.array(response.topics.len());
    for topic in &response.topics {
        encode_topic(w, version, topic);
    }
    if (8..=10).contains(&version) {
        w.i32(i32::MIN); // cluster_authorized_operations: not asked for
    }
    if version >= 13 {
        w.i16(response.error.0);
    }
    w.no_tags();
}

fn encode_topic(w: &mut Writer<'_>, version: i16, topic: &Topic) {
    w.i16(topic.error.0);
    if version >= 12 {
        w.nullable_string(topic.name.as_deref());
    } else {
        w.string(topic.name.as_deref().unwrap_or(""));
    }
    if version >= 10 {
        w.uuid(&topic.id);
    }
    if version >= 1 {
        w.bool(false); // is_internal
    }
    w.array(topic.partitions.len());
    for partition in &topic.partitions {
        w.i16(partition.error.0);
        w.i32(partition.index);
        w.i32(partition.leader_id);
        if version >= 7 {
            w.i32(partition.leader_epoch);
        }
        for count in [partition.replicas, partition.in_sync] {
            w.array(count);
            (0..count).for_each(|i| w.i32(partition.leader_id.wrapping_add(i as i32)));
        }
        if version >= 5 {
            w.array(0); // offline_replicas
        }
        w.no_tags();
    }
    if version >= 8 {
        w.i32(i32::MIN); // topic_authorized_operations: not asked for
    }
    w.no_tags();
}
