//! The oracle's books: each record's copies on their way, and what its caller was told.

use std::collections::VecDeque;
use std::time::Duration;

use super::deck::bit;
use crate::accumulator::Accumulator;
use crate::completion::Delivery;
use crate::error::{DeliveryError, DeliveryErrorKind, Written};
use crate::sender::transmit::{ConnectionId, Piece, Transmit};
use crate::wire::record_batch::LEN;
use crate::wire::record_view::Records;

/// A topic's number and a partition's in one.
pub type Place = usize;

/// So many partitions a topic may have here.
pub const PARTITIONS_MAX: usize = 8;

/// What the caller of a record knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Nothing yet.
    Nothing,
    /// It is delivered; -1: at an offset that is not known.
    Delivered(i64),
    NotWritten,
    PossiblyWritten,
    /// Nobody waits for it.
    Dropped,
}

/// A record that was accepted. Its number stands in its first four bytes.
#[derive(Clone, Debug)]
pub struct Record {
    pub place: Place,
    pub len: u32,
    /// When it was accepted, and its place in the order of all that were.
    pub accepted: Duration,
    pub order: u32,
    /// How long it may take.
    pub timeout: Duration,
    /// A broker must refuse it by itself.
    pub bad: bool,
    pub told: Told,
    /// Copies that were handed to the network and that no answer has settled.
    doubts: u32,
    /// It was ever handed to the network.
    sent: bool,
    /// Codes that it was answered with.
    codes: u128,
    /// Requests that had its batch alone and were lost.
    deaths: u32,
}

/// A batch of a request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub place: Place,
    from: u32,
    to: u32,
    /// Producer id, epoch and first sequence number.
    stamp: (i64, i16, i32),
}

impl Copy {
    /// The producer id that it is sent under; -1 without one.
    pub fn producer(&self) -> i64 {
        self.stamp.0
    }
}

/// A request on its way.
#[derive(Debug, Default)]
pub struct Frame {
    pub copies: Vec<Copy>,
    ids: Vec<u32>,
    /// Code and base offset by copy, once the broker has acted.
    pub results: Vec<Option<(i16, i64)>>,
    whole: bool,
}

impl Frame {
    /// Its batches in words.
    pub fn words(&self) -> String {
        let word = |copy: &Copy| {
            let ids = &self.ids[copy.from as usize..copy.to as usize];
            format!("place {}: {:?} records {:?}..={:?}", copy.place, copy.stamp, ids.first(), ids.last())
        };
        self.copies.iter().map(word).collect::<Vec<_>>().join("; ")
    }
}

/// What a partition has on its way.
#[derive(Clone, Debug, Default)]
struct Window {
    batches: usize,
    connection: Option<ConnectionId>,
}

/// All records of a run.
pub struct Ledger {
    pub records: Vec<Record>,
    pending: VecDeque<(u32, Delivery)>,
    windows: Vec<Window>,
    max_in_flight: usize,
    acks: i16,
    timeout: Duration,
    retries: u32,
    /// Codes that an answer to InitProducerId had.
    pub identity_codes: u128,
    /// The most partitions that each topic has had, and the places that one created again did not have any more.
    most: Vec<usize>,
    gone: u64,
    /// `close` was called.
    pub closed: bool,
    /// A duplicate is a success.
    pub idempotent: bool,
    orders: u32,
    spare: Vec<Frame>,
    /// Delivered, not written, possibly written, with a close's kind, expired.
    pub outcomes: [u64; 6],
}

/// Later than this after its time nobody may wait for a record.
const SLACK: Duration = Duration::from_millis(8);

impl Ledger {
    pub fn new(topics: usize, max_in_flight: usize, acks: i16, timeout: Duration, retries: u32) -> Self {
        Self {
            records: Vec::with_capacity(512),
            pending: VecDeque::with_capacity(512),
            windows: vec![Window::default(); topics * PARTITIONS_MAX],
            max_in_flight,
            acks,
            timeout,
            retries,
            identity_codes: 0,
            most: vec![0; topics],
            gone: 0,
            closed: false,
            idempotent: false,
            orders: 0,
            spare: Vec::new(),
            outcomes: [0; 6],
        }
    }

    /// A record that will be offered; its number.
    pub fn offer(&mut self, place: Place, len: u32, bad: bool) -> u32 {
        let told = Told::Nothing;
        let (accepted, order, timeout) = (Duration::ZERO, u32::MAX, self.timeout);
        let (doubts, sent, codes, deaths) = (0, false, 0, 0);
        // The client knows this partition, if only from a broker that lags.
        if let Some(most) = self.most.get_mut(place / PARTITIONS_MAX) {
            *most = (place % PARTITIONS_MAX + 1).max(*most);
        }
        self.records.push(Record { place, len, accepted, order, timeout, bad, told, doubts, sent, codes, deaths });
        self.records.len() as u32 - 1
    }

