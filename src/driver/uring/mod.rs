//! The io_uring driver: one ring, one system call per poll that starts what is due and waits for what comes.
//!
//! Per connection at most one send, one receive into a buffer of its own and (at first) one connect are with the kernel.
//! A connection's memory is given up only when the kernel has none of its operations any more: ending one cancels what
//! is out and waits for the completions.
//!
//! *Why this is sound*: (a) an operation's user data names its slot and kind, a slot holds one of each kind, and both
//! stay until its completion was taken; (b) a `Connection` is boxed and its inbox, address, message and slices are not
//! moved or used while an operation with them is out (`out` says so); (c) the transmit being sent stays at the front of
//! its queue for as long, so gather's slices into it are good; (d) dropping the driver cancels all and waits; what the
//! kernel should still hold then is leaked.

#![allow(unsafe_code, reason = "argued above")]

mod ring;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::gather::{self, Cursor};
use super::socket::{self, RawAddress, SendBuffer};
use super::{Driver, Event, Setup, SocketOptions, Wake, Waker, closed_by_us, hung_up};
use crate::accumulator::arena::Arena;
use crate::sender::transmit::{ConnectionId, Transmit};
use ring::Ring;

/// Bytes that one receive takes at most; each connection has such a buffer. Answers to Produce are far smaller.
const INBOX: usize = 32 * 1024;
/// IORING_RECVSEND_POLL_FIRST: do not try to receive before the socket says that it has something.
const POLL_FIRST: u16 = 1;
/// How often a dropped driver looks whether the kernel has let go, and how long each time.
const LAST_LOOKS: u32 = 50;
const LAST_LOOK: Duration = Duration::from_millis(100);

/// The io_uring driver.
pub struct Uring {
    // First, so that it is dropped before what the kernel might use.
    ring: Ring,
    wake: WakeRead,
    arena: Arc<Arena>,
    sockets: SocketOptions,
    slots: Vec<Option<Box<Connection>>>,
    by_id: HashMap<ConnectionId, u32>,
    /// Ends that came of a call, told at the next poll.
    notices: VecDeque<(ConnectionId, io::Error, Vec<Transmit>)>,
}

/// The read that a waker completes.
struct WakeRead {
    eventfd: Arc<File>,
    counter: Box<u64>,
    out: bool,
}

/// One socket, what waits for it, and what the kernel has of it.
struct Connection {
    id: ConnectionId,
    socket: OwnedFd,
    send_buffer: SendBuffer,
    address: RawAddress,
    inbox: Box<[u8]>,
    queue: VecDeque<Transmit>,
    /// How far the first of the queue is written.
    cursor: Cursor,
    slices: Vec<IoSlice<'static>>,
    message: libc::msghdr,
    /// Which operations the kernel has.
    out: Out,
    phase: Phase,
}

/// Operations of one connection that the kernel has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Out {
    connect: bool,
    receive: bool,
    send: bool,
    cancels: u8,
}

/// Where a connection stands.
enum Phase {
    Connecting,
    Open,
    /// Ends with this reason once nothing is out.
    Ending {
        reason: io::Error,
        /// A send failed: what came in before is still received and told.
        receiving: bool,
    },
}

/// Kinds of operations; the low byte of the user data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Connect,
    Receive,
    Send,
    Cancel,
    Wake,
}

impl Kind {
    /// The user data of this kind of operation in a slot.
    fn of(self, slot: u32) -> u64 {
        u64::from(slot) << 8 | self as u64
    }

    /// What a completion's user data says.
    fn from(user_data: u64) -> (Self, u32) {
        let kinds = [Self::Connect, Self::Receive, Self::Send, Self::Cancel, Self::Wake];
        (kinds[(user_data & 0xff) as usize], (user_data >> 8) as u32)
    }
}

impl Uring {
    /// Makes the driver on the thread that will use it; fails where io_uring is missing, forbidden or too old.
    pub fn new(setup: &Setup) -> io::Result<Self> {
        Self::over(Ring::new()?, setup)
    }

