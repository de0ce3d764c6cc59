//! Versions, metadata, leaders and faults.

use super::*;
use crate::wire::api_versions;
use crate::wire::init_producer_id;

/// Asks and returns the body of the answer.
fn ask(broker: &mut Harness, api: ApiKey, version: i16, body: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, Reply> {
    let mut out = Vec::new();
    let start = begin_request(&mut out, api, version, 9, "test");
    body(&mut out);
    end_request(&mut out, start, 0);
    let (reply, answer) = broker.handle(&out[4..]);
    if !matches!(reply, Reply::Answer { .. }) {
        return Err(reply);
    }
    let (correlation_id, body) = response_header(&answer[4..], api, version).unwrap();
    assert_eq!(correlation_id, 9);
    Ok(body.to_vec())
}

fn topic_metadata(broker: &mut Harness, version: i16, name: &str) -> metadata::Topic {
    let body =
        ask(broker, ApiKey::METADATA, version, |out| metadata::encode_request(out, version, Some(&[name]), true));
    metadata::decode_response(&body.unwrap(), version).unwrap().topics.remove(0)
}

#[test]
fn versions_that_are_not_offered_close_the_connection_but_api_versions_answers() {
    let mut broker =
        Harness::new(BrokerOptions { produce_max_version: 9, denied_apis: vec![22], ..Default::default() });
    let body = ask(&mut broker, ApiKey::API_VERSIONS, 4, |out| api_versions::encode_request(out, 4)).unwrap();
    let response = api_versions::decode_response(&body, 4).unwrap();
    assert!(response.error.is_none());
    assert_eq!(response.common_max(0, 3, 13), Some(9));
    assert_eq!(response.common_max(22, 0, 5), None);
    assert_eq!(ask(&mut broker, ApiKey::INIT_PRODUCER_ID, 0, |_| {}), Err(Reply::Close));
    assert_eq!(ask(&mut broker, ApiKey(99), 0, |_| {}), Err(Reply::Close));
    broker.version = 10;
    assert_eq!(broker.produce_all(&[("t", 0, &batch(&["a"]))]).0, Reply::Close);
    for version in 0..3 {
        assert_eq!(ask(&mut broker, ApiKey::PRODUCE, version, |out| out.resize(99, 0)), Err(Reply::Close));
    }
    let body = ask(&mut broker, ApiKey::API_VERSIONS, 6, |out| api_versions::encode_request(out, 4)).unwrap();
    assert_eq!(body, [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5], "as a real broker: version 0, its own range alone");
}

/// KIP-1242: a client that thinks that it talks to somebody else is told so.
#[test]
fn a_client_that_means_another_cluster_or_node_is_sent_away() {
    let mut broker = Harness::new(BrokerOptions::default());
    let theirs = "ringmail-testing";
    for (cluster, node, error) in [
        (None, -1, 0),
        (Some(theirs), 0, 0),
        (Some(theirs), 1, 129),
        (Some("another"), 0, 129),
        (Some(theirs), -1, 42),
        (None, 0, 42),
    ] {
        let body = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"\x02a\x021");
            out.push(cluster.map_or(0, |id: &str| id.len() as u8 + 1));
            out.extend_from_slice(cluster.unwrap_or_default().as_bytes());
            out.extend_from_slice(&i32::to_be_bytes(node));
            out.push(0);
        };
        let body = ask(&mut broker, ApiKey::API_VERSIONS, 5, body).unwrap();
        let response = api_versions::decode_response(&body, 5).unwrap();
        assert_eq!((response.error.0, response.apis.is_empty()), (error, error != 0), "{cluster:?}, node {node}");
    }
}

#[test]
fn an_odd_software_name_is_refused() {
    let mut broker = Harness::new(BrokerOptions::default());
    for (name, error) in [("x", 0), ("", 42), ("-x", 42), ("a b", 42), ("a-b.c", 0)] {
        let body = |out: &mut Vec<u8>| {
            for text in [name, "1.0"] {
                out.push(text.len() as u8 + 1);
                out.extend_from_slice(text.as_bytes());
            }
            out.push(0);
        };
        let body = ask(&mut broker, ApiKey::API_VERSIONS, 3, body).unwrap();
        assert_eq!(api_versions::decode_response(&body, 3).unwrap().error.0, error, "{name:?}");
    }
}

