//! What became of a record: from the sender's "this segment is done" to whoever wants to know.
//!
//! One completion belongs to one segment of a batch and serves all its records; a [`Delivery`] is a reference to it, an
//! index into the segment and the record's timestamp, and holds no buffer. Records acknowledged together share one
//! result, a range of it where a batch was split. Completions are pooled: making a delivery, resolving it and waiting
//! for one that is done neither allocate nor lock. Polling a pending delivery does, and resolving a part of the records, or
//! any for a sink.

pub(crate) mod callback;
pub(crate) mod callback_thread;
mod delivery;
#[cfg(not(loom))]
pub(crate) mod ending;
mod metadata;
mod pool;
mod primitives;
mod slot;
#[cfg(not(loom))]
mod undeliverable;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub use delivery::Delivery;
pub(crate) use metadata::Outcome;
pub use metadata::{DeliveryListener, RecordMetadata};
pub(crate) use pool::CompletionPool;
pub(crate) use slot::CompletionRef;
#[cfg(not(loom))]
pub use undeliverable::{UndeliverableSink, UndeliveredRecord};
