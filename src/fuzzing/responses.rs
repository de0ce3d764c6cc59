//! Every decoder of what a broker sends, on any bytes: it does not panic, it allocates no more than its bytes can pay
//! for, and what it accepts is the same again when the embedded broker's encoder has written it.

use super::input::Input;
use crate::testing::decode_batch;
use crate::wire::batch_view::BatchView;
use crate::wire::codec::WireError;
use crate::wire::frame::{FRAME_MIN, FrameReader};
use crate::wire::header::{ApiKey, response_header};
use crate::wire::produce::{PartitionAnswer, TopicRef};
use crate::wire::server;
use crate::wire::{api_versions, init_producer_id, metadata, produce};

/// Bytes that may be allocated for each byte read: the greediest list is one of topics, 72 bytes for 9, in a vector that
/// doubles.
const PER_BYTE: usize = 48;
/// And besides.
const BESIDES: usize = 1024;

/// See the module. `allocated`: how many bytes this thread has asked the allocator for so far.
pub fn responses(data: &[u8], allocated: fn() -> usize) {
    let mut input = Input(data);
    let (kind, choice) = (input.below(7), usize::from(input.u8()));
    let bytes = input.0;
    let meter = Meter { allocated, most: PER_BYTE * bytes.len() + BESIDES };
    let version = |first: i16, last: i16| first + (choice % (last - first + 1) as usize) as i16;
    match kind {
        0 => api_versions_response(bytes, version(0, api_versions::VERSION_MAX), &meter),
        1 => metadata_response(bytes, version(1, 13), &meter),
        2 => produce_response(bytes, version(3, 13), &meter),
        3 => init_producer_id_response(bytes, version(0, 5), &meter),
        4 => frames(bytes, choice, &meter),
        5 => batches(bytes),
        _ => requests(bytes, &meter),
    }
}

struct Meter {
    allocated: fn() -> usize,
    most: usize,
}

impl Meter {
    fn bounded<T>(&self, run: impl FnOnce() -> T) -> T {
        let before = (self.allocated)();
        let result = run();
        let used = (self.allocated)() - before;
        assert!(used <= self.most, "{used} bytes were allocated where {} are enough", self.most);
        result
    }
}

/// The body behind a header of this API and version.
fn body(frame: &[u8], api: ApiKey, version: i16) -> Option<&[u8]> {
    let (correlation, body) = response_header(frame, api, version).ok()?;
    assert_eq!(frame[..4], correlation.to_be_bytes());
    assert!(body.len() + 4 <= frame.len());
    Some(body)
}

/// What was accepted is written and read again.
fn same_again<T: PartialEq + std::fmt::Debug>(
    first: &T,
    encode: impl FnOnce(&mut Vec<u8>),
    decode: impl FnOnce(&[u8]) -> Result<T, WireError>,
) {
    let mut out = Vec::new();
    encode(&mut out);
    assert_eq!(decode(&out).as_ref(), Ok(first), "{out:?}");
}

fn api_versions_response(frame: &[u8], version: i16, meter: &Meter) {
    let Some(body) = body(frame, ApiKey::API_VERSIONS, version) else { return };
    let Ok(response) = meter.bounded(|| api_versions::decode_response(body, version)) else { return };
    // A version that is not supported is answered in version 0.
    let written = if response.error.0 == 35 { 0 } else { version };
    same_again(
        &response,
        |out| server::api_versions::encode_response(out, written, &response),
        |bytes| api_versions::decode_response(bytes, version),
    );
    if let Some(best) = response.common_max(0, 3, 13) {
        assert!((3..=13).contains(&best));
    }
}

fn metadata_response(frame: &[u8], version: i16, meter: &Meter) {
    let Some(body) = body(frame, ApiKey::METADATA, version) else { return };
    let Ok(response) = meter.bounded(|| metadata::decode_response(body, version)) else { return };
    same_again(
        &response,
        |out| server::metadata::encode_response(out, version, &response),
        |bytes| metadata::decode_response(bytes, version),
    );
}

fn init_producer_id_response(frame: &[u8], version: i16, meter: &Meter) {
    let Some(body) = body(frame, ApiKey::INIT_PRODUCER_ID, version) else { return };
    let Ok(response) = meter.bounded(|| init_producer_id::decode_response(body, version)) else { return };
    same_again(
        &response,
        |out| server::init_producer_id::encode_response(out, version, &response),
        |bytes| init_producer_id::decode_response(bytes, version),
    );
}

