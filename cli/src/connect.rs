//! From settings to a producer that has met its broker, or words on why there is none.

use std::time::{Duration, Instant};

use ringmail::{DeliveryListener, Producer, ProducerBuilder, ProducerConfig, SendError, WaitedFor};

use crate::diagnose::{self, Diagnosis};
use crate::exit::{Exit, Failure};
use crate::log::{hear_library, say};
use crate::settings::Settings;

/// A call on the producer waits this long at most, so that Ctrl-C is heard.
const SLICE: Duration = Duration::from_millis(500);
/// How long to wait for a broker before the first record, unless max.block.ms says otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for a topic that no broker knows, or a partition that it does not have: it may be about to be created.
const TOPIC_PATIENCE: Duration = Duration::from_secs(5);
/// When to tell the user that, and why, nothing happens.
const SILENCE: Duration = Duration::from_secs(3);
/// How often to look whether a partition is there by now.
const LOOK: Duration = Duration::from_millis(100);

/// `max.block.ms` is how long this command waits for a broker. The producer itself gets short slices of it, which add up
/// to it. A value that is no number stays, for the producer to refuse.
pub fn patience(settings: &mut Settings) -> Duration {
    let patience = match settings.value("max.block.ms") {
        None => PATIENCE,
        Some(text) => match text.parse() {
            Ok(ms) => Duration::from_millis(ms),
            Err(_) => return PATIENCE,
        },
    };
    // Two at least: half-way the servers are asked one by one.
    let slices = patience.as_millis().div_ceil(SLICE.as_millis()).max(2);
    settings.set("max.block.ms", &patience.as_millis().div_ceil(slices).to_string());
    patience
}

/// A producer with these settings, that tells `listener` of its records.
pub fn build(settings: &Settings, listener: impl DeliveryListener) -> Result<Producer, Failure> {
    start(builder(settings).listener(listener))
}

/// A builder that has these settings.
pub fn builder(settings: &Settings) -> ProducerBuilder {
    settings.iter().fold(Producer::builder(), |builder, (key, value)| builder.set(key, value))
}

/// Builds the producer; what cannot be is the user's mistake.
pub fn start(builder: ProducerBuilder) -> Result<Producer, Failure> {
    builder.build().map_err(|e| Failure::new(Exit::Usage, e))
}

/// Waits until the topic's partitions are known, and says early why that takes long. From then on the library is heard.
pub fn warm_up(producer: &Producer, topic: &str, settings: &Settings, patience: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    let mut asking = Asking::new(settings, topic, started, patience);
    loop {
        let error = match producer.warm_up(&[topic]) {
            Ok(()) => break,
            Err(error) => error,
        };
        let waited = started.elapsed();
        match error {
            SendError::UnknownTopic { .. } if waited < patience.min(TOPIC_PATIENCE) => {}
            SendError::UnknownTopic { topic, cause, .. } => {
                return Err(Failure::new(Exit::NotReady, SendError::UnknownTopic { topic, waited, cause }));
            }
            SendError::Timeout { waited_for, .. } if waited < patience => asking.step(waited, trouble(&waited_for)),
            SendError::Timeout { waited_for, .. } => {
                let trouble = trouble(&waited_for);
                let text = asking.conclude(SendError::Timeout { waited, waited_for }, trouble);
                return Err(Failure { exit: Exit::NotReady, text });
            }
            error => return Err(Failure::new(Exit::NotReady, error)),
        }
    }
    hear_library();
    Ok(())
}

/// Waits until the topic has this partition, as long as for a topic that is not there. How many it has then; fewer, if
/// the wait was in vain.
pub fn wait_for_partition(
    producer: &Producer,
    topic: &str,
    partition: i32,
    patience: Duration,
) -> Result<i32, Failure> {
    let started = Instant::now();
    loop {
        // This asks for the topic's metadata again, too.
        producer.warm_up(&[topic]).map_err(|e| Failure::new(Exit::NotReady, e))?;
        let known = producer.partitions_for(topic).map_err(|e| Failure::new(Exit::NotReady, e))?;
        let count = i32::try_from(known.len()).unwrap_or(i32::MAX);
        let left = patience.min(TOPIC_PATIENCE).saturating_sub(started.elapsed());
        if partition < count || left.is_zero() {
            return Ok(count);
        }
        std::thread::sleep(LOOK.min(left));
    }
}

/// What the library found in the way so far, in its words.
fn trouble(waited_for: &WaitedFor) -> Option<String> {
    match waited_for {
        WaitedFor::Metadata { trouble, .. } | WaitedFor::ProducerId { trouble } => {
            trouble.as_ref().map(|t| t.to_string())
        }
        _ => None,
    }
}

/// The servers are asked one by one when nothing came of the wait for long, and again at its end, within its time; but not
/// a single one of which the library has said what is wrong with it.
struct Asking<'a> {
    settings: &'a Settings,
    topic: &'a str,
    started: Instant,
    patience: Duration,
    single: bool,
    /// The first time, told at once: when it is to begin, and then it.
    early: Option<Duration>,
    early_asked: Option<Diagnosis>,
    /// The last time, told at the end.
    last: Option<Diagnosis>,
}

impl<'a> Asking<'a> {
    fn new(settings: &'a Settings, topic: &'a str, started: Instant, patience: Duration) -> Self {
        let early = Some(SILENCE).filter(|_| patience >= SILENCE + 2 * diagnose::LONGEST);
        let servers = settings.value("bootstrap.servers").unwrap_or_default();
        let single = ProducerConfig::new().bootstrap_servers(servers).servers().count() == 1;
        Self { settings, topic, started, patience, single, early, early_asked: None, last: None }
    }

    /// Nothing has come so far, because of that.
    fn step(&mut self, waited: Duration, trouble: Option<String>) {
        let known = trouble.filter(|_| self.single);
        let begin = |until: Duration| Diagnosis::begin(self.settings, self.topic, self.started + until);
        if let Some(from) = self.early.filter(|from| waited >= *from) {
            self.early = None;
            match &known {
                Some(trouble) => say(&format!("ringmail: still waiting for a broker; {trouble}")),
                None => self.early_asked = begin(from + diagnose::LONGEST),
            }
        }
        if let Some(diagnosis) = self.early_asked.as_mut().and_then(Diagnosis::poll) {
            self.early_asked = None;
            say(&format!("ringmail: still waiting for a broker; asked one by one:\n{diagnosis}"));
        }
        let from = (self.patience / 2).max(self.patience.saturating_sub(diagnose::LONGEST));
        if self.last.is_none() && waited >= from && known.is_none() {
            self.last = begin(self.patience);
        }
    }

    /// The time is over: the library's own words, and what was found out beside them.
    fn conclude(self, error: SendError, trouble: Option<String>) -> String {
        let Some(diagnosis) = self.last.map(Diagnosis::finish) else { return error.to_string() };
        match trouble {
            // The same is said already.
            Some(trouble) if diagnosis.trim_start() == trouble => error.to_string(),
            _ => format!("{error}\nasked one by one:\n{diagnosis}"),
        }
    }
}

#[cfg(test)]
mod tests;
