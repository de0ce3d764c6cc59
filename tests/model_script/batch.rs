//! Batches and records by hand, which can be wrong on purpose: every field may lie.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the script's timestamps count from, Unix milliseconds: about 17 minutes ago.
pub fn t0() -> i64 {
    static T0: OnceLock<i64> = OnceLock::new();
    *T0.get_or_init(|| now() - 1_000_000)
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A record batch, magic 2. What is `None` is computed.
#[derive(Clone)]
pub struct Batch {
    pub base_offset: i64,
    pub length: Option<i32>,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: Option<u32>,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub count: i32,
    pub records: Vec<u8>,
    /// Stands behind the batch.
    pub tail: Vec<u8>,
}

impl Batch {
    /// A good batch of these records, of a producer without id.
    pub fn new(records: &[Rec]) -> Self {
        let count = records.len() as i32;
        let times = records.iter().map(|record| record.timestamp_delta);
        Self {
            base_offset: 0,
            length: None,
            leader_epoch: -1,
            magic: 2,
            crc: None,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: t0(),
            max_timestamp: t0().saturating_add(times.max().unwrap_or(-1)),
            producer_id: -1,
            epoch: -1,
            sequence: -1,
            count,
            records: records.iter().flat_map(Rec::bytes).collect(),
            tail: Vec::new(),
        }
    }

    /// `count` good records.
    pub fn of(count: i32) -> Self {
        Self::new(&(0..count).map(Rec::nth).collect::<Vec<_>>())
    }

    /// One record, and so many bytes in all, 100 at least.
    pub fn filled(len: usize) -> Self {
        let value = |n: usize| Rec::nth(0).but(|r| r.value = Some("v".repeat(n)));
        let spare = Self::new(&[value(100)]).bytes().len() - 100;
        let batch = Self::new(&[value(len - spare)]);
        // The length of a short value takes a byte less.
        let missing = len - batch.bytes().len();
        if missing == 0 { batch } else { Self::new(&[value(len - spare + missing)]) }
    }

    /// Makes it a batch of an idempotent producer.
    pub fn by(mut self, producer_id: i64, epoch: i16, sequence: i32) -> Self {
        (self.producer_id, self.epoch, self.sequence) = (producer_id, epoch, sequence);
        self
    }

    /// Makes something of it wrong.
    pub fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut covered = Vec::new();
        covered.extend(self.attributes.to_be_bytes());
        covered.extend(self.last_offset_delta.to_be_bytes());
        covered.extend(self.base_timestamp.to_be_bytes());
        covered.extend(self.max_timestamp.to_be_bytes());
        covered.extend(self.producer_id.to_be_bytes());
        covered.extend(self.epoch.to_be_bytes());
        covered.extend(self.sequence.to_be_bytes());
        covered.extend(self.count.to_be_bytes());
        covered.extend(&self.records);
        let mut out = Vec::new();
        out.extend(self.base_offset.to_be_bytes());
        out.extend(self.length.unwrap_or(covered.len() as i32 + 9).to_be_bytes());
        out.extend(self.leader_epoch.to_be_bytes());
        out.push(self.magic as u8);
        out.extend(self.crc.unwrap_or_else(|| crc32c::crc32c(&covered)).to_be_bytes());
        out.extend(covered);
        out.extend(&self.tail);
        out
    }
}

/// Writes the CRC anew into a batch whose bytes were changed.
pub fn reseal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A record. What is `None` is computed.
#[derive(Clone, Default)]
pub struct Rec {
    pub length: Option<i64>,
    pub attributes: u8,
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key_len: Option<i64>,
    pub key: Option<String>,
    pub value_len: Option<i64>,
    pub value: Option<String>,
    pub header_count: Option<i64>,
    /// Key and value; a key of `None` is null, which is not allowed.
    pub headers: Vec<(Option<String>, Option<String>)>,
    /// Stands behind the headers, inside the record.
    pub spare: Vec<u8>,
}

impl Rec {
    /// The `n`-th record of a good batch.
    pub fn nth(n: i32) -> Self {
        let value = Some(format!("value {n}"));
        Self { offset_delta: n, timestamp_delta: n.into(), key: Some(format!("k{n}")), value, ..Self::default() }
    }

    pub fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = vec![self.attributes];
        varint(&mut body, self.timestamp_delta);
        varint(&mut body, self.offset_delta.into());
        put(&mut body, self.key_len, self.key.as_deref());
        put(&mut body, self.value_len, self.value.as_deref());
        varint(&mut body, self.header_count.unwrap_or(self.headers.len() as i64));
        for (key, value) in &self.headers {
            put(&mut body, None, key.as_deref());
            put(&mut body, None, value.as_deref());
        }
        body.extend(&self.spare);
        let mut out = Vec::new();
        varint(&mut out, self.length.unwrap_or(body.len() as i64));
        out.extend(body);
        out
    }
}

fn put(out: &mut Vec<u8>, len: Option<i64>, text: Option<&str>) {
    varint(out, len.unwrap_or(text.map_or(-1, |text| text.len() as i64)));
    out.extend(text.unwrap_or("").as_bytes());
}

/// Zig-zag, seven bits a byte, the lowest first.
pub fn varint(out: &mut Vec<u8>, n: i64) {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The same, in more bytes than it needs.
pub fn long_varint(n: i64, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, n);
    while out.len() < len {
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
    out
}
