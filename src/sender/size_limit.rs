//! How large a request a broker takes, where that is less than what would be sent (`socket.request.max.bytes`). Kafka
//! answers nothing to a larger one: it reads the size and closes the connection. A broker that is killed, and a network that
//! cuts connections, look the same. So what is concluded is a guess: it makes requests smaller, costs little where it is
//! wrong, and heals.
//!
//! A batch that was sent may be in the log, whatever ended its connection. It is cut only after it died alone in its request,
//! again and again, and its parts are doubtful (see `split`): never are they stamped again.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Sender;
use super::connection::{Asked, Connection, Peer, Request, Role};
use super::drain::BATCH_HEADER;
use super::health::smaller_requests;
use super::idempotence::Stamp;
use super::in_flight::{Batch, Reported};
use super::knowledge::Copies;
use super::steps::{Step, stepped};
use super::transmit::ConnectionId;
use crate::completion::Outcome;
use crate::error::DeliveryErrorKind;

/// So many connections in a row that ended with a request on them, and its size is suspected.
const DEATHS: u32 = 3;
/// What is further apart is not in a row.
const ROW: Duration = Duration::from_secs(60);
/// No limit is taken for less, bytes.
const FLOOR: usize = 1024;
/// How long a broker that closed the connection on a larger request is spared the next one: at first, and at most. It doubles
/// with each that ended so.
const SPARED: Duration = Duration::from_secs(10);
const SPARED_MAX: Duration = Duration::from_secs(600);
/// A batch that died alone so often is cut, and one that cannot be cut is given up: while smaller requests pass, and where
/// none was tried. (Brokers may close connections on whatever they get, for seconds.)
const CUT_AFTER: [u32; 2] = [2, 4];
const GIVE_UP_AFTER: [u32; 2] = [5, 12];
/// Beside its records, a request has its header, and each topic's name with its frame: these without the names.
const REQUEST_HEAD: usize = 48;
const TOPIC_HEAD: usize = 48;

/// What is known of one broker. Sizes are those of whole requests, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SizeLimit {
    /// Requests that died in a row, the smallest of them, and when the last did.
    deaths: u32,
    smallest: usize,
    died: Duration,
    bound: Option<Bound>,
}

/// Requests are to have no more than this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bound {
    /// `usize::MAX`: it grew to all that is ever sent, and is remembered for a while, so that one death is enough again.
    bytes: usize,
    /// The largest that was answered since there is a bound; 0: none was.
    passed: usize,
    /// It may grow from then on, and how long it may not after the next one that dies.
    grows_at: Duration,
    spared: Duration,
}

/// A request died: its connection ended without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death {
    /// So many in a row.
    pub times: u32,
    /// Requests are to be that small from now on.
    pub bound: Option<usize>,
}

impl SizeLimit {
    /// The most bytes that a request is to have, if less than usual.
    pub fn bound(&self) -> Option<usize> {
        self.bound.map(|bound| bound.bytes).filter(|bytes| *bytes < usize::MAX)
    }

    /// Some request within the bound was answered.
    pub fn has_passed(&self) -> bool {
        self.bound.is_some_and(|bound| bound.passed > 0)
    }

    /// Nothing is suspected.
    pub fn is_blank(&self) -> bool {
        self.bound.is_none() && self.deaths == 0
    }

    /// The broker ended a connection on which it had read nothing of an answer to this request. `usual`: a size that brokers
    /// are made for. `forced`: it is larger than the bound, for it has a batch that could not be smaller.
    pub fn died(&mut self, now: Duration, size: usize, usual: usize, forced: bool) -> Death {
        if size < 2 * FLOOR || forced {
            return Death { times: 1, bound: None };
        }
        if self.deaths == 0 || now > self.died + ROW {
            (self.deaths, self.smallest) = (0, size);
        }
        (self.deaths, self.smallest, self.died) = (self.deaths + 1, self.smallest.min(size), now);
        let times = self.deaths;
        match &mut self.bound {
            // It grew beyond what passes.
            Some(bound) if size > bound.passed && (1..bound.bytes).contains(&bound.passed) => {
                (bound.bytes, bound.grows_at) = (bound.passed, now + bound.spared);
                bound.spared = (2 * bound.spared).min(SPARED_MAX);
            }
            _ if times < DEATHS => return Death { times, bound: None },
            Some(bound) => (bound.bytes, bound.passed) = (lower(self.smallest, usual), 0),
            None => {
                let bytes = lower(self.smallest, usual);
                self.bound = Some(Bound { bytes, passed: 0, grows_at: now, spared: SPARED });
            }
        }
        self.deaths = 0;
        Death { times, bound: self.bound() }
    }

