//! Splitting a batch that was too large: its second half becomes a batch of its own, so its offset deltas start again.

use super::Drain;

/// A part of a segment, as it lies in the arena after [`Drain::renumber`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renumbered {
    /// Where its first record begins.
    pub offset: usize,
    /// Length of its records, bytes.
    pub len: usize,
    /// The largest timestamp delta in it.
    pub max_timestamp_delta: i64,
}

impl Drain {
    /// placeholder
    pub fn renumber(
        &mut self,
        _offset: usize,
        _len: usize,
        _from: u32,
        _count: u32,
        _first_delta: u32,
    ) -> Option<Renumbered> {
        None
    }
}
