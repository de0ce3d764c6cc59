//! Waiting for room: callers that were refused as full sleep here; and asking for several units in one piece
//! (`pool/asks.rs`), so that they are not starved by callers that need fewer.

use std::{fmt, sync::Arc, task::Waker};

use super::{Accumulator, Refused, pool::Run};

/// A caller that waits for several units in one piece, and has been woken in vain. Dropped, it waits no more.
pub struct Ask {
    accumulator: Arc<Accumulator>,
    ticket: u64,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ask").field(&self.ticket).finish()
    }
}

impl Ask {
    /// The run, if it is complete now. Each call says that the caller goes on waiting.
    pub(super) fn collect(&self, needs: u32, share: u32) -> Option<Run> {
        let pool = &self.accumulator.pool;
        pool.asks.collect(pool, self.ticket, needs, share)
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        let pool = &self.accumulator.pool;
        pool.asks.leave(pool, self.ticket);
        // What was kept for it, and the next in line.
        self.accumulator.made_room();
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

    /// To be held, and handed to each further try, by a caller that was refused so and then woken in vain. `None`: it needs
    /// no more than what any other caller needs.
    pub fn ask(self: &Arc<Self>, refused: Refused) -> Option<Ask> {
        let ticket = || self.pool.asks.ticket();
        matches!(refused, Refused::NoRun).then(|| Ask { accumulator: self.clone(), ticket: ticket() })
    }

    /// Somebody asks: [`Accumulator::tick`] is due now and then.
    pub fn is_asked(&self) -> bool {
        self.pool.asks.are_any()
    }

    /// The sender, every 50 ms while somebody asks: asks that nobody has spoken for since are forgotten.
    pub fn tick(&self) {
        if self.pool.asks.tick(&self.pool) {
            self.made_room();
        }
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
