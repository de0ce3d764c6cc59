//! What becomes of records that could not be delivered: they are lent, with all they had, to a sink of the user's.

use std::fmt;
use std::time::Duration;

use crate::error::{DeliveryError, Written};
use crate::metadata::ClusterName;
use crate::record::Header;

/// A record that was accepted and could not be delivered, borrowed from the producer's memory while the sink looks at
/// it. Its parts are as they were sent.
#[derive(Clone, Copy)]
pub struct UndeliveredRecord<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) timestamp: i64,
    pub(crate) error: &'a DeliveryError,
    pub(crate) closes_in: Option<Duration>,
    pub(crate) cluster: &'a ClusterName,
}

impl<'a> UndeliveredRecord<'a> {
    /// The topic that it was sent to.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition that it was sent to, counted from 0.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// `None` is null.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// `None` is null.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// In the order in which they were sent.
    pub fn headers(&self) -> &'a [Header<'a>] {
        self.headers
    }

    /// Milliseconds since the Unix epoch: the record's own, or the time of its `send`.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// Why it was not delivered, in full.
    pub fn error(&self) -> &'a DeliveryError {
        self.error
    }

    /// Whether it may be in the log all the same.
    pub fn written(&self) -> Written {
        self.error.written()
    }

    /// How often it was sent; 0: never.
    pub fn attempts(&self) -> u32 {
        self.error.attempts()
    }

    /// The producer is closing, and waits for the sink so long: whatever may take longer is better not begun. `None`: it is
    /// not closing.
    pub fn closes_in(&self) -> Option<Duration> {
        self.closes_in
    }

    /// How long its batch had been waiting.
    pub fn waited(&self) -> Duration {
        self.error.waited()
    }
}

impl fmt::Debug for UndeliveredRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UndeliveredRecord")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("timestamp", &self.timestamp)
            .field("key_len", &self.key.map(<[u8]>::len))
            .field("value_len", &self.value.map(<[u8]>::len))
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Keeps what could not be delivered: given to [`ProducerBuilder::on_undeliverable`](crate::ProducerBuilder). A closure
/// of the shape of [`undeliverable`](Self::undeliverable) is a sink; [`FailedRecordsFile`](crate::FailedRecordsFile) and
/// [`DeadLetterTopic`](crate::DeadLetterTopic) are two ready ones.
///
/// **Each accepted record that failed is handed over exactly once**, in order within a batch, and before its `Delivery`,
/// listener or callback hears of the failure: who hears of it may rely on the sink having had it. That includes what a
/// `close` gave up and what was outstanding when the sender thread panicked. Records that were refused at the door were
/// never taken and stay the caller's.
///
/// Calls come on the thread of listeners and callbacks. A slow sink holds up what is told there, and, once the failed
/// records it has not seen fill `buffer.memory`, the acceptance of new ones; never the sending of accepted ones. A call of
/// any producer that may wait is an error there ([`SendError::WouldDeadlock`](crate::SendError)); calls that do not wait and
/// futures are not. A close waits for the sink, but not longer than its timeout and a second. A sink that panics is called all the same for the next record;
/// the one that it panicked at is counted in [`Stats::sink_panics`](crate::Stats) and logged.
///
/// Not covered: records in memory when the process ends without a `close`, and those that a panicking sender had in
/// hand at that very moment (their deliveries say [`Unresolved`](crate::DeliveryErrorKind::Unresolved)).
pub trait UndeliverableSink: Send + 'static {
    /// The record is lent for the length of the call.
    fn undeliverable(&mut self, record: UndeliveredRecord<'_>);

    /// The producer has ended, and nothing more comes: the last call, on the same thread. A close waits so long for it.
    fn finish(&mut self, left: Duration) {
        let _ = left;
    }
}

impl<F> UndeliverableSink for F
where
    F: FnMut(UndeliveredRecord<'_>) + Send + 'static,
{
    fn undeliverable(&mut self, record: UndeliveredRecord<'_>) {
        self(record);
    }
}
