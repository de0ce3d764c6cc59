//! Real threads, little memory: every path is hit many times.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::*;

const WRITERS: u64 = 4;
const PARTITIONS: usize = 3;
const MEMORY: usize = 64 << 10;

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A record's value: its tag, then the writer's byte, mostly few, sometimes many.
fn fill(tag: u64, dice: u64) -> Vec<u8> {
    let mut value = tag.to_le_bytes().to_vec();
    let len = if dice >> 40 & 63 == 0 { (dice >> 8) % 6_000 } else { (dice >> 8) % 400 };
    value.resize(8 + len as usize, (tag >> 32) as u8);
    value
}

struct Accepted {
    tags: Vec<Vec<u64>>,
    deliveries: Vec<crate::completion::Delivery>,
}

/// Appends until everything is written or the partition is closed; returns what was accepted, per partition.
fn write(accumulator: &Arc<Accumulator>, partitions: &[Arc<Partition>], writer: u64, records: u64) -> Accepted {
    let mut accepted = Accepted { tags: vec![vec![]; PARTITIONS], deliveries: vec![] };
    let mut seed = writer + 0x9e37_79b9;
    for number in 0..records {
        let tag = writer << 32 | number;
        let dice = random(&mut seed);
        let at = dice as usize % PARTITIONS;
        let partition = &partitions[at];
        let bytes = fill(tag, dice);
        let attach = match dice >> 30 & 7 {
            0 => Attach::Delivery,
            1 => Attach::Tag(tag),
            _ => Attach::None,
        };
        let mut private = None;
        if dice >> 20 & 15 == 0 {
            private = accumulator.claim(partition, &Fields::default(), bytes.len(), None, None).ok();
            if dice >> 24 & 3 == 0 {
                private = None; // dropped
            }
        }
        let done = accumulator.block_for_room(None, || {
            let done = match private.take() {
                Some(mut claim) => {
                    claim.value_mut().copy_from_slice(&bytes);
                    claim.commit(attach).map_err(|(claim, why)| {
                        private = Some(claim);
                        why
                    })
                }
                None => accumulator.append(partition, &value(&bytes), None, attach, true, None),
            };
            match done {
                Err(refused) if refused.is_full() => None,
                done => Some(done),
            }
        });
        match done.unwrap() {
            Ok(appended) => {
                accepted.tags[at].push(tag);
                accepted.deliveries.extend(appended.delivery);
            }
            Err(refused) => {
                assert_eq!(refused, Refused::Closed);
                return accepted;
            }
        }
    }
    accepted
}

fn check_batch(records: &[Read], into: &mut HashMap<u64, Vec<u64>>) {
    for record in records {
        let value = record.value.as_deref().unwrap();
        let tag = u64::from_le_bytes(value[..8].try_into().unwrap());
        assert!(value[8..].iter().all(|byte| u64::from(*byte) == tag >> 32));
        into.entry(tag >> 32).or_default().push(tag);
    }
}

/// Counts all the time, while records come and go: never backwards, never more waiting than accepted.
fn count(accumulator: &Accumulator, partitions: &[Arc<Partition>], over: &plain::AtomicBool) {
    let mut before = [0; PARTITIONS];
    // Miri runs one thread at a time: there the others are to get on.
    for _ in 0..if cfg!(miri) { 100 } else { usize::MAX } {
        if over.load(Relaxed) {
            break;
        }
        for (partition, before) in partitions.iter().zip(&mut before) {
            // The cap would hide a count that went back: look below it.
            if let Some(census) = accumulator.try_census(partition) {
                assert!(census.accepted >= *before, "{} after {before}", census.accepted);
                assert!(census.waiting <= census.accepted);
                *before = census.accepted;
            }
        }
        std::thread::yield_now();
    }
}

