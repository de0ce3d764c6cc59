//! The records of a batch: lengths, deltas, keys, timestamps.

use crate::batch::{Batch, Rec, long_varint, now, t0};
use crate::script::{BY_NAME, Script};

pub fn all(script: &mut Script<'_>) {
    lies(script);
    deltas(script);
    compacted(script);
    times(script);
    append_time(script);
}

/// A batch of three records whose second is changed.
fn second(change: impl FnOnce(&mut Rec)) -> Batch {
    Batch::new(&[Rec::nth(0), Rec::nth(1).but(change), Rec::nth(2)])
}

fn lies(script: &mut Script<'_>) {
    script.chapter("records that lie");
    script.topic("records", &[]);
    let true_length = Rec::nth(1).bytes().len() as i64 - 1;
    for more in [-1, 1, -10, 10, 100, -100] {
        script.send(&format!("record length {more:+}"), &second(|r| r.length = Some(true_length + more)));
    }
    script.send("record length 2^31-1", &second(|r| r.length = Some(i32::MAX.into())));
    script.send("record length 2^40", &second(|r| r.length = Some(1 << 40)));
    script.send("record length 0", &second(|r| r.length = Some(0)));
    for len in [-3, -2, 0, 1, 3, 100, i64::from(i32::MAX)] {
        script.send(&format!("key length {len} for 2"), &second(|r| r.key_len = Some(len)));
        script.send(&format!("value length {len} for 7"), &second(|r| r.value_len = Some(len)));
    }
    script.send("null key and null value", &second(|r| (r.key, r.value) = (None, None)));
    script.send("key length -2, no bytes", &second(|r| (r.key, r.key_len) = (None, Some(-2))));
    for count in [-1, 1, 2, 1000, i64::from(i32::MAX)] {
        script.send(&format!("header count {count} for 0"), &second(|r| r.header_count = Some(count)));
    }
    let header = |key: Option<&str>, value: Option<&str>| vec![(key.map(str::to_owned), value.map(str::to_owned))];
    script.send("a header", &second(|r| r.headers = header(Some("h"), Some("v"))));
    script.send("a header without value", &second(|r| r.headers = header(Some("h"), None)));
    script.send("a header with an empty key", &second(|r| r.headers = header(Some(""), None)));
    script.send("a header without key", &second(|r| r.headers = header(None, Some("v"))));
    script.send("header count 0 for 1", &second(|r| (r.headers, r.header_count) = (header(Some("h"), None), Some(0))));
    script.send("spare bytes in a record", &second(|r| r.spare = vec![0; 3]));
    script.send("record attributes", &second(|r| r.attributes = 0x55));
    script.send("bytes behind the last record", &Batch::of(2).but(|b| b.records.push(0)));
    script.send("the last byte missing", &Batch::of(2).but(|b| b.records.truncate(b.records.len() - 1)));

    // Attributes, timestamp delta, offset delta, no key, no value, no headers.
    let stretched = |time: usize, offset: usize, rest: usize| {
        let one = |n: i64, len| long_varint(n, len);
        let body = [vec![0], one(0, time), one(0, offset), one(-1, rest), one(-1, rest), one(0, rest)].concat();
        Batch::of(1).but(|b| b.records = [one(body.len() as i64, rest), body].concat())
    };
    for (time, offset, rest) in [(1, 1, 1), (10, 5, 5), (11, 1, 1), (1, 6, 1), (1, 1, 6)] {
        let what = format!("varints of {time} bytes (time), {offset} (offset) and {rest} (lengths)");
        script.send(&what, &stretched(time, offset, rest));
    }
}

fn deltas(script: &mut Script<'_>) {
    script.chapter("offset deltas");
    script.topic("deltas", &[]);
    let lists = [[0, 0, 0], [1, 2, 3], [0, 2, 1], [0, 1, 5], [-1, 0, 1], [2, 1, 0], [0, 1, i32::MAX], [0, 1, i32::MIN]];
    for list in lists {
        let records: Vec<_> = list.iter().map(|&delta| Rec::nth(0).but(|r| r.offset_delta = delta)).collect();
        script.send(&format!("{list:?}"), &Batch::new(&records));
    }
    script.send("a good one behind them", &Batch::of(1));
}

