//! What a producer must do, as its callers see it, one scenario per test; `tests/README.md` lists them all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod callbacks;
mod claims;
mod identity;
mod partitioning;
mod records;
mod room;
mod waiting;

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{Producer, ProducerBuilder};

fn start(options: BrokerOptions) -> Broker {
    Broker::start(options).expect("a broker on loopback")
}

fn partitions(partitions: i32) -> BrokerOptions {
    BrokerOptions { topic: TopicOptions { partitions, ..TopicOptions::default() }, ..BrokerOptions::default() }
}

fn builder(servers: &str) -> ProducerBuilder {
    Producer::builder()
        .bootstrap_servers(servers)
        .set("retry.backoff.ms", "5")
        .set("reconnect.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "50")
}

/// Everything has its end: so many were delivered, so many not, and no memory is in use.
fn settled(producer: &Producer, delivered: u64, failed: u64) {
    // Memory goes back a moment after whoever waited was told.
    let deadline = Instant::now() + Duration::from_secs(10);
    while producer.stats().buffer_used > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = producer.stats();
    assert_eq!((stats.delivered, stats.failed(), stats.outstanding()), (delivered, failed, 0), "{stats:?}");
    assert!(stats.adds_up() && stats.buffer_used == 0, "{stats:?}");
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future to its end on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}
