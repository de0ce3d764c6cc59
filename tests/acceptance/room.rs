//! Waiting for room: giving up, and being told that there will never be any.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use ringmail::testing::Fault;
use ringmail::{Record, SendError};

use crate::{builder, partitions, settled, start};

/// Futures that wait for room and are dropped leave nothing behind: no record, no memory, nobody's turn.
#[test]
fn a_dropped_wait_leaves_nothing_behind() {
    let broker =
        start(partitions(1).on_produce(|context| if context.nth == 0 { Fault::HangBefore } else { Fault::None }));
    let producer = builder(&broker.bootstrap())
        .buffer_memory(1 << 20)
        .max_request_size(400_000)
        .request_timeout(Duration::from_millis(300))
        .linger(Duration::ZERO)
        .build()
        .unwrap();
    let topic = producer.topic("room").unwrap();
    producer.warm_up(&["room"]).unwrap();
    let (large, small) = (vec![b'l'; 390_000], vec![b's'; 1_000]);
    let mut deliveries = Vec::new();
    while let Ok(delivery) = topic.try_send(Record::value(&small)) {
        deliveries.push(delivery);
    }
    for record in [&large, &small, &large, &large] {
        let mut waiting = pin!(topic.send_async(Record::value(record)));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let accepted = deliveries.len() as u64;
    assert_eq!(producer.stats().accepted, accepted, "who gave up has sent nothing");
    // The connection ends at the request timeout; then everything leaves, and who waits now gets room.
    deliveries.push(topic.send(Record::value(&small)).unwrap());
    for delivery in deliveries {
        delivery.wait().unwrap();
    }
    settled(&producer, accepted + 1, 0);
    // None of the large ones that gave up keeps memory from the small.
    let again = (0..500).map_while(|_| topic.try_send(Record::value(&small)).ok()).count() as u64;
    producer.flush().unwrap();
    assert_eq!(again, 500);
    settled(&producer, accepted + 1 + again, 0);
}

/// Whoever sleeps until there is room hears of a close, blocking and waiting alike.
#[test]
fn a_close_wakes_who_waits_for_room() {
    let broker = start(partitions(1).on_produce(|_| Fault::HangBefore));
    let producer = builder(&broker.bootstrap()).buffer_memory(1 << 20).max_request_size(400_000).build().unwrap();
    let topic = producer.topic("closed").unwrap();
    producer.warm_up(&["closed"]).unwrap();
    let mut accepted = 0;
    while topic.try_send(Record::value(&[b'v'; 10_000])).is_ok() {
        accepted += 1;
    }
    std::thread::scope(|scope| {
        let waiting: Vec<_> = [10_000, 300_000]
            .map(|len| {
                let topic = &topic;
                scope.spawn(move || topic.send(Record::value(&vec![b'w'; len])).map(drop))
            })
            .into_iter()
            .collect();
        // Both are asleep, or soon will be: a close has to reach them either way.
        std::thread::sleep(Duration::from_millis(50));
        let report = producer.close(Duration::ZERO).unwrap();
        assert_eq!(report.records(), accepted, "{report}");
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Err(SendError::Closed));
        }
    });
    settled(&producer, 0, accepted);
}

/// Polled until it is woken in vain, then left, as in a `select!` that went another way: it keeps next to nothing from
/// others, and soon nothing. Polled again, it gets what it waited for, once.
#[test]
fn a_future_that_nobody_polls_holds_up_nobody() {
    let hold = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let holds = hold.clone();
    let broker = start(partitions(1).on_produce(move |_| {
        while holds.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Fault::None
    }));
    let producer = builder(&broker.bootstrap())
        .buffer_memory(4 << 20)
        .max_block(Duration::from_secs(20))
        .linger(Duration::ZERO)
        .build()
        .unwrap();
    let topic = producer.topic("room").unwrap();
    producer.warm_up(&["room"]).unwrap();
    let large = vec![b'l'; 1_000_000];
    let mut accepted = 0;
    while topic.try_send(Record::value(&large[..900])).is_ok() {
        accepted += 1;
    }
    let mut forgotten = pin!(topic.send_async(Record::value(&large)));
    let mut poll = || forgotten.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    for _ in 0..5 {
        assert!(poll().is_pending());
        std::thread::sleep(Duration::from_millis(20));
    }
    hold.store(false, std::sync::atomic::Ordering::Relaxed);
    producer.flush().unwrap();
    // All is delivered, so there is room for everybody.
    topic.try_send(Record::value("abc")).unwrap().wait().unwrap();
    // The whole memory, in pieces that need no neighbours: what the future waits for comes back a moment later.
    let claims: Vec<_> = (0..16).map(|_| topic.claim(250_000, None, &[]).unwrap()).collect();
    drop(claims);
    let delivery = loop {
        match poll() {
            std::task::Poll::Ready(delivery) => break delivery.unwrap(),
            std::task::Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    delivery.wait().unwrap();
    settled(&producer, accepted + 2, 0);
}

/// A future that is done does not send its record again.
#[test]
fn a_finished_send_is_not_made_twice() {
    let broker = start(partitions(1));
    let producer = builder(&broker.bootstrap()).build().unwrap();
    let topic = producer.topic("once").unwrap();
    let closed = {
        let mut done = pin!(topic.send_async(Record::value("once")));
        let delivery = crate::block_on(done.as_mut()).unwrap();
        delivery.wait().unwrap();
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = done.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }));
        assert!(again.is_err(), "as every future that is polled after it was ready");
        let _ = producer.close(Duration::from_secs(5)).unwrap();
        topic.send_async(Record::value("late"))
    };
    // So is one that was refused.
    let mut refused = pin!(closed);
    assert!(crate::block_on(refused.as_mut()).is_err());
    let poll = || drop(refused.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)).is_err());
    settled(&producer, 1, 0);
}
