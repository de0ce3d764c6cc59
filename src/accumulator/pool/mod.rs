//! Runs of the arena: a lock-free buddy of four, with a shelf for each broker.
//!
//! The memory is cut into *blocks* of 1 MiB (of less, so that there are sixteen, where it is small). A share, that is the
//! partitions of one leading broker (`share.rs`), takes whole blocks and breaks them on its own *shelf* into runs of 1, 4,
//! 16, 64 and 256 KiB; when all runs of a block are back, the block is whole again and anybody's. So what a stuck broker
//! holds lies in its own blocks, and the blocks of the others become whole again. Each share has a place of its own from
//! which on it looks for a whole block, so that the blocks of one broker lie together.
//! Blocks are shared out by the rule that units are, so that a broker whose blocks have many gaps leaves whole ones too. A
//! share takes from the shelf of another one only when it can have no block, and holds no more of them than its part.
//!
//! A shelf has one bitmap per class; a set bit is a free run of exactly that class. The four siblings of a run are one
//! nibble of one word. So *put* is one CAS that either sets the bit or, when it would fill the nibble, clears it and goes
//! on with the parent: siblings merge in one step. *Take* clears a bit, or splits a parent by setting its other three
//! children. A run is invisible for a moment while it is split or merged, so a take may fail early; whoever split or merged
//! wakes the callers that wait (`Accumulator::room`), whoever split only if a take failed since the last time.
//! A large record takes neighbours, which come back as what they make; `asks` keeps them from being starved.
//! Memory that is not whole blocks ends in smaller runs; they never merge past the end, for their nibble is never full.

mod asks;
mod level;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub use self::asks::Asks;
use self::level::Level;
use super::{
    arena::Arena,
    segment::{Header, Table, UNIT, table},
    share::{SHARES, Shares, is_within},
};
use crate::sync::{AcqRel, AtomicU32, Relaxed, order, plain};

/// Size classes; class `c` is a run of 4^c units.
pub const CLASSES: usize = 6;
/// The memory is at least so many runs of a class that many records share: a batch of 1 MiB is then several segments,
/// and one that lingers does not hold a MiB. With the last class it is more, so that large memories have some use for
/// it: a ring has a bounded number of slots.
const ORDINARY_RUNS: [usize; CLASSES] = [16, 16, 16, 16, 16, 128];
/// The memory is at least so many blocks.
const BLOCKS: usize = 16;

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

/// Where a run is counted, and where it goes back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// The share that it counts in.
    pub share: u32,
    /// The share on whose shelf it lies when it is free.
    home: u32,
}

impl Account {
    /// In one word.
    pub fn word(self) -> u32 {
        self.share | self.home << 8
    }

    /// The inverse of [`Account::word`].
    pub fn from_word(word: u32) -> Self {
        Self { share: word & 0xff, home: word >> 8 }
    }
}

const _: () = assert!(SHARES <= 256, "both fit in a word");

/// A run that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Its first unit, and its header's index.
    pub index: u32,
    /// Its length.
    pub units: u32,
    pub account: Account,
}

/// How a single record's run is made up: of `count` neighbours of class `part`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Parts {
    /// The smallest class that has so many units.
    class: usize,
    part: usize,
    count: u32,
}

impl Parts {
    fn units(self) -> u32 {
        self.count * units(self.part)
    }
}

/// The arena, its runs and their headers.
#[derive(Debug)]
pub struct Pool {
    pub arena: Arc<Arena>,
    headers: Table,
    /// The class of blocks.
    block: usize,
    /// The whole blocks that nobody holds.
    blocks: Level,
    /// By block: the shelf that it was broken on last. A hint.
    broken: Box<[plain::AtomicU32]>,
    /// By share: blocks that are not whole, or taken, on its account.
    held: Box<[plain::AtomicU32]>,
    /// The classes below blocks. Of share 0, and of each share from its first broker on.
    first: Box<[Level]>,
    shelves: Box<[OnceLock<Box<[Level]>>]>,
    /// 1: a take found nothing since a split last asked.
    missed: AtomicU32,
    pub asks: Asks,
    pub shares: Shares,
    /// The largest class that many records share.
    pub ordinary: usize,
}

