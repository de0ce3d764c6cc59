//! The readiness driver: non-blocking sockets, one write of many slices, and epoll (or what the system has instead)
//! through mio.
//!
//! A send is tried at once and waits for readiness only when the socket has no room. Readiness is told once per change
//! (edge), so every reader and writer here goes on until the socket has nothing more, or puts itself on `unfinished`.
//! Waits are whole milliseconds, rounded up.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::gather::{self, Cursor};
use super::{Driver, Event, Setup, SocketOptions, Wake, Waker, closed_by_us, hung_up};
use crate::accumulator::arena::Arena;
use crate::sender::transmit::{ConnectionId, Transmit};

/// The waker's token; connection slots use their index.
const WAKE: Token = Token(usize::MAX);
/// Bytes that one read takes at most. One buffer serves all connections.
const INBOX: usize = 64 * 1024;
/// Reads of one connection before others have their turn.
const READS_PER_TURN: usize = 16;

/// The readiness driver.
pub struct Epoll {
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    sockets: SocketOptions,
    slots: Vec<Option<Connection>>,
    by_id: HashMap<ConnectionId, usize>,
    /// Told at the next poll, in this order.
    notices: VecDeque<Notice>,
    /// Slots that may have more to read although no new edge will tell.
    unfinished: Vec<usize>,
    /// Swapped with `unfinished` while its entries are worked on.
    revisited: Vec<usize>,
    io: Io,
}

/// What every connection reads and writes with.
struct Io {
    arena: Arc<Arena>,
    inbox: Box<[u8]>,
    /// Empty outside a write.
    slices: Vec<IoSlice<'static>>,
}

/// One socket and what waits for it.
struct Connection {
    id: ConnectionId,
    stream: TcpStream,
    #[cfg(target_os = "linux")]
    send_buffer: super::socket::SendBuffer,
    connected: bool,
    /// Set when a write failed: what came in before is still read, then this ends the connection.
    broken: Option<io::Error>,
    queue: VecDeque<Transmit>,
    /// How far the first of the queue is written.
    cursor: Cursor,
}

/// Something that came of a call and is told at the next poll.
enum Notice {
    Sent(Transmit),
    Closed { connection: ConnectionId, reason: io::Error, unsent: Vec<Transmit> },
}

/// What a read ended with.
enum Reading {
    /// Nothing more for now; an edge will tell.
    Drained,
    /// Its turn is over, there may be more.
    Unfinished,
    /// The connection has ended.
    Ended(io::Error),
}

impl Epoll {
    /// Makes the driver; fails when the system refuses the descriptors.
    pub fn new(setup: &Setup) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
        Ok(Self {
            poll,
            events: Events::with_capacity(256),
            waker,
            sockets: setup.sockets,
            slots: Vec::new(),
            by_id: HashMap::new(),
            notices: VecDeque::new(),
            unfinished: Vec::new(),
            revisited: Vec::new(),
            io: Io { arena: setup.arena.clone(), inbox: vec![0; INBOX].into(), slices: Vec::new() },
        })
    }

    /// Opens the socket, registers it and gives it a slot.
    fn open(&mut self, id: ConnectionId, address: SocketAddr) -> io::Result<()> {
        let mut stream = start(address, &self.sockets)?;
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(Connection {
            id,
            stream,
            #[cfg(target_os = "linux")]
            send_buffer: super::socket::SendBuffer::new(address, &self.sockets),
            connected: false,
            broken: None,
            queue: VecDeque::new(),
            cursor: Cursor::default(),
        });
        self.by_id.insert(id, slot);
        Ok(())
    }

    /// Takes the connection out and tells its end to `tell`.
    fn end(&mut self, slot: usize, reason: io::Error, tell: impl FnOnce(ConnectionId, io::Error, Vec<Transmit>)) {
        let Some(mut connection) = self.slots[slot].take() else { return };
        self.by_id.remove(&connection.id);
        // Closing the descriptor would do it, but for one that was never connected mio must forget it as well; and a
        // forked child may hold a copy that would keep the peer waiting.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        let _ = connection.stream.shutdown(Shutdown::Both);
        tell(connection.id, reason, connection.queue.into());
    }

    /// Follows one readiness report.
    fn visit(&mut self, slot: usize, ready: Ready, handler: &mut dyn FnMut(Event<'_>)) {
        let Some(connection) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if !connection.connected {
            match connection.finish_connect() {
                Ok(true) => handler(Event::Connected(connection.id)),
                Ok(false) => return,
                Err(reason) => {
                    return self.end(slot, reason, |connection, reason, unsent| {
                        handler(Event::Closed { connection, reason, unsent })
                    });
                }
            }
        }
        if ready.write && connection.broken.is_none() {
            let sent = connection.write(&mut self.io, &mut |transmit| handler(Event::Sent(transmit)));
            connection.broken = sent.err();
        }
        if !ready.read && connection.broken.is_none() {
            return;
        }
        match connection.read(&mut self.io, ready.last, handler) {
            Reading::Drained => {}
            Reading::Unfinished => self.unfinished.push(slot),
            Reading::Ended(reason) => {
                let reason = connection.broken.take().unwrap_or(reason);
                self.end(slot, reason, |connection, reason, unsent| {
                    handler(Event::Closed { connection, reason, unsent })
                });
            }
        }
    }

    /// Asks the system what is ready and follows it up.
    fn wait(&mut self, timeout: Option<Duration>, handler: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        // Taken out for the loop, because a visit needs the whole driver.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() != WAKE {
                let last = event.is_read_closed() || event.is_error();
                let ready = Ready { read: event.is_readable() || last, write: event.is_writable(), last };
                self.visit(event.token().0, ready, handler);
            }
        }
        self.events = events;
        Ok(())
    }
}

