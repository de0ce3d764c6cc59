//! What a broker accepts and refuses in a batch.

use super::*;

#[test]
fn a_good_batch_is_stored_and_gets_offsets() {
    for version in 3..=13 {
        let mut broker = Harness::new(BrokerOptions::default());
        broker.version = version;
        let answer = broker.produce(&batch(&["a", "b"]));
        let log_start_offset = if version >= 5 { 0 } else { -1 };
        let expected = Answered {
            index: 0,
            error: 0,
            base_offset: 0,
            log_append_time: -1,
            log_start_offset,
            bad_records: Vec::new(),
            current_leader: None,
        };
        assert_eq!(answer, expected, "version {version}");
        assert_eq!(broker.send(&batch(&["c"])), (0, 2));
        assert_eq!(broker.values(), ["a", "b", "c"]);
        let offsets: Vec<_> = broker.log().iter().map(|record| (record.offset, record.base_offset)).collect();
        assert_eq!(offsets, [(0, 0), (1, 0), (2, 2)]);
    }
}

/// Sends a batch that should be refused whole and returns the answer; nothing may be stored.
fn refused(batch: &[u8]) -> (i16, Vec<i32>) {
    let mut broker = Harness::new(BrokerOptions::default());
    let answer = broker.produce(batch);
    assert_eq!(answer.base_offset, -1);
    assert_eq!(broker.log(), []);
    (answer.error, answer.bad_records)
}

#[test]
fn what_is_not_one_whole_batch_of_this_format_is_refused() {
    let good = batch(&["a"]);
    assert_eq!(refused(&[]).0, 87, "empty");
    assert_eq!(refused(&good[..16]).0, 87, "less than a head");
    assert_eq!(refused(&good[..good.len() - 1]).0, 87, "cut off");
    assert_eq!(refused(&[&good[..], &good].concat()).0, 87, "two");
    assert_eq!(refused(&[&good[..], &[0; 100]].concat()).0, 2, "zeros behind it");
    for (magic, error) in [(0, 87), (1, 87), (3, 2), (0xff, 2)] {
        let mut changed = good.clone();
        changed[16] = magic;
        assert_eq!(refused(&changed).0, error, "magic {magic}");
    }
    let mut short = good.clone();
    short[8..12].copy_from_slice(&20_i32.to_be_bytes());
    assert_eq!(refused(&short[..32]).0, 2, "a length without room for a header");
    let mut negative = good;
    negative[8] = 0xff;
    assert_eq!(refused(&negative).0, 2);
}

#[test]
fn a_few_bytes_behind_the_batch_are_dropped() {
    let good = batch(&["a"]);
    let mut broker = Harness::new(BrokerOptions::default());
    assert_eq!(broker.send(&[&good[..], &[1, 2, 3, 4, 5]].concat()), (0, 0));
    assert_eq!(broker.send(&[&good[..], &good[..good.len() - 1]].concat()), (0, 1), "a second one, cut off");
    assert_eq!(broker.values(), ["a", "a"]);
}

#[test]
fn every_byte_under_the_crc_is_covered() {
    let good = batch(&["abc"]);
    for at in 17..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 0x40;
        assert_eq!(refused(&changed).0, 2, "byte {at}");
    }
}

