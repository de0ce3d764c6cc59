//! The seeds of `fuzz/seeds`, made from what the encoders write and from short scripts: so that fuzzing begins behind
//! the first checks.

use crate::config::ProducerConfig;
use crate::testing::{BrokerModel, BrokerOptions, Incoming};
use crate::wire::header::{ApiKey, begin_request, end_request};
use crate::wire::produce::{NodeEndpoint, PartitionAnswer, ProduceTail, TopicRef};
use crate::wire::record_batch::tests::{GOLDEN, hex};
use crate::wire::{api_versions, error_code::ErrorCode, init_producer_id, metadata, server};

/// Target, name and bytes of each seed.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |target, name: String, bytes| all.push((target, name, bytes));
    responses(&mut |name, bytes| add("responses", name, bytes));
    for (name, script) in CONNECTION {
        add("connection", (*name).to_owned(), script.concat());
    }
    for (name, script) in ACCUMULATOR {
        add("accumulator_script", (*name).to_owned(), script.concat());
    }
    for in_ring in [0, 1] {
        // Producer id, epoch and sequence, then records: delta, key, value, number of headers, headers.
        let stamp = [0, 0, 0, 0, 0, 0, 16, 146, 0, 7, 0, 0, 0, 100];
        let records = [0, 3, 1, 2, 3, 4, 1, 2, 3, 4, 0, 1, 255, 13, 9, 9, 9, 9, 3, 1, 7, 255, 9, 0, 0, 0];
        add("batch_encoder", format!("records-{in_ring}"), [&[in_ring][..], &stamp, &records].concat());
        let large = [14, 31, 1, 2, 3, 4, 15, 1, 2, 3, 4, 6].repeat(6);
        add("batch_encoder", format!("large-{in_ring}"), [&[in_ring][..], &stamp, &large].concat());
    }
    config(&mut |name, bytes| add("config_text", name, bytes));
    all
}

fn config(add: &mut dyn FnMut(String, Vec<u8>)) {
    let mut defaults = "# every key\nbootstrap.servers=localhost:9092\n".to_owned();
    for key in ProducerConfig::keys() {
        defaults += &key.default().map_or_else(String::new, |default| format!("{}={default}\n", key.name()));
    }
    add("defaults".into(), defaults.into_bytes());
    let servers = "bootstrap.servers = a:1, [::1]:65535 ,PLAINTEXT://b:2\nacks=0\nretries=0\nlinger.ms=250\n";
    add("servers".into(), servers.into());
    // One step from what is refused.
    let limits = "bootstrap.servers=a:1\nmax.in.flight.requests.per.connection=5\nlinger.ms=2147483647\n";
    add("limits".into(), limits.into());
    add("wrong".into(), "bootstrap.servers=a:1\nlingr.ms=5\ncompression.type=zstd\nsasl.jaas.config=secret\n".into());
    add("sizes".into(), "bootstrap.servers=a:1\nbuffer.memory=65536\nmax.request.size=65536\nbatch.size=1\n".into());
}

