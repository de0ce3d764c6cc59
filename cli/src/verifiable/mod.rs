//! `ringmail verifiable-producer`: speaks as Kafka's own VerifiableProducer does, so that Kafka's system tests can
//! drive this producer.
//!
//! The main thread numbers records and sends them, the producer's listener prints a line for each, and a third thread
//! waits for the end of the run and closes the producer, which wakes a send that waits. Nothing is remembered of a
//! record: its number is the tag, and tells its key and value.

mod events;
mod exceptions;
mod pace;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringmail::{DeliveryError, DeliveryListener, Producer, Record, RecordMetadata, SendError, Topic, Written};

use crate::args::VerifiableProducerArgs;
use crate::exit::{Exit, Failure};
use crate::log::say;
use crate::settings::Settings;
use events::{Event, Lines};
use pace::{Pace, Stop};

/// Runs the command.
pub fn run(args: &VerifiableProducerArgs) -> Result<Exit, Failure> {
    let settings = settings(args)?;
    let run = Arc::new(Run::new(args));
    let producer = build(&settings, Listener(run.clone()))?;
    let topic = producer.topic(&args.topic).map_err(|e| Failure::new(Exit::Usage, e))?;
    handle_signals(&run)?;
    run.lines.print(Event::StartupComplete, &run.stop);

    let started = Instant::now();
    let patience = delivery_timeout(&settings);
    let closer = std::thread::spawn({
        let run = run.clone();
        move || {
            run.stop.wait(None);
            producer.close(patience)
        }
    });
    send_all(args, &topic, &run, started);
    run.stop.request();
    let closed = closer.join();
    run.lines.print(Event::ShutdownComplete, &run.stop);
    run.lines.print(run.summary(args.throughput, started.elapsed()), &run.stop);

    match (closed, run.lines.broken()) {
        (Ok(Err(error)), _) => Err(Failure::new(Exit::RecordsFailed, error)),
        (Err(_), _) => Err(Failure::new(Exit::RecordsFailed, "the thread that closes the producer panicked")),
        (_, Some(ErrorKind::BrokenPipe)) => {
            say("ringmail: standard output was closed, so the run ended");
            Ok(Exit::Success)
        }
        (_, Some(error)) => Err(Failure::new(Exit::RecordsFailed, format!("cannot write to standard output: {error}"))),
        _ => Ok(Exit::Success),
    }
}

/// The options, then the file: it overrides them, as with Kafka.
fn settings(args: &VerifiableProducerArgs) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    settings.set("bootstrap.servers", &args.brokers);
    settings.set("acks", &args.acks);
    if let Some(path) = &args.config {
        settings.add_file(path)?;
    }
    Ok(settings)
}

fn build(settings: &Settings, listener: Listener) -> Result<Producer, Failure> {
    let mut builder = Producer::builder().listener(listener);
    for (key, value) in settings.iter() {
        builder = builder.set(key, value);
    }
    builder.build().map_err(|e| Failure::new(Exit::Usage, e))
}

/// When every record has its answer, counted from when the last one was sent: the producer's `delivery.timeout.ms`.
fn delivery_timeout(settings: &Settings) -> Duration {
    let given = |key: &str| settings.value(key).and_then(|text| text.parse::<u64>().ok());
    let least = given("linger.ms").unwrap_or(5).saturating_add(given("request.timeout.ms").unwrap_or(30_000));
    Duration::from_millis(given("delivery.timeout.ms").unwrap_or(least.max(120_000)))
}

