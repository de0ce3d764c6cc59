//! From a configuration to a running producer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Callbacks, Core, Open, Producer};
use crate::accumulator::{Accumulator, AccumulatorConfig};
use crate::completion::{DeliveryListener, UndeliverableSink};
use crate::config::{Acks, Cores, DriverChoice, IdleStrategy, ProducerConfig};
use crate::driver::callbacks::Told;
use crate::driver::fork::Origin;
use crate::driver::{self, Setup, SocketOptions};
use crate::error::ConfigError;
use crate::sender::{Sender, Shared};

/// Segments per partition that may wait in its ring: so many that one partition can fill the memory with segments of
/// 256 KiB (of 1 MiB from 128 MiB on).
fn slots(buffer_memory: usize) -> usize {
    (buffer_memory >> 18).next_power_of_two().clamp(32, 256)
}

/// What threads are started for: the callers' side, the sender's, and who is told.
pub(super) type Parts = (Arc<Core>, Sender, Told);

/// Configures a [`Producer`]. Typed setters and Kafka's own keys ([`set`](Self::set)) say the same things; what is
/// wrong is told by [`build`](Self::build), with the key, the value and the rule.
#[derive(Default)]
#[must_use = "build() makes the producer"]
pub struct ProducerBuilder {
    config: ProducerConfig,
    listener: Option<Box<dyn DeliveryListener>>,
    sink: Option<Box<dyn UndeliverableSink>>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),+);)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $($argument: $type),+) -> Self {
            self.config = self.config.$name($($argument),+);
            self
        }
    )*};
}

impl ProducerBuilder {
    /// From a configuration made before.
    pub fn from_config(config: ProducerConfig) -> Self {
        Self { config, listener: None, sink: None }
    }

    setters! {
        /// Any key of Kafka's, with its value in Kafka's spelling: `set("linger.ms", "20")`.
        set(key: &str, value: &str);
        /// `bootstrap.servers`: `host:port`, separated by commas. Required.
        bootstrap_servers(servers: &str);
        /// `client.id`: how this client names itself in brokers' logs and quotas. Default: `ringmail`.
        client_id(client_id: &str);
        /// `acks`: who must have a record before it counts. Default: all in-sync replicas.
        acks(acks: Acks);
        /// `enable.idempotence`: retries neither duplicate nor reorder. Default: on (off when acks is not all).
        enable_idempotence(on: bool);
        /// `linger.ms`: how long a batch may wait for more records. Default: 5 ms.
        linger(linger: Duration);
        /// `batch.size`: from how many bytes on a batch leaves at once. Default: 16384.
        batch_size(bytes: u32);
        /// `buffer.memory`: a hard limit on the bytes that records take until they are done. Default: 32 MiB.
        buffer_memory(bytes: usize);
        /// `max.block.ms`: how long a blocking call may wait for metadata or room. Default: 60 s.
        max_block(max_block: Duration);
        /// `max.in.flight.requests.per.connection`: unacknowledged batches per partition, 1 to 5 when idempotent.
        /// Default: 5. Idempotent, a partition's order is kept whatever this is. With idempotence off, only 1 keeps it:
        /// with more, a batch that is sent again may end up behind those that were sent after it.
        max_in_flight(batches: usize);
        /// `max.request.size`: the largest batch, and so the largest record. Default: 1 MiB. Given, and
        /// `request.max.bytes` not, it is also the largest request.
        max_request_size(bytes: u32);
        /// `request.max.bytes`: the largest request. Default: 8 MiB, or a quarter of `buffer.memory` if that is less. A
        /// request has a batch of each of many partitions, and is larger than `max.request.size` only where answers are
        /// slow. The broker's limit is `socket.request.max.bytes`.
        request_max_bytes(bytes: u32);
        /// `request.timeout.ms`: how long a broker may take for one request. Default: 30 s.
        request_timeout(timeout: Duration);
        /// `delivery.timeout.ms`: how long a record may take, retries included. Default: 120 s.
        delivery_timeout(timeout: Duration);
        /// `retries`: how often a batch is sent again. Default: as often as `delivery.timeout.ms` allows.
        retries(retries: u32);
        /// `sender.cores`: where the sender thread runs. Default: wherever the system puts it.
        sender_cores(cores: &Cores);
        /// `idle.strategy`: what the sender thread does with nothing to do. Default: spin a little, then park.
        idle_strategy(idle: IdleStrategy);
        /// `driver`: io_uring or epoll. Default: io_uring where the system allows it.
        driver(driver: DriverChoice);
        /// `close.timeout.ms`: how long dropping the last [`Producer`] may take. Default: 30 s.
        close_timeout(timeout: Duration);
    }

