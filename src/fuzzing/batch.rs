//! Whatever records are encoded, other decoders read the same ones back, and every length was foretold: once with the
//! encoder alone, once through a ring of the accumulator, chains of segments and renumbered parts of them included.

use super::input::Input;
use crate::accumulator::{Accumulator, AccumulatorConfig, Attach, Lease, Leave, Refused};
use crate::record::Place;
use crate::testing::{StoredRecord, decode_batch};
use crate::wire::batch_view::BatchView;
use crate::wire::codec::Reader;
use crate::wire::record::{Fields, Header, Shape};
use crate::wire::record_batch::{BatchHeader, LEN};

/// Lengths around the places where a varint grows, the record's own length included.
const LENGTHS: [usize; 16] = [0, 1, 2, 7, 44, 52, 53, 54, 55, 56, 63, 64, 65, 200, 8_180, 8_192];

/// Deltas around the places where a varint grows.
const DELTAS: [i64; 16] =
    [0, 1, -1, 5, 63, 64, -64, -65, 8_191, 8_192, -8_193, 1 << 20, 1 << 31, -(1 << 31), 1 << 40, -(1 << 40)];

/// Larger batches show nothing that smaller ones do not, and take their time.
const SIZE_MAX: usize = 24 << 10;

/// Far from both ends of i64, so that no delta wraps.
const TIME: i64 = 1 << 42;

#[derive(Debug)]
struct Record {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn read(input: &mut Input<'_>) -> Self {
        let headers = [0, 0, 0, 1, 2, 3, 64, 65];
        Self {
            timestamp: TIME + input.of(&DELTAS),
            key: bytes(input),
            value: bytes(input),
            headers: (0..input.of(&headers)).map(|_| (text(input), bytes(input))).collect(),
        }
    }

    fn size(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(key, value)| 2 + key.len() + len(value)).sum();
        10 + len(&self.key) + len(&self.value) + headers
    }

    fn headers(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect()
    }

    fn fields<'a>(&'a self, headers: &'a [Header<'a>]) -> Fields<'a> {
        Fields { key: self.key.as_deref(), value: self.value.as_deref(), headers }
    }

    fn check(&self, offset: usize, stored: &StoredRecord) {
        assert_eq!(stored.offset, offset as i64);
        assert_eq!(stored.timestamp, self.timestamp);
        assert_eq!((&stored.key, &stored.value), (&self.key, &self.value));
        assert_eq!(stored.headers, self.headers);
    }
}

fn bytes(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let choice = input.u8();
    if choice == 0xff {
        return None;
    }
    let mut bytes = vec![choice; LENGTHS[usize::from(choice % 16)]];
    // Some of the input itself: not only one byte again and again.
    let own = input.bytes(bytes.len().min(4));
    bytes[..own.len()].copy_from_slice(own);
    Some(bytes)
}

fn text(input: &mut Input<'_>) -> String {
    String::from_utf8_lossy(&bytes(input).unwrap_or_default()).into_owned()
}

/// See the module.
pub fn batch_encoder(data: &[u8]) {
    let mut input = Input(data);
    let in_ring = input.u8() & 1 == 1;
    let stamp = (input.i64(), input.i16(), input.i32());
    let mut records = Vec::new();
    let mut size = 0;
    while !input.is_empty() && size < SIZE_MAX {
        let record = Record::read(&mut input);
        size += record.size();
        records.push(record);
    }
    if records.is_empty() {
        return;
    }
    if in_ring { through_a_ring(&records, stamp) } else { alone(&records, stamp) }
}

type Stamp = (i64, i16, i32);

/// A whole batch out of encoded records.
fn batch_of(count: usize, base: i64, max: i64, stamp: Stamp, records: &[&[u8]]) -> Vec<u8> {
    let (producer_id, producer_epoch, base_sequence) = stamp;
    let header = BatchHeader {
        attributes: 0,
        last_offset_delta: count as i32 - 1,
        base_timestamp: base,
        max_timestamp: max,
        producer_id,
        producer_epoch,
        base_sequence,
        count: count as i32,
    };
    let len: usize = records.iter().map(|part| part.len()).sum();
    let crc = header.crc(records.iter().copied());
    let mut head = [0; LEN];
    header.put(&mut head, len as u32, crc);
    [&head[..], &records.concat()].concat()
}

