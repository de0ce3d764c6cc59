//! Metadata (3), versions 1 to 13: the brokers, and for each topic asked for its partitions and their leaders.

use std::ops::RangeInclusive;

use super::codec::{Reader, WireError, Writer};
use super::error_code::ErrorCode;

/// The versions we send.
pub const VERSIONS: RangeInclusive<i16> = 1..=13;

/// A broker's answer.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetadataResponse {
    /// Milliseconds for which the broker does not read this connection.
    pub throttle_ms: i32,
    /// The live brokers. None at all means that the answer is of no use.
    pub brokers: Vec<Broker>,
    /// The cluster's id; `None` before version 2 or where the broker does not know it.
    pub cluster_id: Option<String>,
    /// Node id of the controller, -1 if unknown.
    pub controller_id: i32,
    /// The topics asked for, in the broker's order.
    pub topics: Vec<Topic>,
    /// Error of the whole request, from version 13.
    pub error: ErrorCode,
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its id, as partitions name their leader.
    pub node_id: i32,
    /// Host name or address to connect to.
    pub host: String,
    /// TCP port.
    pub port: i32,
    /// The rack it stands in.
    pub rack: Option<String>,
}

/// What a broker knows of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Error of this topic; it then has no partitions.
    pub error: ErrorCode,
    /// Its name; `None` where the broker does not say (version 12 and later, by id).
    pub name: Option<String>,
    /// Its id, all zero before version 10 (KIP-516).
    pub id: [u8; 16],
    /// Its partitions, in no particular order.
    pub partitions: Vec<Partition>,
}

/// What a broker knows of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// LEADER_NOT_AVAILABLE when it has no leader; other errors do not keep it from being written to.
    pub error: ErrorCode,
    /// The partition's number.
    pub index: i32,
    /// Node id of the leader, -1 if there is none.
    pub leader_id: i32,
    /// Grows with every change of leader; -1 before version 7.
    pub leader_epoch: i32,
    /// How many replicas it has.
    pub replicas: usize,
    /// How many of them are in sync.
    pub in_sync: usize,
}

/// Appends the body of a request for `topics`: `None` asks for all, an empty list for the brokers alone. With
/// `auto_create` topics that do not exist are created where the broker allows it (always so before version 4).
pub fn encode_request(out: &mut Vec<u8>, version: i16, topics: Option<&[&str]>, auto_create: bool) {
    let mut w = Writer::new(out, version >= 9);
    match topics {
        None => w.null_array(),
        Some(names) => {
            w.array(names.len());
            for name in names {
                if version >= 10 {
                    w.uuid(&[0; 16]);
                }
                w.string(name);
                w.no_tags();
            }
        }
    }
    if version >= 4 {
        w.bool(auto_create); // allow_auto_topic_creation
    }
    if (8..=10).contains(&version) {
        w.bool(false); // include_cluster_authorized_operations
    }
    if version >= 8 {
        w.bool(false); // include_topic_authorized_operations
    }
    w.no_tags();
}

/// Reads the body of the response to a request of `version`.
pub fn decode_response(body: &[u8], version: i16) -> Result<MetadataResponse, WireError> {
    let r = &mut Reader::new(body, version >= 9);
    let mut response = MetadataResponse { controller_id: -1, ..Default::default() };
    if version >= 3 {
        response.throttle_ms = r.i32("throttle_time_ms")?;
    }
    for _ in 0..r.array("brokers")? {
        response.brokers.push(decode_broker(r)?);
    }
    if version >= 2 {
        response.cluster_id = r.nullable_string("cluster_id")?.map(str::to_owned);
    }
    response.controller_id = r.i32("controller_id")?;
    for _ in 0..r.array("topics")? {
        response.topics.push(decode_topic(r, version)?);
    }
    if (8..=10).contains(&version) {
        r.i32("cluster_authorized_operations")?;
    }
    if version >= 13 {
        response.error = ErrorCode(r.i16("error_code")?);
    }
    r.skip_tagged()?;
    Ok(response)
}

fn decode_broker(r: &mut Reader<'_>) -> Result<Broker, WireError> {
    let broker = Broker {
        node_id: r.i32("node_id")?,
        host: r.string("host")?.to_owned(),
        port: r.i32("port")?,
        rack: r.nullable_string("rack")?.map(str::to_owned),
    };
    r.skip_tagged()?;
    Ok(broker)
}

fn decode_topic(r: &mut Reader<'_>, version: i16) -> Result<Topic, WireError> {
    let error = ErrorCode(r.i16("topic error_code")?);
    let name = match r.nullable_string("topic name")? {
        None if version < 12 => return Err(r.error("topic name")),
        name => name.map(str::to_owned),
    };
    let id = if version >= 10 { r.uuid("topic_id")? } else { [0; 16] };
    r.bool("is_internal")?;
    let mut partitions = Vec::new();
    for _ in 0..r.array("partitions")? {
        partitions.push(decode_partition(r, version)?);
    }
    if version >= 8 {
        r.i32("topic_authorized_operations")?;
    }
    r.skip_tagged()?;
    Ok(Topic { error, name, id, partitions })
}

fn decode_partition(r: &mut Reader<'_>, version: i16) -> Result<Partition, WireError> {
    let error = ErrorCode(r.i16("partition error_code")?);
    let index = r.i32("partition_index")?;
    let leader_id = r.i32("leader_id")?;
    let leader_epoch = if version >= 7 { r.i32("leader_epoch")? } else { -1 };
    let replicas = r.skip_i32s("replica_nodes")?;
    let in_sync = r.skip_i32s("isr_nodes")?;
    if version >= 5 {
        r.skip_i32s("offline_replicas")?;
    }
    r.skip_tagged()?;
    Ok(Partition { error, index, leader_id, leader_epoch, replicas, in_sync })
}
