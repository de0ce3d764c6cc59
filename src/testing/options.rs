//! How an embedded broker is set up, and the faults that a test can make it commit.

use std::fmt;
use std::time::Duration;

use crate::wire::error_code::ErrorCode;

/// Where a record's timestamp comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// From the producer.
    #[default]
    CreateTime,
    /// From the broker, when it appends.
    LogAppendTime,
}

/// Which sequence number a partition accepts first from a producer that it knows nothing of, because it never heard of
/// it or forgot it. Kafka's versions differ in that. (The new epoch of a producer that is known begins with 0 in all.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FirstSequence {
    /// Any. Kafka 2.5 to 4.4 (KIP-360).
    #[default]
    Any,
    /// 0 while the partition never held a record, else OUT_OF_ORDER_SEQUENCE_NUMBER; any from its first record on, also
    /// when all of them are deleted. Kafka 4.5 (KAFKA-15591).
    ZeroWhenNew,
    /// 0, else UNKNOWN_PRODUCER_ID. Kafka 1.0 to 2.4, and what KAFKA-19880 proposes.
    Zero,
}

/// A topic's settings.
#[derive(Clone, Debug)]
pub struct TopicOptions {
    /// How many partitions; at least one. Default 3.
    pub partitions: i32,
    /// The largest batch, its header included, in bytes (`max.message.bytes`). Default 1,048,588.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// How far in the past a record's timestamp may lie (`message.timestamp.before.max.ms`), milliseconds. Default
    /// `i64::MAX`: any time.
    pub timestamp_before_max_ms: i64,
    /// How far in the future (`message.timestamp.after.max.ms`), milliseconds. Default 3,600,000.
    pub timestamp_after_max_ms: i64,
    /// Whether records must have a key (`cleanup.policy=compact`). Nothing is ever compacted.
    pub compacted: bool,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            partitions: 3,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
        }
    }
}

/// A broker's settings.
pub struct BrokerOptions {
    /// How many nodes listen, each on a port of its own; partition p is led by node p modulo this. Node ids count from
    /// 0. Default 1.
    pub brokers: usize,
    /// The first node's port on 127.0.0.1, the others follow it; 0 (default) lets the system choose.
    pub port: u16,
    /// The cluster's id. Default: one of its own for each broker that is started.
    pub cluster_id: Option<String>,
    /// Whether a topic is made when a client asks for it. Default true. As with Kafka, the first Metadata answer still
    /// says UNKNOWN_TOPIC_OR_PARTITION.
    pub auto_create: bool,
    /// Settings of topics made so, and those that `create_topic` does not name.
    pub topic: TopicOptions,
    /// How long the broker takes for each Produce request, as replication would. Default zero.
    pub ack_delay: Duration,
    /// Keep offsets and counts, but no records (for benchmarks): the log then begins where it ends.
    pub discard: bool,
    /// Whether records may have offset deltas other than 0, 1, 2…, as with Kafka, which stores them as they are. Default
    /// false: a producer that sends such a thing has a bug, and here it shows.
    pub any_offset_deltas: bool,
    /// Which sequence number a partition accepts first from a producer that it does not know. Default: any.
    pub first_sequence: FirstSequence,
    /// The highest version of Produce that is offered. Default 13.
    pub produce_max_version: i16,
    /// APIs, by number, that the broker neither offers nor answers.
    pub denied_apis: Vec<i16>,
    /// The largest request, without its size field, in bytes (`socket.request.max.bytes`): the connection of a larger one is
    /// closed as soon as its size is read. Default 104,857,600.
    pub socket_request_max_bytes: usize,
    /// Asked before a batch is looked at: what should go wrong?
    pub on_produce: Option<OnProduce>,
}

/// Decides on a fault for one batch. It runs with the broker locked: it must not call the broker.
pub type OnProduce = Box<dyn FnMut(&ProduceContext<'_>) -> Fault + Send>;

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            port: 0,
            cluster_id: None,
            auto_create: true,
            topic: TopicOptions::default(),
            ack_delay: Duration::ZERO,
            discard: false,
            any_offset_deltas: false,
            first_sequence: FirstSequence::Any,
            produce_max_version: 13,
            denied_apis: Vec::new(),
            socket_request_max_bytes: 104_857_600,
            on_produce: None,
        }
    }
}

impl BrokerOptions {
    /// Sets the fault hook.
    pub fn on_produce(mut self, hook: impl FnMut(&ProduceContext<'_>) -> Fault + Send + 'static) -> Self {
        self.on_produce = Some(Box::new(hook));
        self
    }
}

impl fmt::Debug for BrokerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerOptions")
            .field("brokers", &self.brokers)
            .field("port", &self.port)
            .field("cluster_id", &self.cluster_id)
            .field("auto_create", &self.auto_create)
            .field("topic", &self.topic)
            .field("ack_delay", &self.ack_delay)
            .field("discard", &self.discard)
            .field("any_offset_deltas", &self.any_offset_deltas)
            .field("first_sequence", &self.first_sequence)
            .field("produce_max_version", &self.produce_max_version)
            .field("denied_apis", &self.denied_apis)
            .field("socket_request_max_bytes", &self.socket_request_max_bytes)
            .field("on_produce", &self.on_produce.is_some())
            .finish()
    }
}

/// A batch that has arrived, as the fault hook sees it. The numbers are those of its header, unchecked; all -1 when
/// there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceContext<'a> {
    /// How many batches the hook was asked about before this one.
    pub nth: u64,
    /// The node that was asked.
    pub node: i32,
    /// Counts the connections; the same for all requests of one.
    pub connection: u64,
    /// Version of the Produce request.
    pub version: i16,
    /// The request's acks.
    pub acks: i16,
    /// The topic's name; empty for an unknown topic id.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The producer id, -1 without idempotence.
    pub producer_id: i64,
    /// The producer epoch, -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence number of the first record, -1 without idempotence.
    pub base_sequence: i32,
    /// How many records.
    pub count: i32,
}

/// What goes wrong with a batch. Where a request's batches disagree, what closes or silences the connection wins over
/// errors, and *before* over *after*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This batch is answered with the error and not stored.
    Error(ErrorCode),
    /// This batch is answered with the error and not stored, and these places in it are named as those of the records at
    /// fault, whether there are such records or not.
    RecordErrors(ErrorCode, &'static [i32]),
    /// This batch is answered with the error and not stored, and this leader is named, with its address if there is one and
    /// it is wanted.
    NamesLeader {
        /// NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH, if it is to mean anything.
        error: ErrorCode,
        /// Node id.
        leader: i32,
        /// Leader epoch.
        epoch: i32,
        /// Whether its address goes along.
        address: bool,
    },
    /// This batch is stored, then answered with the error and its offset (as REQUEST_TIMED_OUT is).
    StoredThenError(ErrorCode),
    /// The connection is closed; nothing of the request is stored.
    CloseBefore,
    /// The whole request is stored, then the connection is closed without an answer.
    CloseAfter,
    /// Nothing is stored and no answer comes; the connection stays open and nothing more is read from it.
    HangBefore,
    /// The whole request is stored and no answer comes; the connection stays open and nothing more is read from it.
    HangAfter,
    /// The answer comes so much later.
    Delay(Duration),
    /// The answer carries this throttle time, and nothing more is read from the connection for so long.
    Throttle(Duration),
}
