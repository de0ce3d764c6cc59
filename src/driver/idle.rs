//! What the sender's thread does when it finds nothing to do.
//!
//! A wake-up costs both sides a system call and the sleeper some 5 to 50 µs, so it can pay to look again for a short
//! while before parking. It never pays for long: an idle producer must use no CPU, and on a machine with few cores the
//! spinner takes the core of the very thread it waits for. Hence the default is bounded three times: by a length, by
//! its own record of success, and by the number of cores.

use std::time::Duration;

use crate::config::IdleStrategy;

/// Longest spin before a park.
const SPIN: Duration = Duration::from_micros(40);
/// Below this a spin is not worth its clock reads, and none is made.
const SPIN_LEAST: Duration = Duration::from_micros(2);
/// After this many parks without a spin, one is tried again.
const RETRY_AFTER: u32 = 256;
/// With fewer cores than this nobody spins: the thread that would ring needs the core.
const CORES_TO_SPIN: usize = 4;

/// Decides how long to spin before the next park.
#[derive(Debug)]
pub struct Idle {
    strategy: IdleStrategy,
    /// Grows when spins find something, shrinks when they do not.
    budget: Duration,
    /// Longest budget; zero where spinning never pays.
    limit: Duration,
    /// Parks since the last spin.
    parks: u32,
}

impl Idle {
    /// For a machine with this many cores.
    pub fn new(strategy: IdleStrategy, cores: usize) -> Self {
        let limit = if cores < CORES_TO_SPIN { Duration::ZERO } else { SPIN };
        Self { strategy, budget: limit, limit, parks: 0 }
    }

    /// How long to spin before parking now. `None`: for ever.
    pub fn spin(&mut self) -> Option<Duration> {
        match self.strategy {
            IdleStrategy::Spin => None,
            IdleStrategy::Park => Some(Duration::ZERO),
            IdleStrategy::SpinThenPark if self.budget >= SPIN_LEAST => Some(self.budget),
            IdleStrategy::SpinThenPark => {
                self.parks += 1;
                if self.parks < RETRY_AFTER {
                    return Some(Duration::ZERO);
                }
                self.parks = 0;
                Some(self.limit)
            }
        }
    }

    /// Whether the spin that [`spin`](Self::spin) allowed found something before it was over.
    pub fn spun(&mut self, found: bool) {
        self.budget = if found { (self.budget * 2).clamp(SPIN_LEAST, SPIN).min(self.limit) } else { self.budget / 2 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_as_long_as_it_pays() {
        let mut idle = Idle::new(IdleStrategy::SpinThenPark, 16);
        assert_eq!(idle.spin(), Some(SPIN));
        while idle.spin() != Some(Duration::ZERO) {
            idle.spun(false);
        }
        let parks = (0..2 * RETRY_AFTER).take_while(|_| idle.spin() == Some(Duration::ZERO)).count();
        assert_eq!(parks as u32 + 2, RETRY_AFTER, "then tries once more");
        for _ in 0..10 {
            idle.spun(true);
        }
        assert_eq!(idle.spin(), Some(SPIN), "success brings it back");
    }

    #[test]
    fn leaves_a_small_machine_alone() {
        let mut idle = Idle::new(IdleStrategy::SpinThenPark, 2);
        for _ in 0..3 * RETRY_AFTER {
            assert_eq!(idle.spin(), Some(Duration::ZERO));
        }
        assert_eq!(Idle::new(IdleStrategy::Spin, 1).spin(), None, "unless asked for");
        assert_eq!(Idle::new(IdleStrategy::Park, 64).spin(), Some(Duration::ZERO));
    }
}