fn produce_response(frame: &[u8], version: i16, meter: &Meter) {
    let Some(body) = body(frame, ApiKey::PRODUCE, version) else { return };
    let mut visits = 0;
    let tail = meter.bounded(|| produce::decode_response(body, version, &mut |_| visits += 1));
    assert!(visits <= body.len(), "an answer takes at least a byte");
    let Ok(tail) = tail else { return };
    let answers = owned(body, version);
    let mut topics: Vec<(TopicRef<'_>, Vec<PartitionAnswer<'_>>)> = Vec::new();
    for owned in &answers {
        let answer = owned.lend();
        match topics.last_mut() {
            // Neighbours of one name become one topic; a topic without partitions is not visited.
            Some((topic, answers)) if *topic == answer.topic => answers.push(answer),
            _ => topics.push((answer.topic, vec![answer])),
        }
    }
    let mut out = Vec::new();
    server::produce::encode_response(&mut out, version, &topics, &tail);
    assert_eq!(produce::decode_response(&out, version, &mut |_| ()), Ok(tail));
    assert_eq!(owned(&out, version), answers);
}

/// An answer that borrows nothing: the decoder lends its own only while it runs.
#[derive(Debug, PartialEq)]
struct Owned {
    topic: Option<String>,
    message: Option<String>,
    rest: PartitionAnswer<'static>,
}

impl Owned {
    fn lend(&self) -> PartitionAnswer<'_> {
        PartitionAnswer {
            topic: self.topic.as_deref().map_or(self.rest.topic, TopicRef::Name),
            error_message: self.message.as_deref(),
            ..self.rest.clone()
        }
    }
}

fn owned(body: &[u8], version: i16) -> Vec<Owned> {
    let mut all = Vec::new();
    let mut visit = |answer: PartitionAnswer<'_>| {
        let (topic, id) = match answer.topic {
            TopicRef::Name(name) => (Some(name.to_owned()), [0; 16]),
            TopicRef::Id(id) => (None, id),
        };
        let message = answer.error_message.map(str::to_owned);
        let PartitionAnswer { index, error, base_offset, log_append_time, log_start_offset, .. } = answer;
        let rest = PartitionAnswer {
            topic: TopicRef::Id(id),
            index,
            error,
            base_offset,
            log_append_time,
            log_start_offset,
            record_errors: answer.record_errors,
            error_message: None,
            current_leader: answer.current_leader,
        };
        all.push(Owned { topic, message, rest });
    };
    produce::decode_response(body, version, &mut visit).expect("as before");
    all
}

fn frames(bytes: &[u8], step: usize, meter: &Meter) {
    let mut pieces = FrameReader::default();
    let (mut frames, mut failed) = (0, false);
    let mut at = 0;
    let mut whole = meter.bounded(|| {
        let mut whole = FrameReader::default();
        whole.push(bytes);
        whole
    });
    for piece in bytes.chunks(step + 1) {
        pieces.push(piece);
        while !failed {
            match pieces.next() {
                Ok(Some(frame)) => {
                    assert!(frame.len() >= FRAME_MIN);
                    assert_eq!(bytes[at..at + 4], (frame.len() as i32).to_be_bytes(), "as long as it says");
                    assert_eq!(frame, bytes[at + 4..at + 4 + frame.len()], "frames are runs of what came in");
                    at += 4 + frame.len();
                    frames += 1;
                }
                Ok(None) => break,
                Err(_) => failed = true,
            }
        }
    }
    // However the bytes came.
    for _ in 0..frames {
        assert!(matches!(whole.next(), Ok(Some(_))));
    }
    assert_eq!(whole.next().is_err(), failed);
    assert_eq!(whole.buffered(), bytes.len() - at);
}

/// Two decoders of stored batches, which share nothing, agree on what they accept and on what is in it.
fn batches(bytes: &[u8]) {
    let Ok(view) = BatchView::parse_unhashed(bytes) else { return };
    let mut batch = view.bytes().to_vec();
    let crc = view.crc().to_be_bytes();
    batch[17..21].copy_from_slice(&crc);
    let view = BatchView::parse(&batch).expect("sealed just now");
    let ours: Result<Vec<_>, _> = view.records().collect();
    let theirs = decode_batch(&batch);
    if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!((ours.key, ours.value), (theirs.key.as_deref(), theirs.value.as_deref()));
            assert_eq!(ours.header_count as usize, theirs.headers.len());
        }
    }
}

/// What the embedded broker reads: tests lean on it.
fn requests(frame: &[u8], meter: &Meter) {
    let Ok((header, body)) = server::request_header(frame) else { return };
    let version = header.version;
    meter.bounded(|| match header.api {
        ApiKey::PRODUCE if produce::VERSIONS.contains(&version) => drop(server::produce::decode_request(body, version)),
        ApiKey::METADATA if (0..=13).contains(&version) => drop(server::metadata::decode_request(body, version)),
        ApiKey::API_VERSIONS if (0..=5).contains(&version) => drop(server::api_versions::decode_request(body, version)),
        ApiKey::INIT_PRODUCER_ID if (0..=5).contains(&version) => {
            let _ = server::init_producer_id::decode_request(body, version);
        }
        _ => {}
    });
}
