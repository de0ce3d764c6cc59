//! The producer by hand, which the benchmarks lean on: it does nothing by itself and all of it when told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::heard::Heard;
use super::super::internals::ByHand;
use crate::{DeliveryError, Producer, Record, RecordMetadata};

#[test]
fn each_part_does_its_work_when_told_to_and_only_then() {
    let told = Arc::new(AtomicU64::new(0));
    let count = told.clone();
    let listener = move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
        assert_eq!(result.unwrap().offset(), Some(1 + tag as i64), "behind the record that opened the topic");
        assert_eq!(count.fetch_add(1, Relaxed), tag, "in order");
    };
    let mut hand = ByHand::new(Producer::builder().listener(listener), 1).unwrap();
    let topic = hand.topic("t").unwrap();
    assert!(hand.is_idle());
    for tag in 0..100 {
        topic.try_send_tagged(Record::value(&[7; 100]), tag).unwrap();
    }
    let delivery = topic.try_send(Record::value("last")).unwrap();
    hand.pack();
    assert_eq!(hand.answer(), 0, "it lingers");
    hand.flush();
    hand.pack();
    assert_eq!(hand.answer(), 101);
    assert!(delivery.try_result().is_none() && told.load(Relaxed) == 0, "stored, but nobody read the answer");
    assert!(hand.read_answer() && !hand.read_answer());
    assert_eq!(delivery.try_result().unwrap().unwrap().offset(), Some(101));
    assert!(told.load(Relaxed) == 0 && !hand.is_idle());
    hand.call_back();
    assert!(told.load(Relaxed) == 100 && hand.is_idle());
}

#[test]
fn settling_takes_any_amount() {
    let mut hand = ByHand::new(Producer::builder(), 3).unwrap();
    let topic = hand.topic("t").unwrap();
    let deliveries: Vec<_> = (0..20_000).map(|_| topic.try_send(Record::value(&[7; 300])).unwrap()).collect();
    assert!(hand.settle());
    assert!(deliveries.iter().all(|delivery| delivery.try_result().unwrap().is_ok()));
}

/// One line, and not one for every record.
#[test]
fn a_listener_that_always_panics_does_not_flood_the_log() {
    let heard = Heard::of("ringmail::driver::callbacks");
    let listener = |_: u64, _: Result<&RecordMetadata, &DeliveryError>| panic!("a test's listener");
    let mut hand = ByHand::new(Producer::builder().listener(listener), 1).unwrap();
    let topic = hand.topic("t").unwrap();
    for tag in 0..1000 {
        topic.try_send_tagged(Record::value("x"), tag).unwrap();
    }
    assert!(hand.settle());
    let said = heard.take();
    assert!(said.len() == 1 && said[0].starts_with("ERROR a delivery listener or callback panicked"), "{said:#?}");
}
