//! What does it cost to tell the end of a record, by how somebody wants to hear of it? Three shares: what the sender does
//! when it reads the answer, what the callback thread does, and what the caller does with a `Delivery`. Per record of a
//! batch of a thousand; sending it and the broker's work are off the clock.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod common;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmail::testing::internals::ByHand;
use ringmail::{Delivery, Record, Topic};

const BATCH: u64 = 1000;

/// Counts, as the cheapest executor would.
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Times parts of a batch's life.
struct Clock(Duration);

impl Clock {
    fn time<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = work();
        self.0 += started.elapsed();
        result
    }
}

/// The batch is on its way and answered; the sender has not read the answer.
fn answered(hand: &mut ByHand) {
    hand.flush();
    hand.pack();
    assert_eq!(hand.answer(), BATCH, "all in one batch");
}

/// All that lies there: once in a while there is an answer about metadata too.
fn read(hand: &mut ByHand) -> bool {
    let mut any = false;
    while hand.read_answer() {
        any = true;
    }
    any
}

fn completion(criterion: &mut Criterion) {
    let mut listening = common::in_large_batches(common::listening());
    let mut plain = common::in_large_batches(common::plain());
    let mut group = criterion.benchmark_group("completion");
    group.throughput(Throughput::Elements(BATCH));
    let mut one = |name: &str, (hand, topic): &mut (ByHand, Topic), batch: &dyn Fn(&mut ByHand, &Topic, &mut Clock)| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|batches| {
                let mut clock = Clock(Duration::ZERO);
                for _ in 0..batches {
                    batch(hand, topic, &mut clock);
                    assert!(hand.settle());
                }
                clock.0
            });
        });
    };
    let send = |topic: &Topic| -> Vec<Delivery> {
        (0..BATCH).map(|_| topic.try_send(Record::value(&[7; 100])).unwrap()).collect()
    };
    let tag = |topic: &Topic| (0..BATCH).for_each(|tag| topic.try_send_tagged(Record::value(&[7; 100]), tag).unwrap());

    one("sender, deliveries dropped before", &mut plain, &|hand, topic, clock| {
        drop(send(topic));
        answered(hand);
        assert!(clock.time(|| read(hand)));
        assert!(hand.is_idle(), "that was all of it");
    });
    one("caller, wait for what is done", &mut plain, &|hand, topic, clock| {
        let deliveries = send(topic);
        answered(hand);
        assert!(read(hand));
        clock.time(|| deliveries.into_iter().for_each(|delivery| drop(delivery.wait().unwrap())));
    });
    one("caller, poll a future that is not done", &mut plain, &|hand, topic, clock| {
        let mut deliveries = send(topic);
        answered(hand);
        clock.time(|| poll_all(&mut deliveries, Waker::noop(), false));
        assert!(read(hand));
    });
    one("sender, futures woken", &mut plain, &|hand, topic, clock| {
        let count = std::sync::Arc::new(Count(0.into()));
        let mut deliveries = send(topic);
        answered(hand);
        poll_all(&mut deliveries, &count.clone().into(), false);
        assert!(clock.time(|| read(hand)));
        assert_eq!(count.0.load(Relaxed), BATCH);
        poll_all(&mut deliveries, Waker::noop(), true);
    });
    one("sender, tagged", &mut listening, &|hand, topic, clock| {
        tag(topic);
        answered(hand);
        assert!(clock.time(|| read(hand)));
    });
    one("callback thread, listener with tags", &mut listening, &|hand, topic, clock| {
        tag(topic);
        answered(hand);
        assert!(read(hand));
        clock.time(|| hand.call_back());
        assert!(hand.is_idle(), "that was all of it");
    });
    one("callback thread, callbacks", &mut plain, &|hand, topic, clock| {
        static CALLED: AtomicU64 = AtomicU64::new(0);
        let callback = |result: Result<_, _>| {
            CALLED.fetch_add(u64::from(result.is_ok()), Relaxed);
        };
        CALLED.store(0, Relaxed);
        (0..BATCH).for_each(|_| topic.send_with(Record::value(&[7; 100]), callback).unwrap());
        answered(hand);
        assert!(read(hand));
        clock.time(|| hand.call_back());
        assert_eq!(CALLED.load(Relaxed), BATCH, "all of them, in that time");
    });
    group.finish();
}

/// Futures that are polled before they are done, few and many of one segment: what one costs must not grow with the others.
fn crowd(criterion: &mut Criterion) {
    let mut plain = common::in_large_batches(common::plain());
    let mut group = criterion.benchmark_group("crowd");
    for count in [1_000, 30_000, 100_000] {
        let mut one = |name: &str, work: fn(Vec<Delivery>) -> Duration| {
            group.throughput(Throughput::Elements(count));
            group.bench_function(format!("{name}, {count}"), |bencher| {
                bencher.iter_custom(|crowds| {
                    let (hand, topic) = &mut plain;
                    let mut total = Duration::ZERO;
                    for _ in 0..crowds {
                        let send = |_| topic.try_send(Record::value(&[])).unwrap();
                        total += work((0..count).map(send).collect());
                        hand.flush();
                        hand.pack();
                        hand.answer();
                        assert!(read(hand) && hand.settle());
                    }
                    total
                });
            });
        };
        one("drop in order", |mut deliveries| {
            poll_all(&mut deliveries, Waker::noop(), false);
            let mut clock = Clock(Duration::ZERO);
            clock.time(|| drop(deliveries));
            clock.0
        });
        one("poll backwards", |mut deliveries| {
            let mut clock = Clock(Duration::ZERO);
            deliveries.reverse();
            clock.time(|| poll_all(&mut deliveries, Waker::noop(), false));
            clock.0
        });
    }
    group.finish();
}

fn poll_all(deliveries: &mut [Delivery], waker: &Waker, done: bool) {
    let mut context = Context::from_waker(waker);
    for delivery in deliveries {
        match Pin::new(delivery).poll(&mut context) {
            Poll::Ready(result) => assert!(done && result.is_ok()),
            Poll::Pending => assert!(!done),
        }
    }
}

criterion_group! { name = benches; config = common::short(); targets = completion, crowd }
criterion_main!(benches);
