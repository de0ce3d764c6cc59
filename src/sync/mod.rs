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
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence},
};
#[cfg(not(loom))]
pub use std::{
    sync::Mutex,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence},
};

pub use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

/// Values that may be stale or approximate: std's atomics in every build.
pub mod plain {
    pub use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64};
}

pub use doorbell::Doorbell;
pub use wait_list::WaitList;
#[cfg(not(loom))]
pub use wait_list::block_until;
pub use wakers::Wakers;

/// No later load is done before an earlier read-modify-write: a `fence(SeqCst)`, which costs nothing where such an instruction
/// is a fence by itself, as on x86. For whoever changes one word and then reads another one, against a thread that does the
/// same the other way round.
#[inline(always)]
pub fn fence_after_rmw() {
    if cfg!(all(any(target_arch = "x86", target_arch = "x86_64"), not(loom), not(miri))) {
        std::sync::atomic::compiler_fence(SeqCst);
    } else {
        fence(SeqCst);
    }
}

/// `right`; under loom with `PLANTED=name`, Relaxed: a mistake made on purpose (`ci/planted.py`).
#[inline(always)]
pub fn order(name: &str, right: Ordering) -> Ordering {
    if cfg!(loom) && is_planted(name) { Relaxed } else { right }
}

fn is_planted(name: &str) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("PLANTED").ok());
    PLANTED.as_deref() == Some(name)
}
