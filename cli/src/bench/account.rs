//! What is known of the records so far: written by the threads that send and by those that hear.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use ringmail::{DeliveryError, SendError};

use super::report::histogram;
use crate::failures::Failures;
use crate::progress::Shown;

/// The tag of a record whose time is not taken.
pub const UNTIMED: u64 = 0;

/// On cache lines of its own: written for every answer, beside what is read for every record.
#[repr(align(128))]
struct Apart<T>(T);

/// How many records there were of each kind, at one moment.
pub struct Totals {
    /// Delivered since `begin`.
    pub delivered: u64,
    /// Not delivered, or nobody knows.
    pub errors: u64,
    /// Of these: those of which nobody has said anything.
    pub unanswered: u64,
}

/// The state that all threads share. One for the whole process, so that a callback may hold it at no cost.
pub struct Account {
    /// Times are counted from here.
    epoch: Instant,
    /// No more is to be sent.
    pub stop: AtomicBool,
    /// Answers are waited for no longer.
    abandoned: AtomicBool,
    /// Because somebody pressed Ctrl-C.
    interrupted: AtomicBool,
    /// Delivered before what is measured began.
    warm_up: AtomicU64,
    /// Records that the producer took.
    accepted: AtomicU64,
    delivered: Apart<AtomicU64>,
    /// Accepted records that failed later.
    failed: AtomicU64,
    acks: Mutex<Histogram<u64>>,
    failures: Mutex<Failures>,
}

impl Account {
    pub fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            warm_up: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            delivered: Apart(AtomicU64::new(0)),
            failed: AtomicU64::new(0),
            acks: Mutex::new(histogram()),
            failures: Mutex::default(),
        }))
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

    /// No answer is waited for any longer.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
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
        self.warm_up.store(self.delivered.0.load(Ordering::Relaxed), Ordering::Relaxed);
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

    /// Nothing can be sent any more, for a reason that is no record's.
    pub fn give_up(&self, why: String) {
        self.failures().note_record("given up", || why);
        self.stop();
    }

    /// Exact once all threads that send have ended, also while answers come.
    pub fn totals(&self) -> Totals {
        // A failure is counted under this lock.
        let failures = self.failures();
        let delivered = self.delivered.0.load(Ordering::Relaxed);
        let answered = delivered + self.failed.load(Ordering::Relaxed);
        let unanswered = self.accepted.load(Ordering::Relaxed).saturating_sub(answered);
        Totals {
            delivered: delivered - self.warm_up.load(Ordering::Relaxed),
            errors: failures.count() + unanswered,
            unanswered,
        }
    }

    /// Hears of a record. To be called by one thread at a time, as the producer's callback thread does: that saves an
    /// atomic addition per record.
    #[inline]
    pub fn hear(&self, tag: u64, result: Result<(), &DeliveryError>) {
        match result {
            Ok(()) => {
                self.delivered.0.store(self.delivered.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                self.time(tag);
            }
            Err(error) => self.fail(error),
        }
    }

    /// As `hear`, from any thread.
    pub fn hear_from_any(&self, tag: u64, result: Result<(), &DeliveryError>) {
        match result {
            Ok(()) => {
                self.suppose(1);
                self.time(tag);
            }
            Err(error) => self.fail(error),
        }
    }

    /// So many more are taken for delivered: nobody listens for them.
    pub fn suppose(&self, records: u64) {
        self.delivered.0.fetch_add(records, Ordering::Relaxed);
    }

    #[inline]
    fn time(&self, tag: u64) {
        if tag != UNTIMED {
            self.acks().saturating_record(self.since(tag));
        }
    }

    #[cold]
    fn fail(&self, error: &DeliveryError) {
        let mut failures = self.failures();
        self.failed.fetch_add(1, Ordering::Relaxed);
        note(&mut failures, error);
    }

    /// Of a record that is not among those accepted.
    pub fn fail_uncounted(&self, error: &DeliveryError) {
        note(&mut self.failures(), error);
    }

    pub fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn acks(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(failures: &mut Failures, error: &DeliveryError) {
    failures.note_record(&format!("{:?} {:?}", error.kind(), error.written()), || error.to_string());
}

impl Shown for &'static Account {
    fn position(&self) -> u64 {
        self.delivered.0.load(Ordering::Relaxed) - self.warm_up.load(Ordering::Relaxed)
    }

    fn words(&self) -> String {
        match self.failures().count() {
            0 => String::new(),
            failed => format!("{failed} failed"),
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