    /// A request of this size was answered. `most`: none is ever larger. True: the bound has changed.
    pub fn passed(&mut self, now: Duration, size: usize, most: usize) -> bool {
        // A smaller one tells nothing against a limit.
        if size >= self.smallest || now > self.died + ROW {
            self.deaths = 0;
        }
        let Some(bound) = &mut self.bound else { return false };
        let before = bound.bytes;
        bound.passed = bound.passed.max(size);
        bound.bytes = bound.bytes.max(size);
        if now >= bound.grows_at && size > bound.bytes / 2 {
            (bound.bytes, bound.grows_at) = (bound.bytes.saturating_mul(2), now);
        }
        if bound.bytes >= most {
            bound.bytes = usize::MAX;
        }
        let after = bound.bytes;
        if now > bound.grows_at.max(self.died) + SPARED_MAX {
            self.bound = None;
        }
        after != before || self.bound.is_none()
    }

    /// The broker could not be connected to: what ended before tells nothing of sizes. The bound stays, if there is one.
    pub fn away(&mut self) {
        self.deaths = 0;
    }
}

/// Below `size`: what is usual, and then by halves.
fn lower(size: usize, usual: usize) -> usize {
    if size / 2 > usual { usual } else { size / 2 }.max(FLOOR)
}

impl Sender {
    /// The most bytes of batches, with their headers, that the next request to this node is to have: `u64::MAX` where
    /// nothing is known against larger ones.
    pub(super) fn request_limit(&self, node: i32) -> u64 {
        let Some(bound) = self.size_bound(node) else { return u64::MAX };
        let names = self.topics.iter().map(|topic| TOPIC_HEAD + topic.shared.name.len()).sum::<usize>();
        // A sixteenth for the partitions' frames.
        (bound - bound / 16 - (REQUEST_HEAD + self.config.client_id.len() + names).min(bound / 2)) as u64
    }

    fn size_bound(&self, node: i32) -> Option<usize> {
        if self.size_limits.is_empty() { None } else { self.size_limits.get(&node)?.bound() }
    }

    /// How many bytes of records a batch of this partition may have, alone in its request; `None`: as many as it has.
    fn room_alone(&self, id: u32) -> Option<u32> {
        let partition = &self.partitions[id as usize];
        let bound = self.size_bound(partition.leader)?;
        let names = self.config.client_id.len() + partition.ring.place.topic.len();
        let room = bound.saturating_sub(REQUEST_HEAD + TOPIC_HEAD + names + BATCH_HEADER as usize);
        Some(u32::try_from(room.max(FLOOR / 2)).unwrap_or(u32::MAX))
    }

    /// What is appended to this partition from now on makes batches of that size: what its topic takes, and its leader.
    pub(super) fn refresh_limit(&self, id: u32) {
        let partition = &self.partitions[id as usize];
        let topic = self.topics[partition.topic as usize].limit;
        let own = self.room_alone(id).map_or(u32::MAX, |room| room.saturating_add(BATCH_HEADER));
        partition.ring.limit.store(topic.min(own), Ordering::Relaxed);
    }

    fn refresh_limits_of(&self, node: i32) {
        let led = (0..).zip(&self.partitions).filter(|(_, partition)| partition.leader == node);
        led.for_each(|(id, _)| self.refresh_limit(id));
    }

    /// It has another address, or there is none of it any more.
    pub(super) fn forget_size_limit(&mut self, node: i32) {
        if self.size_limits.remove(&node).is_some() {
            self.refresh_limits_of(node);
        }
    }

