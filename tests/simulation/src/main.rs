//! Seeds of the simulation: a producer in bad weather, and what must hold all the same.
//!
//! `SEEDS=20000 FROM=0 cargo run --release -p ringmail-simulation` runs so many; `THREADS=2` on so many cores.
//! `REPEAT=1` runs each seed twice and compares, `KEEP_GOING=1` goes on after a failure, `SHOW=1` tells what happens.
//! A failing seed prints the one line that runs it again. Without `FROM` a race on real threads is run as well.
//!
//! The trace in the last line is of every byte that was sent, and when: a change of the code alone leaves it as it is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringmail::testing::simulation::{self, Coverage, describe, run, tell};

/// From so many seeds on everything that can be seen must have been.
const ENOUGH: u64 = 2000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

fn main() {
    what_is_told_is_true_in_any_weather(2000);
    if std::env::var_os("FROM").is_none() {
        simulation::no_batch_is_forgotten(100_000);
        println!("verified: no batch is forgotten when the last answer comes");
    }
}

fn what_is_told_is_true_in_any_weather(seeds: u64) {
    let (from, seeds) = (number("FROM", 0), number("SEEDS", seeds));
    let (threads, repeat) = (number("THREADS", 1), number("REPEAT", 0) > 0);
    let keep_going = number("KEEP_GOING", 0) > 0;
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    let sum: Mutex<(Coverage, u64, u64, u64)> = Mutex::default();
    let show = number("SHOW", 0) > 0;
    if show {
        println!("{}", describe(from));
    }
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut coverage, mut records, mut faults, mut trace) = (Coverage::default(), 0, 0, 0);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    let Ok(report) = catch_unwind(|| tell(seed, show)) else {
                        println!("SEEDS=1 FROM={seed} cargo run --release -p ringmail-simulation");
                        if keep_going {
                            failed.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        std::process::exit(1);
                    };
                    assert!(!repeat || run(seed).trace == report.trace, "seed {seed} does not repeat itself");
                    coverage.add(&report.coverage);
                    (records, faults) = (records + report.records, faults + report.faults);
                    trace ^= report.trace.rotate_left(seed as u32 % 64);
                }
                let mut sum = sum.lock().unwrap();
                sum.0.add(&coverage);
                (sum.1, sum.2, sum.3) = (sum.1 + records, sum.2 + faults, sum.3 ^ trace);
            });
        }
    });
    let (coverage, records, faults, trace) = sum.into_inner().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("{coverage}");
    let pace = seeds as f64 / seconds;
    println!("{seeds} seeds, {records} records, {faults} faults, trace {trace:016x}: {pace:.0} seeds/s");
    assert_eq!(failed.into_inner(), 0, "seeds failed");
    let missing: Vec<String> =
        coverage.rows().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert!(seeds < ENOUGH || missing.is_empty(), "never seen: {missing:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_told_is_true_in_any_weather() {
        super::what_is_told_is_true_in_any_weather(200);
    }

    #[test]
    fn no_batch_is_forgotten_when_the_last_answer_comes() {
        super::simulation::no_batch_is_forgotten(3_000);
    }
}
