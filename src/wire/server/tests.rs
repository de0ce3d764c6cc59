//! Every message in every version against another implementation (`kafka-protocol`), both ways, and against bytes that
//! are cut off or lie about their counts.

mod properties;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as theirs, BrokerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::shape::{body_at, counts, with_count};
use super::*;
use crate::wire::error_code::ErrorCode;
use crate::wire::header::{begin_request, response_header};
use crate::wire::produce::{NodeEndpoint, PartitionAnswer, ProduceTail, ProduceWriter, TopicRef};
use crate::wire::{api_versions as av, init_producer_id as ipi, metadata as md, produce};

const ID: [u8; 16] = [7; 16];
const ID_TEXT: &str = "07070707-0707-0707-0707-070707070707";

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(text: &str) -> TopicName {
    string(text).into()
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.to_vec()
}

/// Decodes all of `bytes`.
fn decoded<T: Decodable>(bytes: &[u8], version: i16) -> T {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let message = T::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "version {version}: bytes were left over");
    message
}

fn body(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Every prefix of `bytes` is an error, and no number written over any place makes the decoder panic or hang.
fn survives_damage<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, WireError>) {
    assert!(decode(bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut after {len} of {} bytes", bytes.len());
    }
    let numbers: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x7f, 0xff],
    ];
    for at in 0..bytes.len() {
        for number in numbers {
            let mut damaged = bytes.to_vec();
            let end = bytes.len().min(at + number.len());
            damaged[at..end].copy_from_slice(&number[..end - at]);
            let _ = decode(&damaged);
        }
    }
}

/// What is decoded holds no more elements than its bytes can pay for.
fn refuses_count<T>(prefix: &[u8], flexible: bool, decode: impl Fn(&[u8]) -> Result<T, WireError>) {
    let count: &[u8] = if flexible { &[0xff, 0xff, 0xff, 0xff, 0x07] } else { &[0x7f, 0xff, 0xff, 0xff] };
    let bytes = [prefix, count, &[0; 64]].concat();
    let error = decode(&bytes).err().unwrap();
    assert_eq!(error.at, prefix.len() + count.len(), "refused at the count, before any element: {error}");
}

/// Each count of the answer, wherever it stands, is refused when it is 2^31 - 1, and right there: before anything is
/// made of it. `least`: how many there are at least.
fn refuses_every_count<T>(
    api: ApiKey,
    version: i16,
    body: &[u8],
    least: usize,
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
) {
    let head = body_at(api.0, version);
    let frame = [&vec![0; head], body].concat();
    let places = counts(api.0, version, &frame).expect("the shape is the decoder's");
    assert!(places.len() >= least, "version {version}: {places:?}");
    for place in places {
        let damaged = with_count(api.0, version, &frame, place.clone());
        let error = decode(&damaged[head..]).err().expect("refused");
        let end = place.start - head + if api.is_flexible(version) { 5 } else { 4 };
        // A count of tagged fields need not be refused as such: the fields that it promises are not there.
        let at_once = error.at == end || error.what == "tagged fields";
        assert!(at_once, "version {version}, count at {place:?}: refused late, {error}");
    }
}

