//! The broker behind TCP, asked by the other library's messages.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as theirs, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::*;

fn name(text: &str) -> TopicName {
    StrBytes::from_string(text.to_owned()).into()
}

/// A plain client that waits for each answer.
struct Client {
    stream: TcpStream,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    fn send<R: Request>(&mut self, version: i16, request: &R) {
        let mut out = BytesMut::from(&[0; 4][..]);
        let header = theirs::RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
        header.encode(&mut out, R::header_version(version)).unwrap();
        request.encode(&mut out, version).unwrap();
        let size = out.len() as u32 - 4;
        out[..4].copy_from_slice(&size.to_be_bytes());
        self.stream.write_all(&out).unwrap();
    }

    /// The next frame; `None` when the broker closes.
    fn receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        let mut frame = Bytes::from(frame);
        theirs::ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty());
        Some(response)
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version).unwrap()
    }
}

fn produce_request(topic: &str, partition: i32, batch: Vec<u8>) -> theirs::ProduceRequest {
    use theirs::produce_request as pr;
    let data = pr::PartitionProduceData::default().with_index(partition).with_records(Some(batch.into()));
    let topic = pr::TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    theirs::ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic])
}

fn fetch_request(topic: &str, offset: i64, max_wait_ms: i32, max_bytes: i32) -> theirs::FetchRequest {
    use theirs::fetch_request as fr;
    let partition = fr::FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(max_bytes);
    let topic = fr::FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    let request = theirs::FetchRequest::default().with_max_wait_ms(max_wait_ms).with_min_bytes(1);
    request.with_max_bytes(1 << 20).with_topics(vec![topic])
}

/// Error, high watermark and the values of one partition's records.
fn fetched(response: &theirs::FetchResponse) -> (i16, i64, Vec<String>) {
    let partition = &response.responses[0].partitions[0];
    let mut records = partition.records.clone().unwrap_or_default();
    let mut values = Vec::new();
    while !records.is_empty() {
        let length = 12 + i32::from_be_bytes(records[8..12].try_into().unwrap()) as usize;
        let batch = records.split_to(length);
        let decoded = decode_batch(&batch).unwrap();
        values.extend(decoded.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()));
    }
    (partition.error_code, partition.high_watermark, values)
}

