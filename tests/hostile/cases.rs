//! What a broker can do wrong, and what must come of it. Shared by the library's test and the command's.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
};
use kafka_protocol::messages::produce_response::ProduceResponse;
use kafka_protocol::messages::{ApiVersionsResponse, BrokerId, InitProducerIdResponse, ProducerId};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ringmail::testing::hostile::{Asked, Deed, HostileBroker, Occasion, body_at, with_each_count};
use ringmail::testing::{BrokerOptions, TopicOptions};

pub const PRODUCE: i16 = 0;
pub const METADATA: i16 = 3;
pub const API_VERSIONS: i16 = 18;
pub const INIT_PRODUCER_ID: i16 = 22;

/// Short, so that a case takes a few seconds; the rest are defaults.
pub const SETTINGS: &[(&str, &str)] = &[
    ("max.block.ms", "2000"),
    ("delivery.timeout.ms", "3500"),
    ("request.timeout.ms", "1000"),
    ("socket.connection.setup.timeout.ms", "1000"),
    ("linger.ms", "0"),
    ("buffer.memory", "4194304"),
];

/// The topic that is sent to; it has one partition.
pub const TOPIC: &str = "t";

pub struct Case {
    pub name: &'static str,
    pub hook: Box<dyn Fn(Occasion) -> Deed + Send + Sync>,
    pub end: End,
}

/// What must come of it. The words must stand in the error's message, beside the broker's host and port.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It is legal, or harmless: every record is delivered.
    Delivered,
    /// There is no metadata or no producer id; nothing is sent.
    NotReady(&'static [&'static str]),
    /// As `NotReady`, but it passes with time.
    NotReadyYet(&'static [&'static str]),
    /// Records are accepted, and fail.
    Failed(&'static [&'static str]),
}

use End::{Delivered, Failed, NotReady, NotReadyYet};

pub fn start(case: &mut Case) -> HostileBroker {
    let hook = std::mem::replace(&mut case.hook, Box::new(|_| Deed::Send(Vec::new())));
    let broker = HostileBroker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }, hook).unwrap();
    let options = TopicOptions { partitions: 1, ..TopicOptions::default() };
    assert!(broker.with_model(|model| model.create_topic(TOPIC, options)));
    broker
}

/// The most connections that the backoffs allow in this time: three endpoints (the bootstrap server, and the same
/// broker by its id, for metadata and for batches), each with 50 ms, then twice as much up to 1 s, less a fifth;
/// and ten that follow each other at once.
pub fn connections_max(took: std::time::Duration) -> u64 {
    10 + 3 * (6 + took.as_millis() as u64 / 800)
}

fn honest(occasion: Occasion) -> Deed {
    match occasion {
        Occasion::Accepted => Deed::Send(Vec::new()),
        Occasion::Asked(asked) => Deed::Send(asked.answer),
    }
}

/// Does this instead of answering requests of one API.
fn on(name: &'static str, api: i16, end: End, deed: impl Fn(Asked) -> Deed + Send + Sync + 'static) -> Case {
    let hook = move |occasion| match occasion {
        Occasion::Asked(asked) if asked.api == api => deed(asked),
        other => honest(other),
    };
    Case { name, hook: Box::new(hook), end }
}

/// Does this as soon as a connection stands.
fn at_once(name: &'static str, end: End, deed: Deed) -> Case {
    let hook = move |occasion| match occasion {
        Occasion::Accepted => deed.clone(),
        other => honest(other),
    };
    Case { name, hook: Box::new(hook), end }
}

/// Does this on every request.
fn always(name: &'static str, end: End, deed: impl Fn(Asked) -> Deed + Send + Sync + 'static) -> Case {
    let hook = move |occasion| match occasion {
        Occasion::Asked(asked) => deed(asked),
        other => honest(other),
    };
    Case { name, hook: Box::new(hook), end }
}

