//! Memory beyond what 31 and 32 bits count.

use super::*;

/// Five GiB, of which only what is written to is ever touched: records behind 4 GiB are where they belong.
#[test]
#[cfg(target_pointer_width = "64")]
#[cfg_attr(miri, ignore = "more memory than Miri has")]
fn records_lie_beyond_four_gib() {
    let buffer_memory = 5 << 30;
    let (accumulator, mut drain, partition) = new(AccumulatorConfig { buffer_memory, ..AccumulatorConfig::default() });
    assert_eq!(accumulator.free(), buffer_memory);
    let mut taken = vec![];
    while accumulator.free() > 256 << 20 {
        taken.push(accumulator.pool.take(pool::CLASSES - 1, 0, 0, &mut false).unwrap());
    }
    let highest = taken.iter().map(|run| run.index as usize * UNIT).max().unwrap();
    let values: Vec<Vec<u8>> = (0..40u8).map(|number| vec![number; 10_000]).collect();
    for value in &values {
        append(&accumulator, &partition, value).unwrap();
    }
    let mut offsets = vec![];
    let mut stored = vec![];
    while let Some(chain) = drain.drain(0, Leave::Now) {
        offsets.extend(chain.segments.iter().map(|segment| segment.offset()));
        stored.extend(read_chain(&chain).into_iter().map(|read| read.value.unwrap()));
        settle(&mut drain, chain, &partition.place);
    }
    assert!(offsets.iter().all(|offset| *offset > 4 << 30) || highest > 4 << 30, "{offsets:?}");
    assert_eq!(stored, values);
    for run in taken {
        accumulator.pool.put(run);
    }
    assert_eq!(accumulator.free(), buffer_memory);
}
