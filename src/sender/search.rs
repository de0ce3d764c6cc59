//! Which of a partition's batches are in the log? After an OUT_OF_ORDER_SEQUENCE_NUMBER for the oldest, and before any batch
//! is stamped again, that is searched for: a restarted broker remembers only the last batch, so its refusal of an older
//! one proves nothing. The newest that may be there is sent first. Accepted, it proves all before it, for nothing is accepted
//! behind a gap; refused, it is not there, and the one before it is tried.

use super::in_flight::{Batch, PartitionState, Place};

/// A search under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Search {
    /// The batch to be tried next, or that is on its way.
    tries: Place,
}

impl Search {
    /// The batch that is tried.
    pub fn tries(self) -> Place {
        self.tries
    }
}

impl PartitionState {
    /// Begins a search, or goes on, with the newest batch in the queue that may be in the log; of those before `before` if
    /// that is given. False: there is none, and no search any more.
    pub fn search(&mut self, before: Option<Place>) -> bool {
        let open = |queued: &&Batch| before.is_none_or(|before| queued.place() < before) && queued.is_unclear();
        self.search = self.queue.iter().rev().find(open).map(|queued| Search { tries: queued.place() });
        self.search.is_some()
    }

    /// Takes the next batch to be sent out of the queue: the one that is searched for, else the first.
    pub fn take_queued(&mut self) -> Option<Batch> {
        let tried = self.search.and_then(|search| self.queue.iter().position(|queued| queued.place() == search.tries));
        self.queue.remove(tried.unwrap_or(0))
    }
}