#[test]
fn request_headers() {
    let apis = [
        (ApiKey::PRODUCE, 3..=13),
        (ApiKey::METADATA, 1..=13),
        (ApiKey::API_VERSIONS, 0..=4),
        (ApiKey::INIT_PRODUCER_ID, 0..=5),
        (ApiKey::FETCH, 4..=12),
        (ApiKey::LIST_OFFSETS, 1..=7),
        (ApiKey::FIND_COORDINATOR, 0..=3),
    ];
    for (api, versions) in apis {
        for version in versions {
            let key = theirs::ApiKey::try_from(api.0).unwrap();
            let header_version = key.request_header_version(version);
            let frame = body(|out| {
                begin_request(out, api, version, 77, "cli");
            });
            let header: theirs::RequestHeader = decoded(&frame[4..], header_version);
            assert_eq!((header.request_api_key, header.request_api_version), (api.0, version));
            assert_eq!((header.correlation_id, header.client_id.clone()), (77, Some(string("cli"))));
            let frame = encoded(&header, header_version);
            let ours = RequestHeader { api, version, correlation_id: 77, client_id: Some("cli") };
            assert_eq!(request_header(&frame), Ok((ours, &[][..])));

            let header_version = key.response_header_version(version);
            let header = theirs::ResponseHeader::default().with_correlation_id(77);
            assert_eq!(response_header(&encoded(&header, header_version), api, version), Ok((77, &[][..])));
            let frame = body(|out| {
                begin_response(out, api, version, 77);
            });
            assert_eq!(decoded::<theirs::ResponseHeader>(&frame[4..], header_version), header);
        }
    }
}

#[test]
fn api_versions_messages() {
    for version in 0..=av::VERSION_MAX {
        let bytes = body(|out| av::encode_request(out, version));
        let request: theirs::ApiVersionsRequest = decoded(&bytes, version);
        let ours = api_versions::decode_request(&bytes, version).unwrap();
        if version >= 3 {
            assert_eq!(request.client_software_name, string("ringmail"));
            assert_eq!(request.client_software_version, string(env!("CARGO_PKG_VERSION")));
            assert_eq!((ours.software_name, ours.software_version), ("ringmail", env!("CARGO_PKG_VERSION")));
        }

        let range = |key, min, max| {
            theirs::api_versions_response::ApiVersion::default()
                .with_api_key(key)
                .with_min_version(min)
                .with_max_version(max)
        };
        let mut response = theirs::ApiVersionsResponse::default().with_api_keys(vec![range(0, 0, 13), range(18, 0, 4)]);
        if version >= 1 {
            response.throttle_time_ms = 9;
        }
        let plain = encoded(&response, version);
        if version >= 3 {
            let feature = theirs::api_versions_response::FinalizedFeatureKey::default()
                .with_name(string("transaction.version"))
                .with_max_version_level(2);
            response = response.with_finalized_features(vec![feature]).with_finalized_features_epoch(5);
        }
        let bytes = encoded(&response, version);
        let ours = av::decode_response(&bytes, version).unwrap();
        let apis = [av::ApiRange { key: 0, min: 0, max: 13 }, av::ApiRange { key: 18, min: 0, max: 4 }];
        assert_eq!((ours.error, &ours.apis[..]), (ErrorCode::NONE, &apis[..]));
        assert_eq!(ours.throttle_ms, if version >= 1 { 9 } else { 0 });
        assert_eq!(body(|out| api_versions::encode_response(out, version, &ours)), plain);
        survives_damage(&bytes, |bytes| av::decode_response(bytes, version));
        refuses_count(&[0, 0], version >= 3, |bytes| av::decode_response(bytes, version));
        let least = if version >= 3 { 4 } else { 1 };
        refuses_every_count(ApiKey::API_VERSIONS, version, &bytes, least, |bytes| av::decode_response(bytes, version));
    }
}

