//! A batch as a whole: its header, its length, what stands around it.

use crate::batch::Batch;
use crate::script::{BY_NAME, Script};

pub fn all(script: &mut Script<'_>) {
    headers(script);
    around(script);
    sizes(script);
    codecs(script);
    transactions(script);
}

fn headers(script: &mut Script<'_>) {
    script.chapter("a batch and its header");
    script.topic("headers", &[]);
    for version in 3..=13 {
        script.version = version;
        script.send(&format!("a good batch, v{version}"), &Batch::of(2));
        script.send(&format!("a wrong CRC, v{version}"), &Batch::of(2).but(|b| b.crc = Some(7)));
    }
    script.version = BY_NAME;
    for offset in [1, -1, i64::MAX, i64::MIN] {
        script.send(&format!("base offset {offset}"), &Batch::of(2).but(|b| b.base_offset = offset));
    }
    for length in [-1, 0, 13, 14, 20, 48, 49, 50, i32::MAX, i32::MIN] {
        // What is read behind its end begins with its times.
        let time = 1_700_000_000_000;
        let timed = Batch::of(2).but(|b| (b.base_timestamp, b.max_timestamp) = (time, time));
        script.send(&format!("length {length}"), &timed.but(|b| b.length = Some(length)));
    }
    for epoch in [0, 7, i32::MAX, i32::MIN] {
        script.send(&format!("leader epoch {epoch}"), &Batch::of(2).but(|b| b.leader_epoch = epoch));
    }
    for magic in [0, 1, 3, 127, -1] {
        script.send(&format!("magic {magic}"), &Batch::of(2).but(|b| b.magic = magic));
    }
    for bits in [0x08, 0x20, 0x40, 0x80, 0x100, 0x4000, i16::MIN, 0x28] {
        script.send(&format!("attributes {bits:#x}"), &Batch::of(2).but(|b| b.attributes = bits));
    }
    for (count, last) in [(1, 1), (1, 0), (2, 0), (2, 2), (3, 2), (3, 1), (0, -1), (0, 0), (0, 1), (-1, -2), (-1, 1)] {
        let batch = Batch::of(2).but(|b| (b.count, b.last_offset_delta) = (count, last));
        script.send(&format!("count {count} and last delta {last} for two records"), &batch);
    }
    let largest = Batch::of(2).but(|b| (b.count, b.last_offset_delta) = (i32::MAX, i32::MAX - 1));
    script.send("count 2^31-1 for two records", &largest);
    let smallest = Batch::of(2).but(|b| (b.count, b.last_offset_delta) = (i32::MIN, i32::MAX));
    script.send("count -2^31, last delta 2^31-1", &smallest);
    script.send("no records at all, count 0", &Batch::of(0));
    script.send("no records at all, count 0, last delta 0", &Batch::of(0).but(|b| b.last_offset_delta = 0));
    script.send("no records, count 1", &Batch::of(0).but(|b| (b.count, b.last_offset_delta) = (1, 0)));
}

fn around(script: &mut Script<'_>) {
    script.chapter("what stands around a batch");
    script.topic("around", &[]);
    let good = Batch::of(1).bytes();
    script.bytes("empty records", Vec::new());
    for len in [1, 11, 12, 16, 17, 20, 60, 61, good.len() - 1] {
        script.bytes(&format!("cut after {len} bytes"), good[..len].to_vec());
    }
    for len in [1, 5, 11, 12, 16, 17, 60, 61, 100] {
        for byte in [0, 0xff] {
            script.bytes(&format!("{len} bytes of {byte:#x} behind it"), [&good[..], &vec![byte; len]].concat());
        }
    }
    script.bytes("two batches", [&good[..], &good].concat());
    script.bytes("a second one, cut off", [&good[..], &good[..good.len() - 1]].concat());
    script.bytes("a second one, magic 1", [&good[..], &Batch::of(1).but(|b| b.magic = 1).bytes()].concat());
    script.bytes("a second one, magic 3", [&good[..], &Batch::of(1).but(|b| b.magic = 3).bytes()].concat());
    script.bytes("a second one with a wrong CRC", [&good[..], &Batch::of(1).but(|b| b.crc = Some(1)).bytes()].concat());
    script.bytes("the first with a wrong CRC", [&Batch::of(1).but(|b| b.crc = Some(1)).bytes()[..], &good].concat());
}

