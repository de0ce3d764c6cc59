//! Kafka's bytes, as pure functions: no socket, no clock, nothing kept between calls but a half-read frame.
//!
//! `codec` reads and writes single fields; `header`, `record_batch`, `record` and `varint` are what all requests share;
//! then one file per API. What a client writes and reads is always here; what a broker reads and writes lives in
//! `server` and is compiled for the embedded broker only.

pub mod api_versions;
#[cfg(all(any(test, feature = "testing"), not(loom)))]
pub mod batch_view;
pub mod codec;
pub mod error_code;
pub mod frame;
pub mod header;
pub mod init_producer_id;
pub mod metadata;
pub mod produce;
pub mod record;
pub mod record_batch;
#[cfg(not(loom))]
pub mod record_view;
#[cfg(any(test, feature = "testing"))]
pub mod server;
pub mod varint;