/// The largest class of which the memory has at least that many.
fn largest(units: usize, least: impl Fn(usize) -> usize) -> usize {
    (0..CLASSES).rfind(|class| self::units(*class) as usize * least(*class) <= units).unwrap_or(0)
}

impl Pool {
    /// `None` when there is no such memory.
    pub fn new(units: usize) -> Option<Self> {
        Self::with_block(units, if cfg!(loom) { 0 } else { largest(units, |_| BLOCKS) })
    }

    /// With blocks of that class.
    pub fn with_block(units: usize, block: usize) -> Option<Self> {
        let runs = |class| units.div_ceil(self::units(class) as usize);
        let pool = Self {
            arena: Arc::new(Arena::new(units * UNIT)?),
            headers: table(units)?,
            block,
            blocks: Level::new(runs(block)),
            broken: (0..runs(block)).map(|_| plain::AtomicU32::new(0)).collect(),
            held: (0..SHARES).map(|_| plain::AtomicU32::new(0)).collect(),
            first: Self::shelf_for(units, block),
            shelves: (0..SHARES).map(|_| OnceLock::new()).collect(),
            missed: AtomicU32::new(0),
            asks: Asks::default(),
            shares: Shares::new(units as u32),
            ordinary: if cfg!(loom) { 0 } else { largest(units, |class| ORDINARY_RUNS[class]) },
        };
        let blocks = (units >> (2 * block)) as u32;
        for whole in 0..blocks {
            let _ = pool.blocks.put(whole, false);
        }
        pool.put_range(0, blocks << (2 * block), units as u32);
        Some(pool)
    }

    fn shelf_for(units: usize, block: usize) -> Box<[Level]> {
        (0..block).map(|class| Level::new(units.div_ceil(self::units(class) as usize))).collect()
    }

    /// One more broker leads a partition. Its share.
    pub fn add_broker(&self) -> u32 {
        let share = self.shares.add_broker();
        if let Some(shelf) = self.shelves.get(share as usize) {
            shelf.get_or_init(|| Self::shelf_for(self.headers.len(), self.block));
        }
        share
    }

    #[inline]
    pub fn header(&self, segment: u32) -> &Header {
        self.headers.at(segment as usize)
    }

    /// The longest run there can be, bytes.
    pub fn longest(&self) -> usize {
        let block = units(self.block) as usize;
        self.headers.len() / block * block * UNIT
    }

