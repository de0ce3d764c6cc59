//! A script of everything that writers and the sender do with an accumulator, against a list of what each partition
//! must give back: the same records in the same order, nothing lost, nothing twice, no memory used for two things.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::input::Input;
use crate::accumulator::{
    Accumulator, AccumulatorConfig, Ask, Attach, Chain, Drain, Entry, Lease, Leave, Partition, PrivateClaim, Refused,
};
use crate::completion::{Delivery, Outcome};
use crate::record::Place;
use crate::testing::decode_batch;
use crate::wire::record::{Fields, Header};
use crate::wire::record_batch::{BatchHeader, LEN};

/// Far from both ends of i64.
const TIME: i64 = 1 << 42;
const LENGTHS: [usize; 16] = [0, 1, 10, 30, 54, 55, 100, 300, 700, 950, 1_000, 1_500, 4_000, 5_000, 17_000, 70_000];
const MAX_REQUEST: usize = 40_000;
/// Lengths of claims that nobody means: one is as good as another.
const ABSURD: [usize; 4] = [usize::MAX, isize::MAX as usize, u32::MAX as usize, MAX_REQUEST];

/// See the module.
pub fn accumulator_script(data: &[u8]) {
    run(data);
}

/// How many batches came out.
pub(super) fn run(data: &[u8]) -> usize {
    let mut input = Input(data);
    let mut script = Script::new(&mut input);
    let mut steps = 0;
    while !input.is_empty() && steps < 400 {
        steps += 1;
        script.step(&mut input);
    }
    script.end()
}

/// A record that was accepted.
#[derive(Debug)]
struct Accepted {
    /// Its value's number: no other record has it.
    number: u32,
    len: usize,
    timestamp: i64,
    keyed: bool,
    attach: Attach,
    delivery: Option<Delivery>,
}

/// A claim that was not committed yet.
struct Held {
    claim: PrivateClaim,
    partition: usize,
    record: Accepted,
    /// Bytes of memory.
    took: usize,
}

/// A batch with the broker.
struct Sent {
    partition: usize,
    chain: Chain,
    /// What its segments held when they were drained.
    bytes: Vec<Vec<u8>>,
    deliveries: Vec<Delivery>,
}

struct Lane {
    ring: Arc<Partition>,
    expected: VecDeque<Accepted>,
    /// A record was accepted where none waited, and the sender has not been told so far.
    untold: bool,
    closed: bool,
    /// How many records came out.
    out: usize,
    /// After how many records a batch was ended.
    ends: Vec<usize>,
}

struct Script {
    accumulator: Arc<Accumulator>,
    drain: Drain,
    lanes: Vec<Lane>,
    held: Vec<Held>,
    sent: VecDeque<Sent>,
    asks: Vec<Ask>,
    numbers: u32,
    /// How many came out.
    batches: usize,
    memory: usize,
    /// Claims that nobody will look at again: they cost their memory, and nothing else.
    leaked: Vec<Held>,
}

/// The bytes of record `number`, which no other record has where it is long enough.
fn value(number: u32, len: usize) -> Vec<u8> {
    let mut value = vec![number as u8 ^ 0x5a; len];
    let tag = number.to_le_bytes();
    let known = len.min(tag.len());
    value[..known].copy_from_slice(&tag[..known]);
    value
}

