//! The completion as its callers use it, on real threads.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::slot::CompletionRef;
use super::{CompletionPool, Delivery, Outcome, callback_thread};
use crate::error::{DeliveryError, DeliveryErrorKind, ErrorCode, Failure, Written};
use crate::record::Place;

fn place() -> Arc<Place> {
    Arc::new(Place { topic: "orders".into(), partition: 3 })
}

fn delivered(base_offset: i64) -> Outcome {
    Outcome::Delivered { base_offset: Some(base_offset), log_append_time: None }
}

fn failed(place: &Arc<Place>) -> Outcome {
    Outcome::Failed(DeliveryError::new(
        place,
        Failure {
            kind: DeliveryErrorKind::Broker(ErrorCode::INVALID_RECORD),
            written: Written::No,
            waited: Duration::from_secs(1),
            attempts: 1,
            broker: None,
            trouble: None,
        },
    ))
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (count.clone(), count.into())
    }

    fn wakes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll(delivery: &mut Delivery, waker: &Waker) -> Poll<Option<i64>> {
    let polled = pin!(delivery).poll(&mut Context::from_waker(waker));
    polled.map(|done| done.unwrap().offset())
}

#[test]
fn each_record_gets_its_own_offset_and_timestamp() {
    let pool = CompletionPool::new();
    let (completion, deliveries) = pool.take_with_deliveries(3);
    assert!(deliveries[0].try_result().is_none(), "nothing is known yet");
    completion.complete(3, &place(), delivered(40));
    for (i, delivery) in (0..).zip(deliveries) {
        let metadata = delivery.wait().unwrap();
        assert_eq!((metadata.topic(), metadata.partition()), ("orders", 3));
        assert_eq!((metadata.offset(), metadata.timestamp()), (Some(40 + i), 100 + i));
    }
    assert_eq!(pool.free(), pool.slots(), "and then its slot is free again");
}

#[test]
fn the_brokers_time_replaces_the_records() {
    let pool = CompletionPool::new();
    let (completion, deliveries) = pool.take_with_deliveries(1);
    completion.complete(1, &place(), Outcome::Delivered { base_offset: None, log_append_time: Some(7) });
    let metadata = deliveries[0].try_result().unwrap().unwrap();
    assert_eq!((metadata.offset(), metadata.timestamp()), (None, 7));
    assert_eq!(metadata.to_string(), "orders-3@?");
}

#[test]
fn parts_of_a_segment_may_end_differently() {
    let (pool, place) = (CompletionPool::new(), place());
    let (completion, deliveries) = pool.take_with_deliveries(6);
    completion.resolve(&place, 1..3, &delivered(70));
    let offset = |i: usize| deliveries[i].try_result().map(|done| done.unwrap().offset().unwrap());
    assert_eq!([offset(0), offset(1), offset(2), offset(3)], [None, Some(70), Some(71), None]);
    completion.resolve(&place, 4..5, &failed(&place));
    completion.finish(6, Some((&place, delivered(10))));
    assert_eq!([offset(0), offset(1), offset(3), offset(5)], [Some(10), Some(70), Some(13), Some(15)]);
    let error = deliveries[4].try_result().unwrap().unwrap_err();
    assert_eq!(error.kind(), DeliveryErrorKind::Broker(ErrorCode::INVALID_RECORD));
    drop(deliveries);

    let (completion, deliveries) = pool.take_with_deliveries(1);
    assert_eq!(pool.free() + 1, pool.slots(), "one slot was used for both");
    completion.complete(1, &place, delivered(0));
    assert_eq!(deliveries[0].try_result().unwrap().unwrap().offset(), Some(0), "nothing is left of the parts");
}

#[test]
fn a_record_that_the_sender_forgot_does_not_hang() {
    let (pool, place) = (CompletionPool::new(), place());
    let (completion, mut deliveries) = pool.take_with_deliveries(2);
    completion.resolve(&place, 0..1, &delivered(5));
    completion.finish(2, None);
    let error = deliveries.remove(1).wait().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Unresolved, Written::Possibly));
}

#[test]
fn wakes_the_newest_waker_of_each_record_once() {
    let (pool, place) = (CompletionPool::new(), place());
    let (completion, mut deliveries) = pool.take_with_deliveries(3);
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    // Out of order, and one of them twice.
    for i in [2, 0, 1] {
        assert!(poll(&mut deliveries[i], &old_waker).is_pending());
    }
    assert!(poll(&mut deliveries[1], &new_waker).is_pending());
    completion.resolve(&place, 0..1, &delivered(1));
    assert_eq!((old.wakes(), new.wakes()), (1, 0), "only those whose record is done");
    completion.finish(3, Some((&place, delivered(20))));
    assert_eq!((old.wakes(), new.wakes()), (2, 1));
    for (delivery, offset) in deliveries.iter_mut().zip([1, 21, 22]) {
        assert_eq!(poll(delivery, &old_waker), Poll::Ready(Some(offset)));
        assert_eq!(poll(delivery, &old_waker), Poll::Ready(Some(offset)), "and again");
    }
}

#[test]
fn a_dropped_delivery_leaves_no_waker_behind() {
    let (pool, place) = (CompletionPool::new(), place());
    let (completion, mut deliveries) = pool.take_with_deliveries(2);
    let (count, waker) = Count::new();
    for delivery in &mut deliveries {
        assert!(poll(delivery, &waker).is_pending());
    }
    assert_eq!(Arc::strong_count(&count), 4);
    drop(deliveries.remove(0));
    assert_eq!(Arc::strong_count(&count), 3);
    completion.complete(2, &place, delivered(0));
    assert_eq!((count.wakes(), Arc::strong_count(&count)), (1, 2));
}