    /// The same, set up as an older kernel would have it: with fewer flags the larger `step` is.
    #[cfg(test)]
    pub fn at_step(step: usize, setup: &Setup) -> io::Result<Self> {
        Self::over(Ring::at_step(step)?, setup)
    }

    /// The driver over a ring.
    fn over(ring: Ring, setup: &Setup) -> io::Result<Self> {
        let eventfd = Arc::new(File::from(socket::eventfd()?));
        Ok(Self {
            ring,
            wake: WakeRead { eventfd, counter: Box::new(0), out: false },
            arena: setup.arena.clone(),
            sockets: setup.sockets,
            slots: Vec::new(),
            by_id: HashMap::new(),
            notices: VecDeque::new(),
        })
    }

    /// Takes completions until there are none.
    fn reap(&mut self, handler: &mut dyn FnMut(Event<'_>)) {
        while let Some((user_data, result)) = self.ring.completion() {
            let (kind, slot) = Kind::from(user_data);
            if kind == Kind::Wake {
                self.wake.out = false;
                continue;
            }
            let Some(connection) = self.slots[slot as usize].as_mut() else { continue };
            let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) };
            let mut at = At { slot, ring: &mut self.ring, arena: &self.arena };
            match kind {
                Kind::Connect => connection.connected(&mut at, result, handler),
                Kind::Receive => connection.received(&mut at, result, handler),
                Kind::Send => connection.sent(&mut at, result, handler),
                Kind::Cancel | Kind::Wake => connection.out.cancels -= 1,
            }
            if connection.out == Out::default()
                && let Phase::Ending { .. } = connection.phase
            {
                self.forget(slot, handler);
            }
        }
    }

    /// Takes out a connection of which the kernel has nothing any more, and tells its end.
    fn forget(&mut self, slot: u32, handler: &mut dyn FnMut(Event<'_>)) {
        let Some(connection) = self.slots[slot as usize].take() else { return };
        self.by_id.remove(&connection.id);
        // For a forked child's copy of the descriptor. Not before the receive is back: a close that finds unread bytes
        // resets a peer that still sends, but one after these were received leaves it to wait for minutes.
        socket::shut_down(connection.socket.as_fd());
        let Connection { id, queue, phase, .. } = *connection;
        if let Phase::Ending { reason, .. } = phase {
            handler(Event::Closed { connection: id, reason, unsent: queue.into() });
        }
    }

    /// Has the waker's counter read, so that a ring completes an operation.
    fn arm_wake(&mut self) {
        if !self.wake.out {
            self.wake.out = true;
            let fd = Fd(self.wake.eventfd.as_raw_fd());
            let read = opcode::Read::new(fd, (&raw mut *self.wake.counter).cast(), mem::size_of::<u64>() as u32);
            // SAFETY: clause (a); the counter is boxed and used by nobody else.
            unsafe { self.ring.push(read.build().user_data(Kind::Wake.of(0))) };
        }
    }
}

impl Driver for Uring {
    fn connect(&mut self, connection: ConnectionId, address: SocketAddr) {
        let opened = match socket::open(address, &self.sockets, false) {
            Ok(opened) => opened,
            Err(reason) => return self.notices.push_back((connection, reason, Vec::new())),
        };
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        let made = self.slots[slot].insert(Box::new(Connection::new(connection, opened, address, &self.sockets)));
        let slot = slot as u32;
        made.start_connect(&mut At { slot, ring: &mut self.ring, arena: &self.arena });
        self.by_id.insert(connection, slot);
    }

    fn send(&mut self, transmit: Transmit) {
        let Some(&slot) = self.by_id.get(&transmit.connection) else {
            let reason = io::ErrorKind::NotConnected.into();
            return self.notices.push_back((transmit.connection, reason, vec![transmit]));
        };
        let Some(connection) = &mut self.slots[slot as usize] else { return };
        connection.send_buffer.fit(connection.socket.as_fd(), &transmit);
        connection.queue.push_back(transmit);
        connection.start_send(&mut At { slot, ring: &mut self.ring, arena: &self.arena });
    }

