//! Models of waiting for room, of the wait list alone, and of the pool's runs.

use std::task::{Wake, Waker};

use super::*;
use crate::accumulator::pool::Pool;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Appends, and waits for room as long as it is refused.
fn insist(accumulator: &Accumulator, partition: &Partition, value: u8) {
    let mut slot = None;
    let refused = || append(accumulator, partition, &[value]).is_err_and(Refused::is_full);
    if !refused() {
        return;
    }
    loop {
        accumulator.wait_for_room(&mut slot, &waker());
        if !refused() {
            break accumulator.room.deregister(&mut slot);
        }
        thread::park();
    }
}

/// A refused append is woken by what the sender gives back.
#[test]
fn room_from_the_sender() {
    explore(2, || {
        let mut room = Room::with(1, AccumulatorConfig { waits: true, ..config(1, SMALLEST) });
        room.append(0, 30);
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let writer = thread::spawn(move || insist(&accumulator, &ring, 10));
        let mut out = Out::default();
        while out.0.is_empty() {
            out.take(&mut room, 0, Leave::Now);
            thread::yield_now();
        }
        writer.join().unwrap();
        out.take(&mut room, 0, Leave::Now);
        assert_eq!(out.0, [(0, 30), (0, 10)]);
    });
}

/// A refused append is woken by the install of the one who had taken the last segment: nobody else comes.
#[test]
fn room_from_another_writer() {
    explore(2, || {
        let room = Room::with(1, AccumulatorConfig { waits: true, ..config(1, 2 * SMALLEST) });
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let writer = thread::spawn(move || insist(&accumulator, &ring, 10));
        insist(&room.accumulator, &room.partitions[0], 20);
        writer.join().unwrap();
    });
}

/// The handshake of waiter and waker alone.
#[test]
fn nobody_sleeps_through_a_change() {
    explore(3, || {
        let (list, value) = (Arc::new(WaitList::default()), Arc::new(loom::sync::atomic::AtomicU32::new(0)));
        let waiters: [_; 2] = std::array::from_fn(|_| {
            let (list, value) = (list.clone(), value.clone());
            thread::spawn(move || {
                let mut slot = None;
                while value.load(Relaxed) == 0 {
                    list.register(&mut slot, &waker());
                    if value.load(Relaxed) != 0 {
                        break;
                    }
                    thread::park();
                }
                list.deregister(&mut slot);
            })
        });
        value.store(1, Relaxed);
        list.wake_all();
        join(waiters);
        assert!(!list.waiting());
    });
}

/// Writes to every unit of a run: loom says if somebody else may still use it.
fn mark(pool: &Pool, index: u32, units: u32) {
    for unit in index..index + units {
        pool.arena.mark(unit as usize * UNIT);
    }
}

fn use_once(pool: &Pool, class: usize) -> bool {
    let Some(run) = pool.take(class, class, 0, &mut false) else { return false };
    mark(pool, run.index, run.units);
    pool.put(run);
    true
}

/// Two siblings are put at once; who takes the parent comes after both.
#[test]
fn siblings_merge() {
    explore(3, || {
        let pool = Arc::new(Pool::with_block(4, 1).unwrap());
        let runs: [_; 4] = std::array::from_fn(|_| pool.take(0, 0, 0, &mut false).unwrap());
        pool.put(runs[2]);
        pool.put(runs[3]);
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                mark(&pool, runs[0].index, 1);
                pool.put(runs[0]);
            })
        };
        mark(&pool, runs[1].index, 1);
        pool.put(runs[1]);
        use_once(&pool, 1);
        other.join().unwrap();
        assert!(use_once(&pool, 1), "all four are one again");
    });
}

/// A take that finds nothing because another one is splitting the last run is woken by that one: nobody else comes.
#[test]
fn room_from_a_split() {
    /// Takes so many units, and waits as long as there are none.
    fn insist(pool: &Pool, list: &WaitList, units: usize) {
        let take = || {
            let mut wake = false;
            let run = match units {
                1 => pool.take(0, 0, 0, &mut wake),
                _ => pool.take_bytes(units * UNIT, 0, &mut wake),
            };
            if wake {
                list.wake_all();
            }
            run.inspect(|run| mark(pool, run.index, run.units)).is_some()
        };
        let mut slot = None;
        while !take() {
            list.register(&mut slot, &waker());
            if take() {
                break;
            }
            thread::park();
        }
        list.deregister(&mut slot);
    }
    for units in [1, 3] {
        explore(3, move || {
            let (pool, list) = (Arc::new(Pool::with_block(4, 1).unwrap()), Arc::new(WaitList::default()));
            let other = {
                let (pool, list) = (pool.clone(), list.clone());
                thread::spawn(move || insist(&pool, &list, units))
            };
            insist(&pool, &list, 1);
            other.join().unwrap();
        });
    }
}

/// A run is used whole, then split by one thread and its sibling used by another.
#[test]
fn split_hands_over() {
    explore(3, || {
        let pool = Arc::new(Pool::with_block(4, 1).unwrap());
        let [whole, sibling] = [1, 0].map(|class| {
            let pool = pool.clone();
            thread::spawn(move || {
                let _ = use_once(&pool, class);
            })
        });
        use_once(&pool, 0);
        join([whole, sibling]);
        assert!(use_once(&pool, 1), "all four are one again");
    });
}

/// A refused append is woken by a claim that is dropped: nobody else comes.
#[test]
fn room_from_a_dropped_claim() {
    explore(3, || {
        let room = Room::with(1, AccumulatorConfig { waits: true, ..config(1, SMALLEST) });
        let claim = room.accumulator.claim(&room.partitions[0], &Fields::default(), 1, None, None).unwrap();
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let writer = thread::spawn(move || insist(&accumulator, &ring, 10));
        drop(claim);
        writer.join().unwrap();
    });
}