    /// A lane ended that we did not end: what that tells of the broker, in words to go on with.
    pub(super) fn note_end(&mut self, connection: &mut Connection, begun: bool) -> String {
        let (Role::Lane, Peer::Node(node)) = (connection.role, connection.peer) else { return String::new() };
        if !connection.negotiated {
            self.note_away(node);
            return String::new();
        }
        let Some(Request { asked: Asked::Produce { batches, .. }, bytes, .. }) = connection.unanswered.front_mut()
        else {
            return String::new();
        };
        if !begun || connection.frames.buffered() > 0 || self.config.acks == crate::config::Acks::None {
            return String::new();
        }
        let (now, size) = (self.now.monotonic, *bytes);
        let usual = self.config.batch_size as usize + FLOOR;
        let limit = self.size_limits.entry(node).or_default();
        let forced = batches.len() == 1 && limit.bound().is_some_and(|bound| size > bound);
        let Death { mut times, bound } = limit.died(now, size, usual, forced);
        if limit.is_blank() {
            self.size_limits.remove(&node);
        }
        if let [Some(batch)] = &mut batches[..] {
            batch.died_alone += 1;
            times = times.max(batch.died_alone);
        }
        if let Some(bound) = bound {
            self.refresh_limits_of(node);
            tracing::debug!(connection = %connection.name, size, bound, "requests are to be smaller");
            if times >= DEATHS {
                self.note_smaller(node, &smaller_requests(&connection.name, times, size, bound));
            }
        }
        let mut words = String::new();
        if times > 1 {
            let _ = write!(
                words,
                ", {times} times in a row with a request of {size} bytes on it; it may take less: \
                 see its socket.request.max.bytes (and batch.size, max.request.size here)"
            );
        }
        words
    }

    /// The broker is down: what died before died of that.
    fn note_away(&mut self, node: i32) {
        let Some(limit) = self.size_limits.get_mut(&node) else { return };
        limit.away();
        if limit.is_blank() {
            self.size_limits.remove(&node);
        }
        for partition in self.partitions.iter_mut().filter(|partition| partition.leader == node) {
            partition.queue.iter_mut().for_each(|batch| batch.died_alone = 0);
        }
    }

    /// A request with batches was answered. To be called only while something is suspected.
    pub(super) fn note_answered(&mut self, id: ConnectionId, size: usize) {
        let Some(Connection { peer: Peer::Node(node), .. }) = self.connections.get(&id) else { return };
        let node = *node;
        let Some(limit) = self.size_limits.get_mut(&node) else { return };
        let changed = limit.passed(self.now.monotonic, size, self.config.request_max_bytes as usize);
        if limit.is_blank() {
            self.size_limits.remove(&node);
        }
        if changed {
            self.refresh_limits_of(node);
        }
    }

    /// How many bytes of records its parts may have, if this batch is to be cut before it is sent (again).
    pub(super) fn is_to_be_cut(&self, batch: &Batch) -> Option<u32> {
        if self.size_limits.is_empty() || batch.count < 2 {
            return None;
        }
        let room = self.room_alone(batch.partition).filter(|room| batch.bytes > *room)?;
        // Without a copy that may be in the log, cutting costs nothing. Where a search is under way, only the whole can tell.
        let searched = self.partitions[batch.partition as usize].search.is_some();
        let may = !batch.may_be_written() || self.died_alone(batch, CUT_AFTER);
        (may && !searched).then_some(room)
    }

    /// Queues the batch's records in parts of so many bytes. `None`: the first of them cannot leave at once.
    pub(super) fn cut_down(&mut self, batch: Batch, room: u32) -> Option<Batch> {
        stepped(Step::CutDown);
        let id = batch.partition as usize;
        if batch.reported() != Reported::Nobody {
            // What was told is left out first, and that may cost its numbers.
            self.cut_out(batch, DeliveryErrorKind::Expired, &Vec::new());
            return None;
        }
        self.divide(batch, room);
        self.partitions[id].queue.pop_front()
    }

