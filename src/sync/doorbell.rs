//! Waking the sender's thread: one word, read-modify-write on both sides.
//!
//! Two flags (work, asleep) that each side stores and then loads can lose a wake-up. Here each side's RMW on the one
//! word reads what the other side's wrote last, and synchronises with it: either the sender finds `RUNG` and does not
//! sleep, or the ringer finds `PARKED` and wakes it. What was published before a ring is visible after [`Doorbell::awake`]
//! or a refused [`Doorbell::try_park`].

use std::sync::OnceLock;

use super::{AcqRel, Acquire, AtomicU32, Relaxed, order};

const AWAKE: u32 = 0;
const RUNG: u32 = 1;
const PARKED: u32 = 2;

/// The sender's doorbell. Any thread rings; one thread parks.
pub struct Doorbell {
    word: AtomicU32,
    unpark: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Doorbell {
    fn default() -> Self {
        Self { word: AtomicU32::new(AWAKE), unpark: OnceLock::new() }
    }
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorbell").field("bound", &self.unpark.get().is_some()).finish()
    }
}

impl Doorbell {
    /// Sets what ends the sender's sleep (an eventfd's write). To be called before anyone can ring; a second call
    /// changes nothing. Unbound, a ring is remembered but wakes nobody.
    pub fn bind(&self, unpark: Box<dyn Fn() + Send + Sync>) {
        let _ = self.unpark.set(unpark);
    }

    /// Tells the sender to look: it will not sleep before it has. A system call only when it sleeps now.
    pub fn ring(&self) {
        if self.word.swap(RUNG, order("ring", AcqRel)) == PARKED
            && let Some(unpark) = self.unpark.get()
        {
            unpark();
        }
    }

    /// Whether it rang since the last [`Doorbell::awake`]: one load, for a sender that looks again and again before it
    /// sleeps. Says nothing of what was published; `awake` comes before looking at that.
    #[inline]
    pub fn is_rung(&self) -> bool {
        self.word.load(Relaxed) == RUNG
    }

    /// The sender is about to sleep. False: rung since the last [`Doorbell::awake`], do not sleep. Either way `awake`
    /// comes next.
    #[must_use]
    pub fn try_park(&self) -> bool {
        self.word.compare_exchange(AWAKE, PARKED, order("park", AcqRel), order("park", Acquire)).is_ok()
    }

    /// The sender is awake and looks for work from here on; a later ring counts for the next `try_park`.
    pub fn awake(&self) {
        self.word.swap(AWAKE, order("park", AcqRel));
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::Doorbell;

    fn counted() -> (Doorbell, Arc<AtomicU32>) {
        let (bell, rung) = (Doorbell::default(), Arc::new(AtomicU32::new(0)));
        let count = rung.clone();
        bell.bind(Box::new(move || {
            count.fetch_add(1, Relaxed);
        }));
        (bell, rung)
    }

    #[test]
    fn rings_only_a_sleeper() {
        let (bell, woken) = counted();
        bell.ring();
        assert_eq!(woken.load(Relaxed), 0, "awake: nothing to wake");
        assert!(!bell.try_park(), "rung before: stay awake");
        bell.awake();
        assert!(bell.try_park());
        bell.ring();
        bell.ring();
        assert_eq!(woken.load(Relaxed), 1, "woken once");
        bell.awake();
        assert!(bell.try_park(), "the ring was used up");
    }
}
