//! Names to addresses, off the sender's thread: the system's resolver may take seconds.
//!
//! Threads are started when a name is asked for and end when none was for a while. Dropping the resolver waits for
//! nobody: a thread inside the system's resolver ends when that returns.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_queue::SegQueue;

use super::Waker;

/// Names looked up at the same time; more wait in order. One dead name server must not hold up every other name.
const THREADS: usize = 4;
/// A thread without work for so long ends.
const IDLE: Duration = Duration::from_secs(5);

/// A name asked for, and its addresses in the order the system gave them (never empty), or why there are none.
#[derive(Debug)]
pub struct Answer {
    pub host: String,
    pub port: u16,
    pub result: Result<Vec<SocketAddr>, String>,
}

/// Looks names up.
pub struct Resolver {
    shared: Arc<Shared>,
    /// Questions without an answer taken yet. Only the sender's thread counts, so looking for answers costs nothing
    /// when none is due.
    open: usize,
}

/// What the resolver and its threads share.
struct Shared {
    work: Mutex<Work>,
    /// Rung when there is a name to look up, or when the resolver is gone.
    asked: Condvar,
    answers: SegQueue<Answer>,
    waker: Waker,
    lookup: Lookup,
    /// Threads started so far; for their names.
    started: AtomicUsize,
}

/// How a name is looked up; another one in tests.
type Lookup = fn(&str, u16) -> Result<Vec<SocketAddr>, String>;

/// Names to look up and who does it.
#[derive(Default)]
struct Work {
    names: VecDeque<(String, u16)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Resolver {
    /// A resolver whose answers ring `waker`.
    pub fn new(waker: Waker) -> Self {
        Self::with_lookup(waker, system_lookup)
    }

    /// The same with another way to look names up.
    fn with_lookup(waker: Waker, lookup: Lookup) -> Self {
        let shared = Shared {
            work: Mutex::default(),
            asked: Condvar::new(),
            answers: SegQueue::new(),
            waker,
            lookup,
            started: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared), open: 0 }
    }

    /// Asks for the addresses of `host`. An address written out (`::1` also in brackets) is answered at once.
    pub fn ask(&mut self, host: String, port: u16) {
        self.open += 1;
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return self.shared.answers.push(Answer { host, port, result: Ok(vec![SocketAddr::new(ip, port)]) });
        }
        let mut work = self.shared.work();
        if work.idle <= work.names.len() && work.threads < THREADS {
            match start(&self.shared) {
                Ok(()) => work.threads += 1,
                Err(error) if work.threads == 0 => {
                    let result = Err(format!("no thread to look it up: {error}"));
                    return self.shared.answers.push(Answer { host, port, result });
                }
                // The others will come to it.
                Err(_) => {}
            }
        }
        work.names.push_back((host, port));
        self.shared.asked.notify_one();
    }

    /// Whether an answer is there to be taken.
    pub fn is_answered(&self) -> bool {
        self.open > 0 && !self.shared.answers.is_empty()
    }

    /// The next answer, if one is there. Answers come in the order in which they were found.
    pub fn answer(&mut self) -> Option<Answer> {
        if self.open == 0 {
            return None;
        }
        let answer = self.shared.answers.pop()?;
        self.open -= 1;
        Some(answer)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let mut work = self.shared.work();
        work.closed = true;
        work.names.clear();
        self.shared.asked.notify_all();
    }
}

impl Shared {
    /// The work list. No code that can panic runs under the lock.
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next name; `None` when it is time to end.
    fn next(&self) -> Option<(String, u16)> {
        let mut work = self.work();
        loop {
            if let Some(name) = work.names.pop_front() {
                return Some(name);
            }
            if !work.closed {
                work.idle += 1;
                let (back, wait) = self.asked.wait_timeout(work, IDLE).unwrap_or_else(PoisonError::into_inner);
                work = back;
                work.idle -= 1;
                if !wait.timed_out() || !work.names.is_empty() {
                    continue;
                }
            }
            work.threads -= 1;
            return None;
        }
    }
}

