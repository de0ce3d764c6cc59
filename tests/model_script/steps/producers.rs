//! Sequence numbers, epochs and duplicates; what a broker remembers of a producer, and what it forgets.

use crate::batch::Batch;
use crate::script::Script;

const TOP: i32 = i32::MAX;

pub fn all(script: &mut Script<'_>) {
    duplicates(script);
    epochs(script);
    first_batches(script);
    wraps(script);
    several(script);
    walk(script);
    deleted_records(script);
    restarts(script);
    expiry(script);
}

fn duplicates(script: &mut Script<'_>) {
    script.chapter("duplicates and gaps");
    script.topic("duplicates", &[]);
    let nth = |n: i32| Batch::of(2).by(1, 0, 2 * n);
    for n in 0..7 {
        script.send(&format!("batch {n}"), &nth(n));
    }
    for n in (0..7).rev() {
        script.send(&format!("batch {n} again"), &nth(n));
    }
    script.send("other bytes under the sequence of batch 6", &Batch::of(2).by(1, 0, 12).but(|b| b.base_timestamp += 9));
    for (what, count, sequence) in [
        ("only the first of batch 6", 1, 12),
        ("only the second of batch 6", 1, 13),
        ("batch 6 and one more", 3, 12),
        ("batches 5 and 6 in one", 4, 10),
        ("half of 5 and half of 6", 2, 11),
        ("the second of 6 and one more", 2, 13),
        ("a gap of one", 1, 15),
        ("a large gap", 1, TOP),
        ("from the start, longer", 3, 0),
        ("what follows", 1, 14),
        ("it again", 1, 14),
        ("batch 2 again", 2, 4),
        ("batch 3 again", 2, 6),
    ] {
        script.send(what, &Batch::of(count).by(1, 0, sequence));
    }
    script.send("a gap and a wrong CRC", &Batch::of(1).by(1, 0, 99).but(|b| b.crc = Some(1)));
    script.send("a duplicate that breaks a rule", &nth(6).but(|b| b.attributes = 0x20));
    script.version = 13;
    script.send("a duplicate, v13", &nth(6));
    (script.version, script.acks) = (3, 1);
    script.send("a duplicate, v3 and acks=1", &nth(6));
    script.acks = 0;
    script.send("a duplicate, acks=0", &nth(6));
    script.send("a gap, acks=0", &Batch::of(1).by(1, 0, 99));
    script.send("what follows, acks=0", &Batch::of(1).by(1, 0, 15));
}

fn epochs(script: &mut Script<'_>) {
    script.chapter("epochs");
    script.topic("epochs", &[]);
    for (what, epoch, sequence) in [
        ("epoch 1 at 0", 1, 0),
        ("epoch 1 at 1", 1, 1),
        ("an old epoch, its next", 0, 2),
        ("an old epoch, a duplicate's numbers", 0, 1),
        ("a new epoch not at 0", 2, 2),
        ("a new epoch at 1", 2, 1),
        ("the epoch before goes on", 1, 2),
        ("a new epoch at 0", 2, 0),
        ("the epoch before", 1, 3),
        ("the epoch before, a duplicate", 1, 2),
        ("the new one again", 2, 0),
        ("its next", 2, 1),
        ("a jump to the last epoch", i16::MAX, 0),
        ("its next", i16::MAX, 1),
        ("back to 0", 0, 0),
        ("a negative epoch at 0", -1, 0),
        ("a negative epoch, its next", -1, 2),
        ("epoch -2", -2, 0),
    ] {
        script.send(what, &Batch::of(1).by(2, epoch, sequence));
    }
    script.send("a negative epoch of a new producer", &Batch::of(1).by(3, -1, 0));
    script.send("and epoch 0 behind it", &Batch::of(1).by(3, 0, 0));
    script.send("without a producer id, any epoch and sequence", &Batch::of(1).by(-1, 5, 77));
    script.send("and any other", &Batch::of(1).by(-1, 4, 3));
    script.send("producer id -2", &Batch::of(1).by(-2, 0, 0));
    script.send("producer id -2, sequence -1", &Batch::of(1).by(-2, -1, -1));
    script.send("again", &Batch::of(1).by(-2, 0, 0));
    script.send("producer id -2^63", &Batch::of(1).by(i64::MIN, 0, 0));
}

