//! Accepted, then failed: what became of a record that the producer had taken.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::send::Seconds;
use super::{BrokerError, ErrorCode};
use crate::record::Place;

/// Whether a record that failed may be in the log all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// It is not: sending it again makes no duplicate.
    No,
    /// Nobody can tell: it was sent, or could have been, and no broker's answer settles it.
    Possibly,
}

/// Why a record was not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DeliveryErrorKind {
    /// `delivery.timeout.ms`, or the record's own time, ran out.
    Expired,
    /// The broker refused it, and trying again cannot help or was not allowed.
    Broker(ErrorCode),
    /// No answer within `request.timeout.ms`, and no retry was left.
    RequestTimedOut,
    /// The connection ended, and no retry was left; with `acks=0`, before all of the record was sent.
    Disconnected,
    /// Larger, alone in its batch, than the topic's `max.message.bytes`.
    TooLarge,
    /// Its topic was deleted and created again with fewer partitions, and has not had this one for some seconds.
    PartitionGone,
    /// Sent alone, and its broker closed the connection each time: larger, it seems, than the broker's
    /// `socket.request.max.bytes`. Smaller requests pass, or none was tried.
    RequestTooLarge,
    /// The broker speaks no version of a request that this record needs.
    UnsupportedVersion,
    /// The broker's answer could not be understood.
    BadAnswer,
    /// The producer was closed before the record was done.
    Closed,
    /// The sender thread stopped by a bug.
    SenderPanicked,
    /// Not a failure of the record: waiting for it on the thread that runs callbacks would never end.
    WouldDeadlock,
    /// A bug: the record's batch ended and nothing was said of this record.
    Unresolved,
}

/// What the sender knows of a failure; becomes a [`DeliveryError`] for the records it concerns.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Why.
    pub kind: DeliveryErrorKind,
    /// May it be in the log all the same?
    pub written: Written,
    /// Since the batch was opened.
    pub waited: Duration,
    /// How often the batch was sent; 0: never.
    pub attempts: u32,
    /// The last error that a broker answered with, this time or on an earlier try.
    pub broker: Option<BrokerError>,
    /// What stood in the way last besides that: whom it concerns, and what was wrong.
    pub trouble: Option<Arc<str>>,
}

/// A record was accepted and could not be delivered. Cheap to clone: all records of a batch share one.
#[derive(Clone)]
pub struct DeliveryError(Arc<Inner>);

struct Inner {
    place: Option<Arc<Place>>,
    failure: Failure,
}

impl DeliveryError {
    pub(crate) fn new(place: &Arc<Place>, failure: Failure) -> Self {
        Self(Arc::new(Inner { place: Some(place.clone()), failure }))
    }

    /// An error on the caller's side, made where the record's place is not at hand. What becomes of the record is open.
    pub(crate) fn placeless(kind: DeliveryErrorKind) -> Self {
        let failure = Failure {
            kind,
            written: Written::Possibly,
            waited: Duration::ZERO,
            attempts: 0,
            broker: None,
            trouble: None,
        };
        Self(Arc::new(Inner { place: None, failure }))
    }

    /// Why.
    pub fn kind(&self) -> DeliveryErrorKind {
        self.0.failure.kind
    }

    /// Whether the record may be in the log all the same.
    pub fn written(&self) -> Written {
        self.0.failure.written
    }

    /// The record's topic; `None` with [`DeliveryErrorKind::WouldDeadlock`].
    pub fn topic(&self) -> Option<&str> {
        self.0.place.as_ref().map(|place| &*place.topic)
    }

    /// The record's partition; `None` with [`DeliveryErrorKind::WouldDeadlock`].
    pub fn partition(&self) -> Option<i32> {
        self.0.place.as_ref().map(|place| place.partition)
    }

    /// How long the record's batch had been waiting, from its first record on.
    pub fn waited(&self) -> Duration {
        self.0.failure.waited
    }

    /// How often the record's batch was sent; 0: never.
    pub fn attempts(&self) -> u32 {
        self.0.failure.attempts
    }

    /// The last error that a broker answered with, this time or on an earlier try.
    pub fn broker(&self) -> Option<&BrokerError> {
        self.0.failure.broker.as_ref()
    }

    /// What stood in the way last, unless a broker's answer did: which broker (`host:port`) could not be reached, closed
    /// the connection, did not answer or gave an answer that is none, in words.
    pub fn trouble(&self) -> Option<&str> {
        self.0.failure.trouble.as_deref()
    }

