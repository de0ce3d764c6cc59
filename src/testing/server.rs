//! The broker behind TCP: a thread that accepts for each node, a thread for each connection, on loopback.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::broker::{BrokerModel, Incoming, Reply};
use super::decode::StoredRecord;
use super::log::StoredBatch;
use super::options::{BrokerOptions, TopicOptions};
use crate::wire::frame::FrameReader;

/// How much is read from a connection at once.
const READ_BYTES: usize = 256 * 1024;

/// A running broker. Dropping it stops it.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    acceptors: Vec<JoinHandle<()>>,
}

/// What a broker has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BrokerStats {
    /// Produce requests that were carried out or refused.
    pub produce_requests: u64,
    /// Records in all logs, or that were in them and discarded.
    pub records: u64,
    /// Bytes of the batches that they came in.
    pub bytes: u64,
    /// Connections that were accepted.
    pub connections: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Rung when something was appended, and when the broker stops.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    model: BrokerModel,
    stopping: bool,
    /// To cut connections from outside.
    connections: HashMap<u64, TcpStream>,
    /// The threads of connections, perhaps ended.
    threads: Vec<JoinHandle<()>>,
    next_connection: u64,
}

impl Shared {
    /// A fault hook of a test may panic while it holds the lock; the state is whole all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `until`. False when the broker stops.
    fn wait(&self, until: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.stopping || left.is_zero() {
                return !state.stopping;
            }
            state = self.wait_for_change(state, left);
        }
    }

    fn wait_for_change<'a>(&'a self, state: MutexGuard<'a, State>, longest: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Broker {
    /// Listens on 127.0.0.1 and starts to answer.
    pub fn start(mut options: BrokerOptions) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for node in 0..options.brokers.max(1) as u16 {
            let port = if options.port == 0 { 0 } else { options.port.saturating_add(node) };
            listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?);
        }
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        options.cluster_id.get_or_insert_with(|| format!("ringmail-testing-{}", addresses[0].port()));
        let state = State {
            model: BrokerModel::new(options, addresses.clone()),
            stopping: false,
            connections: HashMap::new(),
            threads: Vec::new(),
            next_connection: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut broker = Self { shared, addresses, acceptors: Vec::new() };
        for (node, listener) in (0..).zip(listeners) {
            let shared = broker.shared.clone();
            let thread = std::thread::Builder::new().name(format!("broker-{node}"));
            broker.acceptors.push(thread.spawn(move || accept(&shared, node, &listener))?);
        }
        Ok(broker)
    }

    /// Where the first node listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where each node listens, by node id.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// For `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// Does something with the model that has no method here. The broker answers nobody meanwhile.
    pub fn with_model<T>(&self, work: impl FnOnce(&mut BrokerModel) -> T) -> T {
        work(&mut self.shared.lock().model)
    }

    /// Makes a topic with this many partitions and otherwise the default settings. False when it exists.
    pub fn create_topic(&self, name: &str, partitions: i32) -> bool {
        self.with_model(|model| {
            let options = TopicOptions { partitions, ..model.options.topic.clone() };
            model.create_topic(name, options)
        })
    }

    /// Makes a topic. False when it exists.
    pub fn create_topic_with(&self, name: &str, options: TopicOptions) -> bool {
        self.with_model(|model| model.create_topic(name, options))
    }

    /// Makes `node` lead a partition from now on (-1: nobody).
    pub fn move_leader(&self, topic: &str, partition: i32, node: i32) -> bool {
        self.with_model(|model| model.move_leader(topic, partition, node))
    }

    /// Names of all topics, sorted.
    pub fn topics(&self) -> Vec<String> {
        self.with_model(|model| model.topics.keys().cloned().collect())
    }

    /// How many partitions a topic has, 0 if there is no such topic.
    pub fn partitions(&self, topic: &str) -> i32 {
        self.with_model(|model| model.topics.get(topic).map_or(0, |topic| topic.partitions.len() as i32))
    }

    /// Offset that the partition's next record will get, 0 if there is no such partition.
    pub fn next_offset(&self, topic: &str, partition: i32) -> i64 {
        self.with_model(|model| model.log(topic, partition).map_or(0, |log| log.next_offset))
    }

    /// The records of a partition, in the order of their offsets.
    ///
    /// # Panics
    ///
    /// When a stored batch cannot be decoded: it was checked when it came in, so one of the two decoders is wrong.
    pub fn log(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        self.with_model(|model| model.records(topic, partition))
    }

    /// The batches of a partition, in the order of their offsets.
    pub fn batches(&self, topic: &str, partition: i32) -> Vec<StoredBatch> {
        self.with_model(|model| model.log(topic, partition).map_or(Vec::new(), |log| log.batches().to_vec()))
    }

    /// What it has done so far.
    pub fn stats(&self) -> BrokerStats {
        let connections = self.shared.lock().next_connection;
        self.with_model(|model| {
            let produce_requests = model.produce_requests;
            let mut stats = BrokerStats { produce_requests, connections, ..BrokerStats::default() };
            for partition in model.topics.values().flat_map(|topic| &topic.partitions) {
                stats.records += partition.log.next_offset as u64;
                stats.bytes += partition.log.bytes;
            }
            stats
        })
    }

    /// Closes all connections; new ones are accepted.
    pub fn close_connections(&self) {
        for stream in self.shared.lock().connections.values() {
            // It may be closed already, which is all we want.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes all connections, ends all threads and frees the ports.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        for (address, acceptor) in self.addresses.iter().zip(self.acceptors.drain(..)) {
            // A connection wakes the thread out of accept; without one it cannot be joined.
            if TcpStream::connect(address).is_ok() {
                let _ = acceptor.join();
            }
        }
        self.close_connections();
        let threads = std::mem::take(&mut self.shared.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(shared: &Arc<Shared>, node: i32, listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else { continue };
        let id = state.next_connection;
        state.next_connection += 1;
        state.connections.insert(id, handle);
        let (ended, running) = std::mem::take(&mut state.threads).into_iter().partition(JoinHandle::is_finished);
        state.threads = running;
        drop::<Vec<_>>(ended);
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new().name(format!("broker-{node}-{id}")).spawn(move || {
            // Any error ends the connection, as the peer will notice.
            let _ = serve(&for_thread, node, id, &stream);
            let _ = stream.shutdown(Shutdown::Both);
            for_thread.lock().connections.remove(&id);
        });
        match thread {
            Ok(thread) => state.threads.push(thread),
            Err(_) => drop(state.connections.remove(&id)),
        }
    }
}

fn serve(shared: &Shared, node: i32, connection: u64, mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut frames = FrameReader::default();
    let most = shared.lock().model.options.socket_request_max_bytes;
    let mut out = Vec::new();
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        frames.push(&buffer[..len]);
        while let Some(frame) = frames.next().map_err(io::Error::other)? {
            out.clear();
            match handle(shared, node, connection, &frame, &mut out) {
                Reply::Answer { delay, mute } => {
                    if !delay.is_zero() && !shared.wait(Instant::now() + delay) {
                        return Ok(());
                    }
                    stream.write_all(&out)?;
                    if !mute.is_zero() && !shared.wait(Instant::now() + mute) {
                        return Ok(());
                    }
                }
                Reply::Nothing => {}
                Reply::Hang => return swallow(stream, &mut buffer),
                Reply::Close | Reply::Wait(_) => return Ok(()),
            }
        }
        if frames.announced().is_some_and(|size| usize::try_from(size).is_ok_and(|size| size > most)) {
            return Ok(());
        }
    }
}

/// Carries out one request, waiting where a Fetch has to.
fn handle(shared: &Shared, node: i32, connection: u64, frame: &[u8], out: &mut Vec<u8>) -> Reply {
    let mut until = None;
    let mut state = shared.lock();
    while !state.stopping {
        let left = until.map_or(Duration::MAX, |until: Instant| until.saturating_duration_since(Instant::now()));
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        let requests = state.model.produce_requests;
        let incoming = Incoming { node, connection, unix_ms, may_wait: !left.is_zero(), frame };
        let reply = state.model.handle(&incoming, out);
        let Reply::Wait(longest) = reply else {
            let appended = state.model.produce_requests != requests;
            drop(state);
            if appended {
                shared.changed.notify_all();
            }
            return reply;
        };
        until.get_or_insert_with(|| Instant::now() + longest);
        // The lock is given up only inside: an append cannot come in between unnoticed.
        state = shared.wait_for_change(state, left.min(longest));
    }
    Reply::Close
}

/// Keeps a connection open without a word until the peer, or somebody here, closes it.
fn swallow(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    while stream.read(buffer)? > 0 {}
    Ok(())
}