    /// Is told about every record that was sent with a tag, on a thread of its own.
    pub fn listener(mut self, listener: impl DeliveryListener) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Is given every accepted record that could not be delivered, before anyone hears that it failed. Default: nobody,
    /// and then only the errors are told. See [`UndeliverableSink`] for what is promised.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use ringmail::{FailedRecordsFile, Producer, UndeliveredRecord};
    ///
    /// let producer = Producer::builder()
    ///     .bootstrap_servers("localhost:9092")
    ///     .on_undeliverable(FailedRecordsFile::append("failed.jsonl")?)
    ///     .build()?;
    /// let other = Producer::builder()
    ///     .bootstrap_servers("localhost:9092")
    ///     .on_undeliverable(|record: UndeliveredRecord<'_>| eprintln!("lost: {}", record.error()))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_undeliverable(mut self, sink: impl UndeliverableSink) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Somebody keeps what cannot be delivered.
    pub(crate) fn has_sink(&self) -> bool {
        self.sink.is_some()
    }

    /// Checks the configuration and starts the producer's thread. Brokers are connected to in the background.
    ///
    /// # Errors
    /// What is wrong with the configuration, or why the system gives no thread, no memory or no way to the network.
    pub fn build(self) -> Result<Producer, ConfigError> {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let (core, sender, told) = self.assemble(seed)?;
        let (config, accumulator) = (&core.shared.config, &core.shared.accumulator);
        let socket = |bytes: Option<usize>| bytes.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        let options = driver::Options {
            driver: config.driver,
            idle: config.idle,
            cores: config.sender_cores.clone(),
            setup: Setup {
                arena: accumulator.arena().clone(),
                sockets: SocketOptions {
                    send_buffer: socket(config.send_buffer),
                    receive_buffer: socket(config.receive_buffer),
                    user_timeout: Some(config.request_timeout),
                },
            },
        };
        let system = |error: std::io::Error| {
            ConfigError::new("driver", config.driver.name(), format!("the system refuses: {error}"))
        };
        if told.listener.is_some() || told.sink.is_some() {
            core.start_callbacks(told).map_err(system)?;
        }
        // Without a thread the sender is dropped, and that ends the callback thread too.
        let started = driver::spawn(options, sender, accumulator.clone()).map_err(system)?;
        let open = Open { core, sender: Mutex::new(Some(started.thread)), driver_name: started.driver_name };
        Ok(Producer { open: Arc::new(open) })
    }

    /// All but the threads. `seed` spreads the sender's backoffs.
    pub(super) fn assemble(self, seed: u64) -> Result<Parts, ConfigError> {
        let config = self.config.validate()?;
        let (accumulator, drain) = Accumulator::new(AccumulatorConfig {
            buffer_memory: config.buffer_memory,
            batch_size: config.batch_size as usize,
            max_request_size: config.max_request_size as usize,
            slots: slots(config.buffer_memory),
        })
        .map_err(|why| ConfigError::new("buffer.memory", config.buffer_memory.to_string(), why.to_string()))?;
        let shared = Arc::new(Shared::new(accumulator, Arc::new(config)));
        let core = Arc::new(Core {
            shared: shared.clone(),
            origin: Origin::here(),
            has_listener: self.listener.is_some(),
            callbacks: Mutex::new(Callbacks::Idle),
        });
        let told = Told { listener: self.listener, sink: self.sink, ..Told::default() };
        Ok((core, Sender::new(shared, drain, seed), told))
    }
}

impl std::fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
