//! Records out of stored bytes, for tests. This decoder is written from the description of the format alone and
//! shares nothing with the code that writes batches, so that a mistake made there cannot hide here.

/// A record as a consumer would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place in the log.
    pub offset: i64,
    /// Unix milliseconds: the producer's, or the broker's on a LogAppendTime topic.
    pub timestamp: i64,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null.
    pub value: Option<Vec<u8>>,
    /// In order; keys may repeat. A key that is not UTF-8 is shown with replacement characters.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// The record's own sequence number, -1 without idempotence.
    pub sequence: i32,
    /// Offset of the first record of its batch.
    pub base_offset: i64,
}

/// A stack of bytes taken from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        if n > self.0.len() {
            return Err(format!("{n} bytes wanted, {} left", self.0.len()));
        }
        let (front, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(front)
    }

    /// A big-endian two's complement number of `n` bytes.
    fn number(&mut self, n: usize) -> Result<i64, String> {
        let mut value = 0_i128;
        for &byte in self.take(n)? {
            value = value * 256 + i128::from(byte);
        }
        let range = 1_i128 << (8 * n);
        Ok((if value >= range / 2 { value - range } else { value }) as i64)
    }

    /// A zig-zag number: seven bits a byte, lowest first; even numbers are the non-negative ones.
    fn zigzag(&mut self) -> Result<i64, String> {
        let mut value = 0_u128;
        let mut weight = 1_u128;
        loop {
            let byte = u128::from(self.take(1)?[0]);
            value += (byte % 128) * weight;
            weight *= 128;
            if byte < 128 {
                break;
            }
            if weight > 1 << 70 {
                return Err("a varint of more than ten bytes".into());
            }
        }
        let half = (value / 2) as i128;
        Ok((if value & 1 == 0 { half } else { -half - 1 }) as i64)
    }

    /// A length and so many bytes; null where it is negative, as Kafka reads it.
    fn counted(&mut self) -> Result<Option<&'a [u8]>, String> {
        match self.zigzag()? {
            ..0 => Ok(None),
            n => self.take(usize::try_from(n).map_err(|_| format!("length {n}"))?).map(Some),
        }
    }
}

/// Decodes one whole batch as a broker stores it, CRC included. The error says what is wrong.
pub fn decode_batch(batch: &[u8]) -> Result<Vec<StoredRecord>, String> {
    let mut bytes = Bytes(batch);
    let base_offset = bytes.number(8)?;
    let length = bytes.number(4)?;
    if length != bytes.0.len() as i64 {
        return Err(format!("length {length}, but {} bytes follow", bytes.0.len()));
    }
    bytes.number(4)?; // partition leader epoch
    let magic = bytes.number(1)?;
    if magic != 2 {
        return Err(format!("magic {magic}"));
    }
    let crc = bytes.number(4)? as u32;
    let actual = crc32c::crc32c(bytes.0);
    if crc != actual {
        return Err(format!("crc {crc:08x}, but the bytes have {actual:08x}"));
    }
    let attributes = bytes.number(2)?;
    if attributes % 8 != 0 {
        return Err("a compressed batch".into());
    }
    let by_broker = attributes / 8 % 2 == 1;
    let last_offset_delta = bytes.number(4)?;
    let base_timestamp = bytes.number(8)?;
    let max_timestamp = bytes.number(8)?;
    let producer_id = bytes.number(8)?;
    let producer_epoch = bytes.number(2)? as i16;
    let base_sequence = bytes.number(4)?;
    let count = bytes.number(4)?;
    if count != last_offset_delta + 1 {
        return Err(format!("{count} records, but the last offset delta is {last_offset_delta}"));
    }
    let mut records = Vec::new();
    for i in 0..count {
        let record_length = bytes.zigzag()?;
        let record_length = usize::try_from(record_length).map_err(|_| format!("record length {record_length}"))?;
        let mut record = Bytes(bytes.take(record_length)?);
        record.number(1)?; // attributes
        let timestamp_delta = record.zigzag()?;
        let offset_delta = record.zigzag()?;
        let key = record.counted()?.map(<[u8]>::to_vec);
        let value = record.counted()?.map(<[u8]>::to_vec);
        let mut headers = Vec::new();
        for _ in 0..record.zigzag()? {
            let key = record.counted()?.ok_or("a null header key")?;
            headers.push((String::from_utf8_lossy(key).into_owned(), record.counted()?.map(<[u8]>::to_vec)));
        }
        if !record.0.is_empty() {
            return Err(format!("record {i}: {} bytes too many", record.0.len()));
        }
        let sequence = if base_sequence < 0 { -1 } else { (base_sequence + i) % (1 << 31) };
        records.push(StoredRecord {
            offset: base_offset.wrapping_add(offset_delta),
            timestamp: if by_broker { max_timestamp } else { base_timestamp.wrapping_add(timestamp_delta) },
            key,
            value,
            headers,
            producer_id,
            producer_epoch,
            sequence: sequence as i32,
            base_offset,
        });
    }
    if !bytes.0.is_empty() {
        return Err(format!("{} bytes behind the last record", bytes.0.len()));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record_batch::tests::{GOLDEN, hex};

    #[test]
    fn the_golden_batch_says_what_the_other_client_put_in() {
        let records = decode_batch(&hex(GOLDEN)).unwrap();
        let headers = vec![("h1".to_owned(), Some(b"v1".to_vec())), ("h2".to_owned(), None)];
        let record = |i: i64, timestamp, key: Option<&str>, value: Option<&str>, headers| StoredRecord {
            offset: i,
            timestamp,
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers,
            producer_id: 4242,
            producer_epoch: 7,
            sequence: 100 + i as i32,
            base_offset: 0,
        };
        let expected = [
            record(0, 1_700_000_000_000, Some("key"), Some("hello"), vec![]),
            record(1, 1_700_000_000_005, None, Some("world"), headers),
            record(2, 1_699_999_999_997, Some(""), None, vec![]),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let whole = hex(GOLDEN);
        for at in (8..12).chain(16..whole.len()) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(decode_batch(&changed).is_err(), "byte {at}");
        }
        assert!(decode_batch(&whole[..104]).is_err());
    }

    #[test]
    fn offsets_wrap_where_the_batch_says_so() {
        let mut batch = hex(GOLDEN);
        batch[..8].copy_from_slice(&i64::MAX.to_be_bytes());
        let records = decode_batch(&batch).unwrap();
        assert_eq!((records[0].offset, records[1].offset), (i64::MAX, i64::MIN));
    }

    #[test]
    fn numbers_at_their_ends() {
        assert_eq!(Bytes(&[0xff; 8]).number(8), Ok(-1));
        assert_eq!(Bytes(&[0x80, 0]).number(2), Ok(-32768));
        assert_eq!(Bytes(&[0x7f, 0xff]).number(2), Ok(32767));
        assert_eq!(Bytes(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).zigzag(), Ok(i64::MIN));
        assert_eq!(Bytes(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).zigzag(), Ok(i64::MAX));
    }
}
