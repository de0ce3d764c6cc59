//! loom: `RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir target/loom completion::models`.
//!
//! Planted mistakes (`ci/planted.txt`) and the models that catch them:
//!
//! | mistake | what it does | caught by |
//! |---|---|---|
//! | `completion_done` | the sender's DONE releases nothing | wait_against_complete, two_waits_…, drop_against_… |
//! | `completion_look` | a delivery's look acquires nothing | wait_against_complete, two_waits_…, drop_against_… |
//! | `completion_release` | references go without order | wait_against_complete, two_waits_…, drop_against_… |
//! | `completion_zero_by_load` | zero is looked for after the subtraction | wait_against_complete, two_waits_…, drop_against_… |
//! | `completion_done_by_load` | the sender looks for waiters, then sets DONE | wait_against_complete, two_waits_… |
//! | `completion_flag_by_load` | a waiter looks for DONE, then sets WAITERS | wait_against_complete, two_waits_… |
//! | `completion_flag_first` | a waiter sets WAITERS before its waker is there | wait_against_complete, two_waits_… |
//! | `completion_register_blind` | a waiter does not look for its part under the lock | wait_against_resolve |
//! | `completion_pop` | taking a slot acquires nothing | take_against_put, take_against_take_and_put, drop_against_… |
//! | `completion_push` | putting a slot back releases nothing | take_against_put, take_against_take_and_put, drop_against_… |
//! | `completion_no_count` | the stack's head does not count its changes | take_against_put, take_against_take_and_put |
//! | `completion_grow_blind` | whoever grows does not look again under the lock | take_against_take_that_grows |
//!
//! Not searched: a put against growing, wrap of the change count, `wait_timeout`. The flag's own order
//! (`fetch_or(WAITERS)`) is by argument: loom's mutex orders what it would leave open.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::thread;

use super::{CompletionPool, Delivery, Outcome};
use crate::record::Place;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

fn place() -> Arc<Place> {
    Arc::new(Place { topic: "t".into(), partition: 0 })
}

fn delivered(base_offset: i64) -> Outcome {
    Outcome::Delivered { base_offset: Some(base_offset), log_append_time: None }
}

fn offset(delivery: Delivery) -> i64 {
    delivery.wait().unwrap().offset().unwrap()
}

/// Nobody waits for ever, and whoever waited reads the result that was written.
#[test]
fn wait_against_complete() {
    explore(|| {
        let pool = CompletionPool::new();
        let (completion, mut deliveries) = pool.take_with_deliveries(1);
        let delivery = deliveries.remove(0);
        let waiter = thread::spawn(move || offset(delivery));
        completion.complete(1, &place(), delivered(40));
        assert_eq!(waiter.join().unwrap(), 40);
        assert_eq!(pool.free(), pool.slots());
    });
}

/// Two waiters and the sender: all wakers are found, and the last of the three puts the slot back.
#[test]
fn two_waits_against_complete() {
    explore(|| {
        let pool = CompletionPool::new();
        let (completion, mut deliveries) = pool.take_with_deliveries(2);
        let second = deliveries.remove(1);
        let first = deliveries.remove(0);
        let waiter = thread::spawn(move || offset(second));
        let sender = thread::spawn(move || completion.complete(2, &place(), delivered(40)));
        assert_eq!(offset(first), 40);
        assert_eq!(waiter.join().unwrap(), 41);
        sender.join().unwrap();
        assert_eq!(pool.free(), pool.slots());
    });
}

/// A delivery that is polled and dropped while the sender completes: whoever comes last puts the slot back, once, after
/// the other has done with it.
#[test]
fn drop_against_complete() {
    explore(|| {
        let pool = CompletionPool::new();
        let (completion, mut deliveries) = pool.take_with_deliveries(1);
        let mut delivery = deliveries.remove(0);
        let poller = thread::spawn(move || {
            if let Poll::Ready(done) = std::pin::pin!(&mut delivery).poll(&mut Context::from_waker(Waker::noop())) {
                assert_eq!(done.unwrap().offset(), Some(40));
            }
        });
        completion.complete(1, &place(), delivered(40));
        // The slot on top of the stack, if it is back already: taking it again must not meet its last user.
        let (again, deliveries) = pool.take_with_deliveries(1);
        assert!(deliveries[0].try_result().is_none(), "nothing of the last use is left");
        again.complete(1, &place(), delivered(7));
        assert_eq!(deliveries[0].try_result().unwrap().unwrap().offset(), Some(7));
        drop(deliveries);
        poller.join().unwrap();
        assert_eq!(pool.free(), pool.slots());
    });
}

