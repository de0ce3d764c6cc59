//! ringmail: a Kafka producer core.
#![cfg_attr(not(test), forbid(clippy::todo))]

mod sync;
pub(crate) mod wire;

mod config;
mod error;
mod record;

mod metadata;

mod completion;
mod partitioner;

mod accumulator;

mod sender;

#[cfg(not(loom))]
mod driver;

#[cfg(feature = "testing")]
pub mod testing;

pub use error::{ConfigError, DeliveryError, SendError};
pub use record::{Header, Record};
