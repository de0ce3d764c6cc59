//! The keys, one row each: help, README and parser are all made from this table.

use super::ProducerConfig;
use super::values::{
    Acks, Cores, DriverChoice, IdleStrategy, MetadataRecovery, Rule, read_bool, read_millis, read_millis_or_never,
    read_number, read_servers, read_socket_buffer, show_bool, show_millis, show_servers, show_socket_buffer,
};

/// One key of the configuration.
pub(super) struct Row {
    pub name: &'static str,
    values: &'static str,
    about: &'static str,
    pub set: fn(&mut ProducerConfig, &str) -> Result<(), Rule>,
    pub show: fn(&ProducerConfig) -> String,
}

/// What there is to say of a key: for `--help` and for documentation.
#[derive(Clone, Copy)]
pub struct ConfigKey(pub(super) &'static Row);

impl ConfigKey {
    /// The key, in Kafka's spelling.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Which values it takes, in a few words.
    pub fn values(self) -> &'static str {
        self.0.values
    }

    /// What it does, in a sentence or two.
    pub fn about(self) -> &'static str {
        self.0.about
    }

    /// Its default; `None`: it must be given.
    pub fn default(self) -> Option<String> {
        Some((self.0.show)(&ProducerConfig::default())).filter(|value| !value.is_empty())
    }
}

/// A key's place in the table.
pub(super) fn row(key: &str) -> Option<usize> {
    KEYS.iter().position(|row| row.name == key)
}

const MS: &str = "milliseconds";
const BYTES: &str = "bytes";
/// The most that a key of Kafka's type int can be.
const INT: i64 = i32::MAX as i64;

/// A row of milliseconds, `$least` or more.
macro_rules! millis {
    ($name:literal, $field:ident, $least:literal, $about:expr) => {
        Row {
            name: $name,
            values: MS,
            about: $about,
            set: |config, text| {
                config.$field = read_millis(text, $least)?;
                Ok(())
            },
            show: |config| show_millis(config.$field),
        }
    };
}

/// A row of another type, with its reader and writer.
macro_rules! row {
    ($name:literal, $field:ident, $values:expr, $read:expr, $show:expr, $about:expr) => {
        Row {
            name: $name,
            values: $values,
            about: $about,
            set: |config, text| {
                config.$field = $read(text)?;
                Ok(())
            },
            show: |config| $show(&config.$field),
        }
    };
}

/// A row of whole numbers from `$range`.
macro_rules! number {
    ($name:literal, $field:ident, $values:expr, $range:expr, $about:expr) => {
        row!($name, $field, $values, |text| read_number(text, $range).map(|n| n as _), ToString::to_string, $about)
    };
}

