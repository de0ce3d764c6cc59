//! How fast records are sent, and when the run ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shorter pauses are not worth their switch: they add up first.
const LEAST: Duration = Duration::from_millis(2);

/// The end of the run: asked for by a signal, by a broken standard output, or when the last record was sent.
#[derive(Default)]
pub struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Asks for the end, and wakes everyone who waits.
    pub fn request(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    pub fn is_requested(&self) -> bool {
        *self.lock()
    }

    /// Waits until the end is asked for, or for so long.
    pub fn wait(&self, limit: Option<Duration>) {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut requested = self.lock();
        while !*requested {
            requested = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(requested).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return,
                Some(left) => self.changed.wait_timeout(requested, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the average rate since the start: after a standstill it catches up, as Kafka's throttler does.
pub struct Pace {
    /// Records per second; `None`: as fast as it goes.
    rate: Option<u64>,
    started: Instant,
}

impl Pace {
    /// A negative rate is none; with 0 nothing follows the first record.
    pub fn new(rate: i64, started: Instant) -> Self {
        Self { rate: u64::try_from(rate).ok(), started }
    }

    /// Waits until the record after `sent` ones is due, or until the end of the run.
    pub fn wait(&self, sent: u64, stop: &Stop) {
        let Some(rate) = self.rate.filter(|_| sent > 0) else { return };
        let pause = Self::due(sent, rate).map(|due| due.saturating_sub(self.started.elapsed()));
        if pause.is_none_or(|pause| pause >= LEAST) {
            stop.wait(pause);
        }
    }

    /// When record number `sent`, counted from 0, is due, since the start; `None`: never.
    fn due(sent: u64, rate: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(sent as f64 / rate as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_evenly() {
        assert_eq!(Pace::due(1500, 1000), Some(Duration::from_millis(1500)));
        assert_eq!(Pace::due(7 * 86_400 * 100_000, 100_000), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(Pace::due(1, 0), None);
    }

    #[test]
    fn the_rate_holds() {
        let started = Instant::now();
        let (pace, stop) = (Pace::new(2000, started), Stop::default());
        for sent in 1..=200 {
            pace.wait(sent, &stop);
            // It may be late, never early by more than it skips.
            assert!(started.elapsed() + LEAST >= Duration::from_micros(500 * sent), "{sent}");
        }
    }

    #[test]
    fn the_end_wakes_who_waits_for_ever() {
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let waits = [0, 1].map(|rate| {
                let stop = &stop;
                scope.spawn(move || Pace::new(rate, Instant::now()).wait(1_000_000, stop))
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(waits.iter().all(|wait| !wait.is_finished()));
            stop.request();
        });
        Pace::new(0, Instant::now()).wait(1, &stop);
        assert!(stop.is_requested());
    }
}
