//! Runs of the arena: a lock-free buddy of four. Classes of 1, 4, 16, 64, 256 KiB and 1 MiB, one bitmap each; a set bit
//! is a free run of exactly that class.
//!
//! The four siblings of a run are one nibble of one word. So *put* is one CAS that either sets the bit or, when it
//! would fill the nibble, clears it and goes on with the parent: siblings merge in one step. *Take* clears a bit, or
//! splits a parent by setting its other three children. A run is invisible for a moment while it is split or merged,
//! so a take may fail early; whoever split or merged wakes those who wait (`Accumulator::room`), whoever split only if a
//! take failed since the last time.
//! A large record takes neighbours, which come back as what they make.
//! Memory that is not whole MiB ends in smaller runs; they never merge past the end, for their nibble is never full.

use std::sync::Arc;

use super::{
    arena::Arena,
    segment::{Header, Table, UNIT, table},
    share::Shares,
};
use crate::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, Release, mutated, order, plain};

/// Size classes; class `c` is a run of 4^c units.
pub const CLASSES: usize = 6;
/// The memory is at least so many runs of a class that many records share: a batch of 1 MiB is then several segments,
/// and one that lingers does not hold a MiB. With the last class it is more, so that large memories have some use for
/// it: a ring has a bounded number of slots.
const ORDINARY_RUNS: [usize; CLASSES] = [16, 16, 16, 16, 16, 128];

/// Units of a run of `class`.
#[inline]
pub const fn units(class: usize) -> u32 {
    1 << (2 * class)
}

/// Units of at least `bytes`.
pub fn units_for(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The smallest class of at least `bytes`; may be [`CLASSES`] or more.
#[inline]
pub const fn class_for(bytes: usize) -> usize {
    let units = bytes.div_ceil(UNIT);
    if units <= 1 { 0 } else { ((units - 1).ilog2() / 2 + 1) as usize }
}

/// A run that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Its first unit, and its header's index.
    pub index: u32,
    /// Its length.
    pub units: u32,
}

/// One class.
#[derive(Debug)]
#[repr(align(128))]
struct Level {
    words: Box<[AtomicU64]>,
    /// Where a free run was seen last.
    hint: plain::AtomicU32,
    /// Free runs: never less than there are (counted up before a bit is set, down after it was cleared).
    free: plain::AtomicU32,
}

