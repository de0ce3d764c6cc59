//! One size class: a bitmap of its free runs.

use std::ops::Range;

use crate::sync::{AcqRel, Acquire, AtomicU64, Relaxed, Release, order, plain};

/// One class.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Level {
    pub(super) words: Box<[AtomicU64]>,
    /// Where a free run was seen last.
    hint: plain::AtomicU32,
    /// Free runs: never less than there are (counted up before a bit is set, down after it was cleared).
    pub(super) free: plain::AtomicU32,
}

impl Level {
    pub(super) fn new(runs: usize) -> Self {
        Self {
            words: (0..runs.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            hint: plain::AtomicU32::new(0),
            free: plain::AtomicU32::new(0),
        }
    }

    /// Any free run.
    pub(super) fn take(&self) -> Option<u32> {
        self.take_from(self.hint.load(Relaxed) * 64)
    }

    /// The first free run from `from` on; behind the last one come the first.
    pub(super) fn take_from(&self, from: u32) -> Option<u32> {
        // Not under loom: it would not see what the count hides.
        if self.free.load(Relaxed) == 0 && cfg!(not(loom)) {
            return None;
        }
        let (len, mut at, mut mask) = (self.words.len(), from as usize / 64, u64::MAX << (from % 64));
        // The first word has two turns: what lies before `from` comes last.
        for step in 0..=len {
            let mut bits = self.words[at].load(Relaxed);
            while bits & mask != 0 {
                let wanted = bits & mask;
                let lowest = wanted & wanted.wrapping_neg();
                // Acquire: what the last owner did with the run comes before what we do.
                match self.words[at].compare_exchange(bits, bits & !lowest, order("take", Acquire), Relaxed) {
                    Err(now) => bits = now,
                    Ok(_) => {
                        self.free.fetch_sub(1, Relaxed);
                        if step > 0 {
                            self.hint.store(at as u32, Relaxed);
                        }
                        return Some(at as u32 * 64 + lowest.trailing_zeros());
                    }
                }
            }
            at = if at + 1 == len { 0 } else { at + 1 };
            mask = if step + 1 == len { !(u64::MAX << (from % 64)) } else { u64::MAX };
        }
        None
    }

    /// This very run, if it is free.
    pub(super) fn take_this(&self, run: u32) -> bool {
        let (word, bit) = (&self.words[run as usize / 64], 1 << (run % 64));
        let taken = word.fetch_and(!bit, order("take", Acquire)) & bit != 0;
        if taken {
            self.free.fetch_sub(1, Relaxed);
        }
        taken
    }

    /// Every free run of these.
    pub(super) fn take_all(&self, runs: Range<u32>, mut taken: impl FnMut(u32)) {
        for (at, mask) in words(runs) {
            // A load first: mostly there is none.
            if self.words[at].load(Relaxed) & mask == 0 {
                continue;
            }
            let mut bits = self.words[at].fetch_and(!mask, order("take", Acquire)) & mask;
            self.free.fetch_sub(bits.count_ones(), Relaxed);
            while bits != 0 {
                taken(at as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }

    /// Where a free run was seen last, or somewhat before.
    pub(super) fn seen(&self) -> u32 {
        self.hint.load(Relaxed) * 64
    }

    /// The first free run of these.
    pub(super) fn next_free(&self, runs: Range<u32>) -> Option<u32> {
        words(runs).find_map(|(at, mask)| {
            let free = self.words[at].load(Relaxed) & mask;
            (free != 0).then(|| at as u32 * 64 + free.trailing_zeros())
        })
    }

    pub(super) fn is_free(&self, run: u32) -> bool {
        self.words[run as usize / 64].load(Relaxed) >> (run % 64) & 1 != 0
    }

    /// How many of these are free.
    pub(super) fn count_free(&self, runs: Range<u32>) -> u32 {
        words(runs).map(|(at, mask)| (self.words[at].load(Relaxed) & mask).count_ones()).sum()
    }

    /// The three siblings behind `first`, whose parent was split.
    pub(super) fn split(&self, first: u32) {
        debug_assert!(first.is_multiple_of(4));
        self.free.fetch_add(3, Relaxed);
        // Release: the parent's last owner hands over to the siblings' next ones, through us.
        self.words[first as usize / 64].fetch_or(0b1110 << (first % 64), order("split", Release));
        self.hint.store(first / 64, Relaxed);
    }

    /// True: the run and its siblings are now one run of the next class, for the caller to put.
    #[must_use]
    pub(super) fn put(&self, run: u32, merges: bool) -> bool {
        let at = run / 64;
        let (word, bit, nibble) = (&self.words[at as usize], 1u64 << (run % 64), 0xf << ((run % 64) & !3));
        self.free.fetch_add(1, Relaxed);
        let mut bits = word.load(Relaxed);
        loop {
            debug_assert!(bits & bit == 0, "put twice");
            let merged = merges && (bits | bit) & nibble == nibble;
            let to = if merged { bits & !nibble } else { bits | bit };
            // Release for the run's next owner; Acquire because who merges hands on what the siblings' owners released.
            let ordering = if merged { order("merge", AcqRel) } else { order("put", Release) };
            match word.compare_exchange(bits, to, ordering, Relaxed) {
                Err(now) => bits = now,
                Ok(_) if merged => {
                    self.free.fetch_sub(4, Relaxed);
                    return true;
                }
                Ok(_) => {
                    self.hint.store(at, Relaxed);
                    return false;
                }
            }
        }
    }
}

/// The words that these bits lie in, each with a mask of them.
fn words(bits: Range<u32>) -> impl Iterator<Item = (usize, u64)> {
    let mut at = bits.start;
    std::iter::from_fn(move || {
        if at >= bits.end {
            return None;
        }
        let next = ((at / 64 + 1) * 64).min(bits.end);
        let (word, below, above) = (at as usize / 64, at % 64, next.wrapping_sub(1) % 64);
        at = next;
        Some((word, (u64::MAX << below) & (u64::MAX >> (63 - above))))
    })
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cover_their_bits() {
        for (start, end) in [(0, 0), (3, 3), (0, 64), (63, 64), (63, 65), (5, 200), (64, 128), (10, 11)] {
            let found: Vec<u32> = words(start..end)
                .flat_map(|(word, mask)| {
                    (0..64).filter(move |bit| mask >> bit & 1 != 0).map(move |bit| word as u32 * 64 + bit)
                })
                .collect();
            assert_eq!(found, (start..end).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_next_of_a_range() {
        let level = Level::new(200);
        for run in [3, 70, 199] {
            assert!(!level.put(run, false));
        }
        let next = |from, to| level.next_free(from..to);
        assert_eq!([next(0, 200), next(3, 4), next(4, 200), next(71, 200)], [Some(3), Some(3), Some(70), Some(199)]);
        assert_eq!([next(0, 3), next(4, 70), next(71, 199), next(5, 5), next(9, 5)], [None; 5]);
    }

    #[test]
    fn the_first_from_a_place_on_and_round() {
        let level = Level::new(200);
        for run in [0, 5, 70, 130] {
            assert!(!level.put(run, false));
        }
        let order: Vec<_> = [71, 71, 0, 0, 9].map(|from| level.take_from(from)).into();
        assert_eq!(order, [Some(130), Some(0), Some(5), Some(70), None]);
        for run in [66, 64] {
            assert!(!level.put(run, false));
        }
        assert_eq!(level.take_from(65), Some(66));
        assert_eq!(level.take_from(65), Some(64), "what lies before it in the same word comes last");
    }
}
