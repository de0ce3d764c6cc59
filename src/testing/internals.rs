//! What the benchmarks drive by hand. No part of the API: it changes whenever they do.

use std::collections::VecDeque;
use std::time::Duration;

use super::{BrokerModel, BrokerOptions, Incoming, Reply, TopicOptions};
use crate::error::ConfigError;
use crate::partitioner::Sticky;
use crate::producer::{ProducerBuilder, Topic, by_hand};
use crate::wire::codec::WireError;
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::{self, PartitionAnswer, ProduceTail, TopicRef};
use crate::wire::server::produce::encode_response;

/// How many turns anything may take.
const TURNS: u32 = 10_000;

/// A producer and a broker without threads, sockets and clocks. Callers use the real [`Topic`]; the sender and the
/// callback thread do their work when they are told to, so that a clock or an instruction counter sees one part alone.
#[derive(Debug)]
pub struct ByHand {
    producer: by_hand::ByHand,
    model: BrokerModel,
    answers: VecDeque<(u64, Vec<u8>)>,
}

impl ByHand {
    /// A producer, and a broker whose topics have this many partitions; it checks all that it is sent and keeps none.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(builder: ProducerBuilder, partitions: i32) -> Result<Self, ConfigError> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9092));
        let topic = TopicOptions { partitions, ..TopicOptions::default() };
        let options = BrokerOptions { topic, discard: true, ..BrokerOptions::default() };
        // Nothing comes round by itself after minutes of its time: a measurement would find it in between.
        let rare = ["metadata.max.age.ms", "metadata.max.idle.ms", "connections.max.idle.ms"];
        let builder = rare.iter().fold(builder, |builder, key| builder.set(key, "2147483647"));
        let producer = by_hand::ByHand::new(builder.bootstrap_servers(&address.to_string()))?;
        Ok(Self { producer, model: BrokerModel::new(options, vec![address]), answers: VecDeque::new() })
    }

    /// A topic whose partitions are known, connected and have each delivered a record; `None` when that does not come
    /// about. Calls on it must not wait.
    pub fn topic(&mut self, name: &str) -> Option<Topic> {
        self.model.create_topic(name, self.model.options.topic.clone());
        let topic = self.producer.topic(name);
        let partitions = self.model.options.topic.partitions;
        let first = |partition| topic.try_send(crate::Record::new().with_partition(partition)).is_ok();
        let mut opened = 0;
        for _ in 0..TURNS {
            self.turn();
            while opened < partitions && first(opened) {
                opened += 1;
            }
            if opened == partitions && self.settle() {
                return Some(topic);
            }
        }
        None
    }

    /// What was accepted so far need not linger: it leaves with the next turns.
    pub fn flush(&self) {
        self.producer.flush();
    }

    /// The sender's turn: what is ready is sealed, drained, stamped, and packed into requests.
    pub fn pack(&mut self) {
        self.producer.pack();
    }

    /// The network's and the broker's turn: the answers to what was packed lie ready. How many records were stored.
    pub fn answer(&mut self) -> u64 {
        let before = self.stored();
        while let Some((connection, frame)) = self.producer.take_request() {
            let unix_ms = self.producer.unix_ms();
            let incoming = Incoming { node: 0, connection, unix_ms, may_wait: false, frame: &frame };
            let mut out = Vec::new();
            if let Reply::Answer { .. } = self.model.handle(&incoming, &mut out) {
                self.answers.push_back((connection, out));
            }
        }
        self.stored() - before
    }

    fn stored(&self) -> u64 {
        let partitions = self.model.topics.values().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.log.next_offset as u64).sum()
    }

    /// The sender reads the oldest answer; false when there is none.
    pub fn read_answer(&mut self) -> bool {
        let Some((connection, bytes)) = self.answers.pop_front() else { return false };
        self.producer.receive(connection, &bytes);
        true
    }

    /// Listeners and callbacks are run.
    pub fn call_back(&mut self) {
        self.producer.call_back();
    }

    /// Everything that was accepted is acknowledged and told, and its memory given back.
    pub fn is_idle(&self) -> bool {
        self.producer.is_idle() && self.answers.is_empty()
    }

    /// Everybody's turn, until nothing that was accepted is left; false when that does not come about.
    pub fn settle(&mut self) -> bool {
        // Also where nobody waits for a callback: finished flushes are reported that way, and would fill the outbox.
        self.call_back();
        for _ in 0..TURNS {
            if self.is_idle() {
                return true;
            }
            self.producer.flush();
            self.turn();
        }
        false
    }

    fn turn(&mut self) {
        self.producer.advance(Duration::from_millis(1));
        self.pack();
        self.answer();
        while self.read_answer() {}
        self.call_back();
    }
}

/// What covers a batch: CRC-32C.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The choices of a topic's partition for records without a key, one per call.
pub fn sticky(seed: u64, partitions: i32) -> impl FnMut() -> i32 {
    let sticky = Sticky::with_seed(seed);
    move || sticky.next(sticky.current(), partitions, |_| true)
}

/// The body of a good answer to Produce for so many partitions of one topic.
pub fn produce_answer(version: i16, partitions: i32) -> Vec<u8> {
    let topic = if version >= produce::VERSION_TOPIC_IDS { TopicRef::Id([7; 16]) } else { TopicRef::Name("orders") };
    let answer = |index| PartitionAnswer {
        topic,
        index,
        error: ErrorCode::NONE,
        base_offset: i64::from(index) << 20,
        log_append_time: -1,
        log_start_offset: 0,
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    };
    let mut out = Vec::new();
    encode_response(&mut out, version, &[(topic, (0..partitions).map(answer).collect())], &ProduceTail::default());
    out
}

/// Reads such a body as the sender does. The sum of all base offsets, so that nothing is skipped.
///
/// # Errors
/// Where the body cannot be read.
pub fn read_produce_answer(body: &[u8], version: i16) -> Result<i64, String> {
    let mut sum = 0_i64;
    produce::decode_response(body, version, &mut |answer| sum = sum.wrapping_add(answer.base_offset))
        .map_err(|error: WireError| error.to_string())?;
    Ok(sum)
}
