//! What a producer can be told: Kafka's own keys, and typed setters for the same.
//!
//! `keys` is the table of keys that are built, one row each; `values` reads and writes their values; `rules` says what
//! follows from what and which values contradict each other; `refused` knows the keys that are not built (yet), and
//! what a misspelt one was meant to be.

mod keys;
mod refused;
mod rules;
#[cfg(all(test, not(loom)))]
mod tests;
mod values;

use std::time::Duration;

pub use keys::ConfigKey;
pub(crate) use values::MetadataRecovery;
pub use values::{Acks, Cores, DriverChoice, IdleStrategy};

use crate::error::ConfigError;

/// A producer's configuration. Starts with Kafka's defaults; every method takes it and gives it back.
///
/// [`set`](Self::set) takes Kafka's keys and values; the typed setters are the same keys under Rust's names. What is
/// wrong is kept and reported when the producer is built. The last value of a key counts.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// Host (IPv6 without brackets) and port, in the order given, each once.
    pub(crate) bootstrap_servers: Vec<(String, u16)>,
    pub(crate) client_id: String,
    pub(crate) acks: Acks,
    /// As asked for; after [`validate`](Self::validate) as it is.
    pub(crate) idempotence: bool,
    pub(crate) linger: Duration,
    /// Bytes from which a batch may leave; 1 after `validate` where 0 was given: a record per batch.
    pub(crate) batch_size: u32,
    pub(crate) buffer_memory: usize,
    pub(crate) max_block: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_request_size: u32,
    /// The most bytes of a request with more than one batch.
    pub(crate) request_max_bytes: u32,
    pub(crate) request_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    pub(crate) reconnect_backoff: Duration,
    pub(crate) reconnect_backoff_max: Duration,
    pub(crate) metadata_max_age: Duration,
    pub(crate) metadata_max_idle: Duration,
    pub(crate) metadata_recovery: MetadataRecovery,
    pub(crate) rebootstrap_trigger: Duration,
    pub(crate) connection_setup_timeout: Duration,
    pub(crate) connection_setup_timeout_max: Duration,
    /// A hundred years where connections stay however long they are idle.
    pub(crate) connections_max_idle: Duration,
    /// SO_SNDBUF in bytes; `None`: the operating system decides.
    pub(crate) send_buffer: Option<usize>,
    /// SO_RCVBUF in bytes; `None`: the operating system decides.
    pub(crate) receive_buffer: Option<usize>,
    /// Whether asking for a topic's metadata may create the topic, where the broker is set up so.
    pub(crate) allow_auto_create: bool,
    pub(crate) sender_cores: Cores,
    pub(crate) idle: IdleStrategy,
    pub(crate) driver: DriverChoice,
    /// How long dropping the last producer may wait for what was accepted.
    pub(crate) close_timeout: Duration,
    /// Keys that were given, by their row in the table.
    given: u64,
    problems: Vec<ConfigError>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            bootstrap_servers: Vec::new(),
            client_id: "ringmail".to_owned(),
            acks: Acks::All,
            idempotence: true,
            linger: ms(5),
            batch_size: 16_384,
            buffer_memory: 33_554_432,
            max_block: ms(60_000),
            max_in_flight: 5,
            max_request_size: 1_048_576,
            request_max_bytes: 8 << 20,
            request_timeout: ms(30_000),
            delivery_timeout: ms(120_000),
            retries: i32::MAX as u32,
            retry_backoff: ms(100),
            retry_backoff_max: ms(1_000),
            reconnect_backoff: ms(50),
            reconnect_backoff_max: ms(1_000),
            metadata_max_age: ms(300_000),
            metadata_max_idle: ms(300_000),
            metadata_recovery: MetadataRecovery::Rebootstrap,
            rebootstrap_trigger: ms(300_000),
            connection_setup_timeout: ms(10_000),
            connection_setup_timeout_max: ms(30_000),
            connections_max_idle: ms(540_000),
            send_buffer: None,
            receive_buffer: None,
            allow_auto_create: true,
            sender_cores: Cores::None,
            idle: IdleStrategy::SpinThenPark,
            driver: DriverChoice::Auto,
            close_timeout: ms(30_000),
            given: 0,
            problems: Vec::new(),
        }
    }
}

