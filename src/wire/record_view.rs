//! Records of an uncompressed batch, read where they lie with every bound checked: what could not be delivered, on its
//! way into a sink, and what the embedded broker gets.

use super::codec::{Reader, WireError};
use super::record::Header;

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "a broker looks at all of it"))]
pub struct RecordView<'a> {
    /// Kafka uses none of these bits.
    pub attributes: i8,
    /// Milliseconds to be added to the batch's base timestamp; may be negative.
    pub timestamp_delta: i64,
    /// To be added to the batch's base offset.
    pub offset_delta: i32,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null.
    pub value: Option<&'a [u8]>,
    /// Number of headers. They are checked, but not kept.
    pub header_count: i32,
    /// The headers as they lie there.
    header_bytes: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The headers, in order. A key that is no UTF-8, which no record of ours has, ends them.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let (mut left, mut reader) = (self.header_count, Reader::new(self.header_bytes, false));
        std::iter::from_fn(move || {
            left = left.checked_sub(1).filter(|left| *left >= 0)?;
            let key = bytes(&mut reader, "header key").ok()??;
            let value = bytes(&mut reader, "header value").ok()?;
            Some(Header { key: std::str::from_utf8(key).ok()?, value })
        })
    }
}

/// Decodes the records one after the other. The first error is the last item; bytes left over behind the announced
/// count are an error too.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    reader: Reader<'a>,
    left: i32,
    failed: bool,
}

impl<'a> Records<'a> {
    /// `count` records that lie one behind the other in `bytes`, without a batch header before them.
    pub fn bare(bytes: &'a [u8], count: u32) -> Self {
        let left = i32::try_from(count).unwrap_or(i32::MAX);
        Self { reader: Reader::new(bytes, false), left, failed: false }
    }

    /// The records of a whole batch; its header says that there are `left`.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn after_header(batch: &'a [u8], left: i32) -> Self {
        let mut reader = Reader::new(batch, false);
        let failed = reader.take(super::record_batch::LEN, "batch header").is_err();
        Self { reader, left, failed }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = if self.left > 0 {
            self.left -= 1;
            record(&mut self.reader)
        } else if self.reader.remaining() > 0 {
            Err(self.reader.error("bytes after the last record"))
        } else {
            return None;
        };
        self.failed = item.is_err();
        Some(item)
    }
}

fn record<'a>(r: &mut Reader<'a>) -> Result<RecordView<'a>, WireError> {
    let len = usize::try_from(r.varint("record length")?).map_err(|_| r.error("record length"))?;
    let end = r.position().checked_add(len).ok_or(r.error("record length"))?;
    if len > r.remaining() {
        return Err(r.error("record length"));
    }
    let attributes = r.i8("record attributes")?;
    let timestamp_delta = r.varlong("timestamp delta")?;
    let offset_delta = r.varint("offset delta")?;
    let key = bytes(r, "record key")?;
    let value = bytes(r, "record value")?;
    let header_count = r.varint("header count")?;
    if header_count < 0 {
        return Err(r.error("header count"));
    }
    let before = r.rest();
    for _ in 0..header_count {
        bytes(r, "header key")?.ok_or(r.error("header key"))?;
        bytes(r, "header value")?;
    }
    // Fields may have run into the next record: only now is it known that they did not.
    if r.position() != end {
        return Err(r.error("record length"));
    }
    let header_bytes = &before[..before.len() - r.remaining()];
    Ok(RecordView { attributes, timestamp_delta, offset_delta, key, value, header_count, header_bytes })
}

/// Kafka reads every negative length as null.
fn bytes<'a>(r: &mut Reader<'a>, what: &'static str) -> Result<Option<&'a [u8]>, WireError> {
    match usize::try_from(r.varint(what)?) {
        Ok(len) => r.take(len, what).map(Some),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Fields, Shape};
    use super::*;

    #[test]
    fn what_was_encoded_comes_back_without_a_batch() {
        let all: Vec<u8> = (0..=255).collect();
        let headers = [
            Header { key: "a", value: Some(&all) },
            Header { key: "", value: None },
            Header { key: "a", value: Some(b"") },
        ];
        let records = [
            Fields { key: Some(&all), value: None, headers: &headers },
            Fields { key: None, value: Some(b""), headers: &[] },
            Fields { key: Some(b""), value: Some(&all), headers: &headers[..1] },
        ];
        let mut bytes = Vec::new();
        for (delta, fields) in (0..).zip(&records) {
            let (shape, start) = (Shape::of(fields), bytes.len());
            bytes.resize(start + shape.len(i64::from(delta) * 1000 - 7, delta), 0);
            shape.put(&mut bytes[start..], fields, i64::from(delta) * 1000 - 7, delta);
        }
        let read: Vec<_> = Records::bare(&bytes, 3).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 3);
        for (view, fields) in read.iter().zip(&records) {
            assert_eq!((view.key, view.value), (fields.key, fields.value));
            assert_eq!(view.headers().collect::<Vec<_>>(), fields.headers);
            assert_eq!(view.timestamp_delta, i64::from(view.offset_delta) * 1000 - 7);
        }
        assert!(Records::bare(&bytes, 2).any(|record| record.is_err()), "a third lies there");
        assert!(Records::bare(&bytes, 4).any(|record| record.is_err()), "there is no fourth");
    }
}
