//! std or loom: what `sync` has, and what only this room needs.

use std::sync::{LockResult, PoisonError};

#[cfg(loom)]
pub use loom::{cell::UnsafeCell, thread};
#[cfg(not(loom))]
pub use std::thread;

pub use crate::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Mutex, Relaxed, order};

/// std's, with loom's way of looking into it.
#[cfg(not(loom))]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// A cell.
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// To read through the pointer, the caller must know that nobody writes.
    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        look(self.0.get())
    }

    /// To write through the pointer, the caller must know that nobody else reads or writes.
    #[inline]
    pub fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        change(self.0.get())
    }
}

/// A lock's guard, also where a panic left the lock: nothing that can panic halfway runs under ours.
pub fn held<G>(locked: LockResult<G>) -> G {
    locked.unwrap_or_else(PoisonError::into_inner)
}