#[test]
fn damaged_requests_close_the_connection() {
    let mut broker = Harness::new(BrokerOptions::default());
    let frame = broker.produce_frame(&[("t", 0, &batch(&["a"]))]);
    for len in 0..frame.len() {
        assert_eq!(broker.handle(&frame[..len]).0, Reply::Close, "{len} bytes");
    }
    assert_eq!(broker.log(), []);
}

#[test]
fn metadata_names_nodes_leaders_and_epochs() {
    let mut broker = Harness::new(BrokerOptions::default());
    for version in metadata::VERSIONS {
        let body =
            ask(&mut broker, ApiKey::METADATA, version, |out| metadata::encode_request(out, version, None, true));
        let response = metadata::decode_response(&body.unwrap(), version).unwrap();
        let ports: Vec<_> = response.brokers.iter().map(|broker| (broker.node_id, broker.port)).collect();
        assert_eq!(ports, [(0, 9000), (1, 9001)]);
        let leaders: Vec<_> = response.topics[0].partitions.iter().map(|p| (p.index, p.leader_id)).collect();
        assert_eq!(leaders, [(0, 0), (1, 1)]);
    }
    broker.model.move_leader("t", 0, -1);
    let topic = topic_metadata(&mut broker, 12, "t");
    let partition = topic.partitions[0];
    assert_eq!((partition.error.0, partition.leader_id, partition.leader_epoch), (5, -1, 1));
    assert!(broker.model.grow_topic("t", 4));
    assert_eq!(topic_metadata(&mut broker, 12, "t").partitions.len(), 4);
}

#[test]
fn a_topic_is_made_on_first_asking_and_there_on_second() {
    let mut broker = Harness::new(BrokerOptions::default());
    let first = topic_metadata(&mut broker, 12, "new");
    assert_eq!((first.error.0, first.partitions.len()), (3, 0));
    let second = topic_metadata(&mut broker, 12, "new");
    assert_eq!((second.error.0, second.partitions.len()), (0, 3));
    assert_eq!(topic_metadata(&mut broker, 12, "no spaces").error.0, 17);
    let mut broker = Harness::new(BrokerOptions { auto_create: false, ..BrokerOptions::default() });
    for _ in 0..2 {
        assert_eq!(topic_metadata(&mut broker, 12, "new").error.0, 3);
    }
}

#[test]
fn producer_ids_are_new_each_time() {
    let mut broker = Harness::new(BrokerOptions::default());
    let mut id = |transactional_id| {
        let body = ask(&mut broker, ApiKey::INIT_PRODUCER_ID, 4, |out| {
            init_producer_id::encode_request(out, 4, transactional_id, i32::MAX, -1, -1);
        });
        let response = init_producer_id::decode_response(&body.unwrap(), 4).unwrap();
        (response.error.0, response.producer_id, response.epoch)
    };
    let (first, second) = (id(None), id(None));
    assert_eq!((first.0, first.2), (0, 0));
    assert_ne!(first.1, second.1);
    assert_eq!(id(Some("tx")), (53, -1, -1));
}

#[test]
fn the_wrong_node_names_the_right_one_from_version_10() {
    for (version, hint) in [(9, None), (10, Some((1, 1)))] {
        let mut broker = Harness::new(BrokerOptions::default());
        broker.version = version;
        broker.model.move_leader("t", 0, 1);
        let good = batch(&["a"]);
        let (_, answers, tail) = broker.produce_all(&[("t", 0, &good), ("t", 1, &good)]);
        assert!(answers.iter().all(|answer| answer.error == 6 && answer.log_start_offset == -1));
        assert_eq!(answers[1].current_leader, hint);
        let endpoints: Vec<_> = tail.node_endpoints.iter().map(|endpoint| (endpoint.node_id, endpoint.port)).collect();
        assert_eq!(endpoints, if hint.is_some() { vec![(1, 9001)] } else { vec![] }, "each node once");
        broker.node = 1;
        assert_eq!(broker.send(&good), (0, 0));
    }
    let mut broker = Harness::new(BrokerOptions::default());
    broker.model.move_leader("t", 0, -1);
    let (_, answers, tail) = broker.produce_all(&[("t", 0, &batch(&["a"]))]);
    assert_eq!((answers[0].error, answers[0].current_leader), (6, Some((-1, 1))));
    assert_eq!(tail.node_endpoints, []);
}