fn compacted(script: &mut Script<'_>) {
    script.chapter("a compacted topic");
    script.topic("compacted", &[("cleanup.policy", "compact")]);
    let keys = |keys: &[Option<&str>]| {
        let record = |(n, key): (i32, &Option<&str>)| Rec::nth(n).but(|r| r.key = key.map(str::to_owned));
        Batch::new(&(0..).zip(keys).map(record).collect::<Vec<_>>())
    };
    for version in [3, 7, 8, 13] {
        script.version = version;
        script.send(&format!("the second without key, v{version}"), &keys(&[Some("a"), None, Some("c")]));
    }
    script.version = BY_NAME;
    script.send("all with keys", &keys(&[Some("a"), Some("b")]));
    script.send("an empty key is a key", &keys(&[Some(""), Some("b")]));
    script.send("one record, no key", &keys(&[None]));
    script.send("all without", &keys(&[None; 12]));
    script.send("every other without", &keys(&[None, Some("b"), None, Some("d"), None]));
    script.send("of a producer", &keys(&[Some("a"), None]).by(70, 0, 0));
    script.send("its good one under the same sequence", &keys(&[Some("a")]).by(70, 0, 0));
    script.send("out of sequence and without key", &keys(&[None]).by(70, 0, 9));
    script.send("a stale epoch and without key", &keys(&[None]).by(70, 0, 1));
    script.send("a null key and a wrong offset delta", &Batch::new(&[Rec::nth(0), Rec::nth(5).but(|r| r.key = None)]));
    let cut = keys(&[None, Some("b"), Some("c")]).but(|b| b.records.truncate(b.records.len() - 2));
    script.send("a null key, and the last record cut off", &cut);
    let old = keys(&[Some("a"), None]).but(|b| b.base_timestamp = now() + 10_000_000);
    script.send("a null key, and all in the future", &old);
    let mixed = Batch::new(&[
        Rec::nth(0).but(|r| r.key = None),
        Rec::nth(1).but(|r| r.timestamp_delta = 100_000_000),
        Rec::nth(2).but(|r| r.key = None),
        Rec::nth(3).but(|r| (r.key, r.timestamp_delta) = (None, 100_000_000)),
    ]);
    script.send("null keys, and others in the future", &mixed);
}

/// Records at these distances from the script's time.
fn timed(deltas: &[i64]) -> Batch {
    let record = |(n, delta): (i32, &i64)| Rec::nth(n).but(|r| r.timestamp_delta = *delta);
    Batch::new(&(0..).zip(deltas).map(record).collect::<Vec<_>>())
}

fn times(script: &mut Script<'_>) {
    script.chapter("timestamps");
    script.topic("times", &[]);
    const HOUR: i64 = 3_600_000;
    let until_now = now() - t0();
    script.send("59 minutes ahead", &timed(&[until_now + 59 * HOUR / 60]));
    script.send("61 minutes ahead", &timed(&[until_now + 61 * HOUR / 60]));
    script.send("the second and third too far ahead", &timed(&[0, 9 * HOUR, 5 * HOUR, 1]));
    script.send("1970", &timed(&[-t0()]));
    script.send("-1", &timed(&[-t0() - 1]));
    script.send("-2", &timed(&[-t0() - 2]));
    script.send("a century ago", &timed(&[-100 * 365 * 24 * HOUR]));
    script.send("a delta that overflows", &timed(&[0, i64::MAX]));
    script.send("a delta that underflows", &timed(&[0, i64::MIN]));
    script.send(
        "the base in the far future, the records not",
        &timed(&[-9 * HOUR]).but(|b| b.base_timestamp += 9 * HOUR),
    );
    script.send("the base -1", &timed(&[0]).but(|b| b.base_timestamp = -1));
    for (what, max) in [("0", 0), ("-1", -1), ("-2", -2), ("too large", t0() + 99), ("too small", t0() - 99)] {
        script.send(&format!("max timestamp {what}"), &timed(&[3]).but(|b| b.max_timestamp = max));
        let mended = timed(&[3]).by(80, 0, 0).but(|b| b.max_timestamp = max);
        script.send(&format!("max timestamp {what}, of a producer"), &mended);
    }
    script.send("the largest in the middle", &timed(&[5, 9, 7]).by(81, 0, 0));
    script.send("a duplicate tells the stored time", &timed(&[5, 9, 7]).by(81, 0, 0));
    script.send("a duplicate with other times tells the stored one", &timed(&[1, 2, 3]).by(81, 0, 0));
    script.send("a duplicate too far ahead", &timed(&[1, 99 * HOUR, 3]).by(81, 0, 0));
    // Once each: a broker takes a producer's age from its records' times, and may have forgotten these two already.
    script.send("all times -1, of a producer", &timed(&[-t0() - 1]).by(82, 0, 0));
    script.send("all times -2, of a producer", &timed(&[-t0() - 2]).by(83, 0, 0));

    limits(script);
}