/// The answer, read and written by another library, with a change.
fn edit<M: Decodable + Encodable>(asked: &Asked, change: impl FnOnce(&mut M)) -> Vec<u8> {
    let at = body_at(asked.api, asked.version);
    let mut message = M::decode(&mut Bytes::copy_from_slice(&asked.answer[at..]), asked.version).unwrap();
    change(&mut message);
    let mut out = BytesMut::from(&asked.answer[..at]);
    message.encode(&mut out, asked.version).unwrap();
    sized(out.to_vec())
}

fn edited<M: Decodable + Encodable>(
    name: &'static str,
    api: i16,
    end: End,
    change: impl Fn(&mut M) + Send + Sync + 'static,
) -> Case {
    on(name, api, end, move |asked| Deed::Send(edit(&asked, &change)))
}

fn metadata(name: &'static str, end: End, change: impl Fn(&mut MetadataResponse) + Send + Sync + 'static) -> Case {
    edited(name, METADATA, end, change)
}

/// Spoils the first two metadata answers only.
fn first_metadata(name: &'static str, change: impl Fn(&mut MetadataResponse) + Send + Sync + 'static) -> Case {
    on(name, METADATA, Delivered, move |asked| match asked.nth {
        0 | 1 => Deed::Send(edit(&asked, &change)),
        _ => Deed::Send(asked.answer),
    })
}

fn produced(name: &'static str, end: End, change: impl Fn(&mut ProduceResponse) + Send + Sync + 'static) -> Case {
    edited(name, PRODUCE, end, change)
}

/// The frame with its size put right.
pub fn sized(mut frame: Vec<u8>) -> Vec<u8> {
    let size = (frame.len() as u32 - 4).to_be_bytes();
    frame[..4].copy_from_slice(&size);
    frame
}

/// The frame under another correlation id.
fn correlated(mut frame: Vec<u8>, id: i32) -> Vec<u8> {
    frame[4..8].copy_from_slice(&id.to_be_bytes());
    frame
}

fn size_of(size: i32) -> impl Fn(Asked) -> Deed {
    move |asked| Deed::SendAndHang([&size.to_be_bytes(), &asked.answer[4..]].concat())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn address(response: &mut MetadataResponse, host: &str, port: i32) {
    for broker in &mut response.brokers {
        (broker.host, broker.port) = (text(host), port);
    }
}

/// Adds a broker 77 and makes it the leader of everything.
fn led_by(response: &mut MetadataResponse, host: &str, port: i32) {
    let broker = MetadataResponseBroker::default().with_node_id(BrokerId(77)).with_host(text(host)).with_port(port);
    response.brokers.push(broker);
    for topic in &mut response.topics {
        topic.partitions.iter_mut().for_each(|partition| partition.leader_id = BrokerId(77));
    }
}

fn partition(like: &MetadataResponse, index: i32) -> MetadataResponsePartition {
    like.topics[0].partitions[0].clone().with_partition_index(index)
}

const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request";
const TLS_ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 70];

pub fn cases() -> Vec<Case> {
    let mut cases = no_kafka();
    cases.extend(bad_frames());
    cases.extend(bad_versions());
    cases.extend(bad_metadata());
    cases.extend(bad_producer_ids());
    cases.extend(bad_produce_answers());
    cases.extend(throttles());
    cases.extend(harmless());
    cases
}

