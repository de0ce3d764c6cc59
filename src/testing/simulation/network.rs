//! What happens on the way: connections, requests in pieces, answers in pieces, silence, and ends of all kinds.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::coverage::Sight;
use super::ledger::Frame;
use super::spoil;
use super::world::World;
use crate::sender::transmit::{ConnectionId, Piece, Transmit};
use crate::testing::{Incoming, Reply};

/// What happens at a time.
#[derive(Debug)]
pub enum Event {
    /// A name was looked up.
    Resolved(String, u16, Result<Vec<SocketAddr>, String>),
    Connected(ConnectionId),
    /// The kernel has taken the transmit or a part of it; when all, the request is on its way.
    Taken(ConnectionId),
    /// The broker reads this connection's next request, if it is done with the one before.
    Read(ConnectionId),
    /// Bytes reach the sender; `true`: the answer's last.
    Answer(ConnectionId, Vec<u8>, bool),
    /// The connection is gone.
    Closed(ConnectionId),
    Restart(i32),
    /// A request whose connection is gone reaches the broker.
    Late(i32, ConnectionId, Vec<u8>),
}

/// What else may go wrong on the way. Chances are in thousandths, of what is named.
#[derive(Clone, Copy, Debug, Default)]
pub struct Storm {
    /// Requests that the kernel takes in pieces.
    pub pieces: u64,
    /// Answers that come in pieces, at several times.
    pub drip: u64,
    /// Answers of which a part comes, and then the end.
    pub half_answer: u64,
    /// Connections on which requests vanish, from some request on.
    pub deaf: u64,
    /// Connections on which answers vanish, from some answer on.
    pub mute: u64,
    /// Messages that take long.
    pub slow: u64,
    /// Connections that are refused.
    pub refuse: u64,
    /// Connects that are never answered.
    pub silent: u64,
    /// Requests that arrive although their connection is gone.
    pub late: u64,
    /// Produce answers with their partitions in another order.
    pub shuffle: u64,
    /// Metadata answers that are out of date.
    pub stale: u64,
    /// Metadata answers with a partition that nobody leads.
    pub leaderless: u64,
    /// Producer ids that are refused, and with which code.
    pub identity: u64,
    pub identity_code: i16,
    /// The epoch that producer ids come with.
    pub epoch: i16,
}

pub struct Link {
    pub id: ConnectionId,
    pub node: i32,
    /// With the driver, not yet with the kernel.
    sending: Option<Transmit>,
    /// All of its bytes as they were handed over, and how many the kernel has taken.
    frame: Vec<u8>,
    taken: usize,
    /// Requests at the broker, not yet read.
    arrived: VecDeque<Vec<u8>>,
    /// The broker reads nothing before this time.
    busy_until: Duration,
    /// Nothing reaches the sender before this time: bytes do not overtake each other.
    quiet_until: Duration,
    hung: bool,
    deaf: bool,
    mute: bool,
    /// The sender asked for its end: it reads nothing more.
    pub closing: bool,
    /// The books' entries of requests without an answer, and of the one in `sending`.
    asked: VecDeque<Frame>,
    /// How many of them the broker has acted on.
    acted: usize,
}

impl Link {
    fn new(id: ConnectionId, node: i32) -> Self {
        Self {
            id,
            node,
            sending: None,
            frame: Vec::new(),
            taken: 0,
            arrived: VecDeque::new(),
            busy_until: Duration::ZERO,
            quiet_until: Duration::ZERO,
            hung: false,
            deaf: false,
            mute: false,
            closing: false,
            asked: VecDeque::new(),
            acted: 0,
        }
    }

    /// What has arrived at a node that dies is gone.
    pub fn give_back_arrived(&mut self) {
        self.arrived.clear();
    }
}

impl World {
    pub(super) fn connect(&mut self, id: ConnectionId, node: i32) {
        self.links.push(Link::new(id, node));
        let latency = self.latency();
        if self.chance(self.storm.refuse) {
            self.coverage.saw(Sight::ConnectRefused);
            self.after(latency, Event::Closed(id));
        } else if self.chance(self.storm.silent) {
            self.coverage.saw(Sight::ConnectSilent);
        } else {
            self.after(latency, Event::Connected(id));
        }
    }

