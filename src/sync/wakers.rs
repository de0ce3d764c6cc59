//! Wakers by key: however many wait, one is put in, replaced and taken out at the same cost.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Keys are our own counts, so nobody chooses them to collide, and neighbours come one after the other: the map's place is the
/// key itself, so that these lie side by side; only its tag, the uppermost seven bits, is spread.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        const TAG: u64 = 0x7f << 57;
        self.0 = (key & !TAG) | (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) & TAG);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Lies under a lock. A waker's clone, wake and drop are the caller's code: so that none of them runs under it, wakers are
/// handed in as clones and handed out.
#[derive(Default)]
pub struct Wakers {
    by_key: HashMap<u64, Waker, BuildHasherDefault<Spread>>,
    /// Room for the next [`Woken`].
    spare: Vec<(u64, Waker)>,
}

impl Wakers {
    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How many wait.
    #[cfg(all(test, not(loom)))]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Puts `waker` under `key`, and hands out the one that was there.
    pub fn put(&mut self, key: u64, waker: Waker) -> Option<Waker> {
        self.by_key.insert(key, waker)
    }

    /// Replaces the waker under `key`; false, and `waker` as it was: there is none. The old one is left in `waker`.
    pub fn replace(&mut self, key: u64, waker: &mut Waker) -> bool {
        self.by_key.get_mut(&key).map(|old| std::mem::swap(old, waker)).is_some()
    }

    /// The waker under `key`, if it still waits.
    pub fn take(&mut self, key: u64) -> Option<Waker> {
        self.by_key.remove(&key)
    }

    /// All of them.
    pub fn take_all(&mut self) -> Woken {
        let mut woken = std::mem::take(&mut self.spare);
        woken.extend(self.by_key.drain());
        Woken(woken)
    }

    /// Those whose keys are in `range`.
    pub fn take_range(&mut self, range: Range<u64>) -> Woken {
        let mut woken = std::mem::take(&mut self.spare);
        // A walk through the map passes its empty places, too.
        if range.end.saturating_sub(range.start) < self.by_key.capacity() as u64 {
            woken.extend(range.filter_map(|key| Some((key, self.by_key.remove(&key)?))));
        } else {
            woken.extend(self.by_key.extract_if(|key, _| range.contains(key)));
        }
        Woken(woken)
    }

    /// Keeps the room for the next time.
    pub fn keep(&mut self, room: Room) {
        if room.0.capacity() > self.spare.capacity() {
            self.spare = room.0;
        }
    }

    /// Gives back memory beyond what `wakers` need.
    pub fn shrink_to(&mut self, wakers: usize) {
        self.by_key.shrink_to(wakers);
        self.spare.shrink_to(wakers);
    }
}

/// Wakers that were taken out, to be woken where no lock is held.
pub struct Woken(Vec<(u64, Waker)>);

/// Where wakers were.
pub struct Room(Vec<(u64, Waker)>);

impl Woken {
    /// Wakes them, in the order of their keys.
    pub fn wake(mut self) -> Room {
        self.0.sort_unstable_by_key(|(key, _)| *key);
        for (_, waker) in self.0.drain(..) {
            // Its panic must take neither the sender, nor somebody else's append, nor the other waiters with it.
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
        Room(self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    type Log = Arc<Mutex<Vec<usize>>>;

    /// Notes its own number when it is woken.
    struct Note(usize, Log);

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[derive(Clone, Debug)]
    enum Call {
        Put(u64),
        Replace(u64),
        Take(u64),
        Range(Range<u64>),
        All,
        Shrink(usize),
    }

    fn call() -> impl Strategy<Value = Call> {
        let key = 0..64u64;
        prop_oneof![
            6 => key.clone().prop_map(Call::Put),
            2 => key.clone().prop_map(Call::Replace),
            3 => key.clone().prop_map(Call::Take),
            2 => (key, 0..70u64).prop_map(|(start, len)| Call::Range(start..start + len)),
            1 => Just(Call::All),
            1 => (0..8usize).prop_map(Call::Shrink),
        ]
    }

    proptest! {
        /// Against an ordered map: who is handed out, who is woken, in which order.
        #[test]
        fn they_are_as_an_ordered_map(calls in prop::collection::vec(call(), 1..200)) {
            let (log, numbers) = (Log::default(), AtomicUsize::new(0));
            let waker = || {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                (number, Waker::from(Arc::new(Note(number, log.clone()))))
            };
            let number_of = |waker: Waker| { waker.wake(); log.lock().unwrap().pop() };
            let (mut wakers, mut model) = (Wakers::default(), BTreeMap::new());
            for call in calls {
                match call {
                    Call::Put(key) => {
                        let (number, waker) = waker();
                        prop_assert_eq!(wakers.put(key, waker).and_then(number_of), model.insert(key, number));
                    }
                    Call::Replace(key) => {
                        let (number, mut waker) = waker();
                        let replaced = wakers.replace(key, &mut waker);
                        let expected = model.get_mut(&key).map(|old| std::mem::replace(old, number));
                        prop_assert_eq!(replaced, expected.is_some());
                        prop_assert_eq!(number_of(waker), Some(expected.unwrap_or(number)));
                    }
                    Call::Take(key) => prop_assert_eq!(wakers.take(key).and_then(number_of), model.remove(&key)),
                    Call::Range(range) => {
                        let expected: Vec<_> = model.extract_if(range.clone(), |_, _| true).map(|(_, number)| number).collect();
                        let room = wakers.take_range(range).wake();
                        wakers.keep(room);
                        prop_assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected);
                    }
                    Call::All => {
                        let expected: Vec<_> = std::mem::take(&mut model).into_values().collect();
                        let room = wakers.take_all().wake();
                        wakers.keep(room);
                        prop_assert_eq!(std::mem::take(&mut *log.lock().unwrap()), expected);
                    }
                    Call::Shrink(to) => wakers.shrink_to(to),
                }
                prop_assert_eq!(wakers.is_empty(), model.is_empty());
            }
        }
    }
}
