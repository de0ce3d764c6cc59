//! Futures without a runtime: `send_async` and deliveries are plain `Future`s and work in any executor, also in this
//! one of twenty lines.
//!
//! `cargo run --example async_send [HOST:PORT]`; without an address an embedded broker is used.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ringmail::testing::{Broker, BrokerOptions};
use ringmail::{Producer, Record};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerOptions::default())?;
    let servers = std::env::args().nth(1).unwrap_or_else(|| broker.bootstrap());
    let producer = Producer::builder().set("bootstrap.servers", &servers).build()?;
    let topic = producer.topic("orders")?;

    block_on(async {
        // The first await is for room in the buffer, the second for the broker's answer.
        let delivery = topic.send_async(Record::value("order 1").with_key("customer-1")).await?;
        let metadata = delivery.await?;
        println!("stored at offset {:?}", metadata.offset());
        producer.flush_async().await?;
        Ok(())
    })
}
