//! The brokers' faults: which batch meets which.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::coverage::{CODES, CODES_HIGH, Sight};
use crate::sender::Random;
use crate::testing::{BrokerOptions, ErrorCode, Fault, ProduceContext};

/// How many numbers a producer id and epoch have.
const SEQUENCES: u32 = 1 << 31;

/// How often each fault is committed, in thousandths of the batches.
#[derive(Clone, Debug, Default)]
pub struct Chances {
    pub error: u64,
    /// The codes to choose from.
    pub codes: Vec<i16>,
    pub stored_error: u64,
    pub close_before: u64,
    pub close_after: u64,
    pub hang_before: u64,
    pub hang_after: u64,
    pub delay: u64,
    pub throttle: u64,
    pub longest: Duration,
}

impl Chances {
    /// Every code that the table of Produce errors has.
    pub fn all_codes() -> impl Iterator<Item = i16> {
        CODES.into_iter().chain(CODES_HIGH)
    }
}

/// The newest sequence that was ever seen of a producer id and epoch in a partition.
struct Seen {
    topic: u8,
    partition: i32,
    producer: (i64, i16),
    end: u32,
}

/// What the hook of the broker's model draws from.
pub struct Deck {
    random: Random,
    chances: Chances,
    seen: Vec<Seen>,
    /// Codes that were given out since the last look; bit `code + 1`.
    injected: u128,
    /// Faults that were given out since the last look.
    sights: Vec<Sight>,
}

/// The deck that the broker's hook and the world share.
#[derive(Clone)]
pub struct SharedDeck(Arc<Mutex<Deck>>);

impl SharedDeck {
    /// A deck without faults, and a broker that draws from it.
    pub fn new(seed: u64, options: BrokerOptions) -> (Self, BrokerOptions) {
        let deck = Deck {
            random: Random::new(seed),
            chances: Chances::default(),
            seen: Vec::new(),
            injected: 0,
            sights: Vec::new(),
        };
        let shared = Self(Arc::new(Mutex::new(deck)));
        let hook = shared.clone();
        (shared, options.on_produce(move |context| hook.with(|deck| deck.draw(context))))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Deck) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set(&self, chances: Chances) {
        self.with(|deck| deck.chances = chances);
    }

    /// The codes that were given out since the last call, and the faults.
    pub fn take(&self, sights: &mut Vec<Sight>) -> u128 {
        self.with(|deck| {
            sights.append(&mut deck.sights);
            std::mem::take(&mut deck.injected)
        })
    }
}

/// The bit of a code.
pub fn bit(code: i16) -> u128 {
    1u128.checked_shl((i32::from(code) + 1) as u32).unwrap_or(0)
}

impl Deck {
    fn draw(&mut self, context: &ProduceContext<'_>) -> Fault {
        let first_sight = self.note(context);
        let chances = &self.chances;
        let mut at = self.random.next() % 1000;
        let mut hit = |chance: u64| {
            let hit = at < chance;
            at = if hit { u64::MAX } else { at - chance };
            hit
        };
        let (fault, sight) = if hit(chances.error) {
            return self.error(context, first_sight);
        } else if hit(chances.stored_error) {
            return self.stored_error(context);
        } else if hit(chances.close_before) {
            (Fault::CloseBefore, Sight::CloseBefore)
        } else if hit(chances.close_after) {
            (Fault::CloseAfter, Sight::CloseAfter)
        } else if hit(chances.hang_before) {
            (Fault::HangBefore, Sight::HangBefore)
        } else if hit(chances.hang_after) {
            (Fault::HangAfter, Sight::HangAfter)
        } else if hit(chances.delay) {
            (Fault::Delay(self.time()), Sight::Delay)
        } else if hit(chances.throttle) {
            (Fault::Throttle(self.time()), Sight::Throttle)
        } else {
            return Fault::None;
        };
        self.sights.push(sight);
        fault
    }

    fn time(&mut self) -> Duration {
        let longest = self.chances.longest.as_micros().max(1) as u64;
        Duration::from_micros(self.random.next() % longest)
    }

    fn error(&mut self, context: &ProduceContext<'_>, first_sight: bool) -> Fault {
        let codes = &self.chances.codes;
        let Some(&code) = codes.get((self.random.next() % codes.len().max(1) as u64) as usize) else {
            return Fault::None;
        };
        // What a broker says of sequence numbers is believed, so it must be true: that a batch is not stored is certain
        // only of one whose numbers nobody ever saw, and that it is a duplicate only of one that is stored.
        match code {
            45 | 59 if context.producer_id >= 0 && !first_sight => return Fault::None,
            46 => return self.stored(46),
            _ => {}
        }
        self.injected |= bit(code);
        Fault::Error(ErrorCode(code))
    }

    fn stored_error(&mut self, context: &ProduceContext<'_>) -> Fault {
        let codes: &[i16] = if context.producer_id >= 0 { &[7, 20, 6, 46] } else { &[7, 20, 6] };
        let code = codes[(self.random.next() % codes.len() as u64) as usize];
        self.stored(code)
    }

    fn stored(&mut self, code: i16) -> Fault {
        self.injected |= bit(code);
        Fault::StoredThenError(ErrorCode(code))
    }

    /// Remembers the batch's sequence numbers; true when none of them was ever seen.
    fn note(&mut self, context: &ProduceContext<'_>) -> bool {
        if context.producer_id < 0 {
            return true;
        }
        let topic = context.topic.as_bytes().last().copied().unwrap_or(b'?');
        let producer = (context.producer_id, context.producer_epoch);
        let partition = context.partition;
        let first = context.base_sequence as u32;
        let end = (first + context.count as u32) % SEQUENCES;
        let known = self
            .seen
            .iter_mut()
            .find(|seen| seen.topic == topic && seen.partition == partition && seen.producer == producer);
        match known {
            None => {
                self.seen.push(Seen { topic, partition, producer, end });
                true
            }
            Some(seen) => {
                // Ahead of the newest by less than half of all numbers.
                let ahead = |of: u32| (of + SEQUENCES - seen.end) % SEQUENCES < SEQUENCES / 2;
                let new = ahead(first);
                if ahead(end) {
                    seen.end = end;
                }
                new
            }
        }
    }
}
