//! When records are due at a fixed rate, and how a thread waits until then without burning its core.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest that a thread spins before a record is due, for sleeping is not exact.
const SPIN: Duration = Duration::from_micros(20);
/// The share of the time between two records that may be spun away: one in so many.
const SPIN_SHARE: u32 = 50;
/// The shortest sleep; records that become due meanwhile are sent together.
const LEAST: Duration = Duration::from_micros(100);
/// The longest sleep, so that Ctrl-C is heard.
const SLICE: Duration = Duration::from_millis(100);

/// One thread's part of an open loop: record `i` of all is due `i / rate` seconds after the start, whatever became of
/// those before it. Of `threads` threads, number `t` sends the records `t`, `t + threads`, `t + 2 * threads`, …
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    nanos_per_record: f64,
    thread: u64,
    threads: u64,
}

impl Pace {
    /// `rate`: records per second of all threads together.
    pub fn new(start: Instant, rate: f64, thread: u64, threads: u64) -> Self {
        Self { start, nanos_per_record: 1e9 / rate, thread, threads }
    }

    /// When this thread's record `nth` is due. Computed anew for each, so that no error adds up.
    pub fn due(&self, nth: u64) -> Instant {
        self.start + self.after_start(nth)
    }

    fn after_start(&self, nth: u64) -> Duration {
        Duration::from_nanos(((self.thread + nth * self.threads) as f64 * self.nanos_per_record) as u64)
    }

    /// Waits until `due`, and returns the time then. `None`: there is no use any more.
    pub fn wait(&self, due: Instant, stop: &AtomicBool) -> Option<Instant> {
        let gap = Duration::from_nanos((self.nanos_per_record * self.threads as f64) as u64);
        let spin = SPIN.min(gap / SPIN_SHARE);
        let least = if gap < LEAST { LEAST } else { Duration::ZERO };
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Instant::now();
            let left = due.saturating_duration_since(now);
            if left.is_zero() {
                return Some(now);
            }
            if left > spin {
                std::thread::sleep((left - spin).max(least).min(SLICE));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Has the kernel wake this thread when it asked to be woken, not up to 50 µs later. Elsewhere than on Linux, and when
/// it refuses, records go out that much later.
pub fn sleep_exactly() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_timerslack(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(rate: f64, threads: u64, each: u64) -> Vec<Vec<u64>> {
        let start = Instant::now();
        let of = |t| (0..each).map(|n| Pace::new(start, rate, t, threads).after_start(n).as_nanos() as u64).collect();
        (0..threads).map(of).collect()
    }

    #[test]
    fn records_are_due_at_the_rate() {
        assert_eq!(dues(1000.0, 1, 4), [[0, 1_000_000, 2_000_000, 3_000_000]]);
        assert_eq!(dues(0.5, 1, 3), [[0, 2_000_000_000, 4_000_000_000]]);
        // Seven per second for four years: no error adds up.
        let pace = Pace::new(Instant::now(), 7.0, 0, 1);
        let years = Duration::from_secs(4 * 365 * 86_400);
        assert!(pace.after_start(7 * years.as_secs()).abs_diff(years) < Duration::from_micros(1));
    }

    #[test]
    fn threads_share_the_rate_evenly() {
        let mut all: Vec<u64> = dues(1000.0, 3, 5).concat();
        all.sort_unstable();
        assert_eq!(all, dues(1000.0, 1, 15).concat());
        assert_eq!(dues(1000.0, 3, 3)[1], [1_000_000, 4_000_000, 7_000_000]);
    }

    #[test]
    fn nobody_is_released_early() {
        let stop = AtomicBool::new(false);
        // Apart by a sleep, by a spin, and by less than the shortest sleep.
        for rate in [300.0, 5_000.0, 1e6] {
            let pace = Pace::new(Instant::now(), rate, 0, 1);
            for nth in 0..20 {
                let now = pace.wait(pace.due(nth), &stop).unwrap();
                assert!(now >= pace.due(nth) && now <= Instant::now());
            }
        }
    }

    #[test]
    fn who_is_behind_does_not_wait_and_is_not_forgiven() {
        let start = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let pace = Pace::new(start, 10.0, 0, 1);
        let stop = AtomicBool::new(false);
        let now = pace.wait(pace.due(5), &stop).unwrap();
        // Due at 0.5 s: its 59.5 s of delay count, and the next record keeps its own time.
        assert!(now - pace.due(5) >= Duration::from_millis(59_500));
        assert_eq!(pace.due(6) - start, Duration::from_millis(600));
    }

    #[test]
    fn a_wait_ends_when_there_is_no_use() {
        let pace = Pace::new(Instant::now(), 0.001, 0, 1);
        assert_eq!(pace.wait(pace.due(1000), &AtomicBool::new(true)), None);
    }
}
