//! A broker that misbehaves as it is told: it does all that [`BrokerModel`] does, but before an answer leaves, a hook
//! sees it and decides what is sent in its place, and whether the connection goes on, falls silent or ends.
//!
//! For tests of what a client does when the other side is broken, no Kafka at all, or hostile.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{BrokerModel, BrokerOptions, Incoming, Reply};
use crate::wire::frame::FrameReader;
use crate::wire::header::ApiKey;
use crate::wire::server::request_header;

pub use crate::wire::server::shape::{body_at, counts, with_count, with_each_count};

/// What happens on a connection, for the hook to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It was accepted; nothing was read yet.
    Accepted,
    /// A request came.
    Asked(Asked),
}

/// A request, and the answer that a sound broker would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The request's API, by number: 0 Produce, 3 Metadata, 18 ApiVersions, 22 InitProducerId.
    pub api: i16,
    /// Its version.
    pub version: i16,
    /// How many requests of this API came before, on any connection.
    pub nth: u64,
    /// The whole frame, its size included; empty where none is due (`acks=0`).
    pub answer: Vec<u8>,
}

/// What the broker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Sends these bytes, perhaps none, and goes on.
    Send(Vec<u8>),
    /// Sends these bytes, each in a segment of its own, and goes on.
    Drip(Vec<u8>),
    /// Sends these bytes and never any more; what comes is read and thrown away.
    SendAndHang(Vec<u8>),
    /// Sends these bytes and closes the connection.
    SendAndClose(Vec<u8>),
    /// Reads one byte, then closes the connection.
    ReadOneAndClose,
}

/// A running hostile broker, one node on loopback. Dropping it stops it.
pub struct HostileBroker {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

type Hook = dyn Fn(Occasion) -> Deed + Send + Sync;

struct Shared {
    state: Mutex<State>,
    hook: Box<Hook>,
}

struct State {
    model: BrokerModel,
    stopping: bool,
    streams: HashMap<u64, TcpStream>,
    threads: Vec<JoinHandle<()>>,
    accepted: u64,
    /// Requests by API.
    asked: HashMap<i16, u64>,
}

impl Shared {
    /// A hook that panics leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostileBroker {
    /// Listens on a port of 127.0.0.1 that the system chooses. `options.port` and `options.brokers` do not count, nor
    /// do the delays of `options`.
    pub fn start(options: BrokerOptions, hook: impl Fn(Occasion) -> Deed + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = State {
            model: BrokerModel::new(options, vec![address]),
            stopping: false,
            streams: HashMap::new(),
            threads: Vec::new(),
            accepted: 0,
            asked: HashMap::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), hook: Box::new(hook) });
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new().name("hostile".to_owned());
        let acceptor = Some(thread.spawn(move || accept(&for_thread, &listener))?);
        Ok(Self { shared, address, acceptor })
    }

    /// Where it listens; also what goes into `bootstrap.servers`, as text.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many requests of this API have come so far.
    pub fn asked(&self, api: i16) -> u64 {
        self.shared.lock().asked.get(&api).copied().unwrap_or(0)
    }

    /// Does something with the model: makes a topic, reads a log. The broker answers nobody meanwhile.
    pub fn with_model<T>(&self, work: impl FnOnce(&mut BrokerModel) -> T) -> T {
        work(&mut self.shared.lock().model)
    }
}

impl Drop for HostileBroker {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        // A connection wakes the thread out of accept; without one it cannot be joined.
        if let Some(acceptor) = self.acceptor.take()
            && TcpStream::connect(self.address).is_ok()
        {
            let _ = acceptor.join();
        }
        let (streams, threads) = {
            let mut state = self.shared.lock();
            (std::mem::take(&mut state.streams), std::mem::take(&mut state.threads))
        };
        for stream in streams.values() {
            // It may be closed already, which is all we want.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for HostileBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostileBroker").field("address", &self.address).finish_non_exhaustive()
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else { continue };
        let id = state.accepted;
        state.accepted += 1;
        state.streams.insert(id, handle);
        state.threads.retain(|thread| !thread.is_finished());
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new().name(format!("hostile-{id}")).spawn(move || {
            // Any error ends the connection, as the peer will notice.
            let _ = serve(&for_thread, id, &stream);
            let _ = stream.shutdown(Shutdown::Both);
            for_thread.lock().streams.remove(&id);
        });
        match thread {
            Ok(thread) => state.threads.push(thread),
            Err(_) => drop(state.streams.remove(&id)),
        }
    }
}

fn serve(shared: &Shared, connection: u64, mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if !act((shared.hook)(Occasion::Accepted), stream)? {
        return Ok(());
    }
    let mut buffer = vec![0; 64 << 10];
    let mut frames = FrameReader::default();
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        frames.push(&buffer[..len]);
        while let Some(frame) = frames.next().map_err(io::Error::other)? {
            let Some(asked) = answer(shared, connection, &frame)? else { return Ok(()) };
            if !act((shared.hook)(Occasion::Asked(asked)), stream)? {
                return Ok(());
            }
        }
    }
}

/// What a sound broker answers; `None` where it would close the connection.
fn answer(shared: &Shared, connection: u64, frame: &[u8]) -> io::Result<Option<Asked>> {
    let (header, _) = request_header(frame).map_err(io::Error::other)?;
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
    let mut state = shared.lock();
    let nth = state.asked.entry(header.api.0).or_insert(0);
    *nth += 1;
    let nth = *nth - 1;
    let mut answer = Vec::new();
    let reply = state.model.handle(&Incoming { node: 0, connection, unix_ms, may_wait: false, frame }, &mut answer);
    Ok(match reply {
        Reply::Answer { .. } | Reply::Nothing => {
            // A version that the broker does not know is answered in version 0.
            let refused = header.api == ApiKey::API_VERSIONS && answer.get(8..10) == Some(&[0, 35]);
            let version = if refused { 0 } else { header.version };
            Some(Asked { api: header.api.0, version, nth, answer })
        }
        Reply::Close | Reply::Hang | Reply::Wait(_) => None,
    })
}

/// False when the connection is to be closed.
fn act(deed: Deed, mut stream: &TcpStream) -> io::Result<bool> {
    match deed {
        Deed::Send(bytes) => stream.write_all(&bytes)?,
        Deed::Drip(bytes) => {
            for byte in bytes {
                stream.write_all(&[byte])?;
            }
        }
        Deed::SendAndHang(bytes) => {
            stream.write_all(&bytes)?;
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer)? > 0 {}
            return Ok(false);
        }
        Deed::SendAndClose(bytes) => {
            stream.write_all(&bytes)?;
            return Ok(false);
        }
        Deed::ReadOneAndClose => {
            let _ = stream.read(&mut [0])?;
            return Ok(false);
        }
    }
    Ok(true)
}
