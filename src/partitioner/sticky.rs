//! Records without a key: stay with one partition while its batch fills, then go to another (KIP-480).

use std::hash::{BuildHasher, RandomState};

use crate::sync::{AcqRel, Acquire, AtomicU64};

/// Guesses before every partition is looked at.
const GUESSES: u64 = 8;

/// The partition that a topic's records without a key go to at the moment.
///
/// One word: how often it has changed, and the partition plus 1 (0: none yet). The number of changes also numbers the
/// random choices, so that there is no other state to agree on.
pub(crate) struct Sticky {
    state: AtomicU64,
    seed: u64,
}

impl Sticky {
    /// With choices that differ from process to process.
    pub(crate) fn new() -> Self {
        Self::with_seed(RandomState::new().hash_one(0))
    }

    /// With choices that follow from `seed`.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self { state: AtomicU64::new(0), seed }
    }

    /// Where records go; `None` before the first choice. May be a partition that no longer exists or has no leader:
    /// that is for the caller to see, who then asks for the [`next`](Self::next).
    pub(crate) fn current(&self) -> Option<i32> {
        partition(self.state.load(Acquire))
    }

    /// Moves on from partition `from`, one of `count` (at least 1), and returns where records go from now on. If another
    /// thread has moved on already, its choice stands.
    ///
    /// Chooses evenly among the available partitions other than `from`. Without any other, stays; with none available
    /// at all, chooses evenly among all, so that records wait spread out.
    pub(crate) fn next(&self, mut from: Option<i32>, count: i32, available: impl Fn(i32) -> bool) -> i32 {
        assert!(count > 0, "a topic has partitions");
        let mut state = self.state.load(Acquire);
        loop {
            let current = partition(state);
            match current {
                Some(current) if Some(current) != from && current < count => return current,
                // Someone who knew more partitions than we do.
                _ => from = current,
            }
            let changes = state >> 32;
            let chosen = choose(Random::new(self.seed, changes), from, count, &available);
            let next = changes.wrapping_add(1) << 32 | (chosen as u64 + 1);
            match self.state.compare_exchange(state, next, AcqRel, Acquire) {
                Ok(_) => return chosen,
                Err(now) => state = now,
            }
        }
    }
}

fn partition(state: u64) -> Option<i32> {
    (state as u32).checked_sub(1).map(|partition| partition as i32)
}

