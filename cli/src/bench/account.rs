//! What is known of the records so far: written by the threads that send and by the listener.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use ringmail::{DeliveryError, DeliveryListener, RecordMetadata, SendError};

use super::report::histogram;
use crate::failures::Failures;
use crate::progress::Shown;

/// The tag of a record whose time is not taken.
pub const UNTIMED: u64 = 0;

/// The state that all threads share.
pub struct Account {
    /// Times are counted from here.
    epoch: Instant,
    /// No more is to be sent.
    pub stop: AtomicBool,
    /// Because somebody pressed Ctrl-C.
    interrupted: AtomicBool,
    /// Delivered before what is measured began.
    warm_up: AtomicU64,
    /// Records that the producer took.
    accepted: AtomicU64,
    delivered: AtomicU64,
    /// Accepted records that failed later.
    failed: AtomicU64,
    acks: Mutex<Histogram<u64>>,
    failures: Mutex<Failures>,
}

impl Account {
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            warm_up: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            acks: Mutex::new(histogram()),
            failures: Mutex::default(),
        }
    }

    /// The tag of a record whose ack time counts from `began`: nothing has to be looked up when the answer comes.
    #[inline]
    pub fn tag(&self, began: Instant) -> u64 {
        UNTIMED + 1 + (began - self.epoch).as_nanos() as u64
    }

    fn since(&self, tag: u64) -> u64 {
        (self.epoch.elapsed().as_nanos() as u64).saturating_sub(tag - 1 - UNTIMED)
    }

    /// Ends the run.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the run for the user. False when it had been interrupted before.
    pub fn interrupt(&self) -> bool {
        self.stop();
        !self.interrupted.swap(true, Ordering::Relaxed)
    }

    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// What was delivered so far was the warm-up.
    pub fn begin(&self) {
        self.warm_up.store(self.delivered.load(Ordering::Relaxed), Ordering::Relaxed);
        self.acks().reset();
    }

    /// So many more were taken by the producer.
    pub fn accept(&self, records: u64) {
        self.accepted.fetch_add(records, Ordering::Relaxed);
    }

    /// A record that the producer did not take.
    pub fn refuse(&self, error: &SendError) {
        self.failures().note_record(&format!("{:?}", std::mem::discriminant(error)), || error.to_string());
    }

    /// Records delivered since `begin`.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed) - self.warm_up.load(Ordering::Relaxed)
    }

    /// Accepted records that nobody has said anything of. Exact once all threads have ended.
    pub fn unanswered(&self) -> u64 {
        let answered = self.delivered.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed);
        self.accepted.load(Ordering::Relaxed).saturating_sub(answered)
    }

    pub fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn acks(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown for Account {
    fn position(&self) -> u64 {
        self.delivered()
    }

    fn words(&self) -> String {
        match self.failures().count() {
            0 => String::new(),
            failed => format!("{failed} failed"),
        }
    }
}

/// Hears of every record.
pub struct Listener {
    account: Arc<Account>,
    /// As in the account; the listener alone adds to it, so that no atomic addition is needed.
    delivered: u64,
}

impl Listener {
    pub fn new(account: Arc<Account>) -> Self {
        Self { account, delivered: 0 }
    }
}

impl DeliveryListener for Listener {
    #[inline]
    fn on_delivery(&mut self, tag: u64, result: Result<&RecordMetadata, &DeliveryError>) {
        match result {
            Ok(_) => {
                self.delivered += 1;
                self.account.delivered.store(self.delivered, Ordering::Relaxed);
                if tag != UNTIMED {
                    self.account.acks().saturating_record(self.account.since(tag));
                }
            }
            Err(error) => {
                self.account.failed.fetch_add(1, Ordering::Relaxed);
                let kind = format!("{:?} {:?}", error.kind(), error.written());
                self.account.failures().note_record(&kind, || error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tag_brings_the_time_back() {
        let account = Account::new();
        let began = account.epoch + Duration::from_nanos(12_345);
        assert_eq!(account.tag(began), 12_346);
        assert_ne!(account.tag(account.epoch), UNTIMED);
        std::thread::sleep(Duration::from_millis(5));
        let since = account.since(account.tag(account.epoch));
        assert!(since >= 5_000_000 && since <= account.epoch.elapsed().as_nanos() as u64);
        // Due later than now: cannot be, but clocks are read by several threads.
        assert_eq!(account.since(account.tag(Instant::now() + Duration::from_secs(60))), 0);
    }
}
