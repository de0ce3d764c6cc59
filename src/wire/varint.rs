//! Unsigned LEB128 varints and their zig-zag forms, as Kafka's record format uses them.

/// Length of `value` as an unsigned varint: 1 to 10 bytes.
#[inline]
pub const fn unsigned_len(value: u64) -> usize {
    // ceil(bits / 7) without a division; zero takes one byte.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
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

/// Length of `value` as a zig-zag varint.
#[inline]
pub const fn signed_len(value: i64) -> usize {
    unsigned_len(zigzag(value))
}

/// Writes `value` at the start of `out`, which must have room, and returns the length.
#[inline]
pub fn put_unsigned(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Writes `value` in zig-zag form at the start of `out`, which must have room, and returns the length.
#[inline]
pub fn put_signed(out: &mut [u8], value: i64) -> usize {
    put_unsigned(out, zigzag(value))
}
