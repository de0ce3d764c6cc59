//! Everything but Produce that a producer asks a broker.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{
    ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse, MetadataResponse, ProducerId,
};
use kafka_protocol::protocol::StrBytes;

use crate::batch::{Batch, Rec, t0};
use crate::client::{Connection, Reply, decoded, describe_offsets, encoded, frame};
use crate::script::{Script, name, software};

pub fn all(script: &mut Script<'_>) {
    api_versions(script);
    correlation_ids(script);
    sizes(script);
    producer_ids(script);
    offsets(script);
    metadata(script);
}

fn api_versions(script: &mut Script<'_>) {
    script.chapter("ApiVersions");
    let describe = |version: i16| {
        move |answer: &[u8]| {
            // What is refused is answered in version 0, and 5 is answered as 4 is.
            let version = if answer.starts_with(&[0, 35]) { 0 } else { version.min(4) };
            let response: ApiVersionsResponse = decoded(answer, version);
            let of = |key| response.api_keys.iter().find(|api| api.api_key == key);
            let ranges = [0, 3, 18, 22].map(|key| {
                of(key).map_or(format!("{key}: none"), |api| format!("{key}: {}-{}", api.min_version, api.max_version))
            });
            format!("{} {}", response.error_code, ranges.join(", "))
        }
    };
    for version in 0..=4 {
        let body = if version < 3 { Vec::new() } else { encoded(&software("ringmail", "0.1.0"), version) };
        script.ask(&format!("v{version}"), &frame(18, version, 1, version >= 3, &body), describe(version));
    }
    identified(script, describe(5));
    for version in [99, i16::MAX, -1] {
        let asked = |flexible, body: &[u8]| frame(18, version, 1, flexible, body);
        script.ask(&format!("v{version}"), &asked(true, &encoded(&software("a", "1"), 4)), describe(0));
        script.ping("and then");
        script.ask(&format!("v{version}, no body"), &asked(true, &[]), describe(0));
        script.ask(&format!("v{version}, header v1"), &asked(false, &[]), describe(0));
    }
    let names = [
        ("", "1"),
        ("a", ""),
        ("a b", "1"),
        ("-a", "1"),
        ("a-", "1"),
        ("a.b-c", "1.2-x"),
        ("ä", "1"),
        ("a_b", "1"),
        ("a", "1 "),
    ];
    for (software_name, version) in names {
        let body = encoded(&software(software_name, version), 4);
        script.ask(&format!("software {software_name:?} {version:?}"), &frame(18, 4, 1, true, &body), describe(4));
    }
    script.ask("no body", &frame(18, 4, 1, true, &[]), describe(4));
    script.ask("bytes behind the body", &frame(18, 0, 1, false, &[1, 2, 3]), describe(0));
    for api in [-1, 9999, 4] {
        script.ask(&format!("API {api}"), &frame(api, 0, 1, false, &[]), |_| "answered".to_owned());
    }
}

/// Version 5 (KIP-1242) says whom the client thinks that it talks to.
fn identified(script: &mut Script<'_>, describe: impl Fn(&[u8]) -> String) {
    let known = script.metadata(Some(&[]));
    let cluster = known.cluster_id.map_or(String::new(), |id| id.to_string());
    let node = known.brokers[0].node_id.0;
    let body = |cluster: Option<&str>, node: i32| {
        let mut body = encoded(&software("a", "1"), 4);
        // The tags come last.
        body.pop();
        body.push(cluster.map_or(0, |cluster| cluster.len() as u8 + 1));
        body.extend(cluster.unwrap_or_default().as_bytes());
        body.extend(node.to_be_bytes());
        body.push(0);
        body
    };
    for (what, cluster, node) in [
        ("nobody in particular", None, -1),
        ("this broker", Some(&*cluster), node),
        ("another node", Some(&*cluster), node + 1),
        ("another cluster", Some("another"), node),
        ("a cluster without a name", Some(""), node),
        ("a node of any cluster", None, node),
        ("any node of a cluster", Some(&*cluster), -1),
        ("node -2", Some(&*cluster), -2),
        ("node -2 of any cluster", None, -2),
    ] {
        script.ask(&format!("v5 for {what}"), &frame(18, 5, 1, true, &body(cluster, node)), &describe);
        script.ping("and then");
    }
    script.ask("v5, the body of v4", &frame(18, 5, 1, true, &encoded(&software("a", "1"), 4)), &describe);
    script.ask("v5, no body", &frame(18, 5, 1, true, &[]), &describe);
    script.ask("v5, header v1", &frame(18, 5, 1, false, &body(None, -1)), &describe);
}

