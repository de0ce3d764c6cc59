//! Callers that wait for several units in one piece, and what they have collected of them.
//!
//! A large run is free only when all of its parts are, and small takes fill each gap as it opens. So a caller that waits for
//! one *asks*: the first ask of each share names a *window*, the place that it wants its run to be at. What is free in the
//! window, and what is put back there, is kept for the ask; everything else is anybody's. So an ask never keeps more from
//! others than what it can use itself, and no broker's asks wait for those of another.
//!
//! A window lies in blocks that the share has broken itself, where the freest place is: these become whole as the broker
//! answers. One in which nothing comes back for long is given up for another one.
//!
//! An ask lives from try to try: a caller that has not tried for [`LAPSE`] ticks (a future that nobody polls) has lost its
//! place and what it had collected. If it tries again, it is the last in line.
//!
//! Only callers that wait, and who puts back while they do, take the lock.

use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;
use std::sync::PoisonError;

use super::{Account, Parts, Pool, Run, units};
use crate::sync::{AtomicU32, Mutex, Relaxed, plain};

/// A tick is how often the sender lets callers that wait look at their clocks (50 ms).
const LAPSE: u32 = 4;
/// After so many ticks without a unit more, a better window is taken, if there is one.
const STALLED: u32 = 20;
/// After so many, any other.
const HOPELESS: u32 = 100;
/// So many blocks are looked at for a window: memories have sixteen and more, those of many GiB tens of thousands.
const LOOKED_AT: u32 = 4096;

/// The asks of one pool.
pub struct Asks {
    /// Windows. What is put back looks no further while there are none; what it misses at that moment is free, and
    /// collected by the next try.
    windows: AtomicU32,
    /// Asks.
    count: plain::AtomicU32,
    tickets: plain::AtomicU64,
    line: Mutex<Line>,
}

impl Default for Asks {
    fn default() -> Self {
        Self {
            windows: AtomicU32::new(0),
            count: plain::AtomicU32::new(0),
            tickets: plain::AtomicU64::new(0),
            line: Mutex::new(Line::default()),
        }
    }
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks").field("count", &self.count).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Line {
    tick: u32,
    /// In the order in which they came.
    asks: Vec<Ask>,
}

#[derive(Debug)]
struct Ask {
    ticket: u64,
    share: u32,
    parts: Parts,
    /// When it last tried.
    seen: u32,
    window: Option<Window>,
    /// Where windows were that came to nothing.
    tried: Vec<u32>,
}

#[derive(Debug)]
struct Window {
    start: u32,
    /// What it holds, with the shelf that each piece belongs to.
    pieces: Vec<(Range<u32>, u32)>,
    count: u32,
    /// When it last became more.
    grew: u32,
}

impl Window {
    fn keep(&mut self, piece: Range<u32>, home: u32, tick: u32) {
        self.count += piece.end - piece.start;
        self.grew = tick;
        self.pieces.push((piece, home));
    }
}

impl Ask {
    fn range(&self) -> Option<Range<u32>> {
        let window = self.window.as_ref()?;
        Some(window.start..window.start + self.parts.units())
    }
}

fn overlap(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    a.start.max(b.start)..a.end.min(b.end)
}

