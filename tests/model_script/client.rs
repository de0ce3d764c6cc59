//! A connection to a broker, requests by hand, and answers as text.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ListOffsetsResponse, ProduceResponse};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};

use super::batch::{now, t0};

/// A question that must be answered is answered within this time, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
pub enum Reply {
    /// A frame without its size.
    Frame(Vec<u8>),
    Closed,
    Silence,
}

impl Reply {
    /// In words, where a frame is described by `describe`, which gets it from behind the correlation id.
    pub fn describe(&self, describe: impl FnOnce(&[u8]) -> String) -> String {
        match self {
            Self::Frame(frame) => describe(&frame[4..]),
            Self::Closed => "closed".to_owned(),
            Self::Silence => "silence".to_owned(),
        }
    }
}

pub struct Connection(TcpStream);

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Whether something comes, an answer or the end, in this time.
    pub fn says_something_within(&self, time: Duration) -> bool {
        self.0.set_read_timeout(Some(time)).unwrap();
        let said = self.0.peek(&mut [0]);
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        !matches!(said, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends bytes as they are. A broker may have closed already: the answer will tell.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub fn receive(&mut self) -> Reply {
        let mut size = [0; 4];
        if self.0.read_exact(&mut size).is_err() {
            return Reply::Closed;
        }
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut frame).unwrap();
        Reply::Frame(frame)
    }

    /// Asks a question that must be answered.
    pub fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(&frame(R::KEY, version, 7, R::header_version(version) >= 2, &encoded(request, version)));
        let Reply::Frame(answer) = self.receive() else { panic!("no answer to API {}", R::KEY) };
        decoded(&answer[4..], version)
    }
}

pub fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.to_vec()
}

/// Decodes an answer from behind its correlation id.
pub fn decoded<T: Decodable + HeaderVersion>(answer: &[u8], version: i16) -> T {
    let tags = usize::from(T::header_version(version) >= 1);
    let mut bytes = Bytes::copy_from_slice(&answer[tags..]);
    let message = T::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "bytes are left over behind the answer");
    message
}

/// A whole request, with its size.
pub fn frame(api: i16, version: i16, correlation_id: i32, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend(api.to_be_bytes());
    head.extend(version.to_be_bytes());
    head.extend(correlation_id.to_be_bytes());
    head.extend([0, 6]);
    head.extend(b"script");
    head.extend(flexible.then_some(0));
    let size = (head.len() + body.len()) as i32;
    [&size.to_be_bytes()[..], &head, body].concat()
}

/// A Produce request, any version, right or wrong.
#[derive(Clone)]
pub struct Produce {
    pub version: i16,
    pub acks: i16,
    pub transactional_id: Option<&'static str>,
    /// Name and id of each topic, and its partitions with their bytes.
    pub topics: Vec<(String, [u8; 16], Entries)>,
}

/// Partition and records; `None` is null.
pub type Entries = Vec<(i32, Option<Vec<u8>>)>;

impl Produce {
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let flexible = self.version >= 9;
        let count = |out: &mut Vec<u8>, n: Option<usize>| match (flexible, n) {
            (true, n) => uvarint(out, n.map_or(0, |n| n + 1)),
            (false, n) => out.extend(n.map_or(-1, |n| n as i32).to_be_bytes()),
        };
        let text = |out: &mut Vec<u8>, text: Option<&str>| {
            match flexible {
                true => uvarint(out, text.map_or(0, |text| text.len() + 1)),
                false => out.extend(text.map_or(-1, |text| text.len() as i16).to_be_bytes()),
            }
            out.extend(text.unwrap_or("").as_bytes());
        };
        let tags = |out: &mut Vec<u8>| out.extend(flexible.then_some(0));
        if self.version >= 3 {
            text(&mut out, self.transactional_id);
        }
        out.extend(self.acks.to_be_bytes());
        out.extend(5000_i32.to_be_bytes());
        count(&mut out, Some(self.topics.len()));
        for (name, id, entries) in &self.topics {
            if self.version >= 13 {
                out.extend(id);
            } else {
                text(&mut out, Some(name));
            }
            count(&mut out, Some(entries.len()));
            for (index, records) in entries {
                out.extend(index.to_be_bytes());
                count(&mut out, records.as_ref().map(Vec::len));
                out.extend(records.as_deref().unwrap_or_default());
                tags(&mut out);
            }
            tags(&mut out);
        }
        tags(&mut out);
        out
    }

    pub fn frame(&self) -> Vec<u8> {
        frame(0, self.version, 7, self.version >= 9, &self.body())
    }
}

fn uvarint(out: &mut Vec<u8>, mut n: usize) {
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Each partition's answer, in the order of names and partitions: a broker promises none. With one partition its name
/// is left out.
pub fn describe_produce(answer: &[u8], version: i16, name_of: impl Fn(&[u8; 16]) -> String) -> String {
    let response: ProduceResponse = decoded(answer, version);
    let mut parts = Vec::new();
    for topic in &response.responses {
        let name = if version >= 13 { name_of(topic.topic_id.as_bytes()) } else { topic.name.to_string() };
        for answer in &topic.partition_responses {
            let mut text = format!("{} offset {}", answer.error_code, answer.base_offset);
            text += &format!(" time {} start {}", time(answer.log_append_time_ms), answer.log_start_offset);
            if !answer.record_errors.is_empty() {
                let indexes = answer.record_errors.iter().map(|error| error.batch_index.to_string());
                text += &format!(" records {}", indexes.collect::<Vec<_>>().join(","));
                let silent = answer.record_errors.iter().any(|error| error.batch_index_error_message.is_none());
                text += if silent { " unexplained" } else { "" };
            }
            text += if answer.error_message.is_some() { " explained" } else { "" };
            parts.push((name.clone(), answer.index, text));
        }
    }
    parts.sort();
    match &parts[..] {
        [(.., only)] => only.clone(),
        [] => "no partitions".to_owned(),
        parts => {
            parts.iter().map(|(name, index, text)| format!("{name}/{index}: {text}")).collect::<Vec<_>>().join("; ")
        }
    }
}

/// A timestamp, told so that every run tells it alike.
fn time(time: i64) -> String {
    match time {
        -1 => "-1".to_owned(),
        time if (time - t0()).abs() < 500_000 => format!("T{:+}", time - t0()),
        time if (time - now()).abs() < 300_000 => "now".to_owned(),
        time if time > t0() => format!("T{:+}", time - t0()),
        time => time.to_string(),
    }
}

pub fn describe_offsets(answer: &[u8], version: i16) -> String {
    let response: ListOffsetsResponse = decoded(answer, version);
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let text = partitions.map(|p| {
        let epoch = if p.leader_epoch < 0 { "none" } else { "some" };
        format!("{} offset {} time {} epoch {epoch}", p.error_code, p.offset, time(p.timestamp))
    });
    text.collect::<Vec<_>>().join("; ")
}
