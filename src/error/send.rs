//! Refused at the door: the record was not taken, nothing of it will be sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::BrokerError;
use crate::record::Record;

/// Why a record, or a call on the producer, was refused. A refused record is not sent and is still the caller's.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// `buffer.memory` is used up by records that have not been acknowledged, or by deliveries that a slow listener
    /// has not taken yet. Only from calls that do not wait.
    BufferFull,
    /// The topic's partitions are not known yet. Only from calls that do not wait.
    NotReady {
        /// The topic.
        topic: Arc<str>,
    },
    /// The record can never be sent with this configuration.
    RecordTooLarge {
        /// The record's bytes in a batch of its own, batch header included.
        size: usize,
        /// The most that is allowed, in bytes.
        limit: usize,
        /// The configuration key that sets the limit (`max.request.size` or `buffer.memory`).
        key: &'static str,
    },
    /// No broker knows the topic.
    UnknownTopic {
        /// The topic.
        topic: Arc<str>,
        /// How long the call waited for it.
        waited: Duration,
        /// What the broker last said of the topic.
        cause: Option<Box<BrokerError>>,
    },
    /// Kafka allows no topic of this name: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
    InvalidTopic {
        /// The name.
        topic: Arc<str>,
    },
    /// The record asks for a partition that the topic does not have.
    InvalidPartition {
        /// The topic.
        topic: Arc<str>,
        /// The partition asked for.
        partition: i32,
        /// How many the topic has, counted from 0.
        count: i32,
    },
    /// The broker does not let this client write to the topic, or see it.
    TopicAuthorization {
        /// The topic.
        topic: Arc<str>,
    },
    /// A record's timestamp must not be negative.
    InvalidTimestamp {
        /// The timestamp, in milliseconds since the Unix epoch.
        timestamp: i64,
    },
    /// The call waited as long as it may (`max.block.ms`, or its own limit).
    Timeout {
        /// How long.
        waited: Duration,
        /// For what.
        waited_for: WaitedFor,
    },
    /// The producer is closed or closing.
    Closed,
    /// The sender thread has stopped by a bug. Records it had not finished ended as possibly written.
    SenderPanicked,
    /// This process is a fork of the one that made the producer; the sender thread exists only there.
    Forked,
    /// The record has a tag, but the producer was built without a listener.
    NoListener,
    /// A call that may wait was made on the thread that runs listeners and callbacks: it could wait for itself.
    WouldDeadlock,
}

/// What a call was waiting for when its time ran out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WaitedFor {
    /// The partitions of a topic.
    Metadata {
        /// The topic.
        topic: Arc<str>,
        /// What the last try ended with.
        trouble: Option<Box<Trouble>>,
    },
    /// Room in `buffer.memory`.
    Memory,
    /// A producer id, which brokers give out.
    ProducerId {
        /// Why there is none, in words.
        trouble: Option<Box<Trouble>>,
    },
    /// The records of a flush.
    Flush,
}

/// What stood in the way of something that was waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Trouble {
    /// A broker's answer.
    Broker(BrokerError),
    /// No broker could be reached, or none gave an answer of use: which one (`host:port`) and why, in words.
    Connection(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => write!(f, "the last answer was {error}"),
            Self::Connection(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferFull => f.write_str(
                "the buffer is full: buffer.memory is taken by records that are not acknowledged yet; \
                 try again later, or use a call that waits",
            ),
            Self::NotReady { topic } => write!(
                f,
                "the partitions of topic '{topic}' are not known yet; try again later, use a call that waits, or call \
                 warm_up first"
            ),
            Self::RecordTooLarge { size, limit, key } => write!(
                f,
                "the record takes {size} bytes and {key} allows {limit}; send less at once or raise {key} (and the \
                 topic's max.message.bytes)"
            ),
            Self::UnknownTopic { topic, waited, cause } => {
                write!(f, "topic '{topic}' does not exist (waited {})", Seconds(*waited))?;
                if let Some(cause) = cause {
                    write!(f, "; the last answer was {cause}")?;
                }
                f.write_str("; create it, or check its name")
            }
            Self::InvalidTopic { topic } => write!(
                f,
                "'{topic}' cannot be a topic's name: 1 to 249 of a-z A-Z 0-9 . _ - are allowed, but not '.' or '..'"
            ),
            Self::InvalidPartition { topic, partition, count } => {
                write!(f, "topic '{topic}' has no partition {partition}: ")?;
                write!(f, "it has {count}, counted from 0")
            }
            Self::TopicAuthorization { topic } => write!(
                f,
                "not authorized for topic '{topic}': the broker grants this client no WRITE (or DESCRIBE) on it"
            ),
            Self::InvalidTimestamp { timestamp } => {
                write!(f, "a record's timestamp must not be negative, and this one is {timestamp}")
            }
            Self::Timeout { waited, waited_for } => {
                write!(f, "gave up after {} (max.block.ms): {waited_for}", Seconds(*waited))
            }
            Self::Closed => f.write_str("the producer is closed"),
            Self::SenderPanicked => f.write_str(
                "the sender thread has stopped by a bug in ringmail; what it had not finished is possibly written. \
                 Make a new producer, and please report it",
            ),
            Self::Forked => f.write_str(
                "this process was forked from the one that made the producer; make a new producer after the fork",
            ),
            Self::NoListener => f.write_str("a tag needs a listener: give one to the builder, or send without a tag"),
            Self::WouldDeadlock => f.write_str(
                "this call may wait, and it was made on the thread that runs listeners and callbacks, which it could \
                 be waiting for; use try_send there, or call from another thread",
            ),
        }
    }
}

