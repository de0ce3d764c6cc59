//! Results: what the sender says of a range of records, and what a caller gets to see of one.

use std::fmt;
use std::sync::Arc;

use crate::error::DeliveryError;
use crate::record::Place;

/// Where a delivered record lies.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    place: Arc<Place>,
    offset: Option<i64>,
    timestamp: i64,
}

impl RecordMetadata {
    pub(crate) fn new(place: Arc<Place>, offset: Option<i64>, timestamp: i64) -> Self {
        Self { place, offset, timestamp }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.place.topic
    }

    /// The partition, counted from 0.
    pub fn partition(&self) -> i32 {
        self.place.partition
    }

    /// The record's offset in its partition. `None` with `acks=0`, and when the broker knew the batch but no longer
    /// where it lies.
    pub fn offset(&self) -> Option<i64> {
        self.offset
    }

    /// Milliseconds since the Unix epoch: the time at which the broker appended it where the topic uses
    /// LogAppendTime, else the record's own.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }
}

impl fmt::Debug for RecordMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordMetadata")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .finish()
    }
}

impl fmt::Display for RecordMetadata {
    /// `topic-partition@offset`, as Kafka's client writes it; `?` where the offset is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{}@{offset}", self.place),
            None => write!(f, "{}@?", self.place),
        }
    }
}

/// Hears what became of each record that was sent with a tag. Runs on a thread of its own: a slow listener delays
/// later calls of itself and, once what it has not taken fills `buffer.memory`, the acceptance of new records, but
/// never the sending of accepted ones. A call that may wait, made from here, is an error.
///
/// Within a partition, what was delivered is told in the order of the log: with idempotence, that in which it was sent. A
/// record that fails alone (the broker refused it, its own time was over, it is too large) is told at once, and so perhaps
/// before others that were sent before it and still wait. A closure of the same shape is a listener.
pub trait DeliveryListener: Send + 'static {
    /// `tag` is the number that the record was sent with.
    fn on_delivery(&mut self, tag: u64, result: Result<&RecordMetadata, &DeliveryError>);
}

impl<F> DeliveryListener for F
where
    F: FnMut(u64, Result<&RecordMetadata, &DeliveryError>) + Send + 'static,
{
    fn on_delivery(&mut self, tag: u64, result: Result<&RecordMetadata, &DeliveryError>) {
        self(tag, result);
    }
}

/// What the sender says of a range of records.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Acknowledged (`acks=0`: sent).
    Delivered {
        /// The offset of the range's first record; the others follow. `None`: not known.
        base_offset: Option<i64>,
        /// The broker's clock, milliseconds since the Unix epoch, where the topic's timestamps are LogAppendTime.
        log_append_time: Option<i64>,
    },
    /// Ended without.
    Failed(DeliveryError),
}

impl Outcome {
    /// The result of the range's record number `nth`, whose own timestamp is `timestamp`.
    pub(crate) fn of_record(
        &self,
        place: &Arc<Place>,
        nth: u32,
        timestamp: i64,
    ) -> Result<RecordMetadata, DeliveryError> {
        let mut result = match self {
            Self::Delivered { .. } => Ok(RecordMetadata::new(place.clone(), None, timestamp)),
            Self::Failed(error) => Err(error.clone()),
        };
        self.renew(&mut result, nth, timestamp);
        result
    }

    /// Makes the result of another record of the range out of one: the count of the partition's owners, which the
    /// sender and other threads have in their caches, is left alone.
    #[inline]
    pub(crate) fn renew(&self, result: &mut Result<RecordMetadata, DeliveryError>, nth: u32, timestamp: i64) {
        if let (Self::Delivered { base_offset, log_append_time }, Ok(metadata)) = (self, result) {
            metadata.offset = base_offset.map(|base| base.saturating_add(i64::from(nth)));
            metadata.timestamp = log_append_time.unwrap_or(timestamp);
        }
    }
}
