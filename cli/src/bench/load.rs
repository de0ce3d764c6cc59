//! The records that are sent: made before the clock runs, so that making them costs nothing on it.

use ringmail::Record;

/// Different values, sent in turn.
const VALUES: usize = 16;
/// Different keys, sent in turn.
const KEYS: usize = 1024;
/// Values overlap when they are larger than this, so that memory and caches see a few of them at most.
const STRIDE: usize = 4096;

/// Records of one kind.
pub struct Load {
    /// Pseudo-random bytes: one value begins every `stride` bytes.
    values: Vec<u8>,
    stride: usize,
    size: usize,
    /// One key every `key_size` bytes.
    keys: Vec<u8>,
    key_size: Option<usize>,
    /// Partitions to send to in turn; `None`: the partitioner picks.
    pub partitions: Option<u32>,
}

impl Load {
    /// Records with values (and keys) of so many bytes.
    pub fn new(size: usize, key_size: Option<usize>) -> Self {
        let stride = size.min(STRIDE);
        let values = noise(1, stride * (VALUES - 1) + size);
        let keys = noise(2, key_size.unwrap_or(0) * KEYS);
        Self { values, stride, size, keys, key_size, partitions: None }
    }

    /// Bytes that the user sends with each record.
    pub fn record_bytes(&self) -> u64 {
        (self.size + self.key_size.unwrap_or(0)) as u64
    }

    /// The record of this number.
    #[inline]
    pub fn record(&self, number: u64) -> Record<'_> {
        let at = number as usize % VALUES * self.stride;
        let mut record = Record::value(&self.values[at..at + self.size]);
        if let Some(size) = self.key_size {
            let at = number as usize % KEYS * size;
            record = record.with_key(&self.keys[at..at + size]);
        }
        if let Some(partitions) = self.partitions {
            record = record.with_partition((number % u64::from(partitions)) as i32);
        }
        record
    }
}

/// Bytes that no compressor makes much of, the same in every run (splitmix64).
fn noise(mut state: u64, len: usize) -> Vec<u8> {
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| word()).collect();
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn records_are_of_the_size_asked_for_and_differ() {
        let shown = |load: &Load, records: u64| -> HashSet<String> {
            (0..records).map(|number| format!("{:?}", load.record(number))).collect()
        };
        for (size, values) in [(0, 1), (1, 16), (100, VALUES), (4096, VALUES), (100_000, VALUES)] {
            assert!((1..=values).contains(&shown(&Load::new(size, None), 50).len()), "{size}");
            let load = Load { partitions: Some(3), ..Load::new(size, Some(7)) };
            assert_eq!((shown(&load, 50).len(), load.record_bytes()), (50, size as u64 + 7));
        }
        assert_eq!(shown(&Load::new(20, None), 50).len(), VALUES);
        let load = Load { partitions: Some(3), ..Load::new(0, Some(7)) };
        assert_eq!(shown(&load, 4 * KEYS as u64).len(), 3 * KEYS);
    }

    #[test]
    fn values_do_not_compress() {
        // Every byte value comes up about equally often.
        let mut counts = [0; 256];
        noise(1, 256_000).iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