fn stress(records: u64, close_after: u64, seed: u64) {
    let config = AccumulatorConfig { buffer_memory: MEMORY, slots: 4, batch_size: 2_000, ..Default::default() };
    let (accumulator, mut drain) = Accumulator::new(config).unwrap();
    let partitions: Vec<_> = (0..PARTITIONS).map(|at| drain.add_partition(place(at as i32))).collect();
    for partition in &partitions {
        partition.limit.store(9_000, Relaxed);
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (accumulator, partitions) = (accumulator.clone(), partitions.clone());
            std::thread::spawn(move || write(&accumulator, &partitions, writer, records))
        })
        .collect();
    let over = Arc::new(plain::AtomicBool::new(false));
    let counter = {
        let (accumulator, partitions, over) = (accumulator.clone(), partitions.clone(), over.clone());
        std::thread::spawn(move || count(&accumulator, &partitions, &over))
    };
    let mut out: Vec<HashMap<u64, Vec<u64>>> = vec![HashMap::new(); PARTITIONS];
    let (mut in_flight, mut seed) = (VecDeque::new(), seed);
    let (sent, chained, tags) = (Cell::new(0u64), Cell::new(0u64), Cell::new(0u64));
    let mut closed = [false; PARTITIONS];
    let mut ready = vec![];
    loop {
        let dice = random(&mut seed);
        let partition = dice as usize % PARTITIONS;
        partitions[partition].busy.store(dice & 64 != 0, Relaxed);
        accumulator.clock.store((dice & 127) as i64, Relaxed);
        let mut take = |drain: &mut Drain, partition: usize, leave| {
            while let Some(chain) = drain.drain(partition as u32, leave) {
                let records = read_chain(&chain);
                chained.set(chained.get() + u64::from(chain.segments.len() > 1));
                sent.set(sent.get() + records.len() as u64);
                check_batch(&records, &mut out[partition]);
                let mut at = 0;
                for segment in &chain.segments {
                    for entry in segment.entries() {
                        if let Entry::Tag { tag, timestamp } = entry {
                            let value = records[at].value.as_deref().unwrap();
                            assert_eq!(
                                (tag.to_le_bytes(), timestamp),
                                (value[..8].try_into().unwrap(), records[at].timestamp)
                            );
                            tags.set(tags.get() + 1);
                        }
                        at += 1;
                    }
                }
                in_flight.push_back((chain, partition));
                if in_flight.len() > 3 {
                    let (chain, partition) = in_flight.pop_front().unwrap();
                    settle(drain, chain, &partitions[partition].place);
                }
            }
        };
        ready.clear();
        drain.visit_ready(&mut ready);
        for id in &ready {
            take(&mut drain, *id as usize, Leave::Complete);
        }
        let leave = if dice >> 16 & 7 == 0 { Leave::Now } else { Leave::Complete };
        take(&mut drain, partition, leave);
        let over = writers.iter().all(|writer| writer.is_finished());
        if sent.get() >= close_after || over {
            for (partition, closed) in closed.iter_mut().enumerate() {
                *closed = *closed || drain.close_partition(partition as u32);
                take(&mut drain, partition, Leave::Now);
            }
            if over && (0..PARTITIONS).all(|at| closed[at] && drain.is_drained(at as u32)) {
                break;
            }
        }
        // Memory that only an ack frees: the broker answers in the end.
        if dice >> 24 & 3 == 0
            && let Some((chain, partition)) = in_flight.pop_front()
        {
            settle(&mut drain, chain, &partitions[partition].place);
        }
    }
    for (chain, partition) in in_flight {
        settle(&mut drain, chain, &partitions[partition].place);
    }
    let accepted: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    for (writer, accepted) in accepted.into_iter().enumerate() {
        for (partition, tags) in accepted.tags.iter().enumerate() {
            let came = out[partition].remove(&(writer as u64)).unwrap_or_default();
            assert!(came == *tags, "writer {writer}, partition {partition}: not what was accepted, in order");
        }
        assert!(accepted.deliveries.iter().all(|delivery| delivery.try_result().is_some_and(|done| done.is_ok())));
    }
    over.store(true, Relaxed);
    counter.join().unwrap();
    let drained: u64 = partitions.iter().map(|partition| accumulator.census(partition).accepted).sum();
    assert_eq!(drained, sent.get(), "the census counts what came out");
    assert!(partitions.iter().all(|partition| accumulator.census(partition).waiting == 0));
    assert_eq!(accumulator.free(), MEMORY, "no segment leaked");
    assert!((chained.get() > 0 && tags.get() > 0) || records < 1000, "chains and tags were hit");
}

fn records(most: u64) -> u64 {
    std::env::var("RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(most)
}

#[test]
fn every_record_once() {
    stress(
        records(if cfg!(miri) {
            60
        } else if cfg!(debug_assertions) {
            8_000
        } else {
            100_000
        }),
        u64::MAX,
        7,
    );
}

#[test]
fn close_in_the_middle() {
    for round in 0..if cfg!(miri) {
        1
    } else if cfg!(debug_assertions) {
        15
    } else {
        100
    } {
        let records = if cfg!(miri) { 200 } else { 1_000 };
        stress(records, records / 2 + round * 7, round + 1);
    }
}