fn sizes(script: &mut Script<'_>) {
    script.chapter("too large for the topic");
    let batch = Batch::of(3).by(50, 0, 0);
    let len = batch.bytes().len();
    script.topic("sizes", &[("max.message.bytes", "200")]);
    script.send("as large as it may be", &Batch::filled(200));
    script.send("one byte more", &Batch::filled(201));
    script.send("one byte more and a wrong CRC", &Batch::filled(201).but(|b| b.crc = Some(1)));
    script.send("one byte more and magic 1", &Batch::filled(201).but(|b| b.magic = 1));
    script.send("one byte more and a base offset", &Batch::filled(201).but(|b| b.base_offset = 1));
    script.send("one byte more and a control batch", &Batch::filled(201).but(|b| b.attributes = 0x20));
    script.send("not larger, but with bytes behind it", &Batch::filled(200).but(|b| b.tail = vec![0; 5]));
    script.send("larger only as its length says", &Batch::filled(200).but(|b| b.length = Some(300)));
    script.send("of a producer", &batch);
    script.send("again", &batch);
    script.limit(len - 1);
    script.send("again, now too large: looked at before duplicates", &batch);
    script.send("its first part under the same sequence", &Batch::of(1).by(50, 0, 0));
    script.send("what follows it", &Batch::of(1).by(50, 0, 3));
    script.limit(1000);
    script.send("again, no longer too large", &batch);
}

fn codecs(script: &mut Script<'_>) {
    script.chapter("codecs");
    script.topic("codecs", &[]);
    for codec in 5..=7 {
        script.send(&format!("codec {codec}"), &Batch::of(2).but(|b| b.attributes = codec));
    }
    script.send("codec 7 and a wrong CRC", &Batch::of(2).but(|b| (b.attributes, b.crc) = (7, Some(1))));
    script.send("codec 7 and a control batch", &Batch::of(2).but(|b| b.attributes = 0x27));
    script.send("codec 7 and a wrong count", &Batch::of(2).but(|b| (b.attributes, b.count) = (7, 1)));
    script.send("codec 7 and a base offset", &Batch::of(2).but(|b| (b.attributes, b.base_offset) = (7, 1)));
    for version in [3, 6] {
        script.version = version;
        script.send(&format!("zstd, v{version}"), &Batch::of(2).but(|b| b.attributes = 4));
        script.send(
            &format!("zstd and a wrong CRC, v{version}"),
            &Batch::of(2).but(|b| (b.attributes, b.crc) = (4, Some(1))),
        );
    }
    script.acks = 2;
    script.send("zstd and acks=2, v6", &Batch::of(2).but(|b| b.attributes = 4));
}

fn transactions(script: &mut Script<'_>) {
    script.chapter("transactional batches without a transaction");
    script.topic("transactions", &[]);
    let transactional = |id| Batch::of(1).by(id, 0, 0).but(|b| b.attributes = 0x10);
    for version in [3, 8, 12, 13] {
        script.version = version;
        script.send(&format!("no transactional id in the request, v{version}"), &transactional(60));
    }
    script.send("nor a producer id", &Batch::of(1).but(|b| b.attributes = 0x10));
    script.send("and a wrong CRC", &transactional(60).but(|b| b.crc = Some(1)));
    script.version = BY_NAME;
    script.transactional_id = Some("tx");
    script.send("a transactional id, but no bit", &Batch::of(1).by(61, 0, 0));
}
