//! One sender whose network is a table: who listens where, what names lead to, who answers what. Nothing takes time but
//! what the sender waits for, so every time that a test sees is the sender's own.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::accumulator::{Accumulator, AccumulatorConfig, Attach};
use crate::completion::Delivery;
use crate::config::ProducerConfig;
use crate::sender::transmit::{Action, ConnectionId, Now, Piece, Transmit};
use crate::sender::turn::{World, turn};
use crate::sender::{Sender, Shared, TopicShared};
use crate::testing::{BrokerModel, BrokerOptions, Incoming, Reply};
use crate::wire::header::ApiKey;
use crate::wire::metadata::{self, MetadataResponse};
use crate::wire::record::Fields;
use crate::wire::server;

/// Who is at an address. None at all: it refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// A broker.
    Node(i32),
    /// What swallows every packet.
    Silence,
}

/// A request that a broker got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub at: Duration,
    pub node: i32,
    pub api: ApiKey,
    pub bytes: usize,
}

/// What the sender hears of in its next turn.
enum Event {
    Resolved(String, u16, Result<Vec<SocketAddr>, String>),
    Connected(ConnectionId),
    Sent(Transmit),
    Received(ConnectionId, Vec<u8>),
    Closed(ConnectionId, io::ErrorKind),
}

type Spoil = Box<dyn FnMut(i32, &mut MetadataResponse)>;

pub struct Stage {
    pub sender: Sender,
    pub shared: Arc<Shared>,
    pub accumulator: Arc<Accumulator>,
    pub model: BrokerModel,
    pub now: Duration,
    /// What names lead to.
    pub names: HashMap<String, Vec<SocketAddr>>,
    pub hosts: HashMap<SocketAddr, Host>,
    /// Names of which the resolver never tells anything.
    pub unresolved: HashSet<String>,
    /// Requests that are never answered.
    pub mute: HashSet<(i32, ApiKey)>,
    /// So long after its request an answer to Produce comes, if any time.
    pub produce_takes: Duration,
    /// That is a broker's time, which it has for one request after the other; else it is the way's.
    pub one_by_one: bool,
    /// Changes metadata answers.
    pub spoil: Option<Spoil>,
    /// Names that were looked up, and when.
    pub look_ups: Vec<(Duration, String)>,
    /// Connections that were begun, and when.
    pub connects: Vec<(Duration, SocketAddr)>,
    pub asked: Vec<Asked>,
    /// Other threads append: what the sender has not looked at yet is no finding.
    pub shared_with_writers: bool,
    links: BTreeMap<ConnectionId, SocketAddr>,
    events: VecDeque<Event>,
    /// Requests without an answer.
    muted: Vec<(ConnectionId, ApiKey)>,
    /// Answers to Produce on their way, and when they arrive.
    coming: VecDeque<(Duration, ConnectionId, Vec<u8>)>,
}

pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Stage {
    /// Brokers at 127.0.0.1 from port 1000 on; `servers` is what the client is told.
    pub fn new(options: BrokerOptions, config: ProducerConfig, servers: &str) -> Self {
        let addresses: Vec<SocketAddr> = (0..options.brokers).map(|node| address(1000 + node as u16)).collect();
        let hosts = addresses.iter().zip(0..).map(|(at, node)| (*at, Host::Node(node))).collect();
        let config = config.bootstrap_servers(servers).validate().unwrap();
        let (accumulator, drain) = Accumulator::new(AccumulatorConfig {
            buffer_memory: config.buffer_memory,
            batch_size: config.batch_size as usize,
            max_request_size: config.max_request_size as usize,
            slots: 16,
        })
        .unwrap();
        let shared = Arc::new(Shared::new(accumulator.clone(), Arc::new(config)));
        Self {
            sender: Sender::new(shared.clone(), drain, 1),
            shared,
            accumulator,
            model: BrokerModel::new(options, addresses),
            now: Duration::ZERO,
            names: HashMap::new(),
            hosts,
            unresolved: HashSet::new(),
            mute: HashSet::new(),
            produce_takes: Duration::ZERO,
            one_by_one: false,
            spoil: None,
            look_ups: Vec::new(),
            connects: Vec::new(),
            asked: Vec::new(),
            shared_with_writers: false,
            links: BTreeMap::new(),
            events: VecDeque::new(),
            muted: Vec::new(),
            coming: VecDeque::new(),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix_ms: 1_700_000_000_000 + self.now.as_millis() as i64 }
    }

    /// Lets everything happen that happens within `time`.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        loop {
            let arrives = self.coming.front().map(|(at, ..)| *at);
            let Some(next) = self.sender.poll_timeout().into_iter().chain(arrives).min().filter(|next| *next <= end)
            else {
                break;
            };
            self.check_timers();
            self.now = self.now.max(next);
            self.settle();
        }
        self.check_timers();
        self.now = end;
        self.settle();
    }

    /// Whatever waits, something will wake it.
    fn check_timers(&self) {
        let untimed = self.sender.untimed();
        assert!(untimed.is_empty() || self.shared_with_writers, "at {:?}: {untimed:#?}", self.now);
    }

    /// What happens without time going by.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let Ok(()) = turn(self);
            if self.events.is_empty() {
                return;
            }
        }
        panic!("a busy loop at {:?}: {:?}", self.now, self.asked.last());
    }

    /// A broker handles the request and answers.
    fn answer(&mut self, id: ConnectionId, node: i32, frame: &[u8]) {
        let (header, _) = server::request_header(frame).unwrap();
        self.asked.push(Asked { at: self.now, node, api: header.api, bytes: frame.len() });
        if self.mute.contains(&(node, header.api)) {
            self.muted.push((id, header.api));
            return;
        }
        let unix_ms = self.now().unix_ms;
        let incoming = Incoming { node, connection: id.0, unix_ms, may_wait: false, frame };
        let mut answer = Vec::new();
        let reply = self.model.handle(&incoming, &mut answer);
        if let (ApiKey::METADATA, Some(spoil)) = (header.api, &mut self.spoil) {
            let at = server::shape::body_at(header.api.0, header.version);
            let mut response = metadata::decode_response(&answer[at..], header.version).unwrap();
            spoil(node, &mut response);
            answer.truncate(at);
            server::metadata::encode_response(&mut answer, header.version, &response);
            server::end_response(&mut answer, 0);
        }
        match reply {
            Reply::Answer { .. } if header.api == ApiKey::PRODUCE && !self.produce_takes.is_zero() => {
                let free_at = self.coming.back().filter(|_| self.one_by_one).map_or(self.now, |(at, ..)| *at);
                self.coming.push_back((free_at + self.produce_takes, id, answer));
            }
            Reply::Answer { .. } => self.events.push_back(Event::Received(id, answer)),
            Reply::Close => self.lose(id, io::ErrorKind::UnexpectedEof),
            _ => {}
        }
    }

    fn lose(&mut self, id: ConnectionId, kind: io::ErrorKind) {
        if self.links.remove(&id).is_some() {
            self.events.push_back(Event::Closed(id, kind));
        }
    }

    /// Nobody is there any more: every connection to these ends, and no other comes up.
    pub fn kill(&mut self, addresses: &[SocketAddr]) {
        self.hosts.retain(|at, _| !addresses.contains(at));
        self.cut(addresses);
    }

    /// Every connection to these ends.
    pub fn cut(&mut self, addresses: &[SocketAddr]) {
        let lost: Vec<_> = self.links.iter().filter(|(_, at)| addresses.contains(at)).map(|(id, _)| *id).collect();
        for id in lost {
            self.lose(id, io::ErrorKind::ConnectionReset);
        }
        self.settle();
    }

    /// Bytes in place of the answer that a muted request never got.
    pub fn answer_with(&mut self, api: ApiKey, bytes: &[u8]) {
        let (id, _) = *self.muted.iter().find(|(_, muted)| *muted == api).unwrap();
        self.events.push_back(Event::Received(id, bytes.to_vec()));
        self.settle();
    }

    /// The topic, once it is known.
    pub fn topic(&mut self, name: &str) -> Arc<TopicShared> {
        let topic = self.shared.topic(name);
        for _ in 0..1000 {
            if topic.count() > 0 {
                return topic;
            }
            self.shared.want(&topic);
            self.run(Duration::from_millis(10));
        }
        panic!("no metadata for {name}: {:?}", self.shared.trouble());
    }

    /// A record for one partition.
    pub fn send(&mut self, topic: &TopicShared, partition: u32) -> Delivery {
        self.try_send(topic, partition).unwrap()
    }

    /// The same, if there is room.
    pub fn try_send(&mut self, topic: &TopicShared, partition: u32) -> Option<Delivery> {
        self.try_send_value(topic, partition, b"value")
    }

    /// The same with another value.
    pub fn try_send_value(&mut self, topic: &TopicShared, partition: u32, value: &[u8]) -> Option<Delivery> {
        let ring = topic.partition(partition).unwrap().clone();
        let fields = Fields { key: None, value: Some(value), headers: &[] };
        self.accumulator.append(&ring, &fields, None, Attach::Delivery, true, None).ok()?.delivery
    }

    /// Where the connections lead that have not ended.
    pub fn open(&self) -> Vec<SocketAddr> {
        self.links.values().copied().collect()
    }

    /// How many requests of this API came since `since`.
    pub fn count(&self, api: ApiKey, since: Duration) -> usize {
        self.asked.iter().filter(|asked| asked.api == api && asked.at >= since).count()
    }
}

