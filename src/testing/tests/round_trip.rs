//! Any records, written by the producer's encoder, are what the broker's log gives back through the other decoder.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::batch_view::BatchView;
use crate::wire::record::Header;

type Bytes = Vec<u8>;

#[derive(Clone, Debug)]
struct Sent {
    timestamp_delta: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
}

fn bytes() -> impl Strategy<Value = Option<Bytes>> {
    // Lengths around the places where a varint grows, and none at all.
    let len = prop_oneof![0..3_usize, 60..68_usize, 8188..8196_usize];
    proptest::option::of((len, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]))
}

fn sent() -> impl Strategy<Value = Sent> {
    let delta = prop_oneof![-70..70_i64, -NOW - 5..-NOW + 5, 3_500_000..3_600_001_i64];
    let header = ("[a-c]{0,2}|\\PC{0,4}", bytes());
    (delta, bytes(), bytes(), vec(header, 0..4)).prop_map(|(timestamp_delta, key, value, headers)| Sent {
        timestamp_delta,
        key,
        value,
        headers,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn records_come_back_as_they_were_sent(sent in vec(sent(), 1..80)) {
        let mut records = Vec::new();
        for (i, record) in (0..).zip(&sent) {
            let header = |(key, value): &'_ (String, Option<Bytes>)| (key.clone(), value.clone());
            let owned: Vec<_> = record.headers.iter().map(header).collect();
            let headers: Vec<_> =
                owned.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
            let fields = Fields { key: record.key.as_deref(), value: record.value.as_deref(), headers: &headers };
            put_record(&mut records, &fields, record.timestamp_delta, i);
        }
        let batch = batch_around(&records, sent.len() as i32, |header| header.producer_id = -1);
        let mut broker = Harness::new(BrokerOptions::default());
        prop_assert_eq!(broker.send(&batch), (0, 0));
        let stored = broker.log();
        prop_assert_eq!(stored.len(), sent.len());
        for (i, (stored, sent)) in (0..).zip(stored.iter().zip(&sent)) {
            prop_assert_eq!(stored.offset, i);
            prop_assert_eq!(stored.timestamp, NOW + sent.timestamp_delta);
            prop_assert_eq!(&stored.key, &sent.key);
            prop_assert_eq!(&stored.value, &sent.value);
            prop_assert_eq!(&stored.headers, &sent.headers);
        }
    }

    #[test]
    fn damaged_batches_never_panic(values in vec("[a-z]{0,20}", 1..5), at in 0..400_usize, byte: u8, reseal: bool) {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        decoders_agree_on_a_damaged_batch(&values, at, byte, reseal);
    }
}

fn decoders_agree_on_a_damaged_batch(values: &[&str], at: usize, byte: u8, reseal: bool) {
    let mut batch = batch(values);
    let at = at % batch.len();
    batch[at] = byte;
    if reseal {
        batch = sealed(batch);
    }
    let mut broker = Harness::new(BrokerOptions::default());
    let (error, offset) = broker.send(&batch);
    assert_eq!(error == 0, offset == 0);
    // What was let in, both decoders can read.
    let stored = broker.model.log("t", 0).unwrap().batches();
    assert_eq!(stored.len(), usize::from(error == 0));
    for stored in stored {
        let theirs = decode_batch(&stored.bytes).unwrap();
        let ours: Result<Vec<_>, _> = BatchView::parse(&stored.bytes).unwrap().records().collect();
        assert_eq!(theirs.len(), ours.unwrap().len());
    }
}

/// A key length of -29: Kafka reads every negative length as null, and so must both decoders.
#[test]
fn every_negative_length_is_null() {
    decoders_agree_on_a_damaged_batch(&["aaaaaaaaaaaa", "aaaaaaaaa"], 161, 43, true);
}
