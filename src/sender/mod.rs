//! The sender as a state machine: no thread, no clock, no socket.
//!
//! `topic`, `shared`, `tally`, `outbox` are what it shares with other threads; `transmit` is what it shares with its driver.
//! `turn` says what is called when.
//! Of the machine itself: `drain` decides what leaves and packs requests, `pace` how large batches grow, `ack` reads the
//! answers, `knowledge` keeps what they say of a batch, `retry` sends again or gives up, `search` finds out which batches are
//! in the log, `split` sends in parts, `size_limit` sends less to a broker that may take less, `cut_out` without the records
//! at fault, `deadline` ends records before others of their batch, `hint` follows leaders that brokers name, `control` asks for metadata, `learn` takes over what the answers say, `lagging` judges whether they help, `identity`
//! gets the producer id, `peers` chooses whom to ask, `race` begins a second connection beside a slow one, `lanes` keeps
//! connections, `warm_up` makes them early, `watch` ends those that take too long, `health` tells people how it stands, `shutdown` ends it all.

mod ack;
mod backoff;
mod connection;
mod control;
mod cut_out;
mod deadline;
mod drain;
mod endpoint;
mod health;
mod hint;
mod idempotence;
mod identity;
mod in_flight;
#[cfg(feature = "testing")]
mod inspect;
mod knowledge;
mod lagging;
mod lanes;
mod learn;
mod outbox;
mod pace;
mod peers;
mod race;
mod retry;
mod search;
mod service;
mod shared;
mod shutdown;
mod size_limit;
mod split;
mod steps;
mod stranger;
mod tally;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod timers;
mod topic;
pub mod transmit;
pub mod turn;
#[cfg(feature = "testing")]
mod untimed;
mod warm_up;
mod watch;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::accumulator::Drain;
use crate::config::{Acks, ProducerConfig};
use crate::metadata::Cluster;
use backoff::Backoff;
#[cfg(not(feature = "testing"))]
use backoff::Random;
use connection::Connection;
use control::Control;
use deadline::Deadlines;
use endpoint::Endpoint;
use idempotence::Identity;
use in_flight::{Batch, Part, PartitionState};
use lanes::Node;
use outbox::OutboxTail;
use shutdown::{Closing, Flush};
use size_limit::SizeLimit;
use timers::{Armed, Timer, Timers};
use transmit::{Action, ConnectionId, Now, Transmit};
use warm_up::WarmUp;

#[cfg(feature = "testing")]
pub use backoff::Random;
pub use outbox::{Outbox, Report};
pub use shared::{Command, Life, Shared, Ticket};
#[cfg(feature = "testing")]
pub use steps::{Taken, take_counts};
pub use tally::Stats;
pub use topic::TopicShared;

/// Turns sealed batches into requests, and answers into results.
///
/// [`turn`](turn::turn) says what is called when.
pub struct Sender {
    config: Arc<ProducerConfig>,
    shared: Arc<Shared>,
    /// The rings' reading side.
    drain: Drain,
    now: Now,
    random: Random,
    timers: Timers,
    /// By the id that the accumulator gave the partition.
    partitions: Vec<PartitionState>,
    topics: Vec<TopicState>,
    topic_index: HashMap<Arc<str>, u32>,
    /// How many topics have no partitions known.
    unknown_topics: usize,
    cluster: Cluster,
    /// In order, so that the same events always have the same consequences.
    nodes: BTreeMap<i32, Node>,
    /// Nodes with partitions to be served.
    waiting_nodes: Vec<i32>,
    /// Nodes that may take smaller requests only. Empty while nothing is suspected.
    size_limits: BTreeMap<i32, SizeLimit>,
    bootstrap: Vec<Endpoint>,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: u64,
    control: Control,
    identity: Identity,
    /// Partitions with something in the ring.
    active: Vec<u32>,
    /// Records sent with acks=0 of which the kernel has all bytes; good unless the connection turns out dead.
    unconfirmed: Vec<ack::Unconfirmed>,
    /// Records that have less time than others.
    deadlines: Deadlines,
    outbox: OutboxTail,
    flushes: Vec<Flush>,
    warm_ups: Vec<WarmUp>,
    closing: Option<Closing>,
    /// Everything is done and every connection gone: only the callback thread is waited for.
    parting: bool,
    /// Until then.
    parts_by: Duration,
    actions: VecDeque<Action>,
    transmits: VecDeque<Transmit>,
    /// Something was resolved since flushes were looked at.
    settled: bool,
    closed: bool,
    watching_waiters: bool,
    /// All active partitions were looked at last because callers waited for room; and the next time.
    relieved: Option<Duration>,
    relief_armed: Armed,
    /// What is told to people.
    feed: health::Feed,
    // Used again and again, so that a steady stream allocates nothing.
    ready: Vec<u32>,
    spare_transmits: Vec<Transmit>,
    spare_parts: Vec<Vec<Part>>,
    spare_batches: Vec<Vec<Option<Batch>>>,
    spare_answers: Vec<(Batch, ack::Answer)>,
}

