//! What the rest of the sender tells of, and what is looked at while something is wrong.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::words::how_over;
use super::{Counts, FORGOTTEN, Health, Kind, MINUTE, QUIET, Why};
use crate::completion::Outcome;
use crate::error::{DeliveryError, DeliveryErrorKind};
use crate::sender::connection::Peer;
use crate::sender::endpoint::Step;
use crate::sender::in_flight::Batch;
use crate::sender::timers::{Armed, Timer};
use crate::sender::transmit::ConnectionId;
use crate::sender::{Sender, Shared};

/// So many attempts in a row, and a broker is out of reach.
const ATTEMPTS: u32 = 2;
/// So many connections to a broker lost within a minute.
const LOSSES: usize = 3;
/// So many partitions whose records wait are looked at again.
const WATCHED: usize = 64;
/// What was lost within this time was lost together.
const TOGETHER: Duration = Duration::from_millis(500);
/// Callers who find no room come back within this time.
const COME_BACK: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Debug, Default)]
pub struct Feed {
    health: Health,
    armed: Armed,
    /// Brokers that something was wrong with lately, by `host:port`.
    brokers: BTreeMap<Arc<str>, Broker>,
    /// When a record last failed, and how many had been delivered by then.
    failed: (Duration, u64),
    /// Partitions whose records wait.
    stuck: Vec<u32>,
    room: Room,
}

#[derive(Debug, Default)]
struct Broker {
    /// Attempts that failed since an answer was of use, and when the first of them did. A connection that was lost counts as
    /// one at most, for there are two, and they are lost together.
    attempts: u32,
    since: Duration,
    /// When its connections were lost, within a minute; those that were lost together once.
    losses: VecDeque<Duration>,
    heard: Duration,
}

/// Callers who wait for room.
#[derive(Debug, Default)]
struct Room {
    /// Since when nothing has come of it, and how many records had ended by then.
    since: Duration,
    ended: u64,
    /// When some were last seen to wait.
    seen: Duration,
}

fn words(text: impl Into<Arc<str>>) -> Why {
    Why::Words(text.into())
}

/// `host:port` of a connection's name.
fn host_of(name: &str) -> &str {
    name.split(" (").next().unwrap_or(name)
}

fn counts(shared: &Shared) -> Counts {
    let stats = shared.stats();
    Counts { delivered: stats.delivered, failed: stats.failed(), waiting: stats.outstanding() }
}

impl Sender {
    /// A record failed: before it is counted.
    pub(in crate::sender) fn note_outcome(&mut self, outcome: &Outcome) {
        let Outcome::Failed(error) = outcome else { return };
        if !matches!(error.kind(), DeliveryErrorKind::Closed | DeliveryErrorKind::SenderPanicked) {
            self.note_failed(error);
        }
    }

    fn note_failed(&mut self, error: &DeliveryError) {
        let now = self.now.monotonic;
        self.feed.failed = (now, self.shared.tally.read().delivered);
        self.feed.health.begin(now, Kind::Records, "", now, Why::Error(error.clone()));
        self.step_health();
    }

    /// A connection was lost, or did not come up. `long`: that took all the time that it may.
    pub(in crate::sender) fn note_lost(&mut self, peer: Peer, name: &str, why: &str, established: bool, long: bool) {
        let now = self.now.monotonic;
        // Its other addresses are tried first.
        let goes_on = |step: Step| matches!(step, Step::Connect(_));
        let over = self.endpoint(peer).is_none_or(|endpoint| !goes_on(endpoint.peek(now)));
        self.note_attempt(host_of(name), why, established, over, long);
    }

    /// A broker may take smaller requests only. It is told once a minute at most for each.
    pub(in crate::sender) fn note_smaller(&mut self, node: i32, text: &str) {
        let now = self.now.monotonic;
        let Some(node) = self.nodes.get_mut(&node) else { return };
        if node.told_smaller.is_none_or(|told| now >= told + MINUTE) {
            node.told_smaller = Some(now);
            tracing::warn!(target: "ringmail::health", client = &*self.config.client_id, "{text}");
        }
    }

    /// A name could not be looked up.
    pub(in crate::sender) fn note_unresolved(&mut self, host: &str, port: u16, why: &str) {
        self.note_attempt(&format!("{host}:{port}"), why, false, true, false);
    }

    fn note_attempt(&mut self, name: &str, why: &str, established: bool, over: bool, long: bool) {
        let now = self.now.monotonic;
        if !self.feed.brokers.contains_key(name) {
            self.feed.brokers.insert(name.into(), Broker { since: now, ..Broker::default() });
        }
        let Some(broker) = self.feed.brokers.get_mut(name) else { return };
        broker.heard = now;
        broker.losses.retain(|at| now < *at + MINUTE);
        if established && broker.losses.back().is_none_or(|last| now >= *last + TOGETHER) {
            broker.losses.push_back(now);
        }
        if over {
            broker.since = if broker.attempts == 0 { now } else { broker.since };
            broker.attempts = match (established, long) {
                (_, true) => ATTEMPTS,
                (true, _) => broker.attempts.max(1),
                (false, _) => broker.attempts.saturating_add(1),
            };
        }
        let (since, losses) = (broker.since, broker.losses.len());
        if broker.attempts >= ATTEMPTS {
            let how = if established && long { "does not answer in time" } else { "is out of reach" };
            let why = format!("{how}: {why}");
            self.feed.health.begin(now, Kind::Broker, name, since, words(why));
        } else if losses >= LOSSES {
            let why =
                format!("is of little use, its connections end again and again ({losses} within a minute): {why}");
            self.feed.health.begin(now, Kind::Broker, name, now, words(why));
        } else {
            self.feed.health.hear(now, Kind::Broker, name);
        }
        self.step_health();
    }