    /// It has less time than others.
    pub fn limit(&mut self, id: u32, timeout: Duration) {
        let record = &mut self.records[id as usize];
        record.timeout = record.timeout.min(timeout);
    }

    /// It was not accepted.
    pub fn withdraw(&mut self, id: u32) {
        if id as usize + 1 == self.records.len() {
            self.records.pop();
        }
    }

    /// It was accepted.
    pub fn accept(&mut self, id: u32, now: Duration, delivery: Option<Delivery>) {
        let record = &mut self.records[id as usize];
        (record.accepted, record.order) = (now, self.orders);
        self.orders += 1;
        match delivery {
            Some(delivery) => self.pending.push_back((id, delivery)),
            None => record.told = Told::Dropped,
        }
    }

    /// The place in the order that the next record will have.
    pub fn next_order(&self) -> u32 {
        self.orders
    }

    /// Records without an outcome.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// The oldest record without an outcome.
    pub fn oldest_of_all(&self) -> Option<u32> {
        self.pending.iter().map(|(id, _)| self.records[*id as usize].order).min()
    }

    /// The oldest record of a place without an outcome.
    pub fn oldest(&self, place: Place) -> Option<u32> {
        let of_place = self.pending.iter().map(|(id, _)| &self.records[*id as usize]).filter(|r| r.place == place);
        of_place.map(|record| record.order).min()
    }

    /// The oldest record of a place of which something may still arrive: without an outcome, or told, with a copy on its way
    /// that no answer has settled.
    pub fn oldest_on_its_way(&self, place: Place) -> Option<u32> {
        let told = |record: &&Record| record.told != Told::Nothing && record.doubts > 0;
        let told = self.records.iter().filter(|record| record.place == place).filter(told);
        told.map(|record| record.order).chain(self.oldest(place)).min()
    }

    /// A request is handed to the network: its records are read where they lie.
    pub fn hand(&mut self, transmit: &Transmit, accumulator: &Accumulator) -> Frame {
        let mut frame = self.spare.pop().unwrap_or_default();
        let pieces = &transmit.pieces;
        let mut at = 0;
        while at < pieces.len() {
            let Piece::Head { start, len } = pieces[at] else { panic!("records without a header") };
            at += 1;
            let from = frame.ids.len() as u32;
            let mut count = 0;
            while let Some(Piece::Arena { offset, len }) = pieces.get(at) {
                let bytes = accumulator.bytes(*offset, *len as usize);
                for record in Records::bare(bytes, u32::MAX >> 1) {
                    // The iterator ends with an error, for it was promised more.
                    let Ok(record) = record else { break };
                    frame.ids.push(number(record.value));
                }
                at += 1;
                count += 1;
            }
            if count == 0 {
                continue;
            }
            let header = &transmit.head[(start + len) as usize - LEN..(start + len) as usize];
            let announced = i32::from_be_bytes(header[57..61].try_into().unwrap());
            let to = frame.ids.len() as u32;
            assert_eq!(announced as u32, to - from, "a batch's count");
            let place = self.records[frame.ids[from as usize] as usize].place;
            for id in &frame.ids[from as usize..to as usize] {
                let record = &mut self.records[*id as usize];
                assert_eq!(record.place, place, "record {id} goes to another partition");
                record.doubts += 1;
                record.sent = true;
            }
            let view = |at: usize| i32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            let producer = i64::from(view(43)) << 32 | i64::from(view(47) as u32);
            let stamp = (producer, (view(51) >> 16) as i16, view(53));
            frame.copies.push(Copy { place, from, to, stamp });
            frame.results.push(None);
            let window = &mut self.windows[place];
            window.batches += 1;
            assert!(window.batches <= self.max_in_flight, "{} batches of {place} in flight", window.batches);
            let same = window.connection.is_none_or(|connection| connection == transmit.connection);
            assert!(same, "{place} changes its connection with batches in flight");
            window.connection = Some(transmit.connection);
        }
        frame
    }

    fn left(&mut self, place: Place) {
        let window = &mut self.windows[place];
        window.batches -= 1;
        if window.batches == 0 {
            window.connection = None;
        }
    }

    /// The network has all of it.
    pub fn whole(&mut self, frame: &mut Frame) {
        frame.whole = true;
        if self.acks == 0 {
            for at in 0..frame.copies.len() {
                self.left(frame.copies[at].place);
            }
        }
    }

    /// Its answer, if there was one, has reached the sender.
    pub fn answered(&mut self, frame: Frame) {
        for (copy, result) in frame.copies.iter().zip(&frame.results) {
            let Some((code, base_offset)) = *result else { continue };
            let refused = code != 0 && base_offset < 0 && !matches!(code, 7 | 20);
            for id in &frame.ids[copy.from as usize..copy.to as usize] {
                let record = &mut self.records[*id as usize];
                record.codes |= bit(code);
                if refused || code == 0 {
                    record.doubts -= 1;
                }
            }
            if self.acks != 0 {
                self.left(copy.place);
            }
        }
        self.put(frame);
    }

