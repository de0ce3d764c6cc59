//! What is to go wrong, and when: kinds are drawn from a seed, and come at intervals around an average.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub every: Duration,
    pub hold: Duration,
    pub hold_all: Duration,
    pub stall: Duration,
    pub turn_every: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            seed: 1,
            every: ms(600),
            hold: ms(500),
            hold_all: Duration::ZERO,
            stall: ms(6000),
            turn_every: Duration::ZERO,
        }
    }
}

/// What happens to a request, or to its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// The connection ends before the broker gets anything of the request.
    CutBefore,
    /// The broker gets the first half of it.
    CutInside,
    /// The broker gets all of it, the client no answer.
    CutAfter,
    /// The connection passes nothing for longer than the client waits; then the broker gets the request all the same.
    Stall,
    /// The answer comes late.
    Hold,
    /// The answer comes byte by byte.
    Bytes,
    /// The client gets the first half of the answer.
    CutAnswer,
    /// The answer says REQUEST_TIMED_OUT.
    TurnedTimedOut,
    /// The answer says NOT_ENOUGH_REPLICAS_AFTER_APPEND.
    TurnedNotEnough,
}

/// Each as often as it stands here.
const REQUEST_FAULTS: [Fault; 7] = [
    Fault::CutBefore,
    Fault::CutInside,
    Fault::CutAfter,
    Fault::CutAfter,
    Fault::CutAfter,
    Fault::CutInside,
    Fault::Stall,
];
const ANSWER_FAULTS: [Fault; 4] = [Fault::Hold, Fault::Hold, Fault::Bytes, Fault::CutAnswer];
const TURNS: [Fault; 2] = [Fault::TurnedTimedOut, Fault::TurnedNotEnough];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::CutBefore => "cut before a request",
            Self::CutInside => "inside it",
            Self::CutAfter => "after it",
            Self::Stall => "stalled",
            Self::Hold => "answers held back",
            Self::Bytes => "byte by byte",
            Self::CutAnswer => "cut inside",
            Self::TurnedTimedOut => "turned into REQUEST_TIMED_OUT",
            Self::TurnedNotEnough => "into NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        }
    }
}

/// Splitmix64: small, seeded, good enough to draw faults.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % (most.as_micros() as u64 + 1))
    }
}

/// One kind of place where faults come from time to time.
struct Clock {
    random: Random,
    every: Duration,
    due: Instant,
}

impl Clock {
    fn new(seed: u64, every: Duration) -> Self {
        let mut clock = Self { random: Random::new(seed), every, due: Instant::now() };
        clock.wind();
        clock
    }

    fn wind(&mut self) {
        self.due = Instant::now() + self.random.up_to(self.every * 2);
    }

    fn take(&mut self, kinds: &[Fault]) -> Option<Fault> {
        if self.every.is_zero() || Instant::now() < self.due {
            return None;
        }
        self.wind();
        kinds.get(self.random.next() as usize % kinds.len()).copied()
    }
}

struct Inner {
    requests: Clock,
    answers: Clock,
    turns: Clock,
    random: Random,
    counts: BTreeMap<Fault, u64>,
}

/// Hands out faults to all connections, and counts them.
pub struct Faults {
    pub plan: Plan,
    inner: Mutex<Inner>,
}

impl Faults {
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let mut clock = |every| Clock::new(random.next(), every);
        // Two places draw from the one average.
        let (requests, answers) = (clock(plan.every * 2), clock(plan.every * 2));
        let inner = Inner { requests, answers, turns: clock(plan.turn_every), random, counts: BTreeMap::new() };
        Self { plan, inner: Mutex::new(inner) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For a request that is about to be passed on; counted at once.
    pub fn at_request(&self) -> Option<Fault> {
        self.with(|inner| {
            let fault = inner.requests.take(&REQUEST_FAULTS)?;
            *inner.counts.entry(fault).or_default() += 1;
            Some(fault)
        })
    }

    /// The same for an answer.
    pub fn at_answer(&self) -> Option<Fault> {
        self.with(|inner| {
            let fault = inner.answers.take(&ANSWER_FAULTS)?;
            *inner.counts.entry(fault).or_default() += 1;
            Some(fault)
        })
    }

    /// How a good Produce answer is to be turned: into what, and whether its offsets stay. To be counted if it was.
    pub fn at_good_answer(&self) -> Option<(Fault, bool)> {
        self.with(|inner| Some((inner.turns.take(&TURNS)?, inner.random.next().is_multiple_of(2))))
    }

    pub fn count(&self, fault: Fault) {
        self.with(|inner| *inner.counts.entry(fault).or_default() += 1);
    }

    /// A number drawn for the caller.
    pub fn draw(&self, most: Duration) -> Duration {
        self.with(|inner| inner.random.up_to(most))
    }

    /// How many of each kind, and of all.
    pub fn counts(&self) -> String {
        self.with(|inner| {
            let mut text = format!("{} faults", inner.counts.values().sum::<u64>());
            for (nth, (fault, count)) in inner.counts.iter().enumerate() {
                let _ = write!(text, "{} {} {count}", if nth == 0 { ":" } else { "," }, fault.name());
            }
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_and_none_come_without_an_interval() {
        let none = Faults::new(Plan { every: Duration::ZERO, ..Plan::default() });
        assert_eq!((none.at_request(), none.at_answer(), none.at_good_answer()), (None, None, None));
        assert_eq!(none.counts(), "0 faults");

        let often = Faults::new(Plan { every: Duration::from_nanos(1), ..Plan::default() });
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 7 {
            seen.extend(often.at_request());
            seen.extend(often.at_answer());
        }
        assert!(often.counts().contains("stalled "), "{}", often.counts());
        assert!(often.counts().contains("byte by byte "), "{}", often.counts());
    }
}