    /// It died alone again and again while it was larger than what its broker seems to take, and cannot be smaller.
    pub(super) fn is_beyond_limit(&self, batch: &Batch) -> bool {
        let whole = || batch.count == 1 || self.partitions[batch.partition as usize].search.is_some();
        let beyond = || self.room_alone(batch.partition).is_some_and(|room| batch.bytes > room);
        batch.died_alone >= GIVE_UP_AFTER[0] && whole() && beyond() && self.died_alone(batch, GIVE_UP_AFTER)
    }

    /// It died alone so often: while smaller requests pass, or where none was tried.
    fn died_alone(&self, batch: &Batch, [passing, untried]: [u32; 2]) -> bool {
        let leader = self.partitions[batch.partition as usize].leader;
        let passes = self.size_limits.get(&leader).is_some_and(SizeLimit::has_passed);
        batch.died_alone >= if passes { passing } else { untried }
    }

    /// Ends such a batch. If it is the first part of one that may be stored whole, the other parts take over its numbers: the
    /// next one is accepted under them if neither is stored, which ends the doubt, and out of order if one is.
    pub(super) fn give_up_alone(&mut self, batch: Batch) {
        let kind = DeliveryErrorKind::RequestTooLarge;
        let queue = &mut self.partitions[batch.partition as usize].queue;
        let parts = queue.iter().take_while(|queued| queued.number == batch.number);
        let of_one = parts.clone().all(|part| part.known.copies() == Copies::PartOfWhole && part.stamp.is_some());
        // One with as many records would be taken for a second copy of this one.
        let differs = parts.clone().next().is_some_and(|next| next.count != batch.count);
        let (count, searched) = (parts.count(), self.partitions[batch.partition as usize].search.is_some());
        if !(of_one && differs && batch.known.is_doubtful())
            || searched
            || batch.reported() == Reported::All
            || self.is_stored(&batch)
        {
            return self.fail(batch, kind);
        }
        let mut stamp = batch.stamp;
        let queue = &mut self.partitions[batch.partition as usize].queue;
        for (at, part) in queue.iter_mut().take(count).enumerate() {
            let shortened = at + 1 == count || part.stamp.is_some_and(|own| own.shortened);
            (part.stamp, part.crc) = (stamp.map(|stamp| Stamp { shortened, ..stamp }), None);
            stamp = stamp.map(|stamp| stamp.after(part.count));
        }
        let error = self.error(&batch, kind);
        self.resolve(batch, &Outcome::Failed(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: usize = 17 << 10;
    const MOST: usize = 1 << 20;
    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Clone, Copy, Debug)]
    enum What {
        Died(usize),
        /// With a batch that could not be smaller.
        Forced(usize),
        Passed(usize),
        Away,
        Wait(Duration),
    }
    use What::*;

    fn bound_after(events: &[What]) -> Option<usize> {
        let (mut limit, mut now) = (SizeLimit::default(), SECOND);
        for event in events {
            match *event {
                Died(size) => drop(limit.died(now, size, USUAL, false)),
                Forced(size) => drop(limit.died(now, size, USUAL, true)),
                Passed(size) => drop(limit.passed(now, size, MOST)),
                Away => limit.away(),
                Wait(time) => now += time,
            }
        }
        limit.bound()
    }

    #[test]
    fn what_is_concluded_from_what() {
        const LARGE: usize = 300_000;
        let table: &[(&str, &[What], Option<usize>)] = &[
            ("nothing", &[], None),
            ("once is nothing, nor is twice", &[Died(LARGE), Died(LARGE)], None),
            ("three times in a row: what is usual", &[Died(LARGE), Died(900_000), Died(LARGE)], Some(USUAL)),
            ("by halves below that", &[Died(20_000), Died(20_000), Died(20_000)], Some(10_000)),
            ("tiny ones die of something else", &[Died(2_000), Died(2_000), Died(2_000), Died(2_000)], None),
            ("it was down in between", &[Died(LARGE), Died(LARGE), Away, Died(LARGE)], None),
            ("one as large passed", &[Died(LARGE), Died(LARGE), Passed(LARGE), Died(LARGE)], None),
            ("a smaller one tells nothing", &[Died(LARGE), Died(LARGE), Passed(900), Died(LARGE)], Some(USUAL)),
            ("long ago", &[Died(LARGE), Died(LARGE), Wait(61 * SECOND), Died(LARGE)], None),
            (
                "it grows with what passes",
                &[Died(LARGE), Died(LARGE), Died(LARGE), Passed(16_000), Passed(30_000), Passed(1_000)],
                Some(4 * USUAL),
            ),
            (
                "and is forgotten",
                &[
                    Died(LARGE),
                    Died(LARGE),
                    Died(LARGE),
                    Passed(16_000),
                    Passed(34_000),
                    Passed(68_000),
                    Passed(130_000),
                    Passed(260_000),
                    Passed(530_000),
                ],
                None,
            ),
            (
                "beyond what passes one death is enough",
                &[Died(LARGE), Died(LARGE), Died(LARGE), Passed(16_000), Died(33_000), Passed(16_000), Passed(16_000)],
                Some(16_000),
            ),
            (
                "then it is spared for a while",
                &[
                    Died(LARGE),
                    Died(LARGE),
                    Died(LARGE),
                    Passed(16_000),
                    Died(33_000),
                    Wait(10 * SECOND),
                    Passed(16_000),
                ],
                Some(32_000),
            ),
            (
                "a batch that could not be smaller tells nothing new",
                &[Died(LARGE), Died(LARGE), Died(LARGE), Forced(LARGE), Forced(LARGE), Forced(LARGE)],
                Some(USUAL),
            ),
            ("unless it passes", &[Died(LARGE), Died(LARGE), Died(LARGE), Passed(LARGE)], Some(2 * LARGE)),
            (
                "what passed dies, again and again: less",
                &[
                    Died(LARGE),
                    Died(LARGE),
                    Died(LARGE),
                    Passed(16_000),
                    Died(33_000),
                    Died(16_000),
                    Died(16_000),
                    Died(16_000),
                ],
                Some(8_000),
            ),
        ];
        for (what, events, bound) in table {
            assert_eq!(bound_after(events), *bound, "{what}: {events:?}");
        }
    }

    /// Brokers with every limit, and requests as large as the bound lets them be, ten a second for an hour: what dies is
    /// little, and what passes is not much smaller than it might be.
    #[test]
    fn a_limit_is_found_and_rarely_tried_again() {
        for real in (3_000..900_000).step_by(1_733) {
            let (mut limit, mut now) = (SizeLimit::default(), SECOND);
            let (mut died, mut early) = (0, 0);
            for nth in 0..36_000 {
                now += SECOND / 10;
                let size = limit.bound().unwrap_or(MOST);
                if size > real {
                    limit.died(now, size, USUAL, false);
                    died += 1;
                    early += u32::from(nth < 600);
                } else {
                    limit.passed(now, size, MOST);
                }
            }
            let found = limit.bound().unwrap_or(MOST);
            assert!(found > real / 2 && found <= 2 * real, "{found} of {real}");
            assert!(early <= 16 && died <= early + 10, "{real}: {died} died, {early} in the first minute");
        }
    }

    /// Connections end at random, whatever is on them: the bound is gone soon after that is over.
    #[test]
    fn what_was_no_limit_is_forgotten() {
        for seed in 0..2_000u64 {
            let (mut limit, mut now) = (SizeLimit::default(), SECOND);
            let mut random = crate::sender::backoff::Random::new(seed);
            for _ in 0..50 {
                now += SECOND / 20;
                let size = limit.bound().unwrap_or(MOST);
                match random.next() % 4 {
                    0 | 1 => drop(limit.died(now, size, USUAL, false)),
                    2 => drop(limit.passed(now, size, MOST)),
                    _ => limit.away(),
                }
            }
            let over = now;
            while let Some(bound) = limit.bound() {
                now += SECOND / 10;
                limit.passed(now, bound, MOST);
            }
            assert!(now <= over + 650 * SECOND, "seed {seed}: {:?}", now - over);
        }
    }
}