impl Asks {
    /// A number for a caller that is going to ask.
    pub fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Relaxed)
    }

    /// Somebody asks.
    pub fn are_any(&self) -> bool {
        self.count.load(Relaxed) != 0
    }

    #[inline]
    pub(super) fn are_collecting(&self) -> bool {
        self.windows.load(Relaxed) != 0
    }

    fn change<R>(&self, change: impl FnOnce(&mut Line) -> R) -> R {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut line);
        self.windows.store(line.asks.iter().filter(|ask| ask.window.is_some()).count() as u32, Relaxed);
        self.count.store(line.asks.len() as u32, Relaxed);
        result
    }

    /// The run of `needs` units that this caller waits for, if it is complete now; and the caller goes on asking.
    pub fn collect(&self, pool: &Pool, ticket: u64, needs: u32, share: u32) -> Option<Run> {
        let parts = pool.parts(needs);
        self.change(|line| {
            let known = line.asks.iter().position(|ask| ask.ticket == ticket);
            let at = known.unwrap_or_else(|| {
                line.asks.push(Ask { ticket, share, parts, seen: line.tick, window: None, tried: Vec::new() });
                line.asks.len() - 1
            });
            line.asks[at].seen = line.tick;
            if line.asks[at].share != share || line.asks[at].parts != parts {
                // Its partition has another leader now, or it needs another run than before.
                pool.give_back(line.asks[at].window.take());
                line.asks[at].share = share;
                line.asks[at].parts = parts;
            }
            let first = !line.asks[..at].iter().any(|ask| ask.share == share);
            // A broker that holds its share already keeps nothing from others.
            if !first || !pool.shares.permits(share, parts.units()) {
                pool.give_back(line.asks[at].window.take());
                return None;
            }
            line.settle_window(pool, at);
            let tick = line.tick;
            let window = line.asks[at].window.as_mut()?;
            pool.sweep(window, parts, share, tick);
            if window.count < parts.units() {
                return None;
            }
            let window = line.asks[at].window.take()?;
            Some(pool.take_collected(window, parts, share))
        })
    }

    /// This caller waits no more. The caller of this wakes those who wait.
    pub fn leave(&self, pool: &Pool, ticket: u64) {
        self.change(|line| {
            let Some(at) = line.asks.iter().position(|ask| ask.ticket == ticket) else { return };
            let ask = line.asks.remove(at);
            pool.give_back(ask.window);
        });
    }

    /// The sender's clock. True: an ask has lapsed, and those who wait are to look again.
    pub fn tick(&self, pool: &Pool) -> bool {
        self.change(|line| {
            line.tick = line.tick.wrapping_add(1);
            let now = line.tick;
            let lapsed = |ask: &mut Ask| now.wrapping_sub(ask.seen) > LAPSE;
            let lapsed: Vec<Ask> = line.asks.extract_if(.., lapsed).collect();
            let any = !lapsed.is_empty();
            lapsed.into_iter().for_each(|ask| pool.give_back(ask.window));
            any
        })
    }

    /// A run is put back: what lies in windows is kept for them.
    pub(super) fn put(&self, pool: &Pool, home: u32, run: Range<u32>) {
        self.change(|line| {
            let (mut free, tick) = (vec![run], line.tick);
            for ask in &mut line.asks {
                let Some(range) = ask.range() else { continue };
                let Some(window) = &mut ask.window else { continue };
                free = free
                    .into_iter()
                    .flat_map(|run| {
                        let kept = overlap(&run, &range);
                        if kept.is_empty() {
                            return [run, 0..0];
                        }
                        let rest = [run.start..kept.start, kept.end..run.end];
                        window.keep(kept, home, tick);
                        rest
                    })
                    .filter(|run| !run.is_empty())
                    .collect();
            }
            free.into_iter().for_each(|run| pool.put_range(home, run.start, run.end));
        });
    }
}

impl Line {
    /// The ask has a window that is worth to go on with, if there is one.
    fn settle_window(&mut self, pool: &Pool, at: usize) {
        let tick = self.tick;
        let stalled = self.asks[at].window.as_ref().map(|window| tick.wrapping_sub(window.grew));
        if stalled.is_some_and(|stalled| stalled < STALLED) {
            return;
        }
        let others: Vec<Range<u32>> = self.asks.iter().filter_map(Ask::range).collect();
        let ask = &mut self.asks[at];
        let count = ask.window.as_ref().map(|window| window.count);
        let mut place = pool.choose(ask.parts, ask.share, |place| {
            ask.tried.contains(&place.start) || others.iter().any(|other| !overlap(other, place).is_empty())
        });
        if count.is_none() && place.is_none() {
            // All were tried.
            ask.tried.clear();
            place =
                pool.choose(ask.parts, ask.share, |place| others.iter().any(|other| !overlap(other, place).is_empty()));
        }
        let Some((start, free)) = place else { return };
        if let (Some(count), Some(stalled)) = (count, stalled)
            && free <= count
            && stalled < HOPELESS
        {
            return;
        }
        let old = ask.window.replace(Window { start, pieces: Vec::new(), count: 0, grew: tick });
        ask.tried.extend(old.as_ref().map(|window| window.start));
        pool.give_back(old);
    }
}

impl Pool {
    fn give_back(&self, window: Option<Window>) {
        for (piece, home) in window.map(|window| window.pieces).unwrap_or_default() {
            self.put_range(home, piece.start, piece.end);
        }
    }

