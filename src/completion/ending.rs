//! How a producer ends: callers that wait for it, what they wait for, and until when.
//!
//! ```text
//! close ─► the sender gives its report ─► connections are gone ─► the callback thread has run everything ─► over
//!                                                                 └ or had its time ────────────────────────┘
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::CloseReport;
use crate::sync::WaitList;

/// How long after a close's timeout callbacks and the sink may still run before the close returns without them.
pub const GRACE: Duration = Duration::from_secs(1);

/// One per producer.
#[derive(Debug, Default)]
pub struct Ending {
    /// The earliest time that a close has set: for brokers and for sinks.
    by: Mutex<Option<Instant>>,
    /// What was left, once the sender knows.
    report: OnceLock<CloseReport>,
    /// There is a callback thread, or there is going to be one.
    callbacks: AtomicBool,
    over: AtomicBool,
    /// Woken when it is over, and when the callback thread ends.
    pub waiters: WaitList,
}

impl Ending {
    /// A close waits for `timeout` at most. Of several closes the earliest time counts.
    pub fn set_timeout(&self, timeout: Duration) {
        let Some(at) = Instant::now().checked_add(timeout) else { return };
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        *by = Some(by.map_or(at, |by| by.min(at)));
    }

    fn by(&self) -> Option<Instant> {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a close still waits for brokers and sinks; `None`: nobody closes, or with no limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.by().map(|by| by.saturating_duration_since(Instant::now()))
    }

    /// When a caller that waits for the callback thread alone gives up.
    pub fn last_moment(&self) -> Option<Instant> {
        self.by()?.checked_add(GRACE)
    }

    /// The sender: this was left.
    pub fn set_report(&self, report: CloseReport) {
        let _ = self.report.set(report);
    }

    /// What was left.
    pub fn report(&self) -> Option<&CloseReport> {
        self.report.get()
    }

    /// A callback thread is being started.
    pub fn callbacks_begin(&self) {
        self.callbacks.store(true, Ordering::Release);
    }

    /// The callback thread has run everything, and its sink has finished.
    pub fn callbacks_end(&self) {
        self.callbacks.store(false, Ordering::Release);
        self.waiters.wake_all();
    }

    /// Nobody runs callbacks: there is no thread, or none any more.
    pub fn callbacks_ended(&self) -> bool {
        !self.callbacks.load(Ordering::Acquire)
    }

    /// The sender is gone.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// The sender is gone, and before it the callback thread unless that took too long, or the sender died.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_timeout_counts() {
        let ending = Ending::default();
        assert_eq!(ending.time_left(), None);
        ending.set_timeout(Duration::MAX);
        assert_eq!(ending.time_left(), None, "a time too far away to be expressed is no limit");
        for timeout in [1000, 10, 500].map(Duration::from_secs) {
            ending.set_timeout(timeout);
        }
        let left = ending.time_left().unwrap();
        assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(1), "{left:?}");
        assert!(ending.last_moment().unwrap() > Instant::now() + left);
        ending.set_timeout(Duration::ZERO);
        assert_eq!(ending.time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn it_is_over_when_the_sender_is_gone() {
        let ending = Ending::default();
        assert!(ending.callbacks_ended(), "there is none");
        ending.callbacks_begin();
        assert!(!ending.callbacks_ended());
        ending.callbacks_end();
        assert!(ending.callbacks_ended() && !ending.is_over());
        ending.end();
        assert!(ending.is_over());
    }
}
