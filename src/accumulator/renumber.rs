//! Records of a batch that become a batch of their own, or move up in it as others are left out: their offset deltas are
//! smaller then. A smaller delta never takes more bytes, so records are written again where they lie.

use super::lease::Lease;
use crate::wire::varint::{put_signed, signed_len, unzigzag};

impl Lease {
    /// Gives the records the offset deltas `first_delta`, `first_delta + 1` and so on, none above what it was. What lies
    /// behind them stays, but is no longer next to them. The kernel must hold nothing of them. Returns the largest of their
    /// timestamp deltas.
    pub fn renumber(&mut self, first_delta: u32) -> i64 {
        let count = self.count();
        self.rewrite(|bytes| renumber(bytes, count, first_delta))
    }
}

/// Length of what was renumbered, and its largest timestamp delta.
fn renumber(bytes: &mut [u8], count: u32, first_delta: u32) -> (usize, i64) {
    let (mut at, mut to, mut largest) = (0, 0, i64::MIN);
    for delta in (i64::from(first_delta)..).take(count as usize) {
        let body = get_signed(bytes, &mut at);
        let end = at + body as usize;
        at += 1; // attributes
        let timestamp_delta = get_signed(bytes, &mut at);
        let was = get_signed(bytes, &mut at);
        assert!(delta <= was, "renumbered upward");
        largest = largest.max(timestamp_delta);
        let body = 1 + signed_len(timestamp_delta) + signed_len(delta) + (end - at);
        to += put_signed(&mut bytes[to..], body as i64);
        bytes[to] = 0;
        to += 1;
        to += put_signed(&mut bytes[to..], timestamp_delta);
        to += put_signed(&mut bytes[to..], delta);
        bytes.copy_within(at..end, to);
        to += end - at;
        at = end;
    }
    (to, largest)
}

/// A varint that we wrote ourselves.
fn get_signed(bytes: &[u8], at: &mut usize) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return unzigzag(value);
        }
        shift += 7;
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::{Fields, Shape};

    fn encode(deltas: impl Iterator<Item = i32>, timestamp: impl Fn(i32) -> i64) -> Vec<u8> {
        let mut out = vec![];
        for (i, delta) in (0..).zip(deltas) {
            let value = vec![i as u8; i as usize % 70];
            let fields = Fields { key: Some(b"k"), value: Some(&value), headers: &[] };
            let (shape, start) = (Shape::of(&fields), out.len());
            out.resize(start + shape.len(timestamp(i), delta), 0);
            shape.put(&mut out[start..], &fields, timestamp(i), delta);
        }
        out
    }

    #[test]
    fn as_if_encoded_there() {
        let timestamp = |i: i32| i64::from(i) * 37 - 100;
        let mut bytes = encode(0..300, timestamp);
        let original = bytes.clone();
        // The second half, then the second half of that.
        let skip = encode((0..150).map(|_| 0), timestamp).len();
        let start = encode(0..150, timestamp).len();
        let (len, largest) = renumber(&mut bytes[start..], 150, 0);
        let expected = encode((0..150).map(|_| 0).chain(0..150), timestamp);
        assert_eq!(bytes[..start], original[..start], "what lies before stays");
        assert_eq!(bytes[start..start + len], expected[skip..]);
        assert_eq!(largest, timestamp(299));
        let end = start + len;
        let start = start + encode((0..150).map(|_| 0).chain(0..100), timestamp).len() - skip;
        let (len, _) = renumber(&mut bytes[start..end], 50, 7);
        let expected = encode((0..250).map(|_| 0).chain(7..57), timestamp);
        let skip = encode((0..250).map(|_| 0), timestamp).len();
        assert_eq!(bytes[start..start + len], expected[skip..]);
    }

    #[test]
    fn same_deltas_change_nothing() {
        let mut bytes = encode(0..200, |_| 0);
        let original = bytes.clone();
        assert_eq!(renumber(&mut bytes, 200, 0), (original.len(), 0));
        assert_eq!(bytes, original);
    }
}
