//! Kafka's hash of a key: MurmurHash2, 32 bits, with the Java client's seed, so that a key keeps its partition
//! whichever client sends it.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The hash, as Java's int.
pub(crate) fn murmur2(key: &[u8]) -> i32 {
    // Java's array length is an int; a key cannot be longer than a record.
    let mut hash = SEED ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte)).wrapping_mul(M);
        k = (k ^ k >> R).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    (hash ^ hash >> 15) as i32
}

/// The partition of a key, of `count` partitions (at least 1), whether they have a leader at the moment or not. An
/// empty key is a key like any other.
pub(crate) fn partition_for_key(key: &[u8], count: i32) -> i32 {
    assert!(count > 0, "a topic has partitions");
    (murmur2(key) & i32::MAX) % count
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_key_hashes_as_the_original_does(key in proptest::collection::vec(any::<u8>(), 0..70), count in 1..i32::MAX) {
            prop_assert_eq!(murmur2(&key), by_bytes(&key));
            let partition = partition_for_key(&key, count);
            prop_assert!((0..count).contains(&partition));
            prop_assert_eq!(partition, (i64::from(by_bytes(&key)) & 0x7fff_ffff).rem_euclid(count.into()) as i32);
        }
    }

    /// From Java's own tests; all tails from 0 to 3 bytes are among them.
    const VECTORS: [(&str, i32); 7] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("abc", 479_470_107),
        ("", 275_646_681),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ];

    #[test]
    fn hashes_as_java_does() {
        for (key, hash) in VECTORS {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key:?}");
        }
    }

    #[test]
    fn bytes_above_127_are_not_signed() {
        // Java's bytes are signed, and its code masks them; these were hashed by its masked formula, worked out here
        // byte by byte.
        for key in [&[0xff][..], &[0x80, 0xff], &[0x7f, 0x80, 0xfe], &[0xff, 0xfe, 0xfd, 0xfc], &[0x80; 9]] {
            assert_eq!(murmur2(key), by_bytes(key), "{key:?}");
        }
        for (key, hash) in VECTORS {
            assert_eq!(by_bytes(key.as_bytes()), hash, "the check itself, {key:?}");
        }
    }

    /// The same function written with an index and a switch, as in the original.
    fn by_bytes(key: &[u8]) -> i32 {
        let at = |i: usize| u32::from(key[i]);
        let mut h = 0x9747_b28c_u32 ^ key.len() as u32;
        for i in (0..key.len() / 4 * 4).step_by(4) {
            let mut k = at(i) + (at(i + 1) << 8) + (at(i + 2) << 16) + (at(i + 3) << 24);
            k = k.wrapping_mul(0x5bd1_e995);
            k ^= k >> 24;
            h = h.wrapping_mul(0x5bd1_e995) ^ k.wrapping_mul(0x5bd1_e995);
        }
        let tail = key.len() / 4 * 4;
        for i in (tail..key.len()).rev() {
            h ^= at(i) << (8 * (i - tail));
        }
        if tail < key.len() {
            h = h.wrapping_mul(0x5bd1_e995);
        }
        h ^= h >> 13;
        h = h.wrapping_mul(0x5bd1_e995);
        (h ^ h >> 15) as i32
    }

    #[test]
    fn a_negative_hash_loses_its_sign_bit() {
        // "21" hashes to -973932308; without its sign bit that is 1173551340.
        assert_eq!([1, 2, 7, 100].map(|count| partition_for_key(b"21", count)), [0, 0, 1_173_551_340 % 7, 40]);
        assert_eq!(partition_for_key(b"", 10), 1, "275646681 % 10");
    }
}
