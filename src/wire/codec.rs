//! Single fields of Kafka's requests and responses: a cursor that reads them with every bound checked, and a writer.
//!
//! Both know whether the message is *flexible* (KIP-482: compact lengths and tagged fields) or has the older fixed
//! lengths, so that one sequence of calls describes a message in all its versions.

use std::fmt;

/// Most elements that an array in a response may have. Kafka's own readers use the same limit.
pub const ELEMENTS_MAX: usize = 1_000_000;
/// Most tagged fields that one structure may have. Kafka's own readers use the same limit.
pub const TAGGED_FIELDS_MAX: usize = 10_000;

/// Bytes that are not what the protocol says. The connection they came on cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The field, by its name in the protocol, or the rule that was broken.
    pub what: &'static str,
    /// Offset of the field in the bytes that were read.
    pub at: usize,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed bytes from the peer: {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for WireError {}

/// A cursor over received bytes. Nothing it does panics, and it allocates nothing: strings and bytes are borrowed.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start, in the flexible encoding or in the older one.
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { bytes, at: 0, flexible }
    }

    /// Goes on in the other encoding (a header and its body may differ).
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// The bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The error that says `what` is wrong at this place.
    pub fn error(&self, what: &'static str) -> WireError {
        WireError { what, at: self.at }
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let rest = &self.bytes[self.at..];
        let Some(bytes) = rest.get(..len) else { return Err(self.error(what)) };
        self.at += len;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    /// A signed byte.
    pub fn i8(&mut self, what: &'static str) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.fixed(what)?))
    }

    /// A byte that is zero for false.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, WireError> {
        Ok(self.i8(what)? != 0)
    }

    /// A 16-bit number.
    pub fn i16(&mut self, what: &'static str) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.fixed(what)?))
    }

    /// A 32-bit number.
    pub fn i32(&mut self, what: &'static str) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.fixed(what)?))
    }

    /// A 64-bit number.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.fixed(what)?))
    }

    /// A topic id or another UUID.
    pub fn uuid(&mut self, what: &'static str) -> Result<[u8; 16], WireError> {
        self.fixed(what)
    }

    /// An unsigned varint of at most 32 bits. Longer than needed is accepted, as Kafka does.
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32, WireError> {
        let wide = self.varint_bits(5, what)?;
        u32::try_from(wide).map_err(|_| self.error(what))
    }

    #[inline]
    fn varint_bits(&mut self, bytes_max: usize, what: &'static str) -> Result<u64, WireError> {
        let rest = &self.bytes[self.at..];
        // Nearly all of them in a record are one byte long.
        if let Some(&byte) = rest.first()
            && byte < 0x80
        {
            self.at += 1;
            return Ok(u64::from(byte));
        }
        let mut value = 0_u64;
        for (i, &byte) in rest.iter().take(bytes_max).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(self.error(what))
    }

    /// A length that may say null: `None`, or a number of bytes that are there.
    fn len(&mut self, short: bool, what: &'static str) -> Result<Option<usize>, WireError> {
        let len = if self.flexible {
            i64::from(self.uvarint(what)?) - 1
        } else if short {
            i64::from(self.i16(what)?)
        } else {
            i64::from(self.i32(what)?)
        };
        match usize::try_from(len) {
            Ok(len) if len <= self.remaining() => Ok(Some(len)),
            Ok(_) => Err(self.error(what)),
            Err(_) if len == -1 => Ok(None),
            Err(_) => Err(self.error(what)),
        }
    }

    /// A string that may be null.
    pub fn nullable_string(&mut self, what: &'static str) -> Result<Option<&'a str>, WireError> {
        let Some(len) = self.len(true, what)? else { return Ok(None) };
        let at = self.at;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| WireError { what, at })
    }

    /// A string; null is an error.
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        self.nullable_string(what)?.ok_or(self.error(what))
    }

    /// Number of elements of an array that may be null. No more than there are bytes left (an element takes at least
    /// one) and no more than [`ELEMENTS_MAX`]; still, read into a vector that grows, do not reserve by this number.
    pub fn nullable_array(&mut self, what: &'static str) -> Result<Option<usize>, WireError> {
        match self.len(false, what)? {
            Some(count) if count > ELEMENTS_MAX => Err(self.error(what)),
            count => Ok(count),
        }
    }

    /// Number of elements of an array; null reads as none.
    pub fn array(&mut self, what: &'static str) -> Result<usize, WireError> {
        Ok(self.nullable_array(what)?.unwrap_or(0))
    }

    /// Reads an array of `i32` away and returns how many there were.
    pub fn skip_i32s(&mut self, what: &'static str) -> Result<usize, WireError> {
        let count = self.array(what)?;
        self.take(count * 4, what)?;
        Ok(count)
    }

    /// The tagged fields at the end of a structure: `visit` gets each tag with a reader over that field alone. Nothing
    /// is read when the message is not flexible.
    pub fn tagged(
        &mut self,
        mut visit: impl FnMut(u32, &mut Reader<'a>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        if !self.flexible {
            return Ok(());
        }
        let what = "tagged fields";
        let count = self.uvarint(what)? as usize;
        if count > TAGGED_FIELDS_MAX {
            return Err(self.error(what));
        }
        for _ in 0..count {
            let tag = self.uvarint(what)?;
            let len = self.uvarint(what)? as usize;
            let start = self.at;
            self.take(len, what)?;
            let mut field = Reader { bytes: &self.bytes[..self.at], at: start, flexible: true };
            visit(tag, &mut field)?;
        }
        Ok(())
    }

    /// Passes over the tagged fields at the end of a structure.
    pub fn skip_tagged(&mut self) -> Result<(), WireError> {
        self.tagged(|_, _| Ok(()))
    }
}

