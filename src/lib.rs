//! ringmail: a Kafka producer core.
//!
//! Application threads encode records straight into lock-free, per-partition rings of pooled buffers; one sender thread
//! hands sealed batches, without copying them again, to io_uring (or epoll) as one request per broker; the broker's
//! answers complete deliveries, listeners and callbacks.
//!
//! ```text
//!  1 record in ─► 2 partition ─► 3 accumulate ─► 4 send ─► broker ─► 5 ack ─► 6 completion
//!   producer      partitioner     accumulator     sender, driver      sender     completion
//! ```
//!
//! `send` returning means that the record is in memory, no more. What became of it is told by its [`Delivery`], by the
//! producer's listener, or by a callback; a failure says whether the record is *not written* or *possibly written*.
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ringmail::{Producer, Record};
//!
//! # let broker = ringmail::testing::Broker::start(Default::default())?;
//! # let servers = broker.bootstrap();
//! let producer = Producer::builder()
//!     .bootstrap_servers(&servers) // "localhost:9092"
//!     .set("linger.ms", "5")
//!     .build()?;
//! let orders = producer.topic("orders")?;
//! let delivery = orders.send(Record::value("2 x tea").with_key("customer-7"))?;
//! let metadata = delivery.wait()?;
//! println!("{}-{} at offset {:?}", metadata.topic(), metadata.partition(), metadata.offset());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! ```
//!
//! The rooms, in the order of the data's way, and the decisions behind them: ARCHITECTURE.md in the repository.

// The few files that need it say why it is sound, and are listed in tests/architecture.rs.
#![deny(unsafe_code)]
// Tests may panic; the library itself is checked without them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity))]

#[cfg(not(loom))]
mod fallback;
#[cfg(not(loom))]
mod producer;
mod sync;
pub(crate) mod wire;

#[cfg_attr(loom, allow(dead_code))]
mod config;
mod error;
mod record;

#[cfg(not(loom))]
mod metadata;

mod completion;
mod partitioner;

mod accumulator;

#[cfg(not(loom))]
mod sender;

#[cfg(not(loom))]
mod driver;

#[cfg(all(feature = "testing", not(loom)))]
pub mod testing;

#[cfg(all(feature = "fuzzing", not(loom)))]
#[doc(hidden)]
pub mod fuzzing;

pub use completion::{Delivery, DeliveryListener, RecordMetadata};
#[cfg(not(loom))]
pub use completion::{UndeliverableSink, UndeliveredRecord};
pub use config::{Acks, ConfigKey, Cores, DriverChoice, IdleStrategy, ProducerConfig};
pub use error::{
    BrokerError, CloseReport, ConfigError, DeliveryError, DeliveryErrorKind, Leftover, Refused, SendError, Trouble,
    WaitedFor, Written,
};
#[cfg(not(loom))]
pub use fallback::{DeadLetterTopic, FailedRecordsFile};
#[cfg(not(loom))]
pub use producer::{Claim, CloseFuture, FlushFuture, PartitionInfo, Producer, ProducerBuilder, SendFuture, Topic};
pub use record::{Header, Record};
#[cfg(not(loom))]
pub use sender::Stats;
pub use wire::error_code::ErrorCode;
