//! Reading a RecordBatch v2 in place, with every bound checked: for the embedded broker and for tests.

use super::codec::WireError;
use super::record_batch::{CRC_FROM, LEN, LENGTH_FROM};
use super::record_view::Records;

/// Bits of a batch's attributes.
pub mod attributes {
    /// The compression codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub const CODEC: i16 = 0x07;
    /// Timestamps were set by the broker when it appended.
    pub const LOG_APPEND_TIME: i16 = 0x08;
    /// Part of a transaction.
    pub const TRANSACTIONAL: i16 = 0x10;
    /// A marker that only brokers write.
    pub const CONTROL: i16 = 0x20;
}

/// The first batch in some bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the start of `bytes`: whole, of magic 2, with a CRC that is right. Bytes behind it are left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let view = Self::parse_unhashed(bytes)?;
        if view.crc_stored() != view.crc() {
            return Err(WireError { what: "batch crc", at: 17 });
        }
        Ok(view)
    }

    /// The same without a look at the CRC.
    pub fn parse_unhashed(bytes: &'a [u8]) -> Result<Self, WireError> {
        let Some(head) = bytes.first_chunk::<LEN>() else { return Err(WireError { what: "batch header", at: 0 }) };
        if head[16] != 2 {
            return Err(WireError { what: "batch magic", at: 16 });
        }
        let length = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let whole = usize::try_from(length).unwrap_or(0).saturating_add(LENGTH_FROM);
        match bytes.get(..whole) {
            Some(bytes) if whole >= LEN => Ok(Self { bytes }),
            _ => Err(WireError { what: "batch length", at: 8 }),
        }
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[at..at + N]);
        out
    }

    /// All bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Offset of the first record: 0 from a producer, the log's from a broker.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.field(0))
    }

    /// The CRC that the batch carries.
    pub fn crc_stored(&self) -> u32 {
        u32::from_be_bytes(self.field(17))
    }

    /// The CRC of its bytes.
    pub fn crc(&self) -> u32 {
        crc32c::crc32c(&self.bytes[CRC_FROM..])
    }

    /// See [`attributes`].
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(21))
    }

    /// Offset of the last record minus that of the first.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(23))
    }

    /// What the records' timestamp deltas count from, Unix milliseconds.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(27))
    }

    /// The largest timestamp, as the header says.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(35))
    }

    /// -1 without idempotence.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(43))
    }

    /// -1 without idempotence.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(51))
    }

    /// Sequence number of the first record, -1 without idempotence.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(53))
    }

    /// How many records the header announces; may be anything.
    pub fn count(&self) -> i32 {
        i32::from_be_bytes(self.field(57))
    }

    /// The records, of a batch that is not compressed.
    pub fn records(&self) -> Records<'a> {
        let left = self.count();
        // `BatchView` is never shorter than its header.
        Records::after_header(self.bytes, left)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record_batch::tests::{GOLDEN, hex};
    use super::*;

    #[test]
    fn the_golden_batch_reads_back() {
        let bytes = [hex(GOLDEN), vec![1, 2, 3]].concat();
        let batch = BatchView::parse(&bytes).unwrap();
        assert_eq!(batch.bytes().len(), 105);
        assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (4242, 7, 100));
        assert_eq!((batch.base_offset(), batch.attributes(), batch.last_offset_delta(), batch.count()), (0, 0, 2, 3));
        assert_eq!(batch.max_timestamp() - batch.base_timestamp(), 5);
        let records: Vec<_> = batch.records().collect::<Result<_, _>>().unwrap();
        let fields: Vec<_> = records.iter().map(|r| (r.timestamp_delta, r.offset_delta, r.key, r.value)).collect();
        let expected: [(i64, i32, Option<&[u8]>, Option<&[u8]>); 3] =
            [(0, 0, Some(b"key"), Some(b"hello")), (5, 1, None, Some(b"world")), (-3, 2, Some(b""), None)];
        assert_eq!(fields, expected);
        assert_eq!(records.iter().map(|r| r.header_count).collect::<Vec<_>>(), [0, 2, 0]);
    }

    #[test]
    fn a_cut_or_changed_batch_is_refused() {
        let whole = hex(GOLDEN);
        for len in 0..whole.len() {
            assert!(BatchView::parse(&whole[..len]).is_err(), "{len} bytes");
        }
        for at in (8..12).chain(16..whole.len()) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(BatchView::parse(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn records_with_any_one_byte_changed_end_without_a_panic() {
        let whole = hex(GOLDEN);
        for at in 57..whole.len() {
            for value in (0..=255).step_by(if cfg!(miri) { 51 } else { 1 }) {
                let mut changed = whole.clone();
                changed[at] = value;
                let batch = BatchView::parse_unhashed(&changed).unwrap();
                let items: Vec<_> = batch.records().take(10).collect();
                assert!(items.len() <= 4, "byte {at} = {value}");
                assert!(items.iter().rev().skip(1).all(Result::is_ok), "an error is the last item");
            }
        }
    }

    /// A batch around `records`, with `count` in its header.
    fn batch_of(count: i32, records: &[u8]) -> Vec<u8> {
        let mut bytes = hex(GOLDEN)[..LEN].to_vec();
        bytes.extend_from_slice(records);
        let length = (bytes.len() - LENGTH_FROM) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        bytes
    }

    fn error(count: i32, records: &str) -> &'static str {
        let bytes = batch_of(count, &hex(records));
        BatchView::parse_unhashed(&bytes).unwrap().records().last().unwrap().unwrap_err().what
    }

    #[test]
    fn what_is_wrong_with_a_record_is_named() {
        assert_eq!(error(2, "0c 00 00 00 01 01 00"), "record length", "the second is missing");
        assert_eq!(error(1, "0c 00 00 00 01 01 00 00"), "bytes after the last record");
        assert_eq!(error(0, "0c 00 00 00 01 01 00"), "bytes after the last record");
        assert_eq!(error(-1, "00"), "bytes after the last record");
        assert_eq!(error(1, "0c 00 00 00 01 01 01"), "header count");
        assert_eq!(error(1, "0e 00 00 00 01 01 00 00"), "record length", "a spare byte inside");
        assert_eq!(error(1, "0a 00 00 00 01 01 00"), "record length", "one byte short");
        assert_eq!(error(1, "10 00 00 00 01 01 02 01 01"), "header key", "null");
        assert_eq!(error(1, "0c 00 00 00 08 01 00"), "record key", "longer than what is there");
        assert_eq!(error(1, "01 00"), "record length", "negative");
    }

    #[test]
    fn a_huge_count_costs_no_more_than_the_bytes() {
        let bytes = batch_of(i32::MAX, &hex("0c 00 00 00 01 01 00"));
        assert_eq!(BatchView::parse_unhashed(&bytes).unwrap().records().count(), 2);
    }
}
