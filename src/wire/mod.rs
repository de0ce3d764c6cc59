//! Kafka's bytes, as pure functions.

pub mod record;
pub mod varint;
