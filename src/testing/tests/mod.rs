//! The embedded broker against what a real broker was seen to answer.

mod by_hand;
mod checks;
mod cluster;
mod round_trip;
mod sequences;
mod server;

use std::net::SocketAddr;

use super::*;
use crate::wire::header::{ApiKey, begin_request, end_request, response_header};
use crate::wire::produce::{PartitionAnswer, ProduceTail, ProduceWriter, TopicRef};
use crate::wire::record::{Fields, Shape};
use crate::wire::record_batch::{BatchHeader, LEN};
use crate::wire::{metadata, produce};

/// The broker's clock in these tests, Unix milliseconds.
const NOW: i64 = 1_700_000_000_000;

/// A model with a topic `t` of two partitions on two nodes, and what talks to it.
struct Harness {
    model: BrokerModel,
    version: i16,
    acks: i16,
    node: i32,
}

/// An answer for one partition, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answered {
    index: i32,
    error: i16,
    base_offset: i64,
    log_append_time: i64,
    log_start_offset: i64,
    bad_records: Vec<i32>,
    current_leader: Option<(i32, i32)>,
}

fn addresses(count: u16) -> Vec<SocketAddr> {
    (0..count).map(|node| SocketAddr::from(([127, 0, 0, 1], 9000 + node))).collect()
}

impl Harness {
    fn new(options: BrokerOptions) -> Self {
        let mut model = BrokerModel::new(options, addresses(2));
        assert!(model.create_topic("t", TopicOptions { partitions: 2, ..TopicOptions::default() }));
        Self { model, version: 12, acks: -1, node: 0 }
    }

    fn with_topic(topic: TopicOptions) -> Self {
        let mut harness = Self::new(BrokerOptions::default());
        harness.model.delete_topic("t");
        harness.model.create_topic("t", topic);
        harness
    }

    fn handle(&mut self, frame: &[u8]) -> (Reply, Vec<u8>) {
        let mut out = vec![0xee];
        let incoming = Incoming { node: self.node, connection: 1, unix_ms: NOW, may_wait: true, frame };
        let reply = self.model.handle(&incoming, &mut out);
        let answer = out.split_off(1);
        match reply {
            Reply::Answer { .. } => {
                assert_eq!(i32::from_be_bytes(answer[..4].try_into().unwrap()), answer.len() as i32 - 4)
            }
            _ => assert!(answer.is_empty(), "no answer, no bytes"),
        }
        (reply, answer)
    }

    fn id_of(&self, topic: &str) -> [u8; 16] {
        self.model.topics.get(topic).map_or([1; 16], |topic| topic.id)
    }

    /// The frame of a Produce request without its size.
    fn produce_frame(&self, batches: &[(&str, i32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let writer = ProduceWriter::begin(&mut out, self.version, 7, "test", self.acks, 1000, batches.len());
        for (topic, index, batch) in batches {
            writer.topic(&mut out, topic, &self.id_of(topic), 1);
            writer.partition(&mut out, *index, batch.len());
            out.extend_from_slice(batch);
            writer.end_partition(&mut out);
            writer.end_topic(&mut out);
        }
        writer.end(&mut out);
        writer.patch_size(&mut out, 0);
        out.split_off(4)
    }

    /// Sends several batches in one request.
    fn produce_all(&mut self, batches: &[(&str, i32, &[u8])]) -> (Reply, Vec<Answered>, ProduceTail) {
        let frame = self.produce_frame(batches);
        let (reply, answer) = self.handle(&frame);
        let mut answers = Vec::new();
        if !matches!(reply, Reply::Answer { .. }) {
            return (reply, answers, ProduceTail::default());
        }
        let (correlation_id, body) = response_header(&answer[4..], ApiKey::PRODUCE, self.version).unwrap();
        assert_eq!(correlation_id, 7);
        let mut visit = |answer: PartitionAnswer<'_>| {
            assert_eq!(matches!(answer.topic, TopicRef::Id(_)), self.version >= 13);
            answers.push(Answered {
                index: answer.index,
                error: answer.error.0,
                base_offset: answer.base_offset,
                log_append_time: answer.log_append_time,
                log_start_offset: answer.log_start_offset,
                bad_records: answer.record_errors.iter().map(|(index, _)| *index).collect(),
                current_leader: answer.current_leader,
            });
        };
        let tail = produce::decode_response(body, self.version, &mut visit).unwrap();
        (reply, answers, tail)
    }

    /// Sends one batch to `t`/0 and returns the answer.
    fn produce(&mut self, batch: &[u8]) -> Answered {
        let (_, mut answers, _) = self.produce_all(&[("t", 0, batch)]);
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// Sends one batch to `t`/0 and returns error code and base offset.
    fn send(&mut self, batch: &[u8]) -> (i16, i64) {
        let answer = self.produce(batch);
        (answer.error, answer.base_offset)
    }

    fn log(&self) -> Vec<StoredRecord> {
        let log = self.model.log("t", 0).unwrap();
        log.batches().iter().flat_map(|batch| decode_batch(&batch.bytes).unwrap()).collect()
    }

    fn values(&self) -> Vec<String> {
        self.log().into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
    }
}

/// A batch of records with these values, no keys and the broker's time.
fn batch(values: &[&str]) -> Vec<u8> {
    batch_with(values, |_| {})
}

/// The same of an idempotent producer: id 5, epoch and first sequence.
fn sequenced(epoch: i16, base_sequence: i32, values: &[&str]) -> Vec<u8> {
    batch_with(values, |header| {
        header.producer_id = 5;
        header.producer_epoch = epoch;
        header.base_sequence = base_sequence;
    })
}

fn batch_with(values: &[&str], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut records = Vec::new();
    for (i, value) in (0..).zip(values) {
        let fields = Fields { value: Some(value.as_bytes()), ..Fields::default() };
        put_record(&mut records, &fields, 0, i);
    }
    batch_around(&records, values.len() as i32, change)
}

fn put_record(out: &mut Vec<u8>, fields: &Fields<'_>, timestamp_delta: i64, offset_delta: i32) {
    let shape = Shape::of(fields);
    let at = out.len();
    out.resize(at + shape.len(timestamp_delta, offset_delta), 0);
    shape.put(&mut out[at..], fields, timestamp_delta, offset_delta);
}

fn batch_around(records: &[u8], count: i32, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = BatchHeader {
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: NOW,
        max_timestamp: NOW,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count,
    };
    change(&mut header);
    let mut head = [0; LEN];
    header.put(&mut head, records.len() as u32, header.crc([records].into_iter()));
    [&head[..], records].concat()
}

/// Computes the CRC again after a batch was changed by hand.
fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}