    /// How long a message takes.
    fn way(&mut self) -> Duration {
        let latency = self.latency();
        if self.chance(self.storm.slow) {
            self.coverage.saw(Sight::SlowLink);
            return latency * 60;
        }
        latency
    }

    /// The driver gets a request.
    pub(super) fn hand(&mut self, transmit: Transmit) {
        let id = transmit.connection;
        let cut = self.chance(self.weather.cut_request);
        let latency = self.way();
        if self.link(id).is_none() {
            return;
        }
        let mut bytes = self.buffers.pop().unwrap_or_default();
        self.bytes(&transmit, &mut bytes);
        self.trace_bytes(&bytes);
        let frame = self.ledger.as_mut().map(|ledger| ledger.hand(&transmit, &self.accumulator));
        self.tell(|| format!("connection {} gets {}", id.0, frame.as_ref().map(Frame::words).unwrap_or_default()));
        let Some(link) = self.link(id) else { return };
        assert!(link.sending.is_none(), "one transmit at a time");
        link.sending = Some(transmit);
        link.taken = 0;
        let old = std::mem::replace(&mut link.frame, bytes);
        link.asked.extend(frame);
        self.buffers.push(old);
        if cut {
            self.coverage.saw(Sight::CutRequest);
        }
        self.after(latency, if cut { Event::Closed(id) } else { Event::Taken(id) });
    }

