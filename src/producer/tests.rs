//! What only the inside can provoke.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Producer, topic::Topic};
use crate::error::{DeliveryErrorKind, SendError, Written};
use crate::record::Record;
use crate::sender::{Command, Ticket};
use crate::testing::{Broker, BrokerOptions, Fault, ProduceContext, TopicOptions};

fn producer(broker: &Broker) -> (Producer, Topic) {
    let producer = Producer::builder().bootstrap_servers(&broker.bootstrap()).linger(Duration::ZERO).build().unwrap();
    let topic = producer.topic("t").unwrap();
    producer.warm_up(&["t"]).unwrap();
    (producer, topic)
}

/// A broker that answers no batch, and what tells that one has arrived.
fn silent() -> (Broker, Receiver<()>) {
    let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
    let options = BrokerOptions { topic, ..BrokerOptions::default() };
    let (tell, arrived) = channel();
    let hang = move |_: &ProduceContext<'_>| {
        let _ = tell.send(());
        Fault::HangBefore
    };
    (Broker::start(options.on_produce(hang)).unwrap(), arrived)
}

#[test]
fn a_sender_that_panics_leaves_nobody_waiting() {
    let (broker, arrived) = silent();
    let (producer, topic) = producer(&broker);
    let (tell, told) = channel();
    topic.send_with(Record::value("first"), move |result| tell.send(result).unwrap()).unwrap();
    arrived.recv_timeout(Duration::from_secs(10)).unwrap();
    let deliveries: Vec<_> = (0..100).map(|_| topic.send(Record::value("x")).unwrap()).collect();
    let flush = producer.flush_async();
    topic.core().shared.command(Command::Panic);
    for delivery in deliveries {
        let error = delivery.wait().unwrap_err();
        assert_eq!(error.kind(), DeliveryErrorKind::SenderPanicked);
    }
    let error = told.recv_timeout(Duration::from_secs(10)).unwrap().unwrap_err();
    assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::SenderPanicked, Written::Possibly), "in flight");
    drop(flush);
    let stats = producer.stats();
    assert!(stats.adds_up() && stats.accepted == 101 && stats.failed() == 101, "{stats:?}");
    assert!(stats.failed_possibly_written >= 1, "{stats:?}");
    assert_eq!(topic.send(Record::value("late")).map(drop), Err(SendError::SenderPanicked));
    assert_eq!(topic.try_send(Record::value("late")).unwrap_err().error, SendError::SenderPanicked);
    assert_eq!(producer.flush(), Err(SendError::SenderPanicked));
    assert_eq!(producer.close(Duration::from_secs(1)).map(drop), Err(SendError::SenderPanicked));
    assert!(matches!(producer.topic("other"), Err(SendError::SenderPanicked)));
    // Does not wait for anybody.
    drop(producer);
}

#[test]
fn a_command_behind_the_last_one_is_not_waited_for() {
    let (broker, _) = silent();
    let (producer, topic) = producer(&broker);
    let _ = producer.close(Duration::from_secs(5)).unwrap();
    let ticket = std::sync::Arc::new(Ticket::default());
    topic.core().shared.command(Command::Flush(ticket.clone()));
    assert!(ticket.is_done());
}
