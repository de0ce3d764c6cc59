//! Waiting for what a call lacks: metadata, a partition, room. One loop for records, claims and commits.

use std::time::Instant;

use super::refusal::Refusal;
use super::topic::Topic;
use crate::accumulator::{Appended, Ask, Attach};
use crate::error::{SendError, WaitedFor};
use crate::record::Record;

impl Topic {
    /// Waits where that may help; else says why not.
    #[cold]
    pub(super) fn refused_at_first(
        &self,
        refusal: Refusal,
        record: &Record<'_>,
        attach: Attach,
    ) -> Result<Appended, SendError> {
        let attempt = |ask: Option<&Ask>| self.append(record, attach, ask);
        self.insist(refusal, Instant::now(), attempt, |refusal| self.error(refusal, record))
    }

    /// Tries again whenever that may help, until `max.block.ms` after `started`; what a try has won is the call's. `error`
    /// puts a refusal into words.
    #[cold]
    pub(super) fn insist<T>(
        &self,
        mut refusal: Refusal,
        started: Instant,
        mut attempt: impl FnMut(Option<&Ask>) -> Result<T, Refusal>,
        error: impl Fn(&Refusal) -> SendError,
    ) -> Result<T, SendError> {
        let core = self.core();
        while refusal.may_pass() {
            core.check_may_block()?;
            core.check_life()?;
            let result = match &refusal {
                Refusal::Full(_) => self.try_for_room(started, &mut attempt)?,
                Refusal::NoPartition(partition) => {
                    core.block_for_partition(self.shared(), *partition, started)?;
                    attempt(None)
                }
                _ => {
                    core.block_for_topic(self.shared(), started)?;
                    attempt(None)
                }
            };
            match result {
                Ok(done) => return Ok(done),
                Err(next) => refusal = next,
            }
        }
        Err(error(&refusal))
    }

    /// Tries as long as room is all that is lacking.
    fn try_for_room<T>(
        &self,
        started: Instant,
        attempt: &mut impl FnMut(Option<&Ask>) -> Result<T, Refusal>,
    ) -> Result<Result<T, Refusal>, SendError> {
        let accumulator = &self.core().shared.accumulator;
        let deadline = started.checked_add(self.core().shared.config.max_block);
        let mut ask = None;
        // The first try comes before the wait, the second one when the caller is in the list of those who wait. Who was
        // woken in vain after that asks: others are quicker, or what is free lies in pieces.
        let mut tries = 0;
        let step = || {
            loop {
                tries += 1;
                match attempt(ask.as_ref()) {
                    Err(Refusal::Full(why)) if why.is_full() => {
                        if tries <= 2 || ask.is_some() {
                            return None;
                        }
                        ask = accumulator.ask(why);
                        ask.as_ref()?;
                    }
                    result => return Some(result),
                }
            }
        };
        accumulator
            .block_for_room(deadline, step)
            .ok_or_else(|| SendError::Timeout { waited: started.elapsed(), waited_for: WaitedFor::Memory })
    }
}
