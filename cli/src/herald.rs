//! Says which lines fail while others are still read: an input may never end, and then nobody sees the report.
//!
//! How the brokers are, and how many records wait, the library says (see `log`); but it does not know lines.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failures::Failures;
use crate::log::say;

/// Failures that come together are told together.
const GATHER: Duration = Duration::from_secs(1);

/// Lines that failed, and a bell for whoever is to tell of them.
#[derive(Default)]
pub struct Ledger {
    failures: Mutex<Failures>,
    ended: AtomicBool,
    changed: Condvar,
}

impl Ledger {
    /// Notes that a line failed, as [`Failures::note`] does.
    pub fn note(&self, line: u64, kind: &str, text: impl FnOnce() -> String) {
        self.failures().note(line, kind, text);
        self.changed.notify_one();
    }

    /// All that failed so far.
    pub fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, failures: MutexGuard<'a, Failures>, longest: Duration) -> MutexGuard<'a, Failures> {
        self.changed.wait_timeout(failures, longest).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells of each reason when lines begin to fail for it, and then once a minute, until it is ended.
    fn tell(&self) {
        let mut failures = self.failures();
        let mut since: Option<Instant> = None;
        while !self.ended.load(Ordering::Relaxed) {
            let now = Instant::now();
            let due = failures.next_news(now).map(|at| at.max(since.map_or(at, |since| since + GATHER)));
            match due {
                None => failures = self.wait(failures, Duration::from_secs(3600)),
                Some(_) if since.is_none() => since = Some(now),
                Some(at) if at > now => failures = self.wait(failures, at - now),
                Some(_) => {
                    let news = failures.news(now);
                    drop(failures);
                    news.iter().for_each(|line| say(&format!("ringmail: {line}")));
                    (failures, since) = (self.failures(), None);
                }
            }
        }
    }
}

/// Tells of failures from its start until it is dropped.
pub struct Herald {
    ledger: Arc<Ledger>,
    thread: Option<JoinHandle<()>>,
}

impl Herald {
    /// Tells of what is noted in this ledger.
    pub fn start(ledger: Arc<Ledger>) -> Self {
        let told = ledger.clone();
        Self { ledger, thread: Some(std::thread::spawn(move || told.tell())) }
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        // Under the lock: the thread either sees it or is waiting for the bell.
        let failures = self.ledger.failures();
        self.ledger.ended.store(true, Ordering::Relaxed);
        drop(failures);
        self.ledger.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
