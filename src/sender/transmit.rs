//! What goes out on a connection, and what the sender asks of its driver.

use std::time::Duration;

use crate::accumulator::Hold;

/// Names one TCP connection; never reused within a producer's life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A run of bytes to be written: of the transmit's own head, or of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// `head[start..start + len]`.
    Head { start: u32, len: u32 },
    /// `len` bytes of the arena from `offset`. They stay unchanged until the driver gives the transmit back.
    Arena { offset: usize, len: u32 },
}

/// One request, to be written in the order of its pieces. The driver owns it until it gives it back as sent, or with
/// the connection's end, and only once the kernel no longer reads any of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transmit {
    pub connection: ConnectionId,
    /// Request header, partition heads and batch headers.
    pub head: Vec<u8>,
    pub pieces: Vec<Piece>,
    /// On the memory of the pieces in the arena: it is given back when the transmit was, too.
    pub holds: Vec<Hold>,
}

impl Transmit {
    /// Its bytes.
    pub fn bytes(&self) -> usize {
        let len = |piece: &Piece| match *piece {
            Piece::Head { len, .. } | Piece::Arena { len, .. } => len as usize,
        };
        self.pieces.iter().map(len).sum()
    }
}

impl Default for ConnectionId {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

/// The two times that a sender knows, read once per turn by whoever drives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Since some fixed point; never goes back.
    pub monotonic: Duration,
    /// Wall clock, milliseconds since the Unix epoch.
    pub unix_ms: i64,
}

/// What the sender asks of the driver besides transmits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open a TCP connection.
    Connect { connection: ConnectionId, address: std::net::SocketAddr },
    /// Close it; the driver answers with `handle_closed` once the kernel holds nothing of it any more.
    Close { connection: ConnectionId },
    /// Look the name up off the sender's thread; the driver answers with `handle_resolved`.
    Resolve { host: String, port: u16 },
}