    fn close(&mut self, connection: ConnectionId) {
        let Some(&slot) = self.by_id.get(&connection) else { return };
        let Some(connection) = &mut self.slots[slot as usize] else { return };
        let at = &mut At { slot, ring: &mut self.ring, arena: &self.arena };
        connection.end(at, closed_by_us());
    }

    fn poll(&mut self, timeout: Option<Duration>, handler: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let timeout = if self.notices.is_empty() { timeout } else { Some(Duration::ZERO) };
        while let Some((connection, reason, unsent)) = self.notices.pop_front() {
            handler(Event::Closed { connection, reason, unsent });
        }
        self.arm_wake();
        self.ring.enter(timeout)?;
        self.reap(handler);
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker(Wake::EventFd(self.wake.eventfd.clone()))
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        for (slot, connection) in self.slots.iter_mut().enumerate() {
            let at = &mut At { slot: slot as u32, ring: &mut self.ring, arena: &self.arena };
            connection.iter_mut().for_each(|connection| connection.end(at, closed_by_us()));
        }
        // Completes the wake's read, without a cancel that would have to be told apart.
        self.waker().wake();
        for _ in 0..LAST_LOOKS {
            if self.ring.outstanding() == 0 || self.ring.enter(Some(LAST_LOOK)).is_err() {
                break;
            }
            self.reap(&mut |_| {});
        }
        if self.ring.outstanding() > 0 {
            // Clause (d). Better a leak than a kernel that reads or writes memory which is somebody else's by now.
            tracing::error!(operations = self.ring.outstanding(), "io_uring did not let go; its memory is leaked");
            mem::forget((mem::take(&mut self.slots), mem::take(&mut self.wake.counter), self.arena.clone()));
        }
    }
}

/// What a connection needs to start operations: its slot, the ring and the arena.
struct At<'a> {
    slot: u32,
    ring: &'a mut Ring,
    arena: &'a Arena,
}

impl At<'_> {
    /// Pushes an operation.
    ///
    /// # Safety
    /// Clauses (a) to (c): what it points to belongs to the connection in this slot and is left alone until it is back.
    unsafe fn push(&mut self, kind: Kind, entry: squeue::Entry) {
        // SAFETY: promised by the caller.
        unsafe { self.ring.push(entry.user_data(kind.of(self.slot))) };
    }
}

impl Connection {
    /// A connection of which the kernel has nothing yet.
    fn new(id: ConnectionId, socket: OwnedFd, address: SocketAddr, options: &SocketOptions) -> Self {
        Self {
            id,
            socket,
            send_buffer: SendBuffer::new(address, options),
            address: address.into(),
            inbox: vec![0; INBOX].into(),
            queue: VecDeque::new(),
            cursor: Cursor::default(),
            slices: Vec::new(),
            // SAFETY: all-zero bytes are a valid `msghdr`.
            message: unsafe { mem::zeroed() },
            out: Out::default(),
            phase: Phase::Connecting,
        }
    }

    fn fd(&self) -> Fd {
        Fd(self.socket.as_raw_fd())
    }

    fn start_connect(&mut self, at: &mut At<'_>) {
        let (address, len) = self.address.parts();
        self.out.connect = true;
        // SAFETY: clause (b) for the address.
        unsafe { at.push(Kind::Connect, opcode::Connect::new(self.fd(), address, len).build()) };
    }

    /// `more`: the socket has probably something already.
    fn start_receive(&mut self, at: &mut At<'_>, more: bool) {
        let flags = if more || !at.ring.is_deferred() { 0 } else { POLL_FIRST };
        let (start, len) = (self.inbox.as_mut_ptr(), self.inbox.len() as u32);
        self.out.receive = true;
        // SAFETY: clause (b) for the inbox.
        unsafe { at.push(Kind::Receive, opcode::Recv::new(self.fd(), start, len).ioprio(flags).build()) };
    }

