//! The embedded broker: a Kafka broker in memory, for tests, demos and benchmarks.
//!
//! ```text
//! Broker (server)        threads, sockets, the clock
//!   └ BrokerModel        one request in, one reply out; no thread, no clock, no socket
//!       ├ produce        leaders, faults, answers      ── validate   what a broker checks in a batch
//!       ├ fetch          reading back                  ── log        offsets, sequences, duplicates
//!       ├ cut_off        a broker that knows only what was
//!       └ metadata, ApiVersions, InitProducerId
//! hostile                the same model behind TCP, and a hook that spoils what it answers
//! simulation             the sender over a simulated network, against the model
//! internals              what the benchmarks drive by hand; no part of the API
//! decode                 records of a log, read by a decoder that shares nothing with the encoder
//! ```
//!
//! It answers as an Apache Kafka 4.3.1 broker does wherever a producer can see it, one request per connection at a
//! time; `tests/model_script` holds both to one transcript of 1,700 answers. It differs on purpose in these places:
//!
//! - offset deltas other than 0, 1, 2… are refused (INVALID_RECORD) unless [`BrokerOptions::any_offset_deltas`] is on;
//!   a real broker stores those of an uncompressed batch as they are, which no producer should rely on;
//! - compressed batches are refused (UNSUPPORTED_COMPRESSION_TYPE), and so is all that belongs to transactions;
//! - topics and partitions of a Produce answer come in the reverse order of the request: Kafka promises no order;
//! - there is one replica of everything, nothing is written to disk, and there are no groups, quotas or ACLs.

mod broker;
mod cut_off;
mod decode;
mod fetch;
#[cfg(test)]
pub(crate) mod heard;
pub mod hostile;
#[doc(hidden)]
pub mod internals;
mod log;
mod options;
mod produce;
mod server;
#[doc(hidden)]
pub mod simulation;
#[cfg(test)]
mod tests;
mod validate;

pub use crate::driver::resolver::set_name;
pub use crate::wire::error_code::ErrorCode;
pub use broker::{BrokerModel, Incoming, Reply};
pub use decode::{StoredRecord, decode_batch};
pub use log::StoredBatch;
pub use options::{BrokerOptions, Fault, FirstSequence, OnProduce, ProduceContext, TimestampType, TopicOptions};
pub use server::{Broker, BrokerStats};

/// The partition that Java's default partitioner gives a key, of `count` partitions.
pub fn partition_for_key(key: &[u8], count: i32) -> i32 {
    crate::partitioner::partition_for_key(key, count)
}
