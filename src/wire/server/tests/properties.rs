//! Any well-formed message and any batch of the other implementation (`kafka-protocol`) is read here as what it is, and
//! any batch written here is read there.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::{self as theirs, BrokerId, ProducerId};
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::testing::decode_batch;
use crate::wire::batch_view::BatchView;
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::{NodeEndpoint, PartitionAnswer, TopicRef};
use crate::wire::record::{Fields, Header, Shape};
use crate::wire::record_batch::{BatchHeader, LEN};
use crate::wire::{api_versions as av, init_producer_id as ipi, metadata as md, produce};

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.to_vec()
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9.]{0,12}|\\PC{0,5}"
}

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Tagged fields that no client knows yet.
fn tags() -> impl Strategy<Value = std::collections::BTreeMap<i32, Bytes>> {
    btree_map(100..200_000_i32, vec(any::<u8>(), 0..5).prop_map(Bytes::from), 0..3)
}

/// Only where the version has them.
fn tags_from<T: Default>(first: i16, version: i16, tags: T) -> T {
    if version >= first { tags } else { T::default() }
}

type PartitionParts = (i16, i32, i32, i32, Vec<i32>, Vec<i32>, Vec<i32>);
type TopicParts = (i16, Option<String>, [u8; 16], bool, Vec<PartitionParts>, i32);

fn topic_parts() -> impl Strategy<Value = TopicParts> {
    let nodes = || vec(any::<i32>(), 0..4);
    let partition = (any::<i16>(), any::<i32>(), any::<i32>(), any::<i32>(), nodes(), nodes(), nodes());
    (any::<i16>(), option::weighted(0.9, text()), any::<[u8; 16]>(), any::<bool>(), vec(partition, 0..5), any::<i32>())
}

fn their_topic(parts: &TopicParts, version: i16) -> theirs::metadata_response::MetadataResponseTopic {
    use theirs::metadata_response as mr;
    let (error, name, id, internal, partitions, operations) = parts;
    let mut topic = mr::MetadataResponseTopic::default().with_error_code(*error).with_is_internal(*internal);
    let name = name.clone().or((version < 12).then(String::new));
    topic.name = name.map(|name| string(&name).into());
    if version >= 10 {
        topic.topic_id = format!("{:032x}", u128::from_be_bytes(*id)).parse().unwrap();
    }
    if version >= 8 {
        topic.topic_authorized_operations = *operations;
    }
    let partition = |(error, index, leader, epoch, replicas, in_sync, offline): &PartitionParts| {
        let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
        let mut partition = mr::MetadataResponsePartition::default()
            .with_error_code(*error)
            .with_partition_index(*index)
            .with_leader_id(BrokerId(*leader))
            .with_replica_nodes(ids(replicas))
            .with_isr_nodes(ids(in_sync));
        if version >= 7 {
            partition.leader_epoch = *epoch;
        }
        if version >= 5 {
            partition.offline_replicas = ids(offline);
        }
        partition
    };
    topic.with_partitions(partitions.iter().map(partition).collect())
}

type BrokerParts = (i32, String, i32, Option<String>);

fn broker_parts() -> impl Strategy<Value = BrokerParts> {
    (any::<i32>(), text(), any::<i32>(), option::of(text()))
}

/// One partition's answer: index, error, three offsets and times, refused records, message, leader.
type AnswerParts = (i32, i16, [i64; 3], Vec<(i32, Option<String>)>, Option<String>, Option<(i32, i32)>);

fn answer_parts() -> impl Strategy<Value = AnswerParts> {
    let refused = vec((any::<i32>(), option::of(text())), 0..3);
    // A leader of id and epoch -1 is none.
    let leader = option::of((0..9_i32, any::<i32>()));
    (any::<i32>(), any::<i16>(), any::<[i64; 3]>(), refused, option::of(text()), leader)
}