    /// A connection's first answer of use.
    pub(in crate::sender) fn note_proven(&mut self, id: ConnectionId) {
        if self.feed.brokers.is_empty() {
            return;
        }
        let Some(name) = self.connections.get(&id).map(|connection| connection.name.clone()) else { return };
        let name = host_of(&name);
        if let Some(broker) = self.feed.brokers.get_mut(name) {
            broker.attempts = 0;
            if broker.losses.len() < LOSSES {
                self.end(Kind::Broker, name);
                self.step_health();
            }
        }
    }

    /// A broker asked for a pause of so long.
    pub(in crate::sender) fn note_throttled(&mut self, id: ConnectionId) {
        let now = self.now.monotonic;
        let Some(connection) = self.connections.get(&id) else { return };
        let (name, why) = (connection.name.clone(), connection.throttle_words());
        let since = self.feed.health.since(Kind::Throttle, host_of(&name)).unwrap_or(now);
        self.feed.health.begin(now, Kind::Throttle, host_of(&name), since, words(why));
        self.step_health();
    }

    /// What metadata says of a topic: why it cannot be used, or that it can.
    pub(in crate::sender) fn note_topic(&mut self, name: &str, trouble: Option<String>) {
        let now = self.now.monotonic;
        match trouble {
            Some(why) => self.feed.health.begin(now, Kind::Topic, name, now, words(why)),
            None => self.end(Kind::Topic, name),
        }
        self.step_health();
    }

    /// Metadata came, or has been wanted in vain since then.
    pub(in crate::sender) fn note_metadata(&mut self, wanted_since: Option<Duration>) {
        let now = self.now.monotonic;
        match wanted_since {
            Some(since) if now >= since + QUIET => {
                let why = self.shared.trouble().unwrap_or_else(|| "no broker has answered".to_owned());
                self.feed.health.begin(now, Kind::Metadata, "", since, words(why));
            }
            Some(_) => return,
            None => self.end(Kind::Metadata, ""),
        }
        if wanted_since.is_none() && !self.feed.brokers.is_empty() {
            self.leave_strangers();
        }
        self.step_health();
    }

    /// A producer id was asked for in vain, because of that, or is there.
    pub(in crate::sender) fn note_identity(&mut self, trouble: Option<&str>) {
        let now = self.now.monotonic;
        match trouble {
            Some(why) => self.feed.health.begin(now, Kind::Identity, "", now, words(why)),
            None => self.end(Kind::Identity, ""),
        }
        self.step_health();
    }

    /// Records of this partition could leave and do not.
    pub(in crate::sender) fn note_waiting(&mut self, id: u32) {
        let Some(since) = self.waits_since(id) else { return };
        let why = self.trouble_of_partition(id).unwrap_or_else(|| "what was sent before is not answered".into());
        self.note_stuck(id, since, &why);
    }

    /// A batch is to be sent again.
    pub(in crate::sender) fn note_retry(&mut self, batch: &Batch) {
        if self.now.monotonic < batch.opened + self.long() {
            return;
        }
        let answered = batch.last_error.as_ref().map(|error| format!("the last answer was {error}"));
        let why = batch.trouble.as_deref().map(str::to_owned).or(answered);
        self.note_stuck(batch.partition, batch.opened, &why.unwrap_or_default());
    }

    fn note_stuck(&mut self, id: u32, since: Duration, why: &str) {
        let now = self.now.monotonic;
        if self.feed.stuck.len() < WATCHED && !self.feed.stuck.contains(&id) {
            self.feed.stuck.push(id);
        }
        let place = &self.partitions[id as usize].ring.place;
        let since = self.feed.health.since(Kind::Partition, "").map_or(since, |other| other.min(since));
        self.feed.health.begin(now, Kind::Partition, "", since, words(format!("{place}: {why}")));
        self.step_health();
    }

    /// From when on a record waits for long.
    fn long(&self) -> Duration {
        self.config.linger + QUIET.min(self.config.delivery_timeout / 4)
    }

    /// Since when the partition's oldest record has waited, if that is long.
    fn waits_since(&self, id: u32) -> Option<Duration> {
        let partition = self.partitions.get(id as usize)?;
        let oldest = partition.queue.front().map(|batch| batch.opened).into_iter().chain(partition.seen.first()).min();
        oldest.filter(|oldest| self.now.monotonic >= *oldest + self.long())
    }

