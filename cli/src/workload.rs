//! The demo's records: each can be made again from its thread and number, so that what is read back can be compared.

use ringmail::{Header, Record};

/// Keys of a thread. No two threads share one, so order per key can be told.
const KEYS: u64 = 50;

/// The records of one thread; made into buffers that are used again.
pub struct Workload {
    thread: u16,
    size: usize,
    keys: Vec<String>,
}

/// Room for one record's changing parts.
#[derive(Default)]
pub struct Buffers {
    pub value: Vec<u8>,
    trace: [u8; 8],
}

/// A record's header keys and values, as sent.
pub type Headers<'a> = [Header<'a>; 2];

impl Workload {
    /// Values have `size` bytes, at least 16.
    pub fn new(thread: u16, size: usize) -> Self {
        let keys = (0..KEYS).map(|key| format!("thread-{thread}-key-{key}")).collect();
        Self { thread, size: size.max(16), keys }
    }

    /// Every other record has a key.
    pub fn key(&self, number: u64) -> Option<&str> {
        number.is_multiple_of(2).then(|| self.keys[(number / 2 % KEYS) as usize].as_str())
    }

    /// Every tenth record has headers: the same key twice, the second time with a null value.
    pub fn headers<'a>(&self, number: u64, trace: &'a [u8; 8]) -> Option<Headers<'a>> {
        let headers = [Header { key: "trace", value: Some(trace) }, Header { key: "trace", value: None }];
        (number % 10 == 3).then_some(headers)
    }

    /// Makes record `number` and hands it to `then`.
    pub fn with<T>(&self, number: u64, buffers: &mut Buffers, then: impl FnOnce(Record<'_>) -> T) -> T {
        buffers.trace = number.to_le_bytes();
        self.value(number, &mut buffers.value);
        let headers = self.headers(number, &buffers.trace);
        let mut record = Record::value(&buffers.value);
        if let Some(headers) = &headers {
            record = record.with_headers(headers);
        }
        if let Some(key) = self.key(number) {
            record = record.with_key(key);
        }
        then(record)
    }

    /// Thread and number, then bytes that follow from them.
    pub fn value(&self, number: u64, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&u64::from(self.thread).to_le_bytes());
        value.extend_from_slice(&number.to_le_bytes());
        let mut state = u64::from(self.thread) << 48 ^ number;
        while value.len() < self.size {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let word = (state ^ state >> 33).to_le_bytes();
            let missing = self.size - value.len();
            value.extend_from_slice(&word[..missing.min(8)]);
        }
    }

    /// Which record a value says it is: thread and number.
    pub fn identity(value: &[u8]) -> Option<(u64, u64)> {
        let thread = u64::from_le_bytes(value.get(..8)?.try_into().ok()?);
        let number = u64::from_le_bytes(value.get(8..16)?.try_into().ok()?);
        Some((thread, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_who_they_are_and_differ() {
        let workload = Workload::new(3, 21);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        workload.value(7, &mut one);
        workload.value(8, &mut two);
        assert_eq!((one.len(), Workload::identity(&one)), (21, Some((3, 7))));
        assert_ne!(one[16..], two[16..]);
        assert_eq!(Workload::identity(&one[..15]), None);
    }
}