pub(super) const KEYS: &[Row] = &[
    row!(
        "bootstrap.servers",
        bootstrap_servers,
        "host:port,…",
        read_servers,
        |servers: &Vec<_>| show_servers(servers),
        "Brokers to ask for all others; two or three are enough. IPv6 addresses in brackets."
    ),
    row!(
        "client.id",
        client_id,
        "text",
        read_client_id,
        String::clone,
        "The name that brokers log and apply quotas to."
    ),
    row!(
        "acks",
        acks,
        "all, 1, 0",
        Acks::read,
        Acks::to_string,
        "Who must have a record before it counts as delivered: all replicas in sync, the leader, or nobody."
    ),
    row!(
        "enable.idempotence",
        idempotence,
        "true, false",
        read_bool,
        |on: &bool| show_bool(*on).to_owned(),
        "Retries neither duplicate nor reorder. Needs acks=all; goes off by itself with acks=0 or 1, or retries=0."
    ),
    millis!("linger.ms", linger, 0, "How long a batch may wait for more records. Under load batches fill sooner."),
    number!(
        "batch.size",
        batch_size,
        BYTES,
        0..=INT,
        "From this size on a batch leaves without lingering. While a partition cannot send, its batch grows beyond it, \
         up to max.request.size; in a fast stream it waits 250 microseconds (driver=epoll: a millisecond) at most, not \
         beyond linger.ms, to grow. 0: from the first record on."
    ),
    number!(
        "buffer.memory",
        buffer_memory,
        BYTES,
        super::rules::BUFFER_LEAST as i64..=super::rules::BUFFER_MOST as i64,
        "All records that are not acknowledged yet must fit in here; a send waits for room (max.block.ms)."
    ),
    number!(
        "max.request.size",
        max_request_size,
        BYTES,
        1024..=INT,
        "The most bytes of one batch, and so of one record. Given, and request.max.bytes not, it bounds a whole request, \
         too. Topics have a limit of their own, max.message.bytes. Within 1 MiB of the largest value it means that much \
         less: a request's size is an int, and a request has more than its batch."
    ),
    number!(
        "request.max.bytes",
        request_max_bytes,
        BYTES,
        1024..=INT,
        "The most bytes of a request, which has a batch of each of many partitions. A request is larger than \
         max.request.size only where answers are slow. Not given, it is max.request.size where that is given, and at \
         most a quarter of buffer.memory. Brokers have a limit of their own, socket.request.max.bytes."
    ),
    millis!(
        "max.block.ms",
        max_block,
        0,
        "How long a send may wait for the topic's metadata and for memory, in all. 0: not at all."
    ),
    millis!(
        "delivery.timeout.ms",
        delivery_timeout,
        0,
        "How long a record may take in all, retries included. At least linger.ms + request.timeout.ms; raised to that \
         when it is not given."
    ),
    millis!(
        "request.timeout.ms",
        request_timeout,
        1,
        "How long to wait for a broker's answer to a request before the connection is given up."
    ),
    number!(
        "max.in.flight.requests.per.connection",
        max_in_flight,
        "1 or more",
        1..=INT,
        "Unacknowledged batches per partition. At most 5 with idempotence. Without it, more than 1 may reorder records \
         when a batch is retried."
    ),
    number!("retries", retries, "0 or more", 0..=INT, "How often a batch is sent again, within delivery.timeout.ms."),
    millis!("retry.backoff.ms", retry_backoff, 0, "The pause before the first retry; doubles with each further one."),
    millis!("retry.backoff.max.ms", retry_backoff_max, 0, "The longest pause before a retry."),
    millis!(
        "reconnect.backoff.ms",
        reconnect_backoff,
        0,
        "The pause before a broker that could not be reached is tried again; doubles each time. Given without \
         reconnect.backoff.max.ms, it stays the same."
    ),
    millis!("reconnect.backoff.max.ms", reconnect_backoff_max, 0, "The longest pause before a broker is tried again."),
    millis!(
        "socket.connection.setup.timeout.ms",
        connection_setup_timeout,
        1,
        "How long a connection may take to be made; doubles with each failure."
    ),
    millis!(
        "socket.connection.setup.timeout.max.ms",
        connection_setup_timeout_max,
        1,
        "The longest that a connection may take to be made."
    ),
    row!(
        "connections.max.idle.ms",
        connections_max_idle,
        "milliseconds, -1: never",
        read_millis_or_never,
        |idle: &_| show_millis(*idle),
        "After how long an unused connection is closed."
    ),
    row!(
        "send.buffer.bytes",
        send_buffer,
        "bytes, -1: the system's",
        read_socket_buffer,
        |bytes: &Option<_>| show_socket_buffer(*bytes),
        "The socket's send buffer (SO_SNDBUF). Kafka's Java client sets 131072; left alone, the system adapts it."
    ),
    row!(
        "receive.buffer.bytes",
        receive_buffer,
        "bytes, -1: the system's",
        read_socket_buffer,
        |bytes: &Option<_>| show_socket_buffer(*bytes),
        "The socket's receive buffer (SO_RCVBUF). Kafka's Java client sets 32768; left alone, the system adapts it."
    ),
    millis!(
        "metadata.max.age.ms",
        metadata_max_age,
        1,
        "After how long metadata is asked for again though nothing seems wrong."
    ),
    millis!(
        "metadata.max.idle.ms",
        metadata_max_idle,
        5000,
        "After how long a topic that nothing is sent to is no longer asked for."
    ),
    row!(
        "metadata.recovery.strategy",
        metadata_recovery,
        "rebootstrap, none",
        MetadataRecovery::read,
        MetadataRecovery::to_string,
        "What to do when no broker that the cluster named is of use: start again from bootstrap.servers, or go on trying \
         those."
    ),
    millis!(
        "metadata.recovery.rebootstrap.trigger.ms",
        rebootstrap_trigger,
        0,
        "For how long metadata may be wanted in vain before everything starts again from bootstrap.servers. At least \
         request.timeout.ms counts."
    ),
    row!(
        "allow.auto.create.topics",
        allow_auto_create,
        "true, false",
        read_bool,
        |on: &bool| show_bool(*on).to_owned(),
        "Whether a send may create its topic, where the broker is set up so (auto.create.topics.enable)."
    ),
    row!(
        "sender.cores",
        sender_cores,
        "none, auto, or core numbers",
        Cores::read,
        Cores::to_string,
        "ringmail's own: pins the sender thread to a core."
    ),
    row!(
        "idle.strategy",
        idle,
        "spin, spin-then-park, park",
        IdleStrategy::read,
        IdleStrategy::to_string,
        "ringmail's own: what the sender thread does while there is nothing to do. spin keeps a core busy."
    ),
    row!(
        "driver",
        driver,
        "auto, io_uring, epoll",
        DriverChoice::read,
        DriverChoice::to_string,
        "ringmail's own: how the sender thread talks to the operating system. auto takes the best that works."
    ),
    millis!(
        "close.timeout.ms",
        close_timeout,
        0,
        "ringmail's own: how long dropping the last producer may wait for what was accepted."
    ),
];

const _: () = assert!(KEYS.len() <= 64, "given keys are bits of a u64");

fn read_client_id(text: &str) -> Result<String, Rule> {
    const MOST: usize = 1000;
    match text.len() {
        1..=MOST => Ok(text.to_owned()),
        _ => Err(format!("1 to {MOST} bytes of text").into()),
    }
}