    /// Callers wait for room.
    pub(in crate::sender) fn note_callers(&mut self) {
        let now = self.now.monotonic;
        let tally = self.shared.tally.read();
        let ended = tally.delivered + tally.failed();
        let room = &mut self.feed.room;
        if ended != room.ended || now > room.seen + COME_BACK {
            (room.since, room.ended) = (now, ended);
        }
        room.seen = now;
        if now >= room.since + QUIET {
            let since = room.since;
            let why = match self.shared.outbox.get().map_or(0, |outbox| self.outbox.untaken(outbox)) {
                0 => "no record was delivered meanwhile, and none failed".to_owned(),
                reports => format!("a listener, callback or sink has {reports} batches still to take"),
            };
            self.feed.health.begin(now, Kind::Room, "", since, words(why));
            self.step_health();
        }
    }

    fn end(&mut self, kind: Kind, subject: &str) {
        let how = how_over(kind, subject);
        self.feed.health.end(self.now.monotonic, kind, subject, &how, || counts(&self.shared));
    }

    /// There is metadata: who is not in it is not asked any more, be it a bootstrap server or a broker that has left. (The
    /// same broker may have gone by another name.)
    fn leave_strangers(&mut self) {
        let endpoints = self.nodes.values().map(|node| &node.endpoint);
        let known: Vec<String> = endpoints.map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port)).collect();
        let strangers = self.feed.brokers.extract_if(.., |name, _| !known.iter().any(|known| **known == **name));
        for (name, _) in strangers.collect::<Vec<_>>() {
            let how = format!("broker {name} is not asked any more");
            self.feed.health.end(self.now.monotonic, Kind::Broker, &name, &how, || counts(&self.shared));
        }
    }

    /// What has no event of its own: does it go on?
    pub(in crate::sender) fn look_after_health(&mut self) {
        let now = self.now.monotonic;
        self.feed.armed.fired(now);
        self.look_after_brokers();
        let tally = self.shared.tally.read();
        if self.feed.health.since(Kind::Records, "").is_some() {
            let (last, delivered) = self.feed.failed;
            let others = tally.delivered != delivered || counts(&self.shared).waiting == 0;
            self.go_on(Kind::Records, "", now < last + QUIET || !others);
        }
        if self.feed.health.since(Kind::Partition, "").is_some() {
            let mut stuck = std::mem::take(&mut self.feed.stuck);
            stuck.retain(|id| {
                let partition = &self.partitions[*id as usize];
                self.waits_since(*id).is_some() || (partition.unacked > 0 && partition.failures > 0)
            });
            self.feed.stuck = stuck;
            self.go_on(Kind::Partition, "", !self.feed.stuck.is_empty());
        }
        if self.feed.health.since(Kind::Room, "").is_some() {
            let room = &self.feed.room;
            let goes_on = tally.delivered + tally.failed() == room.ended && now < room.seen + QUIET;
            self.go_on(Kind::Room, "", goes_on);
        }
        for (name, heard) in self.feed.health.on(Kind::Throttle) {
            let mut paused = self.connections.values().filter(|connection| connection.throttled_until > now);
            let is_paused = paused.any(|connection| host_of(&connection.name) == &*name);
            if is_paused || now >= heard + QUIET {
                self.go_on(Kind::Throttle, &name, is_paused);
            }
        }
        self.step_health();
    }

    fn look_after_brokers(&mut self) {
        let now = self.now.monotonic;
        for (name, _) in self.feed.health.on(Kind::Broker) {
            let Some(broker) = self.feed.brokers.get_mut(&name) else { continue };
            broker.losses.retain(|at| now < *at + MINUTE);
            if broker.attempts == 0 && broker.losses.len() < LOSSES {
                self.end(Kind::Broker, &name);
            } else if broker.attempts == 0 {
                self.feed.health.hear(now, Kind::Broker, &name);
            }
        }
        let kept = |broker: &Broker| now < broker.heard + FORGOTTEN;
        self.feed.brokers.retain(|_, broker| kept(broker));
    }

    fn go_on(&mut self, kind: Kind, subject: &str, goes_on: bool) {
        if goes_on {
            self.feed.health.hear(self.now.monotonic, kind, subject);
        } else {
            self.end(kind, subject);
        }
    }

    /// Says what is due, and arms the timer for what will be.
    fn step_health(&mut self) {
        if self.closed {
            return;
        }
        let next = self.feed.health.look(self.now.monotonic, || counts(&self.shared));
        let client = &*self.config.client_id;
        for line in self.feed.health.take_lines() {
            match (line.bad, line.kind) {
                (true, Some(Kind::Records)) => {
                    tracing::warn!(target: "ringmail::health::records", client, "{}", line.text);
                }
                (true, _) => tracing::warn!(target: "ringmail::health", client, "{}", line.text),
                (false, _) => tracing::info!(target: "ringmail::health", client, "{}", line.text),
            }
        }
        if let Some(next) = next {
            self.feed.armed.at(&mut self.timers, next, Timer::Health);
        }
    }
}