#[test]
fn a_panicking_waker_takes_nobody_with_it() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            // Not `panic!`: its hook would write to the test's output.
            std::panic::resume_unwind(Box::new("a waker's own fault"));
        }
    }
    let (pool, place) = (CompletionPool::new(), place());
    let (completion, mut deliveries) = pool.take_with_deliveries(2);
    let (count, waker) = Count::new();
    assert!(poll(&mut deliveries[0], &Arc::new(Panics).into()).is_pending());
    assert!(poll(&mut deliveries[1], &waker).is_pending());
    completion.complete(2, &place, delivered(0));
    assert_eq!(count.wakes(), 1);
}

#[test]
fn waits_across_threads() {
    let (pool, place) = (CompletionPool::new(), place());
    let (sent, segments) = mpsc::channel::<CompletionRef>();
    let sender = std::thread::spawn(move || {
        for (n, completion) in segments.iter().enumerate() {
            completion.complete(1, &place, delivered(n as i64));
        }
    });
    for n in 0..200 {
        let (completion, mut deliveries) = pool.take_with_deliveries(1);
        sent.send(completion).unwrap();
        assert_eq!(deliveries.remove(0).wait().unwrap().offset(), Some(n));
    }
    drop(sent);
    sender.join().unwrap();
    assert_eq!(pool.slots(), 64, "one after the other, they share the first chunk");
    assert_eq!(pool.free(), 64);
}

#[test]
fn a_wait_with_a_limit_gives_up_and_may_be_repeated() {
    let (pool, place) = (CompletionPool::new(), place());
    let (completion, mut deliveries) = pool.take_with_deliveries(1);
    assert!(deliveries[0].wait_timeout(Duration::from_millis(1)).is_none());
    assert!(deliveries[0].wait_timeout(Duration::ZERO).is_none());
    completion.complete(1, &place, delivered(9));
    assert_eq!(deliveries[0].wait_timeout(Duration::MAX).unwrap().unwrap().offset(), Some(9));
}

#[test]
fn waiting_on_the_callback_thread_is_an_error_unless_done() {
    let (pool, place) = (CompletionPool::new(), place());
    let _entered = callback_thread::enter();
    let (completion, mut deliveries) = pool.take_with_deliveries(2);
    let error = deliveries.remove(1).wait().unwrap_err();
    assert_eq!(error.kind(), DeliveryErrorKind::WouldDeadlock);
    let error = deliveries[0].wait_timeout(Duration::from_secs(3600)).unwrap().unwrap_err();
    assert_eq!(error.kind(), DeliveryErrorKind::WouldDeadlock);
    completion.complete(2, &place, delivered(1));
    assert_eq!(deliveries.remove(0).wait().unwrap().offset(), Some(1));
}

#[test]
fn a_slot_in_use_keeps_its_pool() {
    let (pool, place) = (CompletionPool::new(), place());
    let weak = Arc::downgrade(&pool);
    let (completion, deliveries) = pool.take_with_deliveries(1);
    drop(pool);
    completion.complete(1, &place, delivered(0));
    assert!(weak.upgrade().is_some());
    assert!(deliveries[0].try_result().is_some());
    drop(deliveries);
    assert!(weak.upgrade().is_none());
    assert_eq!(Arc::strong_count(&place), 1, "and what the result held is gone");
}

#[test]
fn unused_completions_go_back() {
    let pool = CompletionPool::new();
    let taken: Vec<_> = (0..100).map(|_| pool.take()).collect();
    assert_eq!((pool.slots(), pool.free()), (64 + 128, 92));
    for completion in taken {
        completion.put_unused();
    }
    assert_eq!(pool.free(), 192);
    let again: Vec<_> = (0..192).map(|_| pool.take()).collect();
    assert_eq!((pool.slots(), pool.free()), (192, 0), "all of them are found again, each once");
    for completion in again {
        completion.put_unused();
    }
}

#[test]
#[should_panic(expected = "after its last call")]
fn a_second_last_call_is_a_bug_that_shows() {
    let completion = CompletionPool::new().take();
    completion.put_unused();
    completion.complete(1, &place(), delivered(0));
}

/// Many threads take, resolve, wait and drop at once: every result is right and every slot comes back.
#[test]
fn stress() {
    let pool = CompletionPool::new();
    let rounds = if cfg!(miri) { 20 } else { 2_000 };
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let (sent, segments) = mpsc::channel::<(CompletionRef, i64)>();
            let place = place();
            scope.spawn(move || {
                for (completion, base) in segments {
                    if base % 3 == 0 {
                        completion.resolve(&place, 1..2, &delivered(base + 1));
                    }
                    completion.complete(3, &place, delivered(base));
                }
            });
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..rounds {
                    let base = thread * 1_000_000 + round;
                    let (completion, deliveries) = pool.take_with_deliveries(3);
                    sent.send((completion, base)).unwrap();
                    for (i, mut delivery) in (0..).zip(deliveries) {
                        match (round + i) % 4 {
                            0 => drop(delivery),
                            1 => drop(poll(&mut delivery, Waker::noop())),
                            _ => assert_eq!(delivery.wait().unwrap().offset(), Some(base + i)),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(pool.free(), pool.slots());
}
