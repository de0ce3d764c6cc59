//! The only room that knows an operating system: sockets, threads, clocks and names.
//!
//! A [`Driver`] carries transmits to sockets and bytes back; [`thread`] is the loop that puts a driver under a sender.
//! Two drivers exist, io_uring and readiness (epoll through mio), and both pass the one list in `tests.rs`.

pub mod callbacks;
pub mod clock;
pub mod epoll;
pub mod fork;
mod gather;
pub mod idle;
pub mod probe;
pub mod resolver;
pub mod seldom;
#[cfg(target_os = "linux")]
mod socket;
#[cfg(test)]
mod tests;
pub mod thread;
#[cfg(target_os = "linux")]
pub mod uring;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::accumulator::arena::Arena;
use crate::sender::transmit::{ConnectionId, Transmit};

pub use thread::{Options, spawn};

/// What a driver tells of its connections. Borrowed bytes are valid only inside the handler's call.
#[derive(Debug)]
pub enum Event<'a> {
    /// The connection asked for with [`Driver::connect`] stands.
    Connected(ConnectionId),
    /// The kernel has taken the transmit's last byte and reads none of it any more.
    Sent(Transmit),
    /// Bytes that came in, in order; never empty.
    Received(ConnectionId, &'a [u8]),
    /// The end of a connection, told exactly once per [`Driver::connect`]; nothing of it follows.
    Closed {
        connection: ConnectionId,
        /// Why. A peer that hung up is `UnexpectedEof`, our own [`Driver::close`] is `ConnectionAborted`.
        reason: io::Error,
        /// Transmits that the kernel did not take whole, oldest first: at least the last byte of each never left, so
        /// no broker can have acted on it.
        unsent: Vec<Transmit>,
    },
}

/// Carries transmits to sockets and bytes back. One thread owns a driver and makes every call.
///
/// Calls only take note; what comes of them is told by the next [`poll`](Driver::poll). No call but `poll` blocks.
pub trait Driver {
    /// Starts a TCP connection. Ends in `Connected`, or in `Closed` when it is refused. The id must be new.
    fn connect(&mut self, connection: ConnectionId, address: SocketAddr);

    /// Queues a transmit behind those of the same connection. It comes back in `Sent` or in `Closed::unsent`, and only
    /// once the kernel reads none of its bytes; until then no range of the arena it names may change.
    fn send(&mut self, transmit: Transmit);

    /// Ends a connection. From here it tells nothing but `Sent` (the kernel had taken it all) and then `Closed`.
    fn close(&mut self, connection: ConnectionId);

    /// Tells what happened since the last call. With nothing to tell it waits until something happens, a [`Waker`]
    /// rings or `timeout` is over (`None`: no limit; zero: it never blocks); it may also return early with nothing.
    /// An error means that this driver is of no use any more.
    fn poll(&mut self, timeout: Option<Duration>, handler: &mut dyn FnMut(Event<'_>)) -> io::Result<()>;

    /// What ends this driver's wait, from any thread.
    fn waker(&self) -> Waker;

    /// `"io_uring"` or `"epoll"`.
    fn name(&self) -> &'static str;
}

/// What a driver needs to know of the sockets it opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketOptions {
    /// `send.buffer.bytes`; `None` leaves it to the kernel, which then adapts it (128 KiB towards this
    /// machine itself). Linux only.
    pub send_buffer: Option<u32>,
    /// `receive.buffer.bytes`; `None` leaves it to the kernel. Linux only.
    pub receive_buffer: Option<u32>,
    /// How long a peer may leave bytes unacknowledged, or take none, before the kernel ends the connection
    /// (TCP_USER_TIMEOUT); `None` leaves that to the kernel, which goes on for a quarter of an hour. Linux only.
    pub user_timeout: Option<Duration>,
}

/// Ends a driver's wait from any thread. Cheap to clone; harmless once the driver is gone.
#[derive(Clone)]
pub struct Waker(Wake);

/// How each driver is woken.
#[derive(Clone)]
enum Wake {
    Mio(Arc<mio::Waker>),
    /// An eventfd whose counter the driver reads.
    #[cfg(target_os = "linux")]
    EventFd(Arc<std::fs::File>),
}

impl Waker {
    /// Makes the driver's current or next wait return at once. One system call.
    pub fn wake(&self) {
        let result = match &self.0 {
            Wake::Mio(waker) => waker.wake(),
            #[cfg(target_os = "linux")]
            Wake::EventFd(file) => io::Write::write_all(&mut &**file, &1u64.to_ne_bytes()),
        };
        if let Err(error) = result {
            // Nothing is lost for ever: the sender still comes round at its next deadline.
            tracing::warn!(%error, "the sender thread could not be woken");
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// Everything a driver is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where `Piece::Arena` points to.
    pub arena: Arc<Arena>,
    pub sockets: SocketOptions,
}

/// Why a connection ended that the peer closed in an orderly way.
fn hung_up() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")
}

/// Why a connection ended that the sender closed.
fn closed_by_us() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was closed on this side")
}