/// What the sender knows of a topic besides its partitions' leaders.
#[derive(Debug)]
struct TopicState {
    shared: Arc<TopicShared>,
    /// Ids of its partitions, by index.
    partitions: Vec<u32>,
    /// The most bytes that a batch may have, header included: `max.request.size`, or less once a broker refused more.
    limit: u32,
    /// It stamps records itself (`message.timestamp.type=LogAppendTime`), as seen in answers to first attempts.
    log_append_time: bool,
    /// Somebody asked for it since the last metadata request.
    wanted: bool,
    /// A warm-up waits for its leaders.
    warming: bool,
    /// The last metadata request named it.
    named: bool,
    /// When somebody last asked for it, or something of it was last sent.
    last_used: Duration,
}

impl Sender {
    /// A sender for `shared`, draining `drain`; `seed` spreads its backoffs.
    pub fn new(shared: Arc<Shared>, drain: Drain, seed: u64) -> Self {
        let config = shared.config.clone();
        let bootstrap = config.bootstrap_servers.iter().map(|(host, port)| Endpoint::new(host, *port)).collect();
        let cluster = Cluster::new(config.acks == Acks::All);
        let identity = Identity::new(config.idempotence);
        if identity.ready() {
            shared.identified.store(true, Ordering::Release);
        }
        Self {
            config,
            shared,
            drain,
            now: Now::default(),
            random: Random::new(seed),
            timers: Timers::default(),
            partitions: Vec::new(),
            topics: Vec::new(),
            topic_index: HashMap::new(),
            unknown_topics: 0,
            cluster,
            nodes: BTreeMap::new(),
            waiting_nodes: Vec::new(),
            size_limits: BTreeMap::new(),
            bootstrap,
            connections: BTreeMap::new(),
            next_connection: 0,
            control: Control::default(),
            identity,
            active: Vec::new(),
            unconfirmed: Vec::new(),
            deadlines: Deadlines::default(),
            outbox: OutboxTail::default(),
            flushes: Vec::new(),
            warm_ups: Vec::new(),
            closing: None,
            parting: false,
            parts_by: Duration::MAX,
            actions: VecDeque::new(),
            transmits: VecDeque::new(),
            settled: false,
            closed: false,
            watching_waiters: false,
            relieved: None,
            relief_armed: Armed::default(),
            feed: health::Feed::default(),
            ready: Vec::new(),
            spare_transmits: Vec::new(),
            spare_parts: Vec::new(),
            spare_batches: Vec::new(),
            spare_answers: Vec::new(),
        }
    }

    /// Once per turn, after the events of that turn: commands, what writers made ready, what became possible.
    pub fn handle_wakeup(&mut self, now: Now) {
        self.at(now);
        self.confirm_unacknowledged();
        if let Some(outbox) = self.shared.outbox.get() {
            self.outbox.refill(outbox);
        }
        while let Some(command) = self.shared.commands.pop() {
            self.handle_command(command);
        }
        self.hear_deadlines();
        let mut ready = std::mem::take(&mut self.ready);
        self.drain.visit_ready(&mut ready);
        for id in ready.drain(..) {
            self.consider(id);
        }
        self.ready = ready;
        if self.shared.accumulator.under_pressure() {
            self.relieve();
        }
        self.watch_waiters();
        self.step_control();
        self.step_warm_ups();
        self.step_closing();
        self.settle_flushes();
        self.drain.wake_callers();
    }

