//! From settings to a producer that has met its broker, or words on why there is none.

use std::time::{Duration, Instant};

use ringmail::{DeliveryListener, Producer, ProducerBuilder, SendError};

use crate::diagnose::{self, diagnose};
use crate::exit::{Exit, Failure};
use crate::log::say;
use crate::settings::Settings;

/// A call on the producer waits this long at most, so that Ctrl-C is heard.
const SLICE: Duration = Duration::from_millis(500);
/// How long to wait for a broker before the first record, unless max.block.ms says otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for a topic that no broker knows: it may be about to be created.
const TOPIC_PATIENCE: Duration = Duration::from_secs(5);
/// When to tell the user that, and why, nothing happens.
const SILENCE: Duration = Duration::from_secs(3);

/// `max.block.ms` is how long this command waits for a broker. The producer itself gets short slices of it. A value
/// that is no number stays, for the producer to refuse.
pub fn patience(settings: &mut Settings) -> Duration {
    let patience = match settings.value("max.block.ms") {
        None => PATIENCE,
        Some(text) => match text.parse() {
            Ok(ms) => Duration::from_millis(ms),
            Err(_) => return PATIENCE,
        },
    };
    settings.set("max.block.ms", &SLICE.min(patience).as_millis().to_string());
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

/// Waits until the topic's partitions are known, and says early why that takes long.
pub fn warm_up(producer: &Producer, topic: &str, servers: &str, patience: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    let mut silent = true;
    loop {
        let error = match producer.warm_up(&[topic]) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let waited = started.elapsed();
        match &error {
            SendError::UnknownTopic { .. } if waited < patience.min(TOPIC_PATIENCE) => {}
            SendError::UnknownTopic { topic, cause, .. } => {
                let error = SendError::UnknownTopic { topic: topic.clone(), waited, cause: cause.clone() };
                return Err(Failure::new(Exit::NotReady, error));
            }
            SendError::Timeout { .. } if waited < patience => {}
            SendError::Timeout { waited_for, .. } => {
                let waited_for = waited_for.clone();
                let diagnosis = diagnose(servers, diagnose::PATIENCE.min(patience));
                let text = format!("{}\n{diagnosis}", SendError::Timeout { waited, waited_for });
                return Err(Failure { exit: Exit::NotReady, text });
            }
            _ => return Err(Failure::new(Exit::NotReady, error)),
        }
        if silent && waited >= SILENCE.min(patience / 2) {
            silent = false;
            if matches!(error, SendError::Timeout { .. }) {
                let diagnosis = diagnose(servers, diagnose::PATIENCE.min(patience.saturating_sub(waited)));
                say(&format!("ringmail: still waiting for a broker:\n{diagnosis}"));
            }
        }
    }
}
