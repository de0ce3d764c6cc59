//! Idempotence as the broker sees it.

use super::*;

#[test]
fn the_last_five_batches_are_known_as_duplicates() {
    let mut broker = Harness::new(BrokerOptions::default());
    for i in 0..6 {
        assert_eq!(broker.send(&sequenced(0, 2 * i, &["a", "b"])), (0, i64::from(2 * i)));
    }
    for i in 1..6 {
        let answer = broker.produce(&sequenced(0, 2 * i, &["a", "b"]));
        assert_eq!((answer.error, answer.base_offset), (0, i64::from(2 * i)));
        assert_eq!(answer.log_append_time, NOW, "the trap: set although the topic has the producer's time");
    }
    assert_eq!(broker.send(&sequenced(0, 0, &["a", "b"])), (45, -1), "older than the last five");
    assert_eq!(broker.log().len(), 12, "nothing was stored twice");
}

#[test]
fn a_duplicate_is_known_by_its_sequences_alone() {
    let mut broker = Harness::new(BrokerOptions::default());
    broker.send(&sequenced(0, 0, &["a", "b"]));
    assert_eq!(broker.send(&sequenced(0, 0, &["x", "y"])), (0, 0));
    assert_eq!(broker.values(), ["a", "b"]);
    assert_eq!(broker.send(&sequenced(0, 0, &["a"])), (45, -1), "same start, other end");
    assert_eq!(broker.send(&sequenced(0, 1, &["b"])), (45, -1), "other start, same end");
}

#[test]
fn gaps_and_overlaps_are_out_of_order() {
    let mut broker = Harness::new(BrokerOptions::default());
    broker.send(&sequenced(0, 0, &["a", "b"]));
    let answer = broker.produce(&sequenced(0, 3, &["d"]));
    assert_eq!((answer.error, answer.base_offset, answer.log_start_offset), (45, -1, 0));
    assert_eq!(broker.send(&sequenced(0, 1, &["b", "c"])), (45, -1));
    assert_eq!(broker.send(&sequenced(0, 2, &["c"])), (0, 2), "in order it goes on");
}

#[test]
fn sequences_wrap_between_batches_and_inside_one() {
    let mut broker = Harness::new(BrokerOptions::default());
    assert_eq!(broker.send(&sequenced(0, i32::MAX - 1, &["a", "b"])), (0, 0), "any first sequence will do");
    assert_eq!(broker.send(&sequenced(0, i32::MAX, &["x"])), (45, -1));
    assert_eq!(broker.send(&sequenced(0, 0, &["c"])), (0, 2));
    let mut broker = Harness::new(BrokerOptions::default());
    assert_eq!(broker.send(&sequenced(0, i32::MAX, &["a", "b", "c"])), (0, 0));
    assert_eq!(broker.send(&sequenced(0, 2, &["d"])), (0, 3));
    assert_eq!(broker.send(&sequenced(0, i32::MAX, &["a", "b", "c"])), (0, 0), "a duplicate across the wrap");
    let sequences: Vec<_> = broker.log().iter().map(|record| record.sequence).collect();
    assert_eq!(sequences, [i32::MAX, 0, 1, 2]);
}

/// What Kafka's versions decide differently: before 2.5, from 2.5 on (KIP-360), from 4.5 on (KAFKA-15591).
#[test]
fn the_first_sequence_of_an_unknown_producer_is_a_matter_of_version() {
    use FirstSequence::{Any, Zero, ZeroWhenNew};
    let other = |sequence| {
        batch_with(&["x"], |header| {
            (header.producer_id, header.producer_epoch, header.base_sequence) = (6, 0, sequence)
        })
    };
    for rule in [Any, ZeroWhenNew, Zero] {
        let mut broker = Harness::new(BrokerOptions { first_sequence: rule, ..BrokerOptions::default() });
        let refused = match rule {
            Any => (0, 0),
            ZeroWhenNew => (45, -1),
            Zero => (59, -1),
        };
        assert_eq!(broker.send(&sequenced(0, 5, &["a"])), refused, "{rule:?}: a log that is new");
        let end = if rule == Any { 1 } else { 0 };
        assert_eq!(broker.send(&batch(&["nobody's"])), (0, end), "{rule:?}: without a producer id");
        let known = if rule == Zero { (59, -1) } else { (0, end + 1) };
        assert_eq!(broker.send(&other(7)), known, "{rule:?}: a log that holds a record");
        let mut broker = Harness::new(BrokerOptions { first_sequence: rule, ..BrokerOptions::default() });
        assert_eq!(broker.send(&sequenced(0, 0, &["a"])), (0, 0), "{rule:?}: 0 is right for all");
        assert_eq!(broker.send(&sequenced(0, 1, &["b"])), (0, 1));
        assert_eq!(broker.send(&sequenced(1, 2, &["x"])), (45, -1), "{rule:?}: a new epoch of a known one");
        broker.model.restart_node(0);
        assert_eq!(broker.send(&sequenced(0, 1, &["b"])), (0, 1), "{rule:?}: the last batch is remembered");
        assert!(broker.model.delete_records("t", 0, 2));
        assert_eq!(broker.send(&sequenced(0, 3, &["x"])), (45, -1), "{rule:?}: and so it is when it is deleted");
        broker.model.expire_producers();
        let forgotten = if rule == Zero { (59, -1) } else { (0, 2) };
        assert_eq!(broker.send(&sequenced(0, 5, &["c"])), forgotten, "{rule:?}: emptied, and all is forgotten");
        broker.model.delete_topic("t");
        broker.model.create_topic("t", TopicOptions::default());
        assert_eq!(broker.send(&sequenced(0, 6, &["d"])), refused, "{rule:?}: made again under its name");
        assert_eq!(broker.send(&sequenced(1, 0, &["d"])), (0, if rule == Any { 1 } else { 0 }));
    }
}