fn first_batches(script: &mut Script<'_>) {
    script.chapter("the first batch of a producer");
    script.topic("firsts", &[]);
    for (id, sequence) in [(10, 0), (11, 5), (12, TOP), (13, -1), (14, -2), (15, i32::MIN)] {
        script.send(&format!("producer {id} at {sequence}"), &Batch::of(2).by(id, 7, sequence));
        script.send("again", &Batch::of(2).by(id, 7, sequence));
    }
    script.send("the largest producer id", &Batch::of(1).by(i64::MAX, 0, 0));
    script.send("a known one, sequence -1", &Batch::of(1).by(10, 7, -1));
}

fn wraps(script: &mut Script<'_>) {
    script.chapter("sequence numbers wrap");
    script.topic("wraps", &[]);
    script.send("up to the last but two", &Batch::of(2).by(20, 0, TOP - 4));
    script.send("up to the last", &Batch::of(3).by(20, 0, TOP - 2));
    script.send("from 0", &Batch::of(2).by(20, 0, 0));
    script.send("the last three again", &Batch::of(3).by(20, 0, TOP - 2));
    script.send("from 0 again", &Batch::of(2).by(20, 0, 0));
    script.send("the first again", &Batch::of(2).by(20, 0, TOP - 4));
    script.send("a gap of one", &Batch::of(1).by(20, 0, 3));
    script.send("what follows", &Batch::of(1).by(20, 0, 2));
    script.send("another, near the end", &Batch::of(1).by(21, 0, TOP - 1));
    script.send("across the end in one batch", &Batch::of(4).by(21, 0, TOP));
    script.send("again", &Batch::of(4).by(21, 0, TOP));
    script.send("only its part before the end", &Batch::of(1).by(21, 0, TOP));
    script.send("only its part behind the end", &Batch::of(3).by(21, 0, 0));
    script.send("what follows", &Batch::of(1).by(21, 0, 3));
    script.send("a gap across the end", &Batch::of(1).by(22, 0, TOP));
    script.send("0 was left out", &Batch::of(1).by(22, 0, 1));
    script.send("0", &Batch::of(1).by(22, 0, 0));
}

fn several(script: &mut Script<'_>) {
    script.chapter("producers do not see each other");
    script.topic_of("several", 2, &[]);
    script.send("producer 30", &Batch::of(1).by(30, 0, 0));
    script.send("producer 31, the same numbers", &Batch::of(1).by(31, 0, 0));
    script.send("producer 30 goes on", &Batch::of(1).by(30, 0, 1));
    let other = script.produce(&[("several", 1, Some(Batch::of(1).by(30, 0, 0).bytes()))]);
    script.request("producer 30 to the other partition", &other);
    let both = |first, second| {
        [
            ("several", 0, Some(Batch::of(1).by(30, 0, first).bytes())),
            ("several", 1, Some(Batch::of(1).by(30, 0, second).bytes())),
        ]
    };
    let request = script.produce(&both(2, 1));
    script.request("to both in one request", &request);
    script.request("again", &request);
    let request = script.produce(&both(9, 2));
    script.request("a gap in one, not in the other", &request);
}