    /// Its connection ended before an answer.
    pub fn lost(&mut self, frame: Frame) {
        if frame.copies.len() == 1 {
            frame.ids.iter().for_each(|id| self.records[*id as usize].deaths += 1);
        }
        for copy in &frame.copies {
            if !frame.whole {
                for id in &frame.ids[copy.from as usize..copy.to as usize] {
                    self.records[*id as usize].doubts -= 1;
                }
            }
            if self.acks != 0 || !frame.whole {
                self.left(copy.place);
            }
        }
        self.put(frame);
    }

    fn put(&mut self, mut frame: Frame) {
        frame.copies.clear();
        frame.ids.clear();
        frame.results.clear();
        frame.whole = false;
        self.spare.push(frame);
    }

    /// Whether a record of this copy is bad by itself.
    pub fn has_bad(&self, frame: &Frame, copy: usize) -> bool {
        let Copy { from, to, .. } = frame.copies[copy];
        frame.ids[from as usize..to as usize].iter().any(|id| self.records[*id as usize].bad)
    }

    /// A topic has so many partitions now.
    pub fn note_partitions(&mut self, topic: usize, count: usize) {
        if let Some(most) = self.most.get_mut(topic) {
            *most = count.max(*most);
            (count..*most).for_each(|index| self.gone |= 1 << (topic * PARTITIONS_MAX + index));
        }
    }

    /// Looks at what callers can see by now, and whether it may be so.
    pub fn settle(&mut self, now: Duration) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|(id, delivery)| match delivery.try_result() {
            None => {
                let Record { accepted, timeout, .. } = self.records[*id as usize];
                let late = now > accepted + timeout + SLACK;
                assert!(!late, "record {id}, accepted at {accepted:?}, has no outcome at {now:?}");
                true
            }
            Some(Ok(metadata)) => {
                self.outcomes[usize::from(metadata.offset().is_none())] += 1;
                self.records[*id as usize].told = Told::Delivered(metadata.offset().unwrap_or(-1));
                false
            }
            Some(Err(error)) => {
                self.failed(*id, &error, now);
                false
            }
        });
        self.pending = pending;
    }

    fn failed(&mut self, id: u32, error: &DeliveryError, now: Duration) {
        let record = &mut self.records[id as usize];
        let possibly = error.written() == Written::Possibly;
        self.outcomes[if possibly { 3 } else { 2 }] += 1;
        record.told = if possibly { Told::PossiblyWritten } else { Told::NotWritten };
        if possibly {
            assert!(record.doubts > 0, "record {id}: nobody doubts that it is not written: {error}");
        }
        let tries_end = self.retries < i32::MAX as u32 || self.acks == 0;
        let right = match error.kind() {
            DeliveryErrorKind::Expired => {
                self.outcomes[4] += 1;
                // A batch's time counts from its first record, which is no more than an eighth older.
                let at_least = if record.timeout < self.timeout { record.timeout } else { self.timeout * 7 / 8 };
                assert!(now + SLACK >= record.accepted + at_least, "record {id} ends too early, at {now:?}: {error}");
                error.waited() >= record.timeout
            }
            DeliveryErrorKind::Broker(code) => {
                // What is doubtful is given up for what was said of others.
                let of_others = matches!(code.0, 10 | 45) && possibly;
                assert!(!(self.idempotent && code.0 == 46), "record {id} is stored: {error}");
                (record.codes | self.identity_codes) & bit(code.0) != 0 || of_others
            }
            DeliveryErrorKind::PartitionGone => self.gone & 1 << record.place != 0,
            DeliveryErrorKind::TooLarge => record.codes & bit(10) != 0,
            DeliveryErrorKind::RequestTooLarge => record.deaths >= 5,
            DeliveryErrorKind::UnsupportedVersion => record.codes & bit(35) != 0,
            DeliveryErrorKind::Closed => {
                self.outcomes[5] += 1;
                self.closed
            }
            DeliveryErrorKind::RequestTimedOut | DeliveryErrorKind::Disconnected => record.sent && tries_end,
            _ => false,
        };
        assert!(right, "record {id} has no reason to fail so: {error}");
    }
}

/// The number that a record's value begins with.
pub fn number(value: Option<&[u8]>) -> u32 {
    let Some(bytes) = value.and_then(|value| value.first_chunk::<4>()) else { panic!("a record without a number") };
    u32::from_le_bytes(*bytes)
}

/// The value of record `id`, so long.
pub fn value(id: u32, len: u32, out: &mut Vec<u8>) {
    out.clear();
    out.resize(len as usize, filling(id));
    out[..4].copy_from_slice(&id.to_le_bytes());
}

/// What stands behind the number.
pub fn filling(id: u32) -> u8 {
    (id as u8).wrapping_mul(37) ^ 0x5a
}
