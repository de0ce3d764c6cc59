//! A second decoder of record batches (format v2), so that what ringmail wrote is not judged by ringmail's own code.
//!
//! Written from the protocol's description only; it shares nothing with the library, its CRC included.

/// A record as it lies in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// Decodes batch after batch and calls `each` for every record. A last batch that is cut off is left out, as a Fetch
/// answer may end with one. Returns the offset after the last record, or what is wrong and where.
pub fn decode<'a>(mut log: &'a [u8], each: &mut dyn FnMut(Stored<'a>)) -> Result<Option<i64>, String> {
    let mut next = None;
    while log.len() >= 12 {
        let length = be_i32(log, 8);
        let Some(batch) = usize::try_from(length).ok().and_then(|length| log.get(..length + 12)) else {
            break;
        };
        log = &log[batch.len()..];
        next = Some(decode_batch(batch, each).map_err(|e| format!("batch at offset {}: {e}", be_i64(batch, 0)))?);
    }
    Ok(next)
}

fn decode_batch<'a>(batch: &'a [u8], each: &mut dyn FnMut(Stored<'a>)) -> Result<i64, String> {
    if batch.len() < 61 {
        return Err(format!("{} bytes are too few for a batch", batch.len()));
    }
    if batch[16] != 2 {
        return Err(format!("magic {}", batch[16]));
    }
    let (said, is) = (be_i32(batch, 17) as u32, crc32c(&batch[21..]));
    if said != is {
        return Err(format!("its CRC says {said:08x}, its bytes {is:08x}"));
    }
    if be_i16(batch, 21) & 7 != 0 {
        return Err("compressed, which this decoder does not know".to_string());
    }
    let (base_offset, base_timestamp) = (be_i64(batch, 0), be_i64(batch, 27));
    let (last_delta, max_timestamp, count) = (be_i32(batch, 23), be_i64(batch, 35), be_i32(batch, 57));
    let mut rest = Cursor(&batch[61..]);
    let mut latest = i64::MIN;
    for expected in 0..count {
        let length = rest.varint()?;
        let mut record = Cursor(rest.bytes(length)?);
        let _attributes = record.bytes(1)?;
        let timestamp = base_timestamp.wrapping_add(record.varint()?);
        let delta = record.varint()?;
        if delta != i64::from(expected) {
            return Err(format!("record {expected} has offset delta {delta}"));
        }
        let key = record.nullable()?;
        let value = record.nullable()?;
        let mut headers = Vec::new();
        for _ in 0..record.varint()? {
            let key = record.nullable()?.ok_or("a header's key is null")?;
            headers.push((key, record.nullable()?));
        }
        if !record.0.is_empty() {
            return Err(format!("record {expected} has {} bytes too many", record.0.len()));
        }
        latest = latest.max(timestamp);
        each(Stored { offset: base_offset.wrapping_add(delta), timestamp, key, value, headers });
    }
    if !rest.0.is_empty() || last_delta != count - 1 || (max_timestamp != latest && be_i16(batch, 21) & 8 == 0) {
        return Err(format!("its header does not fit its {count} records"));
    }
    Ok(base_offset.wrapping_add(i64::from(count)))
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, length: i64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).map_err(|_| format!("a length of {length}"))?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(|| format!("{length} bytes are not there"))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A zigzag number of 7 bits a byte, the lowest first.
    fn varint(&mut self) -> Result<i64, String> {
        let mut raw: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
        }
        Err("a number without end".to_string())
    }

    /// Length and bytes; length -1 is null.
    fn nullable(&mut self) -> Result<Option<&'a [u8]>, String> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.bytes(length).map(Some),
        }
    }
}

fn be_i16(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be_i64(bytes: &[u8], at: usize) -> i64 {
    i64::from(be_i32(bytes, at)) << 32 | i64::from(be_i32(bytes, at + 4) as u32)
}

/// CRC-32C by table, a byte at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One batch at offset 100: ("k", "v", h=x) at 1000 and (null, null) at 998, written by hand.
    fn batch() -> Vec<u8> {
        let records = [24, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 2, b'x', 12, 0, 3, 2, 1, 1, 0];
        let mut batch = 100i64.to_be_bytes().to_vec();
        batch.extend((49 + records.len() as i32).to_be_bytes());
        batch.extend([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
        batch.extend(1i32.to_be_bytes());
        batch.extend(1000i64.to_be_bytes());
        batch.extend(1000i64.to_be_bytes());
        batch.extend([0xff; 14]);
        batch.extend(2i32.to_be_bytes());
        batch.extend(records);
        let crc = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        batch
    }

    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn decodes_and_leaves_out_a_cut_batch() {
        let log = [batch(), batch()[..70].to_vec()].concat();
        let mut records = Vec::new();
        let next = decode(&log, &mut |record| records.push(record)).unwrap();
        assert_eq!(next, Some(102));
        let first = Stored {
            offset: 100,
            timestamp: 1000,
            key: Some(b"k"),
            value: Some(b"v"),
            headers: vec![(b"h", Some(b"x"))],
        };
        let second = Stored { offset: 101, timestamp: 998, key: None, value: None, headers: vec![] };
        assert_eq!(records, [first, second]);
    }

    #[test]
    fn finds_every_changed_byte() {
        for at in 16..batch().len() {
            let mut log = batch();
            log[at] ^= 0x10;
            assert!(decode(&log, &mut |_| ()).is_err(), "byte {at}");
        }
    }
}
