//! ringmail: a Kafka producer core.
//!
//! ```text
//!  1 record in ─► 2 partition ─► 3 accumulate ─► 4 send ─► broker ─► 5 ack ─► 6 completion
//! ```

// Tests may panic; the library itself is checked without them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity))]

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

pub use completion::{Delivery, DeliveryListener, RecordMetadata};
pub use config::{Acks, ConfigKey, Cores, DriverChoice, IdleStrategy, ProducerConfig};
pub use error::{
    BrokerError, CloseReport, ConfigError, DeliveryError, DeliveryErrorKind, Leftover, Refused, SendError, Trouble,
    WaitedFor, Written,
};
#[cfg(not(loom))]
pub use producer::{Claim, CloseFuture, FlushFuture, PartitionInfo, Producer, ProducerBuilder, SendFuture, Topic};
pub use record::{Header, Record};
pub use wire::error_code::ErrorCode;
