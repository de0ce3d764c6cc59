//! The room as a whole, single-threaded, and a stress test with real threads. The models are in `models.rs`.

// They fill memories record by record: minutes each under Miri, which has the pool's own tests of asks.
#[cfg(not(miri))]
mod asks;
mod beyond;
mod stress;

use std::sync::Arc;

use super::{
    drain::{Chain, Peek},
    ring::Look,
    *,
};
use crate::{
    completion::Outcome,
    error::Written,
    record::Place,
    wire::{
        record::{Fields, Header},
        varint::unzigzag,
    },
};

/// A record as a broker would read it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Read {
    timestamp: i64,
    offset_delta: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A decoder of its own, that shares nothing with the encoder.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn varint(&mut self) -> i64 {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.0[0];
            self.0 = &self.0[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return unzigzag(value);
            }
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.varint()).ok()?;
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(bytes.to_vec())
    }
}

fn read(mut bytes: &[u8], base_timestamp: i64) -> Vec<Read> {
    let mut records = vec![];
    while !bytes.is_empty() {
        let mut cursor = Cursor(bytes);
        let len = cursor.varint() as usize;
        let (body, rest) = cursor.0.split_at(len);
        assert_eq!(body[0], 0, "attributes");
        let mut cursor = Cursor(&body[1..]);
        let timestamp = base_timestamp + cursor.varint();
        let (offset_delta, key, value) = (cursor.varint(), cursor.bytes(), cursor.bytes());
        let headers = (0..cursor.varint()).map(|_| (cursor.bytes().unwrap(), cursor.bytes())).collect();
        assert!(cursor.0.is_empty(), "a record's length");
        records.push(Read { timestamp, offset_delta, key, value, headers });
        bytes = rest;
    }
    records
}

/// Reads a chain and checks what its header will say.
fn read_chain(chain: &Chain) -> Vec<Read> {
    let mut records = vec![];
    for segment in &chain.segments {
        let part = read(segment.bytes(), chain.base_timestamp);
        assert_eq!(part.len(), segment.count() as usize);
        records.extend(part);
    }
    assert_eq!(records.len(), chain.count as usize);
    assert_eq!(chain.segments.iter().map(|segment| segment.len()).sum::<u32>(), chain.bytes);
    assert_eq!(records.iter().map(|record| record.timestamp).max(), Some(chain.max_timestamp));
    for (delta, record) in records.iter().enumerate() {
        assert_eq!(record.offset_delta, delta as i64, "offset deltas count from 0");
    }
    records
}

/// Ends the chain's completions and gives its memory back.
fn settle(drain: &mut Drain, mut chain: Chain, place: &Arc<Place>) {
    for mut segment in chain.segments.drain(..) {
        segment.report(place, Outcome::Delivered { base_offset: Some(0), log_append_time: None });
        drain.give_back(segment);
    }
    drain.recycle(chain);
    drain.wake_callers();
}

fn place(partition: i32) -> Arc<Place> {
    Arc::new(Place { topic: "t".into(), partition })
}

fn new(config: AccumulatorConfig) -> (Arc<Accumulator>, Drain, Arc<Partition>) {
    let (accumulator, mut drain) = Accumulator::new(config).unwrap();
    accumulator.clock.store(1_000, Relaxed);
    let partition = drain.add_partition(place(0));
    (accumulator, drain, partition)
}

fn value(value: &[u8]) -> Fields<'_> {
    Fields { value: Some(value), ..Fields::default() }
}

fn append(accumulator: &Accumulator, partition: &Partition, bytes: &[u8]) -> Result<Appended, Refused> {
    accumulator.append(partition, &value(bytes), None, Attach::None, true, None)
}

/// Everything that waits, as batches.
fn drain_all(drain: &mut Drain, id: u32) -> Vec<Vec<Read>> {
    let place = drain.partition(id).place.clone();
    let mut batches = vec![];
    while let Some(chain) = drain.drain(id, Leave::Now) {
        batches.push(read_chain(&chain));
        settle(drain, chain, &place);
    }
    batches
}

