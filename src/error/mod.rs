//! What can go wrong, by when: configuring a producer, handing a record over, delivering it.
//!
//! [`ConfigError`]: nothing was started. [`SendError`]: the record was refused at the door and is still the caller's.
//! [`DeliveryError`]: the record was accepted and then failed; it says whether it may have been written all the same.

mod broker;
mod config;
mod delivery;
mod send;

pub use broker::BrokerError;
pub use config::ConfigError;
pub(crate) use delivery::Failure;
pub use delivery::{DeliveryError, DeliveryErrorKind, Written};
pub use send::{CloseReport, Leftover, Refused, SendError, Trouble, WaitedFor};

pub use crate::wire::error_code::ErrorCode;
