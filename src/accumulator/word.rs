//! The packed words. All bit positions are here and nowhere else.
//!
//! ```text
//! Claim   generation:26 | continues:1 | sealed:1 | count:15 | bytes:21
//! Slot    position:62                                  | state:2   empty, ended, closed
//!         unused:10 | lap:1 | generation:26 | segment:25 | state:2   installed
//! Commit  sealed:1 | deliveries:31 | bytes still missing:32
//! Base    bytes:32 | delta:24 | index:8
//! Extent  capacity:31 | tagged:1 | units:32
//! ```
//! A slot word without a segment carries its whole position, so a CAS from it can never succeed a lap later. An
//! installed word needs one lap bit only: nobody compares-and-swaps it, and it tells "mine" from "a full ring".

const BYTES: u32 = 21;
const COUNT: u32 = 15;
/// Bits of a segment's generation.
pub const GENERATION: u32 = 26;
const SEGMENT: u32 = 25;
const SEALED: u64 = 1 << (BYTES + COUNT);
const CONTINUES: u64 = SEALED << 1;
/// The most bytes that claims of one segment can hold.
pub const BYTES_MAX: u64 = (1 << BYTES) - 1;
/// The most records of one segment.
pub const COUNT_MAX: u64 = (1 << COUNT) - 1;
/// The most segments: indexes are below it.
pub const SEGMENTS_MAX: u64 = 1 << SEGMENT;
/// The most slots of a ring: offset deltas of a full chain fit in `Base`.
pub const SLOTS_MAX: u64 = 256;
const _: () = assert!(BYTES + COUNT + 2 + GENERATION == 64);
const _: () = assert!(2 + SEGMENT + GENERATION < 64);
const _: () = assert!(COUNT_MAX * SLOTS_MAX < 1 << 24);

/// How far a segment is claimed, whether it is sealed, and of which use of the segment that is true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim(pub u64);

impl Claim {
    /// Open and empty.
    pub fn open(generation: u64) -> Self {
        Self((generation & ((1 << GENERATION) - 1)) << (64 - GENERATION))
    }

    /// Claimed bytes.
    #[inline]
    pub fn bytes(self) -> u64 {
        self.0 & BYTES_MAX
    }

    /// Claimed records.
    #[inline]
    pub fn count(self) -> u64 {
        (self.0 >> BYTES) & COUNT_MAX
    }

    /// Nothing can be claimed any more.
    #[inline]
    pub fn sealed(self) -> bool {
        self.0 & SEALED != 0
    }

    /// Sealed, and the next segment belongs to the same batch.
    #[inline]
    pub fn continues(self) -> bool {
        self.0 & CONTINUES != 0
    }

    /// Which use of the segment this is, modulo 2^26.
    #[inline]
    pub fn generation(self) -> u64 {
        self.0 >> (64 - GENERATION)
    }

    /// One more record of `len` bytes. The caller has checked that it fits and that the count is not full.
    #[inline]
    pub fn add(self, len: u64) -> Self {
        Self(self.0 + (1 << BYTES) + len)
    }

    /// The same, sealed.
    pub fn seal(self, continues: bool) -> Self {
        Self(self.0 | SEALED | if continues { CONTINUES } else { 0 })
    }
}

/// What a position of a partition's ring holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(pub u64);

impl Slot {
    /// Nothing yet; what comes may continue the batch before it.
    pub fn empty(position: u64) -> Self {
        Self(position << 2)
    }

    /// As empty, but what comes here starts a batch, whatever the segment before it said.
    pub fn ended(position: u64) -> Self {
        Self(position << 2 | 1)
    }

    /// Nothing comes any more.
    pub fn closed(position: u64) -> Self {
        Self(position << 2 | 2)
    }

    /// A segment.
    pub fn installed(segment: u32, generation: u64, lap: u64) -> Self {
        let above = (lap & 1) << GENERATION | generation;
        Self((above << SEGMENT | u64::from(segment)) << 2 | 3)
    }

    /// Holds a segment.
    #[inline]
    pub fn is_installed(self) -> bool {
        self.0 & 3 == 3
    }

    /// The segment's index.
    #[inline]
    pub fn segment(self) -> u32 {
        (self.0 >> 2) as u32 & ((1 << SEGMENT) - 1)
    }

    /// The segment's generation when it was installed.
    #[inline]
    pub fn generation(self) -> u64 {
        self.0 >> (2 + SEGMENT) & ((1 << GENERATION) - 1)
    }

    /// The lowest bit of the position's lap.
    #[inline]
    pub fn lap(self) -> u64 {
        self.0 >> (2 + SEGMENT + GENERATION) & 1
    }
}

/// A segment's commit word: a sum. Each commit adds its length, and 2^32 when the record has a `Delivery`; the seal
/// adds 2^63 minus the claimed bytes.
///
/// Complete is: bit 63 set and the low half zero. Before the seal's addition bit 63 is clear (at most 2^15
/// deliveries). After it, with m > 0 bytes still missing, the low half is 2^32 - m, so not zero; with m = 0 it is
/// zero and bit 63 is set. So exactly one addition, the last of the commits and the seal, makes the sum complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit(pub u64);

impl Commit {
    /// Sealed with everything committed and no deliveries.
    #[inline]
    pub fn complete() -> u64 {
        1 << 63
    }