#[test]
fn records_come_out_as_they_went_in() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    let headers = [Header { key: "a", value: Some(b"1") }, Header { key: "a", value: None }];
    let all = Fields { key: Some(b"key"), value: Some(b"value"), headers: &headers };
    let first = accumulator.append(&partition, &all, Some(5_000), Attach::None, true, None).unwrap();
    assert!(first.delivery.is_none());
    accumulator.append(&partition, &Fields::default(), Some(4_000), Attach::None, false, None).unwrap();
    append(&accumulator, &partition, b"").unwrap();
    assert_eq!(drain.peek(0), Peek { bytes: 38, any: true, complete: false, head: 16, newest: 16 });
    let chain = drain.drain(0, Leave::Now).unwrap();
    assert_eq!((chain.base_timestamp, chain.max_timestamp, chain.bytes), (5_000, 5_000, 38));
    let records = read_chain(&chain);
    assert_eq!(records[0].key.as_deref(), Some(&b"key"[..]));
    assert_eq!(records[0].headers, [(b"a".to_vec(), Some(b"1".to_vec())), (b"a".to_vec(), None)]);
    assert_eq!((&records[1].key, &records[1].value, records[1].timestamp), (&None, &None, 4_000));
    assert_eq!((records[2].value.as_deref(), records[2].timestamp), (Some(&b""[..]), 1_000), "the clock's");
    assert!(accumulator.free() < 32 << 20);
    settle(&mut drain, chain, &partition.place);
    assert_eq!(accumulator.free(), 32 << 20);
    assert_eq!(drain.peek(0), Peek { head: 17, newest: 17, ..Peek::default() });
}

#[test]
fn batches_grow_to_batch_size_through_growing_segments() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    // Below `leave_at` a full segment continues although the partition is not busy.
    let mut ready = vec![];
    drain.visit_ready(&mut ready);
    assert!(ready.is_empty());
    let (mut appended, mut told) = (0u64, vec![]);
    while drain.peek(0).bytes < 16_384 {
        append(&accumulator, &partition, &[7; 100]).unwrap();
        appended += 1;
        ready.clear();
        drain.visit_ready(&mut ready);
        if !ready.is_empty() {
            told.push(drain.peek(0).bytes);
        }
    }
    assert_eq!(told[0], 109, "the first record arms linger");
    assert!((16_384..16_384 + 110).contains(told.last().unwrap()), "crossing batch.size tells the sender: {told:?}");
    let chain = drain.drain(0, Leave::Now).unwrap();
    assert_eq!(u64::from(chain.count), appended);
    assert!(chain.segments.len() <= 4, "{chain:?}");
    settle(&mut drain, chain, &partition.place);
    // The next batch opens with what this one needed.
    for _ in 0..100 {
        append(&accumulator, &partition, &[7; 100]).unwrap();
    }
    let chain = drain.drain(0, Leave::Now).unwrap();
    assert_eq!(chain.segments.len(), 1);
    settle(&mut drain, chain, &partition.place);
    assert_eq!(accumulator.free(), 32 << 20);
}

#[test]
#[cfg_attr(miri, ignore = "minutes")]
fn a_busy_partition_continues_up_to_its_limit() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig { slots: 64, ..AccumulatorConfig::default() });
    partition.busy.store(true, Relaxed);
    partition.set_leave_at(0);
    partition.limit.store(100_000, Relaxed);
    for _ in 0..3_000 {
        append(&accumulator, &partition, &[7; 100]).unwrap();
    }
    let mut sizes = vec![];
    while let Some(chain) = drain.drain(0, Leave::Now) {
        read_chain(&chain);
        sizes.push(chain.bytes);
        settle(&mut drain, chain, &partition.place);
    }
    let (last, full) = sizes.split_last().unwrap();
    assert!(*last > 0 && full.iter().all(|bytes| (99_000..=100_000 - 61).contains(bytes)), "{sizes:?}");
    assert_eq!(accumulator.free(), 32 << 20);
}

#[test]
fn a_large_record_has_its_own_run() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    append(&accumulator, &partition, b"small").unwrap();
    let large = vec![3; 900_000];
    append(&accumulator, &partition, &large).unwrap();
    assert!(32 * 1024 * 1024 - accumulator.free() < 1_050_000, "cut to what it needs");
    append(&accumulator, &partition, b"behind").unwrap();
    let records: Vec<_> = drain_all(&mut drain, 0).into_iter().flatten().map(|read| read.value.unwrap()).collect();
    assert_eq!(records, [b"small".to_vec(), large, b"behind".to_vec()]);
    assert_eq!(append(&accumulator, &partition, &vec![0; 1 << 20]).unwrap_err(), Refused::TooLarge);
    assert_eq!(accumulator.free(), 32 << 20);
}

