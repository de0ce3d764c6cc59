//! What follows from what, and what contradicts what: one rule per line.

use std::time::Duration;

use super::{Acks, ProducerConfig};
use crate::error::ConfigError;

/// The least buffer: a few partitions with a little each.
pub(super) const BUFFER_LEAST: usize = 64 << 10;
/// The most: what the accumulator can name, 2^25 units of 1 KiB.
pub(super) const BUFFER_MOST: usize = 32 << 30;
/// Memory is given in runs of these sizes, and in whole multiples of the largest.
const RUNS: [usize; 6] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// How many batches of a producer and partition a broker remembers.
const REMEMBERED: usize = 5;

/// The most that a frame's size can say.
const FRAME: u32 = i32::MAX as u32;
/// Of these a request needs some for what it says besides its batches.
const HEADS: u32 = 1 << 20;

type Config = ProducerConfig;

/// Values that were not given and follow from those that were.
const IMPLIED: &[fn(&mut Config)] = &[
    |c| c.batch_size = c.batch_size.max(1),
    |c| c.idempotence &= c.is_given("enable.idempotence") || (c.acks == Acks::All && c.retries > 0),
    |c| raise(c, "delivery.timeout.ms", least_delivery(c), |c| &mut c.delivery_timeout),
    |c| raise(c, "retry.backoff.max.ms", c.retry_backoff, |c| &mut c.retry_backoff_max),
    |c| raise(c, SETUP_MAX, c.connection_setup_timeout, |c| &mut c.connection_setup_timeout_max),
    // As the Java client has it: a pause that is given alone does not grow.
    |c| c.reconnect_backoff_max = if alone(c) { c.reconnect_backoff } else { c.reconnect_backoff_max },
    |c| c.max_request_size = if c.is_given(REQUEST) { c.max_request_size } else { c.max_request_size.min(most(c)) },
    |c| c.request_max_bytes = if c.is_given(WHOLE) { c.request_max_bytes } else { whole(c) },
    // Other clients' settings often have the largest int here.
    |c| c.max_request_size = c.max_request_size.min(FRAME - HEADS),
    |c| c.request_max_bytes = c.request_max_bytes.min(FRAME - HEADS),
];

/// A key, when its value is wrong, and what would be right.
struct Rule(&'static str, fn(&Config) -> bool, fn(&Config) -> String);

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule("bootstrap.servers", |c| c.bootstrap_servers.is_empty(),
        |_| "must be given: at least one host:port, e.g. localhost:9092".into()),
    Rule("acks", |c| c.idempotence && c.acks != Acks::All,
        |_| "enable.idempotence=true needs acks=all; set that, or enable.idempotence=false".into()),
    Rule("retries", |c| c.idempotence && c.retries == 0,
        |_| "enable.idempotence=true needs retries of 1 or more; set that, or enable.idempotence=false".into()),
    Rule(IN_FLIGHT, |c| c.idempotence && c.max_in_flight > REMEMBERED,
        |_| format!("must not be more than {REMEMBERED}, which is what a broker remembers, while enable.idempotence=true \
                     (the default); lower it, or set enable.idempotence=false")),
    Rule("delivery.timeout.ms", |c| c.delivery_timeout < least_delivery(c),
        |c| format!("must not be less than linger.ms={} and request.timeout.ms={} together; raise it, or lower these",
                    c.text("linger.ms"), c.text("request.timeout.ms"))),
    Rule("retry.backoff.ms", |c| c.retry_backoff > c.retry_backoff_max,
        |c| format!("must not be more than retry.backoff.max.ms={}", c.text("retry.backoff.max.ms"))),
    Rule("reconnect.backoff.ms", |c| c.reconnect_backoff > c.reconnect_backoff_max,
        |c| format!("must not be more than reconnect.backoff.max.ms={}", c.text("reconnect.backoff.max.ms"))),
    Rule("socket.connection.setup.timeout.ms", |c| c.connection_setup_timeout > c.connection_setup_timeout_max,
        |c| format!("must not be more than {SETUP_MAX}={}", c.text(SETUP_MAX))),
    Rule(REQUEST, |c| c.max_request_size > room(c),
        |c| format!("a record of this size would never find room in buffer.memory={}, which has {} in one piece; \
                     raise buffer.memory, or lower this", c.text("buffer.memory"), room(c))),
    Rule(WHOLE, |c| c.request_max_bytes < c.max_request_size,
        |c| format!("must not be less than max.request.size={}, which a batch may have; raise it, or lower that",
                    c.text(REQUEST))),
    Rule("batch.size", |c| c.batch_size > c.max_request_size,
        |c| format!("must not be more than max.request.size={}, for no batch is larger than that", c.text(REQUEST))),
];

const IN_FLIGHT: &str = "max.in.flight.requests.per.connection";
const REQUEST: &str = "max.request.size";
const WHOLE: &str = "request.max.bytes";
const SETUP_MAX: &str = "socket.connection.setup.timeout.max.ms";

/// Fills in what follows.
pub(super) fn imply(config: &mut Config) {
    for implied in IMPLIED {
        implied(config);
    }
}

/// The first rule that is broken.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    match RULES.iter().find(|Rule(_, broken, _)| broken(config)) {
        Some(Rule(key, _, right)) => Err(ConfigError::new(*key, config.text(key), right(config))),
        None => Ok(()),
    }
}

/// A duration that was not given is at least this.
fn raise(config: &mut Config, key: &str, least: Duration, field: fn(&mut Config) -> &mut Duration) {
    if !config.is_given(key) {
        let field = field(config);
        *field = least.max(*field);
    }
}

/// Is the first pause given and the longest not?
fn alone(config: &Config) -> bool {
    config.is_given("reconnect.backoff.ms") && !config.is_given("reconnect.backoff.max.ms")
}

fn least_delivery(config: &Config) -> Duration {
    config.linger.saturating_add(config.request_timeout).min(super::values::LONGEST)
}

/// A batch's bytes where no number is given for them.
fn most(config: &Config) -> u32 {
    let whole = if config.is_given(WHOLE) { config.request_max_bytes } else { u32::MAX };
    room(config).min(whole)
}

/// A request's bytes where no number is given for them. Two are under way to a slow broker, so a quarter each leaves half of
/// the memory to callers.
fn whole(config: &Config) -> u32 {
    let quarter = u32::try_from(config.buffer_memory / 4).unwrap_or(u32::MAX);
    let most = if config.is_given(REQUEST) { config.max_request_size } else { config.request_max_bytes.min(quarter) };
    most.max(config.max_request_size)
}

/// The longest record that finds room in an empty buffer.
fn room(config: &Config) -> u32 {
    let [.., largest] = RUNS;
    let room = match config.buffer_memory {
        small if small < largest => RUNS.into_iter().rfind(|run| *run <= small).unwrap_or(0),
        large => large / largest * largest,
    };
    u32::try_from(room).unwrap_or(u32::MAX)
}
