//! One sender, some brokers, and the network between them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::coverage::{Coverage, Sight};
use super::deck::SharedDeck;
use super::ledger::Ledger;
use super::network::{Event, Link, Storm};
use super::spoil::topic_number;
use crate::accumulator::{Accumulator, AccumulatorConfig, Attach};
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::metadata::BELIEVED;
use crate::sender::transmit::{Action, ConnectionId, Now, Transmit};
use crate::sender::{Random, Sender, Shared, TopicShared, turn};
use crate::testing::{BrokerModel, BrokerOptions};
use crate::wire::metadata::MetadataResponse;
use crate::wire::record::Fields;

const START_MS: i64 = 1_700_000_000_000;

/// How long something may be possible and undone.
const IDLE_MAX: Duration = Duration::from_millis(5);

/// An event and its time; those of one time happen in the order in which they were planned.
pub(super) struct Planned {
    at: Duration,
    serial: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// How the network treats us. Chances are in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// A connection ends in the middle of a request.
    pub cut_request: u64,
    /// It ends after the broker acted, before the answer.
    pub cut_answer: u64,
    /// A broker restarts, remembering one batch per producer and partition.
    pub restart: u64,
}

pub struct World {
    pub sender: Sender,
    pub shared: Arc<Shared>,
    pub accumulator: Arc<Accumulator>,
    pub model: BrokerModel,
    pub now: Duration,
    pub weather: Weather,
    /// What else may go wrong; nothing, unless a simulation says so.
    pub storm: Storm,
    pub random: Random,
    /// By age.
    pub(super) links: Vec<Link>,
    events: BinaryHeap<Planned>,
    /// What happens in this turn.
    happens: Option<Event>,
    serial: u64,
    pub(super) down: Vec<i32>,
    /// Nodes that stand still, and until when.
    pub(super) frozen: Vec<(i32, Duration)>,
    pub restarts: u32,
    /// Without time going by.
    turns: u32,
    /// Names that were to be looked up.
    pub look_ups: u32,
    /// Changes metadata answers on their way.
    pub spoil: Option<Box<dyn FnMut(&mut MetadataResponse)>>,
    /// Records that were taken.
    accepted: u64,
    /// The oracle's books. With them the sender sleeps until its doorbell rings.
    pub ledger: Option<Ledger>,
    pub deck: Option<SharedDeck>,
    pub coverage: Coverage,
    /// How far the caller's wall clock is off.
    pub wall_jump_ms: i64,
    /// No topic is created again: leader epochs never go back.
    pub epochs_grow: bool,
    /// The newest that the sender went by, by partition.
    epochs: Vec<i32>,
    /// Sequence numbers of partitions that are new.
    pub first_sequence: u32,
    /// Whoever looks into a seed is told what happens.
    pub story: bool,
    /// Of everything that was sent, in order.
    pub trace: u64,
    rings: usize,
    identity: usize,
    possibly: u64,
    /// Since when partitions could send and did not.
    idle: Vec<(u32, Duration)>,
    idle_now: Vec<u32>,
    pub(super) buffers: Vec<Vec<u8>>,
    pub(super) sights: Vec<Sight>,
    pub(super) topic_ids: Vec<([u8; 16], usize)>,
    /// Place, node and epoch of leaders that were.
    pub(super) old_leaders: Vec<(usize, i32, i32)>,
}

impl World {
    pub fn new(seed: u64, options: BrokerOptions, config: ProducerConfig) -> Self {
        let addresses: Vec<SocketAddr> =
            (0..options.brokers).map(|node| SocketAddr::from(([127, 0, 0, 1], 1000 + node as u16))).collect();
        let model = BrokerModel::new(options, addresses);
        let config = config.bootstrap_servers("127.0.0.1:1000").validate().unwrap();
        let (accumulator, drain) = Accumulator::new(AccumulatorConfig {
            buffer_memory: config.buffer_memory,
            batch_size: config.batch_size as usize,
            max_request_size: config.max_request_size as usize,
            slots: 16,
        })
        .unwrap();
        let shared = Arc::new(Shared::new(accumulator.clone(), Arc::new(config)));
        let sender = Sender::new(shared.clone(), drain, seed);
        Self {
            identity: sender.identity_state(),
            sender,
            shared,
            accumulator,
            model,
            now: Duration::ZERO,
            weather: Weather::default(),
            storm: Storm::default(),
            random: Random::new(seed ^ 0x5eed),
            links: Vec::new(),
            events: BinaryHeap::new(),
            happens: None,
            serial: 0,
            down: Vec::new(),
            frozen: Vec::new(),
            restarts: 0,
            turns: 0,
            look_ups: 0,
            spoil: None,
            accepted: 0,
            ledger: None,
            deck: None,
            coverage: Coverage::default(),
            wall_jump_ms: 0,
            epochs_grow: false,
            epochs: Vec::new(),
            first_sequence: 0,
            story: false,
            trace: 0,
            rings: 0,
            possibly: 0,
            idle: Vec::new(),
            idle_now: Vec::new(),
            buffers: Vec::new(),
            sights: Vec::new(),
            topic_ids: Vec::new(),
            old_leaders: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: self.now, unix_ms: self.unix_ms() + self.wall_jump_ms }
    }