#[test]
fn several_mib_in_one_run() {
    let (mib, len) = if cfg!(miri) { (4, 1_300_000) } else { (32, 10_000_000) };
    let config = AccumulatorConfig { buffer_memory: mib << 20, max_request_size: 20 << 20, ..Default::default() };
    let (accumulator, mut drain, partition) = new(config);
    let large = (0..=255).collect::<Vec<u8>>().repeat(len / 256);
    for _ in 0..3 {
        append(&accumulator, &partition, &large).unwrap();
    }
    assert!(matches!(append(&accumulator, &partition, &large).unwrap_err(), Refused::NoRun));
    let values: Vec<_> = drain_all(&mut drain, 0).into_iter().flatten().map(|read| read.value.unwrap()).collect();
    assert!(values.len() == 3 && values.iter().all(|value| *value == large));
    assert_eq!(accumulator.free(), mib << 20);
    append(&accumulator, &partition, &large).unwrap();
    drain_all(&mut drain, 0);
}

#[test]
fn a_claim_is_written_in_place() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    let headers = [Header { key: "h", value: Some(b"v") }];
    let fields = Fields { key: Some(b"key"), value: None, headers: &headers };
    let mut claim = accumulator.claim(&partition, &fields, 5, Some(77), None).unwrap();
    drop(accumulator.claim(&partition, &Fields::default(), 50_000, None, None).unwrap());
    append(&accumulator, &partition, b"before").unwrap();
    claim.value_mut().copy_from_slice(b"value");
    let done = claim.commit(Attach::Delivery).unwrap();
    append(&accumulator, &partition, b"after").unwrap();
    let records: Vec<_> = drain_all(&mut drain, 0).into_iter().flatten().collect();
    let values: Vec<_> = records.iter().map(|read| read.value.clone().unwrap()).collect();
    assert_eq!(values, [b"before".to_vec(), b"value".to_vec(), b"after".to_vec()]);
    assert_eq!((records[1].key.as_deref(), records[1].timestamp), (Some(&b"key"[..]), 77));
    assert_eq!(done.delivery.unwrap().try_result().unwrap().unwrap().timestamp(), 77);
    assert_eq!(accumulator.free(), 32 << 20);
}