fn choose(mut random: Random, from: Option<i32>, count: i32, available: impl Fn(i32) -> bool) -> i32 {
    let wanted = |partition: i32| Some(partition) != from && available(partition);
    // Most are available most of the time, and a topic may have thousands: guess. A guess that is kept is an even
    // choice among those that are wanted.
    for _ in 0..GUESSES {
        let guess = random.below(count);
        if wanted(guess) {
            return guess;
        }
    }
    // Then look at each once: the n-th that is wanted replaces the one before with a chance of 1 in n.
    let mut chosen = None;
    let mut seen = 0;
    for partition in (0..count).filter(|partition| wanted(*partition)) {
        seen += 1;
        if random.below(seen) == 0 {
            chosen = Some(partition);
        }
    }
    let stay = from.filter(|from| *from < count && available(*from));
    chosen.or(stay).unwrap_or_else(|| random.below(count))
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The numbers of choice number `choice`. Each choice starts a hash of its own: neighbours must not share numbers.
    fn new(seed: u64, choice: u64) -> Self {
        Self(mix(seed ^ mix(choice.wrapping_mul(STEP))))
    }

    /// From 0 to `end` - 1.
    fn below(&mut self, end: i32) -> i32 {
        self.0 = self.0.wrapping_add(STEP);
        (((mix(self.0) >> 32) * end as u64) >> 32) as i32
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is available, and however the number of partitions grows: the rules of `next`.
        #[test]
        fn each_move_keeps_the_rules(
            seed: u64,
            steps in proptest::collection::vec((1..40_i32, any::<u64>(), any::<bool>(), -1..40_i32), 1..30),
        ) {
            let sticky = Sticky::with_seed(seed);
            for (count, mask, own, other) in steps {
                let available = |partition: i32| mask >> partition & 1 == 1;
                let before = sticky.current();
                let from = if own { before } else { Some(other).filter(|other| *other >= 0) };
                let next = sticky.next(from, count, available);
                prop_assert!((0..count).contains(&next));
                prop_assert_eq!(sticky.current(), Some(next));
                if let Some(before) = before.filter(|before| from != Some(*before) && *before < count) {
                    prop_assert_eq!(next, before, "another thread's choice stands");
                    continue;
                }
                let others = (0..count).filter(|at| Some(*at) != before && available(*at)).count();
                let stays = before.is_some_and(|before| before < count && available(before));
                match (others, stays) {
                    (0, true) => prop_assert_eq!(Some(next), before, "the only one"),
                    (0, false) => {}
                    _ => prop_assert!(Some(next) != before && available(next), "{:?} to {}", before, next),
                }
            }
        }
    }

    fn all(_: i32) -> bool {
        true
    }

    /// How often each of `count` partitions was chosen in `n` steps, each from the one before.
    fn walk(sticky: &Sticky, n: usize, count: i32, available: impl Fn(i32) -> bool) -> Vec<usize> {
        let mut chosen = vec![0; count as usize];
        for _ in 0..n {
            let next = sticky.next(sticky.current(), count, &available);
            assert_eq!(sticky.current(), Some(next));
            chosen[next as usize] += 1;
        }
        chosen
    }

    #[test]
    fn stays_until_told_and_then_moves() {
        let sticky = Sticky::new();
        assert_eq!(sticky.current(), None);
        let first = sticky.next(None, 6, all);
        assert_eq!(sticky.next(None, 6, all), first, "someone else has chosen meanwhile");
        for _ in 0..1000 {
            let before = sticky.current();
            assert_ne!(Some(sticky.next(before, 6, all)), before);
        }
    }

    #[test]
    fn chooses_evenly() {
        // 60,000 steps over 6: 10,000 each, standard deviation below 100; and no neighbour is preferred.
        let sticky = Sticky::with_seed(7);
        for chosen in walk(&sticky, 60_000, 6, all) {
            assert!((9_500..10_500).contains(&chosen), "{chosen}");
        }
        let mut after_zero = [0; 6];
        for seed in 0..60_000 {
            let sticky = Sticky::with_seed(seed);
            sticky.state.store(1, crate::sync::Relaxed);
            after_zero[sticky.next(Some(0), 6, all) as usize] += 1;
        }
        assert_eq!(after_zero[0], 0);
        assert!(after_zero[1..].iter().all(|n| (11_500..12_500).contains(n)), "{after_zero:?}");
    }

    #[test]
    fn few_available_among_many_are_found_and_shared() {
        let sticky = Sticky::with_seed(3);
        let chosen = walk(&sticky, 3_000, 10_000, |partition| [17, 4_000, 9_999].contains(&partition));
        for partition in [17, 4_000, 9_999] {
            assert!((850..1_150).contains(&chosen[partition]), "{partition}: {}", chosen[partition]);
        }
        assert_eq!(chosen.iter().sum::<usize>(), 3_000);
    }

    #[test]
    fn the_only_available_one_is_kept_and_without_any_all_are_used() {
        let sticky = Sticky::with_seed(1);
        assert_eq!(walk(&sticky, 10, 5, |partition| partition == 2), [0, 0, 10, 0, 0]);
        assert!(walk(&sticky, 500, 5, |_| false).iter().all(|n| *n > 50));
        assert_eq!(walk(&sticky, 10, 1, all), [10]);
    }

    #[test]
    fn a_partition_that_is_gone_is_left() {
        let sticky = Sticky::with_seed(1);
        while sticky.current() != Some(9) {
            sticky.next(sticky.current(), 10, all);
        }
        assert!(sticky.next(Some(3), 5, all) < 5, "the other thread's choice is beyond what we know");
    }

    #[test]
    fn threads_agree_on_each_move() {
        let sticky = Sticky::new();
        for _ in 0..if cfg!(miri) { 5 } else { 500 } {
            let from = sticky.current();
            let next: Vec<i32> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| sticky.next(from, 50, all))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(next.iter().all(|next| Some(*next) == sticky.current()), "{from:?}: {next:?}");
        }
    }
}
