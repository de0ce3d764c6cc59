//! A topic's handle: from a record to its place in a ring.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::Core;
use super::claim::Claim;
use super::futures::SendFuture;
use super::refusal::Refusal;
use crate::accumulator::{Appended, Ask, Attach, Partition, Refused as Full};
use crate::completion::callback::{self, Callback};
use crate::completion::{Delivery, RecordMetadata};
use crate::driver::callbacks::Told;
use crate::error::{DeliveryError, Refused, SendError};
use crate::partitioner::partition_for_key;
use crate::record::{Header, Record};
use crate::sender::TopicShared;
use crate::wire::record::Fields;

/// A topic to send to. Made once by [`Producer::topic`](super::Producer::topic), cheap to clone, and usable from any
/// number of threads. All records that one thread sends to one partition arrive in its order.
#[derive(Clone)]
pub struct Topic {
    core: Arc<Core>,
    shared: Arc<TopicShared>,
}

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
        match self.append_inline(&record, Attach::Delivery, None, Some) {
            Ok(Some(delivery)) => Ok(delivery),
            // It was asked for, so there is one.
            Ok(None) => Err(SendError::Closed),
            Err(refusal) => with_delivery(self.refused_at_first(refusal, &record, Attach::Delivery)?),
        }
    }

    /// Like [`Topic::send`], but never waits: [`SendError::BufferFull`] and [`SendError::NotReady`] come back with the
    /// record.
    ///
    /// # Errors
    /// The record, and why it was refused.
    pub fn try_send<'a>(&self, record: Record<'a>) -> Result<Delivery, Refused<'a>> {
        let appended =
            self.append(&record, Attach::Delivery, None).map_err(|refusal| self.refused(&refusal, record))?;
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
        match self.append_inline(&record, Attach::Tag(tag), None, |_| ()) {
            Ok(()) => Ok(()),
            Err(refusal) => self.refused_at_first(refusal, &record, Attach::Tag(tag)).map(drop),
        }
    }

    /// Like [`Topic::send_tagged`], but never waits.
    ///
    /// # Errors
    /// The record, and why it was refused.
    pub fn try_send_tagged<'a>(&self, record: Record<'a>, tag: u64) -> Result<(), Refused<'a>> {
        self.check_listener().map_err(|error| Refused { record, error })?;
        self.append_inline(&record, Attach::Tag(tag), None, |_| ()).map_err(|refusal| self.refused(&refusal, record))
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
        self.append(&record, attach, None).or_else(|refusal| self.refused_at_first(refusal, &record, attach))?;
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
        let fields = Fields { key, value: None, headers };
        self.claim_record(Record { fields, ..Record::new() }, value_len)
    }

    /// Like [`Topic::claim`], for a record that also names its partition, its timestamp or its delivery timeout (which counts
    /// from the commit). The record's own value is not looked at.
    ///
    /// # Errors
    /// As [`Topic::send`].
    pub fn claim_record(&self, record: Record<'_>, value_len: usize) -> Result<Claim, SendError> {
        let attempt = |ask: Option<&Ask>| self.claim_now(&record, value_len, ask);
        let error = |refusal: &Refusal| self.claim_error(refusal, &record, value_len);
        match attempt(None) {
            Ok(claim) => Ok(claim),
            Err(refusal) => self.insist(refusal, Instant::now(), attempt, error),
        }
    }

    /// Like [`Topic::claim_record`], but never waits.
    ///
    /// # Errors
    /// As [`Topic::try_send`].
    pub fn try_claim(&self, record: Record<'_>, value_len: usize) -> Result<Claim, SendError> {
        self.claim_now(&record, value_len, None).map_err(|refusal| self.claim_error(&refusal, &record, value_len))
    }

    fn claim_now(&self, record: &Record<'_>, value_len: usize, ask: Option<&Ask>) -> Result<Claim, Refusal> {
        self.check(record)?;
        self.core.check_life().map_err(|_| Refusal::Life)?;
        let (accumulator, fields) = (&self.core.shared.accumulator, &record.fields);
        let claim_at =
            |partition: &Arc<Partition>| accumulator.claim(partition, fields, value_len, record.timestamp(), ask);
        let claim = match self.named(record)? {
            Some(partition) => claim_at(partition).map_err(Refusal::Full)?,
            None => self.place(|partition, may_open| {
                accumulator.takes(partition, fields, value_len, may_open)?;
                claim_at(partition)
            })?,
        };
        Ok(Claim::new(self.clone(), claim, record.timeout))
    }

    #[inline]
    fn check_listener(&self) -> Result<(), SendError> {
        if self.core.has_listener { Ok(()) } else { Err(SendError::NoListener) }
    }

    /// What is wrong with a record whatever the topic's state is.
    #[inline(always)]
    fn check(&self, record: &Record<'_>) -> Result<(), Refusal> {
        if let Some(timestamp) = record.timestamp().filter(|timestamp| *timestamp < 0) {
            return Err(Refusal::Timestamp(timestamp));
        }
        if self.core.origin.is_elsewhere() { Err(Refusal::Life) } else { Ok(()) }
    }

    /// The way of a record that finds room: partition, claim, write, commit. All in one, for the calls that are made
    /// millions of times. `ask`, if the call waits for room.
    #[inline(always)]
    fn append_inline<R: Default>(
        &self,
        record: &Record<'_>,
        attach: Attach,
        ask: Option<&Ask>,
        keep: impl Fn(Delivery) -> R,
    ) -> Result<R, Refusal> {
        self.check(record)?;
        let accumulator = &self.core.shared.accumulator;
        let (fields, timestamp, timeout) = (&record.fields, record.timestamp(), record.timeout);
        let kept = |elsewhere: Result<Appended, _>| Ok(elsewhere?.delivery.map(&keep).unwrap_or_default());
        // Without key and partition: stay with one partition until its batch is full (KIP-480).
        let sticky = record.partition().is_none() && record.fields.key.is_none();
        let partition = match if sticky { self.sticky() } else { self.named(record)? } {
            Some(partition) => partition,
            None => return kept(self.append_elsewhere(record, attach, ask, None)),
        };
        match accumulator.append_inline(partition, fields, timestamp, attach, !sticky, timeout, ask, &keep) {
            Ok(kept) => Ok(kept),
            Err(why) if sticky => kept(self.append_elsewhere(record, attach, ask, Some((partition, why)))),
            Err(why) => Err(Refusal::Full(why)),
        }
    }

    /// No partition is chosen yet, or the one that was did not take it. Apart, so that the way of most records keeps nothing
    /// ready for this.
    #[cold]
    fn append_elsewhere(
        &self,
        record: &Record<'_>,
        attach: Attach,
        ask: Option<&Ask>,
        tried: Option<(&Arc<Partition>, Full)>,
    ) -> Result<Appended, Refusal> {
        let (fields, timestamp, timeout) = (&record.fields, record.timestamp(), record.timeout);
        let append_at = |partition: &Arc<Partition>, may_open| {
            self.core.shared.accumulator.append_asking(partition, fields, timestamp, attach, may_open, timeout, ask)
        };
        match tried {
            Some((partition, why)) => self.after(partition, why, append_at),
            None => self.elsewhere(None, None, append_at),
        }
    }

    pub(super) fn append(&self, record: &Record<'_>, attach: Attach, ask: Option<&Ask>) -> Result<Appended, Refusal> {
        Ok(Appended { delivery: self.append_inline(record, attach, ask, Some)? })
    }

    /// The record's partition, if it names one or has a key.
    fn named(&self, record: &Record<'_>) -> Result<Option<&Arc<Partition>>, Refusal> {
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
            (None, None) => return Ok(None),
        };
        self.shared.partition(index as u32).map(Some).ok_or(Refusal::NotReady)
    }
}

fn with_delivery(appended: Appended) -> Result<Delivery, SendError> {
    // Asked for, so there is one.
    appended.delivery.ok_or(SendError::Closed)
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