#[test]
fn refusals_keep_nothing() {
    let config = AccumulatorConfig { buffer_memory: 64 << 10, slots: 4, ..AccumulatorConfig::default() };
    let (accumulator, mut drain, partition) = new(config);
    assert_eq!(append(&accumulator, &partition, &[0; 70_000]).unwrap_err(), Refused::TooLarge);
    // Sealed one by one: the ring is full before the memory is.
    partition.set_leave_at(0);
    let mut accepted = 0;
    let refused = loop {
        match append(&accumulator, &partition, &[1; 900]) {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::RingFull);
    let claim = accumulator.claim(&partition, &Fields::default(), 100, None, None).unwrap();
    let (claim, refused) = claim.commit(Attach::None).unwrap_err();
    assert_eq!(refused, Refused::RingFull);
    let other = drain.add_partition(place(1));
    let hold = accumulator.claim(&other, &Fields::default(), 30_000, None, None).unwrap();
    assert!(append(&accumulator, &other, &[1; 30_000]).unwrap_err().is_full());
    drop(hold);
    append(&accumulator, &other, &[1; 30_000]).unwrap();
    assert_eq!(drain_all(&mut drain, 0).iter().map(Vec::len).sum::<usize>(), accepted);
    claim.commit(Attach::None).unwrap();
    assert_eq!(drain_all(&mut drain, 0).len() + drain_all(&mut drain, 1).len(), 2);
    assert_eq!(accumulator.free(), 64 << 10);
}

/// The memory is full before the ring is, whatever the records' size.
#[test]
#[cfg_attr(miri, ignore = "fills 32 MiB several times")]
fn one_stuck_partition_can_use_the_memory() {
    for size in [10, 100, 1000, 10_000, 100_000, 700_000] {
        let config = AccumulatorConfig { slots: 128, ..AccumulatorConfig::default() };
        let (accumulator, mut drain, partition) = new(config);
        let bytes = vec![7; size];
        let (mut accepted, overhead) = (0, 7);
        let refused = loop {
            match append(&accumulator, &partition, &bytes) {
                Ok(_) => accepted += size + overhead,
                Err(refused) => break refused,
            }
        };
        assert!(accepted >= 20 << 20, "{size}: {refused:?} with {} KiB accepted", accepted >> 10);
        drain_all(&mut drain, 0);
        assert_eq!(accumulator.free(), 32 << 20);
    }
}

/// Whatever writers are at, what they append after it was ended starts another batch; also in a full ring, as soon as
/// there is a slot.
#[test]
fn an_ended_batch_takes_no_more() {
    let config = AccumulatorConfig { slots: 4, ..AccumulatorConfig::default() };
    let (accumulator, mut drain, partition) = new(config);
    partition.busy.store(true, Relaxed);
    drain.end_batch(0);
    append(&accumulator, &partition, b"a").unwrap();
    drain.end_batch(0);
    drain.end_batch(0);
    append(&accumulator, &partition, b"b").unwrap();
    // The segment is full, and what goes on with it is not there yet.
    partition.limit.store(5_000, Relaxed);
    while partition.tail.load(Relaxed) < 6 {
        append(&accumulator, &partition, &[7; 300]).unwrap();
    }
    let refused = loop {
        match append(&accumulator, &partition, &[8; 200]) {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::RingFull);
    drain.end_batch(0);
    let first = drain.drain(0, Leave::Complete).unwrap();
    assert_eq!(read_chain(&first).len(), 1);
    settle(&mut drain, first, &partition.place);
    append(&accumulator, &partition, b"c").unwrap();
    let batches = drain_all(&mut drain, 0);
    let last = batches.last().unwrap();
    assert_eq!((last.len(), last[0].value.as_deref()), (1, Some(&b"c"[..])), "{batches:?}");
    assert_eq!(accumulator.free(), 32 << 20);
}

/// A segment was installed for a record that did not come, then the limit sank: the next writer seals it without a
/// record. What follows must be seen.
#[test]
fn an_empty_sealed_segment_hides_nothing() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    // Installed and left, as by a writer that was descheduled before its claim.
    let Look::Next { position, from, base } = accumulator.look(&partition) else { panic!("not empty") };
    accumulator.install_for_test(&partition, position, from, base, &value(b"small"));
    partition.limit.store(2_000, Relaxed);
    append(&accumulator, &partition, &[7; 2_500]).unwrap();
    append(&accumulator, &partition, b"behind").unwrap();
    let peek = drain.peek(0);
    assert!(peek.any && peek.bytes >= 2_500, "{peek:?}");
    assert_eq!(peek.head, position + 1, "{peek:?}");
    let records: usize = drain_all(&mut drain, 0).iter().map(Vec::len).sum();
    assert_eq!(records, 2);
    assert!(!drain.peek(0).any);
    assert_eq!(accumulator.free(), 32 << 20);
}

#[test]
fn may_open_false_changes_nothing() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    let sticky = |bytes: &[u8]| {
        accumulator
            .append(&partition, &value(bytes), None, Attach::None, false, None)
            .map_err(|why| (why, accumulator.free()))
    };
    assert_eq!(sticky(b"x").unwrap_err(), (Refused::WouldOpen, 32 << 20));
    partition.set_leave_at(0);
    append(&accumulator, &partition, &[0; 600]).unwrap();
    sticky(b"x").unwrap();
    let free = accumulator.free();
    assert_eq!(sticky(&[0; 600]).unwrap_err(), (Refused::WouldOpen, free));
    assert_eq!(sticky(&[0; 300_000]).unwrap_err(), (Refused::WouldOpen, free));
    sticky(b"y").unwrap();
    partition.busy.store(true, Relaxed);
    sticky(&[0; 600]).unwrap();
    assert_eq!(drain_all(&mut drain, 0).iter().map(Vec::len).collect::<Vec<_>>(), [4], "one batch");
}