    /// Units in free runs. Exact while nobody takes, puts or asks.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn free_in_pieces(&self) -> u32 {
        let count = |level: &Level| level.count_free(0..level.words.len() as u32 * 64);
        let shelves = std::iter::once(0).chain(self.others(0)).map(|home| self.shelf(home));
        let broken = shelves.flat_map(|shelf| shelf.iter().zip(0..)).map(|(level, class)| count(level) * units(class));
        broken.sum::<u32>() + count(&self.blocks) * units(self.block)
    }

    fn shelf(&self, home: u32) -> &[Level] {
        self.shelves.get(home as usize).and_then(OnceLock::get).unwrap_or(&self.first)
    }

    /// On whose shelf the share breaks blocks: its own, if it has one.
    fn home(&self, share: u32) -> u32 {
        if self.shelves.get(share as usize).is_some_and(|shelf| shelf.get().is_some()) { share } else { 0 }
    }

    /// The shelves that this share may take from, other than its own: none, if it has more than its part of the blocks.
    fn others_for(&self, home: u32) -> impl Iterator<Item = u32> {
        let part = self.broken.len() as u32 / self.shares.brokers().max(1);
        let within = self.held[home as usize].load(Relaxed) <= part.max(1);
        self.others(home).filter(move |_| within)
    }

    /// Every other shelf.
    fn others(&self, home: u32) -> impl Iterator<Item = u32> {
        let shares = SHARES as u32;
        (1..shares).map(move |step| (home + step) % shares).filter(|other| self.home(*other) == *other)
    }

    /// A run of `class`, or of a smaller one down to `least`. `wake` is set when other runs were hidden for a moment, so
    /// that those who wait must look again.
    pub fn take(&self, class: usize, least: usize, share: u32, wake: &mut bool) -> Option<Run> {
        let (home, class) = (self.home(share), class.min(self.block));
        let permitted = || (least..=class).rev().filter(|class| self.shares.permits(share, units(*class)));
        let own = |class, wake: &mut bool| Some((self.find(class, home, wake)?, class, home));
        let foreign = |class, wake: &mut bool| {
            self.others_for(home).find_map(|other| Some((self.find_broken(class, other, wake)?, class, other)))
        };
        let mut found = permitted().find_map(|class| own(class, wake));
        found = found.or_else(|| permitted().find_map(|class| foreign(class, wake)));
        // What is large enough for the least class was looked for last, so only that is to be looked for again: behind a
        // note, which what was hidden before and is not seen now finds.
        if found.is_none() && self.shares.permits(share, units(least)) {
            self.note_missed();
            found = own(least, wake).or_else(|| foreign(least, wake));
        }
        let (index, class, home) = found?;
        self.shares.take(share, units(class));
        Some(Run { index, units: units(class), account: Account { share, home } })
    }

    fn parts(&self, needs: u32) -> Parts {
        let class = class_for(needs as usize * UNIT);
        // In quarters of its class, or of blocks: else half of it might be lost for nothing.
        let part = class.saturating_sub(1).min(self.block);
        Parts { class, part, count: needs.div_ceil(units(part)) }
    }

    /// A run of at least `bytes`, cut to about that: for a single record. `wake` as for [`Pool::take`].
    pub fn take_bytes(&self, bytes: usize, share: u32, wake: &mut bool) -> Option<Run> {
        let parts = self.parts(units_for(bytes));
        if !self.shares.permits(share, parts.units()) {
            return None;
        }
        let home = self.home(share);
        let find = |wake: &mut bool| {
            if parts.class > self.block {
                let index = self.take_adjacent(&self.blocks, parts, home, wake)?;
                self.held[home as usize].fetch_add(parts.count, Relaxed);
                return Some((index, home));
            }
            let own = self.find_parts(parts, home, true, wake).map(|index| (index, home));
            own.or_else(|| {
                self.others_for(home).find_map(|other| Some((self.find_parts(parts, other, false, wake)?, other)))
            })
        };
        let mut found = find(wake);
        if found.is_none() {
            self.note_missed();
            found = find(wake);
        }
        let (index, home) = found?;
        self.shares.take(share, parts.units());
        Some(Run { index, units: parts.units(), account: Account { share, home } })
    }

    /// Puts a run back. The caller wakes those who wait.
    pub fn put(&self, run: Run) {
        let Run { index, units, account } = run;
        if self.asks.are_collecting() {
            self.asks.put(self, account.home, index..index + units);
        } else {
            self.put_range(account.home, index, index + units);
        }
        self.shares.put(account.share, units);
    }

    /// A run of exactly `class`: one that lies on the shelf, a part of a larger one there, or of a whole block.
    fn find(&self, class: usize, home: u32, wake: &mut bool) -> Option<u32> {
        self.find_broken(class, home, wake).or_else(|| {
            let count = self.broken.len() as u64;
            // Spread as a golden section spreads them, so that what brokers hold grows from places far from each other.
            let place = (u64::from(home.wrapping_mul(0x9e37_79b9)) * count) >> 32;
            let held = &self.held[home as usize];
            if self.shares.brokers() >= 2 && !is_within(held.load(Relaxed), self.blocks.free.load(Relaxed), 1) {
                return None;
            }
            let block = self.blocks.take_from(place as u32)?;
            held.fetch_add(1, Relaxed);
            self.broken[block as usize].store(home, Relaxed);
            Some(self.split(block, self.block, class, home, wake))
        })
    }

    /// The same without whole blocks.
    fn find_broken(&self, class: usize, home: u32, wake: &mut bool) -> Option<u32> {
        let shelf = self.shelf(home);
        let (from, run) = (class..shelf.len()).find_map(|from| Some((from, shelf[from].take()?)))?;
        Some(self.split(run, from, class, home, wake))
    }

    /// The first run of `class` in `run` of class `from`; the others go to the shelf.
    fn split(&self, run: u32, from: usize, class: usize, home: u32, wake: &mut bool) -> u32 {
        let (shelf, index) = (self.shelf(home), run << (2 * from));
        for (split, level) in shelf.iter().enumerate().take(from).skip(class) {
            level.split(index >> (2 * split));
        }
        *wake |= from > class && self.was_missed();
        index
    }

    /// Neighbours, from runs that are split already if there are such; else the beginning of a larger run.
    fn find_parts(&self, parts: Parts, home: u32, blocks: bool, wake: &mut bool) -> Option<u32> {
        let shelf = self.shelf(home);
        if parts.class > 0
            && let Some(level) = shelf.get(parts.part)
            && let Some(index) = self.take_adjacent(level, parts, home, wake)
        {
            return Some(index);
        }
        let index =
            if blocks { self.find(parts.class, home, wake)? } else { self.find_broken(parts.class, home, wake)? };
        if parts.units() < units(parts.class) {
            self.put_range(home, index + parts.units(), index + units(parts.class));
            *wake |= self.was_missed();
        }
        Some(index)
    }

    fn note_missed(&self) {
        self.missed.swap(1, order("missed_set", AcqRel));
    }

    /// After runs that were hidden for a moment are free again: whether a take failed that must be tried again.
    fn was_missed(&self) -> bool {
        self.missed.swap(0, order("missed_take", AcqRel)) != 0
    }

    /// Neighbours of one class, all or none of them.
    fn take_adjacent(&self, level: &Level, parts: Parts, home: u32, wake: &mut bool) -> Option<u32> {
        let runs = (self.headers.len() >> (2 * parts.part)) as u32;
        let from = level.seen().min(runs);
        // From where a free run was seen last, and then round to the neighbours of that.
        let found = self.take_adjacent_in(level, from..runs, parts, home, wake);
        found.or_else(|| self.take_adjacent_in(level, 0..(from + parts.count - 1).min(runs), parts, home, wake))
    }

    fn take_adjacent_in(
        &self,
        level: &Level,
        runs: Range<u32>,
        parts: Parts,
        home: u32,
        wake: &mut bool,
    ) -> Option<u32> {
        let Parts { part, count, .. } = parts;
        let mut first = runs.start;
        while level.free.load(Relaxed) >= count {
            first = level.next_free(first..runs.end).filter(|free| free + count <= runs.end)?;
            if let Some(busy) = (first + 1..first + count).rev().find(|run| !level.is_free(*run)) {
                first = busy + 1;
                continue;
            }
            match (first..first + count).find(|run| !level.take_this(*run)) {
                None => return Some(first << (2 * part)),
                // Somebody was quicker: give back what we have and look behind it.
                Some(lost) => {
                    let whole = part == self.block;
                    for run in first..lost {
                        if whole {
                            let _ = level.put(run, false);
                        } else {
                            self.put_run(home, part, run);
                        }
                    }
                    *wake |= lost > first && self.was_missed();
                    first = lost + 1;
                }
            }
        }
        None
    }

    /// Units `start..end`, as the largest runs they make, to the shelf of `home` or as whole blocks.
    fn put_range(&self, home: u32, mut start: u32, end: u32) {
        while start < end {
            let mut class = 0;
            while class < self.block && start.is_multiple_of(units(class + 1)) && end - start >= units(class + 1) {
                class += 1;
            }
            self.put_run(home, class, start >> (2 * class));
            start += units(class);
        }
    }

    fn put_run(&self, home: u32, mut class: usize, mut run: u32) {
        let shelf = self.shelf(home);
        while class < self.block {
            if !shelf[class].put(run, true) {
                return;
            }
            (run, class) = (run / 4, class + 1);
        }
        self.held[home as usize].fetch_sub(1, Relaxed);
        let _ = self.blocks.put(run, false);
    }
}
