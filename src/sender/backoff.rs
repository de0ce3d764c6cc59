//! Exponential backoff with jitter (KIP-580): `base * 2^failures`, at most `max`, ± 20 %.

use std::time::Duration;

/// How long to wait after repeated failures.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first failure.
    pub base: Duration,
    /// Never longer.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row, 1 or more; none after 0. `random` spreads it.
    pub fn after(self, failures: u32, random: u64) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let factor = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        let plain = self.base.saturating_mul(factor).min(self.max);
        // 0.8 to 1.2, in thousandths.
        let thousandths = 800 + (random % 401) as u32;
        (plain / 1000).saturating_mul(thousandths).min(self.max)
    }
}

/// A small random sequence (splitmix64): spreads retries, chooses brokers. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_a_fifth_and_stops_at_the_maximum() {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_millis(1000) };
        assert_eq!(backoff.after(0, 7), Duration::ZERO);
        for (failures, plain) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
            for random in 0..500 {
                let wait = backoff.after(failures, random).as_micros();
                assert!((plain * 800..=plain * 1200).contains(&wait), "{failures}: {wait}");
            }
        }
        for failures in [5, 6, 31, 32, 33, 1000] {
            assert!(backoff.after(failures, 400) <= Duration::from_millis(1000));
            assert!(backoff.after(failures, 0) >= Duration::from_millis(800));
        }
    }
}
