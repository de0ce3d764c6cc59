//! One size class: a bitmap of its free runs.

use crate::sync::{AcqRel, Acquire, AtomicU64, Relaxed, Release, order, plain};

/// One class.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Level {
    pub(super) words: Box<[AtomicU64]>,
    /// Where a free run was seen last.
    hint: plain::AtomicU32,
    /// Free runs: never less than there are (counted up before a bit is set, down after it was cleared).
    pub(super) free: plain::AtomicU32,
}

impl Level {
    pub(super) fn new(runs: usize) -> Self {
        Self {
            words: (0..runs.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            hint: plain::AtomicU32::new(0),
            free: plain::AtomicU32::new(0),
        }
    }

    /// Any free run.
    pub(super) fn take(&self) -> Option<u32> {
        // Not under loom: it would not see what the count hides.
        if self.free.load(Relaxed) == 0 && cfg!(not(loom)) {
            return None;
        }
        let (len, mut at) = (self.words.len(), self.hint.load(Relaxed) as usize);
        for step in 0..len {
            let mut bits = self.words[at].load(Relaxed);
            while bits != 0 {
                let lowest = bits & bits.wrapping_neg();
                // Acquire: what the last owner did with the run comes before what we do.
                match self.words[at].compare_exchange(bits, bits & !lowest, order("take", Acquire), Relaxed) {
                    Err(now) => bits = now,
                    Ok(_) => {
                        self.free.fetch_sub(1, Relaxed);
                        if step > 0 {
                            self.hint.store(at as u32, Relaxed);
                        }
                        return Some(at as u32 * 64 + lowest.trailing_zeros());
                    }
                }
            }
            at = if at + 1 == len { 0 } else { at + 1 };
        }
        None
    }

    /// This very run, if it is free.
    pub(super) fn take_this(&self, run: u32) -> bool {
        let (word, bit) = (&self.words[run as usize / 64], 1 << (run % 64));
        let taken = word.fetch_and(!bit, order("take", Acquire)) & bit != 0;
        if taken {
            self.free.fetch_sub(1, Relaxed);
        }
        taken
    }

    pub(super) fn is_free(&self, run: u32) -> bool {
        self.words[run as usize / 64].load(Relaxed) >> (run % 64) & 1 != 0
    }

    /// The three siblings behind `first`, whose parent was split.
    pub(super) fn split(&self, first: u32) {
        debug_assert!(first.is_multiple_of(4));
        self.free.fetch_add(3, Relaxed);
        // Release: the parent's last owner hands over to the siblings' next ones, through us.
        self.words[first as usize / 64].fetch_or(0b1110 << (first % 64), order("split", Release));
        self.hint.store(first / 64, Relaxed);
    }

    /// True: the run and its siblings are now one run of the next class, for the caller to put.
    #[must_use]
    pub(super) fn put(&self, run: u32, merges: bool) -> bool {
        let at = run / 64;
        let (word, bit, nibble) = (&self.words[at as usize], 1u64 << (run % 64), 0xf << ((run % 64) & !3));
        self.free.fetch_add(1, Relaxed);
        let mut bits = word.load(Relaxed);
        loop {
            debug_assert!(bits & bit == 0, "put twice");
            let merged = merges && (bits | bit) & nibble == nibble;
            let to = if merged { bits & !nibble } else { bits | bit };
            // Release for the run's next owner; Acquire because who merges hands on what the siblings' owners released.
            let ordering = if merged { order("merge", AcqRel) } else { order("put", Release) };
            match word.compare_exchange(bits, to, ordering, Relaxed) {
                Err(now) => bits = now,
                Ok(_) if merged => {
                    self.free.fetch_sub(4, Relaxed);
                    return true;
                }
                Ok(_) => {
                    self.hint.store(at, Relaxed);
                    return false;
                }
            }
        }
    }
}