/// What only records, and stored batches, have.
impl<'a> Reader<'a> {
    /// A zig-zag varint of at most 32 bits (lengths and offset deltas of records).
    pub fn varint(&mut self, what: &'static str) -> Result<i32, WireError> {
        let wide = self.varint_bits(5, what)?;
        i32::try_from(super::varint::unzigzag(wide & 0xffff_ffff)).map_err(|_| self.error(what))
    }

    /// A zig-zag varint of at most 64 bits (timestamp deltas of records).
    pub fn varlong(&mut self, what: &'static str) -> Result<i64, WireError> {
        Ok(super::varint::unzigzag(self.varint_bits(10, what)?))
    }

    /// Bytes that may be null.
    #[cfg(any(test, feature = "testing"))]
    pub fn nullable_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, WireError> {
        let Some(len) = self.len(false, what)? else { return Ok(None) };
        self.take(len, what).map(Some)
    }
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    flexible: bool,
}

impl<'a> Writer<'a> {
    /// Appends to `out`, in the flexible encoding or in the older one.
    pub fn new(out: &'a mut Vec<u8>, flexible: bool) -> Self {
        Self { out, flexible }
    }

    /// A signed byte.
    pub fn i8(&mut self, value: i8) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A byte: 1 for true.
    pub fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    /// A 16-bit number.
    pub fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A 32-bit number.
    pub fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A 64-bit number.
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A topic id or another UUID.
    pub fn uuid(&mut self, value: &[u8; 16]) {
        self.out.extend_from_slice(value);
    }

    /// An unsigned varint.
    pub fn uvarint(&mut self, value: u32) {
        let mut bytes = [0; 5];
        let len = super::varint::put_unsigned(&mut bytes, u64::from(value));
        self.out.extend_from_slice(&bytes[..len]);
    }

    /// Panics beyond what the field can say: no message of ours comes near it.
    fn len(&mut self, short: bool, len: usize) {
        if self.flexible {
            let len = u32::try_from(len + 1);
            assert!(len.is_ok(), "a length beyond 32 bits");
            self.uvarint(len.unwrap_or(0));
        } else if short {
            let len = i16::try_from(len);
            assert!(len.is_ok(), "a string longer than 32,767 bytes");
            self.i16(len.unwrap_or(0));
        } else {
            let len = i32::try_from(len);
            assert!(len.is_ok(), "a length beyond 31 bits");
            self.i32(len.unwrap_or(0));
        }
    }

    /// A string of at most 32,767 bytes.
    pub fn string(&mut self, value: &str) {
        self.len(true, value.len());
        self.out.extend_from_slice(value.as_bytes());
    }