#[test]
fn metadata_messages() {
    for version in md::VERSIONS {
        for topics in [None, Some(&[][..]), Some(&["a", "topic-b"][..])] {
            let bytes = body(|out| md::encode_request(out, version, topics, true));
            let request: theirs::MetadataRequest = decoded(&bytes, version);
            let names =
                request.topics.clone().map(|topics| topics.into_iter().map(|t| t.name.unwrap()).collect::<Vec<_>>());
            assert_eq!(names, topics.map(|topics| topics.iter().map(|t| name(t)).collect::<Vec<_>>()));
            assert!(version < 4 || request.allow_auto_topic_creation);
            let bytes = encoded(&request, version);
            let ours = metadata::decode_request(&bytes, version).unwrap();
            let names = ours.topics.map(|topics| topics.iter().map(|query| query.name.unwrap()).collect::<Vec<_>>());
            assert_eq!(names.as_deref(), topics);
            assert!(ours.auto_create);
        }

        let flexible = version >= 9;
        let response = metadata_response(version);
        let bytes = body(|out| metadata::encode_response(out, version, &response));
        let their_response: theirs::MetadataResponse = decoded(&bytes, version);
        assert_eq!(their_response.brokers[1].host, string("host-1"));
        assert_eq!(their_response.controller_id, BrokerId(1));
        assert_eq!(their_response.topics.len(), 2);
        let topic = &their_response.topics[0];
        assert_eq!((topic.error_code, &topic.name), (0, &Some(name("orders"))));
        assert_eq!(topic.partitions[1].leader_id, BrokerId(-1));
        assert_eq!(topic.partitions[0].replica_nodes, [BrokerId(2), BrokerId(3), BrokerId(4)]);
        assert_eq!(topic.partitions[0].isr_nodes, [BrokerId(2), BrokerId(3)]);
        assert!(version < 10 || topic.topic_id.as_bytes() == &ID);
        // Written by them, read by us: the same again.
        let bytes = encoded(&their_response, version);
        assert_eq!(md::decode_response(&bytes, version), Ok(response));
        survives_damage(&bytes, |bytes| md::decode_response(bytes, version));
        let throttle: &[u8] = if version >= 3 { &[0, 0, 0, 0] } else { &[] };
        refuses_count(throttle, flexible, |bytes| md::decode_response(bytes, version));
        // Brokers, topics, partitions of two topics, replicas and in-sync replicas of two partitions.
        let least = if flexible { 16 } else { 8 };
        refuses_every_count(ApiKey::METADATA, version, &bytes, least, |bytes| md::decode_response(bytes, version));
    }
}

fn metadata_response(version: i16) -> md::MetadataResponse {
    let broker = |node_id, rack: Option<&str>| md::Broker {
        node_id,
        host: format!("host-{node_id}"),
        port: 9092,
        rack: rack.map(str::to_owned),
    };
    let partition = |error, index, leader_id| md::Partition {
        error,
        index,
        leader_id,
        leader_epoch: if version >= 7 { 4 } else { -1 },
        replicas: 3,
        in_sync: 2,
    };
    let partitions = vec![partition(ErrorCode::NONE, 0, 2), partition(ErrorCode::LEADER_NOT_AVAILABLE, 1, -1)];
    let id = if version >= 10 { ID } else { [0; 16] };
    let topic = |error, name: &str, partitions| md::Topic { error, name: Some(name.to_owned()), id, partitions };
    md::MetadataResponse {
        throttle_ms: if version >= 3 { 9 } else { 0 },
        brokers: vec![broker(0, Some("r")), broker(1, None)],
        cluster_id: (version >= 2).then(|| "cluster".to_owned()),
        controller_id: 1,
        topics: vec![
            topic(ErrorCode::NONE, "orders", partitions),
            topic(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "absent", Vec::new()),
        ],
        error: if version >= 13 { ErrorCode::REBOOTSTRAP_REQUIRED } else { ErrorCode::NONE },
    }
}

