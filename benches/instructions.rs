//! How many instructions does a record cost on each part of its way? A program for callgrind, which counts inside
//! [`measured`] alone: `ci/callgrind.sh` builds it, runs each case with two counts, and prints the difference as a table.
//! Counts do not depend on the machine's load, so they show what a change costs where times cannot.
//!
//! Without arguments each case runs once, as a test. `--list` names the cases; `CASE ROUNDS` runs one.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use ringmail::testing::internals::{self, ByHand};
use ringmail::testing::partition_for_key;
use ringmail::{Delivery, DeliveryError, Producer, ProducerBuilder, Record, RecordMetadata, Topic};

/// What callgrind counts.
#[inline(never)]
fn measured<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// The work, measured if so wanted.
fn maybe<R>(wanted: bool, work: impl FnOnce() -> R) -> R {
    if wanted { measured(work) } else { work() }
}

/// A case: what one unit is called, how many there are in a round, and what runs so many rounds.
struct Case {
    name: &'static str,
    unit: &'static str,
    units: u64,
    run: fn(rounds: u64, units: u64),
}

/// Records of 100 bytes in a batch that leaves while another one is in flight: a little more than 256 KiB.
const LARGE: u64 = 2450;
/// In a batch that leaves when nothing is in flight: what a segment of `batch.size` holds.
const SMALL: u64 = 150;

const CASES: &[Case] = &[
    Case { name: "send_tagged", unit: "record", units: LARGE, run: |n, of| stream(n, of, Part::Caller, TAGGED) },
    Case { name: "send_tagged, key", unit: "record", units: LARGE, run: |n, of| stream(n, of, Part::Caller, KEYED) },
    Case { name: "send, drop", unit: "record", units: LARGE, run: |n, of| stream(n, of, Part::Caller, DROPPED) },
    Case { name: "claim, commit, drop", unit: "record of 1 kB", units: 20, run: claims },
    Case { name: "murmur2, 16 bytes", unit: "key", units: 1000, run: |n, of| hashes(n, of) },
    Case { name: "sender, large batch", unit: "batch", units: 1, run: |n, _| stream(n, LARGE, Part::Pack, TAGGED) },
    Case { name: "crc, large batch", unit: "batch", units: 1, run: |n, _| crcs(n, LARGE) },
    Case { name: "sender, small batch", unit: "batch", units: 1, run: |n, _| stream(n, SMALL, Part::Pack, TAGGED) },
    Case { name: "crc, small batch", unit: "batch", units: 1, run: |n, _| crcs(n, SMALL) },
    Case { name: "ack, tagged", unit: "batch", units: 1, run: |n, _| stream(n, LARGE, Part::Answer, TAGGED) },
    Case { name: "ack, deliveries", unit: "batch", units: 1, run: |n, _| stream(n, LARGE, Part::Answer, DROPPED) },
    Case { name: "listener", unit: "record", units: LARGE, run: |n, of| stream(n, of, Part::Callbacks, TAGGED) },
    Case { name: "wait, done", unit: "delivery", units: 1000, run: waits },
    Case { name: "answer decoded", unit: "partition", units: 100, run: answers },
];

/// Whose work is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Caller,
    Pack,
    Answer,
    Callbacks,
}

const VALUE: &[u8] = &[7; 100];

/// How a record is sent.
#[derive(Clone, Copy)]
struct How {
    /// The producer has a listener.
    listens: bool,
    send: fn(&Topic, u64),
}

const TAGGED: How = How { listens: true, send: |topic, tag| topic.send_tagged(Record::value(VALUE), tag).unwrap() };
const KEYED: How =
    How { listens: true, send: |topic, tag| topic.send_tagged(Record::value(VALUE).with_key(&[9; 16]), tag).unwrap() };
const DROPPED: How = How { listens: false, send: |topic, _| drop(topic.send(Record::value(VALUE)).unwrap()) };

