//! The memory that `buffer.memory` names: one zeroed allocation, so that pages nobody used cost nothing.
//!
//! *Why this is sound*: (a) the allocation lives as long as the `Arena`, and `len` bytes from `base`, its first address
//! that is aligned to a page, lie inside it; (b) `at` refuses a range that is not among them; (c) bytes are read and written only through raw pointers and through slices of a range that the caller owns,
//! never through references to the whole. A byte has one owner at a time: (d) whoever took its run from the pool and
//! has not installed it, (e) the writer whose claim covers it, until its commit, (f) the leases of the
//! segment (`lease.rs`), from "complete" until the run is put back; (g) bytes that nobody claimed or that are in no run belong to nobody. Each hand-over is a
//! release/acquire pair named in `ring.rs`, `segment.rs` and `pool.rs`; loom checks them byte by byte.

#![allow(unsafe_code, reason = "argued above")]

#[cfg(not(loom))]
pub use self::memory::Arena;
#[cfg(loom)]
pub use self::searched::Arena;

#[cfg(not(loom))]
mod memory {
    use std::{
        alloc::{Layout, alloc_zeroed, dealloc},
        ptr::NonNull,
        slice,
    };

    /// Alignment of the arena: a page, so that runs of 4 KiB and more start on one.
    const ALIGN: usize = 4096;
    /// What the allocation itself asks for: where more is asked, the standard allocator writes the zeros itself, and
    /// with that touches every page.
    const ASKED: usize = 16;

    /// A fixed run of bytes, shared by writers, the sender and the kernel.
    #[derive(Debug)]
    pub struct Arena {
        base: NonNull<u8>,
        len: usize,
        /// What was allocated; `base` is its first address that is aligned.
        allocated: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: clause (c): the arena itself hands out addresses only.
    unsafe impl Send for Arena {}
    // SAFETY: clause (c).
    unsafe impl Sync for Arena {}

    impl Arena {
        /// `len` bytes, at least one, zeroed. `None` when no such layout exists or there is no such memory.
        pub fn new(len: usize) -> Option<Self> {
            let len = len.max(1);
            let layout = Layout::from_size_align(len.checked_add(ALIGN)?, ASKED).ok()?;
            // SAFETY: the layout is not of zero size.
            let allocated = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            let before = allocated.addr().get().wrapping_neg() & (ALIGN - 1);
            // SAFETY: fewer than ALIGN bytes into len + ALIGN of them.
            let base = unsafe { allocated.add(before) };
            Some(Self { base, len, allocated, layout })
        }

        /// Its length in bytes.
        #[inline]
        pub fn len(&self) -> usize {
            self.len
        }

        /// The address of `offset..offset + len`. Panics when that is not inside the arena: a bug of ours.
        #[inline]
        pub fn at(&self, offset: usize, len: usize) -> *mut u8 {
            assert!(offset <= self.len() && len <= self.len() - offset, "a range outside the arena");
            // SAFETY: clause (b): the offset is inside the allocation.
            unsafe { self.base.as_ptr().add(offset) }
        }

        /// Hands `offset..offset + len` to `fill`.
        ///
        /// # Safety
        /// The caller owns the range by clause (d), (e) or (f) until this returns.
        #[inline(always)]
        pub unsafe fn write<R>(&self, offset: usize, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
            // SAFETY: clauses (a) and (b); the caller owns the range; every byte was zeroed, so it is initialised.
            fill(unsafe { slice::from_raw_parts_mut(self.at(offset, len), len) })
        }

        /// Hands `offset..offset + len` to `look`.
        ///
        /// # Safety
        /// The caller owns the range by clause (d), (e) or (f), or nobody writes to it, until this returns.
        #[inline]
        pub unsafe fn read<R>(&self, offset: usize, len: usize, look: impl FnOnce(&[u8]) -> R) -> R {
            // SAFETY: clauses (a) and (b); the caller says that nobody writes there.
            look(unsafe { slice::from_raw_parts(self.at(offset, len), len) })
        }

        /// The same as a slice.
        ///
        /// # Safety
        /// As [`Arena::read`], as long as the slice lives.
        #[inline]
        pub unsafe fn slice(&self, offset: usize, len: usize) -> &[u8] {
            // SAFETY: clauses (a) and (b); the caller says that nobody writes there.
            unsafe { slice::from_raw_parts(self.at(offset, len), len) }
        }

        /// The same as a slice to be written through.
        ///
        /// # Safety
        /// As [`Arena::write`], as long as the slice lives.
        #[expect(clippy::mut_from_ref, reason = "the range has one owner, which the caller is")]
        #[inline]
        pub unsafe fn slice_mut(&self, offset: usize, len: usize) -> &mut [u8] {
            // SAFETY: clauses (a) and (b); the caller owns the range.
            unsafe { slice::from_raw_parts_mut(self.at(offset, len), len) }
        }
    }

    impl Drop for Arena {
        fn drop(&mut self) {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.allocated.as_ptr(), self.layout) }
        }
    }
}

/// The arena under loom: each byte is a cell that loom watches, made when it is first used.
#[cfg(loom)]
mod searched {
    use std::sync::OnceLock;

    use loom::cell::UnsafeCell;

    /// See the other one.
    #[derive(Debug)]
    pub struct Arena(Box<[OnceLock<UnsafeCell<u8>>]>);

    // SAFETY: access goes through `write` and `read`, whose callers promise ownership; loom checks the promise.
    unsafe impl Sync for Arena {}

    impl Arena {
        pub fn new(len: usize) -> Option<Self> {
            Some(Self((0..len).map(|_| OnceLock::new()).collect()))
        }

        /// # Safety
        /// As the other one.
        pub unsafe fn write<R>(&self, offset: usize, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
            let mut bytes = vec![0; len];
            let done = fill(&mut bytes);
            for (cell, byte) in self.0[offset..offset + len].iter().zip(bytes) {
                // SAFETY: the caller owns the range.
                cell.get_or_init(|| UnsafeCell::new(0)).with_mut(|cell| unsafe { *cell = byte });
            }
            done
        }

        /// Writes one byte, whoever owns it: loom says if that was somebody else.
        pub fn mark(&self, offset: usize) {
            // SAFETY: loom stops at the first access that the caller has no right to.
            unsafe { self.write(offset, 1, |out| out[0] = 1) }
        }

        /// # Safety
        /// As the other one.
        pub unsafe fn read<R>(&self, offset: usize, len: usize, look: impl FnOnce(&[u8]) -> R) -> R {
            // SAFETY: the caller owns the range.
            let byte =
                |cell: &OnceLock<UnsafeCell<u8>>| cell.get_or_init(|| UnsafeCell::new(0)).with(|cell| unsafe { *cell });
            look(&self.0[offset..offset + len].iter().map(byte).collect::<Vec<_>>())
        }
    }
}