#[test]
fn entries_say_who_is_told() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    append(&accumulator, &partition, b"untagged").unwrap();
    // The open segment has no room for entries: it is sealed, and the batch goes on in one that has.
    for i in 0..200u64 {
        let attach = match i % 4 {
            0 => Attach::Tag(i),
            1 => Attach::Callback(i),
            2 => Attach::Delivery,
            _ => Attach::None,
        };
        accumulator.append(&partition, &value(&[1; 20]), Some(1_000 + i as i64), attach, true, None).unwrap();
    }
    accumulator.append(&partition, &value(&[1; 400_000]), None, Attach::Tag(200), true, None).unwrap();
    let (mut seen, mut deliveries) = (0u64, 0);
    while let Some(chain) = drain.drain(0, Leave::Now) {
        read_chain(&chain);
        for segment in &chain.segments {
            deliveries += segment.deliveries();
            for entry in segment.entries() {
                if !segment.tagged() {
                    assert_eq!(entry, Entry::None);
                    continue;
                }
                let timestamp = if seen == 200 { 1_000 } else { 1_000 + seen as i64 };
                assert_eq!(
                    entry,
                    match seen % 4 {
                        0 => Entry::Tag { tag: seen, timestamp },
                        1 => Entry::Callback { value: seen, timestamp },
                        _ => Entry::None,
                    }
                );
                seen += 1;
            }
        }
        settle(&mut drain, chain, &partition.place);
    }
    assert_eq!((seen, deliveries), (201, 50));
}

#[test]
fn deliveries_name_their_record() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    let mut deliveries = vec![];
    for i in 0..30 {
        let attach = if i % 3 == 0 { Attach::Delivery } else { Attach::None };
        let done = accumulator.append(&partition, &value(b"v"), Some(i), attach, true, None).unwrap();
        deliveries.extend(done.delivery.map(|delivery| (i, delivery)));
    }
    let chain = drain.drain(0, Leave::Now).unwrap();
    assert_eq!(chain.segments[0].deliveries(), 10);
    settle(&mut drain, chain, &partition.place);
    for (i, delivery) in deliveries {
        let metadata = delivery.try_result().unwrap().unwrap();
        assert_eq!((metadata.offset(), metadata.timestamp()), (Some(i), i));
    }
}

#[test]
fn closed_is_closed() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    append(&accumulator, &partition, b"x").unwrap();
    let claim = accumulator.claim(&partition, &Fields::default(), 1, None, None).unwrap();
    assert!(drain.close_partition(0) && drain.close_partition(0));
    assert_eq!(append(&accumulator, &partition, b"y").unwrap_err(), Refused::Closed);
    assert_eq!(claim.commit(Attach::None).unwrap_err().1, Refused::Closed);
    assert!(!drain.is_drained(0));
    assert_eq!(drain_all(&mut drain, 0).len(), 1);
    assert!(drain.is_drained(0));
    assert_eq!(accumulator.free(), 32 << 20);
}

#[test]
fn marks_tell_when_a_flush_is_done() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    assert_eq!(drain.tail_position(0), drain.head_position(0), "nothing to flush");
    append(&accumulator, &partition, b"x").unwrap();
    let mark = drain.tail_position(0);
    assert!(drain.head_position(0) < mark);
    assert!(drain.drain(0, Leave::Complete).is_none());
    let chain = drain.drain(0, Leave::Now).unwrap();
    assert_eq!((chain.end_position, drain.head_position(0)), (mark, mark));
    settle(&mut drain, chain, &partition.place);
}

#[test]
#[cfg_attr(miri, ignore = "fills 32 MiB")]
fn one_stuck_broker_leaves_room_for_the_others() {
    let (accumulator, mut drain, stuck) = new(AccumulatorConfig { slots: 256, ..AccumulatorConfig::default() });
    let other = drain.add_partition(place(1));
    drain.set_leader(0, 1);
    drain.set_leader(1, 2);
    drain.set_leader(0, 1);
    assert_eq!(stuck.leader.load(Relaxed), 1);
    stuck.set_leave_at(0);
    let mut chains = vec![];
    let refused = loop {
        if let Err(refused) = append(&accumulator, &stuck, &[0; 200_000]) {
            break refused;
        }
        chains.extend(drain.drain(0, Leave::Now));
    };
    assert_eq!(refused, Refused::NoRun);
    let free = accumulator.free();
    assert!(free > 9 << 20 && free < 13 << 20, "about a third is left: {free}");
    append(&accumulator, &other, &[0; 200_000]).unwrap();
    for chain in chains {
        settle(&mut drain, chain, &stuck.place);
    }
    append(&accumulator, &stuck, &[0; 200_000]).unwrap();
    drain_all(&mut drain, 0);
    drain_all(&mut drain, 1);
}