#[test]
fn a_topic_made_again_has_another_id() {
    let mut broker = Harness::new(BrokerOptions::default());
    broker.version = 13;
    let old = broker.produce_frame(&[("t", 0, &batch(&["a"]))]);
    assert!(matches!(broker.handle(&old).0, Reply::Answer { .. }));
    assert!(broker.model.delete_topic("t"));
    assert!(broker.model.create_topic("t", TopicOptions::default()));
    assert!(!broker.model.create_topic("t", TopicOptions::default()));
    broker.handle(&old);
    assert_eq!(broker.log(), [], "the old id stores nothing in the new topic");
    assert_eq!(broker.send(&batch(&["b"])), (0, 0));
}

#[test]
fn faults_do_what_they_say() {
    use std::time::Duration;
    let good = batch(&["a"]);
    let pause = Duration::from_millis(70);
    let cases = [
        (Fault::None, Reply::AT_ONCE, 2),
        (Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS), Reply::AT_ONCE, 1),
        (Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT), Reply::AT_ONCE, 2),
        (Fault::CloseBefore, Reply::Close, 0),
        (Fault::CloseAfter, Reply::Close, 2),
        (Fault::HangBefore, Reply::Hang, 0),
        (Fault::HangAfter, Reply::Hang, 2),
        (Fault::Delay(pause), Reply::Answer { delay: pause, mute: Duration::ZERO }, 2),
        (Fault::Throttle(pause), Reply::Answer { delay: Duration::ZERO, mute: pause }, 2),
    ];
    for (fault, reply, stored) in cases {
        // Of two batches the second has the fault.
        let options = BrokerOptions::default().on_produce(move |context| match context.nth {
            1 => fault,
            _ => Fault::None,
        });
        let mut broker = Harness::new(options);
        broker.model.move_leader("t", 1, 0);
        let (answered, answers, tail) = broker.produce_all(&[("t", 0, &good), ("t", 1, &good)]);
        assert_eq!(answered, reply, "{fault:?}");
        let offsets: i64 = (0..2).map(|index| broker.model.log("t", index).unwrap().next_offset).sum();
        assert_eq!(offsets, stored, "{fault:?}");
        match fault {
            Fault::Error(error) => assert_eq!((answers[0].error, answers[0].base_offset), (error.0, -1)),
            Fault::StoredThenError(error) => assert_eq!((answers[0].error, answers[0].base_offset), (error.0, 0)),
            _ => assert!(answers.iter().all(|answer| answer.error == 0)),
        }
        assert_eq!(tail.throttle_ms, if matches!(fault, Fault::Throttle(_)) { 70 } else { 0 });
    }
}

#[test]
fn the_fault_hook_sees_the_batch() {
    use std::sync::mpsc;
    let (seen, contexts) = mpsc::channel();
    let options = BrokerOptions::default().on_produce(move |context| {
        let ProduceContext { topic, partition, producer_id, producer_epoch, base_sequence, count, .. } = *context;
        seen.send((topic.to_owned(), partition, producer_id, producer_epoch, base_sequence, count)).unwrap();
        Fault::None
    });
    let mut broker = Harness::new(options);
    broker.version = 13;
    broker.send(&sequenced(7, 99, &["a", "b"]));
    broker.send(&batch(&["a"]));
    broker.send(&[]);
    let seen: Vec<_> = contexts.try_iter().collect();
    let context = |id, epoch, sequence, count| ("t".to_owned(), 0, id, epoch, sequence, count);
    assert_eq!(seen, [context(5, 7, 99, 2), context(-1, -1, -1, 1), context(-1, -1, -1, -1)]);
}

#[test]
fn discarded_records_leave_offsets_and_sequences() {
    let mut broker = Harness::new(BrokerOptions { discard: true, ..BrokerOptions::default() });
    assert_eq!(broker.send(&sequenced(0, 0, &["a", "b"])), (0, 0));
    assert_eq!(broker.send(&sequenced(0, 2, &["c"])), (0, 2));
    assert_eq!(broker.send(&sequenced(0, 0, &["a", "b"])), (0, 0));
    assert_eq!(broker.log(), []);
    let log = broker.model.log("t", 0).unwrap();
    assert_eq!((log.start_offset, log.next_offset), (3, 3));
}