#[test]
fn headers_that_contradict_the_records_are_refused() {
    assert_eq!(refused(&batch_with(&["a", "b"], |header| header.last_offset_delta = 2)).0, 87);
    assert_eq!(refused(&batch_with(&["a", "b"], |header| header.count = 1)).0, 87);
    let both = |header: &mut BatchHeader, count| {
        header.count = count;
        header.last_offset_delta = count - 1;
    };
    assert_eq!(refused(&batch_with(&["a", "b"], |header| both(header, 1))).0, 87, "records left over");
    assert_eq!(refused(&batch_with(&["a", "b"], |header| both(header, 3))).0, 87, "records missing");
    assert_eq!(refused(&batch_with(&[], |header| both(header, 0))).0, 87, "no records");
    assert_eq!(refused(&batch_with(&["a"], |header| both(header, i32::MIN + 1))).0, 87);
    assert_eq!(refused(&batch_with(&["a"], |header| header.attributes = 0x20)).0, 87, "control");
    assert_eq!(refused(&batch_with(&["a"], |header| header.producer_id = 5)).0, 87, "an id without sequence");
    assert_eq!(refused(&batch_with(&["a"], |header| header.attributes = 0x10)).0, 53, "transactional");
    assert_eq!(refused(&batch_with(&["a"], |header| header.attributes = 1)).0, 76, "gzip: not built");
    assert_eq!(refused(&batch_with(&["a"], |header| header.attributes = 5)).0, -1, "no such codec");
    let mut offset = batch(&["a"]);
    offset[7] = 1;
    assert_eq!(refused(&offset).0, 87, "a base offset");
}

#[test]
fn record_lengths_and_offset_deltas_must_be_right() {
    let good = batch(&["aa", "bb", "cc"]);
    let record = (good.len() - LEN) / 3;
    let changes = [
        (0, 2, "length"),
        (3, 2, "offset delta"),
        (4, 1, "key length"),
        (5, 2, "value length"),
        (8, 2, "header count"),
    ];
    for (at, more, name) in changes {
        let mut changed = good.clone();
        changed[LEN + record + at] += more;
        assert_eq!(refused(&sealed(changed)).0, 87, "{name}");
    }
    let mut null_key = good.clone();
    null_key[LEN + record + 4] = 3;
    assert_eq!(Harness::new(BrokerOptions::default()).send(&sealed(null_key)), (0, 0), "a key length of -2 is null");
    let mut swapped = good.clone();
    swapped[LEN + record + 3] = 4;
    swapped[LEN + 2 * record + 3] = 2;
    assert_eq!(refused(&sealed(swapped)), (87, vec![1, 2]));
    let mut attributes = good;
    attributes[LEN + 1] = 0x55;
    assert_eq!(Harness::new(BrokerOptions::default()).send(&sealed(attributes)), (0, 0), "nobody looks at these");
}

#[test]
fn the_size_limit_includes_the_header_and_comes_before_the_crc() {
    let mut good = batch(&["0123456789"]);
    let limit = |max_message_bytes| {
        Harness::with_topic(TopicOptions { max_message_bytes, partitions: 1, ..TopicOptions::default() })
    };
    assert_eq!(limit(good.len()).send(&good), (0, 0));
    assert_eq!(limit(good.len() - 1).send(&good), (10, -1));
    good[17] ^= 1;
    assert_eq!(limit(good.len() - 1).send(&good), (10, -1));
}

#[test]
fn a_compacted_topic_lists_every_record_without_key() {
    let mut broker = Harness::with_topic(TopicOptions { compacted: true, ..TopicOptions::default() });
    let mut records = Vec::new();
    for (i, key) in (0..).zip([None, Some(&b""[..]), None]) {
        put_record(&mut records, &Fields { key, value: Some(b"v"), headers: &[] }, 0, i);
    }
    let answer = broker.produce(&batch_around(&records, 3, |_| {}));
    assert_eq!((answer.error, answer.bad_records, answer.log_start_offset), (87, vec![0, 2], 0));
    assert_eq!(broker.log(), [], "nothing of the batch is kept");
}

/// Records at these distances from now, in milliseconds.
fn timed(deltas: &[i64], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut records = Vec::new();
    for (i, delta) in (0..).zip(deltas) {
        put_record(&mut records, &Fields::default(), *delta, i);
    }
    batch_around(&records, deltas.len() as i32, change)
}

#[test]
fn timestamps_more_than_an_hour_ahead_are_refused() {
    assert_eq!(refused(&timed(&[0, 3_600_001, 3_600_000, 9_000_000], |_| {})), (32, vec![1, 3]));
    let mut broker = Harness::new(BrokerOptions::default());
    assert_eq!(broker.send(&timed(&[3_600_000, -NOW, -NOW - 1, -NOW - 2], |_| {})), (0, 0));
    let times: Vec<_> = broker.log().iter().map(|record| record.timestamp).collect();
    assert_eq!(times, [NOW + 3_600_000, 0, -1, -2], "anything in the past will do");
}