fn responses(add: &mut dyn FnMut(String, Vec<u8>)) {
    let mut frame = |kind: u8, name: &str, api: ApiKey, first: i16, version: i16, body: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        let start = server::begin_response(&mut out, api, version, 7);
        body(&mut out);
        server::end_response(&mut out, start);
        add(format!("{name}-{version}"), [&[kind, (version - first) as u8][..], &out[4..]].concat());
    };
    let apis = vec![api_versions::ApiRange { key: 0, min: 3, max: 13 }];
    let versions = api_versions::ApiVersionsResponse { error: ErrorCode::NONE, apis, throttle_ms: 1 };
    for version in [0, 1, 3] {
        frame(0, "api-versions", ApiKey::API_VERSIONS, 0, version, &|out| {
            server::api_versions::encode_response(out, version, &versions);
        });
    }
    let partition = metadata::Partition {
        error: ErrorCode::NONE,
        index: 0,
        leader_id: 1,
        leader_epoch: 3,
        replicas: 2,
        in_sync: 1,
    };
    let broker = metadata::Broker { node_id: 1, host: "h".into(), port: 9092, rack: Some("r".into()) };
    let topic = |name: &str, partitions| metadata::Topic {
        error: ErrorCode::NONE,
        name: Some(name.into()),
        id: [7; 16],
        partitions,
    };
    let cluster = metadata::MetadataResponse {
        brokers: vec![broker],
        cluster_id: Some("c".into()),
        topics: vec![topic("t", vec![partition; 2]), topic("u", vec![])],
        ..metadata::MetadataResponse::default()
    };
    for version in [1, 2, 5, 7, 8, 9, 10, 12, 13] {
        frame(1, "metadata", ApiKey::METADATA, 1, version, &|out| {
            server::metadata::encode_response(out, version, &cluster);
        });
    }
    for version in [3, 5, 8, 9, 10, 13] {
        let topic = if version >= 13 { TopicRef::Id([7; 16]) } else { TopicRef::Name("t") };
        let answer = PartitionAnswer {
            topic,
            index: 1,
            error: ErrorCode(6),
            base_offset: 9,
            log_append_time: -1,
            log_start_offset: 0,
            record_errors: vec![(0, Some("m".into())), (2, None)],
            error_message: Some("words"),
            current_leader: Some((2, 5)),
        };
        let endpoint = NodeEndpoint { node_id: 2, host: "h".into(), port: 1, rack: None };
        let tail = ProduceTail { throttle_ms: 3, node_endpoints: vec![endpoint] };
        frame(2, "produce", ApiKey::PRODUCE, 3, version, &|out| {
            server::produce::encode_response(out, version, &[(topic, vec![answer.clone(), answer.clone()])], &tail);
        });
    }
    let identity = init_producer_id::InitProducerIdResponse {
        throttle_ms: 0,
        error: ErrorCode::NONE,
        producer_id: 4242,
        epoch: 1,
    };
    for version in [0, 2] {
        frame(3, "producer-id", ApiKey::INIT_PRODUCER_ID, 0, version, &|out| {
            server::init_producer_id::encode_response(out, version, &identity);
        });
    }
    add("frames".into(), [&[4, 3][..], &[0, 0, 0, 4, 1, 2, 3, 4], &[0, 0, 0, 5, 1, 2, 3, 4, 5], &[255; 4]].concat());
    add("batch".into(), [&[5, 0][..], &hex(GOLDEN)].concat());
    let mut request = Vec::new();
    let start = begin_request(&mut request, ApiKey::METADATA, 12, 7, "c");
    metadata::encode_request(&mut request, 12, Some(&["t"]), true);
    end_request(&mut request, start, 0);
    add("request".into(), [&[6, 0][..], &request[4..]].concat());
    // What the embedded broker itself says.
    let mut model = BrokerModel::new(BrokerOptions::default(), vec![([127, 0, 0, 1], 9092).into()]);
    let mut out = Vec::new();
    let incoming = Incoming { node: 0, connection: 0, unix_ms: 0, may_wait: false, frame: &request[4..] };
    let _ = model.handle(&incoming, &mut out);
    add("broker-metadata".into(), [&[1, 11][..], &out[4..]].concat());
}

/// acks, in flight, linger, batch size, idle time, metadata age, largest message, highest version of Produce.
const PLAIN: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 10];
const SMALL_MESSAGES: &[u8] = &[0, 0, 1, 0, 0, 0, 1, 10];
const ACKS_0: &[u8] = &[4, 0, 0, 1, 1, 1, 0, 6];
/// Both topics are asked for, made, asked for again, and the answers come.
const KNOWN: &[u8] = &[14, 0, 2, 14, 1, 2, 4, 7, 3, 4, 14, 0, 2, 14, 1, 2, 4, 7];
const SEND: &[u8] = &[0, 0, 0, 1, 0, 0, 1, 2, 0, 1, 0, 0];
const SEND_LARGE: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 1];
const GO: &[u8] = &[4, 7];
const LATER: &[u8] = &[3, 3];
const MUCH_LATER: &[u8] = &[3, 6];