impl ProducerConfig {
    /// Kafka's defaults, and no bootstrap server yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every key that can be set, in the order in which they are worth reading.
    pub fn keys() -> impl Iterator<Item = ConfigKey> {
        keys::KEYS.iter().map(ConfigKey)
    }

    /// The servers of `bootstrap.servers` as they were read: host (an IPv6 address without its brackets) and port, in the
    /// order given, each once. None while the key was not given, or its value cannot be read.
    pub fn servers(&self) -> impl Iterator<Item = (&str, u16)> {
        self.bootstrap_servers.iter().map(|(host, port)| (&**host, *port))
    }

    /// Sets a key as Kafka's configuration files do, e.g. `("linger.ms", "20")`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let (key, value) = (key.trim(), value.trim());
        self.problems.retain(|problem| problem.key() != key);
        let Some(row) = keys::row(key) else {
            self.problems.extend(refused::explain(key, value));
            return self;
        };
        self.given |= 1 << row;
        if let Err(rule) = (keys::KEYS[row].set)(&mut self, value) {
            self.problems.push(ConfigError::new(keys::KEYS[row].name, value, rule));
        }
        self
    }

    /// Was this key set, by whichever method?
    fn is_given(&self, key: &str) -> bool {
        keys::row(key).is_some_and(|row| self.given & 1 << row != 0)
    }

    /// The value of a key as text.
    pub(crate) fn text(&self, key: &str) -> String {
        keys::row(key).map_or_else(String::new, |row| (keys::KEYS[row].show)(self))
    }

    /// Checks everything and fills in what follows from other values. What it returns contradicts nothing.
    ///
    /// # Errors
    /// The first thing that is wrong: a value that could not be read, an unknown or unbuilt key, a contradiction.
    pub(crate) fn validate(mut self) -> Result<Self, ConfigError> {
        if let Some(problem) = self.problems.first() {
            return Err(problem.clone());
        }
        rules::imply(&mut self);
        rules::check(&self)?;
        Ok(self)
    }
}

/// The typed setters, each the same as its key.
impl ProducerConfig {
    /// A setter of a duration: kept to the nanosecond, but no longer than Kafka can say.
    fn duration(mut self, key: &str, value: Duration, field: fn(&mut Self) -> &mut Duration) -> Self {
        self = self.set(key, &value.as_millis().to_string());
        if !self.problems.iter().any(|problem| problem.key() == key) {
            *field(&mut self) = value.min(values::LONGEST);
        }
        self
    }

    /// `bootstrap.servers`: `host:port`, several with commas between them.
    pub fn bootstrap_servers(self, servers: &str) -> Self {
        self.set("bootstrap.servers", servers)
    }

    /// `client.id`: the name that brokers log and apply quotas to.
    pub fn client_id(self, client_id: &str) -> Self {
        self.set("client.id", client_id)
    }

    /// `acks`: who must have a record before it counts as delivered.
    pub fn acks(self, acks: Acks) -> Self {
        self.set("acks", acks.name())
    }

    /// `enable.idempotence`: retries neither duplicate nor reorder. Needs `acks=all`.
    pub fn enable_idempotence(self, on: bool) -> Self {
        self.set("enable.idempotence", values::show_bool(on))
    }

    /// `linger.ms`: how long a batch may wait for more records.
    pub fn linger(self, linger: Duration) -> Self {
        self.duration("linger.ms", linger, |config| &mut config.linger)
    }

    /// `batch.size`: bytes from which a batch may leave before its linger is over. 0: every record at once.
    pub fn batch_size(self, bytes: u32) -> Self {
        self.set("batch.size", &bytes.to_string())
    }

    /// `buffer.memory`: bytes for all records that are not acknowledged yet.
    pub fn buffer_memory(self, bytes: usize) -> Self {
        self.set("buffer.memory", &bytes.to_string())
    }