#[test]
fn memory_follows_data_not_partitions() {
    let (accumulator, mut drain, _) = new(AccumulatorConfig::default());
    let count = if cfg!(miri) { 20 } else { 10_000 };
    let partitions: Vec<_> = (1..=count).map(|i| drain.add_partition(place(i))).collect();
    for partition in &partitions {
        append(&accumulator, partition, &[0; 100]).unwrap();
    }
    assert_eq!((32 << 20) - accumulator.free(), count as usize * UNIT);
    let mut ready = vec![];
    drain.visit_ready(&mut ready);
    assert_eq!(ready.len(), count as usize);
    for id in ready {
        drain_all(&mut drain, id);
    }
    assert_eq!(accumulator.free(), 32 << 20);
}

#[test]
fn what_cannot_be_is_refused() {
    let with = |change: fn(&mut AccumulatorConfig)| {
        let mut config = AccumulatorConfig::default();
        change(&mut config);
        Accumulator::new(config).err()
    };
    assert_eq!(with(|config| config.buffer_memory = 1000), Some(Unfit::TooSmall));
    assert_eq!(with(|config| config.buffer_memory = usize::MAX), Some(Unfit::TooLarge));
    assert_eq!(with(|config| config.slots = 12), Some(Unfit::Slots));
    assert_eq!(with(|config| config.slots = 512), Some(Unfit::Slots));
}

#[test]
fn a_stopped_clock_is_not_believed() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    append(&accumulator, &partition, b"").unwrap();
    accumulator.stop_clock();
    append(&accumulator, &partition, b"").unwrap();
    let times: Vec<_> = drain_all(&mut drain, 0).iter().flatten().map(|record| record.timestamp).collect();
    assert!(times[0] == 1_000 && times[1] > 1_700_000_000_000, "the sender's, then the system's: {times:?}");
}

/// The sender is woken when many records needed the system's clock, and not for a few.
#[test]
fn who_needs_the_clock_often_wakes_the_sender() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    accumulator.stop_clock();
    // From now on the sender is told of the partition: full segments ring no more.
    append(&accumulator, &partition, b"opens a batch").unwrap();
    let rung = |times: usize| {
        assert!(accumulator.doorbell.try_park());
        (0..times).for_each(|_| drop(append(&accumulator, &partition, b"").unwrap()));
        let rung = accumulator.doorbell.is_rung();
        accumulator.doorbell.awake();
        rung
    };
    accumulator.doorbell.awake();
    accumulator.stop_clock();
    assert!(!rung(60));
    assert!(rung(10));
    assert!(!rung(50), "once");
    drain_all(&mut drain, 0);
}

#[test]
fn what_a_batch_does_not_use_is_free_while_it_is_in_flight() {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
    let used = |accumulator: &Accumulator| ((32 << 20) - accumulator.free()) >> 10;
    for (attach, records, kept) in [(Attach::None, 1, 16), (Attach::None, 200, 32), (Attach::Tag(7), 200, 48)] {
        partition.hint.store(3, Relaxed);
        if attach != Attach::None {
            accumulator.tag_records();
        }
        for _ in 0..records {
            accumulator.append(&partition, &value(&[1; 100]), None, attach, true, None).unwrap();
        }
        assert_eq!(used(&accumulator), 64, "KiB while it is open");
        let chain = drain.drain(0, Leave::Now).unwrap();
        assert_eq!((chain.segments.len(), used(&accumulator)), (1, kept));
        let other = drain.add_partition(place(1));
        append(&accumulator, &other, &[9; 40_000]).unwrap();
        assert_eq!(read_chain(&chain).len(), records);
        let segment = &chain.segments[0];
        let expected = if attach == Attach::None { Entry::None } else { Entry::Tag { tag: 7, timestamp: 1_000 } };
        assert!(segment.entries().all(|entry| entry == expected));
        settle(&mut drain, chain, &partition.place);
        drain_all(&mut drain, other.id);
        assert_eq!(used(&accumulator), 0);
    }
}

