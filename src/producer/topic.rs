//! A topic's handle: from a record to its place in a ring.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Core;
use super::claim::Claim;
use super::futures::SendFuture;
use crate::accumulator::{Appended, Attach, Partition, Refused as Full};
use crate::completion::callback::{self, Callback};
use crate::completion::{Delivery, RecordMetadata};
use crate::driver::callbacks::Told;
use crate::error::{DeliveryError, Refused, SendError, WaitedFor};
use crate::partitioner::partition_for_key;
use crate::record::{Header, Record};
use crate::sender::{Life, TopicShared};
use crate::wire::record::{Fields, Shape};
use crate::wire::record_batch;

/// A topic to send to. Made once by [`Producer::topic`](super::Producer::topic), cheap to clone, and usable from any
/// number of threads. All records that one thread sends to one partition arrive in its order.
#[derive(Clone)]
pub struct Topic {
    core: Arc<Core>,
    shared: Arc<TopicShared>,
}

/// A record without key and partition tries the partitions of so many leaders before it waits for room.
const LEADERS: usize = 4;
/// No node has this id.
const NOBODY: i32 = -2;

/// Kafka's rule for topic names.
pub(super) fn is_valid_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(legal)
}

impl Topic {
    pub(super) fn new(core: Arc<Core>, shared: Arc<TopicShared>) -> Self {
        Self { core, shared }
    }

