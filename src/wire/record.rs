//! One record of a RecordBatch v2: its exact length for a given place, and its bytes.
//!
//! `length varint | attributes 0 | timestamp delta varlong | offset delta varint | key | value | headers`, each of
//! key and value as a varint length (-1: null) and bytes.

use super::varint::{SHORT, ShortOnes, put_signed, put_unsigned, signed_len, unsigned_len, zigzag, zigzag_len};

/// A record header: a key and an optional value. Order and repeated keys are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header<'a> {
    /// The header's name.
    pub key: &'a str,
    /// The header's bytes; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// What of a record goes into its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// `None` is Kafka's null; an empty key is a key.
    pub key: Option<&'a [u8]>,
    /// `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
    /// In the order in which they are sent.
    pub headers: &'a [Header<'a>],
}

/// The lengths of a record that do not depend on its place in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Key, value and headers with their lengths.
    payload: usize,
}

#[inline(always)]
fn bytes_len(bytes: Option<usize>) -> usize {
    bytes.map_or(1, |len| unsigned_len(zigzag_len(len)) + len)
}

impl Shape {
    /// Measures `fields`.
    #[inline(always)]
    pub fn of(fields: &Fields<'_>) -> Self {
        Self::with_value_len(fields, fields.value.map(<[u8]>::len))
    }

    /// Measures `fields` with a value of `value_len` bytes in place of its own.
    #[inline(always)]
    pub fn with_value_len(fields: &Fields<'_>, value_len: Option<usize>) -> Self {
        let mut payload = bytes_len(fields.key.map(<[u8]>::len)) + bytes_len(value_len);
        payload += unsigned_len(zigzag_len(fields.headers.len()));
        for header in fields.headers {
            payload += bytes_len(Some(header.key.len())) + bytes_len(header.value.map(<[u8]>::len));
        }
        Self { payload }
    }

    /// Length of what follows the record's own length.
    #[inline]
    pub fn body_len(self, timestamp_delta: i64, offset_delta: i32) -> usize {
        1 + signed_len(timestamp_delta) + signed_len(i64::from(offset_delta)) + self.payload
    }

    /// The whole record's length.
    #[inline]
    pub fn len(self, timestamp_delta: i64, offset_delta: i32) -> usize {
        let body = self.body_len(timestamp_delta, offset_delta);
        unsigned_len(zigzag_len(body)) + body
    }

    /// No record with these fields is longer, wherever it lies.
    #[inline]
    pub fn len_max(self) -> usize {
        5 + 1 + 10 + 5 + self.payload
    }

    /// Writes what comes before the key and returns its length, at most 5 + 1 + 10 + 5.
    #[inline(always)]
    pub fn put_head(self, out: &mut [u8], timestamp_delta: i64, offset_delta: i32) -> usize {
        let len = zigzag_len(self.body_len(timestamp_delta, offset_delta));
        let (timestamp, offset) = (zigzag(timestamp_delta), zigzag(i64::from(offset_delta)));
        // Almost always; every record has at least 7 bytes, most have more than 8.
        if len | timestamp | offset < SHORT
            && let Some(out) = out.first_chunk_mut()
        {
            let mut head = ShortOnes::default();
            for number in [len, 0, timestamp, offset] {
                head.push(number);
            }
            return head.put(out);
        }
        let mut at = put_unsigned(out, len);
        out[at] = 0;
        at += 1;
        at += put_signed(&mut out[at..], timestamp_delta);
        at + put_signed(&mut out[at..], i64::from(offset_delta))
    }

    /// Writes the record: `out` is exactly [`Shape::len`] bytes long.
    #[inline(always)]
    pub fn put(self, out: &mut [u8], fields: &Fields<'_>, timestamp_delta: i64, offset_delta: i32) {
        let mut at = self.put_head(out, timestamp_delta, offset_delta);
        at += put_bytes(&mut out[at..], fields.key);
        at += put_bytes(&mut out[at..], fields.value);
        put_headers(&mut out[at..], fields.headers);
    }
}

/// A length and bytes, or -1. Returns what was written.
#[inline(always)]
pub fn put_bytes(out: &mut [u8], bytes: Option<&[u8]>) -> usize {
    let Some(bytes) = bytes else {
        return put_signed(out, -1);
    };
    let at = put_unsigned(out, zigzag_len(bytes.len()));
    out[at..at + bytes.len()].copy_from_slice(bytes);
    at + bytes.len()
}

/// The number of headers and each of them. Returns what was written.
#[inline(always)]
pub fn put_headers(out: &mut [u8], headers: &[Header<'_>]) -> usize {
    let mut at = put_unsigned(out, zigzag_len(headers.len()));
    for header in headers {
        at += put_bytes(&mut out[at..], Some(header.key.as_bytes()));
        at += put_bytes(&mut out[at..], header.value);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_bytes_that_the_format_describes() {
        let fields = Fields { key: Some(b"k"), value: None, headers: &[Header { key: "h", value: Some(b"") }] };
        let shape = Shape::of(&fields);
        let mut out = vec![0xaa; shape.len(-1, 300)];
        shape.put(&mut out, &fields, -1, 300);
        // Length 11, attributes, delta -1, offset 300, key, null, one header with an empty value.
        assert_eq!(out, [22, 0, 1, 0xd8, 0x04, 2, b'k', 1, 2, 2, b'h', 0]);
    }

    #[test]
    fn the_shortest_record_has_seven_bytes() {
        let shape = Shape::of(&Fields::default());
        let mut out = [0xaa; 7];
        assert_eq!(shape.len(0, 0), out.len());
        shape.put(&mut out, &Fields::default(), 0, 0);
        assert_eq!(out, [12, 0, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn lengths_are_exact_wherever_a_varint_grows() {
        for value_len in [0, 1, 52, 53, 54, 55, 56, 57, 58, 63, 64, 8180, 8191, 8192, 1 << 20] {
            let value = vec![0; value_len];
            let fields = Fields { value: Some(&value), ..Fields::default() };
            for timestamp_delta in [0, 63, -64, 64, -65, i64::from(i32::MAX), i64::MIN, i64::MAX] {
                for offset_delta in [0, 63, 64, 8191, 8192, i32::MAX] {
                    let shape = Shape::of(&fields);
                    let len = shape.len(timestamp_delta, offset_delta);
                    assert!(len <= shape.len_max());
                    let mut head = [0; 21];
                    let head_len = shape.put_head(&mut head, timestamp_delta, offset_delta);
                    // Null key, the value with its length, no headers.
                    assert_eq!(head_len + 1 + signed_len(value_len as i64) + value_len + 1, len);
                }
            }
        }
    }
}
