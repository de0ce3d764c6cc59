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
//! It answers as an Apache Kafka 4.4.0 broker does wherever a producer can see it, one request per connection at a
//! time; `tests/model_script` holds both to one transcript of 1,700 answers. It differs on purpose in these places:
//!
//! - offset deltas other than 0, 1, 2… are refused (INVALID_RECORD) unless [`BrokerOptions::any_offset_deltas`] is on;
//!   a real broker stores those of an uncompressed batch as they are, which no producer should rely on;
//! - compressed batches are refused (UNSUPPORTED_COMPRESSION_TYPE), and so is all that belongs to transactions;
//! - topics and partitions of a Produce answer come in the reverse order of the request: Kafka promises no order;
//! - there is one replica of everything, nothing is written to disk, and there are no groups, quotas or ACLs.
//!
//! What Kafka's versions decide differently, seen in the same script against 4.4.0, 4.3.1, 3.9.2, 2.8.2 and 2.4.1 unless it
//! says *read* (all of it is in `tests/model_script/otherwise`), and what lets this broker be like another one:
//!
//! | rule | by version | here |
//! |---|---|---|
//! | Produce | up to 8 in 2.4, 9 in 2.8, 11 in 3.9, 13 (topic ids) since 4.1 (read) | [`BrokerOptions::produce_max_version`] |
//! | Metadata, InitProducerId | up to 9 and 2 in 2.4, 11 and 4 in 2.8, 12 and 5 in 3.9, 13 and 5 in 4.3 | 13 and 5; [`BrokerOptions::denied_apis`] leaves one out |
//! | Produce 0 to 2 | answered in 3.9; in 4.3 offered, and the connection is closed | closed |
//! | ApiVersions 5: the client means another cluster or node (KIP-1242) | REBOOTSTRAP_REQUIRED since 4.4 | as 4.4 |
//! | the first sequence of a producer that is not known | 0, else UNKNOWN_PRODUCER_ID, in 2.4; any since 2.5; 0, else OUT_OF_ORDER_SEQUENCE_NUMBER, from 4.5 on (read) while the partition never held a record | [`BrokerOptions::first_sequence`] |
//! | a producer whose last record is deleted | forgotten before 2.4 (read), remembered since | remembered; [`BrokerModel::expire_producers`] |
//! | records that are refused by name (KIP-467) | 2.4 names the first one alone, and says why for the whole batch | [`Fault::RecordErrors`] |
//! | records far in the future | taken in 3.9; in 4.3 refused by more than an hour | [`TopicOptions::timestamp_after_max_ms`]; `i64::MAX` is as before |
//! | `message.timestamp.before.max.ms` and `….after.max.ms` | not in 2.8, where one limit is for both; in 3.9 | there |
//! | `min.insync.replicas` above the number of replicas | NOT_ENOUGH_REPLICAS in 2.8, capped in 3.9 | capped; [`Fault::Error`] |
//! | a batch that says LogAppendTime on a topic with CreateTime | INVALID_TIMESTAMP in 2.8, ignored in 3.9 | ignored |
//! | a record that is longer than its batch | UNKNOWN_SERVER_ERROR in 2.8, INVALID_RECORD in 3.9 | INVALID_RECORD |
//! | no records, an unknown magic, a batch whose length is wrong | the connection is closed in 2.4, INVALID_RECORD or CORRUPT_MESSAGE in 2.8 | as 2.8 |
//! | null records | UNKNOWN_SERVER_ERROR or the connection closed in 2.4 and 2.8, no answer in 3.9 | no answer |
//! | a topic name that cannot be, asked for in Metadata | UNKNOWN_TOPIC_OR_PARTITION in 2.4, INVALID_TOPIC_EXCEPTION in 2.8 | as 2.8 |
//!
//! All else that a producer can meet, among it what is known of a producer after a restart, which batches are duplicates
//! and in which order things are checked, is the same in the five.

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
