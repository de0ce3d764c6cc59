//! The pool by itself, and runs that several threads take, put and ask for.

use super::*;
use crate::sync::plain::AtomicU32 as Mark;

impl Pool {
    /// Free runs of each class on a share's shelf, and whole blocks.
    fn runs(&self, home: u32) -> (Vec<u32>, u32) {
        let count = |level: &Level| level.words.iter().map(|word| word.load(Relaxed).count_ones()).sum();
        for level in self.shelf(home).iter().chain([&self.blocks]) {
            assert_eq!(level.free.load(Relaxed), count(level), "the count is exact when nobody is at work");
        }
        (self.shelf(home).iter().map(count).collect(), count(&self.blocks))
    }

    fn is_whole(&self) -> bool {
        assert!(self.held.iter().all(|held| held.load(Relaxed) == 0), "{:?}", self.held);
        self.free_in_pieces() == self.shares.total() && self.shares.free() == self.shares.total()
    }
}

fn take(pool: &Pool, class: usize, share: u32) -> Option<Run> {
    let run = pool.take(class, class, share, &mut false)?;
    assert_eq!(run.units, units(class));
    Some(run)
}

fn take_units(pool: &Pool, needs: u32, share: u32) -> Option<Run> {
    pool.take_bytes(needs as usize * UNIT, share, &mut false)
}

#[test]
fn classes() {
    assert_eq!([1, 1024, 1025, 4096, 4097].map(class_for), [0, 0, 1, 1, 2]);
    assert_eq!([65_536, 65_537, 1 << 20, (1 << 20) + 1].map(class_for), [3, 4, 5, 6]);
    let block = |mib: usize| Pool::new(mib << 10).unwrap().block;
    assert_eq!([block(1), block(4), block(16), block(64)], [3, 4, 5, 5]);
    assert_eq!(Pool::new(64).unwrap().block, 1);
}

#[test]
fn accounts_keep_their_fields() {
    for account in [Account { share: 63, home: 0 }, Account { share: 0, home: 63 }, Account { share: 5, home: 7 }] {
        assert_eq!(Account::from_word(account.word()), account);
    }
}

#[test]
#[cfg_attr(miri, ignore = "a thousand runs: most of a minute")]
fn splits_and_merges() {
    let pool = Pool::new(1024).unwrap();
    assert_eq!(pool.runs(0), (vec![0; 3], 16));
    let mut wake = false;
    pool.note_missed();
    let first = pool.take(0, 0, 0, &mut wake).unwrap();
    assert!(wake && first.index == 0, "who found nothing meanwhile is to look again");
    assert_eq!(pool.runs(0), (vec![3, 3, 3], 15));
    let rest: Vec<_> = (0..1023).map(|_| take(&pool, 0, 0).unwrap()).collect();
    assert_eq!(pool.runs(0), (vec![0; 3], 0));
    assert!(take(&pool, 0, 0).is_none());
    rest.iter().rev().chain([&first]).for_each(|run| pool.put(*run));
    let split = |pool: &Pool| {
        let mut wake = false;
        let run = pool.take(0, 0, 0, &mut wake).unwrap();
        pool.put(run);
        wake
    };
    assert!(split(&pool) && !split(&pool), "once for those who found nothing");
    assert_eq!(pool.runs(0), (vec![0; 3], 16));
    assert!(pool.is_whole());
}

#[test]
fn falls_back_to_smaller_runs() {
    let pool = Pool::new(1024).unwrap();
    let _all: Vec<_> = std::iter::from_fn(|| take(&pool, 3, 0)).take(15).collect();
    take(&pool, 0, 0).unwrap();
    assert_eq!(pool.take(3, 0, 0, &mut false).map(|run| run.units), Some(16));
    assert!(take(&pool, 3, 0).is_none());
}

#[test]
#[cfg_attr(miri, ignore = "thousands of runs: minutes")]
fn an_odd_size_ends_in_smaller_runs() {
    let pool = Pool::new(1024 + 256 * 3 + 16 + 2).unwrap();
    let whole = (vec![2, 0, 1], 28);
    assert_eq!(pool.runs(0), whole);
    assert_eq!(pool.longest(), 1792 * UNIT);
    let all: Vec<_> = std::iter::from_fn(|| take(&pool, 0, 0)).collect();
    assert_eq!(all.len(), 1810);
    all.into_iter().for_each(|run| pool.put(run));
    assert_eq!(pool.runs(0), whole, "nothing merged past the end");
    assert!(take_units(&pool, 1792, 0).is_some(), "all blocks in one piece");
}

#[test]
fn neighbours_for_large_records() {
    let pool = Pool::new(4096).unwrap();
    assert_eq!(pool.block, 4);
    let block = take(&pool, 4, 0).unwrap();
    let large = take_units(&pool, 2500, 0).unwrap();
    assert_eq!((large.index, large.units), (256, 2560), "whole blocks");
    assert!(take_units(&pool, 2500, 0).is_none());
    pool.put(block);
    let quarter = take_units(&pool, 150, 0).unwrap();
    assert_eq!((quarter.index, quarter.units), (0, 192), "cut to what it needs");
    let other = take_units(&pool, 50, 0).unwrap();
    assert_eq!((other.index, other.units), (192, 64), "from what was split off");
    [quarter, large, other].into_iter().for_each(|run| pool.put(run));
    assert_eq!(pool.runs(0), (vec![0; 4], 16));
}

