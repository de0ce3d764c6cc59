//! Callers that wait for something to change (room in the buffer, metadata, a flush) and those who change it.
//!
//! The waiter registers, *then* looks at its condition again; the other side changes the condition, *then* wakes.
//! Both do a read-modify-write on the one word `waiting`: whichever comes second sees what the first did, so either
//! the waiter sees the change or the waker sees the waiter. Only waiters lock and allocate.
//! A waker's wake, clone and drop are the caller's code: none of them runs under the lock.

use std::sync::PoisonError;
use std::task::Waker;
#[cfg(not(loom))]
use std::{
    sync::Arc,
    task::Wake,
    thread::{self, Thread},
    time::Instant,
};

use super::{AcqRel, AtomicU32, Mutex, Relaxed, Wakers, order};

/// Wakers of whoever waits, woken all at once.
pub struct WaitList {
    /// 1: somebody may be in the list.
    waiting: AtomicU32,
    listed: Mutex<Listed>,
}

#[derive(Default)]
struct Listed {
    next: u64,
    wakers: Wakers,
}

impl Default for WaitList {
    fn default() -> Self {
        Self { waiting: AtomicU32::new(0), listed: Mutex::new(Listed::default()) }
    }
}

impl std::fmt::Debug for WaitList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitList").field("waiting", &self.waiting()).finish()
    }
}

impl WaitList {
    /// Puts `waker` into the list under the key in `slot` (replacing the waker there, if it is still waiting). After
    /// this returns the caller looks at its condition once more, and only then goes to sleep.
    pub fn register(&self, slot: &mut Option<u64>, waker: &Waker) {
        // A replaced waker is swapped into here, and so dropped after the lock is given back.
        let mut waker = waker.clone();
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.is_some_and(|key| listed.wakers.replace(key, &mut waker)) {
            let key = listed.next;
            listed.next += 1;
            listed.wakers.put(key, waker);
            *slot = Some(key);
        }
        // Under the lock: a `wake_all` that saw the flag finds the waker.
        self.waiting.fetch_or(1, order("wait_set", AcqRel));
    }

    /// Takes the caller out again: it does not wait any more. Does nothing when it was woken meanwhile.
    pub fn deregister(&self, slot: &mut Option<u64>) {
        let Some(key) = slot.take() else { return };
        // Declared first, so that it is dropped after the lock is given back.
        let _waker;
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        _waker = listed.wakers.take(key);
        if listed.wakers.is_empty() {
            // Under the lock too: nobody can be registering.
            self.waiting.fetch_and(0, AcqRel);
        }
    }

    /// Wakes everyone registered before. One read-modify-write when nobody waits.
    pub fn wake_all(&self) {
        if self.waiting.swap(0, order("wait_take", AcqRel)) == 0 {
            return;
        }
        let woken = {
            let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            listed.wakers.take_all()
        };
        woken.wake();
    }

    /// Somebody waits, as far as this thread knows.
    pub fn waiting(&self) -> bool {
        self.waiting.load(Relaxed) != 0
    }
}

/// Blocks this thread until `attempt` gives something, at most until `deadline`. `attempt` is called at once, and again
/// after every wake-up; `None` from here means that the deadline passed.
#[cfg(not(loom))]
pub fn block_until<T>(list: &WaitList, deadline: Option<Instant>, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(done) = attempt() {
        return Some(done);
    }
    let waker = thread_waker();
    let mut registered = Registered { list, slot: None };
    loop {
        list.register(&mut registered.slot, &waker);
        if let Some(done) = attempt() {
            return Some(done);
        }
        match deadline {
            None => thread::park(),
            Some(deadline) => {
                let now = Instant::now();
                if now >= deadline {
                    return None;
                }
                thread::park_timeout(deadline - now);
            }
        }
    }
}

/// Takes the caller out of the list however it leaves.
#[cfg(not(loom))]
struct Registered<'a> {
    list: &'a WaitList,
    slot: Option<u64>,
}

#[cfg(not(loom))]
impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.list.deregister(&mut self.slot);
    }
}

#[cfg(not(loom))]
struct Unpark(Thread);

#[cfg(not(loom))]
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker that unparks this thread; made once per thread.
#[cfg(not(loom))]
pub fn thread_waker() -> Waker {
    thread_local!(static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current()))));
    // A thread that is being torn down has no thread-locals any more.
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| Waker::from(Arc::new(Unpark(thread::current()))))
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_reaches_a_sleeper() {
        let (list, value) = (Arc::new(WaitList::default()), Arc::new(AtomicU32::new(0)));
        let waiter = {
            let (list, value) = (list.clone(), value.clone());
            thread::spawn(move || block_until(&list, None, || Some(value.load(Relaxed)).filter(|at| *at == 1000)))
        };
        for _ in 0..1000 {
            value.fetch_add(1, Relaxed);
            list.wake_all();
        }
        assert_eq!(waiter.join().unwrap(), Some(1000));
        assert!(!list.waiting(), "nobody is left behind");
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let list = WaitList::default();
        let deadline = Instant::now() + Duration::from_millis(2);
        assert_eq!(block_until(&list, Some(deadline), || None::<()>), None);
        assert!(Instant::now() >= deadline);
        assert!(!list.waiting());
    }

    #[test]
    fn one_slot_is_one_entry() {
        let list = WaitList::default();
        let (mut slot, waker) = (None, thread_waker());
        list.register(&mut slot, &waker);
        list.register(&mut slot, &waker);
        assert_eq!(list.listed.lock().unwrap().wakers.len(), 1);
        list.wake_all();
        assert!(!list.waiting());
        list.register(&mut slot, &waker);
        assert!(list.waiting(), "a woken caller can register again");
        list.deregister(&mut slot);
        assert!(!list.waiting());
        thread::park(); // uses up the unpark that `wake_all` left
    }

    /// A caller's waker, with a drop that says whether it ran under the list's lock.
    struct Callers {
        list: Arc<WaitList>,
        panics: bool,
        woken: Arc<AtomicU32>,
        dropped: Arc<AtomicU32>,
    }

    impl Wake for Callers {
        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Relaxed);
            assert!(!self.panics, "a waker that panics");
        }
    }

    impl Drop for Callers {
        fn drop(&mut self) {
            if self.list.listed.try_lock().is_ok() {
                self.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    #[test]
    fn a_panicking_waker_harms_nobody_else() {
        let list = Arc::new(WaitList::default());
        let (woken, dropped) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        for panics in [false, true, false] {
            let callers = Callers { list: list.clone(), panics, woken: woken.clone(), dropped: dropped.clone() };
            list.register(&mut None, &Waker::from(Arc::new(callers)));
        }
        list.wake_all();
        assert_eq!((woken.load(Relaxed), dropped.load(Relaxed)), (3, 3));
        assert!(!list.waiting());
    }

    #[test]
    fn wakers_are_dropped_outside_the_lock() {
        let list = Arc::new(WaitList::default());
        let (woken, dropped) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut slot = None;
        for _ in 0..2 {
            let callers = Callers { list: list.clone(), panics: false, woken: woken.clone(), dropped: dropped.clone() };
            list.register(&mut slot, &Waker::from(Arc::new(callers)));
        }
        assert_eq!(dropped.load(Relaxed), 1, "the one that was replaced");
        list.deregister(&mut slot);
        assert_eq!((woken.load(Relaxed), dropped.load(Relaxed)), (0, 2));
        assert!(!list.waiting());
    }
}