    /// Two sentences: what happened, and what may help.
    fn words(&self) -> (&'static str, &'static str) {
        use DeliveryErrorKind as Kind;
        match self.kind() {
            Kind::Expired if self.attempts() == 0 => (
                "not sent within delivery.timeout.ms or its own limit",
                "check that the partition's leader can be reached and takes records as fast as they come",
            ),
            Kind::Expired => (
                "not acknowledged within delivery.timeout.ms or its own limit",
                "check the brokers, or allow more time",
            ),
            Kind::Broker(_) => ("refused by the broker", ""),
            Kind::RequestTimedOut => (
                "no answer within request.timeout.ms and no retry left",
                "check the broker and its replicas, or allow more retries",
            ),
            Kind::Disconnected => {
                ("the connection ended and no retry was left", "check the broker, or allow more retries")
            }
            Kind::TooLarge => (
                "the record alone is larger than the topic takes",
                "raise the topic's max.message.bytes or send less at once",
            ),
            Kind::PartitionGone => (
                "its topic has no such partition any more",
                "send it again: without a partition of its own it goes to one that there is",
            ),
            Kind::RequestTooLarge => (
                "its request is larger, it seems, than the broker takes",
                "raise the broker's socket.request.max.bytes, or lower max.request.size here, and it is refused at once",
            ),
            Kind::UnsupportedVersion => {
                ("the broker is too old or too new for this client", "Kafka 0.11 or later is needed")
            }
            Kind::BadAnswer => (
                "the broker's answer could not be understood",
                "check that bootstrap.servers names Kafka brokers; if it does, please report it",
            ),
            Kind::Closed => ("the producer was closed first", "flush before closing, or give close more time"),
            Kind::SenderPanicked => {
                ("the sender thread stopped by a bug in ringmail", "make a new producer, and please report it")
            }
            Kind::WouldDeadlock => (
                "not waited for: the call was made on the thread that runs callbacks, which it could be waiting for",
                "wait on another thread; the record itself goes on",
            ),
            Kind::Unresolved => ("its batch ended and nothing was said of this record", "please report this bug"),
        }
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        let (what, help) = self.words();
        f.write_str(what)?;
        if let Some(broker) = self.broker() {
            match self.kind() {
                DeliveryErrorKind::Broker(_) => write!(f, ": {broker}")?,
                _ => write!(f, ", last answer {broker}")?,
            }
        }
        if let Some(trouble) = self.trouble() {
            write!(f, ": {trouble}")?;
        }
        if self.kind() != DeliveryErrorKind::WouldDeadlock {
            let written = match self.written() {
                Written::No => "not written",
                Written::Possibly => "possibly written",
            };
            write!(f, " ({written}; waited {}, sent {})", Seconds(self.waited()), Times(self.attempts()))?;
        }
        if help.is_empty() { Ok(()) } else { write!(f, "; {help}") }
    }
}

struct Times(u32);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("never"),
            1 => f.write_str("once"),
            n => write!(f, "{n} times"),
        }
    }
}

impl fmt::Debug for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryError").field("place", &self.0.place).field("failure", &self.0.failure).finish()
    }
}

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.broker().map(|broker| broker as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: DeliveryErrorKind, written: Written, attempts: u32, broker: Option<BrokerError>) -> DeliveryError {
        let place = Arc::new(Place { topic: "orders".into(), partition: 3 });
        DeliveryError::new(
            &place,
            Failure { kind, written, waited: Duration::from_secs(120), attempts, broker, trouble: None },
        )
    }

    #[test]
    fn says_where_what_and_whether_it_was_written() {
        let broker = BrokerError::new(ErrorCode(6), Some("moved"));
        let text = error(DeliveryErrorKind::Expired, Written::Possibly, 4, Some(broker)).to_string();
        for part in ["orders-3: ", "delivery.timeout.ms", "possibly written", "120.0 s", "4 times", "(6)", "moved"] {
            assert!(text.contains(part), "{part} in: {text}");
        }
        let text = error(DeliveryErrorKind::Expired, Written::No, 0, None).to_string();
        for part in ["not sent", "(not written;", "sent never", "leader"] {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }

    #[test]
    fn a_deadlock_says_nothing_of_the_record() {
        let error = DeliveryError::placeless(DeliveryErrorKind::WouldDeadlock);
        assert_eq!((error.topic(), error.partition()), (None, None));
        assert!(!error.to_string().contains("written"), "{error}");
    }
}
