//! Models of what is given up half way: claims that are dropped, leaked or refused, and what a flush and a change of
//! leader meet.

use loom::sync::atomic::AtomicU32;

use super::*;
use crate::sync::{Acquire, Release};

/// Claims and writes a value on a thread of its own, and hands the claim to `end`.
fn claimer(room: &Room, end: impl FnOnce(PrivateClaim) + Send + 'static) -> thread::JoinHandle<()> {
    let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
    thread::spawn(move || {
        // Without memory there is nothing to give up.
        if let Ok(mut claim) = accumulator.claim(&ring, &Fields::default(), 1, None, None) {
            claim.write_value(&[40]);
            end(claim);
        }
    })
}

/// One claim is dropped while a writer rotates and the sender drains; another is never heard of again. The dropped one's
/// run serves others at once, and nobody waits for either.
#[test]
fn claims_dropped_and_leaked() {
    explore(2, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        let leaked = room.accumulator.claim(&room.partitions[0], &Fields::default(), 1, None, None).unwrap();
        let dropped = claimer(&room, drop);
        let writers = [room.writer(0, &[10, 11])];
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Now);
        join(writers);
        dropped.join().unwrap();
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert_eq!(room.free(), 2, "all but the leaked one");
        drop(leaked);
    });
}

/// A claim is committed against close: it is in the ring and is drained, or it is refused and its run comes back.
#[test]
fn close_against_commit() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 2, SMALLEST);
        room.append(0, 30);
        let accepted = room.accepted.clone();
        let committer = claimer(&room, move |claim| match claim.commit(Attach::None) {
            Ok(_) => accepted.lock().unwrap().push((0, 40)),
            Err((_, why)) => assert_eq!(why, Refused::Closed),
        });
        let mut out = Out::default();
        while !room.drain.close_partition(0) {
            out.take(&mut room, 0, Leave::Now);
        }
        out.take(&mut room, 0, Leave::Now);
        committer.join().unwrap();
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        assert!(room.drain.is_drained(0));
        assert_eq!(room.free(), 2, "no run leaked");
    });
}

/// A flush covers what was accepted before it was asked for, whatever else is being appended.
#[test]
fn flush_against_append() {
    explore(2, || {
        let mut room = Room::new(1, 2 * SLOTS, 4, SMALLEST);
        let asked = Arc::new(AtomicU32::new(0));
        let flusher = {
            let (accumulator, ring) = (room.accumulator.clone(), room.partitions[0].clone());
            let (accepted, asked) = (room.accepted.clone(), asked.clone());
            thread::spawn(move || {
                append(&accumulator, &ring, &[20]).unwrap();
                accepted.lock().unwrap().push((0, 20));
                asked.store(1, Release);
            })
        };
        let writers = [room.writer(0, &[10])];
        let mut out = Out::default();
        if asked.load(Acquire) == 1 {
            let to = room.drain.tail_position(0);
            // A writer between claim and commit holds it up; it comes back to that later.
            out.take(&mut room, 0, Leave::Now);
            if room.drain.head_position(0) >= to {
                assert!(out.0.contains(&(0, 20)), "flushed, and not drained");
            }
        }
        join(writers);
        flusher.join().unwrap();
        let to = room.drain.tail_position(0);
        out.take(&mut room, 0, Leave::Now);
        assert!(room.drain.head_position(0) >= to, "a flush ends");
        out.check(&room);
    });
}

/// The partition's leader changes under a writer: each run goes back to the share that it was taken for.
#[test]
fn leader_changes_under_a_writer() {
    explore(3, || {
        let mut room = Room::new(1, SLOTS, 3, SMALLEST);
        room.drain.set_leader(0, 1);
        let writers = [room.writer(0, &[10, 11])];
        // loom does not see the share change. It sees that somebody takes and puts a run, and tries every order of that.
        let held = room.accumulator.claim(&room.partitions[0], &Fields::default(), 1, None, None).ok();
        room.drain.set_leader(0, 2);
        drop(held);
        let mut out = Out::default();
        out.take(&mut room, 0, Leave::Now);
        join(writers);
        out.take(&mut room, 0, Leave::Now);
        out.check(&room);
        let shares = &room.accumulator.pool.shares;
        assert_eq!([0, 1, 2].map(|share| shares.used(share)), [0; 3]);
        assert_eq!(room.free(), 3);
    });
}
