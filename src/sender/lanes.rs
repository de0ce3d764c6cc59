//! Connections: opened towards brokers, negotiated, watched, and lost.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Sender;
use super::connection::{ANSWER_MAX, Asked, Cause, Connection, Event, Peer, Request, Role, State, Versions};
use super::endpoint::{Endpoint, Step};
use super::lagging::SLOW_SETUP;
use super::stranger;
use super::timers::{Armed, Timer};
use super::transmit::{Action, ConnectionId, Now, Piece, Transmit};
use crate::error::DeliveryErrorKind;
use crate::wire::api_versions;
use crate::wire::error_code::ErrorCode;
use crate::wire::frame::FRAME_MAX;
use crate::wire::header::{ApiKey, begin_request, end_request, response_header};

/// A throttle time from which on it is worth telling those who wait.
const THROTTLE_TOLD: Duration = Duration::from_secs(1);

/// A broker that leads partitions of ours.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The connection that its batches take.
    pub lane: Option<ConnectionId>,
    /// Others that are on their way to its place.
    pub rivals: Vec<ConnectionId>,
    /// Partitions to be served, in turn.
    pub ready: VecDeque<u32>,
    /// Its timer.
    pub armed: Armed,
    /// When people were last told that it may take smaller requests only.
    pub told_smaller: Option<Duration>,
}

impl Node {
    /// Not connected.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            endpoint: Endpoint::new(host, port),
            lane: None,
            rivals: Vec::new(),
            ready: VecDeque::new(),
            armed: Armed::default(),
            told_smaller: None,
        }
    }
}

