//! Where a record without key and partition goes: it stays with one partition while its batch fills (KIP-480), and leaves
//! one that takes no more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::refusal::Refusal;
use super::topic::Topic;
use crate::accumulator::{Partition, Refused as Full};

/// So many leaders' partitions are tried before the call waits for room.
const LEADERS: usize = 4;
/// No node has this id.
const NOBODY: i32 = -2;

impl Topic {
    /// The partition where records without a key go at the moment.
    #[inline]
    pub(super) fn sticky(&self) -> Option<&Arc<Partition>> {
        let count = self.shared().count();
        let current = self.shared().sticky.current().filter(|current| (*current as u32) < count)?;
        self.shared().partition(current as u32)
    }

    /// `attempt` is made at the present partition, where it is to open no new batch; else, with `true`, at others.
    pub(super) fn place<T>(
        &self,
        mut attempt: impl FnMut(&Arc<Partition>, bool) -> Result<T, Full>,
    ) -> Result<T, Refusal> {
        let Some(current) = self.sticky() else { return self.elsewhere(None, None, attempt) };
        match attempt(current, false) {
            Ok(done) => Ok(done),
            Err(why) => self.after(current, why, attempt),
        }
    }

    /// The present partition did not take it.
    #[cold]
    pub(super) fn after<T>(
        &self,
        current: &Arc<Partition>,
        why: Full,
        attempt: impl FnMut(&Arc<Partition>, bool) -> Result<T, Full>,
    ) -> Result<T, Refusal> {
        let from = Some(current.place.partition);
        match why {
            Full::WouldOpen => self.elsewhere(from, None, attempt),
            why if why.is_full() => self.elsewhere(from, Some((current, why)), attempt),
            why => Err(Refusal::Full(why)),
        }
    }

    /// The present partition takes no more, or it is `full`: then its broker may be stuck, and another one have room.
    #[cold]
    pub(super) fn elsewhere<'a, T>(
        &'a self,
        mut from: Option<i32>,
        mut full: Option<(&'a Arc<Partition>, Full)>,
        mut attempt: impl FnMut(&Arc<Partition>, bool) -> Result<T, Full>,
    ) -> Result<T, Refusal> {
        let count = self.shared().count();
        if count == 0 {
            return Err(Refusal::NotReady);
        }
        // Leaders that have no memory left; a ring that is full says nothing of others.
        let mut stuck = [NOBODY; LEADERS];
        let leader = |partition: &Partition| partition.leader.load(Ordering::Relaxed);
        for tried in 0..LEADERS {
            if let Some((partition, why)) = &full {
                stuck[tried] = if *why == Full::RingFull { NOBODY } else { leader(partition) };
            }
            let available = |leader: i32| leader >= 0 && !stuck.contains(&leader);
            let mut next = self.next_sticky(from, count, available).ok_or(Refusal::NotReady)?;
            if full.is_some() && !available(leader(next)) && from != Some(next.place.partition) {
                // Another thread's choice.
                next = self.next_sticky(Some(next.place.partition), count, available).ok_or(Refusal::NotReady)?;
            }
            if full.is_some() && !available(leader(next)) {
                break;
            }
            match attempt(next, true) {
                Err(why) if why.is_full() => (from, full) = (Some(next.place.partition), Some((next, why))),
                result => return result.map_err(Refusal::Full),
            }
        }
        Err(full.map_or(Refusal::NotReady, |(_, why)| Refusal::Full(why)))
    }

    #[cold]
    pub(super) fn next_sticky(
        &self,
        from: Option<i32>,
        count: u32,
        may_lead: impl Fn(i32) -> bool,
    ) -> Option<&Arc<Partition>> {
        let leader = |index: i32| Some(self.shared().partition(index as u32)?.leader.load(Ordering::Relaxed));
        let next = self.shared().sticky.next(from, count as i32, |index| leader(index).is_some_and(&may_lead));
        self.shared().partition(next as u32)
    }
}
