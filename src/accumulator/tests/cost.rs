//! What an append costs: `cargo test --release --lib accumulator::tests::cost -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

const RECORDS: u64 = 10_000_000;

fn report(what: &str, mut ns: Vec<f64>) {
    ns.sort_by(f64::total_cmp);
    println!("{what}: median {:.1} ns per record ({:.1}..{:.1})", ns[ns.len() / 2], ns[0], ns[ns.len() - 1]);
}

fn take(drain: &mut Drain, place: &Arc<Place>, leave: Leave) -> u64 {
    let mut records = 0;
    while let Some(chain) = drain.drain(0, leave) {
        records += u64::from(chain.count);
        settle(drain, chain, place);
    }
    records
}

/// One thread appends and drains by turns.
fn alone(attach: Attach, key: Option<&[u8]>, batch_size: usize) -> f64 {
    let (accumulator, mut drain, partition) = new(AccumulatorConfig { batch_size, ..AccumulatorConfig::default() });
    let place = partition.place.clone();
    partition.busy.store(true, Relaxed);
    let mut ready = vec![];
    let fields = Fields { key, value: Some(&[7; 100]), headers: &[] };
    let records = RECORDS / if batch_size == 0 { 10 } else { 1 };
    let start = Instant::now();
    for _ in 0..records {
        while let Err(refused) = accumulator.append(&partition, &fields, None, attach, true) {
            assert!(refused.is_full());
            ready.clear();
            drain.visit_ready(&mut ready);
            take(&mut drain, &place, Leave::Now);
        }
        if batch_size == 0 {
            take(&mut drain, &place, Leave::Now);
        }
    }
    start.elapsed().as_nanos() as f64 / records as f64
}

#[test]
#[ignore = "a measurement"]
fn one_thread() {
    let runs = |attach, key, batch_size| (0..5).map(|_| alone(attach, key, batch_size)).collect();
    report("100 bytes", runs(Attach::None, None, 16 << 10));
    report("100 bytes and a key of 16", runs(Attach::None, Some(&[1; 16]), 16 << 10));
    report("100 bytes with a delivery", runs(Attach::Delivery, None, 16 << 10));
    report("100 bytes with a tag", runs(Attach::Tag(7), None, 16 << 10));
    report("100 bytes, each its own batch", runs(Attach::None, None, 0));
}

#[test]
#[ignore = "a measurement"]
fn writers_and_a_sender() {
    for writers in [1u64, 2, 4] {
        let mut ns = vec![];
        for _ in 0..5 {
            let (accumulator, mut drain, partition) = new(AccumulatorConfig::default());
            let place = partition.place.clone();
            partition.busy.store(true, Relaxed);
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..writers {
                    let (accumulator, partition) = (&accumulator, &partition);
                    scope.spawn(move || {
                        for _ in 0..RECORDS / writers {
                            while append(accumulator, partition, &[7; 100]).is_err() {
                                std::thread::yield_now();
                            }
                        }
                    });
                }
                let (mut drained, mut ready) = (0, vec![]);
                while drained < RECORDS {
                    ready.clear();
                    drain.visit_ready(&mut ready);
                    let enough = !ready.is_empty() && drain.peek(0).bytes >= 16 << 10;
                    let last = drained + (1 << 20) >= RECORDS;
                    drained += take(&mut drain, &place, if enough || last { Leave::Now } else { Leave::Complete });
                    std::thread::yield_now();
                }
            });
            ns.push(start.elapsed().as_nanos() as f64 / RECORDS as f64);
        }
        report(&format!("{writers} writers and a draining thread"), ns);
    }
}