/// Sends until all are sent or the run is to end.
fn send_all(args: &VerifiableProducerArgs, topic: &Topic, run: &Run, started: Instant) {
    let most = u64::try_from(args.max_messages).unwrap_or(u64::MAX);
    let pace = Pace::new(args.throughput, started);
    let mut create_time = (args.create_time >= 0).then_some(args.create_time);
    for number in 0..most {
        pace.wait(number, &run.stop);
        if run.stop.is_requested() {
            return;
        }
        let (key, value) = run.records.record(number);
        let mut record = Record::value(&value);
        if let Some(key) = &key {
            record = record.with_key(key);
        }
        if let Some(time) = &mut create_time {
            record = record.with_timestamp(*time);
            // Faster and faster: so does Kafka's.
            *time = time.saturating_add(started.elapsed().as_millis() as i64);
        }
        // Counted first, for its answer may be here before this thread goes on.
        run.sent.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = topic.send_tagged(record, number) {
            if error == SendError::Closed && run.stop.is_requested() {
                // It was waiting for room when the run was ended: as good as never begun.
                run.sent.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            run.refused(number, &error);
            if matches!(error, SendError::Closed | SendError::SenderPanicked | SendError::Forked) {
                return;
            }
        }
    }
}

/// The first signal ends the run, the next one does not wait.
fn handle_signals(run: &Arc<Run>) -> Result<(), Failure> {
    let run = run.clone();
    let signals = AtomicU64::new(0);
    let handler = move || {
        if signals.fetch_add(1, Ordering::Relaxed) == 0 {
            say("ringmail: ending; waiting for the answers to what was sent (again: do not wait)");
            run.stop.request();
            return;
        }
        let answered = run.acked.load(Ordering::Relaxed) + run.failed.load(Ordering::Relaxed);
        let unanswered = run.sent.load(Ordering::Relaxed).saturating_sub(answered);
        say(&format!("ringmail: interrupted; {unanswered} records have no line and are possibly written"));
        std::process::exit(Exit::Interrupted as i32);
    };
    ctrlc::set_handler(handler).map_err(|e| Failure::new(Exit::Usage, format!("cannot handle signals: {e}")))
}

/// What the threads share.
struct Run {
    records: Records,
    lines: Lines,
    stop: Stop,
    /// Records that were handed over.
    sent: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
}

impl Run {
    fn new(args: &VerifiableProducerArgs) -> Self {
        Self {
            records: Records { topic: args.topic.clone(), prefix: args.value_prefix, keys: args.repeating_keys },
            lines: Lines::default(),
            stop: Stop::default(),
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn delivered(&self, number: u64, metadata: &RecordMetadata) {
        let (key, value) = self.records.record(number);
        self.acked.fetch_add(1, Ordering::Relaxed);
        let event = Event::ProducerSendSuccess {
            key: key.as_deref(),
            value: &value,
            offset: metadata.offset().unwrap_or(-1),
            topic: metadata.topic(),
            partition: metadata.partition(),
        };
        self.lines.print(event, &self.stop);
    }

    fn refused(&self, number: u64, error: &SendError) {
        self.failed(number, &exceptions::of_refusal(error), &error.to_string(), Written::No);
    }

    fn failed(&self, number: u64, exception: &str, message: &str, written: Written) {
        let (key, value) = self.records.record(number);
        self.failed.fetch_add(1, Ordering::Relaxed);
        let event = Event::ProducerSendError {
            topic: &self.records.topic,
            key: key.as_deref(),
            value: &value,
            exception: &format!("class {exception}"),
            message,
            written: match written {
                Written::No => "no",
                Written::Possibly => "possibly",
            },
        };
        self.lines.print(event, &self.stop);
    }

    fn summary(&self, throughput: i64, took: Duration) -> Event<'static> {
        let acked = self.acked.load(Ordering::Relaxed);
        Event::ToolData {
            sent: self.sent.load(Ordering::Relaxed),
            acked,
            target_throughput: throughput,
            avg_throughput: acked as f64 / took.as_secs_f64().max(0.001),
        }
    }
}

/// What the records are made of, by their numbers.
struct Records {
    topic: String,
    prefix: Option<i32>,
    keys: Option<u32>,
}

impl Records {
    /// Key and value of record `number`.
    fn record(&self, number: u64) -> (Option<String>, String) {
        let key = self.keys.map(|keys| (number % u64::from(keys.max(1))).to_string());
        let value = match self.prefix {
            Some(prefix) => format!("{prefix}.{number}"),
            None => number.to_string(),
        };
        (key, value)
    }
}

struct Listener(Arc<Run>);

impl DeliveryListener for Listener {
    fn on_delivery(&mut self, number: u64, result: Result<&RecordMetadata, &DeliveryError>) {
        match result {
            Ok(metadata) => self.0.delivered(number, metadata),
            Err(error) => {
                let exception = exceptions::of_failure(error.kind());
                self.0.failed(number, &exception, &error.to_string(), error.written());
            }
        }
    }
}
