//! One sender, two brokers that may say anything, and a network that may do anything, step by step as the input says:
//! the machine does not panic and does not spin, every record has its outcome once `delivery.timeout.ms` is over, and
//! all memory comes back once the connections are gone. As long as only the network misbehaves, outcomes are true.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::input::Input;
use crate::accumulator::{Accumulator, AccumulatorConfig, Attach};
use crate::completion::Delivery;
use crate::config::{Acks, ProducerConfig};
use crate::error::Written;
use crate::sender::transmit::{Action, ConnectionId, Now, Piece, Transmit};
use crate::sender::turn::{self, turn};
use crate::sender::{Command, Sender, Shared, Ticket};
use crate::testing::{BrokerModel, BrokerOptions, Fault, Incoming, Reply, TopicOptions};
use crate::wire::api_versions::{ApiRange, ApiVersionsResponse};
use crate::wire::error_code::ErrorCode;
use crate::wire::header::ApiKey;
use crate::wire::init_producer_id::InitProducerIdResponse;
use crate::wire::metadata::{Broker, MetadataResponse, Partition, Topic};
use crate::wire::produce::{NodeEndpoint, PartitionAnswer, ProduceTail};
use crate::wire::record::Fields;
use crate::wire::server;

const START_MS: i64 = 1_700_000_000_000;
const MS: Duration = Duration::from_millis(1);
const TOPICS: [&str; 2] = ["t", "u"];
const FIRST_PORT: u16 = 1000;
const MEMORY: usize = 128 << 10;
const DELIVERY: Duration = Duration::from_millis(600);
const REQUEST: Duration = Duration::from_millis(250);
/// Events at one point in time: more is a busy loop.
const EVENTS_MAX: u32 = 2_000;

/// See the module.
pub fn connection(data: &[u8]) {
    run(data);
}

/// How many records were delivered, and how many failed.
pub(super) fn run(data: &[u8]) -> [usize; 2] {
    let mut input = Input(data);
    let mut world = World::new(&mut input);
    let mut steps = 0;
    while !input.is_empty() && steps < 300 {
        steps += 1;
        world.step(&mut input);
        world.look();
    }
    world.end()
}

/// One connection as the driver and the broker have it.
struct Link {
    node: i32,
    connected: bool,
    /// The sender asked for its end.
    closing: bool,
    /// With the driver, not yet with the kernel.
    sending: Option<Transmit>,
    /// Requests at the broker that it has not worked on.
    arrived: VecDeque<Vec<u8>>,
    /// What the broker has sent and the sender has not read.
    answers: Vec<u8>,
}

struct World {
    sender: Sender,
    shared: Arc<Shared>,
    accumulator: Arc<Accumulator>,
    model: BrokerModel,
    fault: Arc<AtomicU8>,
    now: Duration,
    links: BTreeMap<ConnectionId, Link>,
    names: Vec<(String, u16)>,
    /// What the sender asked for in this turn.
    asked: u32,
    /// Held by the caller of the last warm-up.
    warm_up: Arc<Ticket>,
    sent: Vec<Record>,
    /// Brokers remember everything and say what is true, and nobody changes a byte.
    honest: bool,
    idempotent: bool,
}

struct Record {
    topic: usize,
    partition: u32,
    value: Vec<u8>,
    delivery: Delivery,
}

impl turn::World for World {
    type Machine = Sender;
    type Error = Infallible;