fn their_answer(parts: &AnswerParts, version: i16) -> theirs::produce_response::PartitionProduceResponse {
    use theirs::produce_response as pr;
    let (index, error, [base_offset, time, start], refused, message, leader) = parts;
    let mut answer = pr::PartitionProduceResponse::default().with_index(*index).with_error_code(*error);
    (answer.base_offset, answer.log_append_time_ms) = (*base_offset, *time);
    if version >= 5 {
        answer.log_start_offset = *start;
    }
    if version >= 8 {
        let record = |(index, message): &(i32, Option<String>)| {
            let message = message.as_deref().map(string);
            pr::BatchIndexAndErrorMessage::default().with_batch_index(*index).with_batch_index_error_message(message)
        };
        answer.record_errors = refused.iter().map(record).collect();
        answer.error_message = message.as_deref().map(string);
    }
    if let Some((id, epoch)) = leader.filter(|_| version >= 10) {
        (answer.current_leader.leader_id, answer.current_leader.leader_epoch) = (BrokerId(id), epoch);
    }
    answer
}

/// What we should read.
fn our_answer<'a>(parts: &'a AnswerParts, version: i16, topic: TopicRef<'a>) -> PartitionAnswer<'a> {
    let (index, error, [base_offset, log_append_time, start], refused, message, leader) = parts;
    PartitionAnswer {
        topic,
        index: *index,
        error: ErrorCode(*error),
        base_offset: *base_offset,
        log_append_time: *log_append_time,
        log_start_offset: if version >= 5 { *start } else { -1 },
        record_errors: if version >= 8 { refused.clone() } else { Vec::new() },
        error_message: message.as_deref().filter(|_| version >= 8),
        current_leader: leader.filter(|_| version >= 10),
    }
}

#[derive(Clone, Debug)]
struct Sent {
    timestamp_delta: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// Each key once: the other library keeps them in a map.
    headers: std::collections::BTreeMap<String, Option<Vec<u8>>>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = || option::of(prop_oneof![vec(any::<u8>(), 0..4), vec(any::<u8>(), 60..68)]);
    let delta = prop_oneof![-70..70_i64, -(1_i64 << 40)..1_i64 << 40];
    (delta, bytes(), bytes(), btree_map(text(), bytes(), 0..4))
        .prop_map(|(timestamp_delta, key, value, headers)| Sent { timestamp_delta, key, value, headers })
}

const BASE: i64 = 1_700_000_000_000;

