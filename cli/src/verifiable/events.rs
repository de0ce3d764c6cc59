//! The lines on standard output: one JSON object each, its fields in the order in which Kafka 4.3.1 prints them.

use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::pace::Stop;

/// What there is to say. The variant's name is the line's `name`.
#[derive(Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Event<'a> {
    StartupComplete,
    ProducerSendSuccess {
        key: Option<&'a str>,
        value: &'a str,
        /// -1 where it is not known, as with acks=0.
        offset: i64,
        topic: &'a str,
        partition: i32,
    },
    ProducerSendError {
        topic: &'a str,
        key: Option<&'a str>,
        value: &'a str,
        /// As Java writes a class: `class org.apache.kafka.common.errors.TimeoutException`.
        exception: &'a str,
        message: &'a str,
        /// `no` or `possibly`. Kafka's has no such field.
        written: &'static str,
    },
    ShutdownComplete,
    ToolData {
        sent: u64,
        acked: u64,
        target_throughput: i64,
        avg_throughput: f64,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: u128,
    #[serde(flatten)]
    event: Event<'a>,
}

/// Standard output, until it breaks.
#[derive(Default)]
pub struct Lines(Mutex<State>);

#[derive(Default)]
struct State {
    line: Vec<u8>,
    broken: Option<ErrorKind>,
}

impl Lines {
    /// Writes a line, whole and at once. When that is no longer possible, the run is to end.
    pub fn print(&self, event: Event<'_>, stop: &Stop) {
        let mut state = self.state();
        if state.broken.is_some() {
            return;
        }
        if let Err(error) = write(&mut state.line, event, &mut io::stdout()) {
            state.broken = Some(error.kind());
            stop.request();
        }
    }

    /// Why lines are missing, if so.
    pub fn broken(&self) -> Option<ErrorKind> {
        self.state().broken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(line: &mut Vec<u8>, event: Event<'_>, to: &mut impl Write) -> io::Result<()> {
    line.clear();
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    serde_json::to_writer(&mut *line, &Line { timestamp, event })?;
    line.push(b'\n');
    to.write_all(line)?;
    to.flush()
}