    /// What a commit adds.
    #[inline]
    pub fn record(len: u64, delivery: bool) -> u64 {
        len + (u64::from(delivery) << 32)
    }

    /// What a seal adds.
    pub fn sealed(bytes: u64) -> u64 {
        Self::complete().wrapping_sub(bytes)
    }

    /// Sealed, and every claim is committed.
    #[inline]
    pub fn is_complete(self) -> bool {
        let settled = self.0 >> 63 != 0;
        settled && self.0 as u32 == 0
    }

    /// How many committed records have a `Delivery`; true once it is complete.
    pub fn deliveries(self) -> u32 {
        (self.0 >> 32) as u32 & (u32::MAX >> 1)
    }
}

/// Where a segment stands in its batch. `index` 0 starts one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// The offset delta of the segment's first record.
    pub delta: u64,
    /// How many segments of the batch come before.
    pub index: u64,
    /// How many bytes of records come before.
    pub bytes: u64,
    /// The batch's base timestamp, Unix ms.
    pub timestamp: i64,
}

impl Base {
    /// The start of a batch.
    pub fn start(timestamp: i64) -> Self {
        Self { delta: 0, index: 0, bytes: 0, timestamp }
    }

    /// What follows `count` more records of `bytes`.
    pub fn next(self, count: u64, bytes: u64) -> Self {
        Self { delta: self.delta + count, index: self.index + 1, bytes: self.bytes + bytes, timestamp: self.timestamp }
    }

    /// All but the timestamp, in one word.
    pub fn pack(self) -> u64 {
        self.bytes << 32 | self.delta << 8 | self.index
    }

    /// The inverse of [`Base::pack`].
    #[inline]
    pub fn unpack(word: u64, timestamp: i64) -> Self {
        Self { delta: word >> 8 & ((1 << 24) - 1), index: word & 255, bytes: word >> 32, timestamp }
    }
}

/// Bytes that one listener entry takes at the end of a tagged segment.
pub const ENTRY: u64 = 16;

/// What a segment can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent(u64);

impl Extent {
    /// Records of up to `capacity` bytes together, in a run of `units`; `tagged`: each record has an entry too.
    pub fn new(capacity: u32, tagged: bool, units: u32) -> Self {
        debug_assert!(capacity < 1 << 31);
        Self(u64::from(capacity) << 33 | u64::from(tagged) << 32 | u64::from(units))
    }

    /// From the packed word.
    #[inline]
    pub fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The packed word.
    pub fn word(self) -> u64 {
        self.0
    }

    /// Length of the run in units.
    #[inline]
    pub fn units(self) -> u32 {
        self.0 as u32
    }

    /// Each record has a listener entry.
    #[inline]
    pub fn tagged(self) -> bool {
        self.0 >> 32 & 1 != 0
    }

    /// One more record of `len` bytes fits behind `claim`.
    #[inline]
    pub fn fits(self, claim: Claim, len: u64, unit: u64) -> bool {
        let bytes = claim.bytes() + len;
        bytes <= self.0 >> 33
            && claim.count() < COUNT_MAX
            && (!self.tagged() || bytes + ENTRY * (claim.count() + 1) <= u64::from(self.units()) * unit)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_fields() {
        let claim = Claim::open(5).add(300).add(BYTES_MAX - 300);
        assert_eq!((claim.generation(), claim.count(), claim.bytes()), (5, 2, BYTES_MAX));
        assert!(!claim.sealed() && claim.seal(true).continues() && !claim.seal(false).continues());
        assert_eq!(Claim::open(1 << GENERATION), Claim::open(0), "generations wrap");
        let slot = Slot::installed(SEGMENTS_MAX as u32 - 1, (1 << GENERATION) - 1, 3);
        assert_eq!(
            (slot.segment(), slot.generation(), slot.lap()),
            (SEGMENTS_MAX as u32 - 1, (1 << GENERATION) - 1, 1)
        );
        let base = Base { delta: (1 << 24) - 1, index: 255, bytes: u64::from(u32::MAX), timestamp: -7 };
        assert_eq!(Base::unpack(base.pack(), -7), base);
    }

    /// Every order of three commits and the seal: exactly one addition completes the word, and it is the last.
    #[test]
    fn one_addition_completes() {
        let parts =
            [Commit::record(70, true), Commit::record(8, false), Commit::record(300, true), Commit::sealed(378)];
        for order in 0..24 {
            let (mut left, mut code, mut sum) = (parts.to_vec(), order, 0u64);
            while !left.is_empty() {
                assert!(!Commit(sum).is_complete());
                sum = sum.wrapping_add(left.remove(code % left.len()));
                code /= left.len() + 1;
            }
            assert!(Commit(sum).is_complete());
            assert_eq!(Commit(sum).deliveries(), 2);
        }
        assert!(Commit(Commit::sealed(0)).is_complete(), "an empty segment");
    }

    #[test]
    fn entries_take_their_room() {
        let plain = Extent::new(100, false, 1);
        assert!(plain.fits(Claim::open(1), 100, 1024) && !plain.fits(Claim::open(1), 101, 1024));
        let tagged = Extent::new(1024, true, 1);
        assert!(tagged.fits(Claim::open(1), 1008, 1024) && !tagged.fits(Claim::open(1), 1009, 1024));
        assert!(!tagged.fits(Claim::open(1).add(984), 9, 1024) && tagged.fits(Claim::open(1).add(984), 8, 1024));
    }
}