impl fmt::Display for WaitedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata { topic, trouble: Some(trouble) } => write!(f, "no metadata for topic '{topic}'; {trouble}"),
            Self::Metadata { topic, trouble: None } => {
                write!(f, "no metadata for topic '{topic}'; is a broker reachable at bootstrap.servers?")
            }
            Self::Memory => {
                f.write_str("no room in buffer.memory; the brokers take records more slowly than they come")
            }
            Self::ProducerId { trouble: Some(trouble) } => write!(f, "no producer id; {trouble}"),
            Self::ProducerId { trouble: None } => {
                f.write_str("no producer id; is a broker reachable at bootstrap.servers?")
            }
            Self::Flush => f.write_str("the flush has not ended; its records go on being sent"),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnknownTopic { cause: Some(cause), .. } => Some(&**cause),
            Self::Timeout { waited_for: WaitedFor::Metadata { trouble: Some(trouble), .. }, .. } => match &**trouble {
                Trouble::Broker(error) => Some(error),
                Trouble::Connection(_) => None,
            },
            _ => None,
        }
    }
}

/// A record that `try_send` did not take, given back with the reason.
#[derive(Clone, Debug)]
pub struct Refused<'a> {
    /// The record as it was given.
    pub record: Record<'a>,
    /// Why it was not taken.
    pub error: SendError,
}

impl From<Refused<'_>> for SendError {
    fn from(refused: Refused<'_>) -> Self {
        refused.error
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

/// What `close` left behind. Each of these records ended as a [`super::DeliveryError`] of its own, too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "close may leave records undelivered"]
pub struct CloseReport {
    leftovers: Vec<Leftover>,
}

/// The records of one partition that `close` could not wait for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Leftover {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// How many.
    pub records: u64,
    /// How many of these had been sent, so that a broker may have stored them; the others are certainly not written.
    pub possibly_written: u64,
}

impl CloseReport {
    /// Counts `records` of a partition as left behind, `possibly_written` of them sent; one call per partition, in any
    /// order.
    pub(crate) fn leave(&mut self, topic: &Arc<str>, partition: i32, records: u64, possibly_written: u64) {
        if records > 0 {
            self.leftovers.push(Leftover { topic: topic.clone(), partition, records, possibly_written });
        }
    }

    /// Everything that was accepted has been delivered or has failed for a reason other than the close.
    pub fn is_clean(&self) -> bool {
        self.leftovers.is_empty()
    }

    /// By partition: what was left.
    pub fn leftovers(&self) -> &[Leftover] {
        &self.leftovers
    }

    /// How many records were left, in all.
    pub fn records(&self) -> u64 {
        self.leftovers.iter().map(|left| left.records).sum()
    }

    /// How many of these a broker may have stored, in all.
    pub fn possibly_written(&self) -> u64 {
        self.leftovers.iter().map(|left| left.possibly_written).sum()
    }
}

impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("closed, nothing was left");
        }
        write!(
            f,
            "closed with {} records left, {} of them possibly written:",
            self.records(),
            self.possibly_written()
        )?;
        const NAMED: usize = 10;
        for left in self.leftovers.iter().take(NAMED) {
            write!(f, " {}-{}: {}", left.topic, left.partition, left.records)?;
        }
        match self.leftovers.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} partitions more"),
        }
    }
}

/// A duration as a person says it: `250 ms` below a second, `4.2 s` above.
pub(super) struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            ms @ 0..1000 => write!(f, "{ms} ms"),
            _ => write!(f, "{:.1} s", self.0.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn small_enough_to_return() {
        assert!(size_of::<SendError>() <= 48, "{}", size_of::<SendError>());
        assert!(size_of::<Refused<'_>>() < 128, "{}", size_of::<Refused<'_>>());
    }

    #[test]
    fn texts_name_what_a_user_needs() {
        let cause = Box::new(BrokerError::new(ErrorCode(3), None));
        let unknown = SendError::UnknownTopic {
            topic: "orders".into(),
            waited: Duration::from_millis(4_210),
            cause: Some(cause.clone()),
        };
        let text = unknown.to_string();
        for part in ["'orders'", "4.2 s", "(3)", "create it"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(std::error::Error::source(&unknown).is_some());

        let waited_for = WaitedFor::Metadata { topic: "orders".into(), trouble: None };
        let text = SendError::Timeout { waited: Duration::from_millis(250), waited_for }.to_string();
        for part in ["250 ms", "max.block.ms", "'orders'", "bootstrap.servers"] {
            assert!(text.contains(part), "{text}");
        }

        let text = SendError::RecordTooLarge { size: 2_000_000, limit: 1_048_576, key: "max.request.size" }.to_string();
        for part in ["2000000", "1048576", "max.request.size"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_close_report_names_partitions_and_counts_the_rest() {
        let mut report = CloseReport::default();
        assert!(report.is_clean());
        let topic: Arc<str> = "t".into();
        report.leave(&topic, 0, 0, 0);
        assert!(report.is_clean(), "nothing left in a partition is nothing");
        for partition in 1..=12 {
            report.leave(&topic, partition, 2, u64::from(partition == 7));
        }
        assert_eq!((report.records(), report.possibly_written(), report.leftovers().len()), (24, 1, 12));
        let text = report.to_string();
        assert!(text.contains("24 records left, 1 of them possibly") && text.contains("t-10: 2"), "{text}");
        assert!(text.ends_with("and 2 partitions more"), "{text}");
    }
}
