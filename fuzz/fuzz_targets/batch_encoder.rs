//! Whatever records are encoded, a second decoder reads the same ones back, and every length was foretold.
#![no_main]

// The room of the wire formats leans on no other, so it can be compiled into the target without making it public.
#[allow(dead_code)]
#[path = "../../src/wire/mod.rs"]
mod wire;

#[allow(dead_code)]
#[path = "../../cli/src/decoder.rs"]
mod decoder;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wire::record::{Fields, Header, Shape};
use wire::record_batch::{BatchHeader, LEN};

#[derive(Arbitrary, Debug)]
struct Input {
    base_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    records: Vec<Record>,
}

#[derive(Arbitrary, Debug)]
struct Record {
    /// Milliseconds after the base timestamp, or before it.
    delta: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fuzz_target!(|input: Input| {
    if input.records.is_empty() {
        return;
    }
    // The broker refuses times before 1970, and times near the end of i64 have no delta.
    let base = input.base_timestamp.rem_euclid(1 << 48);
    let mut records = Vec::new();
    for (i, record) in input.records.iter().enumerate() {
        let headers: Vec<Header> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let fields = Fields { key: record.key.as_deref(), value: record.value.as_deref(), headers: &headers };
        let shape = Shape::of(&fields);
        let length = shape.len(record.delta.into(), i as i32);
        assert!(length <= shape.len_max());
        let start = records.len();
        records.resize(start + length, 0);
        shape.put(&mut records[start..], &fields, record.delta.into(), i as i32);
    }
    let count = input.records.len() as i32;
    let header = BatchHeader {
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: base,
        max_timestamp: input.records.iter().map(|r| base + i64::from(r.delta)).max().unwrap(),
        producer_id: input.producer_id,
        producer_epoch: input.producer_epoch,
        base_sequence: input.base_sequence,
        count,
    };
    let crc = header.crc([&records[..records.len() / 2], &records[records.len() / 2..]].into_iter());
    let mut head = [0; LEN];
    header.put(&mut head, records.len() as u32, crc);
    let batch = [&head[..], &records].concat();

    let mut expected = input.records.iter().enumerate();
    let next = decoder::decode(&batch, &mut |stored| {
        let (i, record) = expected.next().expect("as many as were encoded");
        assert_eq!((stored.offset, stored.timestamp), (i as i64, base + i64::from(record.delta)));
        assert_eq!((stored.key, stored.value), (record.key.as_deref(), record.value.as_deref()));
        let headers = record.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref()));
        assert!(headers.eq(stored.headers.iter().copied()));
    });
    assert_eq!(next, Ok(Some(i64::from(count))));
    assert!(expected.next().is_none());
});