#[test]
fn init_producer_id_messages() {
    for version in ipi::VERSIONS {
        let (producer_id, epoch) = if version >= 3 { (4242, 7) } else { (-1, -1) };
        let bytes = body(|out| ipi::encode_request(out, version, Some("tx"), 60_000, producer_id, epoch));
        let request: theirs::InitProducerIdRequest = decoded(&bytes, version);
        assert_eq!(request.transactional_id.as_deref().map(|id| id.as_str()), Some("tx"));
        assert_eq!(request.transaction_timeout_ms, 60_000);
        assert_eq!((request.producer_id.0, request.producer_epoch), (producer_id, epoch));
        let bytes = encoded(&request, version);
        let ours = init_producer_id::decode_request(&bytes, version).unwrap();
        assert_eq!((ours.transactional_id, ours.timeout_ms), (Some("tx"), 60_000));
        assert_eq!((ours.producer_id, ours.epoch), (producer_id, epoch));
        let bytes = body(|out| ipi::encode_request(out, version, None, i32::MAX, -1, -1));
        assert_eq!(decoded::<theirs::InitProducerIdRequest>(&bytes, version).transactional_id, None);

        let response = ipi::InitProducerIdResponse {
            throttle_ms: 9,
            error: ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
            producer_id: 1 << 40,
            epoch: 7,
        };
        let bytes = body(|out| init_producer_id::encode_response(out, version, &response));
        let their_response: theirs::InitProducerIdResponse = decoded(&bytes, version);
        assert_eq!((their_response.error_code, their_response.producer_id.0), (14, 1 << 40));
        let bytes = encoded(&their_response, version);
        assert_eq!(ipi::decode_response(&bytes, version), Ok(response));
        survives_damage(&bytes, |bytes| ipi::decode_response(bytes, version));
        let least = usize::from(version >= 2);
        refuses_every_count(ApiKey::INIT_PRODUCER_ID, version, &bytes, least, |b| ipi::decode_response(b, version));
    }
}

#[test]
fn produce_requests() {
    for version in produce::VERSIONS {
        let frame = body(|out| {
            let writer = ProduceWriter::begin(out, version, 5, "cli", -1, 30_000, 2);
            for (topic, partitions) in [("orders", &[0, 3][..]), ("b", &[1])] {
                writer.topic(out, topic, &ID, partitions.len());
                for &index in partitions {
                    writer.partition(out, index, 200);
                    out.extend_from_slice(&[index as u8; 200]);
                    writer.end_partition(out);
                }
                writer.end_topic(out);
            }
            writer.end(out);
            writer.patch_size(out, 0);
        });
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let (header, bytes) = request_header(&frame[4..]).unwrap();
        assert_eq!((header.api, header.version, header.correlation_id), (ApiKey::PRODUCE, version, 5));
        assert_eq!(theirs::ProduceRequest::header_version(version), if version >= 9 { 2 } else { 1 });

        let request: theirs::ProduceRequest = decoded(bytes, version);
        assert_eq!((request.acks, request.timeout_ms, &request.transactional_id), (-1, 30_000, &None));
        let topic = &request.topic_data[0];
        if version >= 13 {
            assert_eq!(topic.topic_id.as_bytes(), &ID);
        } else {
            assert_eq!(topic.name, name("orders"));
        }
        assert_eq!(topic.partition_data[1].index, 3);
        assert_eq!(topic.partition_data[1].records.as_deref(), Some(&[3; 200][..]));
        assert_eq!(encoded(&request, version), bytes);

        let ours = produce::VERSION_TOPIC_IDS;
        let expect = |name| if version >= ours { TopicRef::Id(ID) } else { TopicRef::Name(name) };
        let batch = |index, bytes| super::produce::PartitionBatch { index, records: Some(bytes) };
        let request = super::produce::decode_request(bytes, version).unwrap();
        assert_eq!((request.acks, request.timeout_ms, request.transactional_id), (-1, 30_000, None));
        let expected = [
            (expect("orders"), vec![batch(0, &[0; 200][..]), batch(3, &[3; 200])]),
            (expect("b"), vec![batch(1, &[1; 200])]),
        ];
        assert_eq!(request.topics, expected);
        survives_damage(bytes, |bytes| super::produce::decode_request(bytes, version).map(drop));
    }
}