    /// The brokers' wall clock.
    pub(super) fn unix_ms(&self) -> i64 {
        START_MS + self.now.as_millis() as i64
    }

    pub(super) fn chance(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.random.next() % 1000 < thousandths
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.plan(self.now + delay, event);
    }

    pub(super) fn plan(&mut self, at: Duration, event: Event) {
        self.serial += 1;
        self.events.push(Planned { at, serial: self.serial, event });
    }

    pub(super) fn latency(&mut self) -> Duration {
        Duration::from_micros(50 + self.random.next() % 400)
    }

    /// Appends a record; `None` when there is no room now.
    pub fn send(&mut self, topic: &TopicShared, partition: u32, value: &[u8]) -> Option<Delivery> {
        self.append(topic, partition, &Fields { key: None, value: Some(value), headers: &[] }, None)
    }

    /// Appends a record that has less time than others; `None` when there is no room now.
    pub fn send_within(
        &mut self,
        topic: &TopicShared,
        partition: u32,
        value: &[u8],
        timeout: Duration,
    ) -> Option<Delivery> {
        let ring = topic.partition(partition)?.clone();
        let fields = Fields { key: None, value: Some(value), headers: &[] };
        let timeout = NonZeroU32::new(timeout.as_millis() as u32);
        let appended = self.accumulator.append(&ring, &fields, None, Attach::Delivery, true, timeout).ok()?;
        self.accepted += 1;
        appended.delivery
    }

    /// Appends a record with any key and, if given, its own timestamp; `None` when there is no room now.
    pub fn append(
        &mut self,
        topic: &TopicShared,
        partition: u32,
        fields: &Fields<'_>,
        timestamp: Option<i64>,
    ) -> Option<Delivery> {
        let ring = topic.partition(partition)?.clone();
        match self.accumulator.append(&ring, fields, timestamp, Attach::Delivery, true, None) {
            Ok(appended) => {
                self.accepted += 1;
                appended.delivery
            }
            Err(refused) if refused.is_full() => None,
            Err(why) => panic!("{why:?}"),
        }
    }

    /// A record was taken by other means than `send`.
    pub fn note_accepted(&mut self) {
        self.accepted += 1;
    }

    /// The topic, once it is known.
    pub fn topic(&mut self, name: &str) -> Arc<TopicShared> {
        let topic = self.shared.topic(name);
        for _ in 0..10_000 {
            if topic.count() > 0 {
                return topic;
            }
            self.shared.want(&topic);
            self.turn();
        }
        panic!("no metadata for {name}");
    }

    /// Lets everything happen that happens until `at`.
    pub fn run_until(&mut self, at: Duration) {
        while self.now < at {
            if !self.turn_before(at) {
                self.now = at;
            }
        }
        self.look();
    }

    /// Turns until `done`, for at most an hour of its time.
    pub fn run_while(&mut self, mut busy: impl FnMut(&mut Self) -> bool) {
        let limit = self.now + Duration::from_secs(3600);
        while busy(self) {
            assert!(self.now < limit, "it never ends: {:?}", self.sender);
            self.turn();
        }
    }

    pub fn turn(&mut self) {
        if !self.turn_before(Duration::MAX) {
            self.now += Duration::from_millis(1);
            self.look();
        }
    }

    /// One turn of the loop: the next event or the sender's own time. False: nothing happens before `limit`.
    fn turn_before(&mut self, limit: Duration) -> bool {
        self.look();
        let event = self.events.peek().map(|planned| planned.at);
        let timer = self.sender.poll_timeout().map(|at| at.max(self.now));
        let Some(next) = event.into_iter().chain(timer).min().filter(|at| *at < limit) else { return false };
        if next > self.now {
            self.check_timers();
            (self.now, self.turns) = (next, 0);
        }
        self.turns += 1;
        assert!(self.turns < 10_000, "a busy loop at {:?}: {:#?}", self.now, self.sender.inspect());
        if event.is_some_and(|at| at <= self.now) {
            self.happens = self.events.pop().map(|planned| planned.event);
        }
        self.accumulator.doorbell.ring();
        self.look();
        true
    }

    /// A turn of the loop, unless it sleeps.
    fn look(&mut self) {
        if self.ledger.is_some() && !self.accumulator.doorbell.is_rung() {
            return;
        }
        let Ok(()) = turn::turn(self);
        self.check_stats();
        if self.ledger.is_some() {
            self.check();
        }
    }