/// A refused append is woken by a slot that becomes free, though the memory behind it does not.
#[test]
fn a_slot_from_the_sender() {
    explore(3, || {
        let mut room = Room::with(1, AccumulatorConfig { waits: true, ..config(3, SMALLEST) });
        room.append(0, 30);
        room.append(0, 31);
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let writer = thread::spawn(move || insist(&accumulator, &ring, 10));
        // In flight until the writer is through.
        let mut chain = room.drain.drain(0, Leave::Now).unwrap();
        room.drain.wake_callers();
        writer.join().unwrap();
        for segment in chain.segments.drain(..) {
            room.drain.give_back(segment);
        }
        room.drain.recycle(chain);
    });
}

/// Needs two units.
const LARGE: [u8; UNIT] = [77; UNIT];

/// Somebody asks, and what comes back is kept for it; then it gives up. Whoever was refused meanwhile hears of that.
#[test]
fn an_ask_lets_go_of_the_others() {
    explore(2, || {
        let room = Room::with(2, AccumulatorConfig { waits: true, ..config(2, SMALLEST) });
        let claim = || room.accumulator.claim(&room.partitions[1], &Fields::default(), 1, None, None).unwrap();
        let (held, _kept) = (claim(), claim());
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[1].clone());
        let large = thread::spawn(move || {
            let fields = Fields { value: Some(&LARGE), ..Fields::default() };
            let ask = accumulator.ask(Refused::NoRun).unwrap();
            let asking =
                || accumulator.append_asking(&ring, &fields, None, Attach::None, true, None, Some(&ask)).is_err();
            // Once it has a window, and once more to take what is free there.
            assert!(asking() && asking(), "a unit is never free");
        });
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let small = thread::spawn(move || insist(&accumulator, &ring, 10));
        drop(held);
        small.join().unwrap();
        large.join().unwrap();
    });
}

/// What somebody asks for comes back piece by piece, while another one takes and puts the same pieces.
#[test]
fn an_ask_collects() {
    explore(2, || {
        let (pool, list) = (Arc::new(Pool::with_block(4, 1).unwrap()), Arc::new(WaitList::default()));
        let runs: [_; 4] = std::array::from_fn(|_| pool.take(0, 0, 0, &mut false).unwrap());
        pool.put(runs[0]);
        let other = {
            let (pool, list) = (pool.clone(), list.clone());
            thread::spawn(move || {
                mark(&pool, runs[1].index, 1);
                pool.put(runs[1]);
                list.wake_all();
                // What it takes again it puts back.
                if use_once(&pool, 0) {
                    list.wake_all();
                }
            })
        };
        let (ticket, mut slot) = (pool.asks.ticket(), None);
        let run = loop {
            if let Some(run) = pool.asks.collect(&pool, ticket, 2, 0) {
                break run;
            }
            list.register(&mut slot, &waker());
            if let Some(run) = pool.asks.collect(&pool, ticket, 2, 0) {
                break run;
            }
            thread::park();
        };
        list.deregister(&mut slot);
        mark(&pool, run.index, run.units);
        pool.asks.leave(&pool, ticket);
        other.join().unwrap();
        [run, runs[2], runs[3]].into_iter().for_each(|run| pool.put(run));
        assert!(use_once(&pool, 1), "all four are one again");
    });
}

/// Two leases of the same records end on two threads: their memory comes back once, and is written again only when both
/// have read it.
#[test]
fn a_lease_against_its_share() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 1, SMALLEST);
        room.append(0, 30);
        let mut lease = room.drain.drain(0, Leave::Now).unwrap().segments.remove(0);
        let shared = lease.share();
        let reader = thread::spawn(move || {
            assert_eq!(shared.bytes()[..2], [7 << 1, 0]);
            shared.end() > 0
        });
        assert_eq!(lease.bytes()[..2], [7 << 1, 0]);
        let last = lease.end() > 0;
        let written = append(&room.accumulator, &room.partitions[0], &[31]).is_ok();
        assert!(written || !last, "there was room");
        assert!(reader.join().unwrap() != last, "given back once");
    });
}

/// The sender, the callback thread and the kernel let go of one segment, each on its thread: the memory comes back once, with
/// the last of them, and may be written again at once.
#[test]
fn a_lease_against_its_share_and_a_hold() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 1, SMALLEST);
        room.append(0, 30);
        let mut lease = room.drain.drain(0, Leave::Now).unwrap().segments.remove(0);
        let (shared, hold) = (lease.share(), lease.hold());
        let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
        let reuse = move |freed: usize| {
            let last = freed > 0;
            assert!(!last || append(&accumulator, &ring, &[31]).is_ok(), "there is room");
            u32::from(last)
        };
        let others = [
            thread::spawn({
                let reuse = reuse.clone();
                move || {
                    assert_eq!(shared.bytes()[..2], [7 << 1, 0]);
                    reuse(shared.end())
                }
            }),
            thread::spawn({
                let reuse = reuse.clone();
                move || reuse(hold.end())
            }),
        ];
        assert_eq!(lease.bytes()[..2], [7 << 1, 0]);
        let last = reuse(lease.end());
        assert_eq!(others.map(|other| other.join().unwrap()).iter().sum::<u32>() + last, 1, "given back once");
    });
}

/// What nobody speaks for any more ends all the same.
#[test]
fn a_lease_that_is_dropped() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 1, SMALLEST);
        room.append(0, 30);
        let mut lease = room.drain.drain(0, Leave::Now).unwrap().segments.remove(0);
        let shared = lease.share();
        let other = thread::spawn(move || drop(shared));
        drop(lease);
        other.join().unwrap();
        assert_eq!(room.free(), 1);
    });
}
