//! What threads share: std's atomics or loom's, the doorbell that wakes the sender, and waiting callers.
//!
//! Everything whose order matters comes from here, so that `RUSTFLAGS="--cfg loom"` can search it. [`plain`] holds
//! std's atomics in both builds: for hints and counters whose order nothing leans on (loom would only pay for them).

pub mod doorbell;
pub mod wait_list;
pub mod wakers;

#[cfg(loom)]
pub use loom::{
    sync::Mutex,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64},
};
#[cfg(not(loom))]
pub use std::{
    sync::Mutex,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64},
};

pub use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release};

/// Values that may be stale or approximate: std's atomics in every build.
pub mod plain {
    pub use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64};
}

pub use doorbell::Doorbell;
pub use wait_list::WaitList;
#[cfg(not(loom))]
pub use wait_list::block_until;
pub use wakers::Wakers;

/// True under loom with `RINGMAIL_MUTATION=name`: a known mistake, made on purpose (`ci/mutations.sh`).
#[cfg(loom)]
pub fn mutated(name: &str) -> bool {
    static WANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("RINGMAIL_MUTATION").ok());
    WANTED.as_deref() == Some(name)
}

/// No mistakes on purpose outside loom.
#[cfg(not(loom))]
#[inline(always)]
pub const fn mutated(_: &str) -> bool {
    false
}

/// `right`, or Relaxed when the mutation `name` asks for it.
#[inline(always)]
pub fn order(name: &str, right: Ordering) -> Ordering {
    if mutated(name) { Relaxed } else { right }
}