#[test]
fn epochs_only_grow_and_start_at_zero() {
    let mut broker = Harness::new(BrokerOptions::default());
    broker.send(&sequenced(3, 0, &["a"]));
    assert_eq!(broker.send(&sequenced(2, 1, &["x"])), (47, -1));
    assert_eq!(broker.send(&sequenced(2, 0, &["a"])), (47, -1), "even a duplicate");
    assert_eq!(broker.send(&sequenced(4, 1, &["x"])), (45, -1), "a new epoch, not from 0");
    assert_eq!(broker.send(&sequenced(3, 1, &["b"])), (0, 1), "the old one goes on after that");
    assert_eq!(broker.send(&sequenced(32767, 0, &["c"])), (0, 2));
    assert_eq!(broker.send(&sequenced(3, 2, &["x"])), (47, -1));
    assert_eq!(broker.values(), ["a", "b", "c"]);
}

#[test]
fn a_refused_batch_uses_up_no_sequence() {
    let mut broker = Harness::with_topic(TopicOptions { max_message_bytes: 100, ..TopicOptions::default() });
    let long = "x".repeat(100);
    assert_eq!(broker.send(&sequenced(0, 0, &[&long])), (10, -1));
    assert_eq!(broker.send(&sequenced(0, 1, &["behind it"])), (0, 0), "of a producer that is not known, anything goes");
    assert_eq!(broker.send(&sequenced(0, 2, &[&long])), (10, -1));
    assert_eq!(broker.send(&sequenced(0, 3, &["behind it"])), (45, -1));
    assert_eq!(broker.send(&sequenced(0, 2, &["in its place"])), (0, 1));
}

#[test]
fn producers_and_partitions_do_not_mix() {
    let mut broker = Harness::with_topic(TopicOptions { partitions: 3, ..TopicOptions::default() });
    broker.send(&sequenced(0, 0, &["a"]));
    let other = batch_with(&["b"], |header| {
        header.producer_id = 6;
        header.producer_epoch = 0;
        header.base_sequence = 0;
    });
    assert_eq!(broker.send(&other), (0, 1));
    let (_, answers, _) = broker.produce_all(&[("t", 2, &sequenced(0, 0, &["c"]))]);
    assert_eq!((answers[0].error, answers[0].base_offset), (0, 0));
    assert_eq!(broker.send(&batch(&["no id"])), (0, 2));
    assert_eq!(broker.send(&batch(&["no id"])), (0, 3), "without an id nothing is compared");
}

#[test]
fn a_restarted_broker_remembers_only_the_last_batch() {
    let mut broker = Harness::new(BrokerOptions::default());
    for i in 0..5 {
        broker.send(&sequenced(0, i, &["a"]));
    }
    broker.model.restart_node(1);
    assert_eq!(broker.send(&sequenced(0, 0, &["a"])), (0, 0), "another node was restarted");
    broker.model.restart_node(0);
    let again: Vec<_> = (0..5).map(|i| broker.send(&sequenced(0, i, &["a"]))).collect();
    assert_eq!(again, [(45, -1), (45, -1), (45, -1), (45, -1), (0, 4)]);
    broker.model.expire_producers();
    assert_eq!(broker.send(&sequenced(0, 3, &["twice"])), (0, 5), "what is not known is stored again");
}

#[test]
fn checks_come_in_kafkas_order() {
    let mut broker = Harness::new(BrokerOptions::default());
    broker.send(&sequenced(5, 0, &["a"]));
    let wrong_epoch_and_count = batch_with(&["a"], |header| {
        header.producer_id = 5;
        header.producer_epoch = 0;
        header.base_sequence = 0;
        header.last_offset_delta = 1;
    });
    assert_eq!(broker.send(&wrong_epoch_and_count), (87, -1), "records before sequences");
    let mut wrong_crc = wrong_epoch_and_count;
    wrong_crc[17] ^= 1;
    assert_eq!(broker.send(&wrong_crc), (2, -1), "the CRC before records");
    broker.model.move_leader("t", 0, 1);
    assert_eq!(broker.send(&wrong_crc), (6, -1), "the leader before the CRC");
    wrong_crc[16] = 1;
    assert_eq!(broker.send(&wrong_crc), (87, -1), "the magic before the leader");
}