    /// Takes what is free in the window.
    fn sweep(&self, window: &mut Window, parts: Parts, share: u32, tick: u32) {
        let own = self.home(share);
        let range = window.start..window.start + parts.units();
        for block in self.blocks_of(&range) {
            let (whole, home) = (self.whole(block), self.broken[block as usize].load(Relaxed));
            if range.start <= whole.start && whole.end <= range.end && self.blocks.take_this(block) {
                self.held[own as usize].fetch_add(1, Relaxed);
                window.keep(whole, own, tick);
                continue;
            }
            let inside = overlap(&range, &whole);
            for (class, level) in self.shelf(home).iter().enumerate().rev() {
                // Runs that lie in the window as a whole; a larger one the caller could have taken without asking.
                level.take_all(runs_within(class, &inside), |run| {
                    window.keep(run << (2 * class)..(run + 1) << (2 * class), home, tick);
                });
            }
        }
    }

    /// What an ask has collected becomes its run, and is counted from here on.
    fn take_collected(&self, window: Window, parts: Parts, share: u32) -> Run {
        let mut home = window.pieces.first().map_or(0, |(_, home)| *home);
        if parts.class > self.block {
            // Whole blocks, whoever broke them.
            home = self.home(share);
            for (piece, of) in &window.pieces {
                let begun = runs_from(self.block, piece);
                self.held[*of as usize].fetch_sub(begun, Relaxed);
                self.held[home as usize].fetch_add(begun, Relaxed);
            }
        }
        self.shares.take(share, parts.units());
        Run { index: window.start, units: parts.units(), account: Account { share, home } }
    }

    fn whole(&self, block: u32) -> Range<u32> {
        block << (2 * self.block)..(block + 1) << (2 * self.block)
    }

    fn blocks_of(&self, range: &Range<u32>) -> Range<u32> {
        range.start >> (2 * self.block)..((range.end - 1) >> (2 * self.block)) + 1
    }

    /// Where the most is free of what the share could have as its run, and how many units of it are.
    fn choose(&self, parts: Parts, share: u32, taboo: impl Fn(&Range<u32>) -> bool) -> Option<(u32, u32)> {
        let home = self.home(share);
        let wanted = parts.units();
        let place = |start: u32| start..start + wanted;
        let blocks = (self.headers.len() >> (2 * self.block)) as u32;
        // The best first: on its own shelf (or whole), then the freest.
        let rate = |block: u32| {
            let whole = self.blocks.is_free(block);
            let foreign = !whole && self.broken[block as usize].load(Relaxed) != home;
            (u32::from(foreign), Reverse(if whole { units(self.block) } else { self.free_in(&self.whole(block)) }))
        };
        let rated: Vec<(u32, Reverse<u32>)> = (0..blocks.min(LOOKED_AT)).map(rate).collect();
        if parts.class > self.block {
            let runs = rated.windows(parts.count as usize).zip(0..);
            let sum = |run: &[(u32, Reverse<u32>)]| {
                run.iter().fold((0, 0), |(foreign, free), rated| (foreign + rated.0, free + rated.1.0))
            };
            let allowed = runs.map(|(run, first)| (sum(run), first << (2 * self.block)));
            let allowed = allowed.filter(|(_, start)| !taboo(&place(*start)));
            let best = allowed.min_by_key(|((foreign, free), start)| (*foreign, Reverse(*free), *start));
            return best.map(|((_, free), start)| (start, free));
        }
        let mut order: Vec<_> = rated.into_iter().zip(0..).collect();
        order.sort_unstable();
        order.into_iter().find_map(|(_, block)| {
            let (whole, step) = (self.whole(block), units(parts.part));
            let starts = (whole.start..=whole.end - wanted).step_by(step as usize);
            let allowed = starts.filter(|start| !taboo(&place(*start)));
            let rated = allowed.map(|start| (self.free_in(&place(start)), Reverse(start)));
            rated.max().map(|(free, Reverse(start))| (start, free))
        })
    }

    /// How many units of these, within one block, are free in runs that lie among them as a whole.
    fn free_in(&self, range: &Range<u32>) -> u32 {
        let block = range.start >> (2 * self.block);
        let shelf = self.shelf(self.broken[block as usize].load(Relaxed)).iter().enumerate();
        shelf.map(|(class, level)| level.count_free(runs_within(class, range)) * units(class)).sum()
    }
}

/// How many runs of a class begin among these units.
fn runs_from(class: usize, range: &Range<u32>) -> u32 {
    range.end.div_ceil(units(class)) - range.start.div_ceil(units(class))
}

/// The runs of a class that lie among these units as a whole.
fn runs_within(class: usize, range: &Range<u32>) -> Range<u32> {
    range.start.div_ceil(units(class))..range.end >> (2 * class)
}