    pub(super) fn shared(&self) -> &Arc<TopicShared> {
        &self.shared
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Takes a record into memory; the [`Delivery`] tells what became of it. Waits for metadata and for room in
    /// `buffer.memory`, `max.block.ms` at most.
    ///
    /// # Errors
    /// Why the record was refused. It was only lent, so it is still the caller's, and nothing of it is sent.
    pub fn send(&self, record: Record<'_>) -> Result<Delivery, SendError> {
        match self.append_inline(&record, Attach::Delivery, Some) {
            Ok(Some(delivery)) => Ok(delivery),
            // It was asked for, so there is one.
            Ok(None) => Err(SendError::Closed),
            Err(refusal) => with_delivery(self.refused_at_first(&refusal, &record, Attach::Delivery)?),
        }
    }

    /// Like [`Topic::send`], but never waits: [`SendError::BufferFull`] and [`SendError::NotReady`] come back with the
    /// record.
    ///
    /// # Errors
    /// The record, and why it was refused.
    pub fn try_send<'a>(&self, record: Record<'a>) -> Result<Delivery, Refused<'a>> {
        let appended = self.append(&record, Attach::Delivery).map_err(|refusal| self.refused(&refusal, record))?;
        with_delivery(appended).map_err(|error| Refused { record, error })
    }

    /// Like [`Topic::send`] as a future, for any runtime or none. It has no timer of its own: the limit of
    /// `max.block.ms` is kept to within about 0.1 s.
    pub fn send_async<'a>(&'a self, record: Record<'a>) -> SendFuture<'a> {
        SendFuture::new(self, record)
    }

    /// Like [`Topic::send`] without a handle: the producer's listener is told `tag` and the result.
    ///
    /// # Errors
    /// As [`Topic::send`], and [`SendError::NoListener`].
    pub fn send_tagged(&self, record: Record<'_>, tag: u64) -> Result<(), SendError> {
        self.check_listener()?;
        match self.append_inline(&record, Attach::Tag(tag), |_| ()) {
            Ok(()) => Ok(()),
            Err(refusal) => self.refused_at_first(&refusal, &record, Attach::Tag(tag)).map(drop),
        }
    }

    /// Like [`Topic::send_tagged`], but never waits.
    ///
    /// # Errors
    /// The record, and why it was refused.
    pub fn try_send_tagged<'a>(&self, record: Record<'a>, tag: u64) -> Result<(), Refused<'a>> {
        self.check_listener().map_err(|error| Refused { record, error })?;
        self.append_inline(&record, Attach::Tag(tag), |_| ()).map_err(|refusal| self.refused(&refusal, record))
    }

    /// Like [`Topic::send`] without a handle: `callback` gets the result, on the thread that runs callbacks. It is not
    /// called when the record is refused here.
    ///
    /// # Errors
    /// As [`Topic::send`].
    pub fn send_with(
        &self,
        record: Record<'_>,
        callback: impl FnOnce(Result<RecordMetadata, DeliveryError>) + Send + 'static,
    ) -> Result<(), SendError> {
        self.core.check_life()?;
        // No thread to run it on: as good as no producer.
        self.core.start_callbacks(Told::default()).map_err(|_| SendError::Closed)?;
        let callback: Callback = Box::new(callback);
        let held = callback::hold(callback);
        let attach = Attach::Callback(held.value());
        self.append(&record, attach).or_else(|refusal| self.refused_at_first(&refusal, &record, attach))?;
        held.accepted();
        Ok(())
    }

    /// A record whose value of `value_len` bytes the caller writes in place, sent by its `commit`. Waits like
    /// [`Topic::send`]. A claim that is dropped or leaked holds up nobody: its place among the partition's records is
    /// taken by the commit.
    ///
    /// # Errors
    /// As [`Topic::send`].
    pub fn claim(&self, value_len: usize, key: Option<&[u8]>, headers: &[Header<'_>]) -> Result<Claim, SendError> {
        self.core.check_life()?;
        let record = Record { fields: Fields { key, value: None, headers }, ..Record::new() };
        let started = Instant::now();
        loop {
            let refusal = match self.claim_now(&record, value_len) {
                Ok(claim) => return Ok(claim),
                Err(refusal) => refusal,
            };
            if !refusal.may_pass() {
                return Err(self.error_of(&refusal, self.size(&record, Some(value_len))));
            }
            self.wait(&refusal, started, || match self.claim_now(&record, value_len) {
                Err(refusal) if refusal.may_pass() => None,
                _ => Some(()),
            })?;
        }
    }

    fn claim_now(&self, record: &Record<'_>, value_len: usize) -> Result<Claim, Refusal> {
        self.core.check_life().map_err(|_| Refusal::Life)?;
        let partition = self.choose(record)?;
        let accumulator = &self.core.shared.accumulator;
        let Fields { key, headers, .. } = record.fields;
        let claim = accumulator.claim(partition, value_len, key, headers, record.timestamp());
        claim.map(|claim| Claim::new(self.clone(), claim)).map_err(Refusal::Full)
    }

    #[inline]
    fn check_listener(&self) -> Result<(), SendError> {
        if self.core.has_listener { Ok(()) } else { Err(SendError::NoListener) }
    }

    /// The way of a record that finds room: partition, claim, write, commit. All in one, for the calls that are made
    /// millions of times.
    #[inline(always)]
    fn append_inline<R: Default>(
        &self,
        record: &Record<'_>,
        attach: Attach,
        keep: impl Fn(Delivery) -> R,
    ) -> Result<R, Refusal> {
        let kept = |elsewhere: Result<Appended, _>| Ok(elsewhere?.delivery.map(&keep).unwrap_or_default());
        if record.timestamp().is_some_and(|timestamp| timestamp < 0) {
            return Err(Refusal::Timestamp);
        }
        if self.core.origin.is_elsewhere() {
            return Err(Refusal::Life);
        }
        // Without key and partition: stay with one partition until its batch is full (KIP-480).
        let sticky = record.partition().is_none() && record.fields.key.is_none();
        let partition = if sticky {
            let count = self.shared.count();
            let current = self.shared.sticky.current().filter(|current| (*current as u32) < count);
            match current.and_then(|current| self.shared.partition(current as u32)) {
                Some(partition) => partition,
                None => return kept(self.append_elsewhere(record, attach, current, None)),
            }
        } else {
            self.choose(record)?
        };
        let (timestamp, timeout) = (record.timestamp(), record.timeout);
        let accumulator = &self.core.shared.accumulator;
        match accumulator.append_inline(partition, &record.fields, timestamp, attach, !sticky, timeout, &keep) {
            Ok(kept) => Ok(kept),
            Err(why) if sticky => kept(self.append_after(record, attach, partition, why)),
            Err(why) => Err(Refusal::Full(why)),
        }
    }

    pub(super) fn append(&self, record: &Record<'_>, attach: Attach) -> Result<Appended, Refusal> {
        Ok(Appended { delivery: self.append_inline(record, attach, Some)? })
    }

    /// The present partition does not take the record.
    #[cold]
    fn append_after(
        &self,
        record: &Record<'_>,
        attach: Attach,
        current: &Arc<Partition>,
        why: Full,
    ) -> Result<Appended, Refusal> {
        let from = Some(current.place.partition);
        match why {
            Full::WouldOpen => self.append_elsewhere(record, attach, from, None),
            why if why.is_full() => self.append_elsewhere(record, attach, from, Some((current, why))),
            why => Err(Refusal::Full(why)),
        }
    }

    /// The present partition takes no more, or it is `full`: then its broker may be stuck, and another one have room.
    #[cold]
    fn append_elsewhere<'a>(
        &'a self,
        record: &Record<'_>,
        attach: Attach,
        mut from: Option<i32>,
        mut full: Option<(&'a Arc<Partition>, Full)>,
    ) -> Result<Appended, Refusal> {
        let count = self.shared.count();
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
            let (timestamp, timeout) = (record.timestamp(), record.timeout);
            let accumulator = &self.core.shared.accumulator;
            match accumulator.append(next, &record.fields, timestamp, attach, true, timeout) {
                Err(why) if why.is_full() => (from, full) = (Some(next.place.partition), Some((next, why))),
                result => return result.map_err(Refusal::Full),
            }
        }
        Err(full.map_or(Refusal::NotReady, |(_, why)| Refusal::Full(why)))
    }

    #[cold]
    fn next_sticky(&self, from: Option<i32>, count: u32, may_lead: impl Fn(i32) -> bool) -> Option<&Arc<Partition>> {
        let leader = |index: i32| Some(self.shared.partition(index as u32)?.leader.load(Ordering::Relaxed));
        let next = self.shared.sticky.next(from, count as i32, |index| leader(index).is_some_and(&may_lead));
        self.shared.partition(next as u32)
    }

    /// The record's partition: the one it names, its key's, or the sticky one.
    fn choose(&self, record: &Record<'_>) -> Result<&Arc<Partition>, Refusal> {
        let count = self.shared.count();
        if count == 0 {
            return Err(Refusal::NotReady);
        }
        let index = match (record.partition(), record.fields.key) {
            (Some(partition), _) if partition < 0 || partition as u32 >= count => {
                return Err(Refusal::NoPartition(partition));
            }
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, count as i32),
            (None, None) => match self.shared.sticky.current().filter(|current| (*current as u32) < count) {
                Some(current) => current,
                None => return self.next_sticky(None, count, |leader| leader >= 0).ok_or(Refusal::NotReady),
            },
        };
        self.shared.partition(index as u32).ok_or(Refusal::NotReady)
    }

    /// Waits where that may help; else says why not.
    #[cold]
    fn refused_at_first(&self, refusal: &Refusal, record: &Record<'_>, attach: Attach) -> Result<Appended, SendError> {
        if refusal.may_pass() { self.block(record, attach) } else { Err(self.error(refusal, record)) }
    }

    /// Waits for what the record lacks, and appends it.
    #[cold]
    pub(super) fn block(&self, record: &Record<'_>, attach: Attach) -> Result<Appended, SendError> {
        let started = Instant::now();
        let mut refusal = match self.append(record, attach) {
            Ok(appended) => return Ok(appended),
            Err(refusal) => refusal,
        };
        loop {
            let mut appended = None;
            self.wait(&refusal, started, || match self.append(record, attach) {
                Ok(done) => {
                    appended = Some(Ok(done));
                    Some(())
                }
                Err(refusal) if refusal.may_pass() => None,
                Err(refusal) => {
                    appended = Some(Err(refusal));
                    Some(())
                }
            })?;
            match appended {
                Some(Ok(appended)) => return Ok(appended),
                Some(Err(refusal)) => return Err(self.error(&refusal, record)),
                None => {}
            }
            match self.append(record, attach) {
                Ok(appended) => return Ok(appended),
                Err(next) if next.may_pass() => refusal = next,
                Err(refusal) => return Err(self.error(&refusal, record)),
            }
        }
    }

    /// Sleeps until metadata is there, or until `attempt` found room.
    pub(super) fn wait(
        &self,
        refusal: &Refusal,
        started: Instant,
        attempt: impl FnMut() -> Option<()>,
    ) -> Result<(), SendError> {
        self.core.check_may_block()?;
        self.core.check_life()?;
        let deadline = started.checked_add(self.core.shared.config.max_block);
        match refusal {
            Refusal::Full(refused) => {
                let accumulator = &self.core.shared.accumulator;
                let _ask = accumulator.ask(*refused);
                accumulator
                    .block_for_room(deadline, attempt)
                    .ok_or_else(|| SendError::Timeout { waited: started.elapsed(), waited_for: WaitedFor::Memory })
            }
            Refusal::NoPartition(partition) => self.core.block_for_partition(&self.shared, *partition, started),
            _ => self.core.block_for_topic(&self.shared, started),
        }
    }

    fn size(&self, record: &Record<'_>, value_len: Option<usize>) -> usize {
        Shape::with_value_len(&record.fields, value_len).len_max() + record_batch::LEN
    }

    #[cold]
    fn refused<'a>(&self, refusal: &Refusal, record: Record<'a>) -> Refused<'a> {
        Refused { record, error: self.error(refusal, &record) }
    }

    #[cold]
    pub(super) fn error(&self, refusal: &Refusal, record: &Record<'_>) -> SendError {
        if matches!(refusal, Refusal::Timestamp) {
            return SendError::InvalidTimestamp { timestamp: record.timestamp().unwrap_or(0) };
        }
        self.error_of(refusal, self.size(record, record.fields.value.map(<[u8]>::len)))
    }

    /// In words that a user can act on; `size` is the record's in a batch of its own.
    #[cold]
    pub(super) fn error_of(&self, refusal: &Refusal, size: usize) -> SendError {
        if let Err(error) = self.core.check_life() {
            return error;
        }
        let topic = self.shared.name.clone();
        match refusal {
            Refusal::Full(Full::TooLarge) => {
                let config = &self.core.shared.config;
                let limit = config.max_request_size as usize;
                if size > limit {
                    SendError::RecordTooLarge { size, limit, key: "max.request.size" }
                } else {
                    SendError::RecordTooLarge { size, limit: config.buffer_memory, key: "buffer.memory" }
                }
            }
            Refusal::Full(Full::Closed) => match self.core.shared.life() {
                Life::Panicked => SendError::SenderPanicked,
                _ => SendError::Closed,
            },
            Refusal::Full(_) => SendError::BufferFull,
            Refusal::NotReady => match self.core.topic_step(&self.shared) {
                Some(Err(error)) => error,
                _ => SendError::NotReady { topic },
            },
            Refusal::NoPartition(partition) => {
                // It may have been added: the next call finds it then.
                self.core.shared.want(&self.shared);
                self.core.no_partition(&self.shared, *partition)
            }
            Refusal::Timestamp => SendError::InvalidTimestamp { timestamp: -1 },
            Refusal::Life => SendError::Closed,
        }
    }
}

fn with_delivery(appended: Appended) -> Result<Delivery, SendError> {
    // Asked for, so there is one.
    appended.delivery.ok_or(SendError::Closed)
}

/// Why a record was not taken, before it is put into words.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The ring's or the pool's word.
    Full(Full),
    /// The topic's partitions are not known.
    NotReady,
    /// The topic has no such partition.
    NoPartition(i32),
    /// A negative timestamp.
    Timestamp,
    /// Forked.
    Life,
}

impl Refusal {
    /// Waiting may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Full(full) => full.is_full(),
            Self::NotReady => true,
            Self::NoPartition(partition) => *partition >= 0,
            Self::Timestamp | Self::Life => false,
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name()).field("partitions", &self.shared.count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::is_valid_name;

    #[test]
    fn topic_names_as_kafka_has_them() {
        for good in ["a", "orders", "a.b_c-D9", &"x".repeat(249), "..."] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }
}