/// Starts one thread.
fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let mine = shared.clone();
    let name = format!("ringmail-resolver-{}", shared.started.fetch_add(1, Relaxed));
    std::thread::Builder::new().name(name).spawn(move || {
        while let Some((host, port)) = mine.next() {
            let result = (mine.lookup)(&host, port);
            mine.answers.push(Answer { host, port, result });
            mine.waker.wake();
        }
    })?;
    Ok(())
}

/// Asks the system.
fn system_lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    #[cfg(feature = "testing")]
    if let Some(addresses) = made_up(host) {
        return Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let addresses: Vec<_> = (host, port).to_socket_addrs().map_err(|error| error.to_string())?.collect();
    if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
}

/// Names that tests made up, and where they lead.
#[cfg(feature = "testing")]
static NAMES: Mutex<Vec<(String, Vec<IpAddr>)>> = Mutex::new(Vec::new());

#[cfg(feature = "testing")]
fn made_up(host: &str) -> Option<Vec<IpAddr>> {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.iter().rev().find(|(name, _)| name == host).map(|(_, addresses)| addresses.clone())
}

/// From now on, in this process, producers find these addresses under the name `host`, in this order, and do not ask the
/// system for it.
#[cfg(feature = "testing")]
pub fn set_name(host: &str, addresses: &[IpAddr]) {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).push((host.to_owned(), addresses.to_vec()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A poll whose waker the resolver rings.
    fn poll() -> (mio::Poll, Waker) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        (poll, Waker(super::super::Wake::Mio(Arc::new(waker))))
    }

    fn wait(poll: &mut mio::Poll, resolver: &mut Resolver) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(answer) = resolver.answer() {
                return answer;
            }
            assert!(Instant::now() < deadline, "no answer");
            poll.poll(&mut mio::Events::with_capacity(4), Some(Duration::from_secs(20))).expect("a poll");
        }
    }

    #[test]
    fn written_out_addresses_need_no_thread() {
        let (_poll, waker) = poll();
        let mut resolver = Resolver::new(waker);
        for (host, address) in [("127.0.0.1", "127.0.0.1:9092"), ("::1", "[::1]:9092"), ("[::1]", "[::1]:9092")] {
            resolver.ask(host.to_owned(), 9092);
            let answer = resolver.answer().expect("at once");
            assert_eq!((answer.host.as_str(), answer.port), (host, 9092));
            assert_eq!(answer.result, Ok(vec![address.parse().expect("an address")]));
        }
        assert_eq!(resolver.shared.started.load(Relaxed), 0);
        assert!(resolver.answer().is_none());
    }

    #[test]
    fn names_are_looked_up_elsewhere() {
        let (mut poll, waker) = poll();
        let mut resolver = Resolver::new(waker);
        resolver.ask("localhost".to_owned(), 1);
        let addresses = wait(&mut poll, &mut resolver).result.expect("localhost is known everywhere");
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 1));
        resolver.ask("no such name".to_owned(), 1);
        assert!(wait(&mut poll, &mut resolver).result.is_err());
    }

    #[test]
    fn a_stuck_name_does_not_hold_up_others() {
        /// Released at the end of the test.
        static STUCK: Mutex<()> = Mutex::new(());
        fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
            if host == "stuck" {
                drop(STUCK.lock());
            }
            Ok(vec![SocketAddr::from(([1, 2, 3, 4], port)), SocketAddr::from(([1, 2, 3, 5], port))])
        }
        let (mut poll, waker) = poll();
        let mut resolver = Resolver::with_lookup(waker, lookup);
        let held = STUCK.lock().expect("not poisoned");
        resolver.ask("stuck".to_owned(), 1);
        for port in 0..100 {
            resolver.ask("quick".to_owned(), port);
        }
        for _ in 0..100 {
            let answer = wait(&mut poll, &mut resolver);
            assert_eq!(answer.host, "quick");
            let last = answer.result.expect("two addresses").iter().map(|a| a.to_string()).collect::<Vec<_>>();
            assert_eq!(last, [format!("1.2.3.4:{}", answer.port), format!("1.2.3.5:{}", answer.port)], "in order");
        }
        assert!(resolver.shared.started.load(Relaxed) <= THREADS);
        drop(held);
        assert_eq!(wait(&mut poll, &mut resolver).host, "stuck");
    }
}