impl Level {
    fn new(runs: usize) -> Self {
        Self {
            words: (0..runs.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            hint: plain::AtomicU32::new(0),
            free: plain::AtomicU32::new(0),
        }
    }

    /// Any free run.
    fn take(&self) -> Option<u32> {
        // Not under loom: it would not see what the count hides.
        if self.free.load(Relaxed) == 0 && cfg!(not(loom)) {
            return None;
        }
        let (len, mut at) = (self.words.len(), self.hint.load(Relaxed) as usize);
        for step in 0..len {
            let mut bits = self.words[at].load(Relaxed);
            while bits != 0 {
                let lowest = bits & bits.wrapping_neg();
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
        }
        None
    }

    /// This very run, if it is free.
    fn take_this(&self, run: u32) -> bool {
        let (word, bit) = (&self.words[run as usize / 64], 1 << (run % 64));
        let taken = word.fetch_and(!bit, order("take", Acquire)) & bit != 0;
        if taken {
            self.free.fetch_sub(1, Relaxed);
        }
        taken
    }

    fn is_free(&self, run: u32) -> bool {
        self.words[run as usize / 64].load(Relaxed) >> (run % 64) & 1 != 0
    }

    /// The three siblings behind `first`, whose parent was split.
    fn split(&self, first: u32) {
        debug_assert!(first.is_multiple_of(4));
        self.free.fetch_add(3, Relaxed);
        // Release: the parent's last owner hands over to the siblings' next ones, through us.
        self.words[first as usize / 64].fetch_or(0b1110 << (first % 64), order("split", Release));
        self.hint.store(first / 64, Relaxed);
    }

    /// True: the run and its siblings are now one run of the next class, for the caller to put.
    #[must_use]
    fn put(&self, run: u32, merges: bool) -> bool {
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

/// The arena, its runs and their headers.
#[derive(Debug)]
pub struct Pool {
    pub arena: Arc<Arena>,
    headers: Table,
    levels: Box<[Level]>,
    /// 1: a take found nothing since a split last asked.
    missed: AtomicU32,
    pub shares: Shares,
    /// The largest class that many records share.
    pub ordinary: usize,
}

impl Pool {
    /// `None` when there is no such memory.
    pub fn new(units: usize) -> Option<Self> {
        Self::with_classes(units, if cfg!(loom) { 1 } else { CLASSES })
    }

    /// Fewer classes, for the models.
    pub fn with_classes(units: usize, classes: usize) -> Option<Self> {
        let pool = Self {
            arena: Arc::new(Arena::new(units * UNIT)?),
            headers: table(units)?,
            levels: (0..classes).map(|class| Level::new(units.div_ceil(1 << (2 * class)))).collect(),
            missed: AtomicU32::new(0),
            shares: Shares::new(units as u32),
            ordinary: (0..classes)
                .rfind(|class| self::units(*class) as usize * ORDINARY_RUNS[*class] <= units)
                .unwrap_or(0),
        };
        pool.put_range(0, units as u32);
        Some(pool)
    }

    #[inline]
    pub fn header(&self, segment: u32) -> &Header {
        self.headers.at(segment as usize)
    }

    /// The longest run there can be, bytes.
    pub fn longest(&self) -> usize {
        let units = self.headers.len();
        let top = 1 << (2 * (self.levels.len() - 1));
        let longest = if units >= top { units / top * top } else { 1 << (units.ilog2() / 2 * 2) };
        longest * UNIT
    }

    /// A run of `class`, or of a smaller one down to `least`. `wake` is set when other runs were hidden for a moment, so
    /// that those who wait must look again.
    pub fn take(&self, class: usize, least: usize, share: u32, wake: &mut bool) -> Option<Run> {
        for class in (least..=class).rev() {
            if !self.shares.permits(share, units(class)) {
                continue;
            }
            // What is large enough for the least class is looked for last, so only that is to be looked for again.
            let mut find = || self.find_class(class, wake);
            if let Some(index) = if class == least { self.twice(find) } else { find() } {
                self.shares.take(share, units(class));
                return Some(Run { index, units: units(class) });
            }
        }
        None
    }

    /// A run of at least `bytes`, cut to about that: for a single record. `wake` as for [`Pool::take`].
    pub fn take_bytes(&self, bytes: usize, share: u32, wake: &mut bool) -> Option<Run> {
        let needs = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        let (class, top) = (class_for(bytes), self.levels.len() - 1);
        // In quarters of its class, or of the last MiB: else half of it might be lost for nothing.
        let part = class.min(top + 1).saturating_sub(1);
        let count = needs.div_ceil(units(part));
        let wanted = count * units(part);
        if !self.shares.permits(share, wanted) {
            return None;
        }
        let find = |wake: &mut bool| {
            // From runs that are split already, if there are such neighbours.
            let neighbours = if class > 0 { self.take_adjacent(part, count, wake) } else { None };
            if neighbours.is_some() || class > top {
                return neighbours;
            }
            let index = self.find_class(class, wake)?;
            if wanted < units(class) {
                self.put_range(index + wanted, index + units(class));
                *wake |= self.was_missed();
            }
            Some(index)
        };
        let index = self.twice(|| find(wake))?;
        self.shares.take(share, wanted);
        Some(Run { index, units: wanted })
    }

    /// Puts a run back that was taken for `share`. The caller wakes those who wait.
    pub fn put(&self, index: u32, units: u32, share: u32) {
        self.put_range(index, index + units);
        self.shares.put(share, units);
    }

    /// `find`, and if it finds nothing once more behind a note: what was hidden before and is not seen then finds the note.
    fn twice(&self, mut find: impl FnMut() -> Option<u32>) -> Option<u32> {
        let found = find();
        if found.is_some() || mutated("no_second_take") {
            return found;
        }
        self.note_missed();
        find()
    }

    fn find_class(&self, class: usize, wake: &mut bool) -> Option<u32> {
        for from in class..self.levels.len() {
            if let Some(run) = self.levels[from].take() {
                let index = run << (2 * from);
                for split in class..from {
                    self.levels[split].split(index >> (2 * split));
                }
                *wake |= from > class && self.was_missed();
                return Some(index);
            }
        }
        None
    }

    fn note_missed(&self) {
        self.missed.swap(1, order("missed_set", AcqRel));
    }

    /// After runs that were hidden for a moment are free again: whether a take failed that must be tried again.
    fn was_missed(&self) -> bool {
        self.missed.swap(0, order("missed_take", AcqRel)) != 0 && !mutated("no_split_wake")
    }

    /// `count` neighbours of one class, or none of them.
    fn take_adjacent(&self, class: usize, count: u32, wake: &mut bool) -> Option<u32> {
        let level = &self.levels[class];
        let runs = (self.headers.len() >> (2 * class)) as u32;
        let mut first = 0;
        while level.free.load(Relaxed) >= count && first + count <= runs {
            if let Some(busy) = (first..first + count).rev().find(|run| !level.is_free(*run)) {
                first = busy + 1;
                continue;
            }
            match (first..first + count).find(|run| !level.take_this(*run)) {
                None => return Some(first << (2 * class)),
                // Somebody was quicker: give back what we have and look behind it.
                Some(lost) => {
                    self.put_range(first << (2 * class), lost << (2 * class));
                    *wake |= lost > first && self.was_missed();
                    first = lost + 1;
                }
            }
        }
        None
    }

    /// Units `start..end`, as the largest runs they make.
    fn put_range(&self, mut start: u32, end: u32) {
        while start < end {
            let mut class = 0;
            while class + 1 < self.levels.len()
                && start.is_multiple_of(units(class + 1))
                && end - start >= units(class + 1)
            {
                class += 1;
            }
            let next = start + units(class);
            let mut run = start >> (2 * class);
            while self.levels[class].put(run, class + 1 < self.levels.len()) {
                run /= 4;
                class += 1;
            }
            start = next;
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    impl Pool {
        /// Free runs of each class.
        fn runs(&self) -> Vec<u32> {
            let count = |level: &Level| level.words.iter().map(|word| word.load(Relaxed).count_ones()).sum();
            for level in &self.levels {
                assert_eq!(level.free.load(Relaxed), count(level), "the count is exact when nobody is at work");
            }
            self.levels.iter().map(count).collect()
        }
    }

    fn take(pool: &Pool, class: usize) -> Option<u32> {
        let run = pool.take(class, class, 0, &mut false)?;
        assert_eq!(run.units, units(class));
        Some(run.index)
    }

    #[test]
    fn classes() {
        assert_eq!([1, 1024, 1025, 4096, 4097].map(class_for), [0, 0, 1, 1, 2]);
        assert_eq!([65_536, 65_537, 1 << 20, (1 << 20) + 1].map(class_for), [3, 4, 5, 6]);
    }

    #[test]
    fn splits_and_merges() {
        let pool = Pool::new(1024).unwrap();
        assert_eq!(pool.runs(), [0, 0, 0, 0, 0, 1]);
        let mut wake = false;
        pool.note_missed();
        let first = pool.take(0, 0, 0, &mut wake).unwrap();
        assert!(wake && first.index == 0, "who found nothing meanwhile is to look again");
        assert_eq!(pool.runs(), [3, 3, 3, 3, 3, 0]);
        let rest: Vec<_> = (0..1023).map(|_| take(&pool, 0).unwrap()).collect();
        assert_eq!((pool.runs(), take(&pool, 0)), (vec![0; 6], None));
        for index in rest.iter().rev().chain([&0]) {
            pool.put(*index, 1, 0);
        }
        let split = |pool: &Pool| {
            let mut wake = false;
            let run = pool.take(0, 0, 0, &mut wake).unwrap();
            pool.put(run.index, 1, 0);
            wake
        };
        assert!(split(&pool) && !split(&pool), "once for those who found nothing");
        assert_eq!((pool.runs(), pool.shares.free()), (vec![0, 0, 0, 0, 0, 1], 1024));
    }

    #[test]
    fn falls_back_to_smaller_runs() {
        let pool = Pool::new(64).unwrap();
        take(&pool, 0).unwrap();
        assert_eq!(pool.take(3, 0, 0, &mut false).map(|run| run.units), Some(16));
        assert_eq!(take(&pool, 3), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "thousands of runs: minutes")]
    fn an_odd_size_ends_in_smaller_runs() {
        let pool = Pool::new(1024 + 256 * 3 + 16 + 2).unwrap();
        let whole = [2, 0, 1, 0, 3, 1];
        assert_eq!(pool.runs(), whole);
        assert_eq!(pool.longest(), 1 << 20);
        let all: Vec<_> = std::iter::from_fn(|| take(&pool, 0)).collect();
        assert_eq!(all.len(), 1810);
        all.iter().for_each(|index| pool.put(*index, 1, 0));
        assert_eq!(pool.runs(), whole, "nothing merged past the end");
        assert_eq!(Pool::new(200).unwrap().longest(), 64 << 10);
    }

    #[test]
    fn neighbours_for_large_records() {
        let pool = Pool::new(4096).unwrap();
        let mib = take(&pool, 5).unwrap();
        let large = pool.take_bytes((5 << 20) / 2, 0, &mut false).unwrap();
        assert_eq!((large.index, large.units), (1024, 3072), "whole MiB");
        assert!(pool.take_bytes((5 << 20) / 2, 0, &mut false).is_none());
        pool.put(mib, 1024, 0);
        let quarter = pool.take_bytes(300 << 10, 0, &mut false).unwrap();
        assert_eq!((quarter.index, quarter.units), (0, 512));
        let other = pool.take_bytes(500 << 10, 0, &mut false).unwrap();
        assert_eq!((other.index, other.units), (512, 512), "from what was split off");
        pool.put(quarter.index, quarter.units, 0);
        pool.put(large.index, large.units, 0);
        pool.put(other.index, other.units, 0);
        assert_eq!(pool.runs(), [0, 0, 0, 0, 0, 4]);
    }

    /// Random sizes from several threads; each marks its runs, so that an overlap is seen.
    #[test]
    fn runs_never_overlap() {
        let pool = Pool::new(2048 + 300).unwrap();
        let before = pool.runs();
        let owner: Vec<_> = (0..2348).map(|_| plain::AtomicU32::new(0)).collect();
        let (pool, owner) = (&pool, &owner);
        let work = |thread: u32| {
            let (mut held, mut seed) = (vec![], u64::from(thread) * 77 + 1);
            let put = |run: Run| {
                for unit in &owner[run.index as usize..][..run.units as usize] {
                    assert_eq!(unit.swap(0, Relaxed), thread);
                }
                pool.put(run.index, run.units, 0);
            };
            for _ in 0..if cfg!(miri) { 100 } else { 20_000 } {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let run = match seed % 4 {
                    0 => pool.take_bytes((seed >> 8) as usize % 700_000, 0, &mut false),
                    1 | 2 => pool.take((seed >> 8) as usize % 5, 0, 0, &mut false),
                    _ => None,
                };
                match run {
                    Some(run) => {
                        for unit in &owner[run.index as usize..][..run.units as usize] {
                            assert_eq!(unit.swap(thread, Relaxed), 0, "given to two");
                        }
                        held.push(run);
                    }
                    None if !held.is_empty() => put(held.swap_remove((seed >> 20) as usize % held.len())),
                    None => {}
                }
            }
            held.into_iter().for_each(put);
        };
        std::thread::scope(|scope| {
            (1..4).for_each(|thread| drop(scope.spawn(move || work(thread))));
        });
        assert_eq!((pool.runs(), pool.shares.free()), (before, 2348));
    }
}