/// A part that is resolved while its delivery is being waited for wakes it, though the rest stays open.
#[test]
fn wait_against_resolve() {
    explore(|| {
        let pool = CompletionPool::new();
        let (completion, mut deliveries) = pool.take_with_deliveries(2);
        let delivery = deliveries.remove(1);
        let waiter = thread::spawn(move || offset(delivery));
        completion.resolve(&place(), 1..2, &delivered(70));
        assert_eq!(waiter.join().unwrap(), 70, "without waiting for the rest");
        assert!(deliveries[0].try_result().is_none());
        completion.finish(2, Some((&place(), delivered(40))));
        assert_eq!(offset(deliveries.remove(0)), 40);
        assert_eq!(pool.free(), pool.slots());
    });
}

/// The sender and the callback thread resolve a part each, and whoever lets go last makes the last call: each delivery has
/// the outcome of its part.
#[test]
fn resolve_against_resolve() {
    explore(|| {
        let pool = CompletionPool::new();
        let (completion, mut deliveries) = pool.take_with_deliveries(2);
        let leases = Arc::new(loom::sync::atomic::AtomicU32::new(2));
        let part = |completion: super::CompletionRef, at: u32, leases: Arc<loom::sync::atomic::AtomicU32>| {
            completion.resolve(&place(), at..at + 1, &delivered(i64::from(at) * 10));
            if leases.fetch_sub(1, super::primitives::AcqRel) == 1 {
                completion.finish(2, None);
            }
        };
        let (second, first) = (deliveries.remove(1), deliveries.remove(0));
        let other = {
            let (completion, leases) = (completion.another(), leases.clone());
            thread::spawn(move || part(completion, 1, leases))
        };
        part(completion, 0, leases);
        assert_eq!((offset(first), offset(second)), (0, 10));
        other.join().unwrap();
        assert_eq!(pool.free(), pool.slots());
    });
}

/// Two threads take and put back: each slot has one owner at a time, and none is lost.
#[test]
fn take_against_put() {
    explore(|| {
        let pool = CompletionPool::new();
        let use_one = |pool: &Arc<CompletionPool>, offset| {
            let (completion, deliveries) = pool.take_with_deliveries(1);
            completion.complete(1, &place(), delivered(offset));
            assert_eq!(deliveries[0].try_result().unwrap().unwrap().offset(), Some(offset));
        };
        // Before there is another thread, so that growing is not part of the search.
        use_one(&pool, 0);
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                use_one(&pool, 1);
                use_one(&pool, 2);
            })
        };
        use_one(&pool, 3);
        other.join().unwrap();
        assert_eq!((pool.slots(), pool.free()), (2, 2), "two are enough for two threads");
    });
}

/// A slot that leaves the stack and comes back while another thread is about to take it.
#[test]
fn take_against_take_and_put() {
    explore(|| {
        let pool = CompletionPool::new();
        pool.take().put_unused();
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                let first = pool.take();
                let second = pool.take();
                first.put_unused();
                second
            })
        };
        let mine = pool.take();
        let theirs = other.join().unwrap();
        let next = pool.take();
        let mut all = [mine.into_raw(), theirs.into_raw(), next.into_raw()];
        all.sort();
        assert!(all[0] != all[1] && all[1] != all[2], "three owners of three slots");
    });
}

/// Both find the pool empty: one grows it, and that is enough for two.
#[test]
fn take_against_take_that_grows() {
    explore(|| {
        let pool = CompletionPool::new();
        let other = {
            let pool = pool.clone();
            thread::spawn(move || pool.take())
        };
        let mine = pool.take();
        let theirs = other.join().unwrap();
        assert_eq!((pool.slots(), pool.free()), (2, 0), "grown once");
        assert_ne!(mine.into_raw(), theirs.into_raw());
    });
}