impl World for Stage {
    type Machine = Sender;
    type Error = Infallible;

    fn machine(&mut self) -> &mut Sender {
        &mut self.sender
    }

    fn wait(&mut self) -> Result<Now, Infallible> {
        while let Some((_, id, answer)) = self.coming.pop_front_if(|(at, ..)| *at <= self.now) {
            self.events.push_back(Event::Received(id, answer));
        }
        let now = self.now();
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Resolved(host, port, answer) => self.sender.handle_resolved(now, &host, port, answer),
                Event::Connected(id) => self.sender.handle_connected(now, id),
                Event::Sent(transmit) => self.sender.handle_sent(now, transmit),
                Event::Received(id, bytes) => self.sender.handle_received(now, id, &bytes),
                Event::Closed(id, kind) => self.sender.handle_closed(now, id, &kind.into(), Vec::new()),
            }
        }
        Ok(now)
    }

    fn awake(&mut self) {}

    fn act(&mut self, action: Action) {
        match action {
            Action::Resolve { host, port } => {
                self.look_ups.push((self.now, host.clone()));
                if self.unresolved.contains(&host) {
                    return;
                }
                let literal = format!("{host}:{port}").parse().map(|address| vec![address]);
                let answer = literal.or_else(|_| self.names.get(&host).cloned().ok_or("no such host".to_owned()));
                self.events.push_back(Event::Resolved(host, port, answer));
            }
            Action::Connect { connection, address } => {
                self.connects.push((self.now, address));
                self.links.insert(connection, address);
                match self.hosts.get(&address) {
                    Some(Host::Node(_)) => self.events.push_back(Event::Connected(connection)),
                    Some(Host::Silence) => {}
                    None => self.lose(connection, io::ErrorKind::ConnectionRefused),
                }
            }
            Action::Close { connection } => self.lose(connection, io::ErrorKind::ConnectionAborted),
        }
    }

    fn send(&mut self, transmit: Transmit) {
        let id = transmit.connection;
        let Some(Host::Node(node)) = self.links.get(&id).and_then(|at| self.hosts.get(at)).copied() else { return };
        let mut frame = Vec::new();
        for piece in &transmit.pieces {
            match *piece {
                Piece::Head { start, len } => {
                    frame.extend_from_slice(&transmit.head[start as usize..(start + len) as usize]);
                }
                Piece::Arena { offset, len } => frame.extend_from_slice(self.accumulator.bytes(offset, len as usize)),
            }
        }
        self.events.push_back(Event::Sent(transmit));
        self.answer(id, node, &frame.split_off(4));
    }
}
