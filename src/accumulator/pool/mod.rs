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

mod level;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::level::Level;
use super::{
    arena::Arena,
    segment::{Header, Table, UNIT, table},
    share::Shares,
};
use crate::sync::{AcqRel, AtomicU32, Relaxed, mutated, order};

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
