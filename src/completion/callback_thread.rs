//! Knows whether the current thread is the one that runs listeners and callbacks, where waiting could wait for itself.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static CURRENT: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, its thread counts as a callback thread.
pub(crate) struct Entered {
    before: bool,
    /// Not `Send`: it must be dropped where it was made.
    here: PhantomData<*const ()>,
}

/// Marks the current thread until the result is dropped. May be nested.
pub(crate) fn enter() -> Entered {
    Entered { before: CURRENT.replace(true), here: PhantomData }
}

/// Is this thread running listeners and callbacks?
pub(crate) fn is_current() -> bool {
    CURRENT.get()
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_this_thread_alone_and_nests() {
        assert!(!is_current());
        let outer = enter();
        drop(enter());
        assert!(is_current(), "the inner guard restores what it found");
        assert!(!std::thread::spawn(is_current).join().unwrap());
        drop(outer);
        assert!(!is_current());
    }
}
