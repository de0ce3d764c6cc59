//! Waiting for room: who was refused as full sleeps here; and asking for a large run, so that it is not starved.
//!
//! A large run is free only when all of its neighbours are, and small takes would fill each gap as it opens. So a
//! caller that waits for a large one *asks*: while the first ask stands, takes of less than half of it are refused as full
//! (what is open still takes records), the sender sends what is open, and acks bring the memory together. An ask whose broker
//! already has its share of the memory holds nobody up. Asks are served in their order; each ends with its `Ask`.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    task::Waker,
};

use super::{Accumulator, Refused};
use crate::sync::{AcqRel, AtomicU32, Relaxed, mutated, plain};

/// What waiting callers want of large runs.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// A copy of the first ask: `units << 32 | share`; 0: none.
    first: plain::AtomicU64,
    /// 1: somebody was refused for the sake of the first ask since [`Accumulator::lets_go`] last looked.
    deferred: AtomicU32,
    asks: std::sync::Mutex<Asks>,
}

#[derive(Debug, Default)]
struct Asks {
    next: u64,
    /// Ticket and what `first` says when it is first. In order.
    list: Vec<(u64, u64)>,
}

impl Asked {
    fn change<R>(&self, change: impl FnOnce(&mut Asks) -> R) -> R {
        let mut asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut asks);
        self.first.store(asks.list.first().map_or(0, |(_, ask)| *ask), Relaxed);
        result
    }
}

/// A caller that waits for a large run. While the first of them lives, small takes are refused.
pub struct Ask {
    accumulator: Arc<Accumulator>,
    ticket: u64,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ask").field(&self.ticket).finish()
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.accumulator.asks.change(|asks| asks.list.retain(|(ticket, _)| *ticket != self.ticket));
        // Those who were refused for its sake.
        if !mutated("no_ask_wake") {
            self.accumulator.made_room();
        }
    }
}

impl Accumulator {
    /// Somebody waits for room: what is open should be sent at once.
    pub fn under_pressure(&self) -> bool {
        self.room.waiting()
    }

    /// There may be room now: called after every change that could let a refused append succeed, or several of them.
    pub fn made_room(&self) {
        #[cfg(loom)]
        if !self.waits {
            return;
        }
        self.room.wake_all();
    }

    /// To be held while waiting for room after `refused`. `None`: no run of its own is needed, or its broker holds more
    /// than its share already, so it may not hold up the others.
    pub fn ask(self: &Arc<Self>, refused: Refused) -> Option<Ask> {
        let Refused::NoRun { units, share } = refused else { return None };
        if !self.pool.shares.is_fair(share, units) {
            return None;
        }
        let ticket = self.asks.change(|asks| {
            asks.next += 1;
            asks.list.push((asks.next, u64::from(units) << 32 | u64::from(share)));
            asks.next
        });
        Some(Ask { accumulator: self.clone(), ticket })
    }

    /// A take of `units` is refused for the sake of somebody who asked for far more.
    pub(super) fn defers(&self, units: u32) -> bool {
        let first = self.asks.first.load(Relaxed);
        let (asked, share) = ((first >> 32) as u32, first as u32);
        let defers = || asked / 2 > units && self.pool.shares.is_fair(share, asked);
        if !defers() {
            return false;
        }
        // Once more behind a note: a take that makes the ask unfair and is not seen then finds the note.
        self.asks.deferred.swap(1, AcqRel);
        defers()
    }

    /// After a take: true if the first ask holds nobody up any more, so that those it did must look again.
    pub(super) fn lets_go(&self) -> bool {
        let first = self.asks.first.load(Relaxed);
        let (asked, share) = ((first >> 32) as u32, first as u32);
        asked > 0 && !self.pool.shares.is_fair(share, asked) && self.asks.deferred.swap(0, AcqRel) != 0
    }

    /// Registers in [`Accumulator::room`] and tells the sender that somebody waits. The caller tries again before it
    /// sleeps.
    pub fn wait_for_room(&self, slot: &mut Option<u64>, waker: &Waker) {
        self.room.register(slot, waker);
        self.doorbell.ring();
    }

    /// Calls `attempt` until it gives something or the deadline is over, sleeping in between until there may be room.
    #[cfg(not(loom))]
    pub fn block_for_room<T>(
        &self,
        deadline: Option<std::time::Instant>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        crate::sync::block_until(&self.room, deadline, || {
            let done = attempt();
            if done.is_none() && self.room.waiting() {
                self.doorbell.ring();
            }
            done
        })
    }
}