/// One broker's runs lie in blocks of its own: when the others have given theirs back, there is one large piece,
/// however the takes of both were mixed.
#[test]
#[cfg_attr(miri, ignore = "thousands of runs: minutes")]
fn what_a_broker_holds_lies_together() {
    let pool = Pool::new(32 << 10).unwrap();
    let (stuck, other) = (pool.add_broker(), pool.add_broker());
    let (mut kept, mut passing) = (vec![], vec![]);
    for n in 0..8_000 {
        let class = [0, 0, 1, 0, 2][n % 5];
        kept.extend(take(&pool, class, stuck));
        passing.extend(take(&pool, class, other));
        if passing.len() > 300 {
            passing.drain(..100).for_each(|run| pool.put(run));
        }
    }
    let held: u32 = kept.iter().map(|run| run.units).sum();
    assert!(held > 19 << 10, "{held}");
    passing.into_iter().for_each(|run| pool.put(run));
    let whole = pool.runs(other).1;
    assert_eq!(whole, 32 - held.div_ceil(1024), "the stuck broker breaks no more blocks than it fills");
    let large: Vec<_> = std::iter::from_fn(|| take_units(&pool, 980, other)).collect();
    assert!(large.len() >= whole as usize * 2 / 3, "its share of the memory: {} of {whole}", large.len());
    // Nothing is lost on the way.
    kept.into_iter().chain(large).for_each(|run| pool.put(run));
    assert!(pool.is_whole());
}

#[test]
fn a_share_without_blocks_takes_from_others() {
    let pool = Pool::new(16 << 10).unwrap();
    let shares: Vec<u32> = (0..20).map(|_| pool.add_broker()).collect();
    let mut runs: Vec<_> = shares.iter().map(|share| take(&pool, 0, *share).unwrap()).collect();
    assert_eq!(pool.runs(shares[0]).1, 0, "16 blocks, 20 brokers");
    let last = *shares.last().unwrap();
    runs.extend([take(&pool, 3, last).unwrap(), take_units(&pool, 100, last).unwrap()]);
    assert!(runs.iter().all(|run| run.account.share != last || run.account.home != last));
    runs.into_iter().for_each(|run| pool.put(run));
    assert!(pool.is_whole());
    assert_eq!(pool.runs(0).1, 16, "what was taken from another's shelf went back there");
}

/// What was collected for a large run is no small one's, however often a caller thinks better of it.
#[test]
fn an_ask_for_another_size_loses_nothing() {
    let pool = Pool::new(64).unwrap();
    let all: Vec<_> = (0..64).map(|_| take(&pool, 0, 0).unwrap()).collect();
    let ticket = pool.asks.ticket();
    let mut back: Vec<_> = all.into_iter().filter(|run| ![1, 5].contains(&run.index)).collect();
    back.drain(..8).for_each(|run| pool.put(run));
    for needs in [8, 1, 64, 3, 12] {
        let run = pool.asks.collect(&pool, ticket, needs, 0);
        assert!(run.is_none_or(|run| run.units >= needs), "{run:?} for {needs}");
        run.into_iter().for_each(|run| pool.put(run));
    }
    pool.asks.leave(&pool, ticket);
    assert_eq!((pool.free_in_pieces(), pool.shares.free()), (8, 8));
}

/// Random sizes from several threads and shares; each marks its runs, so that an overlap is seen. One of them asks for
/// large runs, comes back, or forgets it.
#[test]
fn runs_never_overlap() {
    let pool = Pool::new(4096 + 300).unwrap();
    let shares: Vec<u32> = (0..3).map(|_| pool.add_broker()).collect();
    let owner: Vec<_> = (0..4396).map(|_| Mark::new(0)).collect();
    let (pool, owner, shares) = (&pool, &owner, &shares);
    let mark = |run: Run, from: u32, to: u32| {
        for unit in &owner[run.index as usize..][..run.units as usize] {
            assert_eq!(unit.swap(to, Relaxed), from, "given to two");
        }
    };
    let collected = Mark::new(0);
    let work = |thread: u32| {
        let (mut held, mut seed) = (vec![], u64::from(thread) * 77 + 1);
        let (mut ticket, mut needs) = (pool.asks.ticket(), 700);
        for _ in 0..if cfg!(miri) { 30 } else { 20_000 } {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let share = shares[(seed >> 40) as usize % 3];
            let run = match seed % 8 {
                0 | 1 => take_units(pool, (seed >> 8) as u32 % 690 + 1, share),
                2 | 3 => pool.take((seed >> 8) as usize % 5, 0, share, &mut false),
                4 => {
                    let run = pool.asks.collect(pool, ticket, needs, shares[thread as usize % 3]);
                    if run.is_some() || seed >> 32 & 31 == 0 {
                        collected.fetch_add(u32::from(run.is_some()), Relaxed);
                        pool.asks.leave(pool, ticket);
                        (ticket, needs) = (pool.asks.ticket(), (seed >> 50) as u32 % 1000 + 1);
                    }
                    run
                }
                5 if seed >> 32 & 31 == 0 => {
                    pool.asks.tick(pool);
                    None
                }
                _ => None,
            };
            match run {
                Some(run) => {
                    mark(run, 0, thread);
                    held.push(run);
                }
                None if !held.is_empty() => {
                    let run = held.swap_remove((seed >> 20) as usize % held.len());
                    mark(run, thread, 0);
                    pool.put(run);
                }
                None => {}
            }
        }
        for run in held {
            mark(run, thread, 0);
            pool.put(run);
        }
        pool.asks.leave(pool, ticket);
    };
    std::thread::scope(|scope| (1..4).for_each(|thread| drop(scope.spawn(move || work(thread)))));
    assert!(pool.is_whole());
    assert!(cfg!(miri) || collected.load(Relaxed) > 10, "{collected:?}");
}