fn limits(script: &mut Script<'_>) {
    const HOUR: i64 = 3_600_000;
    let until_now = now() - t0();
    // Before Kafka 3.6 it was one limit for both sides.
    if !script.topic("before", &[("message.timestamp.before.max.ms", "60000")]) {
        return;
    }
    script.send("now", &timed(&[until_now]));
    script.send("50 s ago", &timed(&[until_now - 50_000]));
    script.send("70 s ago, two of three", &timed(&[until_now - 70_000, until_now, until_now - 70_000]));
    script.send("1970", &timed(&[-t0()]));
    script.send("-1", &timed(&[-t0() - 1]));
    script.send("-2", &timed(&[-t0() - 2]));
    script.send("61 minutes ahead", &timed(&[until_now + 61 * HOUR / 60]));

    script.topic("after", &[("message.timestamp.after.max.ms", "120000")]);
    script.send("100 s ahead", &timed(&[until_now + 100_000]));
    script.send("140 s ahead, the last of three", &timed(&[0, until_now, until_now + 140_000]));
}

fn append_time(script: &mut Script<'_>) {
    script.chapter("a topic with the broker's time");
    script.topic("append-time", &[("message.timestamp.type", "LogAppendTime")]);
    script.send("a good batch", &timed(&[0, 1]));
    script.send("1970 and a century ahead", &timed(&[-t0(), 100 * 365 * 24 * 3_600_000]));
    script.send("the bit that says so", &timed(&[0]).but(|b| b.attributes = 8));
    script.send(
        "the bit that says so, and a wrong max timestamp",
        &timed(&[0]).but(|b| (b.attributes, b.max_timestamp) = (8, 1)),
    );
    script.send("the bit that says so, three records", &timed(&[0, 1, 2]).but(|b| b.attributes = 8));
    script
        .send("the bit that says so, and a wrong count", &timed(&[0, 1, 2]).but(|b| (b.attributes, b.count) = (8, 2)));
    script.send(
        "the bit that says so, and a record cut off",
        &timed(&[0, 1, 2]).but(|b| {
            b.attributes = 8;
            b.records.truncate(b.records.len() - 1);
        }),
    );
    script.send("the bit that says so, of a producer", &timed(&[0, 1, 2]).by(91, 0, -1).but(|b| b.attributes = 8));
    script.send("max timestamp -1", &timed(&[0]).but(|b| b.max_timestamp = -1));
    script.send("of a producer", &timed(&[5, 9, 7]).by(90, 0, 0));
    script.send("a duplicate", &timed(&[5, 9, 7]).by(90, 0, 0));
    script.send("a gap", &timed(&[5]).by(90, 0, 9));
    script.send("a wrong CRC", &timed(&[5]).but(|b| b.crc = Some(1)));

    script
        .topic("append-time-compacted", &[("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "compact")]);
    let keyless = |bits: i16| {
        Batch::new(&[Rec::nth(0), Rec::nth(1).but(|r| r.key = None), Rec::nth(2)]).but(|b| b.attributes = bits)
    };
    script.send("a null key", &keyless(0));
    script.send("a null key and the bit", &keyless(8));
    if !script.topic("compacted-before", &[("message.timestamp.before.max.ms", "60000"), ("cleanup.policy", "compact")])
    {
        return;
    }
    let ages = |list: &[(bool, i64)]| {
        let record = |(n, (key, age)): (i32, &(bool, i64))| {
            Rec::nth(n).but(|r| (r.key, r.timestamp_delta) = (key.then(|| "k".to_owned()), now() - t0() - age))
        };
        Batch::new(&(0..).zip(list).map(record).collect::<Vec<_>>())
    };
    script.send("a null key, then an old record", &ages(&[(false, 0), (true, 90_000), (true, 0)]));
    script.send("an old record, then a null key", &ages(&[(true, 90_000), (false, 0), (true, 0)]));
    script.send("an old record without key", &ages(&[(true, 0), (false, 90_000)]));
}