    /// Sends what is left of the first transmit, unless it is not time for that.
    fn start_send(&mut self, at: &mut At<'_>) {
        if self.out.send || !matches!(self.phase, Phase::Open) {
            return;
        }
        let Some(transmit) = self.queue.front() else { return };
        // SAFETY: gather's clause (c) by our clauses (b) and (c).
        unsafe { gather::fill(&mut self.slices, at.arena, transmit, self.cursor) };
        self.message.msg_iov = self.slices.as_mut_ptr().cast();
        self.message.msg_iovlen = self.slices.len() as _;
        // WAITALL: the kernel goes on by itself when the socket has room again.
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let send = opcode::SendMsg::new(self.fd(), &raw const self.message).flags(flags).build();
        self.out.send = true;
        // SAFETY: clauses (b) and (c) for the message, the slices and the transmit.
        unsafe { at.push(Kind::Send, send) };
    }

    /// The connect is back.
    fn connected(&mut self, at: &mut At<'_>, result: io::Result<usize>, handler: &mut dyn FnMut(Event<'_>)) {
        self.out.connect = false;
        match (result, &self.phase) {
            (Ok(_), Phase::Connecting) => {
                self.phase = Phase::Open;
                self.start_receive(at, false);
                self.start_send(at);
                handler(Event::Connected(self.id));
            }
            (Err(error), Phase::Connecting) if is_passing(&error) => self.start_connect(at),
            (Err(error), _) => self.end(at, error),
            (Ok(_), _) => {}
        }
    }

    /// The receive is back.
    fn received(&mut self, at: &mut At<'_>, result: io::Result<usize>, handler: &mut dyn FnMut(Event<'_>)) {
        self.out.receive = false;
        let wanted = matches!(self.phase, Phase::Open | Phase::Ending { receiving: true, .. });
        match result {
            Ok(0) => self.end(at, hung_up()),
            Ok(bytes) if wanted => {
                handler(Event::Received(self.id, &self.inbox[..bytes]));
                self.start_receive(at, bytes == self.inbox.len());
            }
            Ok(_) => {}
            Err(error) if wanted && is_passing(&error) => self.start_receive(at, true),
            Err(error) => self.end(at, error),
        }
    }

    /// The send is back.
    fn sent(&mut self, at: &mut At<'_>, result: io::Result<usize>, handler: &mut dyn FnMut(Event<'_>)) {
        self.out.send = false;
        let Some(transmit) = self.queue.front() else { return };
        match result {
            Ok(bytes) => {
                self.cursor.advance(transmit, bytes);
                if self.cursor.is_at_end(transmit) {
                    self.cursor = Cursor::default();
                    self.slices.clear();
                    self.queue.pop_front().into_iter().for_each(|transmit| handler(Event::Sent(transmit)));
                } else if bytes == 0 {
                    return self.end(at, io::ErrorKind::WriteZero.into());
                }
                self.start_send(at);
            }
            Err(error) if is_passing(&error) => self.start_send(at),
            // The shutdown ends the receive, after it has told what came in before.
            Err(reason) if matches!(self.phase, Phase::Open) => {
                self.phase = Phase::Ending { reason, receiving: true };
                socket::shut_down(self.socket.as_fd());
            }
            Err(_) => {}
        }
    }

    /// Begins the end: nothing new is started, what is out is cancelled. The first reason stays.
    fn end(&mut self, at: &mut At<'_>, reason: io::Error) {
        match &mut self.phase {
            Phase::Ending { receiving: true, .. } if !self.out.receive => return,
            // Closed while it was still receiving after a failed send.
            Phase::Ending { receiving, .. } if *receiving => *receiving = false,
            Phase::Ending { .. } => return,
            phase => *phase = Phase::Ending { reason, receiving: false },
        }
        let Out { connect, receive, send, .. } = self.out;
        for (kind, out) in [(Kind::Connect, connect), (Kind::Receive, receive), (Kind::Send, send)] {
            if out {
                self.out.cancels += 1;
                // SAFETY: it points to nothing.
                unsafe { at.push(Kind::Cancel, opcode::AsyncCancel::new(kind.of(at.slot)).build()) };
            }
        }
    }
}

/// Errors that say "try again".
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
