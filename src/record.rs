//! What the caller lends us: a record's fields, borrowed until they are copied into a batch; and where it goes.

use std::fmt;
use std::sync::Arc;

pub use crate::wire::record::Header;

/// A record to send. All parts are borrowed; they are copied exactly once, into the batch that goes on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record with null key, null value and no headers.
    pub const fn new() -> Self {
        Self { key: None, value: None, headers: &[], partition: None, timestamp: None }
    }

    /// A record with a value and nothing else.
    pub fn value(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::new().with_value(value)
    }

    /// Sets the value. Without it the value is null (a tombstone on a compacted topic).
    pub fn with_value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.value = Some(value.as_ref());
        self
    }

    /// Sets the key. Records with equal keys go to the same partition; an empty key is a key, null is not.
    pub fn with_key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the headers: ordered, keys may repeat, values may be null.
    pub fn with_headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = headers;
        self
    }

    /// Sends to this partition, whatever the key.
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Milliseconds since the Unix epoch. Default: the time of `send`, to within a millisecond or two.
    pub fn with_timestamp(mut self, unix_ms: i64) -> Self {
        self.timestamp = Some(unix_ms);
        self
    }
}

/// A topic's partition. One per partition, shared by everything that names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Counted from 0.
    pub partition: i32,
}

impl fmt::Display for Place {
    /// As Kafka's tools write it: `topic-partition`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