/// Without linger, so that each turn of the sender takes what there is.
fn by_hand(builder: ProducerBuilder) -> (ByHand, Topic) {
    let mut hand = ByHand::new(builder.set("linger.ms", "0"), 1).unwrap();
    let topic = hand.topic("t").unwrap();
    (hand, topic)
}

/// Rounds of `of` records, each a batch. Large ones leave while the one before is in flight, as in a steady stream.
fn stream(rounds: u64, of: u64, part: Part, how: How) {
    let listener = |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
        black_box((tag, result.unwrap().offset()));
    };
    let builder = Producer::builder();
    let (mut hand, topic) = by_hand(if how.listens { builder.listener(listener) } else { builder });
    let send = how.send;
    let steady = of == LARGE;
    if steady {
        // One in flight, so that the next one grows.
        round(&mut hand, &topic, SMALL, None, send);
    }
    for _ in 0..rounds {
        round(&mut hand, &topic, of, Some(part), send);
        if !steady {
            finish(&mut hand, part);
        }
    }
    assert!(hand.settle());

    fn round(hand: &mut ByHand, topic: &Topic, of: u64, part: Option<Part>, send: fn(&Topic, u64)) {
        maybe(part == Some(Part::Caller), || (0..of).for_each(|tag| send(topic, tag)));
        maybe(part == Some(Part::Pack), || hand.pack());
        assert_eq!(hand.answer(), of, "one batch");
        if let Some(part) = part.filter(|_| of == LARGE) {
            finish(hand, part);
        }
    }

    /// The oldest batch in flight.
    fn finish(hand: &mut ByHand, part: Part) {
        assert!(maybe(part == Part::Answer, || hand.read_answer()));
        maybe(part == Part::Callbacks, || hand.call_back());
    }
}

fn claims(rounds: u64, of: u64) {
    let (mut hand, topic) = by_hand(Producer::builder());
    for _ in 0..rounds {
        measured(|| {
            for number in 0..of {
                let mut claim = topic.claim(1000, None, &[]).unwrap();
                claim.fill(number as u8);
                drop(claim.commit().unwrap());
            }
        });
        assert!(hand.settle());
    }
}

fn hashes(rounds: u64, of: u64) {
    let mut key = [9; 16];
    measured(|| {
        for number in 0..rounds * of {
            key[0] = number as u8;
            black_box(partition_for_key(black_box(&key), black_box(12)));
        }
    });
}

fn crcs(rounds: u64, records: u64) {
    // As long as the batch: 61 bytes of header are hashed from byte 21 on, and a record of 100 is 109 or 110 bytes.
    let batch = vec![7; (records * 110 - records.min(64) + 40) as usize];
    measured(|| {
        for _ in 0..rounds {
            black_box(internals::crc(black_box(&batch)));
        }
    });
}

fn waits(rounds: u64, of: u64) {
    let (mut hand, topic) = by_hand(Producer::builder());
    for _ in 0..rounds {
        let deliveries: Vec<Delivery> = (0..of).map(|_| topic.send(Record::value(VALUE)).unwrap()).collect();
        assert!(hand.settle());
        measured(|| deliveries.into_iter().for_each(|delivery| drop(black_box(delivery.wait().unwrap()))));
    }
}

fn answers(rounds: u64, of: u64) {
    let body = internals::produce_answer(13, of as i32);
    measured(|| {
        for _ in 0..rounds {
            black_box(internals::read_produce_answer(black_box(&body), 13).unwrap());
        }
    });
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => CASES.iter().for_each(|case| (case.run)(3, case.units)),
        ["--list"] => CASES.iter().for_each(|case| println!("{}\t{}\t{}", case.name, case.unit, case.units)),
        [name, rounds] => {
            let case = CASES.iter().find(|case| case.name == name).unwrap();
            (case.run)(rounds.parse().unwrap(), case.units);
        }
        _ => println!("instructions are counted by ci/callgrind.sh"),
    }
}
