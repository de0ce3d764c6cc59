//! Write a value straight into the batch that goes to the broker: no buffer of your own, no copy.
//!
//! `cargo run --example claim_in_place [HOST:PORT]`; without an address an embedded broker is used.

use std::io::Write;

use ringmail::Producer;
use ringmail::testing::{Broker, BrokerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerOptions::default())?;
    let servers = std::env::args().nth(1).unwrap_or_else(|| broker.bootstrap());
    let producer = Producer::builder().set("bootstrap.servers", &servers).build()?;
    let topic = producer.topic("measurements")?;
    producer.warm_up(&["measurements"])?;

    let mut claim = topic.claim(32, Some(b"sensor-7"), &[])?;
    // All 32 bytes are sent, so all of them are written; what they held before is not defined.
    claim.fill(b' ');
    write!(&mut claim[..], "temperature={:.2}", 21.5)?;
    let metadata = claim.commit()?.wait()?;
    println!("written in place, stored at offset {:?}", metadata.offset());

    // A claim that is dropped was never there: nothing waits for it.
    drop(topic.claim(1000, None, &[])?);
    Ok(())
}