    fn trace_bytes(&mut self, bytes: &[u8]) {
        let now = self.now.as_nanos() as u64;
        self.trace =
            (self.trace.rotate_left(5) ^ u64::from(crc32c::crc32c(bytes)) ^ now).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Resolved(host, port, answer) => self.sender.handle_resolved(self.now(), &host, port, answer),
            Event::Connected(id) => match self.link(id).map(|link| link.node) {
                Some(node) if self.down.contains(&node) => self.close(id),
                Some(_) => self.sender.handle_connected(self.now(), id),
                None => {}
            },
            Event::Taken(id) => self.take(id),
            Event::Read(id) => self.read(id),
            Event::Answer(id, bytes, last) => self.deliver(id, bytes, last),
            Event::Closed(id) => self.close(id),
            Event::Restart(node) => {
                self.down.retain(|down| *down != node);
                self.model.restart_node(node);
            }
            Event::Late(node, id, frame) => self.arrive_late(node, id, frame),
        }
    }

    /// The kernel takes some of a request, or all that is left.
    fn take(&mut self, id: ConnectionId) {
        let pieces = self.chance(self.storm.pieces);
        let (draw, latency) = (self.random.next() as usize, self.way());
        let Some(link) = self.links.iter_mut().find(|link| link.id == id) else { return };
        let Some(transmit) = link.sending.take() else { return };
        let mut bytes = self.buffers.pop().unwrap_or_default();
        gather(&transmit, &self.accumulator, &mut bytes);
        assert!(bytes[link.taken..] == link.frame[link.taken..], "the bytes changed in the kernel's hands");
        let left = bytes.len() - link.taken;
        if pieces && left > 1 {
            link.taken += 1 + draw % (left - 1);
            link.sending = Some(transmit);
            self.buffers.push(bytes);
            self.coverage.saw(Sight::ShortWrite);
            return self.after(latency, Event::Taken(id));
        }
        bytes.drain(..4);
        if let (Some(ledger), Some(frame)) = (&mut self.ledger, link.asked.back_mut()) {
            ledger.whole(frame);
        }
        self.sender.handle_sent(self.now(), transmit);
        let latency = self.way();
        if self.chance(self.storm.deaf) {
            self.coverage.saw(Sight::DeafLink);
            if let Some(link) = self.link(id) {
                link.deaf = true;
            }
        }
        if let Some(link) = self.link(id).filter(|link| !link.deaf) {
            link.arrived.push_back(bytes);
            self.after(latency, Event::Read(id));
        }
    }

    fn bytes(&self, transmit: &Transmit, bytes: &mut Vec<u8>) {
        gather(transmit, &self.accumulator, bytes);
        let size = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(size as usize, bytes.len() - 4, "the frame's size");
    }

    /// Bytes reach the sender.
    fn deliver(&mut self, id: ConnectionId, bytes: Vec<u8>, last: bool) {
        if self.link(id).is_none_or(|link| link.closing) {
            return;
        }
        self.tell(|| format!("connection {} answers, {} bytes, last: {last}", id.0, bytes.len()));
        let Some(link) = self.link(id) else { return };
        let frame = if last {
            link.acted = link.acted.saturating_sub(1);
            link.asked.pop_front()
        } else {
            None
        };
        if let (Some(ledger), Some(frame)) = (&mut self.ledger, frame) {
            ledger.answered(frame);
        }
        // In two pieces, anywhere.
        let at = (self.random.next() as usize) % bytes.len();
        self.sender.handle_received(self.now(), id, &bytes[..at]);
        self.sender.handle_received(self.now(), id, &bytes[at..]);
        self.buffers.push(bytes);
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        let Some(at) = self.links.iter().position(|link| link.id == id) else { return };
        let mut link = self.links.remove(at);
        self.tell(|| format!("connection {} to broker {} ends", id.0, link.node));
        if let Some(ledger) = &mut self.ledger {
            link.asked.drain(..).for_each(|frame| ledger.lost(frame));
        }
        // What the broker's kernel has is not called back.
        let thaw = self.frozen.iter().find(|(node, _)| *node == link.node).map(|(_, until)| *until);
        for frame in link.arrived.drain(..) {
            if !link.hung && self.chance(self.storm.late) {
                let busy = link.busy_until.max(thaw.unwrap_or_default()).max(self.now);
                let more = Duration::from_micros(self.random.next() % 20_000);
                link.busy_until = busy + more;
                self.plan(busy + more, Event::Late(link.node, id, frame));
            }
        }
        let error = io::Error::from(io::ErrorKind::ConnectionReset);
        self.sender.handle_closed(self.now(), id, &error, link.sending.into_iter().collect());
        self.buffers.push(link.frame);
    }

    fn arrive_late(&mut self, node: i32, id: ConnectionId, frame: Vec<u8>) {
        if self.down.contains(&node) {
            return;
        }
        self.coverage.saw(Sight::LateCopy);
        let mut out = self.buffers.pop().unwrap_or_default();
        out.clear();
        self.carry_out(node, id, &frame, &mut out);
        self.buffers.push(out);
    }

    /// The broker's work, and what the oracle makes of it.
    fn carry_out(&mut self, node: i32, id: ConnectionId, frame: &[u8], out: &mut Vec<u8>) -> Reply {
        let unix_ms = self.unix_ms();
        let incoming = Incoming { node, connection: id.0, unix_ms, may_wait: false, frame };
        let reply = self.model.handle(&incoming, out);
        if let Some(deck) = self.deck.clone() {
            let mut sights = std::mem::take(&mut self.sights);
            let injected = deck.take(&mut sights);
            sights.drain(..).for_each(|sight| self.coverage.saw(sight));
            self.sights = sights;
            self.note_results(id, frame, out, injected);
        }
        reply
    }

    /// The books' entry of the request that the broker acts on next.
    pub(super) fn next_acted(&mut self, id: ConnectionId) -> Option<&mut Frame> {
        let link = self.link(id)?;
        let at = link.acted;
        link.asked.get_mut(at)
    }

    fn read(&mut self, id: ConnectionId) {
        let now = self.now;
        let frozen = &self.frozen;
        let Some(link) = self.links.iter_mut().find(|link| link.id == id) else { return };
        if link.hung || link.arrived.is_empty() {
            return;
        }
        let thaw = frozen.iter().find(|(node, _)| *node == link.node).map_or(Duration::ZERO, |(_, until)| *until);
        let free = link.busy_until.max(thaw);
        if now < free {
            return self.plan(free, Event::Read(id));
        }
        let node = link.node;
        let Some(frame) = link.arrived.pop_front() else { return };
        let mut out = self.buffers.pop().unwrap_or_default();
        out.clear();
        if frame.len() > self.model.options.socket_request_max_bytes {
            self.coverage.saw(Sight::RequestRefused);
        }
        let reply = self.carry_out(node, id, &frame, &mut out);
        if let Some(spoil) = &mut self.spoil {
            spoil::metadata(&frame, &mut out, spoil);
        }
        if !out.is_empty() {
            self.spoil_answer(&frame, &mut out);
        }
        self.buffers.push(frame);
        if self.chance(self.weather.restart) {
            self.coverage.saw(Sight::Restart);
            return self.kill(node);
        }
        match reply {
            Reply::Answer { delay, mute } => self.answer(id, out, delay, mute),
            Reply::Nothing => {
                if let Some(link) = self.link(id) {
                    link.asked.pop_front();
                }
                self.after(Duration::ZERO, Event::Read(id));
            }
            Reply::Close => {
                // It reads nothing more, late or not.
                if let Some(link) = self.link(id) {
                    link.hung = true;
                }
                self.after(Duration::ZERO, Event::Closed(id));
            }
            Reply::Hang => {
                if let Some(link) = self.link(id) {
                    link.hung = true;
                }
            }
            Reply::Wait(_) => panic!("nobody fetches here"),
        }
    }

    fn answer(&mut self, id: ConnectionId, out: Vec<u8>, delay: Duration, mute: Duration) {
        if self.chance(self.weather.cut_answer) {
            self.coverage.saw(Sight::CutAnswer);
            if let Some(link) = self.link(id) {
                link.hung = true;
            }
            return self.after(delay, Event::Closed(id));
        }
        if self.chance(self.storm.mute) {
            self.coverage.saw(Sight::MuteLink);
            if let Some(link) = self.link(id) {
                link.mute = true;
            }
        }
        let latency = self.way();
        let now = self.now;
        let Some(link) = self.link(id) else { return };
        link.busy_until = now + delay + mute;
        link.acted += 1;
        let mut at = (now + delay + latency).max(link.quiet_until);
        if !link.mute {
            at = self.plan_answer(id, out, at);
        }
        if let Some(link) = self.link(id) {
            link.quiet_until = at;
        }
        self.after(delay + mute, Event::Read(id));
    }

    /// Plans an answer's way, whole or in pieces; when its last byte arrives.
    fn plan_answer(&mut self, id: ConnectionId, out: Vec<u8>, mut at: Duration) -> Duration {
        if self.chance(self.storm.half_answer) {
            self.coverage.saw(Sight::HalfAnswer);
            let half = 1 + (self.random.next() as usize) % (out.len() - 1);
            self.plan(at, Event::Answer(id, out[..half].to_vec(), false));
            self.plan(at, Event::Closed(id));
            return at;
        }
        if self.chance(self.storm.drip) {
            self.coverage.saw(Sight::Drip);
            let mut from = 0;
            while out.len() - from > 1 && !self.random.next().is_multiple_of(4) {
                let to = from + 1 + (self.random.next() as usize) % (out.len() - from - 1);
                self.plan(at, Event::Answer(id, out[from..to].to_vec(), false));
                at += self.latency();
                from = to;
            }
            self.plan(at, Event::Answer(id, out[from..].to_vec(), true));
            return at;
        }
        self.plan(at, Event::Answer(id, out, true));
        at
    }

    /// The node stands still for a while: it reads nothing and answers nothing, and its connections stay.
    pub fn freeze(&mut self, node: i32, time: Duration) {
        self.frozen.retain(|(frozen, _)| *frozen != node);
        self.frozen.push((node, self.now + time));
    }
}

/// A request's bytes, where they lie now.
fn gather(transmit: &Transmit, accumulator: &crate::accumulator::Accumulator, bytes: &mut Vec<u8>) {
    bytes.clear();
    for piece in &transmit.pieces {
        match *piece {
            Piece::Head { start, len } => {
                bytes.extend_from_slice(&transmit.head[start as usize..(start + len) as usize]);
            }
            Piece::Arena { offset, len } => bytes.extend_from_slice(accumulator.bytes(offset, len as usize)),
        }
    }
}
