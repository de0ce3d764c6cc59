//! One test list for every driver: what `Driver` promises, on loopback sockets.
//!
//! *Why this is sound*: (a) a test writes to its arena before it hands the range to the driver, and from one thread;
//! (b) `listen` gets a descriptor that lives.

#![allow(unsafe_code, reason = "sockets and bytes as a driver finds them")]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::epoll::Epoll;
#[cfg(target_os = "linux")]
use super::uring::Uring;
use super::{Driver, Event, Setup, SocketOptions};
use crate::accumulator::arena::Arena;
use crate::sender::transmit::{ConnectionId, Piece, Transmit};

/// Makes the driver under test.
type Make = fn(&Setup) -> io::Result<Box<dyn Driver>>;

/// No scenario takes longer, unless something is lost.
const PATIENCE: Duration = Duration::from_secs(30);

macro_rules! scenarios {
    ($($name:ident)*) => {
        scenarios! { @epoll Epoll::new; $($name)* }
        #[cfg(target_os = "linux")]
        scenarios! { @uring Uring::new; $($name)* }
        // As kernels older than 6.1 and 5.19 have it.
        #[cfg(target_os = "linux")]
        scenarios! { @uring_cooperative |setup| Uring::at_step(1, setup); $($name)* }
        #[cfg(target_os = "linux")]
        scenarios! { @uring_plain |setup| Uring::at_step(2, setup); $($name)* }
    };
    (@$driver:ident $new:expr; $($name:ident)*) => {
        mod $driver {
            use super::*;
            fn make(setup: &Setup) -> io::Result<Box<dyn Driver>> {
                let new: fn(&Setup) -> io::Result<_> = $new;
                Ok(Box::new(new(setup)?))
            }
            $(#[test] fn $name() { super::$name(make); })*
        }
    };
}

scenarios! {
    heads_and_arena_ranges_arrive_in_order
    transmits_of_one_connection_keep_their_order
    a_transmit_may_have_thousands_of_pieces
    an_empty_transmit_is_sent
    a_slow_reader_gets_everything
    a_peer_that_takes_nothing_is_given_up
    an_answer_before_the_end_is_told_before_the_end
    a_peer_that_leaves_in_the_middle
    a_refused_connection
    any_thread_wakes_a_waiting_poll
    a_wake_before_the_poll_counts
    polls_end_without_events
    many_connections
    a_flood_does_not_starve_others
    closing_gives_a_stuck_transmit_back
    closing_while_connecting
    closing_an_idle_connection
    a_transmit_without_a_connection_comes_back
    dropping_lets_go_of_everything
}

/// A driver with what it told so far.
struct Under {
    driver: Box<dyn Driver>,
    arena: Arc<Arena>,
    told: Told,
}

#[derive(Default)]
struct Told {
    connected: Vec<ConnectionId>,
    sent: Vec<Transmit>,
    received: HashMap<ConnectionId, Vec<u8>>,
    closed: Vec<(ConnectionId, io::ErrorKind, Vec<Transmit>)>,
}

impl Told {
    fn received(&self, connection: ConnectionId) -> &[u8] {
        self.received.get(&connection).map_or(&[], Vec::as_slice)
    }

    fn note(&mut self, event: Event<'_>) {
        let ended = |id| self.closed.iter().any(|(closed, ..)| *closed == id);
        match event {
            Event::Connected(id) => {
                assert!(!ended(id) && !self.connected.contains(&id));
                self.connected.push(id);
            }
            Event::Sent(transmit) => {
                assert!(!ended(transmit.connection));
                self.sent.push(transmit);
            }
            Event::Received(id, bytes) => {
                assert!(!bytes.is_empty() && !ended(id));
                self.received.entry(id).or_default().extend_from_slice(bytes);
            }
            Event::Closed { connection, reason, unsent } => {
                assert!(!ended(connection), "the end of {connection:?} is told once");
                self.closed.push((connection, reason.kind(), unsent));
            }
        }
    }
}

impl Under {
    fn new(make: Make) -> Self {
        Self::with(make, SocketOptions::default())
    }

    fn with(make: Make, sockets: SocketOptions) -> Self {
        let arena = Arc::new(Arena::new(8 << 20).expect("an arena"));
        let driver = make(&Setup { arena: arena.clone(), sockets }).expect("a driver");
        Self { driver, arena, told: Told::default() }
    }

    /// Writes a pattern into the arena.
    fn write_arena(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: clause (a).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.arena.at(offset, bytes.len()), bytes.len()) };
    }

    fn turn(&mut self, timeout: Option<Duration>) {
        let told = &mut self.told;
        self.driver.poll(timeout, &mut |event| told.note(event)).expect("a poll");
    }

    /// Polls until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Told) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.told) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            self.turn(Some(Duration::from_millis(100)));
        }
    }

    fn connect(&mut self, id: u64, address: SocketAddr) -> ConnectionId {
        let id = ConnectionId(id);
        self.driver.connect(id, address);
        self.until("connected", |told| told.connected.contains(&id));
        id
    }
}