fn correlation_ids(script: &mut Script<'_>) {
    script.chapter("correlation ids");
    let ids = [0, 1, -1, i32::MAX, i32::MIN, 5, 5, 4];
    let asked: Vec<u8> = ids.iter().flat_map(|id| frame(18, 0, *id, false, &[])).collect();
    let mut connection = Connection::open(script.world.address());
    connection.send(&asked);
    let answered = ids.map(|_| match connection.receive() {
        Reply::Frame(answer) => i32::from_be_bytes(answer[..4].try_into().unwrap()).to_string(),
        reply => reply.describe(|_| String::new()),
    });
    script.line("eight at once", &answered.join(" "));
    // No client id, which is a length of -1.
    let nameless = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 3, 0xff, 0xff];
    script.ask("no client id", &nameless, |_| "answered".to_owned());
    let shorter = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 3, 0xff, 0xfe];
    script.ask("client id of length -2", &shorter, |_| "answered".to_owned());
    let longer = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 3, 0, 5];
    script.ask("client id longer than the request", &longer, |_| "answered".to_owned());
}

fn sizes(script: &mut Script<'_>) {
    script.chapter("sizes of requests");
    for size in [0, 1, 3, 4, 7, 8, 9] {
        let bytes = [&i32::to_be_bytes(size)[..], &[0, 18, 0, 0, 0, 0, 0, 3, 0xff][..size as usize]].concat();
        script.ask(&format!("{size}"), &bytes, |_| "answered".to_owned());
    }
    for size in [-1, i32::MIN, 104_857_601, i32::MAX] {
        script.ask(&format!("{size}"), &size.to_be_bytes(), |_| "answered".to_owned());
    }
}

