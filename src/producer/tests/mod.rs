//! What only the inside can provoke.

mod ends;

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

/// What was on its way when the sender died reaches the sink, once each, before its Delivery or callback says so.
#[test]
fn a_dead_senders_records_reach_the_sink() {
    let (broker, arrived) = silent();
    let (keep, kept) = channel();
    let producer = Producer::builder()
        .bootstrap_servers(&broker.bootstrap())
        .linger(Duration::ZERO)
        .on_undeliverable(move |record: crate::UndeliveredRecord<'_>| {
            let value = record.value().unwrap().to_vec();
            keep.send((String::from_utf8(value).unwrap(), record.error().kind(), record.written())).unwrap();
        })
        .build()
        .unwrap();
    let topic = producer.topic("t").unwrap();
    producer.warm_up(&["t"]).unwrap();
    let first = topic.send(Record::value("0")).unwrap();
    arrived.recv_timeout(Duration::from_secs(10)).unwrap();
    let mut deliveries: Vec<_> = (1..100).map(|n| topic.send(Record::value(&n.to_string())).unwrap()).collect();
    topic.core().shared.command(Command::Panic);
    // Whoever hears of it finds it kept.
    let mut all: Vec<_> = Vec::new();
    assert_eq!(deliveries.pop().unwrap().wait().unwrap_err().kind(), DeliveryErrorKind::SenderPanicked);
    all.extend(kept.try_iter());
    assert!(all.iter().any(|(value, ..)| value == "99"), "{all:?}");
    assert_eq!(first.wait().unwrap_err().written(), Written::Possibly);
    assert!(deliveries.into_iter().all(|delivery| delivery.wait().is_err()));
    drop(producer);
    all.extend(kept.iter());
    assert!(all.iter().all(|(_, kind, _)| *kind == DeliveryErrorKind::SenderPanicked));
    assert!(all.iter().any(|(value, _, written)| value == "0" && *written == Written::Possibly), "in flight");
    let mut values: Vec<u32> = all.iter().map(|(value, ..)| value.parse().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, (0..100).collect::<Vec<_>>(), "each once");
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