/// A pattern that shows where a byte belongs.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ ((i >> 8) as u8) ^ seed).collect()
}

/// A transmit that is all head.
fn head(connection: ConnectionId, bytes: &[u8]) -> Transmit {
    let pieces = vec![Piece::Head { start: 0, len: bytes.len() as u32 }];
    Transmit { connection, head: bytes.to_vec(), pieces, ..Transmit::default() }
}

/// A listener, and a thread that runs `serve` for each of `count` connections, one after the other.
fn peer<T: Send + 'static>(
    count: usize,
    serve: impl Fn(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || (0..count).map(|_| serve(listener.accept().expect("a connection").0)).collect());
    (address, thread)
}

/// Reads exactly `len` bytes.
fn read(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("bytes");
    bytes
}

fn joined<T>(thread: JoinHandle<Vec<T>>) -> T {
    thread.join().expect("no panic").pop().expect("one connection")
}

fn heads_and_arena_ranges_arrive_in_order(make: Make) {
    let mut under = Under::new(make);
    under.write_arena(4096, &pattern(10_000, 1));
    under.write_arena(70_000, &pattern(5, 2));
    let (address, thread) = peer(1, |mut stream| {
        let bytes = read(&stream, 4 + 10_000 + 3 + 5);
        stream.write_all(&bytes).expect("written");
        bytes
    });
    let id = under.connect(1, address);
    let pieces = vec![
        Piece::Head { start: 0, len: 4 },
        Piece::Arena { offset: 4096, len: 10_000 },
        Piece::Head { start: 4, len: 3 },
        Piece::Arena { offset: 70_000, len: 5 },
    ];
    under.driver.send(Transmit {
        connection: id,
        head: b"headtwo".to_vec(),
        pieces: pieces.clone(),
        ..Transmit::default()
    });
    let expected = [b"head".to_vec(), pattern(10_000, 1), b"two".to_vec(), pattern(5, 2)].concat();
    under.until("echoed", |told| told.received(id).len() == expected.len());
    assert_eq!(under.told.received(id), expected);
    assert_eq!(joined(thread), expected);
    let sent = under.told.sent.pop().expect("told as sent before its answer");
    assert_eq!((sent.connection, &sent.head[..], sent.pieces), (id, &b"headtwo"[..], pieces));
    under.until("hung up", |told| told.closed.len() == 1);
    assert_eq!(under.told.closed[0].1, io::ErrorKind::UnexpectedEof);
}

fn transmits_of_one_connection_keep_their_order(make: Make) {
    let mut under = Under::new(make);
    let (address, thread) = peer(1, |stream| read(&stream, 100 * 1000));
    let id = ConnectionId(7);
    // Before the connection stands: they wait for it.
    under.driver.connect(id, address);
    for i in 0..100 {
        under.driver.send(head(id, &pattern(1000, i)));
    }
    under.until("sent", |told| told.sent.len() == 100);
    let expected: Vec<u8> = (0..100).flat_map(|i| pattern(1000, i)).collect();
    assert_eq!(joined(thread), expected);
    assert!(under.told.sent.iter().zip(0..).all(|(sent, i)| sent.head == pattern(1000, i)));
}

fn a_transmit_may_have_thousands_of_pieces(make: Make) {
    let mut under = Under::new(make);
    let (bytes, count) = (pattern(9000, 3), 3000);
    under.write_arena(0, &bytes);
    let mut transmit =
        Transmit { connection: ConnectionId(1), head: b"-".repeat(count), pieces: Vec::new(), ..Transmit::default() };
    let mut expected = Vec::new();
    for i in 0..count {
        transmit.pieces.push(Piece::Arena { offset: i * 3, len: 3 });
        transmit.pieces.push(Piece::Head { start: i as u32, len: 1 });
        expected.extend_from_slice(&bytes[i * 3..][..3]);
        expected.push(b'-');
    }
    let (address, thread) = peer(1, |stream| read(&stream, 12_000));
    under.connect(1, address);
    under.driver.send(transmit);
    under.until("sent", |told| told.sent.len() == 1);
    assert_eq!(joined(thread), expected);
}