fn producer_ids(script: &mut Script<'_>) {
    script.chapter("InitProducerId");
    // A broker that has just started may not have its ids yet.
    let asked = |version: i16, id: Option<&str>, timeout: i32, producer_id: i64, epoch: i16| {
        let mut request = InitProducerIdRequest::default().with_transaction_timeout_ms(timeout);
        request.transactional_id = id.map(|id| StrBytes::from_string(id.to_owned()).into());
        request.producer_id = ProducerId(producer_id);
        request.producer_epoch = epoch;
        frame(22, version, 1, version >= 2, &encoded(&request, version))
    };
    let describe = |version: i16| {
        move |answer: &[u8]| {
            let response: InitProducerIdResponse = decoded(answer, version);
            let id = if response.producer_id.0 >= 0 { "an id".to_owned() } else { response.producer_id.0.to_string() };
            format!("{} {id} epoch {}", response.error_code, response.producer_epoch)
        }
    };
    let loading = |reply: &Reply| reply.describe(describe(4)).starts_with("14");
    while loading(&script.exchange(&asked(4, None, 1, -1, -1))) {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for version in 0..=5 {
        script.ask(&format!("v{version}"), &asked(version, None, i32::MAX, -1, -1), describe(version));
    }
    for version in [-1, 6, 7] {
        script.ask(&format!("v{version}"), &frame(22, version, 1, version >= 2, &[]), |_| "answered".to_owned());
    }
    for timeout in [0, -1, 1, i32::MIN] {
        script.ask(&format!("timeout {timeout}"), &asked(4, None, timeout, -1, -1), describe(4));
    }
    for (id, epoch) in [(5, 0), (5, -1), (-1, 0), (5, i16::MAX), (i64::MAX, 3), (-2, -2), (-2, -1)] {
        for version in [3, 4, 5] {
            script.ask(
                &format!("with id {id} and epoch {epoch}, v{version}"),
                &asked(version, None, 1000, id, epoch),
                describe(version),
            );
        }
    }
    script.ask("transactional id empty", &asked(4, Some(""), 1000, -1, -1), describe(4));
    script.ask("transactional id empty, with an id and no epoch", &asked(4, Some(""), 1000, 5, -1), describe(4));
    script.ask("a transactional id", &asked(4, Some("tx"), 1000, -1, -1), describe(4));
    let mut fresh = Vec::new();
    for _ in 0..3 {
        if let Reply::Frame(answer) = script.exchange(&asked(4, None, 1000, -1, -1)) {
            fresh.push(decoded::<InitProducerIdResponse>(&answer[4..], 4).producer_id.0);
        }
    }
    script.line("three in a row differ", &(fresh.len() == 3 && fresh[0] < fresh[1] && fresh[1] < fresh[2]).to_string());
}

fn offsets(script: &mut Script<'_>) {
    script.chapter("ListOffsets");
    script.topic("offsets", &[]);
    let asked = |version: i16, topic: &str, index: i32, epoch: i32, time: i64| {
        let mut partition = ListOffsetsPartition::default().with_partition_index(index).with_timestamp(time);
        partition.current_leader_epoch = epoch;
        let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        frame(2, version, 1, version >= 6, &encoded(&ListOffsetsRequest::default().with_topics(vec![topic]), version))
    };
    let times = [("latest", -1), ("earliest", -2), ("the largest time", -3)];
    for (what, time) in times {
        let version = if time == -3 { 7 } else { 6 };
        script.ask(&format!("{what} of an empty log"), &asked(version, "offsets", 0, -1, time), |a| {
            describe_offsets(a, version)
        });
    }
    script.ask("a time, in an empty log", &asked(6, "offsets", 0, -1, t0()), |a| describe_offsets(a, 6));
    for deltas in [[0, 10, 20], [50, 40, 30], [30, 50, 30]] {
        let record = |(n, delta): (i32, &i64)| Rec::nth(n).but(|r| r.timestamp_delta = *delta);
        script
            .send(&format!("records at {deltas:?}"), &Batch::new(&(0..).zip(&deltas).map(record).collect::<Vec<_>>()));
    }
    for version in 1..=7 {
        for (what, time) in times.iter().filter(|(_, time)| *time > -3 || version >= 7) {
            script.ask(&format!("{what}, v{version}"), &asked(version, "offsets", 0, -1, *time), |a| {
                describe_offsets(a, version)
            });
        }
    }
    for delta in [-1, 0, 1, 20, 25, 30, 31, 40, 45, 50, 51] {
        script.ask(&format!("T{delta:+}"), &asked(6, "offsets", 0, -1, t0() + delta), |a| describe_offsets(a, 6));
    }
    script.ask("time 0", &asked(6, "offsets", 0, -1, 0), |a| describe_offsets(a, 6));
    for (what, index, epoch) in [
        ("leader epoch 0", 0, 0),
        ("leader epoch 1", 0, 1),
        ("leader epoch -2", 0, -2),
        ("partition 1", 1, -1),
        ("partition -1", -1, -1),
    ] {
        script.ask(what, &asked(6, "offsets", index, epoch, -1), |a| describe_offsets(a, 6));
    }
    script.ask("an unknown topic", &asked(6, "absent", 0, -1, -1), |a| describe_offsets(a, 6));
}

fn describe_metadata(version: i16) -> impl Fn(&[u8]) -> String {
    move |answer| {
        let response: MetadataResponse = decoded(answer, version);
        let mut topics: Vec<_> = response
            .topics
            .iter()
            .map(|topic| {
                let name = topic.name.as_ref().map_or("null".to_owned(), |name| format!("{:?}", name.as_str()));
                let leaders = topic.partitions.iter().map(|p| format!("{} epoch {}", p.error_code, p.leader_epoch));
                let id = if topic.topic_id.is_nil() { "no id" } else { "an id" };
                format!("{} {name} {id} [{}]", topic.error_code, leaders.collect::<Vec<_>>().join(", "))
            })
            .collect();
        topics.sort();
        format!("{} {} broker; {}", response.error_code, response.brokers.len(), topics.join("; "))
    }
}

fn metadata(script: &mut Script<'_>) {
    script.chapter("Metadata");
    script.topic_of("described", 2, &[]);
    let asked = |version: i16, names: &[&str], create: bool| {
        let query = |topic: &&str| MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(names.iter().map(query).collect()));
        let request = request.with_allow_auto_topic_creation(create);
        frame(3, version, 1, version >= 9, &encoded(&request, version))
    };
    for version in 0..=13 {
        script.ask(
            &format!("a topic that is there, v{version}"),
            &asked(version, &["described"], true),
            describe_metadata(version),
        );
    }
    for version in [1, 8, 11, 13] {
        script.ask(&format!("no topics, v{version}"), &asked(version, &[], true), describe_metadata(version));
    }
    script.ask("the same twice", &asked(11, &["described", "described"], true), describe_metadata(11));
    let long = "a".repeat(250);
    let longest = "a".repeat(249);
    for version in [4, 11] {
        for topic in ["absent", "", ".", "..", "...", "a b", "a/b", "ä", "a.b_c-D9", "a\n", &long, &longest] {
            let short = if topic.len() > 20 { format!("{} letters", topic.len()) } else { format!("{topic:?}") };
            let said = |answer: &[u8]| {
                describe_metadata(version)(answer).replace(topic, if topic.len() > 20 { "…" } else { topic })
            };
            script.ask(&format!("{short}, v{version}"), &asked(version, &[topic], true), said);
        }
    }
    script.ask("absent, not to be made", &asked(11, &["absent"], false), describe_metadata(11));
    script.ask("absent and there", &asked(11, &["absent", "described"], false), describe_metadata(11));
    let by_id = |version: i16, topic: Option<&str>, id: [u8; 16]| {
        let mut query = MetadataRequestTopic::default().with_name(topic.map(name));
        query.topic_id = uuid(&id);
        let request = MetadataRequest::default().with_topics(Some(vec![query]));
        frame(3, version, 1, version >= 9, &encoded(&request, version))
    };
    let id = script.id_of("described");
    for version in [12, 13] {
        script.ask(&format!("by id, v{version}"), &by_id(version, None, id), describe_metadata(version));
        script.ask(
            &format!("by an unknown id, v{version}"),
            &by_id(version, None, [9; 16]),
            describe_metadata(version),
        );
        script.ask(
            &format!("by id zero and no name, v{version}"),
            &by_id(version, None, [0; 16]),
            describe_metadata(version),
        );
        script.ask(
            &format!("by name and id, v{version}"),
            &by_id(version, Some("described"), id),
            describe_metadata(version),
        );
        script.ask(
            &format!("by name and another id, v{version}"),
            &by_id(version, Some("described"), [9; 16]),
            describe_metadata(version),
        );
    }
    let nameless = MetadataRequestTopic::default().with_name(None);
    let named = MetadataRequestTopic::default().with_name(Some(name("described")));
    let absent = MetadataRequestTopic::default().with_name(Some(name("absent")));
    let mut with_id = named.clone();
    with_id.topic_id = uuid(&id);
    for (what, queries) in
        [("a nameless one and one that is there", [nameless, named]), ("one by id, another by name", [with_id, absent])]
    {
        for version in [12, 13] {
            let body = encoded(&MetadataRequest::default().with_topics(Some(queries.to_vec())), version);
            script.ask(&format!("{what}, v{version}"), &frame(3, version, 1, true, &body), describe_metadata(version));
        }
    }
    for version in [-1, 14] {
        script
            .ask(&format!("v{version}"), &frame(3, version, 1, version >= 9, &[1, 0, 0, 0]), |_| "answered".to_owned());
    }
}

/// As the other library names it, whose type has no name here.
fn uuid<U: std::str::FromStr>(id: &[u8; 16]) -> U {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().ok().unwrap()
}