/// What an event says of a socket.
#[derive(Clone, Copy)]
struct Ready {
    read: bool,
    write: bool,
    /// The peer will send no more: read until the end shows, no further edge will come.
    last: bool,
}

impl Driver for Epoll {
    fn connect(&mut self, connection: ConnectionId, address: SocketAddr) {
        if let Err(reason) = self.open(connection, address) {
            self.notices.push_back(Notice::Closed { connection, reason, unsent: Vec::new() });
        }
    }

    fn send(&mut self, transmit: Transmit) {
        let Some(&slot) = self.by_id.get(&transmit.connection) else {
            let (connection, reason) = (transmit.connection, io::ErrorKind::NotConnected.into());
            return self.notices.push_back(Notice::Closed { connection, reason, unsent: vec![transmit] });
        };
        let Some(connection) = &mut self.slots[slot] else { return };
        #[cfg(target_os = "linux")]
        connection.send_buffer.fit(std::os::fd::AsFd::as_fd(&connection.stream), &transmit);
        connection.queue.push_back(transmit);
        // With others waiting, an edge is due that sends them all.
        if connection.queue.len() > 1 || !connection.connected || connection.broken.is_some() {
            return;
        }
        let notices = &mut self.notices;
        if let Err(error) = connection.write(&mut self.io, &mut |transmit| notices.push_back(Notice::Sent(transmit))) {
            connection.broken = Some(error);
            self.unfinished.push(slot);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        let Some(&slot) = self.by_id.get(&connection) else { return };
        let mut notice = None;
        self.end(slot, closed_by_us(), |connection, reason, unsent| {
            notice = Some(Notice::Closed { connection, reason, unsent });
        });
        self.notices.extend(notice);
    }

    fn poll(&mut self, timeout: Option<Duration>, handler: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let nothing_due = self.notices.is_empty() && self.unfinished.is_empty();
        while let Some(notice) = self.notices.pop_front() {
            handler(match notice {
                Notice::Sent(transmit) => Event::Sent(transmit),
                Notice::Closed { connection, reason, unsent } => Event::Closed { connection, reason, unsent },
            });
        }
        let mut revisited = std::mem::replace(&mut self.unfinished, std::mem::take(&mut self.revisited));
        for slot in revisited.drain(..) {
            self.visit(slot, Ready { read: true, write: false, last: true }, handler);
        }
        self.revisited = revisited;
        self.wait(if nothing_due { timeout } else { Some(Duration::ZERO) }, handler)
    }

    fn waker(&self) -> Waker {
        Waker(Wake::Mio(self.waker.clone()))
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}

impl Connection {
    /// Whether the connection stands by now; an error when it was refused.
    fn finish_connect(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.connected = true;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes until the queue is empty or the socket is full; gives each whole transmit to `sent`.
    fn write(&mut self, io: &mut Io, sent: &mut dyn FnMut(Transmit)) -> io::Result<()> {
        while let Some(transmit) = self.queue.front() {
            while !self.cursor.is_at_end(transmit) {
                match write_some(&self.stream, io, transmit, self.cursor) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(bytes) => self.cursor.advance(transmit, bytes),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            self.cursor = Cursor::default();
            self.queue.pop_front().map(&mut *sent);
        }
        Ok(())
    }

    /// Reads until there is nothing more or the turn is over. `last`: an end must show, go on until it does.
    fn read(&mut self, io: &mut Io, last: bool, handler: &mut dyn FnMut(Event<'_>)) -> Reading {
        for _ in 0..READS_PER_TURN {
            match self.stream.read(&mut io.inbox) {
                Ok(0) => return Reading::Ended(hung_up()),
                Ok(bytes) => {
                    handler(Event::Received(self.id, &io.inbox[..bytes]));
                    // epoll(7): a short read of a stream means that it is empty, and an end that comes later is a new
                    // edge. That saves one system call per response.
                    if cfg!(target_os = "linux") && bytes < io.inbox.len() && !last {
                        return Reading::Drained;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A broken connection has nothing left to wait for.
                    return match self.broken.take() {
                        Some(error) => Reading::Ended(error),
                        None => Reading::Drained,
                    };
                }
                Err(error) => return Reading::Ended(error),
            }
        }
        Reading::Unfinished
    }
}

/// A non-blocking socket that has begun to connect.
#[cfg(target_os = "linux")]
fn start(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let socket = super::socket::open(address, options, true)?;
    super::socket::start_connect(&socket, &address.into())?;
    Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
}

/// A non-blocking socket that has begun to connect; its buffers are the system's.
#[cfg(not(target_os = "linux"))]
fn start(address: SocketAddr, _: &SocketOptions) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One write of what is left of the transmit.
fn write_some(stream: &TcpStream, io: &mut Io, transmit: &Transmit, cursor: Cursor) -> io::Result<usize> {
    gather::with(&mut io.slices, &io.arena, transmit, cursor, |slices| {
        #[cfg(target_os = "linux")]
        let result = super::socket::write(std::os::fd::AsFd::as_fd(stream), slices);
        #[cfg(not(target_os = "linux"))]
        let result = io::Write::write_vectored(&mut &*stream, slices);
        result
    })
}
