//! How things stand, in sentences.

use std::fmt::Write;
use std::time::Duration;

use super::{Bad, Counts, Kind, Why};

/// So many of the things that go on are shown in one line.
const SHOWN: usize = 4;

/// This goes on for so long.
pub fn begun(kind: Kind, subject: &str, why: &Why, time: Duration) -> String {
    let why = match why {
        Why::Words(why) => why.to_string(),
        Why::Error(error) => error.to_string(),
    };
    let time = Time(time);
    match kind {
        Kind::Broker => format!("broker {subject} {why}"),
        Kind::Topic => format!("topic '{subject}' cannot be used: {why}"),
        Kind::Throttle => format!("broker {subject} throttles this client: {why}"),
        Kind::Identity => format!("no producer id for {time}: {why}"),
        Kind::Metadata => format!("no metadata for {time}: {why}"),
        Kind::Partition => format!("records wait, for {time} now: {why}"),
        Kind::Room => format!("callers have found no room in buffer.memory for {time}: {why}"),
        Kind::Records => format!("records fail: {why}"),
    }
}

/// A broker closed so many connections in a row with requests of so many bytes on them, and gets smaller ones from now on.
pub fn smaller_requests(name: &str, times: u32, size: usize, bound: usize) -> String {
    format!(
        "{name} closed the connection {times} times in a row with a request of {size} bytes on it; it may take less: see its \
         socket.request.max.bytes. Requests to it have at most {bound} bytes for now (batch.size and max.request.size bound \
         them always)"
    )
}

/// This is over.
pub fn how_over(kind: Kind, subject: &str) -> String {
    match kind {
        Kind::Broker => format!("broker {subject} answers again"),
        Kind::Topic => format!("topic '{subject}' can be used"),
        Kind::Throttle => format!("broker {subject} throttles this client no more"),
        Kind::Identity => "there is a producer id".to_owned(),
        Kind::Metadata => "there is metadata again".to_owned(),
        Kind::Partition => "no records wait for long any more".to_owned(),
        Kind::Room => "callers find room again".to_owned(),
        Kind::Records => "no more records fail".to_owned(),
    }
}

/// This is over, and perhaps all is.
pub fn over(how: &str, all_well: Option<Standing>) -> String {
    let mut text = how.to_owned();
    if let Some(Standing { time, failed, delivered, .. }) = all_well {
        let _ = write!(
            text,
            "; all is well after {time}, in which {} failed and {delivered} were delivered",
            records(failed)
        );
    }
    text
}

/// What became of records while things are bad.
#[derive(Debug)]
pub struct Standing {
    time: Time,
    failed: u64,
    delivered: u64,
    waiting: u64,
}

impl Standing {
    /// Since it became bad.
    pub fn of(bad: &Bad, now: Duration, counts: Counts) -> Self {
        Self {
            time: Time(now.saturating_sub(bad.since)),
            failed: counts.failed.saturating_sub(bad.counts.failed),
            delivered: counts.delivered.saturating_sub(bad.counts.delivered),
            waiting: counts.waiting,
        }
    }

    /// Beside what goes on.
    pub fn with(&self, on: &[String]) -> String {
        let Self { time, failed, delivered, waiting } = self;
        let mut text =
            format!("for {time} now: {} failed, {delivered} were delivered, {waiting} wait", records(*failed));
        for why in on.iter().take(SHOWN) {
            text.push_str("; ");
            text.push_str(why);
        }
        if on.len() > SHOWN {
            let _ = write!(text, "; and {} more", on.len() - SHOWN);
        }
        text
    }
}

fn records(count: u64) -> String {
    if count == 1 { "1 record".to_owned() } else { format!("{count} records") }
}

#[derive(Clone, Copy, Debug)]
struct Time(Duration);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs() {
            0..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds @ 10..600 => write!(f, "{seconds} s"),
            seconds => write!(f, "{} min", seconds / 60),
        }
    }
}
