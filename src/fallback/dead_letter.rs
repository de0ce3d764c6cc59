//! A topic for what could not be delivered elsewhere.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::completion::{Delivery, UndeliverableSink, UndeliveredRecord};
use crate::error::{ConfigError, SendError, WaitedFor, Written};
use crate::producer::{Producer, ProducerBuilder, SendFuture, Topic};
use crate::record::{Header, Record};
use crate::wire::record::Fields;

/// Sends each record that could not be delivered to another topic, of this cluster or another one, by a producer of its
/// own: so it takes no memory from the one that is in trouble, and goes on while that one closes.
///
/// Key, value and headers are as they were. Behind the headers come, as text: `ringmail.origin.topic`,
/// `ringmail.origin.partition`, `ringmail.origin.timestamp` (Unix ms), `ringmail.error`, `ringmail.written` (`no`,
/// `possibly`) and `ringmail.attempts`. The timestamp is the time of sending it here, and the partition is chosen anew.
///
/// A record is handed over when this producer has it in memory. For that the sink waits, `max.block.ms` of this producer
/// at most, and not beyond the timeout of the other producer's close; but once a record was refused for time, the next ones
/// are only tried, until one is taken. There is no circle: a record of the dead-letter topic itself, in the same cluster, is not
/// sent again, and what this producer cannot
/// deliver goes to *its* sink, if `builder` has one, else it is logged as an error. What it does not even take goes to
/// [`or_else`](Self::or_else), else into the log. When the other producer ends, this one is closed: within what is left of that
/// close's timeout, and within `close.timeout.ms`.
pub struct DeadLetterTopic {
    producer: Producer,
    topic: Topic,
    or_else: Option<Box<dyn UndeliverableSink>>,
    /// The last record was taken: the next one is worth waiting for.
    takes: bool,
}

impl DeadLetterTopic {
    /// Starts the producer that `builder` describes, for `topic`.
    ///
    /// # Errors
    /// Those of [`ProducerBuilder::build`], and a name that no topic can have.
    pub fn open(builder: ProducerBuilder, topic: &str) -> Result<Self, ConfigError> {
        let builder = if builder.has_sink() { builder } else { builder.on_undeliverable(log_lost) };
        let producer = builder.build()?;
        let refused = |error: SendError| ConfigError::new("dead letter topic", topic, error.to_string());
        let topic = producer.topic(topic).map_err(refused)?;
        Ok(Self { producer, topic, or_else: None, takes: true })
    }

    /// Gets what this sink cannot hand over. Default: the log.
    pub fn or_else(mut self, sink: impl UndeliverableSink) -> Self {
        self.or_else = Some(Box::new(sink));
        self
    }

    /// The producer of this topic, for its [`stats`](Producer::stats).
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    fn send(&mut self, record: &UndeliveredRecord<'_>) -> Result<(), SendError> {
        let (partition, timestamp) = (record.partition().to_string(), record.timestamp().to_string());
        let (error, attempts) = (record.error().to_string(), record.attempts().to_string());
        let written = match record.written() {
            Written::No => "no",
            Written::Possibly => "possibly",
        };
        let added = [
            ("ringmail.origin.topic", record.topic()),
            ("ringmail.origin.partition", &partition),
            ("ringmail.origin.timestamp", &timestamp),
            ("ringmail.error", &error),
            ("ringmail.written", written),
            ("ringmail.attempts", &attempts),
        ];
        let mut headers = record.headers().to_vec();
        headers.extend(added.map(|(key, value)| Header { key, value: Some(value.as_bytes()) }));
        let fields = Fields { key: record.key(), value: record.value(), headers: &headers };
        let letter = Record { fields, ..Record::new() };
        let sent = match self.takes {
            // Not `send`, which refuses to wait on this thread: it is another producer's.
            true => wait(self.topic.send_async(letter), record.closes_in()),
            false => self.topic.try_send(letter).map_err(|refused| refused.error),
        };
        self.takes = sent.is_ok() || !sent.as_ref().is_err_and(is_for_time);
        sent.map(drop)
    }
}

impl UndeliverableSink for DeadLetterTopic {
    fn undeliverable(&mut self, record: UndeliveredRecord<'_>) {
        let (topic, partition) = (record.topic(), record.partition());
        let same = topic == self.topic.name() && self.producer.is_in(record.cluster);
        let why = if same {
            "it is one of the dead-letter topic itself".to_owned()
        } else {
            match self.send(&record) {
                Ok(()) => return,
                Err(error) => error.to_string(),
            }
        };
        match &mut self.or_else {
            Some(sink) => sink.undeliverable(record),
            None => tracing::error!(topic, partition, why, "a record is lost: the dead-letter topic does not take it"),
        }
    }

    fn finish(&mut self, left: Duration) {
        let began = Instant::now();
        self.producer.close_for_another(left);
        if let Some(sink) = &mut self.or_else {
            sink.finish(left.saturating_sub(began.elapsed()));
        }
    }
}

fn log_lost(record: UndeliveredRecord<'_>) {
    tracing::error!(error = %record.error(), "a record is lost: it could not be delivered to the dead-letter topic");
}

impl fmt::Debug for DeadLetterTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterTopic").field("topic", &self.topic.name()).finish_non_exhaustive()
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// It may be taken at another time.
fn is_for_time(error: &SendError) -> bool {
    matches!(error, SendError::Timeout { .. } | SendError::BufferFull | SendError::NotReady { .. })
}

/// Polls a send to its end on this thread, for so long at most.
fn wait(future: SendFuture<'_>, longest: Option<Duration>) -> Result<Delivery, SendError> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let began = Instant::now();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let waited = began.elapsed();
        match longest {
            None => std::thread::park(),
            Some(longest) if waited < longest => std::thread::park_timeout(longest - waited),
            Some(_) => return Err(SendError::Timeout { waited, waited_for: WaitedFor::Memory }),
        }
    }
}