fn check(batch: &[u8], expected: &[Record], stamp: Stamp) {
    let stored = decode_batch(batch).expect("what was encoded can be decoded");
    assert_eq!(stored.len(), expected.len());
    for (offset, (stored, expected)) in stored.iter().zip(expected).enumerate() {
        expected.check(offset, stored);
        assert_eq!((stored.producer_id, stored.producer_epoch), (stamp.0, stamp.1));
    }
    let view = BatchView::parse(batch).expect("its crc and length are right");
    assert_eq!(view.bytes().len(), batch.len());
    let times = view.records().map(|record| view.base_timestamp() + record.expect("whole").timestamp_delta);
    assert_eq!(Some(view.max_timestamp()), times.max());
    assert_eq!((view.count(), view.last_offset_delta()), (expected.len() as i32, expected.len() as i32 - 1));
}

fn alone(records: &[Record], stamp: Stamp) {
    let base = records[0].timestamp;
    let mut out = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let headers = record.headers();
        let fields = record.fields(&headers);
        let shape = Shape::of(&fields);
        let len = shape.len(record.timestamp - base, i as i32);
        assert!(len <= shape.len_max());
        let start = out.len();
        out.resize(start + len, 0xaa);
        shape.put(&mut out[start..], &fields, record.timestamp - base, i as i32);
    }
    let max = records.iter().map(|record| record.timestamp).max().unwrap();
    let (front, back) = out.split_at(out.len() / 2);
    check(&batch_of(records.len(), base, max, stamp, &[front, back]), records, stamp);
}

fn through_a_ring(records: &[Record], stamp: Stamp) {
    let config = AccumulatorConfig { buffer_memory: 128 << 10, slots: 8, ..AccumulatorConfig::default() };
    let (accumulator, mut drain) = Accumulator::new(config).unwrap();
    let partition = drain.add_partition(std::sync::Arc::new(Place { topic: "t".into(), partition: 0 }));
    let mut next = 0;
    while next < records.len() {
        let first = next;
        while let Some(record) = records.get(next) {
            let headers = record.headers();
            let attach = if next % 3 == 0 { Attach::Tag(next as u64) } else { Attach::Delivery };
            match accumulator.append(&partition, &record.fields(&headers), Some(record.timestamp), attach, true, None) {
                Ok(_) => next += 1,
                Err(refused) => {
                    assert!(refused.is_full() || refused == Refused::TooLarge, "{refused:?}");
                    break;
                }
            }
        }
        if next == first {
            // More than an empty buffer has in one piece.
            return;
        }
        let mut from = first;
        while let Some(mut chain) = drain.drain(0, Leave::Now) {
            let expected = &records[from..from + chain.count as usize];
            from += expected.len();
            let parts: Vec<&[u8]> = chain.segments.iter().map(Lease::bytes).collect();
            check(&batch_of(expected.len(), chain.base_timestamp, chain.max_timestamp, stamp, &parts), expected, stamp);
            // The second half of its first segment as a batch of its own, as when it was too large.
            let mut segment = chain.segments.remove(0);
            let (count, half) = (segment.count() as usize, segment.count() / 2);
            let mut reader = Reader::new(segment.bytes(), false);
            for _ in 0..half {
                let body = reader.varint("record length").expect("a record that we wrote ourselves");
                reader.take(body as usize, "record").expect("a record that we wrote ourselves");
            }
            let len = reader.position() as u32;
            let front = (half > 0).then(|| segment.cut_front(half, len));
            let max = chain.base_timestamp + segment.renumber(0);
            let part = batch_of(segment.count() as usize, chain.base_timestamp, max, stamp, &[segment.bytes()]);
            check(&part, &expected[half as usize..count], stamp);
            drop((front, segment));
            drain.recycle(chain);
        }
        assert_eq!(from, next, "all that was accepted came out");
        assert_eq!(accumulator.free(), 128 << 10, "and its memory is back");
    }
}
