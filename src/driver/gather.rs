//! A transmit's pieces as the I/O slices that a system call takes.
//!
//! *Why this is sound*: (a) a piece is turned into a slice only after its range was checked against the transmit's head
//! or by `Arena::at`; (b) the head's bytes lie on the heap and do not move or change while the driver owns the transmit,
//! and its arena ranges stay unchanged until the driver gives it back (`Piece::Arena`), so shared slices of both are
//! valid that long; (c) whoever calls `fill` promises to use the slices no longer than that, which is why it is unsafe.

#![allow(unsafe_code, reason = "argued above")]

use std::io::IoSlice;

use crate::accumulator::arena::Arena;
use crate::sender::transmit::{Piece, Transmit};

/// Most slices that one system call takes (Linux: `UIO_MAXIOV`). Longer transmits go in several calls.
pub const MAX_SLICES: usize = 1024;

/// How much of a transmit has been written: whole pieces, and bytes of the piece after them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    piece: usize,
    offset: u32,
}

impl Cursor {
    /// Moves on by the `bytes` that the kernel took.
    pub fn advance(&mut self, transmit: &Transmit, mut bytes: usize) {
        while let Some(piece) = transmit.pieces.get(self.piece) {
            let left = (piece.len() - self.offset) as usize;
            if bytes < left {
                self.offset += bytes as u32;
                return;
            }
            bytes -= left;
            self.piece += 1;
            self.offset = 0;
        }
        assert!(bytes == 0, "the kernel took more than the transmit has");
    }

    /// Whether nothing is left to write.
    pub fn is_at_end(&self, transmit: &Transmit) -> bool {
        transmit.pieces[self.piece..].iter().all(|piece| piece.len() == self.offset)
    }
}

impl Piece {
    /// Its length in bytes.
    fn len(&self) -> u32 {
        match *self {
            Self::Head { len, .. } | Self::Arena { len, .. } => len,
        }
    }
}

/// Hands what is left of `transmit` behind `cursor` to `write`, at most [`MAX_SLICES`] of it; `scratch` is empty before
/// and after, it only keeps its memory.
pub fn with<R>(
    scratch: &mut Vec<IoSlice<'static>>,
    arena: &Arena,
    transmit: &Transmit,
    cursor: Cursor,
    write: impl FnOnce(&[IoSlice<'_>]) -> R,
) -> R {
    // SAFETY: clause (c): they are gone when this returns, and the transmit is borrowed until then.
    unsafe { fill(scratch, arena, transmit, cursor) };
    let result = write(scratch);
    scratch.clear();
    result
}

/// Puts what is left of `transmit` behind `cursor` into `slices`, which is cleared first; at most [`MAX_SLICES`].
///
/// # Safety
/// The slices must not be used once the transmit is given back, dropped or changed.
pub unsafe fn fill(slices: &mut Vec<IoSlice<'static>>, arena: &Arena, transmit: &Transmit, cursor: Cursor) {
    slices.clear();
    let mut skip = cursor.offset;
    for piece in &transmit.pieces[cursor.piece..] {
        let len = (piece.len() - skip) as usize;
        let start = match *piece {
            Piece::Head { start, len } => transmit.head[start as usize..][..len as usize][skip as usize..].as_ptr(),
            Piece::Arena { offset, .. } => arena.at(offset + skip as usize, len).cast_const(),
        };
        skip = 0;
        if len == 0 {
            continue;
        }
        if slices.len() == MAX_SLICES {
            return;
        }
        // SAFETY: clauses (a) and (b) for the range, (c) for its lifetime.
        slices.push(IoSlice::new(unsafe { std::slice::from_raw_parts(start, len) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::transmit::ConnectionId;

    fn sample() -> (Arena, Transmit) {
        let arena = Arena::new(64).expect("a small arena");
        // SAFETY: nobody else holds this arena.
        unsafe { std::ptr::copy_nonoverlapping(b"arena bytes".as_ptr(), arena.at(8, 11), 11) };
        let pieces = vec![
            Piece::Head { start: 0, len: 4 },
            Piece::Arena { offset: 8, len: 5 },
            Piece::Head { start: 4, len: 0 },
            Piece::Head { start: 4, len: 2 },
            Piece::Arena { offset: 13, len: 6 },
        ];
        (arena, Transmit { connection: ConnectionId(1), head: b"head: ".to_vec(), pieces, ..Transmit::default() })
    }

    #[test]
    fn a_write_may_be_cut_anywhere() {
        let (arena, transmit) = sample();
        let whole = b"headarena:  bytes";
        for first in 0..=whole.len() {
            let mut cursor = Cursor::default();
            let mut slices = Vec::new();
            cursor.advance(&transmit, first);
            assert_eq!(cursor.is_at_end(&transmit), first == whole.len());
            // SAFETY: the transmit and the arena outlive the slices.
            unsafe { fill(&mut slices, &arena, &transmit, cursor) };
            let rest: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(rest, whole[first..], "after {first} bytes");
        }
    }

    #[test]
    #[should_panic(expected = "outside the arena")]
    fn a_piece_outside_the_arena_is_a_bug() {
        let (arena, mut transmit) = sample();
        transmit.pieces.push(Piece::Arena { offset: 60, len: 5 });
        // SAFETY: it panics before it gives slices away.
        unsafe { fill(&mut Vec::new(), &arena, &transmit, Cursor::default()) };
    }
}