fn an_empty_transmit_is_sent(make: Make) {
    let mut under = Under::new(make);
    let (address, thread) = peer(1, |stream| read(&stream, 5));
    let id = under.connect(1, address);
    under.driver.send(head(id, b""));
    under.driver.send(head(id, b"after"));
    under.until("sent", |told| told.sent.len() == 2);
    assert_eq!(joined(thread), b"after");
}

fn a_slow_reader_gets_everything(make: Make) {
    let small =
        SocketOptions { send_buffer: Some(8 * 1024), receive_buffer: Some(8 * 1024), ..SocketOptions::default() };
    let mut under = Under::with(make, small);
    let (go, wait) = mpsc::channel::<()>();
    let len = 1 << 20;
    under.write_arena(0, &pattern(len, 9));
    let (address, thread) = peer(1, move |stream| {
        wait.recv().expect("told to read");
        read(&stream, 2 * len)
    });
    let id = under.connect(1, address);
    let pieces: Vec<_> = (0..len / 4096).map(|i| Piece::Arena { offset: i * 4096, len: 4096 }).collect();
    for _ in 0..2 {
        under.driver.send(Transmit { connection: id, head: Vec::new(), pieces: pieces.clone(), ..Transmit::default() });
    }
    for _ in 0..20 {
        under.turn(Some(Duration::from_millis(1)));
    }
    assert!(under.told.sent.is_empty(), "nobody has read a mebibyte");
    go.send(()).expect("the peer waits");
    under.until("sent", |told| told.sent.len() == 2);
    assert!(joined(thread) == [pattern(len, 9), pattern(len, 9)].concat());
}

/// A peer that takes nothing, as good as one that is gone: the kernel itself ends the connection. Linux only.
fn a_peer_that_takes_nothing_is_given_up(make: Make) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let small = SocketOptions {
        send_buffer: Some(8 * 1024),
        user_timeout: Some(Duration::from_millis(300)),
        ..SocketOptions::default()
    };
    let mut under = Under::with(make, small);
    let (done, wait) = mpsc::channel::<()>();
    let (address, thread) = peer(1, move |stream| {
        let _ = wait.recv();
        drop(stream);
    });
    let id = under.connect(1, address);
    under.driver.send(Transmit {
        connection: id,
        head: vec![1; 16 << 20],
        pieces: vec![Piece::Head { start: 0, len: 16 << 20 }],
        ..Transmit::default()
    });
    under.until("given up", |told| !told.closed.is_empty());
    drop(done);
    joined(thread);
    let (closed, reason, unsent) = under.told.closed.pop().expect("just seen");
    // The kernel tells the reason once, to whoever looks first; the other one finds a connection that is gone.
    let gone = [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
    assert!(closed == id && gone.contains(&reason) && unsent.len() == 1, "{reason:?}");
}

fn an_answer_before_the_end_is_told_before_the_end(make: Make) {
    let mut under = Under::new(make);
    let (address, thread) = peer(1, |mut stream| {
        read(&stream, 3);
        stream.write_all(&pattern(300_000, 4)).expect("written");
    });
    let id = under.connect(1, address);
    under.driver.send(head(id, b"ask"));
    under.until("hung up", |told| told.closed.len() == 1);
    joined(thread);
    assert!(under.told.received(id) == pattern(300_000, 4));
    let (closed, reason, unsent) = under.told.closed.pop().expect("just seen");
    assert_eq!((closed, reason, unsent.len()), (id, io::ErrorKind::UnexpectedEof, 0));
}

