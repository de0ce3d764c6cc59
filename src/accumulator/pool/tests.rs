//! The pool by itself, and runs that several threads take and put.

use super::*;
use crate::sync::plain;

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
