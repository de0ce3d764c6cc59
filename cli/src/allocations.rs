//! Counts what this process allocates, for `bench`: the system's allocator, and one relaxed counter.
//!
//! *Why this is sound*: (a) every call is handed to `System` with the caller's own arguments, and its result comes back
//! unchanged, so that whatever `System` promises holds here, and whatever it asks for was promised by the caller;
//! (b) counting neither allocates nor panics nor unwinds: an atomic addition, and a thread-local that is const and has
//! no destructor.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static UNCOUNTED: Cell<bool> = const { Cell::new(false) };
}

/// Allocations so far by all threads; a reallocation counts as one.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// From here on this thread's allocations are not counted: it is no part of what is measured.
pub fn leave_out_this_thread() {
    UNCOUNTED.set(true);
}

fn note() {
    if !UNCOUNTED.try_with(Cell::get).unwrap_or(true) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: (a) and (b).
unsafe impl GlobalAlloc for Counting {
    /// # Safety
    /// The trait's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: (a).
        unsafe { System.alloc(layout) }
    }

    /// Not left to the trait, which would write zeros into memory that the system gives out zeroed and untouched.
    ///
    /// # Safety
    /// The trait's.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: (a).
        unsafe { System.alloc_zeroed(layout) }
    }

    /// # Safety
    /// The trait's.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: (a).
        unsafe { System.realloc(pointer, layout, size) }
    }

    /// # Safety
    /// The trait's.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: (a).
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Allocations that `work` makes: the least of many tries, for other tests run meanwhile.
    fn least(work: fn()) -> u64 {
        let once = || {
            let before = count();
            work();
            count() - before
        };
        (0..1000).map(|_| once()).min().unwrap()
    }

    #[test]
    fn all_ways_to_allocate_are_counted() {
        assert_eq!(least(|| ()), 0);
        assert_eq!(least(|| drop(black_box(Box::new(7)))), 1);
        assert_eq!(least(|| drop(black_box(vec![0_u8; 1000]))), 1, "zeroed");
        let grow = || {
            let mut bytes = Vec::<u8>::with_capacity(10);
            black_box(&mut bytes).reserve_exact(1000);
        };
        assert_eq!(least(grow), 2);
    }

    #[test]
    fn a_thread_can_be_left_out() {
        let left_out = || {
            leave_out_this_thread();
            assert_eq!(least(|| drop(black_box(Box::new(7)))), 0);
        };
        std::thread::spawn(left_out).join().unwrap();
    }
}
