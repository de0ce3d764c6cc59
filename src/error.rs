//! What can go wrong, by when: building a producer, handing a record over, delivering it.

/// Placeholder.
#[derive(Debug)]
pub struct ConfigError;
/// Placeholder.
#[derive(Debug)]
pub struct SendError;
/// Placeholder.
#[derive(Debug)]
pub struct DeliveryError;
