//! Who holds how much: the free memory, and the use per leader broker, so that one stuck broker cannot take the pool
//! from the others.
//!
//! A share may grow while its use stays below twice what would still be free (a dynamic threshold: the fuller the
//! pool, the less one broker may hold; one broker among several ends at two thirds). With one broker there is no
//! limit. The counters are exact in sum and approximate at any moment: several takers may overshoot by a segment each.

use crate::sync::{Relaxed, plain};

/// Brokers counted apart; with more, several count together.
pub const SHARES: usize = 64;

/// `used <= ALPHA * free` after a take.
const ALPHA: i64 = 2;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(plain::AtomicU32);

/// Units in use, per share and together.
#[derive(Debug)]
pub struct Shares {
    total: u32,
    free: Counter,
    /// Brokers seen so far.
    brokers: plain::AtomicU32,
    used: Box<[Counter]>,
}

impl Shares {
    pub fn new(units: u32) -> Self {
        Self {
            total: units,
            free: Counter(plain::AtomicU32::new(units)),
            brokers: plain::AtomicU32::new(0),
            used: (0..SHARES).map(|_| Counter::default()).collect(),
        }
    }

    /// Units in all.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Units that nobody holds.
    pub fn free(&self) -> u32 {
        self.free.0.load(Relaxed)
    }

    /// Units that the share holds.
    #[cfg(all(test, loom))]
    pub fn used(&self, share: u32) -> u32 {
        self.used[share as usize].0.load(Relaxed)
    }

    /// One more broker leads a partition. Its share; 0 is the one of partitions without a leader.
    pub fn add_broker(&self) -> u32 {
        self.brokers.fetch_add(1, Relaxed) % (SHARES as u32 - 1) + 1
    }

    /// `units` more are within the share's limit. A share that holds nothing may always take once.
    pub fn permits(&self, share: u32, units: u32) -> bool {
        let used = self.used[share as usize].0.load(Relaxed);
        self.brokers() < 2 || is_within(used, self.free(), units)
    }

    /// Brokers that lead partitions.
    pub fn brokers(&self) -> u32 {
        self.brokers.load(Relaxed)
    }

    pub fn take(&self, share: u32, units: u32) {
        self.free.0.fetch_sub(units, Relaxed);
        self.used[share as usize].0.fetch_add(units, Relaxed);
    }

    pub fn put(&self, share: u32, units: u32) {
        self.used[share as usize].0.fetch_sub(units, Relaxed);
        self.free.0.fetch_add(units, Relaxed);
    }
}

/// Who holds `used` may take `more` of what is free: of units, and of blocks.
pub fn is_within(used: u32, free: u32, more: u32) -> bool {
    used == 0 || i64::from(used) + i64::from(more) <= ALPHA * (i64::from(free) - i64::from(more))
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_brokers_stops_at_two_thirds() {
        let shares = Shares::new(900);
        assert_eq!((shares.add_broker(), shares.permits(1, 900)), (1, true), "a single broker may take all");
        let second = shares.add_broker();
        let mut taken = 0;
        while shares.permits(1, 10) {
            shares.take(1, 10);
            taken += 10;
        }
        assert_eq!(taken, 600);
        assert!(shares.permits(second, 100), "the rest is for the others");
        shares.put(1, 10);
        assert!(shares.permits(1, 10));
        assert!(shares.permits(0, 880), "a share without use may take once");
    }

    #[test]
    fn many_brokers_share_counters() {
        let shares = Shares::new(1);
        let all: Vec<_> = (0..200).map(|_| shares.add_broker()).collect();
        assert!(all.iter().all(|share| (1..SHARES as u32).contains(share)), "0 stays the leaderless one's");
    }
}