impl Sender {
    /// Takes the next step towards a lane to this node, if it has none.
    pub(super) fn step_node(&mut self, id: i32) {
        if self.closed {
            return;
        }
        let now = self.now.monotonic;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.lane.is_some() {
            return;
        }
        match node.endpoint.step(now) {
            Step::Connect(address) => {
                let name = format!("{}:{} (broker {id})", node.endpoint.host, node.endpoint.port);
                let connection = self.connect(Role::Lane, Peer::Node(id), address, name);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.lane = Some(connection);
                }
            }
            Step::Resolve => {
                let (host, port) = (node.endpoint.host.clone(), node.endpoint.port);
                self.actions.push_back(Action::Resolve { host, port });
                node.armed.at(&mut self.timers, now + SLOW_SETUP, Timer::Node(id));
            }
            Step::Resolving(since) if now < since + SLOW_SETUP => {
                node.armed.at(&mut self.timers, since + SLOW_SETUP, Timer::Node(id));
            }
            Step::Resolving(_) => {
                // Its partitions may be led by another broker by now.
                if self.needs_news() {
                    self.want_metadata();
                }
            }
            Step::Wait(until) => node.armed.at(&mut self.timers, until, Timer::Node(id)),
        }
    }

    /// A look-up may have served several nodes.
    pub(super) fn step_all_nodes(&mut self) {
        let waiting: Vec<i32> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.lane.is_none() && !node.ready.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.step_node(id);
        }
    }

    /// Opens a connection.
    pub(super) fn connect(
        &mut self,
        role: Role,
        peer: Peer,
        address: std::net::SocketAddr,
        name: String,
    ) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let now = self.now.monotonic;
        let setup = self.setup_backoff();
        let mut random = self.random.clone();
        let timeout = self.endpoint(peer).map_or(setup.base, |endpoint| endpoint.setup_timeout(setup, &mut random));
        self.random = random;
        let delay = self.rival_delay(role, peer, timeout);
        let mut connection = Connection::new(role, (peer, address), name.into(), now, timeout);
        connection.rival_at = Some(now + delay);
        connection.armed.at(&mut self.timers, connection.next_look(now), Timer::Connection(id));
        self.connections.insert(id, connection);
        self.actions.push_back(Action::Connect { connection: id, address });
        id
    }

    /// TCP is up: ask for the versions first.
    pub fn handle_connected(&mut self, now: Now, id: ConnectionId) {
        self.at(now);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.on(Event::Connected) {
            self.expect_versions(id);
            self.ask_versions(id, api_versions::VERSION_MAX);
        }
    }

    fn ask_versions(&mut self, id: ConnectionId, version: i16) {
        self.ask(id, ApiKey::API_VERSIONS, version, Asked::ApiVersions { version }, |out| {
            api_versions::encode_request(out, version);
        });
    }

    /// Writes a request without batches.
    pub(super) fn ask(
        &mut self,
        id: ConnectionId,
        api: ApiKey,
        version: i16,
        asked: Asked,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut transmit = self.spare_transmits.pop().unwrap_or_default();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let correlation = connection.correlate();
        transmit.connection = id;
        let start = begin_request(&mut transmit.head, api, version, correlation, &self.config.client_id);
        body(&mut transmit.head);
        end_request(&mut transmit.head, start, 0);
        let bytes = transmit.head.len();
        transmit.pieces.push(Piece::Head { start: 0, len: bytes as u32 });
        connection
            .asked(self.now.monotonic, Request { correlation, asked, sent: false, bytes, at: self.now.monotonic });
        self.arm_connection(id);
        self.expect_answer(id);
        self.transmits.push_back(transmit);
    }

    /// The kernel has taken all of a transmit and reads none of it any more.
    pub fn handle_sent(&mut self, now: Now, transmit: Transmit) {
        self.at(now);
        let id = transmit.connection;
        self.recycle(transmit);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.sending = false;
        if let Some(request) = connection.unanswered.back_mut() {
            request.sent = true;
            if self.config.acks == crate::config::Acks::None && matches!(request.asked, Asked::Produce { .. }) {
                // Nothing will be answered.
                if let Some(request) = connection.unanswered.pop_back() {
                    connection.unanswered_bytes -= request.bytes;
                    self.hold_unacknowledged(id, request);
                    self.arm_connection(id);
                }
            }
        }
        self.read_frames(id);
        self.list_waiting_node(id);
    }

    /// A lane can take the next request: its node may have partitions waiting.
    pub(super) fn list_waiting_node(&mut self, id: ConnectionId) {
        if let Some(Connection { peer: Peer::Node(node), role: Role::Lane, .. }) = self.connections.get(&id) {
            let node = *node;
            if self.nodes.get(&node).is_some_and(|n| !n.ready.is_empty()) && !self.waiting_nodes.contains(&node) {
                self.waiting_nodes.push(node);
            }
        }
    }

    pub(super) fn recycle(&mut self, mut transmit: Transmit) {
        transmit.head.clear();
        transmit.pieces.clear();
        transmit.holds.drain(..).for_each(|hold| self.drain.let_go(hold));
        if self.spare_transmits.len() < 64 {
            self.spare_transmits.push(transmit);
        }
    }

    /// Bytes came in.
    pub fn handle_received(&mut self, now: Now, id: ConnectionId, bytes: &[u8]) {
        self.at(now);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if matches!(connection.state, State::Negotiating | State::Ready) {
            connection.frames.push(bytes);
            if connection.frames.buffered() > 4 + FRAME_MAX {
                return self.give_up(id, Cause::Broken, "it sends more than any answer has".into());
            }
            self.read_frames(id);
            self.list_waiting_node(id);
        }
    }

    /// Reads whole answers, but not before the kernel has let go of their requests: until then the batches' memory
    /// is not ours to give back.
    fn read_frames(&mut self, id: ConnectionId) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if !matches!(connection.state, State::Negotiating | State::Ready) {
                return;
            }
            if connection.unanswered.front().is_some_and(|request| !request.sent) {
                return;
            }
            let most = connection.unanswered.front().map_or(ANSWER_MAX, |request| request.asked.answer_max());
            let too_large = connection.frames.announced().is_some_and(|size| size > most as i32);
            let frame = match connection.frames.next() {
                Ok(Some(frame)) if !too_large => frame,
                Ok(None) if connection.unanswered.is_empty() && connection.frames.buffered() > 0 => {
                    return self.give_up(id, Cause::Broken, "it sends what was not asked".into());
                }
                Ok(None) if !too_large => return,
                _ => {
                    let why = stranger::describe(connection.frames.head(), most);
                    return self.give_up(id, Cause::Broken, why);
                }
            };
            if let Err(why) = self.read_answer(id, &frame) {
                self.give_up(id, Cause::Broken, why);
            }
        }
    }

    fn read_answer(&mut self, id: ConnectionId, frame: &[u8]) -> Result<(), String> {
        let now = self.now.monotonic;
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let Some(correlation) = frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) else {
            return Err("its answer is too short".into());
        };
        let request = connection.answered(now, correlation)?;
        let at = connection.next_end(self.config.request_timeout, self.config.connections_max_idle);
        connection.armed.at(&mut self.timers, at, Timer::Connection(id));
        if !self.size_limits.is_empty() && matches!(request.asked, Asked::Produce { .. }) {
            self.note_answered(id, request.bytes);
        }
        let words = |error| format!("its answer cannot be read: {error}");
        match request.asked {
            Asked::ApiVersions { version } => {
                let (_, body) = response_header(frame, ApiKey::API_VERSIONS, version).map_err(words)?;
                self.read_versions(id, version, body)
            }
            Asked::Metadata { version } => {
                let (_, body) = response_header(frame, ApiKey::METADATA, version).map_err(words)?;
                self.end_race(id);
                self.read_metadata(id, version, body)
            }
            Asked::InitProducerId { version } => {
                let (_, body) = response_header(frame, ApiKey::INIT_PRODUCER_ID, version).map_err(words)?;
                self.end_race(id);
                self.read_producer_id(id, version, body)
            }
            Asked::Produce { version, batches } => self.read_produce(id, version, batches, frame),
        }
    }

    fn read_versions(&mut self, id: ConnectionId, asked: i16, body: &[u8]) -> Result<(), String> {
        let response = api_versions::decode_response(body, asked).map_err(|error| {
            format!("its answer to ApiVersions cannot be read ({error}); is this a Kafka broker's port?")
        })?;
        if response.error == ErrorCode::UNSUPPORTED_VERSION && asked > 0 {
            let theirs = response.common_max(ApiKey::API_VERSIONS.0, 0, asked - 1).unwrap_or(0);
            self.ask_versions(id, theirs);
            return Ok(());
        }
        if response.error == ErrorCode::REBOOTSTRAP_REQUIRED {
            self.start_again("a broker asks for it (REBOOTSTRAP_REQUIRED)", true);
        }
        if response.error != ErrorCode::NONE {
            return Err(format!("it answers ApiVersions with {}", response.error));
        }
        let versions = Versions::negotiate(&response.apis)?;
        self.throttle(id, response.throttle_ms);
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.versions = versions;
        let (peer, address) = (connection.peer, connection.address);
        self.each_endpoint_at(peer, address, |endpoint| endpoint.no_identity = versions.init_producer_id.is_none());
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let Versions { produce, metadata, init_producer_id } = versions;
        tracing::debug!(connection = %connection.name, produce, metadata, init_producer_id, "agreed on versions");
        if !connection.on(Event::Versions) {
            return Ok(());
        }
        connection.negotiated = true;
        let (peer, role) = (connection.peer, connection.role);
        self.win(id);
        self.arm_connection(id);
        match (role, peer) {
            (Role::Lane, Peer::Node(node)) => self.list_node(node),
            _ => self.step_control(),
        }
        Ok(())
    }

    /// The connection gave an answer that was of use. Only that ends its broker's backoff: a peer may negotiate well
    /// and answer nothing else.
    pub(super) fn prove(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.proven, true) {
            let (peer, role) = (connection.peer, connection.role);
            if let Some(endpoint) = self.endpoint(peer) {
                endpoint.succeeded();
            }
            self.prove_control(id);
            self.note_proven(id);
            // Somebody may be waiting for the end of a backoff that is over now.
            match (role, peer) {
                (Role::Control, Peer::Node(node)) => self.list_node(node),
                (Role::Lane, _) => self.step_control(),
                _ => {}
            }
        }
    }

    /// The broker asks us to send nothing on this connection for so long (KIP-219). More than a record may take in all
    /// makes no difference to records, but would keep this connection useless for up to 25 days.
    pub(super) fn throttle(&mut self, id: ConnectionId, throttle_ms: i32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let time = Duration::from_millis(u64::try_from(throttle_ms).unwrap_or(0)).min(self.config.delivery_timeout);
        let until = self.now.monotonic + time;
        if !time.is_zero() && until > connection.throttled_until {
            (connection.throttled_until, connection.throttle_ms) = (until, throttle_ms);
            connection.armed.at(&mut self.timers, until, Timer::Connection(id));
            self.note_throttled(id);
            let Some(connection) = self.connections.get(&id) else { return };
            if connection.role == Role::Control {
                let (peer, address) = (connection.peer, connection.address);
                self.each_endpoint_at(peer, address, |endpoint| endpoint.spare_until = endpoint.spare_until.max(until));
            }
            let Some(connection) = self.connections.get(&id) else { return };
            if time >= THROTTLE_TOLD {
                self.shared.set_trouble(Some(format!("{}: {}", connection.name, connection.throttle_words())));
            }
        }
    }

    /// Every endpoint that is `peer`'s, or leads to the same `address`: a broker may be known by several names.
    pub(super) fn each_endpoint_at(
        &mut self,
        peer: Peer,
        address: std::net::SocketAddr,
        mut change: impl FnMut(&mut Endpoint),
    ) {
        let nodes = self.nodes.iter_mut().map(|(id, node)| (Peer::Node(*id), &mut node.endpoint));
        let bootstrap = self.bootstrap.iter_mut().enumerate().map(|(at, endpoint)| (Peer::Bootstrap(at), endpoint));
        for (of, endpoint) in nodes.chain(bootstrap) {
            if of == peer || endpoint.leads_to(address) {
                change(endpoint);
            }
        }
    }

    pub(super) fn endpoint(&mut self, peer: Peer) -> Option<&mut Endpoint> {
        match peer {
            Peer::Bootstrap(at) => self.bootstrap.get_mut(at),
            Peer::Node(id) => self.nodes.get_mut(&id).map(|node| &mut node.endpoint),
        }
    }

    /// Closes a connection of ours, for a reason.
    pub(super) fn give_up(&mut self, id: ConnectionId, cause: Cause, why: String) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.on(Event::Close) {
            tracing::debug!(connection = %connection.name, why, "closing a connection");
            connection.closed_because = Some((cause, why));
            self.actions.push_back(Action::Close { connection: id });
        }
    }

    /// The connection is gone and the kernel holds nothing of it: what was unanswered is sent again elsewhere.
    pub fn handle_closed(&mut self, now: Now, id: ConnectionId, reason: &io::Error, unsent: Vec<Transmit>) {
        self.at(now);
        let mut cut_off = !unsent.is_empty();
        for transmit in unsent {
            self.recycle(transmit);
        }
        // Not yet taken by the driver.
        let waiting = self.transmits.len();
        self.transmits.retain(|transmit| transmit.connection != id);
        let untouched = self.transmits.len() < waiting;
        cut_off |= untouched;
        let Some(mut connection) = self.connections.remove(&id) else { return };
        let ours = connection.closed_because.take();
        let begun = !untouched || connection.unanswered.front().is_some_and(|request| request.sent);
        let how_large = if ours.is_none() { self.note_end(&mut connection, begun) } else { String::new() };
        let cause = ours.as_ref().map(|(cause, _)| *cause);
        let timed_out = cause == Some(Cause::RequestTimeout);
        let no_fault = matches!(cause, Some(Cause::Idle | Cause::Replaced));
        let negotiating = connection.state == State::Negotiating;
        connection.on(Event::Closed);
        let why = ours.map(|(_, why)| why).unwrap_or_else(|| {
            if negotiating {
                let progress = connection.progress();
                format!("{reason} while versions were negotiated{progress}; is this a Kafka broker's port without TLS?")
            } else if reason.kind() == io::ErrorKind::ConnectionRefused {
                format!("{reason}; is the broker running, and is this its port?")
            } else {
                format!("{reason}{}{how_large}", connection.progress())
            }
        });
        let name = connection.name.clone();
        let trouble: Arc<str> = format!("{name}: {why}").into();
        let backoff = self.reconnect_backoff();
        let (peer, role) = (connection.peer, connection.role);
        match role {
            Role::Lane => drop(self.leave_place(role, peer, id)),
            Role::Control => {
                let of_use = connection.proven || cause == Some(Cause::Replaced);
                self.lose_control(id, peer, of_use, &trouble);
            }
        }
        let endpoint = match peer {
            Peer::Bootstrap(at) => self.bootstrap.get_mut(at),
            Peer::Node(id) => self.nodes.get_mut(&id).map(|node| &mut node.endpoint),
        };
        if no_fault {
            endpoint.into_iter().filter(|_| cause == Some(Cause::Idle)).for_each(Endpoint::forget);
        } else {
            tracing::debug!(connection = %name, why, "lost a connection");
            let (address, established) = (connection.address, connection.negotiated);
            if let Some(endpoint) = endpoint {
                endpoint.failed(now.monotonic, address, why.clone(), established, backoff, &mut self.random);
            }
            let long = timed_out || (!established && now.monotonic >= connection.setup_deadline);
            self.note_lost(peer, &name, &why, established, long);
            self.shared.set_trouble(Some(trouble.to_string()));
        }
        self.lose_unacknowledged(id, &trouble);
        let kind = if timed_out { DeliveryErrorKind::RequestTimedOut } else { DeliveryErrorKind::Disconnected };
        for request in connection.unanswered.drain(..) {
            match request.asked {
                // A frame that was cut off is not written.
                Asked::Produce { batches, .. } => {
                    self.lose_batches(batches, request.sent || !cut_off, kind, &trouble);
                }
                Asked::InitProducerId { .. } | Asked::Metadata { .. } | Asked::ApiVersions { .. } => {}
            }
        }
        if !no_fault {
            self.want_metadata();
            self.replace_contestant(role, peer);
        }
        if let (Role::Lane, Peer::Node(node)) = (role, peer)
            && self.nodes.get(&node).is_some_and(|node| !node.ready.is_empty())
        {
            self.step_node(node);
        }
        self.step_control();
        self.step_closing();
    }
}