fn no_kafka() -> Vec<Case> {
    let garbage = [0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 1, 2, 3];
    vec![
        always("garbage", NotReady(&["frame length -559038737"]), move |_| Deed::SendAndClose(garbage.to_vec())),
        always("garbage in a frame", NotReady(&["answered request"]), |_| {
            Deed::Send(b"\0\0\0\x0crandom bytes".to_vec())
        }),
        always("HTTP", NotReady(&["answers as HTTP", "400 Bad Request"]), |_| Deed::SendAndClose(HTTP.to_vec())),
        always("a TLS alert", NotReady(&["speaks TLS"]), |_| Deed::SendAndClose(TLS_ALERT.to_vec())),
        at_once(
            "an SSH banner",
            NotReady(&["SSH-2.0-OpenSSH_9.2"]),
            Deed::SendAndHang(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ),
        at_once("never answers", NotReady(&["no answer to ApiVersions"]), Deed::SendAndHang(Vec::new())),
        at_once("closes when it accepted", NotReady(&["closed the connection"]), Deed::SendAndClose(Vec::new())),
        at_once("sends one byte and closes", NotReady(&["closed the connection"]), Deed::SendAndClose(vec![0])),
        at_once("reads one byte and closes", NotReady(&["onnection", "negotiated"]), Deed::ReadOneAndClose),
        always("closes at every request", NotReady(&["closed the connection"]), |_| Deed::SendAndClose(Vec::new())),
        at_once(
            "answers before it is asked",
            NotReady(&["answered request 7"]),
            Deed::Send(vec![0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0]),
        ),
    ]
}

fn bad_frames() -> Vec<Case> {
    vec![
        on("frame length 2^31-1", API_VERSIONS, NotReady(&["frame length 2147483647"]), size_of(i32::MAX)),
        on("frame length 0", API_VERSIONS, NotReady(&["frame length 0"]), size_of(0)),
        on("frame length -5", API_VERSIONS, NotReady(&["frame length -5"]), size_of(-5)),
        on(
            "frame length 90 MB for a little question",
            API_VERSIONS,
            NotReady(&["frame length 90000000"]),
            size_of(90_000_000),
        ),
        on("frame length -5 later", METADATA, NotReady(&["frame length -5"]), size_of(-5)),
        on("half a frame", API_VERSIONS, NotReady(&["no answer to ApiVersions", "of an answer's"]), |asked| {
            Deed::SendAndHang(asked.answer[..asked.answer.len() / 2].to_vec())
        }),
        on("half a frame of metadata", METADATA, NotReady(&["request.timeout.ms", "of an answer's"]), |asked| {
            Deed::SendAndHang(asked.answer[..asked.answer.len() / 2].to_vec())
        }),
        on("a wrong correlation id", API_VERSIONS, NotReady(&["answered request 1000"]), |asked| {
            Deed::Send(correlated(asked.answer, 1000))
        }),
        on("a wrong correlation id later", METADATA, NotReady(&["answered request -1"]), |asked| {
            Deed::Send(correlated(asked.answer, -1))
        }),
        on("never answers Metadata", METADATA, NotReady(&["no answer", "request.timeout.ms"]), |_| {
            Deed::SendAndHang(Vec::new())
        }),
        on("an answer that ends early", METADATA, NotReady(&["cannot be read"]), |asked| {
            Deed::Send(sized(asked.answer[..asked.answer.len() / 2].to_vec()))
        }),
        on("counts of 2^31-1 in ApiVersions", API_VERSIONS, NotReady(&["ApiVersions cannot be read"]), spoil_count),
        on("counts of 2^31-1 in Metadata", METADATA, NotReady(&["metadata cannot be read"]), spoil_count),
        on(
            "counts of 2^31-1 in InitProducerId",
            INIT_PRODUCER_ID,
            NotReady(&["producer id cannot be read"]),
            spoil_count,
        ),
        on("counts of 2^31-1 in Produce", PRODUCE, Failed(&["Produce cannot be read"]), spoil_count),
    ]
}

/// Another count each time.
fn spoil_count(asked: Asked) -> Deed {
    let all = with_each_count(asked.api, asked.version, &asked.answer);
    assert!(!all.is_empty());
    Deed::Send(all[asked.nth as usize % all.len()].clone())
}

fn bad_versions() -> Vec<Case> {
    vec![
        edited::<ApiVersionsResponse>("no APIs", API_VERSIONS, NotReady(&["no version of Produce"]), |response| {
            response.api_keys.clear();
        }),
        edited::<ApiVersionsResponse>("only ancient APIs", API_VERSIONS, NotReady(&["Produce", "0.11"]), |response| {
            response.api_keys.iter_mut().for_each(|api| (api.min_version, api.max_version) = (0, 2));
        }),
        edited::<ApiVersionsResponse>(
            "no InitProducerId",
            API_VERSIONS,
            NotReady(&["no InitProducerId"]),
            |response| {
                response.api_keys.retain(|api| api.api_key != INIT_PRODUCER_ID);
            },
        ),
        on("UNSUPPORTED_VERSION to every version", API_VERSIONS, NotReady(&["UNSUPPORTED_VERSION"]), |asked| {
            Deed::Send(sized([&asked.answer[..8], &[0, 35, 0, 0, 0, 0]].concat()))
        }),
        on("UNSUPPORTED_VERSION once", API_VERSIONS, Delivered, |asked| match asked.version {
            0 => Deed::Send(asked.answer),
            _ => Deed::Send(sized([&asked.answer[..8], &[0, 35, 0, 0, 0, 0]].concat())),
        }),
    ]
}

fn bad_metadata() -> Vec<Case> {
    vec![
        metadata("no brokers", NotReady(&["names no broker"]), |response| response.brokers.clear()),
        metadata("a broker at port 0", NotReady(&["names no broker", "port 0"]), |response| {
            address(response, "localhost", 0)
        }),
        metadata("a broker at port 70000", NotReady(&["names no broker", "port 70000"]), |response| {
            address(response, "localhost", 70_000);
        }),
        metadata("a broker at port -1", NotReady(&["names no broker", "port -1"]), |response| {
            address(response, "localhost", -1)
        }),
        metadata("an empty host name", NotReady(&["names no broker", "host name"]), |response| {
            address(response, "", 9092)
        }),
        metadata("a host name of 32 kB", NotReady(&["names no broker", "32000 bytes"]), |response| {
            address(response, &"h".repeat(32_000), 9092);
        }),
        metadata("a host name that would write on a terminal", NotReady(&["names no broker"]), |response| {
            address(response, "\x1b[2Jhost\n", 9092);
        }),
        metadata("a topic with another name", NotReady(&["topic 't'"]), |response| {
            response.topics[0].name = Some(text("other").into());
        }),
        metadata("no topic", NotReady(&["topic 't'"]), |response| response.topics.clear()),
        metadata("a topic without partitions", NotReady(&["topic 't'"]), |response| {
            response.topics[0].partitions.clear()
        }),
        metadata("negative partitions only", NotReady(&["topic 't'"]), |response| {
            response.topics[0].partitions = vec![partition(response, -1), partition(response, i32::MIN)];
        }),
        metadata("a leader that is no broker", Failed(&["leader", "77"]), |response| {
            response.topics[0].partitions[0].leader_id = BrokerId(77);
        }),
        metadata("no leader", Failed(&["no leader"]), |response| {
            response.topics[0].partitions[0].leader_id = BrokerId(-1);
        }),
        metadata("a leader at port 0", Failed(&["leader", "77"]), |response| led_by(response, "localhost", 0)),
        metadata("a leader whose host has no address", Failed(&["no-such-host.invalid:9092"]), |response| {
            led_by(response, "no-such-host.invalid", 9092);
        }),
        // Port 1 on loopback: nobody listens there.
        metadata("a leader that is not there", Failed(&["127.0.0.1:1 (broker 77)", "refused"]), |response| {
            led_by(response, "127.0.0.1", 1);
        }),
        metadata("partition 2^31-1 beside the good one", Delivered, |response| {
            let more = [i32::MAX, i32::MIN, -1, 1_000_000_000].map(|index| partition(response, index));
            response.topics[0].partitions.extend(more);
        }),
        metadata("the same partition a hundred times", Delivered, |response| {
            response.topics[0].partitions = vec![partition(response, 0); 100];
        }),
        metadata("the same broker a hundred times", Delivered, |response| {
            response.brokers = vec![response.brokers[0].clone(); 100];
        }),
        always(
            "10,000 brokers that all close the connection",
            NotReady(&["closed the connection"]),
            |asked| match asked {
                Asked { api: METADATA, .. } => Deed::SendAndClose(edit(&asked, |response: &mut MetadataResponse| {
                    let like = response.brokers[0].clone();
                    response.brokers.extend((1..10_000).map(|id| like.clone().with_node_id(BrokerId(id))));
                })),
                Asked { api: API_VERSIONS, nth: 0, .. } => Deed::Send(asked.answer),
                _ => Deed::SendAndClose(Vec::new()),
            },
        ),
        on("100,000 topics that nobody asked for", METADATA, Delivered, |asked| Deed::Send(many_topics(&asked))),
    ]
}

/// The answer with 100,000 topics more. Put together by hand: the other library takes longer than a case may.
fn many_topics(asked: &Asked) -> Vec<u8> {
    assert_eq!(asked.version, 13, "what stands behind the topics, and that the count is compact");
    let more = edit(asked, |response: &mut MetadataResponse| {
        let topic = response.topics[0].clone().with_name(Some(text("unasked-000000").into()));
        response.topics.push(topic);
    });
    let one = &asked.answer;
    let count = (4..one.len()).find(|at| one[*at] != more[*at]).unwrap();
    let end = one.len() - 3;
    let mut element = more[end..more.len() - 3].to_vec();
    let digits = element.windows(6).position(|bytes| bytes == b"000000").unwrap();
    // 100,001 topics, and one more as compact counts are.
    let mut out = [&one[..count], &[0xa2, 0x8d, 0x06], &one[count + 1..end]].concat();
    for number in 0..100_000 {
        element[digits..digits + 6].copy_from_slice(format!("{number:06}").as_bytes());
        out.extend_from_slice(&element);
    }
    out.extend_from_slice(&one[end..]);
    sized(out)
}

fn bad_producer_ids() -> Vec<Case> {
    let answer = |name, end, id, epoch| {
        edited::<InitProducerIdResponse>(name, INIT_PRODUCER_ID, end, move |response| {
            (response.producer_id, response.producer_epoch) = (ProducerId(id), epoch);
        })
    };
    vec![
        answer("producer id -1", NotReady(&["producer id -1"]), -1, 0),
        answer("producer epoch -1", NotReady(&["epoch -1"]), 1, -1),
        answer("producer epoch 32767", Delivered, 1, i16::MAX),
        on("a wrong correlation id with the producer id", INIT_PRODUCER_ID, NotReady(&["answered request"]), |asked| {
            Deed::Send(correlated(asked.answer, 99))
        }),
        on("never gives a producer id", INIT_PRODUCER_ID, NotReady(&["no answer"]), |_| Deed::SendAndHang(Vec::new())),
    ]
}

fn bad_produce_answers() -> Vec<Case> {
    vec![
        produced("a topic never asked", Failed(&["not asked"]), |response| {
            let mut other = response.responses[0].clone();
            other.name = text("other").into();
            other.topic_id = "00000000-0000-0000-0000-000000000001".parse().unwrap();
            response.responses.push(other);
        }),
        produced("a partition never asked", Failed(&["not asked"]), |response| {
            let other = response.responses[0].partition_responses[0].clone().with_index(i32::MAX);
            response.responses[0].partition_responses.push(other);
        }),
        produced("the partition missing", Failed(&["did not answer for all"]), |response| {
            response.responses[0].partition_responses.clear();
        }),
        produced("everything missing", Failed(&["did not answer for all"]), |response| response.responses.clear()),
        produced("a partition answered twice", Failed(&["not asked"]), |response| {
            let again = response.responses[0].partition_responses[0].clone();
            response.responses[0].partition_responses.push(again);
        }),
        on("a wrong correlation id to Produce", PRODUCE, Failed(&["answered request"]), |asked| {
            Deed::Send(correlated(asked.answer, -7))
        }),
        on("never answers Produce", PRODUCE, Failed(&["no answer within request.timeout.ms"]), |_| {
            Deed::SendAndHang(Vec::new())
        }),
        on("closes at Produce", PRODUCE, Failed(&["closed the connection"]), |_| Deed::SendAndClose(Vec::new())),
        on("half a frame of Produce", PRODUCE, Failed(&["request.timeout.ms", "of an answer's"]), |asked| {
            Deed::SendAndHang(asked.answer[..asked.answer.len() / 2].to_vec())
        }),
        on("HTTP at Produce", PRODUCE, Failed(&["answers as HTTP"]), |_| Deed::SendAndClose(HTTP.to_vec())),
        produced("an error with 100 kB of words", Failed(&["UNKNOWN_SERVER_ERROR", "because because"]), |response| {
            let answer = &mut response.responses[0].partition_responses[0];
            answer.error_code = -1;
            answer.error_message = Some(text(&"because \x1b[2J".repeat(10_000).replace("\x1b[2J", "")));
        }),
        produced("an error whose words would write on a terminal", Failed(&["UNKNOWN_SERVER_ERROR"]), |response| {
            let answer = &mut response.responses[0].partition_responses[0];
            answer.error_code = -1;
            answer.error_message = Some(text("\x1b[2J\x07\r"));
        }),
    ]
}

fn throttles() -> Vec<Case> {
    let negative = always("negative throttle times", Delivered, |asked| {
        Deed::Send(match asked.api {
            API_VERSIONS => edit::<ApiVersionsResponse>(&asked, |response| response.throttle_time_ms = -1),
            METADATA => edit::<MetadataResponse>(&asked, |response| response.throttle_time_ms = i32::MIN),
            INIT_PRODUCER_ID => edit::<InitProducerIdResponse>(&asked, |response| response.throttle_time_ms = -2),
            PRODUCE => edit::<ProduceResponse>(&asked, |response| response.throttle_time_ms = i32::MIN),
            _ => asked.answer,
        })
    });
    vec![
        negative,
        edited::<ApiVersionsResponse>(
            "throttled for ever",
            API_VERSIONS,
            NotReadyYet(&["2147483647 ms"]),
            |response| {
                response.throttle_time_ms = i32::MAX;
            },
        ),
        // Whichever is asked for first.
        always("throttled for ever after the first answer", NotReadyYet(&["2147483647 ms"]), |asked| {
            Deed::Send(match asked.api {
                METADATA => edit::<MetadataResponse>(&asked, |response| response.throttle_time_ms = i32::MAX),
                INIT_PRODUCER_ID => {
                    edit::<InitProducerIdResponse>(&asked, |response| response.throttle_time_ms = i32::MAX)
                }
                _ => asked.answer,
            })
        }),
    ]
}

fn harmless() -> Vec<Case> {
    let offset = |name, offset| {
        produced(name, Delivered, move |response| {
            response.responses[0].partition_responses[0].base_offset = offset;
        })
    };
    vec![
        always("answers byte by byte", Delivered, |asked| Deed::Drip(asked.answer)),
        offset("base offset -1", -1),
        offset("base offset 2^63-1", i64::MAX),
        offset("base offset -2^63", i64::MIN),
        on("every Produce answer twice", PRODUCE, Delivered, |asked| {
            Deed::Send([&asked.answer[..], &asked.answer].concat())
        }),
        on("the first metadata answer twice", METADATA, Delivered, |asked| {
            let again: &[u8] = if asked.nth == 0 { &asked.answer } else { &[] };
            Deed::Send([&asked.answer, again].concat())
        }),
        first_metadata("no topic at first", |response| response.topics.clear()),
        first_metadata("no partitions at first", |response| response.topics[0].partitions.clear()),
        first_metadata("no brokers at first", |response| response.brokers.clear()),
        first_metadata("a leader without an address at first", |response| {
            response.topics[0].partitions[0].leader_id = BrokerId(77);
        }),
        first_metadata("a wrong address at first", |response| address(response, "127.0.0.1", 1)),
        on("leaders named in every Produce answer, nobody knows why", PRODUCE, Delivered, |asked| {
            Deed::Send(edit::<ProduceResponse>(&asked, |response| {
                let leader = &mut response.responses[0].partition_responses[0].current_leader;
                (leader.leader_id, leader.leader_epoch) = (BrokerId(i32::MAX), i32::MAX);
            }))
        }),
    ]
}