    /// `max.block.ms`: how long a send may wait for metadata and memory.
    pub fn max_block(self, max_block: Duration) -> Self {
        self.duration("max.block.ms", max_block, |config| &mut config.max_block)
    }

    /// `max.in.flight.requests.per.connection`: unacknowledged batches per partition.
    pub fn max_in_flight(self, batches: usize) -> Self {
        self.set("max.in.flight.requests.per.connection", &batches.to_string())
    }

    /// `max.request.size`: the most bytes of one batch, and so of one record.
    pub fn max_request_size(self, bytes: u32) -> Self {
        self.set("max.request.size", &bytes.to_string())
    }

    /// `request.max.bytes`: the most bytes of a request, which has batches of many partitions.
    pub fn request_max_bytes(self, bytes: u32) -> Self {
        self.set("request.max.bytes", &bytes.to_string())
    }

    /// `request.timeout.ms`: how long to wait for the answer to a request.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        self.duration("request.timeout.ms", timeout, |config| &mut config.request_timeout)
    }

    /// `delivery.timeout.ms`: how long a record may take in all, from `send` on.
    pub fn delivery_timeout(self, timeout: Duration) -> Self {
        self.duration("delivery.timeout.ms", timeout, |config| &mut config.delivery_timeout)
    }

    /// `retries`: how often a batch is sent again, within `delivery.timeout.ms`.
    pub fn retries(self, retries: u32) -> Self {
        self.set("retries", &retries.to_string())
    }

    /// `retry.backoff.ms` and `retry.backoff.max.ms`: the pause before a retry, doubled each time, up to `longest`.
    pub fn retry_backoff(self, first: Duration, longest: Duration) -> Self {
        self.duration("retry.backoff.ms", first, |config| &mut config.retry_backoff).duration(
            "retry.backoff.max.ms",
            longest,
            |config| &mut config.retry_backoff_max,
        )
    }

    /// `reconnect.backoff.ms` and `reconnect.backoff.max.ms`: the pause before a broker is tried again, doubled each
    /// time, up to `longest`.
    pub fn reconnect_backoff(self, first: Duration, longest: Duration) -> Self {
        self.duration("reconnect.backoff.ms", first, |config| &mut config.reconnect_backoff).duration(
            "reconnect.backoff.max.ms",
            longest,
            |config| &mut config.reconnect_backoff_max,
        )
    }

    /// `metadata.max.age.ms`: after how long metadata is asked for again though nothing seems wrong.
    pub fn metadata_max_age(self, age: Duration) -> Self {
        self.duration("metadata.max.age.ms", age, |config| &mut config.metadata_max_age)
    }

    /// `metadata.max.idle.ms`: after how long a topic that nothing is sent to is no longer asked for.
    pub fn metadata_max_idle(self, idle: Duration) -> Self {
        self.duration("metadata.max.idle.ms", idle, |config| &mut config.metadata_max_idle)
    }

    /// `allow.auto.create.topics`: whether a send may create its topic, where the broker is set up so.
    pub fn allow_auto_create_topics(self, allow: bool) -> Self {
        self.set("allow.auto.create.topics", values::show_bool(allow))
    }

    /// `sender.cores`: where the sender thread runs.
    pub fn sender_cores(self, cores: &Cores) -> Self {
        self.set("sender.cores", &cores.to_string())
    }

    /// `idle.strategy`: what the sender thread does while there is nothing to do.
    pub fn idle_strategy(self, idle: IdleStrategy) -> Self {
        self.set("idle.strategy", idle.name())
    }

    /// `driver`: how the sender thread talks to the operating system.
    pub fn driver(self, driver: DriverChoice) -> Self {
        self.set("driver", driver.name())
    }

    /// `close.timeout.ms`: how long dropping the last producer may wait for what was accepted.
    pub fn close_timeout(self, timeout: Duration) -> Self {
        self.duration("close.timeout.ms", timeout, |config| &mut config.close_timeout)
    }
}
