//! A topic as writers and the sender share it: its partitions, in a table that only grows.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::accumulator::Partition;
use crate::error::BrokerError;
use crate::partitioner::Sticky;
use crate::sync::WaitList;

type Cell = OnceLock<Arc<Partition>>;

/// What `Topic` handles point to. Partitions lie in chunks of doubling size, so that the table grows while it is read
/// and a reader needs no lock and no copy: chunk `c` holds the indexes `2^c - 1` to `2^(c+1) - 2`.
pub struct TopicShared {
    /// Its name, for records' metadata and errors.
    pub name: Arc<str>,
    /// For records without a key.
    pub sticky: Sticky,
    /// Woken when the count or the refusal changes.
    pub changed: WaitList,
    count: AtomicU32,
    refusal: Mutex<Option<BrokerError>>,
    asked: AtomicBool,
    chunks: [OnceLock<Box<[Cell]>>; 31],
}

impl std::fmt::Debug for TopicShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicShared").field("name", &self.name).field("count", &self.count()).finish_non_exhaustive()
    }
}

#[inline]
fn place(index: u32) -> (usize, usize) {
    let one_based = index + 1;
    let chunk = one_based.ilog2();
    (chunk as usize, (one_based - (1 << chunk)) as usize)
}

impl TopicShared {
    /// A topic of which nothing is known yet.
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            sticky: Sticky::new(),
            changed: WaitList::default(),
            count: AtomicU32::new(0),
            refusal: Mutex::new(None),
            asked: AtomicBool::new(false),
            chunks: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// How many partitions are known: 0 until metadata is there. Everything below it can be read.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// The partition, if it is known.
    #[inline]
    pub fn partition(&self, index: u32) -> Option<&Arc<Partition>> {
        if index >= i32::MAX as u32 {
            return None;
        }
        let (chunk, at) = place(index);
        self.chunks.get(chunk)?.get()?.get(at)?.get()
    }

    /// The broker's last word on this topic when it was not good.
    pub fn refusal(&self) -> Option<BrokerError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_refusal(&self, refusal: Option<BrokerError>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// Somebody needs to know more. True: nobody had said so since the last answer, and the sender must be told.
    pub fn ask(&self) -> bool {
        !self.asked.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::AcqRel)
    }

    /// Somebody has asked and got no answer yet.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Sender: the broker refused the topic.
    pub fn set_refused(&self, error: BrokerError) {
        self.set_refusal(Some(error));
        self.asked.store(false, Ordering::Release);
        self.changed.wake_all();
    }

    /// Sender: an answer came that says nothing of this topic. Whoever waits may ask again.
    pub fn set_unanswered(&self) {
        self.asked.store(false, Ordering::Release);
        self.changed.wake_all();
    }

    /// Sender: adds the next partition; `publish` makes it visible.
    pub fn push(&self, index: u32, partition: Arc<Partition>) {
        let (chunk, at) = place(index);
        if let Some(chunk) = self.chunks.get(chunk) {
            let cells = chunk.get_or_init(|| (0..=index).map(|_| OnceLock::new()).collect());
            if let Some(cell) = cells.get(at) {
                let _ = cell.set(partition);
            }
        }
    }

    /// Sender: from now on the topic has `count` partitions.
    pub fn publish(&self, count: u32) {
        self.set_refusal(None);
        self.asked.store(false, Ordering::Release);
        self.count.store(count, Ordering::Release);
        self.changed.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn chunks_double() {
        let places: Vec<_> = (0..7).map(place).collect();
        assert_eq!(places, [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3)]);
        assert_eq!(place(i32::MAX as u32 - 1), (30, (1 << 30) - 1));
    }
}