impl Script {
    fn new(input: &mut Input<'_>) -> Self {
        let memory = input.of(&[64, 80, 128, 256]) << 10;
        let config = AccumulatorConfig {
            buffer_memory: memory,
            batch_size: input.of(&[1, 2_000, 16_384]),
            max_request_size: MAX_REQUEST,
            slots: input.of(&[2, 4, 16]),
        };
        let (accumulator, mut drain) = Accumulator::new(config).unwrap();
        accumulator.clock.store(TIME, Relaxed);
        let lanes = (0..1 + input.below(3)).map(|partition| {
            let place = Arc::new(Place { topic: "t".into(), partition: partition as i32 });
            Lane {
                ring: drain.add_partition(place),
                expected: VecDeque::new(),
                untold: false,
                closed: false,
                out: 0,
                ends: vec![],
            }
        });
        let lanes = lanes.collect();
        Self {
            accumulator,
            drain,
            lanes,
            held: Vec::new(),
            sent: VecDeque::new(),
            asks: Vec::new(),
            numbers: 0,
            batches: 0,
            memory,
            leaked: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let at = input.below(self.lanes.len());
        match what % 16 {
            0..=4 => self.append(input, at),
            5 => self.claim(input, at),
            6 => self.commit(input),
            7 => self.let_go(input),
            8 => self.drain(at, Leave::Complete),
            9 => self.drain(at, Leave::Now),
            10 if what < 128 => self.flush(at),
            10 => self.end_batch(at),
            11 | 12 => self.answer(input),
            13 => self.visit(),
            14 => self.hints(input, at),
            _ => self.rare(input, at),
        }
        assert!(self.accumulator.free() <= self.memory);
    }

    fn record(&mut self, input: &mut Input<'_>) -> Accepted {
        self.numbers += 1;
        let number = self.numbers;
        let attach = match input.below(4) {
            0 => Attach::Tag(u64::from(number)),
            1 => Attach::Callback(u64::from(number) << 32),
            _ => Attach::Delivery,
        };
        let timestamp = TIME + i64::from(input.u8()) - 128;
        Accepted { number, len: input.of(&LENGTHS), timestamp, keyed: input.one_in(3), attach, delivery: None }
    }

    fn append(&mut self, input: &mut Input<'_>, at: usize) {
        let record = self.record(input);
        let may_open = !input.one_in(4);
        let value = value(record.number, record.len);
        let headers = [Header { key: "h", value: None }];
        let fields = Fields {
            key: record.keyed.then_some(b"key"),
            value: Some(&value),
            headers: if record.keyed { &headers } else { &[] },
        };
        let free = self.accumulator.free();
        let ring = &self.lanes[at].ring;
        // Who has an ask is somebody that waits, or waited once and was forgotten.
        let ask = if self.asks.is_empty() { None } else { self.asks.get(input.below(2 * self.asks.len())) };
        let (timestamp, attach) = (Some(record.timestamp), record.attach);
        match self.accumulator.append_asking(ring, &fields, timestamp, attach, may_open, None, ask) {
            Ok(appended) => {
                // A record that would have opened a batch was refused; this one did not.
                assert!(may_open || !self.lanes[at].expected.is_empty());
                self.accept(at, Accepted { delivery: appended.delivery, ..record });
            }
            Err(refused) => {
                assert_eq!(self.accumulator.free(), free, "what is refused costs nothing");
                assert!(refused != Refused::Closed || self.lanes[at].closed);
                assert!(refused != Refused::WouldOpen || !may_open);
                if may_open && self.idle() {
                    // An empty buffer refuses only what it can never take.
                    assert!(matches!(refused, Refused::TooLarge | Refused::Closed), "{refused:?} {}", record.len);
                }
            }
        }
    }

    /// Nobody holds any memory.
    fn idle(&self) -> bool {
        self.accumulator.free() == self.memory && self.asks.is_empty()
    }

    fn accept(&mut self, at: usize, record: Accepted) {
        let lane = &mut self.lanes[at];
        assert!(!lane.closed);
        assert_eq!(record.delivery.is_some(), record.attach == Attach::Delivery);
        lane.untold |= lane.expected.is_empty();
        lane.expected.push_back(record);
    }

    fn claim(&mut self, input: &mut Input<'_>, at: usize) {
        if self.held.len() >= 4 {
            return;
        }
        let mut record = self.record(input);
        if input.one_in(8) {
            record.len = input.of(&ABSURD) - input.u8() as usize;
        }
        let headers = [Header { key: "h", value: None }];
        let (key, headers) = if record.keyed { (Some(&b"key"[..]), &headers[..]) } else { (None, &[][..]) };
        let ring = &self.lanes[at].ring;
        let free = self.accumulator.free();
        let fields = Fields { key, value: None, headers };
        match self.accumulator.claim(ring, &fields, record.len, Some(record.timestamp), self.asks.first()) {
            Ok(mut claim) => {
                assert_eq!(claim.len(), record.len);
                let took = free - self.accumulator.free();
                assert!(took >= record.len);
                claim.value_mut().copy_from_slice(&value(record.number, record.len));
                self.held.push(Held { claim, partition: at, record, took });
            }
            Err(_) => assert_eq!(self.accumulator.free(), free, "what is refused costs nothing"),
        }
    }

    fn commit(&mut self, input: &mut Input<'_>) {
        let Some(held) = self.take_held(input) else { return };
        let Held { claim, partition, record, took } = held;
        assert_eq!(claim.value(), value(record.number, record.len), "nobody else wrote there");
        match claim.commit(record.attach) {
            Ok(appended) => self.accept(partition, Accepted { delivery: appended.delivery, ..record }),
            Err((claim, refused)) => {
                assert!(refused.is_full() || refused == Refused::Closed, "{refused:?}");
                // It is as good as before.
                self.held.push(Held { claim, partition, record, took });
            }
        }
    }

    fn take_held(&mut self, input: &mut Input<'_>) -> Option<Held> {
        (!self.held.is_empty()).then(|| self.held.remove(input.below(self.held.len())))
    }

    /// A claim that is dropped gives its memory back; one that is leaked keeps it.
    fn let_go(&mut self, input: &mut Input<'_>) {
        let Some(held) = self.take_held(input) else { return };
        if input.one_in(8) {
            return self.leaked.push(held);
        }
        let (free, took) = (self.accumulator.free(), held.took);
        drop(held);
        assert_eq!(self.accumulator.free(), free + took);
    }

    fn drain(&mut self, at: usize, leave: Leave) {
        let free = self.accumulator.free();
        if let Some(chain) = self.drain.drain(at as u32, leave) {
            self.take_in(at, chain);
        } else if leave == Leave::Now {
            assert!(self.lanes[at].expected.is_empty(), "a record does not come out");
        }
        assert!(self.accumulator.free() >= free);
        let peek = self.drain.peek(at as u32);
        assert_eq!(peek.any, !self.lanes[at].expected.is_empty());
    }

    /// Checks a chain against what was accepted, and puts it in flight.
    fn take_in(&mut self, at: usize, chain: Chain) {
        let parts: Vec<&[u8]> = chain.segments.iter().map(Lease::bytes).collect();
        let batch = batch(&chain, &parts);
        assert!(batch.len() <= MAX_REQUEST, "a batch of {} bytes", batch.len());
        let stored = decode_batch(&batch).expect("a chain is a batch");
        let lane = &mut self.lanes[at];
        let mut stored = stored.into_iter().enumerate();
        let mut deliveries = Vec::new();
        for segment in &chain.segments {
            for told in segment.entries() {
                let (delta, stored) = stored.next().expect("as many as were counted");
                let record = lane.expected.pop_front().expect("a record that was never accepted");
                assert_eq!((stored.offset, stored.timestamp), (delta as i64, record.timestamp));
                assert_eq!(stored.value, Some(value(record.number, record.len)), "record {}", record.number);
                assert_eq!((stored.key.is_some(), stored.headers.len()), (record.keyed, usize::from(record.keyed)));
                let (timestamp, number) = (record.timestamp, u64::from(record.number));
                let entry = match record.attach {
                    Attach::Tag(tag) => Entry::Tag { tag, timestamp },
                    Attach::Callback(_) => Entry::Callback { value: number << 32, timestamp },
                    _ => Entry::None,
                };
                assert_eq!(told, entry);
                deliveries.extend(record.delivery);
            }
        }
        assert!(stored.next().is_none());
        let from = lane.out;
        lane.out += chain.count as usize;
        let across = lane.ends.iter().find(|end| (from + 1..lane.out).contains(*end));
        assert!(across.is_none(), "a batch of records {from} to {} goes on over its end at {across:?}", lane.out);
        let bytes = parts.iter().map(|part| part.to_vec()).collect();
        assert_eq!(chain.segments.iter().map(|part| part.deliveries() as usize).sum::<usize>(), deliveries.len());
        self.batches += 1;
        self.sent.push_back(Sent { partition: at, chain, bytes, deliveries });
    }

    /// What is accepted from now on is in another batch.
    fn end_batch(&mut self, at: usize) {
        let free = self.accumulator.free();
        self.drain.end_batch(at as u32);
        assert_eq!(self.accumulator.free(), free, "nothing leaves");
        let lane = &mut self.lanes[at];
        lane.ends.push(lane.out + lane.expected.len());
    }

    /// Everything accepted so far leaves, and the positions say so.
    fn flush(&mut self, at: usize) {
        let mark = self.drain.tail_position(at as u32);
        while !self.lanes[at].expected.is_empty() {
            self.drain(at, Leave::Now);
        }
        self.drain(at, Leave::Now);
        assert!(self.drain.head_position(at as u32) >= mark, "{mark}");
    }

    /// The broker answers one of the batches in flight: its memory comes back, and its deliveries are done.
    fn answer(&mut self, input: &mut Input<'_>) {
        if self.sent.is_empty() {
            return;
        }
        let at = input.below(self.sent.len());
        let Some(Sent { partition, mut chain, bytes, deliveries }) = self.sent.remove(at) else { return };
        let free = self.accumulator.free();
        assert!(deliveries.iter().all(|delivery| delivery.try_result().is_none()));
        let place = &self.lanes[partition].ring.place;
        for (mut segment, bytes) in chain.segments.drain(..).zip(&bytes) {
            assert_eq!(segment.bytes(), bytes, "somebody wrote into a batch in flight");
            let outcome = Outcome::Delivered { base_offset: Some(7), log_append_time: None };
            segment.report(place, outcome);
            self.drain.give_back(segment);
        }
        assert!(self.accumulator.free() > free);
        for delivery in &deliveries {
            assert!(delivery.try_result().is_some_and(|done| done.is_ok_and(|at| at.partition() == partition as i32)));
        }
        self.drain.recycle(chain);
    }

    /// The sender looks at what became ready: every partition with a first record is among it.
    fn visit(&mut self) {
        let mut ready = Vec::new();
        self.drain.visit_ready(&mut ready);
        for (id, lane) in self.lanes.iter_mut().enumerate() {
            let told = ready.iter().filter(|ready| **ready == id as u32).count();
            assert!(told <= 1, "told twice");
            assert!(told == 1 || !lane.untold || lane.expected.is_empty(), "nobody told the sender of a record");
            lane.untold = false;
        }
    }

    fn hints(&mut self, input: &mut Input<'_>, at: usize) {
        let ring = &self.lanes[at].ring;
        match input.below(6) {
            0 => ring.busy.store(true, Relaxed),
            1 => ring.busy.store(false, Relaxed),
            2 => ring.limit.store(input.of(&[MAX_REQUEST as u32, 512, 5_000]), Relaxed),
            3 => ring.set_leave_at(input.of(&[1, 2_000, 16_384])),
            4 => self.drain.set_leader(at as u32, input.of(&[-1, 0, 1, 2])),
            _ => self.accumulator.clock.store(TIME + i64::from(input.u8()), Relaxed),
        }
    }

    fn rare(&mut self, input: &mut Input<'_>, at: usize) {
        match input.below(5) {
            0 if self.asks.len() < 3 => self.asks.extend(self.accumulator.ask(Refused::NoRun)),
            1 if !self.asks.is_empty() => drop(self.asks.remove(input.below(self.asks.len()))),
            2 => self.accumulator.tick(),
            3 => self.lanes[at].closed |= self.drain.close_partition(at as u32),
            _ => self.visit(),
        }
    }

    /// Everything leaves, is answered and given back: what was accepted has come out, and the memory is whole.
    fn end(mut self) -> usize {
        self.visit();
        self.held.clear();
        self.asks.clear();
        for at in 0..self.lanes.len() {
            self.flush(at);
            while !self.drain.close_partition(at as u32) {
                self.drain(at, Leave::Now);
            }
            self.lanes[at].closed = true;
            self.drain(at, Leave::Now);
            assert!(self.drain.is_drained(at as u32), "a closed ring that was drained");
        }
        while !self.sent.is_empty() {
            self.answer(&mut Input(&[]));
        }
        let leaked: usize = self.leaked.iter().map(|held| held.took).sum();
        assert_eq!(self.accumulator.free(), self.memory - leaked, "memory is lost, or there twice");
        assert_eq!(self.accumulator.free_in_pieces(), self.memory - leaked, "free memory that nobody finds");
        self.batches
    }
}

fn batch(chain: &Chain, parts: &[&[u8]]) -> Vec<u8> {
    let header = BatchHeader {
        attributes: 0,
        last_offset_delta: chain.count as i32 - 1,
        base_timestamp: chain.base_timestamp,
        max_timestamp: chain.max_timestamp,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count: chain.count as i32,
    };
    let crc = header.crc(parts.iter().copied());
    let mut head = [0; LEN];
    header.put(&mut head, chain.bytes, crc);
    [&head[..], &parts.concat()].concat()
}