fn our_batch(records: &[Sent], stamp: (i64, i16, i32)) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, record) in (0..).zip(records) {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let fields = Fields { key: record.key.as_deref(), value: record.value.as_deref(), headers: &headers };
        let (shape, start) = (Shape::of(&fields), out.len());
        out.resize(start + shape.len(record.timestamp_delta, i), 0);
        shape.put(&mut out[start..], &fields, record.timestamp_delta, i);
    }
    let header = BatchHeader {
        attributes: 0,
        last_offset_delta: records.len() as i32 - 1,
        base_timestamp: BASE,
        max_timestamp: BASE + records.iter().map(|record| record.timestamp_delta).max().unwrap(),
        producer_id: stamp.0,
        producer_epoch: stamp.1,
        base_sequence: stamp.2,
        count: records.len() as i32,
    };
    let mut head = [0; LEN];
    header.put(&mut head, out.len() as u32, header.crc([&out[..]].into_iter()));
    [&head[..], &out].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 100 }, ..ProptestConfig::default() })]

    #[test]
    fn api_versions_answers(
        version in 0..=av::VERSION_MAX,
        // 35 is answered in version 0.
        error in any::<i16>().prop_filter("another form", |error| *error != 35),
        apis in vec(any::<(i16, i16, i16)>(), 0..20),
        throttle: i32,
        tags in tags(),
    ) {
        let api = |&(key, min, max): &(i16, i16, i16)| {
            theirs::api_versions_response::ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
                .with_unknown_tagged_fields(tags_from(3, version, tags.clone()))
        };
        let mut response =
            theirs::ApiVersionsResponse::default().with_error_code(error).with_api_keys(apis.iter().map(api).collect());
        if version >= 1 {
            response.throttle_time_ms = throttle;
        }
        let ours = av::decode_response(&encoded(&response, version), version).unwrap();
        let ranges = apis.iter().map(|&(key, min, max)| av::ApiRange { key, min, max }).collect();
        let throttle_ms = if version >= 1 { throttle } else { 0 };
        prop_assert_eq!(ours, av::ApiVersionsResponse { error: ErrorCode(error), apis: ranges, throttle_ms });
    }

    #[test]
    fn metadata_answers(
        version in md::VERSIONS,
        throttle: i32,
        brokers in vec(broker_parts(), 0..5),
        cluster in option::of(text()),
        controller: i32,
        topics in vec(topic_parts(), 0..5),
        error: i16,
        tags in tags(),
    ) {
        let broker = |(id, host, port, rack): &BrokerParts| {
            theirs::metadata_response::MetadataResponseBroker::default()
                .with_node_id(BrokerId(*id))
                .with_host(string(host))
                .with_port(*port)
                .with_rack(rack.as_deref().map(string))
                .with_unknown_tagged_fields(tags_from(9, version, tags.clone()))
        };
        let mut response = theirs::MetadataResponse::default()
            .with_brokers(brokers.iter().map(broker).collect())
            .with_controller_id(BrokerId(controller))
            .with_topics(topics.iter().map(|topic| their_topic(topic, version)).collect())
            .with_unknown_tagged_fields(tags_from(9, version, tags.clone()));
        if version >= 2 {
            response.cluster_id = cluster.as_deref().map(string);
        }
        if version >= 3 {
            response.throttle_time_ms = throttle;
        }
        if version >= 13 {
            response.error_code = error;
        }
        let ours = md::decode_response(&encoded(&response, version), version).unwrap();
        prop_assert_eq!(ours.throttle_ms, if version >= 3 { throttle } else { 0 });
        prop_assert_eq!(ours.cluster_id, cluster.filter(|_| version >= 2));
        prop_assert_eq!((ours.controller_id, ours.error.0), (controller, if version >= 13 { error } else { 0 }));
        let read: Vec<_> = ours.brokers.into_iter().map(|b| (b.node_id, b.host, b.port, b.rack)).collect();
        prop_assert_eq!(read, brokers);
        prop_assert_eq!(ours.topics.len(), topics.len());
        for (ours, (error, name, id, _, partitions, _)) in ours.topics.iter().zip(&topics) {
            let name = name.clone().or((version < 12).then(String::new));
            prop_assert_eq!((ours.error.0, &ours.name), (*error, &name));
            prop_assert_eq!(ours.id, if version >= 10 { *id } else { [0; 16] });
            let expected = partitions.iter().map(|(error, index, leader, epoch, replicas, in_sync, _)| md::Partition {
                error: ErrorCode(*error),
                index: *index,
                leader_id: *leader,
                leader_epoch: if version >= 7 { *epoch } else { -1 },
                replicas: replicas.len(),
                in_sync: in_sync.len(),
            });
            prop_assert_eq!(&ours.partitions, &expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn init_producer_id_answers(version in ipi::VERSIONS, throttle: i32, error: i16, id: i64, epoch: i16, tags in tags()) {
        let response = theirs::InitProducerIdResponse::default()
            .with_throttle_time_ms(throttle)
            .with_error_code(error)
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_unknown_tagged_fields(tags_from(2, version, tags));
        let expected =
            ipi::InitProducerIdResponse { throttle_ms: throttle, error: ErrorCode(error), producer_id: id, epoch };
        prop_assert_eq!(ipi::decode_response(&encoded(&response, version), version), Ok(expected));
    }

    #[test]
    fn produce_answers(
        version in produce::VERSIONS,
        topics in vec((text(), any::<[u8; 16]>(), vec(answer_parts(), 0..4)), 0..4),
        throttle: i32,
        endpoints in vec(broker_parts(), 0..3),
        tags in tags(),
    ) {
        let topic = |(name, id, answers): &(String, [u8; 16], Vec<AnswerParts>)| {
            let answers = answers.iter().map(|answer| their_answer(answer, version)).collect();
            let mut topic = theirs::produce_response::TopicProduceResponse::default()
                .with_partition_responses(answers)
                .with_unknown_tagged_fields(tags_from(9, version, tags.clone()));
            if version >= 13 {
                topic.topic_id = format!("{:032x}", u128::from_be_bytes(*id)).parse().unwrap();
            } else {
                topic.name = string(name).into();
            }
            topic
        };
        let mut response = theirs::ProduceResponse::default()
            .with_responses(topics.iter().map(topic).collect())
            .with_throttle_time_ms(throttle)
            .with_unknown_tagged_fields(tags_from(9, version, tags.clone()));
        if version >= 10 {
            let endpoint = |(id, host, port, rack): &BrokerParts| {
                theirs::produce_response::NodeEndpoint::default()
                    .with_node_id(BrokerId(*id))
                    .with_host(string(host))
                    .with_port(*port)
                    .with_rack(rack.as_deref().map(string))
            };
            response.node_endpoints = endpoints.iter().map(endpoint).collect();
        }
        let mut expected = topics.iter().flat_map(|(name, id, answers)| {
            let topic = if version >= 13 { TopicRef::Id(*id) } else { TopicRef::Name(name) };
            answers.iter().map(move |answer| our_answer(answer, version, topic))
        });
        let bytes = encoded(&response, version);
        let mut wrong = Vec::new();
        let tail = produce::decode_response(&bytes, version, &mut |answer| {
            let expected = expected.next();
            if expected.as_ref() != Some(&answer) {
                wrong.push(format!("{answer:?} is not {expected:?}"));
            }
        });
        prop_assert_eq!(wrong, Vec::<String>::new());
        prop_assert!(expected.next().is_none());
        let tail = tail.unwrap();
        let endpoint =
            |(node_id, host, port, rack)| NodeEndpoint { node_id, host, port, rack };
        let endpoints: Vec<_> = endpoints.into_iter().filter(|_| version >= 10).map(endpoint).collect();
        prop_assert_eq!((tail.throttle_ms, tail.node_endpoints), (throttle, endpoints));
    }

    #[test]
    fn batches_written_here_are_read_there(
        records in vec(sent(), 1..70),
        id in 0..i64::MAX,
        epoch in 0..i16::MAX,
        sequence in 0..1_000_000_i32,
    ) {
        let batch = our_batch(&records, (id, epoch, sequence));
        let read = RecordBatchDecoder::decode(&mut Bytes::from(batch)).unwrap();
        prop_assert_eq!((read.version, read.records.len()), (2, records.len()));
        for (i, (read, sent)) in (0..).zip(read.records.iter().zip(&records)) {
            prop_assert_eq!((read.offset, read.sequence), (i64::from(i), sequence + i));
            prop_assert_eq!(read.timestamp, BASE + sent.timestamp_delta);
            prop_assert_eq!((read.producer_id, read.producer_epoch), (id, epoch));
            prop_assert_eq!(read.key.as_deref(), sent.key.as_deref());
            prop_assert_eq!(read.value.as_deref(), sent.value.as_deref());
            let headers: Vec<_> =
                read.headers.iter().map(|(key, value)| (key.to_string(), value.as_ref().map(|v| v.to_vec()))).collect();
            prop_assert_eq!(headers, sent.headers.clone().into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn batches_written_there_are_read_here(records in vec(sent(), 1..70), id in 0..i64::MAX) {
        let theirs: Vec<Record> = (0..).zip(&records).map(|(i, sent)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: id,
            producer_epoch: 3,
            timestamp_type: TimestampType::Creation,
            offset: i,
            sequence: i as i32,
            timestamp: BASE + sent.timestamp_delta,
            key: sent.key.clone().map(Bytes::from),
            value: sent.value.clone().map(Bytes::from),
            headers: sent.headers.iter().map(|(k, v)| (string(k), v.clone().map(Bytes::from))).collect::<IndexMap<_, _>>(),
        }).collect();
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, &theirs, &options).unwrap();
        let view = BatchView::parse(&batch).unwrap();
        prop_assert_eq!((view.bytes().len(), view.count()), (batch.len(), records.len() as i32));
        let ours: Vec<_> = view.records().collect::<Result<_, _>>().unwrap();
        let other = decode_batch(&batch).unwrap();
        prop_assert_eq!((ours.len(), other.len()), (records.len(), records.len()));
        for (i, sent) in records.iter().enumerate() {
            prop_assert_eq!((ours[i].key, ours[i].value), (sent.key.as_deref(), sent.value.as_deref()));
            prop_assert_eq!(view.base_timestamp() + ours[i].timestamp_delta, BASE + sent.timestamp_delta);
            prop_assert_eq!(ours[i].header_count as usize, sent.headers.len());
            prop_assert_eq!(&other[i].headers, &sent.headers.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
