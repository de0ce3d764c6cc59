//! What the caller lends us: a record's fields, borrowed until they are copied into a batch; and where it goes.

use std::fmt;
use std::num::{NonZeroI32, NonZeroI64, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use crate::wire::record::Fields;
pub use crate::wire::record::Header;

/// A record to send. All parts are borrowed; they are copied exactly once, into the batch that goes on the wire.
#[derive(Clone, Copy, Default)]
pub struct Record<'a> {
    /// Together, so that they are lent as they are: a copy of what was just written makes the processor wait.
    pub(crate) fields: Fields<'a>,
    /// Counted from the least there is, which is no partition: so a record fits a cache line.
    pub(crate) partition: Option<NonZeroI32>,
    /// Likewise.
    pub(crate) timestamp: Option<NonZeroI64>,
    /// Milliseconds.
    pub(crate) timeout: Option<NonZeroU32>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Record<'_>>() == 64);

impl<'a> Record<'a> {
    /// A record with null key, null value and no headers.
    #[inline]
    pub const fn new() -> Self {
        let fields = Fields { key: None, value: None, headers: &[] };
        Self { fields, partition: None, timestamp: None, timeout: None }
    }

    /// A record with a value and nothing else.
    #[inline]
    pub fn value(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::new().with_value(value)
    }

    /// Sets the value. Without it the value is null (a tombstone on a compacted topic).
    #[inline]
    pub fn with_value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.fields.value = Some(value.as_ref());
        self
    }

    /// Sets the key. Records with equal keys go to the same partition; an empty key is a key, null is not.
    #[inline]
    pub fn with_key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.fields.key = Some(key.as_ref());
        self
    }

    /// Sets the headers: ordered, keys may repeat, values may be null.
    #[inline]
    pub fn with_headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.fields.headers = headers;
        self
    }

    /// Sends to this partition, whatever the key.
    #[inline]
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = NonZeroI32::new(partition.max(i32::MIN + 1) ^ i32::MIN);
        self
    }

    #[inline]
    pub(crate) fn partition(&self) -> Option<i32> {
        self.partition.map(|partition| partition.get() ^ i32::MIN)
    }

    /// Milliseconds since the Unix epoch. Default: the time of `send`, to within a millisecond or two.
    #[inline]
    pub fn with_timestamp(mut self, unix_ms: i64) -> Self {
        self.timestamp = NonZeroI64::new(unix_ms.max(i64::MIN + 1) ^ i64::MIN);
        self
    }

    #[inline]
    pub(crate) fn timestamp(&self) -> Option<i64> {
        self.timestamp.map(|unix_ms| unix_ms.get() ^ i64::MIN)
    }

    /// Gives the record less time than `delivery.timeout.ms`, which still bounds it: in milliseconds, 1 at least, counted
    /// from when it is accepted (so without what `send` waits for room). Then it fails with
    /// [`DeliveryErrorKind::Expired`](crate::DeliveryErrorKind::Expired), alone: as *not written* if its batch was not sent
    /// yet or brokers refused it for certain, and it is not sent any more; else as *possibly written*, and its batch goes on
    /// with it. Its batch lingers for half of this time at most.
    ///
    /// Not for every record of a fast stream: it costs an entry in a queue each.
    #[inline]
    pub fn with_delivery_timeout(mut self, timeout: Duration) -> Self {
        let ms = u32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        self.timeout = NonZeroU32::new(ms.max(1));
        self
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fields { key, value, headers } = self.fields;
        f.debug_struct("Record")
            .field("key", &key)
            .field("value", &value)
            .field("headers", &headers)
            .field("partition", &self.partition())
            .field("timestamp", &self.timestamp())
            .field("timeout", &self.timeout)
            .finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were() {
        for n in [0, 1, -1, i64::MAX, i64::MIN + 1] {
            let record = Record::new().with_timestamp(n).with_partition(n as i32);
            assert_eq!((record.timestamp(), record.partition()), (Some(n), Some(n as i32)));
        }
        assert_eq!((Record::new().timestamp(), Record::new().partition()), (None, None));
        let shown = format!("{:?}", Record::value(&[7]).with_timestamp(-5).with_partition(3));
        assert!(shown.contains("value: Some([7]), headers: [], partition: Some(3), timestamp: Some(-5)"), "{shown}");
        let least = Record::new().with_timestamp(i64::MIN).with_partition(i32::MIN);
        assert!(least.timestamp().unwrap() < 0 && least.partition().unwrap() < 0, "still refused");
    }

    #[test]
    fn a_limit_has_at_least_a_millisecond() {
        let ms = |time| Record::new().with_delivery_timeout(time).timeout.map(NonZeroU32::get);
        assert_eq!(ms(Duration::ZERO), Some(1));
        assert_eq!(ms(Duration::from_micros(1001)), Some(2));
        assert_eq!(ms(Duration::MAX), Some(u32::MAX));
    }
}