    fn machine(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// What happens is input, and reported at once.
    fn wait(&mut self) -> Result<Now, Infallible> {
        Ok(self.now())
    }

    fn awake(&mut self) {}

    fn act(&mut self, action: Action) {
        self.asked += 1;
        assert!(self.asked < EVENTS_MAX, "it asks without end: {action:?}");
        match action {
            Action::Resolve { host, port } => self.names.push((host, port)),
            Action::Connect { connection, address } => {
                let node = i32::from(address.port()) - i32::from(FIRST_PORT);
                let link = Link {
                    node,
                    connected: false,
                    closing: false,
                    sending: None,
                    arrived: VecDeque::new(),
                    answers: Vec::new(),
                };
                assert!(self.links.insert(connection, link).is_none(), "an id is used again");
            }
            Action::Close { connection } => {
                // It may have ended in the same turn.
                if let Some(link) = self.links.get_mut(&connection) {
                    assert!(!std::mem::replace(&mut link.closing, true), "closed twice");
                }
            }
        }
    }

    fn send(&mut self, transmit: Transmit) {
        self.asked += 1;
        assert!(self.asked < EVENTS_MAX, "it sends without end");
        let link = self.links.get_mut(&transmit.connection).expect("a connection that was opened");
        assert!(link.connected && link.sending.is_none(), "one transmit at a time");
        link.sending = Some(transmit);
    }
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let acks = input.of(&[Acks::All, Acks::All, Acks::All, Acks::Leader, Acks::None]);
        let config = ProducerConfig::new()
            .bootstrap_servers("broker-0:1000,broker-1:1001")
            .acks(acks)
            .max_in_flight(input.of(&[5, 1, 2]))
            .linger(input.of(&[0, 5]) * MS)
            .batch_size(input.of(&[16_384, 1, 500]))
            .buffer_memory(MEMORY)
            .request_timeout(REQUEST)
            .delivery_timeout(DELIVERY)
            .retry_backoff(50 * MS, 200 * MS)
            .reconnect_backoff(100 * MS, 200 * MS)
            .set("socket.connection.setup.timeout.ms", "200")
            .set("connections.max.idle.ms", input.of(&["-1", "400"]))
            .set("metadata.max.age.ms", input.of(&["300000", "150"]))
            .validate()
            .unwrap();
        let topic =
            TopicOptions { partitions: 2, max_message_bytes: input.of(&[1 << 20, 700]), ..TopicOptions::default() };
        let fault = Arc::new(AtomicU8::new(0));
        let next = fault.clone();
        let options = BrokerOptions {
            brokers: 2,
            topic,
            produce_max_version: 3 + input.below(11) as i16,
            ..BrokerOptions::default()
        };
        let options = options.on_produce(move |_| self::fault(next.swap(0, Ordering::Relaxed)));
        let address = |node| SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + node));
        let (accumulator, drain) = Accumulator::new(AccumulatorConfig {
            buffer_memory: config.buffer_memory,
            batch_size: config.batch_size as usize,
            max_request_size: config.max_request_size as usize,
            slots: 8,
        })
        .unwrap();
        let idempotent = config.idempotence;
        let shared = Arc::new(Shared::new(accumulator.clone(), Arc::new(config)));
        Self {
            sender: Sender::new(shared.clone(), drain, 7),
            shared,
            accumulator,
            model: BrokerModel::new(options, (0..2).map(address).collect()),
            fault,
            now: Duration::ZERO,
            links: BTreeMap::new(),
            names: Vec::new(),
            asked: 0,
            warm_up: Arc::default(),
            sent: Vec::new(),
            honest: true,
            idempotent,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix_ms: START_MS + self.now.as_millis() as i64 }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.u8();
        // Some records have less time than the others.
        let limit = NonZeroU32::new([0, 0, 0, 5, 0, 0, 30, 0, 0, 150, 0, 0, 700][usize::from(step / 20)]);
        match step % 20 {
            0..=2 => self.send(input, limit),
            3 => self.advance(input.of(&[1, 5, 20, 60, 120, 260, 700]) * MS),
            4 | 5 => self.go_well(1 + input.below(8)),
            6 => self.connect(input),
            7 => self.take(input),
            8 => self.work(input),
            9 => self.deliver(input),
            10 => self.damage(input),
            11 => self.babble(input),
            12 => self.cut(input),
            13 => self.resolve(input),
            14 => self.command(input),
            15 => self.answer_anything(input),
            16 | 17 => self.answer_falsely(input),
            18 => self.fault.store(input.u8(), Ordering::Relaxed),
            _ => self.change_cluster(input),
        }
    }

    fn send(&mut self, input: &mut Input<'_>, limit: Option<NonZeroU32>) {
        let at = input.below(2);
        let topic = self.shared.topic(TOPICS[at]);
        let partition = input.below(4) as u32;
        let Some(ring) = topic.partition(partition).filter(|_| partition < topic.count()).cloned() else {
            return self.shared.want(&topic);
        };
        let mut value = format!("{:06}", self.sent.len()).into_bytes();
        value.resize(value.len() + input.of(&[0, 10, 100, 900, 3_000, 20_000]), b'.');
        let fields = Fields { key: None, value: Some(&value), headers: &[] };
        if let Ok(appended) = self.accumulator.append(&ring, &fields, None, Attach::Delivery, true, limit) {
            let delivery = appended.delivery.unwrap();
            self.sent.push(Record { topic: at, partition, value, delivery });
        }
    }

    /// A turn, besides what was reported to the sender before.
    fn look(&mut self) {
        self.asked = 0;
        let Ok(()) = turn(self);
    }

    /// Lets so much time go by.
    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        self.look();
        let mut events = 0;
        loop {
            self.close_what_is_asked();
            let Some(at) = self.sender.poll_timeout().filter(|at| *at <= until) else { break };
            if at > self.now {
                self.check_timers();
                (self.now, events) = (at, 0);
            }
            events += 1;
            assert!(events < EVENTS_MAX, "a busy loop at {:?}: {:?}", self.now, self.sender);
            self.look();
        }
        self.check_timers();
        self.now = until;
        self.look();
    }

    /// Before time goes by: whatever waits, something will wake it.
    fn check_timers(&self) {
        let untimed = self.sender.untimed();
        assert!(untimed.is_empty(), "at {:?}, and nothing will wake it: {untimed:#?}", self.now);
    }

    fn close_what_is_asked(&mut self) {
        while let Some(id) = self.links.iter().find(|(_, link)| link.closing).map(|(id, _)| *id) {
            self.close(id);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.remove(&id) {
            let error = io::Error::from(io::ErrorKind::ConnectionReset);
            self.sender.handle_closed(self.now(), id, &error, link.sending.into_iter().collect());
            self.look();
        }
    }

    /// One of the links for which something can be done.
    fn choose(&self, input: &mut Input<'_>, wanted: impl Fn(&Link) -> bool) -> Option<ConnectionId> {
        let ids: Vec<_> = self.links.iter().filter(|(_, link)| wanted(link)).map(|(id, _)| *id).collect();
        (!ids.is_empty()).then(|| input.of(&ids))
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        if let Some(id) = self.choose(input, |link| !link.connected) {
            self.connected(id);
        }
    }

    fn connected(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.closing) {
            link.connected = true;
            self.sender.handle_connected(self.now(), id);
        }
    }

    /// The kernel takes a transmit.
    fn take(&mut self, input: &mut Input<'_>) {
        if let Some(id) = self.choose(input, |link| link.sending.is_some()) {
            self.taken(id);
        }
    }

    fn taken(&mut self, id: ConnectionId) {
        let Some(transmit) = self.links.get_mut(&id).and_then(|link| link.sending.take()) else { return };
        let frame = self.frame(&transmit);
        self.sender.handle_sent(self.now(), transmit);
        if let Some(link) = self.links.get_mut(&id) {
            link.arrived.push_back(frame);
        }
    }

    fn frame(&self, transmit: &Transmit) -> Vec<u8> {
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

    /// A broker works on its next request.
    fn work(&mut self, input: &mut Input<'_>) {
        if let Some(id) = self.choose(input, |link| !link.arrived.is_empty()) {
            self.worked(id);
        }
    }

    fn worked(&mut self, id: ConnectionId) {
        let unix_ms = self.now().unix_ms;
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(frame) = link.arrived.pop_front() else { return };
        let incoming = Incoming { node: link.node, connection: id.0, unix_ms, may_wait: false, frame: &frame };
        match self.model.handle(&incoming, &mut link.answers) {
            Reply::Answer { .. } | Reply::Nothing | Reply::Hang => {}
            Reply::Close => self.close(id),
            Reply::Wait(_) => panic!("nobody fetches here"),
        }
    }

    /// Some of the answers reach the sender.
    fn deliver(&mut self, input: &mut Input<'_>) {
        let Some(id) = self.choose(input, |link| !link.answers.is_empty()) else { return };
        let count = usize::from(input.u8()) + 1;
        self.delivered(id, if count > 200 { usize::MAX } else { count });
    }

    fn delivered(&mut self, id: ConnectionId, count: usize) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&id) else { return };
        let bytes: Vec<u8> = link.answers.drain(..count.min(link.answers.len())).collect();
        self.sender.handle_received(now, id, &bytes);
    }

    /// A byte of an answer is changed on its way.
    fn damage(&mut self, input: &mut Input<'_>) {
        let Some(id) = self.choose(input, |link| !link.answers.is_empty()) else { return };
        let (at, byte) = (usize::from(input.u8()), input.u8());
        self.honest = false;
        if let Some(link) = self.links.get_mut(&id) {
            let at = at % link.answers.len();
            link.answers[at] = byte;
        }
    }

    /// Anything reaches the sender.
    fn babble(&mut self, input: &mut Input<'_>) {
        let Some(id) = self.choose(input, |link| link.connected) else { return };
        let len = input.below(64);
        self.honest = false;
        self.sender.handle_received(self.now(), id, input.bytes(len));
    }

    /// A connection ends: the broker's doing, or ours that is only now over.
    fn cut(&mut self, input: &mut Input<'_>) {
        if let Some(id) = self.choose(input, |_| true) {
            self.close(id);
        }
    }

    fn resolve(&mut self, input: &mut Input<'_>) {
        if self.names.is_empty() {
            return;
        }
        let (host, port) = self.names.remove(input.below(self.names.len().min(256)));
        let answer = match input.below(8) {
            6 => Err("no such host".to_owned()),
            7 => Ok(Vec::new()),
            _ => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
        };
        self.sender.handle_resolved(self.now(), &host, port, answer);
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let topic = self.shared.topic(input.of(&TOPICS));
        match input.below(3) {
            0 => self.shared.command(Command::Flush(Arc::default())),
            1 => {
                self.warm_up = Arc::default();
                self.shared.command(Command::WarmUp(topic, self.warm_up.clone()));
            }
            _ => self.shared.want(&topic),
        }
    }

    /// Everything goes well for so many rounds.
    fn go_well(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for (host, port) in std::mem::take(&mut self.names) {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                self.sender.handle_resolved(self.now(), &host, port, Ok(vec![address]));
            }
            self.look();
            let ids: Vec<_> = self.links.keys().copied().collect();
            for id in ids {
                if self.links.get(&id).is_some_and(|link| !link.connected) {
                    self.connected(id);
                }
                self.look();
                self.taken(id);
                self.worked(id);
                self.delivered(id, usize::MAX);
                self.look();
            }
        }
    }

    /// A request out of the broker's hands, for somebody else to answer: its link, API, version, correlation id, body.
    fn steal(&mut self, input: &mut Input<'_>) -> Option<(ConnectionId, ApiKey, i16, i32, Vec<u8>)> {
        let id = self.choose(input, |link| !link.arrived.is_empty())?;
        self.honest = false;
        let frame = self.links.get_mut(&id)?.arrived.pop_front()?;
        let (header, body) = server::request_header(&frame).unwrap();
        Some((id, header.api, header.version, header.correlation_id, body.to_vec()))
    }

    fn reply(&mut self, id: ConnectionId, api: ApiKey, version: i16, correlation: i32, body: &[u8]) {
        if let Some(link) = self.links.get_mut(&id) {
            let start = server::begin_response(&mut link.answers, api, version, correlation);
            link.answers.extend_from_slice(body);
            server::end_response(&mut link.answers, start);
        }
    }

    /// The right frame around any bytes.
    fn answer_anything(&mut self, input: &mut Input<'_>) {
        let Some((id, api, version, correlation, _)) = self.steal(input) else { return };
        let len = input.below(128);
        self.reply(id, api, version, correlation, input.bytes(len));
    }

    /// An answer in the right form that says anything.
    fn answer_falsely(&mut self, input: &mut Input<'_>) {
        let Some((id, api, version, correlation, request)) = self.steal(input) else { return };
        let mut body = Vec::new();
        match api {
            ApiKey::PRODUCE => false_produce(input, version, &request, &mut body),
            ApiKey::METADATA => server::metadata::encode_response(&mut body, version, &false_metadata(input, version)),
            ApiKey::INIT_PRODUCER_ID => {
                let response = InitProducerIdResponse {
                    throttle_ms: throttle(input),
                    error: error(input),
                    producer_id: input.of(&[0, 1, 7, i64::MAX, -1, i64::MIN]),
                    epoch: input.of(&[0, 1, i16::MAX, i16::MAX - 1, -1, i16::MIN]),
                };
                server::init_producer_id::encode_response(&mut body, version, &response);
            }
            _ => {
                let mut range = |key| ApiRange { key, min: i16::from(input.u8() % 4), max: i16::from(input.u8() % 16) };
                let apis = vec![range(0), range(3), range(22), range(18)];
                let response = ApiVersionsResponse { error: error(input), apis, throttle_ms: throttle(input) };
                let version = if response.error == ErrorCode::UNSUPPORTED_VERSION { 0 } else { version };
                server::api_versions::encode_response(&mut body, version, &response);
            }
        }
        self.reply(id, api, version, correlation, &body);
    }

    fn change_cluster(&mut self, input: &mut Input<'_>) {
        let (topic, partition) = (input.of(&TOPICS), input.below(2) as i32);
        match input.below(4) {
            3 => {
                // It forgets all but the last batch.
                self.honest = false;
                self.model.restart_node(partition);
            }
            node => {
                self.model.move_leader(topic, partition, node as i32 - 1);
            }
        }
    }

    /// Nobody does anything any more but time: every record has its outcome when its time is over, the memory is back
    /// when the connections are gone, and a close comes to its end.
    fn end(mut self) -> [usize; 2] {
        self.advance(DELIVERY + 100 * MS);
        let waiting = self.sent.iter().filter(|record| record.delivery.try_result().is_none()).count();
        assert_eq!(waiting, 0, "records of {} without an outcome", self.sent.len());
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            self.close(id);
        }
        self.advance(MS);
        assert_eq!(self.accumulator.free(), MEMORY, "memory is lost");
        if self.honest && self.idempotent {
            self.check_log();
        }
        self.shared.command(Command::Close(10 * MS));
        self.advance(20 * MS);
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            self.close(id);
        }
        assert!(self.sender.is_closed() && self.shared.report().is_some_and(|report| report.is_clean()));
        let delivered = self.sent.iter().filter(|record| record.delivery.try_result().is_some_and(|done| done.is_ok()));
        let delivered = delivered.count();
        [delivered, self.sent.len() - delivered]
    }

    /// What was said of each record is true of the log.
    fn check_log(&self) {
        let logs: Vec<Vec<_>> = (0..4).map(|at| self.model.records(TOPICS[at / 2], (at % 2) as i32)).collect();
        for (number, record) in self.sent.iter().enumerate() {
            let log = &logs[record.topic * 2 + record.partition as usize];
            let times = log.iter().filter(|stored| stored.value.as_ref() == Some(&record.value)).count();
            match record.delivery.try_result() {
                Some(Ok(_)) => assert_eq!(times, 1, "{number} was acknowledged"),
                Some(Err(error)) if error.written() == Written::No => assert_eq!(times, 0, "{number}: {error}"),
                Some(Err(error)) => assert!(times <= 1, "{number} is there {times} times: {error}"),
                None => {}
            }
        }
        for log in logs {
            assert!(log.is_sorted_by(|a, b| a.value < b.value), "out of order");
        }
    }
}

