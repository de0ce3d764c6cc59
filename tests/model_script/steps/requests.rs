//! Produce requests as a whole: versions, acks, which topics and partitions they name, and how often.

use crate::batch::Batch;
use crate::client::{Produce, frame};
use crate::script::{BY_NAME, Script};

pub fn all(script: &mut Script<'_>) {
    versions(script);
    acks(script);
    names(script);
    spoiled(script);
    twice(script);
    frames(script);
}

fn good() -> Option<Vec<u8>> {
    Some(Batch::of(1).bytes())
}

fn bad() -> Option<Vec<u8>> {
    Some(Batch::of(1).but(|b| b.crc = Some(1)).bytes())
}

fn versions(script: &mut Script<'_>) {
    script.chapter("versions of Produce");
    script.topic("versions", &[]);
    for version in [-1, 0, 1, 2, 14, 99, i16::MAX] {
        script.version = version;
        script.send(&format!("v{version}"), &Batch::of(1));
    }
    script.version = 3;
    script.send("and a good one", &Batch::of(1));
}

fn acks(script: &mut Script<'_>) {
    script.chapter("acks");
    script.topic_of("acks", 2, &[("min.insync.replicas", "2")]);
    for acks in [-1, 1, 0, 2, -2, 99, i16::MIN] {
        script.acks = acks;
        script.send(&format!("acks={acks}"), &Batch::of(1));
    }
    script.acks = 2;
    script.send("acks=2 and a wrong CRC", &Batch::of(1).but(|b| b.crc = Some(1)));
    script.bytes("acks=2 and no records", Vec::new());
    script.send("acks=2 and a transactional batch", &Batch::of(1).but(|b| b.attributes = 0x10));
    let absent = script.produce(&[("absent", 0, good())]);
    script.request("acks=2 and an unknown topic", &absent);
    let both = script.produce(&[("acks", 0, good()), ("acks", 9, good())]);
    script.request("acks=2, a good and an unknown partition", &both);
    script.acks = 0;
    for (what, records) in [("a wrong CRC", bad()), ("no records", Some(Vec::new()))] {
        let request = script.produce(&[("acks", 0, records)]);
        script.request(&format!("acks=0 and {what}"), &request);
    }
    let absent = script.produce(&[("absent", 0, good())]);
    script.request("acks=0 and an unknown topic", &absent);
    let both = script.produce(&[("acks", 0, bad()), ("acks", 1, good())]);
    script.request("acks=0, a bad and a good one", &both);
    let none = script.produce(&[]);
    script.request("acks=0 and no topics", &none);
    script.version = 13;
    let absent = script.produce(&[("absent", 0, good())]);
    script.request("acks=0 and an unknown topic id", &absent);
}

fn names(script: &mut Script<'_>) {
    script.chapter("which topics and partitions");
    script.topic_of("named", 2, &[]);
    for version in [3, BY_NAME, 12, 13] {
        script.version = version;
        let mut ask = |what: &str, entries: &[(&str, i32, Option<Vec<u8>>)]| {
            let request = script.produce(entries);
            script.request(&format!("{what}, v{version}"), &request);
        };
        ask("a partition that is not there", &[("named", 2, good())]);
        ask("partition -1", &[("named", -1, good())]);
        ask("an unknown topic", &[("absent", 0, good())]);
        ask("an unknown topic and a wrong CRC", &[("absent", 0, bad())]);
        ask("an unknown topic and no records", &[("absent", 0, Some(Vec::new()))]);
        ask("a known and an unknown one", &[("absent", 0, good()), ("named", 1, good())]);
        ask("a good, a bad and an unknown one", &[("named", 0, good()), ("named", 1, bad()), ("named", 7, good())]);
        ask(
            "a bad one and one of two batches",
            &[("named", 0, bad()), ("named", 1, Some([good(), good()].into_iter().flatten().flatten().collect()))],
        );
        ask("no topics", &[]);
        if version == 12 {
            ask("null records", &[("named", 0, None)]);
        }
    }
    script.version = BY_NAME;
    for name in ["", ".", "a b", "__consumer_offsets"] {
        let request = script.produce(&[(name, 0, good())]);
        script.request(&format!("topic {name:?}"), &request);
    }
    let request = script.produce(&[(&"a".repeat(250), 0, good())]);
    script.request("a topic name of 250 letters", &request);
    script.version = 13;
    let mut zero = script.produce(&[("named", 0, good())]);
    zero.topics[0].1 = [0; 16];
    script.request("topic id zero", &zero);
    let mut empty = script.produce(&[("named", 0, good())]);
    empty.topics[0].2.clear();
    script.request("a topic without partitions, v13", &empty);
    empty.version = 12;
    script.request("a topic without partitions, v12", &empty);
}