#[test]
fn a_wrong_max_timestamp_is_mended() {
    let mut broker = Harness::new(BrokerOptions::default());
    for (offset, wrong) in [(0, NOW + 99), (2, 0), (4, -1)] {
        assert_eq!(broker.send(&timed(&[0, 7], |header| header.max_timestamp = wrong)), (0, offset));
    }
    assert_eq!(broker.log().len(), 6, "each decodes, CRC included");
    let stored = &broker.model.log("t", 0).unwrap().batches()[1];
    assert_eq!(stored.max_timestamp, NOW + 7);
    assert_eq!(stored.bytes[35..43], (NOW + 7).to_be_bytes());
}

#[test]
fn a_log_append_time_topic_sets_the_time() {
    let timestamp_type = TimestampType::LogAppendTime;
    let mut broker = Harness::with_topic(TopicOptions { timestamp_type, ..TopicOptions::default() });
    let answer = broker.produce(&timed(&[-NOW, 9_000_000], |_| {}));
    assert_eq!((answer.error, answer.log_append_time), (0, NOW), "timestamps are not looked at");
    assert!(broker.log().iter().all(|record| record.timestamp == NOW));
    assert_eq!(broker.send(&batch_with(&["a"], |header| header.attributes = 8)), (32, -1));
    let mut broker = Harness::new(BrokerOptions::default());
    assert_eq!(broker.send(&timed(&[5], |header| header.attributes = 8)), (0, 0), "cleared");
    assert_eq!(broker.log()[0].timestamp, NOW + 5);
}

#[test]
fn acks_must_be_one_of_three() {
    for (acks, error) in [(-1, 0), (1, 0), (2, 21), (-2, 21)] {
        let mut broker = Harness::new(BrokerOptions::default());
        broker.acks = acks;
        assert_eq!(broker.send(&batch(&["a"])).0, error, "{acks}");
    }
    let mut broker = Harness::new(BrokerOptions::default());
    broker.acks = 0;
    assert_eq!(broker.produce_all(&[("t", 0, &batch(&["a"]))]).0, Reply::Nothing);
    assert_eq!(broker.produce_all(&[("t", 0, &batch(&["b"])), ("t", 9, &batch(&["c"]))]).0, Reply::Close);
    assert_eq!(broker.values(), ["a", "b"], "the good one is stored, the error closes");
}

#[test]
fn of_a_partition_that_stands_twice_in_a_request_the_last_wins() {
    let mut broker = Harness::new(BrokerOptions::default());
    let (_, answers, _) = broker.produce_all(&[("t", 0, &batch(&["first"])), ("t", 0, &batch(&["last"]))]);
    assert_eq!(answers.len(), 1);
    assert_eq!(broker.values(), ["last"]);
}

#[test]
fn null_records_are_never_answered() {
    let mut broker = Harness::new(BrokerOptions::default());
    let mut frame = broker.produce_frame(&[("t", 0, &[])]);
    // Ends in: compact length 1 (empty), three tag bytes.
    let at = frame.len() - 4;
    assert_eq!(frame[at], 1);
    frame[at] = 0;
    assert_eq!(broker.handle(&frame).0, Reply::Hang);
}

#[test]
fn unknown_topics_and_partitions() {
    for (version, topic, error) in [(12, "absent", 3), (13, "absent", 100)] {
        let mut broker = Harness::new(BrokerOptions::default());
        broker.version = version;
        let (_, answers, _) = broker.produce_all(&[(topic, 0, &batch(&["a"])), ("t", 2, &batch(&["a"]))]);
        let errors: Vec<_> = answers.iter().map(|answer| (answer.index, answer.error)).collect();
        assert_eq!(errors, [(2, 3), (0, error)], "in the reverse order");
        assert!(broker.model.topics.len() == 1, "Produce makes no topics");
    }
}
