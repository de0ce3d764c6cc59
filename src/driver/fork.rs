//! Fork: a child process has a copy of the producer but no sender thread.
//!
//! Whoever might wait for the sender asks [`Origin::is_elsewhere`] first and fails instead of waiting for ever. The
//! child's copy of a producer never touches the parent's sockets: they belong to the thread that does not exist there,
//! and nothing of it runs. They are closed on exec; a child that goes on without exec keeps copies of the descriptors,
//! which is why drivers shut a connection down before they close it.
//!
//! On Linux a handler run by `fork` counts forks, so asking costs one load; elsewhere the process id is compared.
//!
//! *Why this is sound*: (a) the handler is registered once and lives in the program's text; it only adds to an atomic,
//! which is safe wherever `fork` calls it. (A raw `clone` without the C library runs no handlers; such a child may not
//! call the C library's functions either.)

#![allow(unsafe_code, reason = "argued above")]

#[cfg(target_os = "linux")]
use std::sync::Once;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Forks between the first process that made a producer and this one.
#[cfg(target_os = "linux")]
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The process in which something was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin(u32);

impl Origin {
    /// This process.
    pub fn here() -> Self {
        #[cfg(target_os = "linux")]
        count_forks();
        Self(current())
    }

    /// Some other process.
    #[cfg(test)]
    pub fn elsewhere() -> Self {
        Self(current().wrapping_add(1))
    }

    /// Whether the caller runs in a forked child of the process where this was made. One load on Linux.
    #[inline]
    pub fn is_elsewhere(self) -> bool {
        self.0 != current()
    }
}

/// What tells this process from its parent.
#[cfg(target_os = "linux")]
#[inline]
fn current() -> u32 {
    FORKS.load(Relaxed)
}

/// What tells this process from its parent.
#[cfg(not(target_os = "linux"))]
fn current() -> u32 {
    std::process::id()
}

/// Registers the handler, once.
#[cfg(target_os = "linux")]
fn count_forks() {
    static REGISTERED: Once = Once::new();
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Relaxed);
    }
    REGISTERED.call_once(|| {
        // SAFETY: clause (a).
        let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if result != 0 {
            tracing::warn!(errno = result, "forks cannot be noticed; do not use a producer in a forked child");
        }
    });
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_elsewhere() {
        let origin = Origin::here();
        assert!(!origin.is_elsewhere());
        // SAFETY: the child calls nothing but a load and `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child at once, without running anything of the parent's.
            unsafe { libc::_exit(if origin.is_elsewhere() { 42 } else { 1 }) };
        }
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: our own child; the status is a local.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), 42);
        assert!(!origin.is_elsewhere(), "the parent is where it was");
    }
}
