//! Listener entries: 16 bytes per record at the end of a tagged segment's run, growing down: `value: u64`, then
//! `timestamp delta << 2 | kind`. They are why a tag or callback costs no allocation.

use super::{Attach, segment::UNIT, word::ENTRY};

const NONE: u64 = 0;
const TAG: u64 = 1;
const CALLBACK: u64 = 2;

/// Who is to be told about a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nobody, or only a `Delivery`.
    None,
    /// The listener.
    Tag {
        /// The caller's tag.
        tag: u64,
        /// The record's timestamp, Unix ms.
        timestamp: i64,
    },
    /// A callback.
    Callback {
        /// The value of `Attach::Callback`.
        value: u64,
        /// The record's timestamp, Unix ms.
        timestamp: i64,
    },
}

/// Where in the arena the entry of record `i` lies, for a run that begins at `run`.
#[inline]
pub(super) fn offset(run: usize, units: u32, i: u32) -> usize {
    run + units as usize * UNIT - ENTRY as usize * (i as usize + 1)
}

/// Timestamp deltas beyond 62 bits are cut; no clock gets there.
#[inline]
pub(super) fn put(out: &mut [u8], attach: Attach, timestamp_delta: i64) {
    let (value, kind) = match attach {
        Attach::Tag(value) => (value, TAG),
        Attach::Callback(value) => (value, CALLBACK),
        _ => (0, NONE),
    };
    out[..8].copy_from_slice(&value.to_le_bytes());
    out[8..16].copy_from_slice(&((timestamp_delta as u64) << 2 | kind).to_le_bytes());
}

#[inline]
pub(super) fn read(bytes: &[u8], base_timestamp: i64) -> Entry {
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let (value, packed) = (word(bytes), word(&bytes[8..]));
    let timestamp = base_timestamp.wrapping_add(packed as i64 >> 2);
    match packed & 3 {
        TAG => Entry::Tag { tag: value, timestamp },
        CALLBACK => Entry::Callback { value, timestamp },
        _ => Entry::None,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut out = [0xaa; 16];
        for delta in [0, 7, -7, i64::from(i32::MAX) * 1000, -(1 << 60)] {
            put(&mut out, Attach::Tag(u64::MAX), delta);
            assert_eq!(read(&out, 5), Entry::Tag { tag: u64::MAX, timestamp: 5 + delta });
            put(&mut out, Attach::Callback(9), delta);
            assert_eq!(read(&out, 5), Entry::Callback { value: 9, timestamp: 5 + delta });
            put(&mut out, Attach::Delivery, delta);
            assert_eq!(read(&out, 5), Entry::None);
        }
        assert_eq!(offset(4096, 1, 0), 4096 + 1008);
        assert_eq!(offset(4096, 4, 2), 4096 * 2 - 48);
    }
}
