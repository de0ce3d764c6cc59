//! Compares what the broker's log holds with what the demo sent and what was reported of it.

use std::collections::HashMap;

use crate::decoder::Stored;
use crate::workload::Workload;

/// How many records were found to be wrong, by kind.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Findings {
    pub found: u64,
    pub lost: u64,
    pub twice: u64,
    pub changed: u64,
    pub unknown: u64,
    pub out_of_order: u64,
    pub wrong_partition: u64,
    pub wrong_offset: u64,
}

impl Findings {
    /// Everything is as it should be.
    pub fn is_clean(&self) -> bool {
        *self == Self { found: self.found, ..Self::default() }
    }
}

/// Checks record after record. Per thread: its workload, and where each of its records was reported to lie.
pub struct Verifier<'a> {
    workloads: &'a [Workload],
    reported: &'a [Vec<Option<(i32, i64)>>],
    partitions: i32,
    seen: Vec<Vec<bool>>,
    last: HashMap<&'a str, u64>,
    value: Vec<u8>,
    findings: Findings,
}

impl<'a> Verifier<'a> {
    /// `reported[thread][number]` is partition and offset, `None` if the record was reported as failed.
    pub fn new(workloads: &'a [Workload], reported: &'a [Vec<Option<(i32, i64)>>], partitions: i32) -> Self {
        Self {
            workloads,
            reported,
            partitions,
            seen: reported.iter().map(|records| vec![false; records.len()]).collect(),
            last: HashMap::new(),
            value: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// Checks one record; those of a partition come in the order of the log.
    pub fn check(&mut self, partition: i32, record: &Stored<'_>) {
        self.findings.found += 1;
        let identity = record.value.and_then(Workload::identity);
        let place = identity.and_then(|(thread, number)| {
            let (thread, number) = (usize::try_from(thread).ok()?, usize::try_from(number).ok()?);
            self.reported.get(thread)?.get(number).map(|reported| (thread, number, *reported))
        });
        let Some((thread, number, reported)) = place else {
            self.findings.unknown += 1;
            return;
        };
        if std::mem::replace(&mut self.seen[thread][number], true) {
            self.findings.twice += 1;
            return;
        }
        let (workload, number) = (&self.workloads[thread], number as u64);
        workload.value(number, &mut self.value);
        let trace = number.to_le_bytes();
        let sent_headers = workload.headers(number, &trace);
        let sent_headers = sent_headers.iter().flatten().map(|header| (header.key.as_bytes(), header.value));
        let key = workload.key(number);
        if record.value != Some(&self.value)
            || record.key != key.map(str::as_bytes)
            || !sent_headers.eq(record.headers.iter().copied())
        {
            self.findings.changed += 1;
        }
        if let Some(key) = key {
            if self.last.insert(key, number).is_some_and(|last| last >= number) {
                self.findings.out_of_order += 1;
            }
            if java_partition(key.as_bytes(), self.partitions) != partition {
                self.findings.wrong_partition += 1;
            }
        }
        if reported.is_some_and(|reported| reported != (partition, record.offset)) {
            self.findings.wrong_offset += 1;
        }
    }

    /// To be called after the last record.
    pub fn finish(mut self) -> Findings {
        self.findings.lost = self.seen.iter().flatten().filter(|seen| !**seen).count() as u64;
        self.findings
    }
}

/// The partition that Java's default partitioner picks for a key.
fn java_partition(key: &[u8], partitions: i32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let words = key.chunks_exact(4);
    let tail = words.remainder();
    for word in words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let word = tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) as i32 % partitions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Buffers;

    /// Two threads of 20 records each, laid out as a faultless producer would; `spoil` may change that.
    fn verify(spoil: impl Fn(&mut Vec<(i32, i64, u64, u64)>)) -> Findings {
        let workloads = [Workload::new(0, 30), Workload::new(1, 30)];
        let mut log: Vec<(i32, i64, u64, u64)> = Vec::new();
        let mut reported = vec![vec![None; 20]; 2];
        let mut ends = [0; 6];
        for number in 0..20 {
            for thread in 0..2 {
                let key = workloads[thread as usize].key(number);
                let partition = key.map_or(5, |key| java_partition(key.as_bytes(), 6));
                let offset = &mut ends[partition as usize];
                log.push((partition, *offset, thread, number));
                reported[thread as usize][number as usize] = Some((partition, *offset));
                *offset += 1;
            }
        }
        spoil(&mut log);
        let mut verifier = Verifier::new(&workloads, &reported, 6);
        for (partition, offset, thread, number) in log {
            let workload = &workloads[(thread % 100) as usize];
            let (mut buffers, trace) = (Buffers::default(), number.to_le_bytes());
            workload.value(number, &mut buffers.value);
            if thread >= 100 {
                buffers.value[17] ^= 1;
            }
            let headers = workload.headers(number, &trace);
            let headers = headers.iter().flatten().map(|h| (h.key.as_bytes(), h.value)).collect();
            let key = workload.key(number).map(str::as_bytes);
            verifier.check(partition, &Stored { offset, timestamp: 0, key, value: Some(&buffers.value), headers });
        }
        verifier.finish()
    }

    #[test]
    fn finds_what_is_wrong_and_only_that() {
        let clean = Findings { found: 40, ..Findings::default() };
        assert_eq!(verify(|_| ()), clean);
        assert_eq!(verify(|log| log.truncate(39)), Findings { found: 39, lost: 1, ..Findings::default() });
        assert_eq!(verify(|log| log.push(log[3])), Findings { found: 41, twice: 1, ..Findings::default() });
        assert_eq!(verify(|log| log[3].1 += 1), Findings { wrong_offset: 1, ..verify(|_| ()) });
        assert_eq!(verify(|log| log[4].2 += 100), Findings { changed: 1, ..verify(|_| ()) });
        let moved = verify(|log| log[0].0 = (log[0].0 + 1) % 6);
        assert_eq!(moved, Findings { wrong_partition: 1, wrong_offset: 1, ..verify(|_| ()) });
        let stranger = verify(|log| log[0].3 = 99);
        assert_eq!((stranger.unknown, stranger.lost), (1, 1));
    }

    #[test]
    fn order_is_kept_per_key() {
        // Numbers 0 and 100 share a key.
        let workloads = [Workload::new(0, 30)];
        let reported = [vec![None; 101]];
        let check = |numbers: [u64; 2]| {
            let mut verifier = Verifier::new(&workloads, &reported, 1);
            for number in numbers {
                let mut value = Vec::new();
                workloads[0].value(number, &mut value);
                let key = workloads[0].key(number).map(str::as_bytes);
                verifier.check(0, &Stored { offset: 0, timestamp: 0, key, value: Some(&value), headers: vec![] });
            }
            verifier.finish().out_of_order
        };
        assert_eq!((check([0, 100]), check([100, 0])), (0, 1));
    }

    #[test]
    fn the_hash_is_javas() {
        // From Kafka's own tests of Utils.murmur2.
        for (key, hash) in
            [("21", -973_932_308i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
        {
            assert_eq!(java_partition(key.as_bytes(), i32::MAX), (hash & 0x7fff_ffff) % i32::MAX);
        }
    }
}