    /// A string of at most 32,767 bytes, or null.
    pub fn nullable_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None if self.flexible => self.uvarint(0),
            None => self.i16(-1),
        }
    }

    /// The length of bytes that the caller appends afterwards.
    pub fn bytes_len(&mut self, len: usize) {
        self.len(false, len);
    }

    /// The number of elements that follow.
    pub fn array(&mut self, count: usize) {
        self.len(false, count);
    }

    /// The null array.
    pub fn null_array(&mut self) {
        if self.flexible {
            self.uvarint(0);
        } else {
            self.i32(-1);
        }
    }

    /// The end of a structure: no tagged fields. Nothing when the message is not flexible.
    pub fn no_tags(&mut self) {
        if self.flexible {
            self.uvarint(0);
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Writer<'_> {
    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_written_in_both_encodings() {
        for flexible in [false, true] {
            let mut out = Vec::new();
            let mut w = Writer::new(&mut out, flexible);
            w.i8(-3);
            w.bool(true);
            w.i16(-300);
            w.i32(70_000);
            w.i64(-(1 << 40));
            w.uuid(&[7; 16]);
            w.uvarint(u32::MAX);
            w.string("topic");
            w.nullable_string(None);
            w.nullable_string(Some(""));
            w.array(2);
            w.i32(1);
            w.i32(2);
            w.null_array();
            w.no_tags();
            let mut r = Reader::new(&out, flexible);
            assert_eq!(r.i8("a"), Ok(-3));
            assert_eq!(r.bool("a"), Ok(true));
            assert_eq!(r.i16("a"), Ok(-300));
            assert_eq!(r.i32("a"), Ok(70_000));
            assert_eq!(r.i64("a"), Ok(-(1 << 40)));
            assert_eq!(r.uuid("a"), Ok([7; 16]));
            assert_eq!(r.uvarint("a"), Ok(u32::MAX));
            assert_eq!(r.string("a"), Ok("topic"));
            assert_eq!(r.nullable_string("a"), Ok(None));
            assert_eq!(r.nullable_string("a"), Ok(Some("")));
            assert_eq!(r.skip_i32s("a"), Ok(2));
            assert_eq!(r.nullable_array("a"), Ok(None));
            assert_eq!(r.skip_tagged(), Ok(()));
            assert_eq!(r.remaining(), 0);
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_is_an_error_at_its_place() {
        let mut r = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 1, 2], false);
        assert_eq!(r.array("topics"), Err(WireError { what: "topics", at: 4 }));
        let mut r = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1], true);
        assert_eq!(r.array("topics"), Err(WireError { what: "topics", at: 5 }));
        let mut r = Reader::new(&[0x00, 0x05, b'a'], false);
        assert_eq!(r.string("name"), Err(WireError { what: "name", at: 2 }));
        let mut r = Reader::new(&[0xff, 0xfe], false);
        assert!(r.nullable_string("name").is_err(), "-2 is neither a length nor null");
    }

    #[test]
    fn more_elements_than_kafka_allows_are_refused_even_when_the_bytes_are_there() {
        let mut bytes = vec![0; 4 + 1_000_001];
        bytes[..4].copy_from_slice(&1_000_001_i32.to_be_bytes());
        assert!(Reader::new(&bytes, false).array("topics").is_err());
    }

    #[test]
    fn varints_end_where_kafka_ends_them() {
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x00], true).uvarint("a"), Ok(0));
        assert!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], true).uvarint("a").is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f], true).uvarint("a").is_err(), "35 bits");
        assert_eq!(Reader::new(&[0x01], true).varint("a"), Ok(-1));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).varint("a"), Ok(i32::MIN));
        let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new(&longest, true).varlong("a"), Ok(i64::MIN));
        assert!(Reader::new(&[0x80; 11], true).varlong("a").is_err());
    }

    #[test]
    fn a_tagged_field_is_read_inside_its_own_bytes() {
        // Two fields: tag 0 with 2 bytes, tag 9 with none; then a byte that belongs to what follows.
        let bytes = [2, 0, 2, 0x12, 0x34, 9, 0, 0x55];
        let mut r = Reader::new(&bytes, true);
        let mut seen = Vec::new();
        let end = r.tagged(|tag, field| {
            if tag == 0 {
                assert_eq!(field.i16("inside"), Ok(0x1234));
                assert!(field.i8("outside").is_err());
            }
            seen.push(tag);
            Ok(())
        });
        assert_eq!(end, Ok(()));
        assert_eq!(seen, [0, 9]);
        assert_eq!(r.i8("next"), Ok(0x55));
        assert!(Reader::new(&[1, 0, 5, 1], true).skip_tagged().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0x03], true).skip_tagged().is_err(), "too many");
    }
}