/// A response with everything in it that `version` can say, written by the other library.
fn produce_response(version: i16) -> theirs::ProduceResponse {
    use theirs::produce_response as pr;
    let mut good = pr::PartitionProduceResponse::default().with_index(3).with_base_offset(1 << 40);
    good.log_append_time_ms = 1_700_000_000_000;
    let mut bad = pr::PartitionProduceResponse::default().with_index(0).with_error_code(6).with_base_offset(-1);
    bad.log_append_time_ms = -1;
    bad.log_start_offset = -1;
    if version >= 5 {
        good.log_start_offset = 5;
    }
    if version >= 8 {
        let record = |index, message: Option<&str>| {
            let message = message.map(string);
            pr::BatchIndexAndErrorMessage::default().with_batch_index(index).with_batch_index_error_message(message)
        };
        bad.record_errors = vec![record(0, Some("no key")), record(2, None)];
        bad.error_message = Some(string("words"));
    }
    let mut response = theirs::ProduceResponse::default().with_throttle_time_ms(77);
    if version >= 10 {
        bad.current_leader.leader_id = BrokerId(2);
        bad.current_leader.leader_epoch = 9;
        let endpoint = pr::NodeEndpoint::default().with_node_id(BrokerId(2)).with_host(string("h")).with_port(1234);
        response.node_endpoints = vec![endpoint.clone().with_rack(Some(string("r"))), endpoint];
    }
    let topic = |partitions| {
        let mut topic = pr::TopicProduceResponse::default().with_partition_responses(partitions);
        if version >= 13 {
            topic.topic_id = ID_TEXT.parse().unwrap();
        } else {
            topic.name = name("orders");
        }
        topic
    };
    response.with_responses(vec![topic(vec![good, bad]), topic(Vec::new())])
}

/// Reads a response into owned parts: what the visitor saw, and the tail.
fn read_produce_response(bytes: &[u8], version: i16) -> Result<(Vec<String>, ProduceTail), WireError> {
    let mut seen = Vec::new();
    let tail = produce::decode_response(bytes, version, &mut |answer| seen.push(format!("{answer:?}")))?;
    Ok((seen, tail))
}

#[test]
fn produce_responses() {
    for version in produce::VERSIONS {
        let bytes = encoded(&produce_response(version), version);
        let topic = if version >= 13 { TopicRef::Id(ID) } else { TopicRef::Name("orders") };
        let good = PartitionAnswer {
            topic,
            index: 3,
            error: ErrorCode::NONE,
            base_offset: 1 << 40,
            log_append_time: 1_700_000_000_000,
            log_start_offset: if version >= 5 { 5 } else { -1 },
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        };
        let bad = PartitionAnswer {
            index: 0,
            error: ErrorCode::NOT_LEADER_OR_FOLLOWER,
            base_offset: -1,
            log_append_time: -1,
            log_start_offset: -1,
            record_errors: if version >= 8 { vec![(0, Some("no key".to_owned())), (2, None)] } else { Vec::new() },
            error_message: (version >= 8).then_some("words"),
            current_leader: (version >= 10).then_some((2, 9)),
            ..good.clone()
        };
        let endpoint = |rack: Option<&str>| NodeEndpoint {
            node_id: 2,
            host: "h".into(),
            port: 1234,
            rack: rack.map(str::to_owned),
        };
        let node_endpoints = if version >= 10 { vec![endpoint(Some("r")), endpoint(None)] } else { Vec::new() };
        let tail = ProduceTail { throttle_ms: 77, node_endpoints };

        let (seen, their_tail) = read_produce_response(&bytes, version).unwrap();
        assert_eq!(seen, [format!("{good:?}"), format!("{bad:?}")], "version {version}");
        assert_eq!(their_tail, tail);
        let ours = body(|out| {
            super::produce::encode_response(out, version, &[(topic, vec![good, bad]), (topic, Vec::new())], &tail);
        });
        assert_eq!(decoded::<theirs::ProduceResponse>(&ours, version), produce_response(version));
        survives_damage(&bytes, |bytes| read_produce_response(bytes, version));
        refuses_count(&[], version >= 9, |bytes| read_produce_response(bytes, version));
        // Topics, their partitions, record errors of two partitions.
        let least = if version >= 8 { 5 } else { 3 };
        refuses_every_count(ApiKey::PRODUCE, version, &bytes, least, |bytes| read_produce_response(bytes, version));
    }
}

