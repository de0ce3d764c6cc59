//! One sender, some brokers, and the network between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::accumulator::{Accumulator, AccumulatorConfig, Attach};
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::sender::transmit::{Action, ConnectionId, Now, Piece, Transmit};
use crate::sender::{Random, Sender, Shared, TopicShared};
use crate::testing::{BrokerModel, BrokerOptions, Incoming, Reply};
use crate::wire::header::ApiKey;
use crate::wire::metadata::{self, MetadataResponse};
use crate::wire::record::Fields;
use crate::wire::server;

const START_MS: i64 = 1_700_000_000_000;

/// What happens at a time.
#[derive(Debug)]
enum Event {
    Connected(ConnectionId),
    /// The kernel has taken the transmit, and the request is on its way.
    Taken(ConnectionId),
    /// The broker reads this connection's next request, if it is done with the one before.
    Read(ConnectionId),
    /// Bytes reach the sender.
    Answer(ConnectionId, Vec<u8>),
    /// The connection is gone.
    Closed(ConnectionId),
    Restart(i32),
}

struct Link {
    node: i32,
    /// With the driver, not yet with the kernel.
    sending: Option<Transmit>,
    /// Requests at the broker, not yet read.
    arrived: VecDeque<Vec<u8>>,
    /// The broker reads nothing before this time.
    busy_until: Duration,
    hung: bool,
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
    pub random: Random,
    links: HashMap<ConnectionId, Link>,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    pending: HashMap<u64, Event>,
    serial: u64,
    down: HashSet<i32>,
    pub restarts: u32,
    /// Without time going by.
    turns: u32,
    /// Names that were to be looked up.
    pub look_ups: u32,
    /// Changes metadata answers on their way.
    pub spoil: Option<Box<dyn FnMut(&mut MetadataResponse)>>,
    /// Records that were taken.
    accepted: u64,
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
        Self {
            sender: Sender::new(shared.clone(), drain, seed),
            shared,
            accumulator,
            model,
            now: Duration::ZERO,
            weather: Weather::default(),
            random: Random::new(seed ^ 0x5eed),
            links: HashMap::new(),
            events: BinaryHeap::new(),
            pending: HashMap::new(),
            serial: 0,
            down: HashSet::new(),
            restarts: 0,
            turns: 0,
            look_ups: 0,
            spoil: None,
            accepted: 0,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix_ms: START_MS + self.now.as_millis() as i64 }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.random.next() % 1000 < thousandths
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.serial += 1;
        self.pending.insert(self.serial, event);
        self.events.push(Reverse((self.now + delay, self.serial)));
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(50 + self.random.next() % 400)
    }

    /// Appends a record; `None` when there is no room now.
    pub fn send(&mut self, topic: &TopicShared, partition: u32, value: &[u8]) -> Option<Delivery> {
        self.append(topic, partition, &Fields { key: None, value: Some(value), headers: &[] }, None)
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
        match self.accumulator.append(&ring, fields, timestamp, Attach::Delivery, true) {
            Ok(appended) => {
                self.accepted += 1;
                appended.delivery
            }
            Err(refused) if refused.is_full() => None,
            Err(why) => panic!("{why:?}"),
        }
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
        let event = self.events.peek().map(|Reverse((at, _))| *at);
        let timer = self.sender.poll_timeout().map(|at| at.max(self.now));
        let Some(next) = event.into_iter().chain(timer).min().filter(|at| *at < limit) else { return false };
        if next > self.now {
            (self.now, self.turns) = (next, 0);
        }
        self.turns += 1;
        assert!(self.turns < 10_000, "a busy loop at {:?}: {:#?}", self.now, self.sender.inspect());
        if event.is_some_and(|at| at <= self.now)
            && let Some(Reverse((_, serial))) = self.events.pop()
            && let Some(event) = self.pending.remove(&serial)
        {
            self.happen(event);
        }
        if self.sender.poll_timeout().is_some_and(|at| at <= self.now) {
            self.sender.handle_timeout(self.now());
        }
        self.look();
        true
    }

    /// What the loop does between events.
    fn look(&mut self) {
        self.sender.handle_wakeup(self.now());
        while let Some(action) = self.sender.poll_action() {
            match action {
                Action::Resolve { host, port } => {
                    self.look_ups += 1;
                    let address: Result<SocketAddr, _> = format!("{host}:{port}").parse();
                    let answer = address.map(|address| vec![address]).map_err(|_| "no such host".to_owned());
                    self.sender.handle_resolved(self.now(), &host, port, answer);
                }
                Action::Connect { connection, address } => {
                    let node = i32::from(address.port()) - 1000;
                    let latency = self.latency();
                    self.after(latency, Event::Connected(connection));
                    let link =
                        Link { node, sending: None, arrived: VecDeque::new(), busy_until: Duration::ZERO, hung: false };
                    self.links.insert(connection, link);
                }
                Action::Close { connection } => self.after(Duration::ZERO, Event::Closed(connection)),
            }
        }
        while let Some(transmit) = self.sender.poll_transmit() {
            let id = transmit.connection;
            let cut = self.chance(self.weather.cut_request);
            let latency = self.latency();
            let Some(link) = self.links.get_mut(&id) else { continue };
            assert!(link.sending.is_none(), "one transmit at a time");
            link.sending = Some(transmit);
            self.after(latency, if cut { Event::Closed(id) } else { Event::Taken(id) });
        }
        self.check_stats();
    }

    /// Every record is in one place, and the numbers that are published say which.
    fn check_stats(&self) {
        let stats = self.shared.stats();
        let (waiting, in_flight) = self.sender.held();
        let rings = self.sender.rings().fold(0, |sum, ring| sum + self.accumulator.census(ring).waiting);
        assert_eq!((stats.waiting, stats.in_flight), (waiting + rings, in_flight), "at {:?}: {stats:?}", self.now);
        assert!(stats.adds_up() && stats.accepted == self.accepted, "{} sent, {stats:?}", self.accepted);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connected(id) => match self.links.get(&id) {
                Some(link) if self.down.contains(&link.node) => self.close(id),
                Some(_) => self.sender.handle_connected(self.now(), id),
                None => {}
            },
            Event::Taken(id) => {
                let Some(transmit) = self.links.get_mut(&id).and_then(|link| link.sending.take()) else { return };
                let frame = self.bytes(&transmit);
                self.sender.handle_sent(self.now(), transmit);
                let latency = self.latency();
                if let Some(link) = self.links.get_mut(&id) {
                    link.arrived.push_back(frame);
                    self.after(latency, Event::Read(id));
                }
            }
            Event::Read(id) => self.read(id),
            Event::Answer(id, bytes) => {
                if self.links.contains_key(&id) {
                    // In two pieces, anywhere.
                    let at = (self.random.next() as usize) % bytes.len();
                    self.sender.handle_received(self.now(), id, &bytes[..at]);
                    self.sender.handle_received(self.now(), id, &bytes[at..]);
                }
            }
            Event::Closed(id) => self.close(id),
            Event::Restart(node) => {
                self.down.remove(&node);
                self.model.restart_node(node);
            }
        }
    }

    fn bytes(&self, transmit: &Transmit) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &transmit.pieces {
            match *piece {
                Piece::Head { start, len } => {
                    bytes.extend_from_slice(&transmit.head[start as usize..(start + len) as usize]);
                }
                Piece::Arena { offset, len } => bytes.extend_from_slice(self.accumulator.bytes(offset, len as usize)),
            }
        }
        let size = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(size as usize, bytes.len() - 4, "the frame's size");
        bytes.split_off(4)
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.remove(&id) {
            let error = io::Error::from(io::ErrorKind::ConnectionReset);
            self.sender.handle_closed(self.now(), id, &error, link.sending.into_iter().collect());
        }
    }

    fn read(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.hung || link.arrived.is_empty() {
            return;
        }
        if now < link.busy_until {
            let wait = link.busy_until - now;
            return self.after(wait, Event::Read(id));
        }
        let node = link.node;
        let Some(frame) = link.arrived.pop_front() else { return };
        let mut out = Vec::new();
        let unix_ms = self.now().unix_ms;
        let incoming = Incoming { node, connection: id.0, unix_ms, may_wait: false, frame: &frame };
        let reply = self.model.handle(&incoming, &mut out);
        if let Some(spoil) = &mut self.spoil {
            spoil_metadata(&frame, &mut out, spoil);
        }
        if self.chance(self.weather.restart) {
            return self.kill(node);
        }
        match reply {
            Reply::Answer { delay, mute } => {
                if self.chance(self.weather.cut_answer) {
                    return self.after(delay, Event::Closed(id));
                }
                let latency = self.latency();
                self.after(delay + latency, Event::Answer(id, out));
                if let Some(link) = self.links.get_mut(&id) {
                    link.busy_until = now + delay + mute;
                }
                self.after(delay + mute, Event::Read(id));
            }
            Reply::Nothing => self.after(Duration::ZERO, Event::Read(id)),
            Reply::Close => self.after(Duration::ZERO, Event::Closed(id)),
            Reply::Hang => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.hung = true;
                }
            }
            Reply::Wait(_) => panic!("nobody fetches here"),
        }
    }

    /// The node dies and comes back after a while.
    pub fn kill(&mut self, node: i32) {
        self.kill_for(node, Duration::from_millis(20));
    }

    /// The node dies and comes back after so long.
    pub fn kill_for(&mut self, node: i32, away: Duration) {
        self.restarts += 1;
        self.down.insert(node);
        let lost: Vec<ConnectionId> =
            self.links.iter().filter(|(_, link)| link.node == node).map(|(id, _)| *id).collect();
        for id in lost {
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

/// Changes the answer if it is one to Metadata.
fn spoil_metadata(request: &[u8], answer: &mut Vec<u8>, spoil: &mut dyn FnMut(&mut MetadataResponse)) {
    let (header, _) = server::request_header(request).unwrap();
    if header.api == ApiKey::METADATA {
        let at = server::shape::body_at(header.api.0, header.version);
        let mut response = metadata::decode_response(&answer[at..], header.version).unwrap();
        spoil(&mut response);
        answer.truncate(at);
        server::metadata::encode_response(answer, header.version, &response);
        server::end_response(answer, 0);
    }
}