/// A lease that is lost on the way, of all records or of some: their deliveries end, as possibly written, those of the others
/// as they were reported, and the memory comes back.
#[test]
fn what_is_lost_ends_as_possibly_written() {
    for reported in 0..8_u32 {
        let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
        let append =
            |i| accumulator.append(&partition, &value(&[7; 20]), Some(i), Attach::Delivery, true, None).unwrap();
        let deliveries: Vec<_> = (0..30).map(|i| append(i).delivery.unwrap()).collect();
        let mut chain = drain.drain(0, Leave::Now).unwrap();
        let mut last = chain.segments.remove(0);
        let len = last.len() / 30;
        let mut parts = vec![last.cut_front(10, 10 * len), last.cut_front(10, 10 * len)];
        parts.push(last);
        let hold = parts[0].hold();
        for (part, nth) in parts.iter_mut().zip(0..) {
            let mut shared = part.share();
            if reported >> nth & 1 > 0 {
                let outcome = Outcome::Delivered { base_offset: Some(1000 * nth), log_append_time: None };
                shared.report(&partition.place, outcome);
            }
        }
        assert!(
            deliveries
                .iter()
                .enumerate()
                .all(|(i, delivery)| { delivery.try_result().is_some() == (reported >> (i / 10) & 1 > 0) })
        );
        drop(parts);
        for (i, delivery) in deliveries.iter().enumerate() {
            match delivery.try_result().unwrap() {
                Ok(metadata) => assert_eq!(metadata.offset(), Some(1000 * (i as i64 / 10) + i as i64 % 10)),
                Err(error) => assert_eq!(error.written(), Written::Possibly),
            }
            assert_eq!(delivery.try_result().unwrap().is_ok(), reported >> (i / 10) & 1 > 0);
        }
        assert!(accumulator.free() < accumulator.total(), "held");
        drop(hold);
        assert_eq!(accumulator.free(), accumulator.total());
    }
}

/// Fills all free memory with `byte`, as later owners of it might.
fn overwrite_free(accumulator: &Accumulator, byte: u8) {
    let taken: Vec<_> = std::iter::from_fn(|| accumulator.pool.take(pool::CLASSES - 1, 0, 0, &mut false)).collect();
    assert_eq!(accumulator.free(), 0);
    for run in taken {
        accumulator.overwrite(&run, byte);
        accumulator.pool.put(run);
    }
}

/// A record that has its run for itself does not begin where the run does: what it keeps counts from its end, not from
/// its length.
#[test]
fn a_record_in_flight_keeps_its_last_bytes() {
    let classes = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
    for class in classes.into_iter().take(if cfg!(miri) { 1 } else { 4 }) {
        let buffer_memory = (4 * class).min(2 << 20);
        let config = AccumulatorConfig { buffer_memory, max_request_size: 4 << 20, ..AccumulatorConfig::default() };
        let (accumulator, mut drain, partition) = new(config);
        let content: Vec<u8> = (0..class + 64).map(|i| (i % 251) as u8).collect();
        // Runs are quarters of a class, and trimmed in quarters of their own: eighths of a class meet both.
        let (eighths, step) = if cfg!(miri) { (3, 128) } else { (1, 1) };
        let lengths = (1..=8).step_by(eighths).flat_map(|k| (class / 8 * k - 64..=class / 8 * k + 64).step_by(step));
        for (len, tagged, claimed) in lengths.flat_map(|len| [0, 1, 2, 3].map(|how| (len, how & 1 > 0, how & 2 > 0))) {
            let attach = if tagged { Attach::Tag(7) } else { Attach::None };
            if claimed {
                let mut claim = accumulator.claim(&partition, &Fields::default(), len, None, None).unwrap();
                claim.value_mut().copy_from_slice(&content[..len]);
                claim.commit(attach).unwrap();
            } else {
                accumulator.append(&partition, &value(&content[..len]), None, attach, true, None).unwrap();
            }
            let chain = drain.drain(0, Leave::Now).unwrap();
            let segment = &chain.segments[0];
            let before = segment.bytes().to_vec();
            overwrite_free(&accumulator, 0xee);
            assert!(before == segment.bytes(), "{len} bytes (tagged {tagged}, claimed {claimed}): {chain:?}");
            let entry = if tagged { Entry::Tag { tag: 7, timestamp: 1_000 } } else { Entry::None };
            assert!(segment.entries().eq([entry]));
            settle(&mut drain, chain, &partition.place);
        }
        assert_eq!(accumulator.free(), buffer_memory);
    }
}
