//! Send records and wait for what became of them.
//!
//! `cargo run --example send_and_wait [HOST:PORT]`; without an address an embedded broker is used.

use ringmail::testing::{Broker, BrokerOptions};
use ringmail::{Header, Producer, Record};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::start(BrokerOptions::default())?;
    let servers = std::env::args().nth(1).unwrap_or_else(|| broker.bootstrap());

    let producer = Producer::builder().set("bootstrap.servers", &servers).set("acks", "all").build()?;
    let topic = producer.topic("greetings")?;

    // A key decides the partition, so that records of one user stay in order.
    let headers = [Header { key: "language", value: Some(b"en") }];
    let first = topic.send(Record::value("hello").with_key("user-1").with_headers(&headers))?;
    let second = topic.send(Record::value("hello again").with_key("user-1"))?;

    // Both are on their way already; waiting only asks for the outcome.
    for delivery in [first, second] {
        let metadata = delivery.wait()?;
        println!("{}-{} at offset {:?}", metadata.topic(), metadata.partition(), metadata.offset());
    }
    Ok(())
}
