//! The memory that `buffer.memory` names: one zeroed allocation, so that pages nobody used cost nothing.
//!
//! *Why this is sound*: (a) the allocation lives as long as the `Arena`; (b) `at` refuses a range that is not inside
//! it; (c) bytes are read and written only through raw pointers, never through references to the whole, and each
//! range has one owner at a time, which `ring.rs` and `segment.rs` argue.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of the arena: a page, so that runs of 4 KiB and more start on one.
const ALIGN: usize = 4096;

/// A fixed run of bytes, shared by writers, the sender and the kernel.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: clause (c): the arena itself hands out addresses only.
unsafe impl Send for Arena {}
// SAFETY: clause (c).
unsafe impl Sync for Arena {}

impl Arena {
    /// `len` bytes, at least one, zeroed. `None` when no such layout exists.
    pub fn new(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), ALIGN).ok()?;
        // SAFETY: the layout is not of zero size.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Some(Self { base, layout })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// The address of `offset..offset + len`. Panics when that is not inside the arena: a bug of ours.
    #[inline]
    pub fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len() && len <= self.len() - offset, "a range outside the arena");
        // SAFETY: clause (b): the offset is inside the allocation.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