    /// The name look-up that an [`Action::Resolve`] asked for has ended.
    pub fn handle_resolved(&mut self, now: Now, host: &str, port: u16, answer: Result<Vec<SocketAddr>, String>) {
        self.at(now);
        if let Err(why) = &answer {
            self.shared.set_trouble(Some(format!("{host}:{port}: {why}")));
            self.note_unresolved(host, port, why);
            if self.control.connection.is_none() {
                self.control_failed();
            }
        }
        let backoff = self.reconnect_backoff();
        let nodes = self.nodes.values_mut().map(|node| &mut node.endpoint);
        for endpoint in self.bootstrap.iter_mut().chain(nodes) {
            if endpoint.host == host && endpoint.port == port {
                endpoint.resolved(now.monotonic, answer.clone(), backoff, &mut self.random);
            }
        }
        self.step_all_nodes();
        self.step_control();
        self.go_on_racing();
    }

    /// What is due by `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.at(now);
        while let Some(timer) = self.timers.due(now.monotonic) {
            match timer {
                Timer::Partition(id) => {
                    if let Some(partition) = self.partitions.get_mut(id as usize) {
                        partition.armed.fired(now.monotonic);
                        partition.growth_armed.fired(now.monotonic);
                        self.consider(id);
                    }
                }
                Timer::Connection(id) => self.check_connection(id),
                Timer::Node(id) => {
                    if let Some(node) = self.nodes.get_mut(&id) {
                        node.armed.fired(now.monotonic);
                        self.step_node(id);
                    }
                }
                Timer::Control => {
                    self.control.armed.fired(now.monotonic);
                    self.control.recovery_armed.fired(now.monotonic);
                    self.step_control();
                }
                Timer::Expiry(id) => {
                    if let Some(partition) = self.partitions.get_mut(id as usize) {
                        partition.expiry_armed.fired(now.monotonic);
                        self.consider(id);
                    }
                }
                Timer::Deadlines => self.expire_records(),
                Timer::Close => self.step_closing(),
                Timer::Pressure => self.relief_armed.fired(now.monotonic),
                Timer::Waiters => self.nudge_waiters(),
                Timer::Health => self.look_after_health(),
            }
        }
        self.settle_flushes();
    }

    fn at(&mut self, now: Now) {
        self.now = now;
        self.shared.accumulator.clock.store(now.unix_ms, Ordering::Relaxed);
    }

    /// Something to do for the driver.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A request to write.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.transmits.is_empty() {
            self.pack();
        }
        self.transmits.pop_front()
    }

    /// When `handle_timeout` is due, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.unconfirmed.is_empty() { self.timers.next() } else { Some(self.now.monotonic) }
    }

    /// Everything is done, every connection gone, and what there was to tell was told, or took too long: the thread may
    /// end.
    pub fn is_closed(&self) -> bool {
        self.parting && (self.shared.ending.callbacks_ended() || self.now.monotonic >= self.parts_by)
    }

    fn acks(&self) -> i16 {
        match self.config.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }

    fn retry_backoff(&self) -> Backoff {
        Backoff { base: self.config.retry_backoff, max: self.config.retry_backoff_max }
    }

    fn setup_backoff(&self) -> Backoff {
        Backoff { base: self.config.connection_setup_timeout, max: self.config.connection_setup_timeout_max }
    }

    fn reconnect_backoff(&self) -> Backoff {
        Backoff { base: self.config.reconnect_backoff, max: self.config.reconnect_backoff_max }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Only a panic on the way out leaves tickets here.
        self.drop_tickets();
        self.shared.tally.lost();
        self.shared.retire();
        if let Some(outbox) = self.shared.outbox.get() {
            self.outbox.hand_over(outbox);
        }
        self.shared.ending.end();
        self.shared.wake_everyone();
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (partitions, connections) = (self.partitions.len(), self.connections.len());
        f.debug_struct("Sender")
            .field("partitions", &partitions)
            .field("connections", &connections)
            .finish_non_exhaustive()
    }
}