fn fault(choice: u8) -> Fault {
    const ERRORS: [ErrorCode; 8] = [
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::CORRUPT_MESSAGE,
        ErrorCode::INVALID_RECORD,
        ErrorCode::MESSAGE_TOO_LARGE,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::INVALID_RECORD,
    ];
    match choice % 16 {
        at @ 1..=8 => Fault::Error(ERRORS[usize::from(at) - 1]),
        9 => Fault::StoredThenError(ErrorCode::REQUEST_TIMED_OUT),
        10 => Fault::StoredThenError(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        11 => Fault::CloseBefore,
        12 => Fault::CloseAfter,
        13 => Fault::HangBefore,
        14 => Fault::HangAfter,
        15 => Fault::Throttle(30 * MS),
        _ => Fault::None,
    }
}

fn error(input: &mut Input<'_>) -> ErrorCode {
    match input.u8() {
        0..128 => ErrorCode::NONE,
        // The codes that mean something, -1 included, and the one that a version is refused with.
        code => ErrorCode(i16::from(code) - 129),
    }
}

fn throttle(input: &mut Input<'_>) -> i32 {
    input.of(&[0, 0, 0, 0, 10, 500, i32::MAX, -1, i32::MIN])
}

fn false_metadata(input: &mut Input<'_>, version: i16) -> MetadataResponse {
    let broker = |input: &mut Input<'_>| Broker {
        node_id: input.of(&[0, 1, 2, -1, i32::MAX]),
        host: input.of(&["broker-0", "broker-1", ""]).to_owned(),
        port: input.of(&[1000, 1001, 0, -1, 70_000]),
        rack: None,
    };
    let partition = |input: &mut Input<'_>| Partition {
        error: error(input),
        index: input.of(&[0, 1, 2, 3, -1, i32::MAX]),
        leader_id: input.of(&[0, 1, -1, 2, i32::MIN]),
        leader_epoch: if version >= 7 { input.of(&[0, 1, 5, -1, i32::MAX]) } else { -1 },
        replicas: 1,
        in_sync: 1,
    };
    let topic = |input: &mut Input<'_>| Topic {
        error: error(input),
        name: Some(input.of(&["t", "u", "stranger"]).to_owned()),
        id: [input.of(&[0, 1, 2]); 16],
        partitions: (0..input.below(6)).map(|_| partition(input)).collect(),
    };
    MetadataResponse {
        throttle_ms: throttle(input),
        brokers: (0..input.below(4)).map(|_| broker(input)).collect(),
        cluster_id: None,
        controller_id: 0,
        topics: (0..input.below(4)).map(|_| topic(input)).collect(),
        error: error(input),
    }
}

