//! One caller's wait holds up no other: every way to wait for room, for records of every size and brokers of every kind,
//! beside callers whose own broker has room. `max.block.ms` is the only clock: a caller that is held up runs into it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, Fault, TopicOptions};
use ringmail::{Producer, Record, SendError, Topic};

use crate::{block_on, builder, start};

/// A caller whose own broker has room gets it within this time: far more than the half second or so that is promised
/// (what the broker has in flight comes back, and the sender looks at waiting callers every 50 ms), far less than for ever.
const MAX_BLOCK: Duration = Duration::from_secs(10);
const SIZES: [usize; 3] = [100, 300_000, 1_000_000];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Way {
    Blocking,
    Try,
    FuturePolled,
    FutureDropped,
    FutureForgotten,
    Claim,
}

const WAYS: [Way; 6] =
    [Way::Blocking, Way::Try, Way::FuturePolled, Way::FutureDropped, Way::FutureForgotten, Way::Claim];

/// Brokers by node id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Healthy = 0,
    Slow = 1,
    Stuck = 2,
}

const KINDS: [Kind; 3] = [Kind::Healthy, Kind::Slow, Kind::Stuck];

/// Where the stuck broker takes everything and answers nothing.
fn brokers(per_broker: i32) -> Broker {
    let options = BrokerOptions {
        brokers: 3,
        topic: TopicOptions { partitions: 3 * per_broker, ..TopicOptions::default() },
        discard: true,
        ..BrokerOptions::default()
    };
    start(options.on_produce(|context| match context.node {
        0 => Fault::None,
        1 => Fault::Delay(Duration::from_millis(100)),
        _ => Fault::HangBefore,
    }))
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Partitions of node `kind`, in turn.
fn partition(kind: Kind, per_broker: i32, nth: usize) -> i32 {
    (nth as i32 % per_broker) * 3 + kind as i32
}

/// The memory as it is on a bad day: the stuck broker holds what it may, its segments among those of the others.
fn scatter(topic: &Topic, per_broker: i32) -> u64 {
    let (small, medium) = (vec![b's'; 700], vec![b'm'; 9_000]);
    let mut stuck = 0;
    for nth in 0.. {
        let value = if nth % 3 == 0 { &medium } else { &small };
        let to = |kind| Record::value(value).with_partition(partition(kind, per_broker, nth));
        match topic.try_send(to(Kind::Stuck)) {
            Ok(_) => stuck += 1,
            Err(refused) => {
                assert_eq!(refused.error, SendError::BufferFull);
                break;
            }
        }
        drop(topic.try_send(to(Kind::Healthy)));
    }
    stuck
}

fn waits_hold_up_nobody(per_broker: i32) {
    let broker = brokers(per_broker);
    let producer: Producer = builder(&broker.bootstrap())
        .max_block(MAX_BLOCK)
        .request_timeout(Duration::from_secs(600))
        .delivery_timeout(Duration::from_secs(700))
        .build()
        .unwrap();
    let topic = producer.topic("t").unwrap();
    producer.warm_up(&["t"]).unwrap();
    let stuck = scatter(&topic, per_broker);
    let stats = producer.stats();
    assert!(stats.buffer_used > stats.buffer_total / 3, "{stuck} records: {stats:?}");
    let value = vec![b'v'; *SIZES.last().unwrap()];
    let mut worst: HashMap<(Way, usize, Kind), Duration> = HashMap::new();
    let mut held_up = Vec::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (topic, value, stop) = (&topic, &value, &stop);
        // Whatever ends this, the others must hear of it.
        let _close = OnDrop(|| {
            stop.store(true, Ordering::Relaxed);
            let _ = producer.close(Duration::ZERO);
        });
        // The healthy broker has traffic all the time.
        scope.spawn(move || {
            let mut nth = 0;
            while !stop.load(Ordering::Relaxed) {
                nth += 1;
                let to = partition(Kind::Healthy, per_broker, nth);
                drop(topic.try_send(Record::value(&value[..1000]).with_partition(to)));
                if nth % 50 == 0 {
                    std::thread::sleep(Duration::from_micros(300));
                }
            }
        });
        let mut kept: Vec<Pin<Box<ringmail::SendFuture<'_>>>> = Vec::new();
        for (way, size, kind) in
            WAYS.into_iter().flat_map(|way| SIZES.map(|size| KINDS.map(|kind| (way, size, kind)))).flatten()
        {
            let record = Record::value(&value[..size]).with_partition(partition(kind, per_broker, 7));
            let poll = |future: &mut Pin<Box<ringmail::SendFuture<'_>>>| {
                future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            };
            match way {
                Way::Blocking | Way::FuturePolled | Way::Claim => {
                    scope.spawn(move || match way {
                        Way::Blocking => drop(topic.send(record)),
                        Way::Claim => drop(topic.claim_record(record, size).map(|mut claim| {
                            claim.fill(1);
                            claim.commit()
                        })),
                        _ => drop(block_on(topic.send_async(record))),
                    });
                }
                Way::Try => drop(topic.try_send(record)),
                Way::FutureDropped => {
                    let mut future = Box::pin(topic.send_async(record));
                    let _ = poll(&mut future) && poll(&mut future);
                }
                Way::FutureForgotten => {
                    let mut future = Box::pin(topic.send_async(record));
                    // It has had every chance to ask for what it needs.
                    for _ in 0..5 {
                        if !poll(&mut future) {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    kept.push(future);
                }
            }
            // Everybody else, towards the healthy broker.
            for probe in 0..4 {
                let began = Instant::now();
                let to = partition(Kind::Healthy, per_broker, 11 + probe);
                let record = |len: usize| Record::value(&value[..len]).with_partition(to);
                let result = match probe {
                    0 => topic.send(record(100)).map(drop),
                    1 => topic.send(record(300_000)).map(drop),
                    2 => topic.claim_record(record(0), 50_000).map(drop),
                    _ => block_on(topic.send_async(record(1_000_000))).map(drop),
                };
                let took = began.elapsed();
                let worst = worst.entry((way, size, kind)).or_default();
                *worst = (*worst).max(took);
                if let Err(error) = result {
                    held_up.push(format!("{way:?} of {size} bytes to {kind:?}: probe {probe} failed: {error}"));
                }
            }
        }
        for (way, size, kind) in
            WAYS.into_iter().flat_map(|way| SIZES.map(|size| KINDS.map(|kind| (way, size, kind)))).flatten()
        {
            println!("{way:?} {size} {kind:?}: others waited {:.1?} at most", worst[&(way, size, kind)]);
        }
    });
    assert!(held_up.is_empty(), "{} held up:\n{}", held_up.len(), held_up.join("\n"));
}

#[test]
fn waits_hold_up_nobody_on_one_partition() {
    waits_hold_up_nobody(1);
}

#[test]
fn waits_hold_up_nobody_on_many_partitions() {
    waits_hold_up_nobody(200);
}