fn a_peer_that_leaves_in_the_middle(make: Make) {
    let mut under = Under::new(make);
    under.write_arena(0, &pattern(8 << 20, 5));
    let (address, thread) = peer(1, |stream| read(&stream, 10_000));
    let id = under.connect(1, address);
    let big = || Transmit {
        connection: id,
        head: Vec::new(),
        pieces: vec![Piece::Arena { offset: 0, len: 8 << 20 }],
        ..Transmit::default()
    };
    // More than any socket buffer takes.
    for _ in 0..4 {
        under.driver.send(big());
    }
    under.until("closed", |told| told.closed.len() == 1);
    assert_eq!(joined(thread), pattern(10_000, 5));
    let (closed, _, unsent) = under.told.closed.pop().expect("just seen");
    assert_eq!(closed, id);
    assert!(!unsent.is_empty(), "at least the last one did not fit");
    assert_eq!(unsent.len() + under.told.sent.len(), 4, "each comes back once");
    assert!(unsent.iter().all(|transmit| *transmit == big()));
}

fn a_refused_connection(make: Make) {
    let mut under = Under::new(make);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    under.driver.connect(ConnectionId(1), nobody);
    under.driver.send(head(ConnectionId(1), b"never"));
    under.until("refused", |told| !told.closed.is_empty());
    let (id, reason, unsent) = under.told.closed.pop().expect("just seen");
    assert_eq!((id, reason), (ConnectionId(1), io::ErrorKind::ConnectionRefused));
    assert_eq!(unsent, [head(ConnectionId(1), b"never")]);
    assert!(under.told.connected.is_empty());
}

fn any_thread_wakes_a_waiting_poll(make: Make) {
    let mut under = Under::new(make);
    let waker = under.driver.waker();
    let (polled, seen) = mpsc::channel();
    let thread = thread::spawn(move || {
        while seen.recv().is_ok() {
            waker.wake();
        }
    });
    for _ in 0..200 {
        polled.send(()).expect("the waker's thread listens");
        // Without the wake it would wait for ever.
        under.turn(None);
    }
    drop(polled);
    thread.join().expect("no panic");
}

fn a_wake_before_the_poll_counts(make: Make) {
    let mut under = Under::new(make);
    for _ in 0..5 {
        under.driver.waker().wake();
        under.driver.waker().wake();
        under.turn(None);
        // What was rung twice may be told once or twice; afterwards it is used up.
        under.turn(Some(Duration::ZERO));
    }
}

fn polls_end_without_events(make: Make) {
    let mut under = Under::new(make);
    for timeout in [0, 1, 999, 1000, 1001, 20_000] {
        under.turn(Some(Duration::from_micros(timeout)));
    }
}

fn many_connections(make: Make) {
    const COUNT: usize = 400;
    let mut under = Under::new(make);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        // Accepts all before it answers any, the last one first.
        let mut streams: Vec<_> = (0..COUNT).map(|_| listener.accept().expect("a connection").0).collect();
        for stream in streams.iter_mut().rev() {
            let bytes = read(stream, 1000);
            stream.write_all(&bytes).expect("written");
        }
    });
    // In portions, because the listener's backlog is short.
    for portion in (0..COUNT as u64).collect::<Vec<_>>().chunks(50) {
        for id in portion {
            under.driver.connect(ConnectionId(*id), address);
            under.driver.send(head(ConnectionId(*id), &pattern(1000, *id as u8)));
        }
        let expected = portion[portion.len() - 1] as usize + 1;
        under.until("connected", |told| told.connected.len() == expected);
    }
    under.until("echoed and hung up", |told| told.closed.len() == COUNT);
    thread.join().expect("no panic");
    assert_eq!(under.told.sent.len(), COUNT);
    for id in 0..COUNT as u64 {
        assert_eq!(under.told.received(ConnectionId(id)), pattern(1000, id as u8));
    }
}

fn a_flood_does_not_starve_others(make: Make) {
    let mut under = Under::new(make);
    let flood = |mut stream: TcpStream| while stream.write_all(&[7; 100_000]).is_ok() {};
    let (flooder, thread) = peer(1, flood);
    let (address, quiet) = peer(1, |mut stream| {
        for _ in 0..20 {
            let bytes = read(&stream, 4);
            stream.write_all(&bytes).expect("written");
        }
    });
    let loud = under.connect(1, flooder);
    let id = under.connect(2, address);
    for round in 1..=20 {
        under.driver.send(head(id, b"ping"));
        under.until("echoed", |told| told.received(id).len() == 4 * round);
        under.told.received.remove(&loud);
    }
    under.driver.close(loud);
    under.until("closed", |told| told.closed.iter().any(|(closed, ..)| *closed == loud));
    joined(thread);
    joined(quiet);
}

