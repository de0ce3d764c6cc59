//! What the thread's loop drives: a machine without a clock, a socket or a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sender::Sender;
use crate::sender::transmit::{Action, ConnectionId, Now, Transmit};

/// A sans-IO machine: the sender, or a scripted one in tests. `handle_*` tell it what happened, `poll_*` ask what it
/// wants.
///
/// A turn of the loop calls, in this order: `handle_*` for each event, `handle_resolved` for each answer,
/// `handle_timeout` if its time has come, `handle_wakeup` once; then `poll_action` and `poll_transmit` until they are
/// empty, `is_closed`, `poll_timeout`.
pub trait Machine {
    /// A connection stands.
    fn handle_connected(&mut self, now: Now, connection: ConnectionId);
    /// The kernel has taken the whole transmit.
    fn handle_sent(&mut self, now: Now, transmit: Transmit);
    /// Bytes came in.
    fn handle_received(&mut self, now: Now, connection: ConnectionId, bytes: &[u8]);
    /// A connection ended; `unsent` never left whole (see [`Event::Closed`](super::Event::Closed)).
    fn handle_closed(&mut self, now: Now, connection: ConnectionId, reason: &io::Error, unsent: Vec<Transmit>);
    /// The answer to [`Action::Resolve`].
    fn handle_resolved(&mut self, now: Now, host: &str, port: u16, result: Result<Vec<SocketAddr>, String>);
    /// The time that [`poll_timeout`](Self::poll_timeout) named has come.
    fn handle_timeout(&mut self, now: Now);
    /// Look at the ready set and at commands: the doorbell may have rung.
    fn handle_wakeup(&mut self, now: Now);
    /// The next thing to be done for it.
    fn poll_action(&mut self) -> Option<Action>;
    /// The next request to be written.
    fn poll_transmit(&mut self) -> Option<Transmit>;
    /// When it wants [`handle_timeout`](Self::handle_timeout), in monotonic time; `None`: nothing is due.
    fn poll_timeout(&self) -> Option<Duration>;
    /// Whether its work is over and the thread may end.
    fn is_closed(&self) -> bool;
    /// The thread ends before its work was over: end everything outstanding as *possibly written*. The kernel holds
    /// nothing any more. The machine may be in any state that a panic left it in. True: not all has its end yet; to be called
    /// again, a moment later.
    fn abandon(&mut self) -> bool;
}

impl Machine for Sender {
    fn handle_connected(&mut self, now: Now, connection: ConnectionId) {
        self.handle_connected(now, connection);
    }

    fn handle_sent(&mut self, now: Now, transmit: Transmit) {
        self.handle_sent(now, transmit);
    }

    fn handle_received(&mut self, now: Now, connection: ConnectionId, bytes: &[u8]) {
        self.handle_received(now, connection, bytes);
    }

    fn handle_closed(&mut self, now: Now, connection: ConnectionId, reason: &io::Error, unsent: Vec<Transmit>) {
        self.handle_closed(now, connection, reason, unsent);
    }

    fn handle_resolved(&mut self, now: Now, host: &str, port: u16, result: Result<Vec<SocketAddr>, String>) {
        self.handle_resolved(now, host, port, result);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.handle_timeout(now);
    }

    fn handle_wakeup(&mut self, now: Now) {
        self.handle_wakeup(now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.poll_action()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.poll_timeout()
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn abandon(&mut self) -> bool {
        self.abandon()
    }
}