const CONNECTION: &[(&str, &[&[u8]])] = &[
    ("delivered", &[PLAIN, KNOWN, SEND, GO, SEND, SEND_LARGE, GO]),
    ("retried", &[PLAIN, KNOWN, SEND, &[18, 1], GO, LATER, GO, LATER, GO, &[18, 12], SEND, GO, LATER, GO, LATER, GO]),
    ("split", &[SMALL_MESSAGES, KNOWN, SEND_LARGE, SEND_LARGE, GO, LATER, GO, LATER, GO, GO]),
    ("acks-0", &[ACKS_0, KNOWN, SEND, GO, SEND, GO]),
    ("lost", &[PLAIN, KNOWN, SEND, GO, SEND, &[7, 0, 7, 1, 8, 0, 12, 0, 12, 0], LATER, GO, LATER, GO]),
    ("expired", &[PLAIN, KNOWN, SEND, GO, &[18, 14], SEND, GO, SEND, MUCH_LATER, GO]),
    ("lies", &[PLAIN, KNOWN, SEND, &[7, 0, 16, 0, 0, 140, 2, 0, 0, 0, 9, 0, 7], LATER, GO, SEND, GO]),
    (
        "noise",
        &[
            PLAIN,
            KNOWN,
            SEND,
            &[7, 0, 15, 0, 6, 1, 2, 3, 4, 5, 6, 11, 0, 4, 0, 0, 0, 9],
            GO,
            &[7, 0, 8, 0, 10, 0, 9, 7],
        ],
    ),
    ("moved", &[PLAIN, KNOWN, SEND, GO, &[19, 0, 0, 2], SEND, GO, LATER, GO, &[19, 0, 0, 3], SEND, GO]),
];

/// Memory, batch size, slots, partitions.
const ROOMY: &[u8] = &[3, 2, 2, 1];
const TIGHT: &[u8] = &[0, 1, 0, 2];
/// Partition; tag, timestamp, length, key; may it open a batch?
const APPEND: &[u8] = &[0, 0, 2, 128, 4, 0, 0, 1, 1, 0, 130, 7, 2, 0, 2, 0, 1, 120, 9, 0, 3];
const APPEND_LARGE: &[u8] = &[0, 0, 2, 128, 13, 0, 0, 0, 0, 0, 128, 14, 0, 0];
const CLAIM: &[u8] = &[5, 0, 2, 128, 6, 0, 5, 0, 0, 128, 12, 2];

const ACCUMULATOR: &[(&str, &[&[u8]])] = &[
    ("batches", &[ROOMY, APPEND, &[13, 0], APPEND, &[9, 0, 9, 1], APPEND, &[10, 0, 11, 0, 0]]),
    ("large", &[ROOMY, APPEND_LARGE, APPEND, APPEND_LARGE, &[8, 0, 9, 0, 11, 0, 0], APPEND_LARGE, &[10, 0]]),
    ("claims", &[ROOMY, CLAIM, &[6, 0, 0, 7, 0, 0, 0], CLAIM, &[7, 0, 0, 7], APPEND, &[6, 0, 0, 10, 0, 12, 0, 0]]),
    ("full", &[TIGHT, APPEND, APPEND, APPEND_LARGE, APPEND_LARGE, APPEND, &[14, 0, 0, 9, 0], APPEND, &[12, 0, 0]]),
    ("closed", &[TIGHT, APPEND, &[15, 0, 2], APPEND, CLAIM, &[6, 0, 0, 9, 0, 15, 1, 2, 10, 0]]),
    ("hints", &[ROOMY, &[14, 0, 0, 14, 0, 2, 1, 14, 0, 4, 1, 14, 1, 4, 2], APPEND, APPEND, &[15, 0, 0, 9], APPEND]),
];