    pub(super) fn link(&mut self, id: ConnectionId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// Every record is in one place, and the numbers that are published say which.
    fn check_stats(&self) {
        let stats = self.shared.stats();
        let (waiting, in_flight) = self.sender.held();
        let rings = self.sender.rings().fold(0, |sum, ring| sum + self.accumulator.census(ring).waiting);
        assert_eq!((stats.waiting, stats.in_flight), (waiting + rings, in_flight), "at {:?}: {stats:?}", self.now);
        assert!(stats.adds_up() && stats.accepted == self.accepted, "{} sent, {stats:?}", self.accepted);
    }

    /// What a simulation checks besides that, turn by turn.
    fn check(&mut self) {
        let identity = self.sender.identity_state();
        if identity != self.identity {
            self.coverage.saw_identity(self.identity, identity);
            self.identity = identity;
        }
        if self.rings != self.sender.rings().len() {
            self.rings = self.sender.rings().len();
            self.sender.start_sequences_at(self.first_sequence);
        }
        self.check_hands();
        if self.epochs_grow {
            self.epochs.resize(self.rings, -1);
            for (newest, (epoch, useless)) in self.epochs.iter_mut().zip(self.sender.leader_epochs()) {
                // Brokers before 2.1 do not say. What was of no use for long may have been nonsense.
                let grows = epoch < 0 || epoch >= *newest;
                assert!(grows || useless >= BELIEVED, "back from leader epoch {newest} to {epoch} after {useless:?}");
                *newest = if grows { epoch.max(*newest) } else { epoch };
            }
        }
        if let Some(ledger) = &mut self.ledger {
            let counts = self.model.topics.iter().map(|(name, topic)| (topic_number(name), topic.partitions.len()));
            counts.for_each(|(topic, count)| topic.into_iter().for_each(|topic| ledger.note_partitions(topic, count)));
        }
        let possibly = self.shared.tally.read().failed_possibly_written;
        if possibly > self.possibly
            && let Some(ledger) = &mut self.ledger
        {
            // Now, because later answers may end the doubt.
            self.possibly = possibly;
            ledger.settle(self.now);
        }
    }

    /// Before time goes by: whatever waits, something will wake it.
    fn check_timers(&self) {
        let untimed = self.sender.untimed();
        assert!(untimed.is_empty(), "at {:?}, and nothing will wake it: {untimed:#?}", self.now);
    }

    /// Nobody may be idle who has something to send.
    fn check_hands(&mut self) {
        let mut able = std::mem::take(&mut self.idle_now);
        able.clear();
        self.sender.idle_hands(self.now, &mut able);
        self.idle.retain(|(id, _)| able.contains(id));
        for id in &able {
            match self.idle.iter().find(|(idle, _)| idle == id) {
                Some((_, since)) => {
                    let idle = self.now - *since;
                    // What was too little when it came may be enough by now (a smaller limit): it leaves with its linger.
                    let most = IDLE_MAX + self.shared.config.linger;
                    assert!(idle <= most, "partition {id} could send for {idle:?} and did not");
                }
                None => self.idle.push((*id, self.now)),
            }
        }
        self.idle_now = able;
    }

    /// The node dies and comes back after a while.
    pub fn kill(&mut self, node: i32) {
        self.kill_for(node, Duration::from_millis(20));
    }

    /// Tells of what happens, if somebody listens.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.story {
            println!("{:>12.3?} {}", self.now, what());
        }
    }

    /// The node dies and comes back after so long.
    pub fn kill_for(&mut self, node: i32, away: Duration) {
        self.tell(|| format!("broker {node} dies for {away:?}"));
        self.restarts += 1;
        if !self.down.contains(&node) {
            self.down.push(node);
        }
        self.frozen.retain(|(frozen, _)| *frozen != node);
        let lost: Vec<ConnectionId> = self.links.iter().filter(|link| link.node == node).map(|link| link.id).collect();
        for id in lost {
            if let Some(link) = self.link(id) {
                link.give_back_arrived();
            }
            self.after(Duration::ZERO, Event::Closed(id));
        }
        self.after(away, Event::Restart(node));
    }

    /// What the log of a partition holds.
    pub fn log(&self, topic: &str, partition: i32) -> Vec<String> {
        let records = self.model.records(topic, partition);
        records.into_iter().map(|record| String::from_utf8(record.value.unwrap_or_default()).unwrap()).collect()
    }
}

impl turn::World for World {
    type Machine = Sender;
    type Error = Infallible;

    fn machine(&mut self) -> &mut Sender {
        &mut self.sender
    }

    fn wait(&mut self) -> Result<Now, Infallible> {
        if let Some(event) = self.happens.take() {
            self.happen(event);
        }
        Ok(self.now())
    }

    fn awake(&mut self) {
        self.accumulator.doorbell.awake();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Resolve { host, port } => {
                self.look_ups += 1;
                let address: Result<SocketAddr, _> = format!("{host}:{port}").parse();
                let answer = address.map(|address| vec![address]).map_err(|_| "no such host".to_owned());
                self.after(Duration::ZERO, Event::Resolved(host, port, answer));
            }
            Action::Connect { connection, address } => self.connect(connection, i32::from(address.port()) - 1000),
            Action::Close { connection } => {
                if let Some(link) = self.link(connection) {
                    link.closing = true;
                }
                self.after(Duration::ZERO, Event::Closed(connection));
            }
        }
    }

    fn send(&mut self, transmit: Transmit) {
        self.hand(transmit);
    }
}
