//! What the process has used so far, and what reading the clock takes.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::report::histogram;
use crate::allocations;

/// A reading; the difference of two is what lay between.
#[derive(Clone, Copy)]
pub struct Usage {
    at: Instant,
    cpu: Duration,
    allocations: u64,
}

/// What lay between two readings.
pub struct Used {
    pub seconds: f64,
    /// User and system time of all threads, in seconds.
    pub cpu_s: f64,
    pub allocations: u64,
}

impl Usage {
    /// Now.
    pub fn now() -> Self {
        let cpu = getrusage(UsageWho::RUSAGE_SELF)
            .map_or(0, |usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
        let cpu = Duration::from_micros(u64::try_from(cpu).unwrap_or(0));
        Self { at: Instant::now(), cpu, allocations: allocations::count() }
    }

    /// Since then.
    pub fn until_now(&self) -> Used {
        let now = Self::now();
        Used {
            seconds: (now.at - self.at).as_secs_f64(),
            cpu_s: now.cpu.saturating_sub(self.cpu).as_secs_f64(),
            allocations: now.allocations - self.allocations,
        }
    }
}

/// The most memory that this process has had so far, in KiB.
pub fn max_rss_kib() -> u64 {
    // Linux hands `ru_maxrss` down from whoever started this process; VmHWM is its own.
    let own = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    });
    own.unwrap_or_else(|| {
        let max_rss = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| u64::try_from(usage.max_rss()).unwrap_or(0));
        if cfg!(target_vendor = "apple") { max_rss / 1024 } else { max_rss }
    })
}

/// The p50 of what two readings of the clock in a row lie apart, in nanoseconds: what a measured time has too much.
pub fn timer_ns() -> u64 {
    let mut pairs = histogram();
    for _ in 0..10_000 {
        let began = Instant::now();
        pairs.saturating_record((Instant::now() - began).as_nanos() as u64);
    }
    pairs.value_at_quantile(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows() {
        let before = Usage::now();
        while before.until_now().cpu_s < 0.02 {
            std::hint::black_box(vec![1; 1000]);
        }
        let used = before.until_now();
        assert!(used.seconds > 0.0 && used.allocations > 0);
    }

    #[test]
    fn memory_shows() {
        let before = max_rss_kib();
        assert!(before > 100);
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        // Other tests run meanwhile, so it is not exactly so much.
        assert!(max_rss_kib() >= before.max(64 << 10));
    }
}
