//! The sender's two times, from one clock read per turn.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sender::transmit::Now;

/// How long the wall clock is carried on by the monotonic one before it is read again, so that a step of the system's
/// clock shows within this time.
const RESYNC: Duration = Duration::from_secs(1);

/// Reads monotonic time and derives wall time from it.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Monotonic time of the last look at the wall clock, and what it said: microseconds since the Unix epoch.
    synced: (Duration, i64),
}

impl Clock {
    /// A clock whose monotonic time begins now, at zero.
    pub fn new() -> Self {
        Self { start: Instant::now(), synced: (Duration::ZERO, unix_us()) }
    }

    /// What time it is. Wall time is within a millisecond of the system's, except for up to [`RESYNC`] after that one
    /// was stepped.
    pub fn now(&mut self) -> Now {
        let monotonic = self.start.elapsed();
        if monotonic - self.synced.0 >= RESYNC {
            self.synced = (monotonic, unix_us());
        }
        let unix_us = self.synced.1 + (monotonic - self.synced.0).as_micros() as i64;
        Now { monotonic, unix_ms: unix_us / 1000 }
    }
}

/// The system's wall clock; a clock set before 1970 reads as 1970.
fn unix_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_wall_clock_and_reads_it_again() {
        let mut clock = Clock::new();
        let first = clock.now();
        assert!(unix_us() / 1000 - first.unix_ms >= 0);
        // As if the wall clock had been stepped by an hour since the last look.
        clock.synced.1 -= 3_600_000_000;
        assert!(first.unix_ms - clock.now().unix_ms > 3_500_000, "carried on by the monotonic clock");
        clock.start -= RESYNC;
        let later = clock.now();
        assert!(later.unix_ms >= first.unix_ms, "read again");
        assert!(later.monotonic >= RESYNC);
    }
}