/// A batch that spoils the whole request, beside a good one.
fn spoiled(script: &mut Script<'_>) {
    script.chapter("a good batch beside others");
    script.topic_of("beside", 2, &[]);
    let changed = |change: fn(&mut Batch)| Some(Batch::of(1).but(change).bytes());
    let others = [
        ("a wrong CRC", bad()),
        ("magic 1", changed(|b| b.magic = 1)),
        ("magic 3", changed(|b| b.magic = 3)),
        ("length 0", changed(|b| b.length = Some(0))),
        ("length 2^31-1", changed(|b| b.length = Some(i32::MAX))),
        ("twelve bytes behind it", changed(|b| b.tail = vec![0; 12])),
        ("no records", Some(Vec::new())),
        ("null records", None),
        ("a transactional batch", changed(|b| b.attributes = 0x10)),
        ("a transactional batch of magic 1", changed(|b| (b.attributes, b.magic) = (0x10, 1))),
        ("a transactional batch of codec 7", changed(|b| b.attributes = 0x17)),
        ("a transactional batch with a wrong count", changed(|b| (b.attributes, b.count) = (0x10, 9))),
        ("a batch without records", Some(Batch::of(0).bytes())),
    ];
    for (what, records) in others {
        // Silence takes long to hear.
        for acks in [-1, 2, 0].into_iter().filter(|acks| *acks == -1 || records.is_some()) {
            script.acks = acks;
            for (where_to, topic, index) in [("", "beside", 1), (" for an unknown partition", "beside", 9)] {
                let before = script.produce(&[(topic, index, records.clone()), ("beside", 0, good())]);
                script.request(&format!("{what}{where_to}, acks={acks}"), &before);
                if acks == -1 {
                    let behind = script.produce(&[("beside", 0, good()), (topic, index, records.clone())]);
                    script.request(&format!("{what}{where_to}, behind the good one"), &behind);
                }
            }
        }
    }
    script.acks = -1;
    for version in [3, 13] {
        script.version = version;
        for (what, records) in
            [("magic 3", changed(|b| b.magic = 3)), ("a transactional batch", changed(|b| b.attributes = 0x10))]
        {
            let request = script.produce(&[("beside", 1, records), ("absent", 0, good()), ("beside", 0, good())]);
            script.request(&format!("{what}, and an unknown topic, v{version}"), &request);
        }
    }
}

/// The same topic with these entries, in one go or each for itself.
fn twice(script: &mut Script<'_>) {
    script.chapter("the same partition twice");
    script.topic_of("twice", 2, &[]);
    for version in [3, BY_NAME, 12, 13] {
        script.version = version;
        let apart = |script: &Script<'_>, entries: &[(i32, Option<Vec<u8>>)]| {
            let named: Vec<_> = entries.iter().map(|(index, records)| ("twice", *index, records.clone())).collect();
            script.produce(&named)
        };
        let together = |script: &Script<'_>, entries: &[(i32, Option<Vec<u8>>)]| {
            let mut request = apart(script, &entries[..1]);
            request.topics[0].2 = entries.to_vec();
            request
        };
        let two = Some(Batch::of(2).bytes());
        type Way<'w> = &'w dyn Fn(&Script<'_>, &[(i32, Option<Vec<u8>>)]) -> Produce;
        for (name, way) in [("one entry of the topic", &together as Way<'_>), ("two entries", &apart)] {
            let mut ask = |what: &str, entries: &[(i32, Option<Vec<u8>>)]| {
                let request = way(script, entries);
                script.request(&format!("{what}, {name}, v{version}"), &request);
            };
            ask("one record, then two", &[(0, good()), (0, two.clone())]);
            ask("two records, then one", &[(0, two.clone()), (0, good())]);
            ask("a bad one, then a good one", &[(0, bad()), (0, good())]);
            ask("a good one, then a bad one", &[(0, good()), (0, bad())]);
            ask(
                "two batches, then a good one",
                &[(0, Some([good(), good()].into_iter().flatten().flatten().collect())), (0, good())],
            );
            ask(
                "a good one, then two batches",
                &[(0, good()), (0, Some([good(), good()].into_iter().flatten().flatten().collect()))],
            );
            ask("no records, a good one, another", &[(0, Some(Vec::new())), (1, good()), (0, two.clone())]);
            ask("an unknown partition twice", &[(9, good()), (9, good())]);
        }
    }
}

fn frames(script: &mut Script<'_>) {
    script.chapter("Produce requests that are cut off or too long");
    script.topic("frames", &[]);
    for version in [3, 9, 13] {
        script.version = version;
        let request = script.produce(&[("frames", 0, good())]);
        let body = request.body();
        let flexible = version >= 9;
        let mut answers: Vec<(usize, String)> = Vec::new();
        for len in 0..body.len() {
            let answer =
                script.answer_in_words(&frame(0, version, 7, flexible, &body[..len]), |_| "answered".to_owned());
            if answers.last().is_none_or(|(_, last)| *last != answer) {
                answers.push((len, answer));
            }
        }
        let answers: Vec<_> = answers.iter().map(|(len, answer)| format!("from {len} bytes {answer}")).collect();
        script.line(&format!("cut anywhere, v{version}"), &answers.join(", "));
        let longer = frame(0, version, 7, flexible, &[&body[..], &[0; 9]].concat());
        script.ask(&format!("bytes behind the body, v{version}"), &longer, |_| "answered".to_owned());
        script.request(&format!("a good one, v{version}"), &request);
    }
}