#[test]
fn what_is_produced_can_be_fetched_in_every_version() {
    for version in 4..=12 {
        let broker = Broker::start(BrokerOptions::default()).unwrap();
        broker.create_topic("t", 1);
        let mut client = Client::new(broker.address());
        for values in [&["a", "b"][..], &["c"], &["d"]] {
            let response = client.ask(9, &produce_request("t", 0, batch(values)));
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
        let fetch =
            |client: &mut Client, offset, bytes| fetched(&client.ask(version, &fetch_request("t", offset, 0, bytes)));
        let all = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(fetch(&mut client, 0, 1 << 20), (0, 4, all.to_vec()));
        assert_eq!(fetch(&mut client, 1, 1 << 20), (0, 4, all.to_vec()), "whole batches");
        assert_eq!(fetch(&mut client, 2, 1 << 20), (0, 4, all[2..].to_vec()));
        assert_eq!(fetch(&mut client, 0, 1), (0, 4, all[..2].to_vec()), "one batch at least");
        assert_eq!(fetch(&mut client, 4, 1 << 20), (0, 4, vec![]));
        assert_eq!(fetch(&mut client, 5, 1 << 20).0, 1);
        assert_eq!(fetch(&mut client, -1, 1 << 20).0, 1);
    }
}

#[test]
fn a_fetch_waits_for_what_is_appended_meanwhile() {
    let broker = Broker::start(BrokerOptions::default()).unwrap();
    broker.create_topic("t", 1);
    let mut reader = Client::new(broker.address());
    // Far longer than the read timeout of the client: only an append can end it in time.
    reader.send(12, &fetch_request("t", 0, 600_000, 1 << 20));
    let mut writer = Client::new(broker.address());
    writer.ask(9, &produce_request("t", 0, batch(&["a"])));
    let response = reader.receive::<theirs::FetchRequest>(12).unwrap();
    assert_eq!(fetched(&response), (0, 1, vec!["a".to_owned()]));
    let response = reader.ask(12, &fetch_request("t", 1, 1, 1 << 20));
    assert_eq!(fetched(&response), (0, 1, vec![]), "nothing came");
}

#[test]
fn offsets_are_listed_by_time() {
    use theirs::list_offsets_request as lr;
    let broker = Broker::start(BrokerOptions::default()).unwrap();
    broker.create_topic("t", 1);
    let mut client = Client::new(broker.address());
    for time in [100, 300, 200] {
        let batch = batch_with(&["a", "b"], |header| header.base_timestamp = time);
        client.ask(9, &produce_request("t", 0, batch));
    }
    let mut list = |timestamp| {
        let partition = lr::ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = lr::ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let response = client.ask(7, &theirs::ListOffsetsRequest::default().with_topics(vec![topic]));
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        (partition.offset, partition.timestamp)
    };
    assert_eq!(list(-2), (0, -1));
    assert_eq!(list(-1), (6, -1));
    assert_eq!(list(-3), (2, 300));
    assert_eq!(list(100), (0, 100));
    assert_eq!(list(101), (2, 300));
    assert_eq!(list(301), (-1, -1));
}

#[test]
fn one_request_at_a_time_in_order() {
    let delay = Duration::from_millis(30);
    let options = BrokerOptions::default().on_produce(move |context| match context.nth {
        0 => Fault::Delay(delay),
        _ => Fault::None,
    });
    let broker = Broker::start(options).unwrap();
    broker.create_topic("t", 1);
    let mut client = Client::new(broker.address());
    for value in ["a", "b"] {
        client.send(9, &produce_request("t", 0, batch(&[value])));
    }
    let offsets = [0, 1].map(|_| {
        let response = client.receive::<theirs::ProduceRequest>(9).unwrap();
        response.responses[0].partition_responses[0].base_offset
    });
    assert_eq!(offsets, [0, 1]);
    let values: Vec<_> = broker.log("t", 0).into_iter().map(|record| record.value.unwrap()).collect();
    assert_eq!(values, [b"a", b"b"]);
    assert_eq!(broker.stats(), BrokerStats { produce_requests: 2, records: 2, ..broker.stats() });
}

#[test]
fn close_hang_and_cut_are_seen_by_the_client() {
    let (asked, was_asked) = std::sync::mpsc::channel();
    let options = BrokerOptions::default().on_produce(move |context| {
        asked.send(context.nth).unwrap();
        match context.nth {
            0 => Fault::CloseAfter,
            1 => Fault::HangAfter,
            _ => Fault::None,
        }
    });
    let broker = Broker::start(options).unwrap();
    broker.create_topic("t", 1);
    let request = produce_request("t", 0, batch(&["a"]));
    let mut client = Client::new(broker.address());
    client.send(9, &request);
    assert!(client.receive::<theirs::ProduceRequest>(9).is_none(), "closed");
    let mut client = Client::new(broker.address());
    client.send(9, &request);
    client.send(9, &request);
    let mut other = Client::new(broker.address());
    while was_asked.recv_timeout(Duration::from_secs(20)).unwrap() < 1 {}
    other.ask(9, &request);
    assert_eq!(broker.next_offset("t", 0), 3, "the request behind the silent one was not read");
    broker.close_connections();
    assert!(client.receive::<theirs::ProduceRequest>(9).is_none());
    assert!(other.receive::<theirs::ProduceRequest>(9).is_none());
    Client::new(broker.address()).ask(9, &request);
}

#[test]
fn each_node_has_its_port_and_shutdown_frees_it() {
    let broker = Broker::start(BrokerOptions { brokers: 3, ..BrokerOptions::default() }).unwrap();
    broker.create_topic("t", 3);
    let addresses = broker.addresses().to_vec();
    assert_eq!(broker.bootstrap(), addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    for node in 0..3 {
        for partition in 0..3 {
            let mut client = Client::new(addresses[node as usize]);
            let response = client.ask(9, &produce_request("t", partition, batch(&["a"])));
            let error = response.responses[0].partition_responses[0].error_code;
            assert_eq!(error, if node == partition { 0 } else { 6 });
        }
    }
    assert!(broker.move_leader("t", 0, 2));
    let response = Client::new(addresses[2]).ask(9, &produce_request("t", 0, batch(&["a"])));
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 1);
    let mut open = Client::new(addresses[1]);
    broker.shutdown();
    assert!(open.receive::<theirs::ProduceRequest>(9).is_none());
    for address in addresses {
        assert!(std::net::TcpListener::bind(address).is_ok() || TcpStream::connect(address).is_err());
    }
}