/// A random walk around what a broker remembers: the same for every broker, by its seed.
fn walk(script: &mut Script<'_>) {
    script.chapter("a random walk over epochs and sequences");
    script.topic("walk", &[]);
    let mut random = Random(20_261_122);
    // Near the end of the numbers, so that the walk wraps.
    let (mut epoch, mut next) = (0_i16, TOP - 60);
    let mut sent = vec![(epoch, next, 1)];
    for step in 0..600 {
        let count = 1 + random.below(4) as i32;
        let recent = sent[sent.len() - 1 - random.below(sent.len().min(8) as u32) as usize];
        let (of, sequence, count) = match random.below(16) {
            0..7 => (epoch, next, count),
            7..11 => recent,
            11 => (recent.0, recent.1, count),
            12 => (epoch, after(next, random.below(7) as i32 - 3), count),
            13 => (epoch + 1, 0, count),
            14 => (epoch + 1, next, count),
            _ => (epoch - 1, next, count),
        };
        let answer = script.answer_to_bytes(Batch::of(count).by(40, of, sequence).bytes());
        let before = script.lines.len();
        script.line(&format!("{step}: epoch {of}, {count} at {sequence}"), &answer);
        let stored = script.lines[before].contains(": 0 offset") && !answer.contains("time T");
        if stored {
            (epoch, next) = (of, after(sequence, count));
            sent.push((of, sequence, count));
        }
    }
}

fn after(sequence: i32, n: i32) -> i32 {
    (i64::from(sequence) + i64::from(n)).rem_euclid(1 << 31) as i32
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

fn deleted_records(script: &mut Script<'_>) {
    script.chapter("records deleted");
    script.topic("trimmed", &[]);
    for n in 0..4 {
        script.send("", &Batch::of(2).by(45, 0, 2 * n));
    }
    script.world.delete_records("trimmed", 5);
    script.lines.push("-- records before offset 5 deleted".to_owned());
    for n in 0..4 {
        script.send(&format!("batch {n} again"), &Batch::of(2).by(45, 0, 2 * n));
    }
    script.send("what follows", &Batch::of(1).by(45, 0, 8));
    script.send("a gap", &Batch::of(1).by(45, 0, 10));
    script.send("a wrong count", &Batch::of(1).but(|b| b.count = 2));
    script.world.delete_records("trimmed", 9);
    script.lines.push("-- all records deleted".to_owned());
    script.send("batch 3 again", &Batch::of(2).by(45, 0, 6));
    script.send("a gap", &Batch::of(1).by(45, 0, 10));
    script.send("what follows", &Batch::of(1).by(45, 0, 9));
}

fn restarts(script: &mut Script<'_>) {
    script.chapter("a broker that was killed remembers the last batch");
    script.topic("restarted", &[]);
    for n in 0..6 {
        script.send(&format!("batch {n}"), &Batch::of(2).by(46, 3, 2 * n));
    }
    script.send("another producer", &Batch::of(1).by(47, 0, 5));
    script.restart();
    for n in 0..6 {
        script.send(&format!("batch {n} again"), &Batch::of(2).by(46, 3, 2 * n));
    }
    script.send("the other producer's again", &Batch::of(1).by(47, 0, 5));
    script.send("a stale epoch", &Batch::of(1).by(46, 2, 12));
    script.send("a gap", &Batch::of(1).by(46, 3, 13));
    script.send("what follows", &Batch::of(1).by(46, 3, 12));
    for n in [5, 4] {
        script.send(&format!("batch {n} again"), &Batch::of(2).by(46, 3, 2 * n));
    }
    script.send("what follows again", &Batch::of(1).by(46, 3, 12));
}

fn expiry(script: &mut Script<'_>) {
    script.chapter("a producer that expired");
    script.topic("expired", &[]);
    script.send("a batch", &Batch::of(2).by(48, 3, 0));
    if !script.expire_producers() {
        return;
    }
    script.send("again: stored twice", &Batch::of(2).by(48, 3, 0));
    script.send("again", &Batch::of(2).by(48, 3, 0));
    script.expire_producers();
    script.send("an older epoch, any sequence", &Batch::of(2).by(48, 1, 77));
    script.send("what follows", &Batch::of(2).by(48, 1, 79));
}
