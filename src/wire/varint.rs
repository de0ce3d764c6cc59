//! Unsigned LEB128 varints and their zig-zag forms, as Kafka's record format uses them.

/// Length of `value` as an unsigned varint: 1 to 10 bytes.
#[inline(always)]
pub const fn unsigned_len(value: u64) -> usize {
    if value < 1 << 7 {
        1
    } else if value < 1 << 14 {
        2
    } else {
        // ceil(bits / 7) without a division.
        let bits = 64 - value.leading_zeros() as usize;
        (bits * 9 + 64) / 64
    }
}

/// Zig-zag: small magnitudes of either sign become small numbers.
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Inverse of [`zigzag`].
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Zig-zag of what is never negative.
#[inline(always)]
pub const fn zigzag_len(len: usize) -> u64 {
    (len as u64) << 1
}

/// Length of `value` as a zig-zag varint.
#[inline(always)]
pub const fn signed_len(value: i64) -> usize {
    unsigned_len(zigzag(value))
}

/// Writes `value` at the start of `out`, which must have room, and returns the length.
#[inline(always)]
pub fn put_unsigned(out: &mut [u8], value: u64) -> usize {
    // Almost all of a record's numbers take one or two bytes, and a record is written in about 20 ns.
    if value < 1 << 7 {
        out[0] = value as u8;
        1
    } else if value < 1 << 14 {
        out[1] = (value >> 7) as u8;
        out[0] = value as u8 | 0x80;
        2
    } else {
        put_long(out, value)
    }
}

fn put_long(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Below this value one or two bytes are enough.
pub const SHORT: u64 = 1 << 14;

/// A few varints below [`SHORT`], 8 bytes together at most, put together in a register.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShortOnes {
    bytes: u64,
    bits: u32,
}

impl ShortOnes {
    /// One more behind the others.
    #[inline(always)]
    pub fn push(&mut self, value: u64) {
        let (bytes, bits) = if value < 1 << 7 { (value, 8) } else { (value & 0x7f | 0x80 | value >> 7 << 8, 16) };
        self.bytes |= bytes << self.bits;
        self.bits += bits;
    }

    /// Writes them, and zeros behind them. Returns their length.
    #[inline(always)]
    pub fn put(self, out: &mut [u8; 8]) -> usize {
        *out = self.bytes.to_le_bytes();
        self.bits as usize / 8
    }
}

/// Writes `value` in zig-zag form at the start of `out`, which must have room, and returns the length.
#[inline(always)]
pub fn put_signed(out: &mut [u8], value: i64) -> usize {
    put_unsigned(out, zigzag(value))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::codec::Reader;

    /// The definition, by division: digits to base 128, the lowest first, all but the last plus 128.
    fn digits(mut value: u128) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 128 {
            out.push((value % 128 + 128) as u8);
            value /= 128;
        }
        out.push(value as u8);
        out
    }

    /// Any number of bits is as likely as any other.
    fn wide() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn unsigned_are_digits_to_base_128(value in wide()) {
            let mut out = [0xaa; 11];
            let len = put_unsigned(&mut out, value);
            prop_assert_eq!(&out[..len], &digits(value.into())[..]);
            prop_assert_eq!((len, out[len]), (unsigned_len(value), 0xaa));
            if let Ok(small) = u32::try_from(value) {
                prop_assert_eq!(Reader::new(&out, true).uvarint("value"), Ok(small));
            }
        }

        #[test]
        fn signed_count_up_from_zero_alternating(value in wide().prop_map(|value| value as i64)) {
            let place = if value < 0 { -2 * i128::from(value) - 1 } else { 2 * i128::from(value) };
            let mut out = [0; 10];
            let len = put_signed(&mut out, value);
            prop_assert_eq!(&out[..len], &digits(place as u128)[..]);
            prop_assert_eq!(len, signed_len(value));
            prop_assert_eq!(Reader::new(&out, true).varlong("value"), Ok(value));
            if let Ok(small) = i32::try_from(value) {
                prop_assert_eq!(Reader::new(&out, true).varint("value"), Ok(small));
            }
        }

        #[test]
        fn short_ones_are_the_same_as_one_by_one(values in proptest::collection::vec(0..SHORT, 0..5)) {
            let (mut together, mut expected) = (ShortOnes::default(), Vec::new());
            for value in values {
                together.push(value);
                expected.extend(digits(value.into()));
            }
            let mut out = [0xaa; 8];
            let len = together.put(&mut out);
            prop_assert_eq!(&out[..len], &expected[..]);
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes, true);
            if let Ok(value) = reader.uvarint("value") {
                let read = &bytes[..reader.position()];
                let sum = read.iter().rev().fold(0_u128, |sum, byte| sum * 128 + u128::from(byte % 128));
                prop_assert_eq!(u128::from(value), sum);
                prop_assert!(read.len() <= 5 && read[read.len() - 1] < 128);
            }
        }
    }

    #[test]
    fn every_length_is_what_is_written() {
        for bits in 0..64 {
            for value in [1_u64 << bits, (1_u64 << bits) - 1, u64::MAX >> bits] {
                let mut out = [0; 10];
                let len = put_unsigned(&mut out, value);
                assert_eq!(len, unsigned_len(value), "{value}");
                assert!(out[..len - 1].iter().all(|byte| *byte >= 0x80) && out[len - 1] < 0x80);
                let back = out[..len].iter().rev().fold(0_u64, |back, byte| back << 7 | u64::from(byte & 0x7f));
                assert_eq!(back, value);
            }
        }
    }

    #[test]
    fn zigzag_interleaves_the_signs() {
        for (value, coded) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (i64::MAX, u64::MAX - 1), (i64::MIN, u64::MAX)] {
            assert_eq!(zigzag(value), coded);
            assert_eq!(unzigzag(coded), value);
            assert_eq!(signed_len(value), unsigned_len(coded));
        }
    }
}
