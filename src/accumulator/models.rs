//! loom models of the ring, the pool, the ready set, the doorbell and the wait list: `ci/test.sh loom`, or
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir target/loom models` (LOOM_MAX_PREEMPTIONS overrides the bounds written here).
//!
//! Units, records and heads are tiny here (`UNIT`, `DELTA_STEP`), and hints are std's atomics, which loom does not
//! search: it tries other orders only of what it sees, so a model of a hint needs
//! a seen access beside it. What each model catches: `ci/planted.txt`.

mod given_up;
mod memory;

use std::sync::{Arc, Mutex};

use loom::thread;

use super::*;
use crate::{record::Place, sync::Relaxed, wire::record::Fields};

/// A record in a model: 8 bytes as the first of its batch, else 9, with a value of 1 byte.
const SMALLEST: usize = 9;
const SLOTS: usize = 2;

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    builder.check(model);
}

type Accepted = Arc<Mutex<Vec<(usize, u8)>>>;

/// Both halves of an accumulator whose sender is the main thread.
struct Room {
    accumulator: Arc<Accumulator>,
    drain: Drain,
    partitions: Vec<Arc<Partition>>,
    accepted: Accepted,
}

impl Room {
    fn new(partitions: usize, slots: usize, segments: usize, capacity: usize) -> Self {
        Self::with(partitions, AccumulatorConfig { slots, ..config(segments, capacity) })
    }

    fn with(partitions: usize, config: AccumulatorConfig) -> Self {
        let (accumulator, mut drain) = Accumulator::new(config).unwrap();
        accumulator.clock.store(1, Relaxed);
        let place = Arc::new(Place { topic: "t".into(), partition: 0 });
        let partitions = (0..partitions).map(|_| drain.add_partition(place.clone())).collect();
        Self { accumulator, drain, partitions, accepted: Accepted::default() }
    }

    fn bind(&self) {
        let sender = thread::current();
        self.accumulator.doorbell.bind(Box::new(move || sender.unpark()));
    }

    fn set_busy(&self, busy: bool) {
        self.partitions[0].busy.store(busy, Relaxed);
    }

    fn append(&self, partition: usize, value: u8) {
        append(&self.accumulator, &self.partitions[partition], &[value]).unwrap();
        self.accepted.lock().unwrap().push((partition, value));
    }

    fn writer(&self, partition: usize, values: &'static [u8]) -> thread::JoinHandle<()> {
        let (accumulator, accepted) = (self.accumulator.clone(), self.accepted.clone());
        let ring = self.partitions[partition].clone();
        thread::spawn(move || {
            for value in values {
                if append(&accumulator, &ring, &[*value]).is_ok() {
                    accepted.lock().unwrap().push((partition, *value));
                }
            }
        })
    }

    fn park(&self) {
        if self.accumulator.doorbell.try_park() {
            thread::park();
        }
        self.accumulator.doorbell.awake();
    }

    fn visit_ready(&mut self, mut visit: impl FnMut(&mut Self, usize)) {
        let mut ready = vec![];
        self.drain.visit_ready(&mut ready);
        for id in ready {
            visit(self, id as usize);
        }
    }

    fn free(&self) -> usize {
        self.accumulator.free() / UNIT
    }
}

fn config(segments: usize, capacity: usize) -> AccumulatorConfig {
    AccumulatorConfig {
        buffer_memory: segments * UNIT,
        batch_size: 0,
        slots: SLOTS,
        capacity,
        ..AccumulatorConfig::default()
    }
}

fn append(accumulator: &Accumulator, partition: &Partition, value: &[u8]) -> Result<(), Refused> {
    let fields = Fields { value: Some(value), ..Fields::default() };
    accumulator.append(partition, &fields, None, Attach::None, true, None).map(drop)
}

/// What came out, per partition, in order; checks each batch's offset deltas and timestamps on the way.
#[derive(Default)]
struct Out(Vec<(usize, u8)>);

impl Out {
    fn take(&mut self, room: &mut Room, partition: usize, leave: Leave) {
        while let Some(mut chain) = room.drain.drain(partition as u32, leave) {
            let mut delta = 0;
            for segment in &chain.segments {
                let bytes = segment.bytes();
                let mut rest = &bytes[..];
                for _ in 0..segment.count() {
                    let body = usize::from(rest[0]) / 2;
                    let (record, behind) = rest[1..].split_at(body);
                    // attributes, timestamp delta, offset delta, null key, value length
                    assert_eq!(record[..2], [0, 0], "a delta against another batch's base timestamp");
                    let (number, at) = match record[2] {
                        0 => (0, 3),
                        _ => (usize::from(record[2] & 0x7f) | usize::from(record[3]) << 7, 4),
                    };
                    assert_eq!(number, delta * 128, "offset deltas count from 0");
                    assert_eq!((record[at], record.last()), (1, Some(&0)));
                    self.0.push((partition, record[at + 2]));
                    (rest, delta) = (behind, delta + 1);
                }
                assert!(rest.is_empty());
            }
            assert_eq!(delta, chain.count as usize);
            for segment in chain.segments.drain(..) {
                room.drain.give_back(segment);
            }
            room.drain.recycle(chain);
            room.drain.wake_callers();
        }
    }

    /// Exactly what was accepted, and each writer's records in its order (a writer numbers upward from 10, 20, …).
    fn check(&self, room: &Room) {
        let mut accepted = room.accepted.lock().unwrap().clone();
        for writer in 1..4 {
            let mine: Vec<_> = self.0.iter().filter(|(_, value)| value / 10 == writer).collect();
            assert!(mine.is_sorted_by_key(|(partition, value)| (*partition, *value)), "a writer's order");
        }
        let mut out = self.0.clone();
        out.sort();
        accepted.sort();
        assert_eq!(out, accepted, "each accepted record once");
    }
}

fn join<const N: usize>(writers: [thread::JoinHandle<()>; N]) {
    for writer in writers {
        writer.join().unwrap();
    }
}

/// Two writers, a racing flush: commit, seal's two steps, who completes the commit word. Three segments: each of the two
/// writers may hold one to install while the third is in flight.
#[test]
fn commit_meets_seal() {
    explore(2, || {
        let mut room = Room::new(1, SLOTS, 3, 3 * SMALLEST);
        room.append(0, 30);
        let writers = [room.writer(0, &[10]), room.writer(0, &[20])];
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Now);
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.accepted.lock().unwrap().len(), 3, "there was room");
    });
}

/// Segments of one record: every append seals or installs, writers help each other, the sender drains meanwhile.
#[test]
fn rotate_and_help() {
    explore(2, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        let writers = [room.writer(0, &[10, 11]), room.writer(0, &[20])];
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Complete);
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.free() + usize::from(out.0.is_empty()), 3, "no segment leaked");
    });
}

/// Busy partition: seals say `continues`; the sender ends the chain while a writer installs the next segment.
#[test]
fn continue_or_end() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        room.set_busy(true);
        room.append(0, 30);
        let writers = [room.writer(0, &[10, 11])];
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Now);
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.free(), 3, "no segment leaked");
    });
}

/// A full ring whose last batch would go on: the sender ends it where there is no slot yet, while a writer comes for one.
#[test]
fn an_old_batch_ends_in_a_full_ring() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        room.set_busy(true);
        room.append(0, 30);
        room.drain.end_batch(0);
        room.append(0, 31);
        let writers = [room.writer(0, &[10, 11])];
        room.drain.end_batch(0);
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Complete);
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.free(), 3, "no segment leaked");
    });
}

/// A chain with room for the one writer's record and not for the other's.
fn short_chain(segments: usize) -> (Room, [thread::JoinHandle<()>; 2]) {
    let room = Room::new(1, 2 * SLOTS, segments, SMALLEST + 2);
    room.bind();
    room.set_busy(true);
    // Behind the first record there is room for ten bytes: for one of 9, not for one of 11.
    room.partitions[0].limit.store(61 + 8 + 10, Relaxed);
    room.append(0, 30);
    let (accumulator, ring, accepted) = (room.accumulator.clone(), room.partitions[0].clone(), room.accepted.clone());
    let large = thread::spawn(move || {
        if append(&accumulator, &ring, &[20, 20, 20]).is_ok() {
            accepted.lock().unwrap().push((0, 20));
        }
    });
    let small = room.writer(0, &[10]);
    (room, [large, small])
}

/// The one seals with `continues`, the other ends the chain and starts a batch in the slot that said so.
#[test]
fn a_writer_ends_the_chain() {
    explore(2, || {
        let (mut room, writers) = short_chain(4);
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Complete);
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.free(), 4, "no segment leaked");
    });
}

/// The same without memory for what comes next: the ended chain must come of itself.
#[test]
fn an_ended_chain_is_told() {
    explore(2, || {
        let (mut room, writers) = short_chain(1);
        let mut out = Out::default();
        while out.0.is_empty() {
            room.visit_ready(|room, partition| out.take(room, partition, Leave::Complete));
            if out.0.is_empty() {
                room.park();
            }
        }
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
    });
}

/// Busy partition, a sender that only takes what is complete: it must see `continues` with the seal's second step.
#[test]
fn patient_sender() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        room.set_busy(true);
        room.append(0, 30);
        let writers = [room.writer(0, &[10])];
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Complete);
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.accepted.lock().unwrap().len(), 2, "there was room");
    });
}

/// A claimed and did not commit, B sealed and did not settle: the commit word is at its first value, and the sender
/// looks. A is the main thread, so that this takes two preemptions and not three.
#[test]
fn between_seal_and_settle() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 4, SMALLEST);
        let other = room.writer(0, &[20]);
        let (accumulator, ring, accepted) =
            (room.accumulator.clone(), room.partitions[0].clone(), room.accepted.clone());
        let sender = thread::spawn(move || {
            let mut out = Out::default();
            out.take(&mut room, 0, Leave::Complete);
            (room, out)
        });
        if append(&accumulator, &ring, &[10]).is_ok() {
            accepted.lock().unwrap().push((0, 10));
        }
        other.join().unwrap();
        let (mut room, mut out) = sender.join().unwrap();
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
    });
}

/// One segment moves between two partitions under a late writer's feet.
#[test]
fn recycled_segment() {
    explore(3, || {
        let mut room = Room::new(2, SLOTS, 1, 2 * SMALLEST);
        room.append(0, 30);
        let late = room.writer(0, &[10]);
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Now);
        let other = room.writer(1, &[20]);
        other.join().unwrap();
        late.join().unwrap();
        out.take(&mut room, 0, Leave::Now);
        out.take(&mut room, 1, Leave::Now);
        out.check(&room);
    });
}

/// Two records accepted; they are drained while somebody counts: a count that was not disturbed is two.
#[test]
fn census_against_drain() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        room.append(0, 10);
        room.append(0, 11);
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let counter = thread::spawn(move || accumulator.try_census(&ring));
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Now);
        if let Some(census) = counter.join().unwrap() {
            assert_eq!(census.accepted, 2);
        }
        let census = room.accumulator.try_census(&room.partitions[0]).unwrap();
        assert_eq!((census.accepted, census.waiting), (2, 0));
        out.check(&room);
    });
}

/// The sender lowers the size at which it wants to be told, then looks: a writer that crosses it is seen, or it tells.
#[test]
fn leave_at_against_append() {
    for segments in [1, 2] {
        explore(3, move || {
            let mut room = Room::new(1, SLOTS, 3, 3 * SMALLEST / segments);
            room.partitions[0].set_leave_at(1000);
            room.append(0, 10);
            // Whoever opened the batch has told.
            room.visit_ready(|_, _| {});
            let wanted = room.drain.peek(0).bytes + 1;
            let writer = room.writer(0, &[11]);
            room.partitions[0].set_leave_at(wanted as u32);
            let seen = room.drain.peek(0).bytes >= wanted;
            join([writer]);
            let mut told = false;
            room.visit_ready(|_, _| told = true);
            assert!(seen || told, "it would wait for linger");
        });
    }
}

/// A writer against the sweep: what is accepted is drained, and nothing is accepted behind it.
#[test]
fn close_against_append() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        let writers = [room.writer(0, &[10, 11])];
        let mut out = Out::default();
        while !room.drain.close_partition(0) {
            out.take(&mut room, 0, Leave::Now);
        }
        out.take(&mut room, 0, Leave::Now);
        assert_eq!(append(&room.accumulator, &room.partitions[0], &[30]), Err(Refused::Closed));
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert!(room.drain.is_drained(0));
        assert_eq!(room.free(), 3, "no segment leaked");
    });
}

/// A private claim committed, another dropped, against an append and a flush.
#[test]
fn private_claim() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 4, 2 * SMALLEST);
        room.set_busy(true);
        drop(room.accumulator.claim(&room.partitions[0], &Fields::default(), 1, None, None).unwrap());
        let writers = [room.writer(0, &[10])];
        let private = {
            let (accumulator, accepted) = (room.accumulator.clone(), room.accepted.clone());
            let ring = room.partitions[0].clone();
            thread::spawn(move || {
                let mut claim = accumulator.claim(&ring, &Fields::default(), 1, None, None).unwrap();
                claim.write_value(&[20]);
                if claim.commit(Attach::None).is_ok() {
                    accepted.lock().unwrap().push((0, 20));
                }
            })
        };
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Now);
        join(writers);
        private.join().unwrap();
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.free(), 4, "no segment leaked");
    });
}

/// The sender looks only where the ready set points and sleeps otherwise: a lost notification is a deadlock.
fn woken(partitions: [usize; 2], capacity: usize, busy: bool) {
    // Room enough that nothing is refused.
    let mut room = Room::new(2, 2 * SLOTS, 6, capacity);
    room.bind();
    room.set_busy(busy);
    let writers = [room.writer(partitions[0], &[10]), room.writer(partitions[1], &[20])];
    let mut out = Out::default();
    while out.0.len() < 2 {
        room.visit_ready(|room, partition| out.take(room, partition, Leave::Now));
        if out.0.len() < 2 {
            room.park();
        }
    }
    join(writers);
    out.check(&room);
}

#[test]
fn doorbell_one_partition() {
    explore(2, || woken([0, 0], 2 * SMALLEST, false));
}

#[test]
fn doorbell_two_partitions() {
    explore(2, || woken([0, 1], 2 * SMALLEST, false));
}

#[test]
fn doorbell_full_segments() {
    explore(2, || woken([0, 0], SMALLEST, true));
}

/// The last committer, not the sealer, tells the sender: it waits for complete batches and never polls.
#[test]
fn last_commit_notifies() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 2, 2 * SMALLEST);
        room.bind();
        room.append(0, 30);
        // Room for one more: one of the two seals, and may do so before the other has committed.
        let writers = [room.writer(0, &[10]), room.writer(0, &[20])];
        let mut out = Out::default();
        while out.0.len() < 2 {
            room.visit_ready(|room, partition| out.take(room, partition, Leave::Complete));
            if out.0.len() < 2 {
                room.park();
            }
        }
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
    });
}

/// Listener entries lie in the same segment, behind the same commit.
#[test]
fn entries_come_with_their_records() {
    fn tags(room: &mut Room) -> usize {
        let mut tags = 0;
        while let Some(chain) = room.drain.drain(0, Leave::Now) {
            for segment in chain.segments {
                for entry in segment.entries() {
                    match entry {
                        Entry::None => {}
                        entry => {
                            assert_eq!(entry, Entry::Tag { tag: 77, timestamp: 1 });
                            tags += 1;
                        }
                    }
                }
                room.drain.give_back(segment);
            }
        }
        tags
    }
    explore(2, || {
        let mut room = Room::new(1, 2 * SLOTS, 4, SMALLEST);
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let writer = thread::spawn(move || {
            let fields = Fields { value: Some(&[10]), ..Fields::default() };
            accumulator.append(&ring, &fields, None, Attach::Tag(77), true, None).unwrap();
        });
        room.append(0, 20);
        let early = tags(&mut room);
        writer.join().unwrap();
        assert_eq!(early + tags(&mut room), 1);
    });
}