fn false_produce(input: &mut Input<'_>, version: i16, request: &[u8], out: &mut Vec<u8>) {
    let request = server::produce::decode_request(request, version).expect("what the sender writes can be read");
    let mut topics = Vec::new();
    for (topic, partitions) in request.topics {
        let mut answers = Vec::new();
        for partition in partitions {
            // Left out, or told twice, now and then.
            for _ in 0..input.of(&[1, 1, 1, 1, 1, 1, 0, 2]) {
                let index = if input.one_in(16) { input.i32() } else { partition.index };
                answers.push(PartitionAnswer {
                    topic,
                    index,
                    error: error(input),
                    base_offset: input.of(&[0, 1, 100, -1, i64::MAX, i64::MIN]),
                    log_append_time: input.of(&[-1, -1, START_MS, i64::MAX, i64::MIN]),
                    log_start_offset: 0,
                    record_errors: vec![],
                    error_message: None,
                    current_leader: input.one_in(3).then(|| (input.of(&[0, 1, 2, -1]), input.of(&[0, 1, 9, i32::MAX]))),
                });
            }
        }
        topics.push((topic, answers));
    }
    let endpoint = |input: &mut Input<'_>| NodeEndpoint {
        node_id: input.of(&[0, 1, 2]),
        host: "broker-0".to_owned(),
        port: input.of(&[1000, 1001, 0, -1]),
        rack: None,
    };
    let node_endpoints = (0..input.below(3)).map(|_| endpoint(input)).collect();
    server::produce::encode_response(
        out,
        version,
        &topics,
        &ProduceTail { throttle_ms: throttle(input), node_endpoints },
    );
}
