//! The 61 bytes before the records of a RecordBatch v2.
//!
//! ```text
//!  0 base offset i64 | 8 length after this field i32 | 12 partition leader epoch i32 | 16 magic i8 | 17 crc u32
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//!
//! The CRC (Castagnoli) covers bytes 21 to the end: not the base offset and leader epoch, which a broker fills in.

/// Length of the header.
pub const LEN: usize = 61;
/// Where the CRC's range begins.
pub const CRC_FROM: usize = 21;
/// What the length field does not count: the base offset and itself.
pub const LENGTH_FROM: usize = 12;

/// What a producer decides about a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bits 0 to 2 the codec (0 none), 3 LogAppendTime (never ours), 4 transactional, 5 control (never ours).
    pub attributes: i16,
    /// Offset of the last record minus that of the first: count - 1.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, Unix milliseconds.
    pub base_timestamp: i64,
    /// The largest timestamp among the records.
    pub max_timestamp: i64,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence number of the first record; -1 without idempotence.
    pub base_sequence: i32,
    /// Number of records.
    pub count: i32,
}

impl BatchHeader {
    /// Writes the header. `records_len` is the length of the records alone, `crc` comes from [`BatchHeader::crc`].
    pub fn put(&self, out: &mut [u8; LEN], records_len: u32, crc: u32) {
        out[0..8].fill(0);
        out[8..12].copy_from_slice(&((LEN - LENGTH_FROM) as u32 + records_len).to_be_bytes());
        out[12..16].copy_from_slice(&(-1_i32).to_be_bytes());
        out[16] = 2;
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        self.put_covered(&mut out[CRC_FROM..]);
    }

    /// The CRC of a batch with this header and these records, which may lie in several ranges.
    pub fn crc<'a>(&self, records: impl Iterator<Item = &'a [u8]>) -> u32 {
        records.fold(self.covered_crc(), crc32c::crc32c_append)
    }

    fn covered_crc(&self) -> u32 {
        let mut covered = [0; LEN - CRC_FROM];
        self.put_covered(&mut covered);
        crc32c::crc32c(&covered)
    }

    fn put_covered(&self, out: &mut [u8]) {
        out[0..2].copy_from_slice(&self.attributes.to_be_bytes());
        out[2..6].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[6..14].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[14..22].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[22..30].copy_from_slice(&self.producer_id.to_be_bytes());
        out[30..32].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[32..36].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[36..40].copy_from_slice(&self.count.to_be_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::record::{Fields, Header, Shape};
    use super::*;

    /// The bytes that kafka-python makes of the same records (its leader epoch is 0, ours -1; not under the CRC).
    pub const GOLDEN: &str = "00000000000000000000005dffffffff0234e986940000000000020000018bcfe568000000018bcfe5680500000000\
        00001092000700000064000000031c000000066b65790a68656c6c6f002a000a02010a776f726c6404046831047631046832\
        010c000504000100";

    pub fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    pub fn golden_records() -> Vec<u8> {
        let headers = [Header { key: "h1", value: Some(b"v1") }, Header { key: "h2", value: None }];
        let records: [(i64, Fields<'_>); 3] = [
            (0, Fields { key: Some(b"key"), value: Some(b"hello"), headers: &[] }),
            (5, Fields { key: None, value: Some(b"world"), headers: &headers }),
            (-3, Fields { key: Some(b""), value: None, headers: &[] }),
        ];
        let mut out = Vec::new();
        for (i, (delta, fields)) in records.iter().enumerate() {
            let shape = Shape::of(fields);
            let at = out.len();
            out.resize(at + shape.len(*delta, i as i32), 0);
            shape.put(&mut out[at..], fields, *delta, i as i32);
        }
        out
    }

    pub const GOLDEN_HEADER: BatchHeader = BatchHeader {
        attributes: 0,
        last_offset_delta: 2,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_005,
        producer_id: 4242,
        producer_epoch: 7,
        base_sequence: 100,
        count: 3,
    };

    #[test]
    fn a_batch_has_the_bytes_that_another_client_gives_it() {
        let records = golden_records();
        // In three pieces, as a chain of segments would have it.
        let crc = GOLDEN_HEADER.crc([&records[..10], &records[10..11], &records[11..]].into_iter());
        assert_eq!(crc, 0x34e9_8694);
        let mut head = [0xaa; LEN];
        GOLDEN_HEADER.put(&mut head, records.len() as u32, crc);
        let batch = [&head[..], &records].concat();
        assert_eq!(batch.len(), 105);
        assert_eq!(batch, hex(GOLDEN));
    }
}
