//! A producer without threads: whoever holds it plays the sender's loop, the network and the callback thread, so that a
//! measurement has each part alone. `testing::internals` puts a broker in front of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Callbacks, Core, ProducerBuilder, Topic};
use crate::driver::callbacks;
use crate::error::ConfigError;
use crate::sender::transmit::{Action, ConnectionId, Now, Piece, Transmit};
use crate::sender::turn::{World, turn};
use crate::sender::{Command, Outbox, Sender};

/// What the wall clock says when the machine's time is zero, Unix ms.
const START_MS: i64 = 1_700_000_000_000;

/// See the module.
pub struct ByHand {
    core: Arc<Core>,
    sender: Sender,
    told: callbacks::Told,
    outbox: Arc<Outbox>,
    now: Duration,
    /// Begun in a turn, to be reported in the next one.
    begun: Vec<Action>,
    /// Of which the network has taken all bytes; the sender has yet to hear it.
    taken: VecDeque<Transmit>,
    /// To be taken.
    packed: VecDeque<Transmit>,
}

impl ByHand {
    /// A producer that knows nothing yet. Names are never looked up: bootstrap servers are addresses.
    pub fn new(builder: ProducerBuilder) -> Result<Self, ConfigError> {
        let (core, sender, told) = builder.assemble(1)?;
        let (outbox, _) = Outbox::new(told.sink.is_some());
        let _ = core.shared.outbox.set(outbox.clone());
        if told.listener.is_some() {
            core.shared.accumulator.tag_records();
        }
        // So that no callback starts a thread.
        *core.callbacks.lock().unwrap_or_else(PoisonError::into_inner) = Callbacks::Ended;
        let (begun, taken, packed) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Ok(Self { core, sender, told, outbox, now: Duration::ZERO, begun, taken, packed })
    }

    /// A handle for the callers' side, which is the real one. It must not wait: nobody would wake it.
    pub fn topic(&self, name: &str) -> Topic {
        let topic = self.core.shared.topic(name);
        self.core.shared.command(Command::Want(topic.clone()));
        Topic::new(self.core.clone(), topic)
    }

    /// Time goes by.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// What was accepted so far need not linger.
    pub fn flush(&self) {
        self.core.shared.command(Command::Flush(Arc::default()));
    }

    /// The sender's turn up to the system call: what is ready is sealed, drained, stamped and packed into requests.
    pub fn pack(&mut self) {
        let Ok(()) = turn(self);
    }

    /// The network takes the next request: its connection, and its bytes without the size.
    pub fn take_request(&mut self) -> Option<(u64, Vec<u8>)> {
        let transmit = self.packed.pop_front()?;
        let mut bytes = Vec::new();
        for piece in &transmit.pieces {
            match *piece {
                Piece::Head { start, len } => {
                    bytes.extend(transmit.head.iter().skip(start as usize).take(len as usize))
                }
                Piece::Arena { offset, len } => {
                    bytes.extend_from_slice(self.core.shared.accumulator.bytes(offset, len as usize));
                }
            }
        }
        let connection = transmit.connection.0;
        self.taken.push_back(transmit);
        Some((connection, bytes.split_off(4.min(bytes.len()))))
    }

    fn hear_of_sent(&mut self) {
        while let Some(transmit) = self.taken.pop_front() {
            self.sender.handle_sent(self.now(), transmit);
        }
    }

    /// The sender reads bytes of a broker's answer. Before that it hears that the requests are sent: what is not sent is
    /// not answered.
    pub fn receive(&mut self, connection: u64, bytes: &[u8]) {
        self.hear_of_sent();
        self.sender.handle_received(self.now(), ConnectionId(connection), bytes);
    }

    /// The callback thread's turn: listeners and callbacks are run, and their segments given back.
    pub fn call_back(&mut self) {
        while let Some(report) = self.outbox.try_take() {
            callbacks::carry_out(&self.core.shared, &mut self.told, report);
        }
    }

    /// A producer id is there, and nothing is accepted that is not done with.
    pub fn is_idle(&self) -> bool {
        let shared = &self.core.shared;
        shared.identified.load(std::sync::atomic::Ordering::Acquire)
            && self.taken.is_empty()
            && self.packed.is_empty()
            && shared.accumulator.free()
                == shared.config.buffer_memory / crate::accumulator::UNIT * crate::accumulator::UNIT
    }

    /// The machine's clock, Unix ms.
    pub fn unix_ms(&self) -> i64 {
        START_MS + self.now.as_millis() as i64
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix_ms: self.unix_ms() }
    }
}

impl World for ByHand {
    type Machine = Sender;
    type Error = Infallible;

    fn machine(&mut self) -> &mut Sender {
        &mut self.sender
    }

    fn wait(&mut self) -> Result<Now, Infallible> {
        self.hear_of_sent();
        let now = self.now();
        for action in std::mem::take(&mut self.begun) {
            match action {
                Action::Resolve { host, port } => {
                    let address = format!("{host}:{port}").parse::<SocketAddr>();
                    let answer = address.map(|address| vec![address]).map_err(|error| error.to_string());
                    self.sender.handle_resolved(now, &host, port, answer);
                }
                Action::Connect { connection, .. } => self.sender.handle_connected(now, connection),
                Action::Close { connection } => {
                    let reason = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
                    self.sender.handle_closed(now, connection, &reason, Vec::new());
                }
            }
        }
        Ok(now)
    }

    fn awake(&mut self) {}

    fn act(&mut self, action: Action) {
        self.begun.push(action);
    }

    fn send(&mut self, transmit: Transmit) {
        self.packed.push_back(transmit);
    }
}

impl std::fmt::Debug for ByHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByHand").field("now", &self.now).field("sender", &self.sender).finish_non_exhaustive()
    }
}