#[test]
fn fetch_messages() {
    use theirs::fetch_request as fr;
    for version in fetch::VERSION_MIN..=fetch::VERSION_MAX {
        let partition = fr::FetchPartition::default().with_partition(3).with_fetch_offset(1 << 40);
        let partition = partition.with_partition_max_bytes(1 << 20);
        let topic = fr::FetchTopic::default().with_topic(name("orders")).with_partitions(vec![partition]);
        let mut request =
            theirs::FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_max_bytes(1 << 25);
        request.topics = vec![topic];
        let bytes = encoded(&request, version);
        let ours = fetch::decode_request(&bytes, version).unwrap();
        assert_eq!((ours.max_wait_ms, ours.min_bytes, ours.max_bytes), (500, 1, 1 << 25));
        let expected =
            fetch::FetchPartition { index: 3, current_leader_epoch: -1, fetch_offset: 1 << 40, max_bytes: 1 << 20 };
        assert_eq!(ours.topics, [("orders", vec![expected])]);
        survives_damage(&bytes, |bytes| fetch::decode_request(bytes, version).map(drop));

        let partition = fetch::FetchedPartition {
            index: 3,
            error: ErrorCode::OFFSET_OUT_OF_RANGE,
            high_watermark: 9,
            log_start_offset: 5,
            records: vec![1, 2, 3],
        };
        let bytes = body(|out| fetch::encode_response(out, version, &[("orders", vec![partition])]));
        let response: theirs::FetchResponse = decoded(&bytes, version);
        let partition = &response.responses[0].partitions[0];
        assert_eq!(response.responses[0].topic, name("orders"));
        assert_eq!((partition.partition_index, partition.error_code, partition.high_watermark), (3, 1, 9));
        assert_eq!(partition.records.as_deref(), Some(&[1, 2, 3][..]));
        assert!(version < 5 || partition.log_start_offset == 5);
    }
}

#[test]
fn list_offsets_messages() {
    use theirs::list_offsets_request as lr;
    for version in list_offsets::VERSION_MIN..=list_offsets::VERSION_MAX {
        let partition = lr::ListOffsetsPartition::default().with_partition_index(3).with_timestamp(-2);
        let topic = lr::ListOffsetsTopic::default().with_name(name("orders")).with_partitions(vec![partition]);
        let bytes = encoded(&theirs::ListOffsetsRequest::default().with_topics(vec![topic]), version);
        let expected =
            list_offsets::OffsetQuery { index: 3, current_leader_epoch: -1, timestamp: list_offsets::EARLIEST };
        let decode = |bytes: &[u8]| list_offsets::decode_request(bytes, version).map(|topics| format!("{topics:?}"));
        assert_eq!(decode(&bytes), Ok(format!("{:?}", [("orders", vec![expected])])));
        survives_damage(&bytes, decode);

        let answer =
            list_offsets::OffsetAnswer { index: 3, error: ErrorCode::NONE, timestamp: 8, offset: 9, leader_epoch: 2 };
        let bytes = body(|out| list_offsets::encode_response(out, version, &[("orders", vec![answer])]));
        let response: theirs::ListOffsetsResponse = decoded(&bytes, version);
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.timestamp, partition.offset), (3, 8, 9));
    }
}

#[test]
fn find_coordinator_messages() {
    for version in 0..=find_coordinator::VERSION_MAX {
        let request = theirs::FindCoordinatorRequest::default().with_key(string("group"));
        assert_eq!(find_coordinator::decode_request(&encoded(&request, version), version), Ok(()));
        let error = ErrorCode::COORDINATOR_NOT_AVAILABLE;
        let bytes = body(|out| find_coordinator::encode_response(out, version, error));
        assert_eq!(decoded::<theirs::FindCoordinatorResponse>(&bytes, version).error_code, 15);
    }
}
