//! The sender's turn: the same over a driver, in the simulation, by hand and in fuzzing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Sender;
use super::transmit::{Action, ConnectionId, Now, Transmit};

/// What the sender runs in: a clock, a network, names and the doorbell.
pub trait World {
    /// What runs in it: a [`Sender`], or a script in tests.
    type Machine: Machine;
    /// Why no further turn is possible.
    type Error;

    /// The machine.
    fn machine(&mut self) -> &mut Self::Machine;

    /// Waits until something happens, the doorbell rings or [`Machine::poll_timeout`] has come. Reports what happened to
    /// the machine, by `handle_connected`, `handle_sent`, `handle_received`, `handle_closed` and `handle_resolved`, and
    /// returns the time.
    fn wait(&mut self) -> Result<Now, Self::Error>;

    /// The machine looks next, so what rings from now on asks for another look. What was published before a ring that
    /// this takes back is seen by that look.
    fn awake(&mut self);

    /// Begins what the machine asks for. It does not call the machine: the outcome belongs to a later [`wait`](Self::wait).
    fn act(&mut self, action: Action);

    /// Begins to write a request. It does not call the machine either.
    fn send(&mut self, transmit: Transmit);
}

/// One turn, in this order, with a time that never goes back:
///
/// 1. [`World::wait`]: what happened;
/// 2. [`Machine::handle_timeout`], if its time has come;
/// 3. [`World::awake`], then [`Machine::handle_wakeup`]: commands, and what writers made ready;
/// 4. [`Machine::poll_action`] until there is none: what the world is to do;
/// 5. [`Machine::poll_transmit`] until there is none: requests are packed, and written.
pub fn turn<W: World>(world: &mut W) -> Result<(), W::Error> {
    let now = world.wait()?;
    if is_due(world.machine().poll_timeout(), now) {
        world.machine().handle_timeout(now);
    }
    world.awake();
    world.machine().handle_wakeup(now);
    while let Some(action) = world.machine().poll_action() {
        world.act(action);
    }
    while let Some(transmit) = world.machine().poll_transmit() {
        world.send(transmit);
    }
    Ok(())
}

/// Whether a time has come; none never does.
pub fn is_due(deadline: Option<Duration>, now: Now) -> bool {
    deadline.is_some_and(|deadline| deadline <= now.monotonic)
}

/// A machine without a clock, a socket or a thread. [`turn`] calls it: `handle_*` report to it, `poll_*` ask what it
/// wants.
pub trait Machine {
    /// A connection stands.
    fn handle_connected(&mut self, now: Now, connection: ConnectionId);
    /// The kernel has taken the whole transmit.
    fn handle_sent(&mut self, now: Now, transmit: Transmit);
    /// Bytes came in.
    fn handle_received(&mut self, now: Now, connection: ConnectionId, bytes: &[u8]);
    /// A connection ended; `unsent` never left whole (see the driver's `Event::Closed`).
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