fn closing_gives_a_stuck_transmit_back(make: Make) {
    let mut under = Under::new(make);
    let (go, wait) = mpsc::channel::<()>();
    let (address, thread) = peer(1, move |stream| {
        wait.recv().expect("told to go on");
        drop(stream);
    });
    let id = under.connect(1, address);
    let big = || Transmit {
        connection: id,
        head: vec![1; 40 << 20],
        pieces: vec![Piece::Head { start: 0, len: 40 << 20 }],
        ..Transmit::default()
    };
    under.driver.send(big());
    under.driver.send(head(id, b"second"));
    for _ in 0..5 {
        under.turn(Some(Duration::from_millis(1)));
    }
    under.driver.close(id);
    under.driver.close(id);
    under.until("closed", |told| told.closed.len() == 1);
    let (closed, reason, unsent) = under.told.closed.pop().expect("just seen");
    assert_eq!((closed, reason), (id, io::ErrorKind::ConnectionAborted));
    assert!(unsent == [big(), head(id, b"second")], "both come back, in order");
    assert!(under.told.sent.is_empty());
    go.send(()).expect("the peer waits");
    joined(thread);
}

/// A listener whose queue is full, so that connecting to it neither succeeds nor fails.
#[cfg(target_os = "linux")]
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    use std::os::fd::AsRawFd;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    // Called again, it shortens the queue.
    // SAFETY: clause (b).
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().expect("an address");
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let queued = std::iter::from_fn(connect).collect();
    (listener, queued)
}

#[cfg(target_os = "linux")]
fn closing_while_connecting(make: Make) {
    let mut under = Under::new(make);
    let (listener, _queued) = full_listener();
    let id = ConnectionId(1);
    under.driver.connect(id, listener.local_addr().expect("an address"));
    under.driver.send(head(id, b"waits"));
    for _ in 0..5 {
        under.turn(Some(Duration::from_millis(1)));
    }
    assert!(under.told.connected.is_empty() && under.told.closed.is_empty());
    under.driver.close(id);
    under.until("closed", |told| told.closed.len() == 1);
    let (closed, reason, unsent) = under.told.closed.pop().expect("just seen");
    assert_eq!((closed, reason, unsent), (id, io::ErrorKind::ConnectionAborted, vec![head(id, b"waits")]));
}

#[cfg(not(target_os = "linux"))]
fn closing_while_connecting(_: Make) {}

fn closing_an_idle_connection(make: Make) {
    let mut under = Under::new(make);
    let (address, thread) = peer(2, |mut stream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("an orderly end");
        rest
    });
    for id in 1..=2 {
        let id = under.connect(id, address);
        under.driver.send(head(id, b"last words"));
        under.until("sent", |told| told.sent.len() == id.0 as usize);
        under.driver.close(id);
        under.until("closed", |told| told.closed.len() == id.0 as usize);
    }
    assert_eq!(thread.join().expect("no panic"), [b"last words", b"last words"]);
}

fn a_transmit_without_a_connection_comes_back(make: Make) {
    let mut under = Under::new(make);
    under.driver.close(ConnectionId(5));
    under.driver.send(head(ConnectionId(5), b"lost"));
    under.turn(None);
    let (id, _, unsent) = under.told.closed.pop().expect("told by the next poll, which does not wait");
    assert_eq!((id, unsent), (ConnectionId(5), vec![head(ConnectionId(5), b"lost")]));
}

fn dropping_lets_go_of_everything(make: Make) {
    let mut under = Under::new(make);
    let (address, thread) = peer(1, |stream| {
        let mut rest = Vec::new();
        // A cut-off stream may end in either way.
        let _ = (&stream).read_to_end(&mut rest);
        rest.len()
    });
    let id = under.connect(1, address);
    under.driver.connect(ConnectionId(2), address);
    for _ in 0..8 {
        let pieces = vec![Piece::Arena { offset: 0, len: 8 << 20 }];
        under.driver.send(Transmit { connection: id, head: Vec::new(), pieces, ..Transmit::default() });
    }
    under.turn(Some(Duration::ZERO));
    let Under { driver, arena, .. } = under;
    let waker = driver.waker();
    drop(driver);
    assert_eq!(Arc::strong_count(&arena), 1, "nobody holds the arena");
    waker.wake();
    assert!(joined(thread) <= 64 << 20);
}
