//! Account for many records without a future or an allocation for each: a tag goes in, a listener gets it back.
//!
//! `cargo run --release --example listener_with_tags [HOST:PORT]`; without an address an embedded broker is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmail::testing::{Broker, BrokerOptions};
use ringmail::{DeliveryError, DeliveryListener, Producer, Record, RecordMetadata};

/// Counts, and says which records failed. It runs on a thread of its own: when it is slow, sending is not.
struct Count {
    delivered: Arc<AtomicU64>,
}

impl DeliveryListener for Count {
    fn on_delivery(&mut self, tag: u64, result: Result<&RecordMetadata, &DeliveryError>) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => eprintln!("record {tag}: {error}"),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerOptions::default())?;
    let servers = std::env::args().nth(1).unwrap_or_else(|| broker.bootstrap());

    let delivered = Arc::new(AtomicU64::new(0));
    let listener = Count { delivered: delivered.clone() };
    let producer = Producer::builder().set("bootstrap.servers", &servers).listener(listener).build()?;
    let topic = producer.topic("numbers")?;
    for number in 0..100_000_u64 {
        topic.send_tagged(Record::value(&number.to_be_bytes()), number)?;
    }

    // Returns when every record has its answer and the listener has heard of it.
    producer.flush()?;
    println!("{} of 100000 delivered", delivered.load(Ordering::Relaxed));
    Ok(())
}
