//! Waiting for several units in one piece, beside callers that need fewer.

use std::sync::atomic::AtomicU32;
use std::task::{Wake, Waker};

use super::*;

struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Two brokers with a partition each.
fn two_brokers(buffer_memory: usize) -> (Arc<Accumulator>, Drain, [Arc<Partition>; 2]) {
    let (accumulator, mut drain, first) = new(AccumulatorConfig { buffer_memory, ..AccumulatorConfig::default() });
    let second = drain.add_partition(place(1));
    drain.set_leader(0, 1);
    drain.set_leader(1, 2);
    (accumulator, drain, [first, second])
}

fn claim(accumulator: &Arc<Accumulator>, partition: &Arc<Partition>, len: usize) -> Option<PrivateClaim> {
    accumulator.claim(partition, &Fields::default(), len, None, None).ok()
}

fn asking(accumulator: &Arc<Accumulator>, partition: &Partition, bytes: &[u8], ask: &Ask) -> Result<Appended, Refused> {
    accumulator.append_asking(partition, &value(bytes), None, Attach::None, true, None, Some(ask))
}

/// Every order in which small runs come back, while each that does is taken again at once: what lies in the window is kept
/// for the one who asked, and everybody else has the rest.
#[test]
fn a_large_record_is_not_starved() {
    let (accumulator, mut drain, partition) =
        new(AccumulatorConfig { buffer_memory: 2 << 20, ..AccumulatorConfig::default() });
    let mut claims: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &partition, 900)).collect();
    assert_eq!((claims.len(), accumulator.free()), (2048, 0));
    let large = vec![0; 900_000];
    assert_eq!(append(&accumulator, &partition, &large).unwrap_err(), Refused::NoRun);
    assert!(accumulator.ask(Refused::BufferFull).is_none(), "one unit needs no asking");
    let ask = accumulator.ask(Refused::NoRun).unwrap();
    let (mut again, mut seed, mut kept) = (0, 1_u64, 0);
    while asking(&accumulator, &partition, &large, &ask).is_err() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        drop(claims.swap_remove((seed >> 33) as usize % claims.len()));
        match claim(&accumulator, &partition, 900) {
            Some(claim) => {
                claims.push(claim);
                again += 1;
            }
            None => kept += 1,
        }
    }
    assert!((880..1100).contains(&kept), "no more was kept from others than the run needs: {kept}");
    assert!(again > 1000, "everybody else goes on: {again}");
    drop(ask);
    drop(claims);
    assert_eq!(drain_all(&mut drain, 0).len(), 1);
    assert_eq!((accumulator.free(), accumulator.free_in_pieces()), (2 << 20, 2 << 20));
}

/// A record of some segments' size can be starved as well.
#[test]
fn nor_is_a_medium_one() {
    let (accumulator, mut drain, partition) =
        new(AccumulatorConfig { buffer_memory: 1 << 20, ..AccumulatorConfig::default() });
    let other = drain.add_partition(place(1));
    let claims: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &partition, 900)).collect();
    assert_eq!(append(&accumulator, &other, &[0; 20_000]).unwrap_err(), Refused::NoRun);
    let ask = accumulator.ask(Refused::NoRun).unwrap();
    assert!(asking(&accumulator, &other, &[0; 20_000], &ask).is_err());
    let mut held = vec![];
    for claimed in claims.into_iter().rev() {
        drop(claimed);
        held.extend(claim(&accumulator, &partition, 900));
        if asking(&accumulator, &other, &[0; 20_000], &ask).is_ok() {
            return drop(drain_all(&mut drain, 1));
        }
    }
    panic!("starved");
}

/// What one asks for and cannot have keeps nothing from a record that fits beside it; a broker that holds its share
/// already keeps nothing at all.
#[test]
fn an_ask_keeps_no_more_than_it_can_use() {
    let (accumulator, mut drain, [stuck, other]) = two_brokers(4 << 20);
    let mut chains = vec![];
    while append(&accumulator, &stuck, &[1; 5_000]).is_ok() {
        chains.extend(drain.drain(0, Leave::Now));
    }
    let held: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &other, 900)).collect();
    for (partition, len) in [(&stuck, 400_000), (&other, 400_000), (&other, 100_000)] {
        let ask = accumulator.ask(Refused::NoRun).unwrap();
        assert!(asking(&accumulator, partition, &vec![2; len], &ask).is_err());
        std::mem::forget(ask);
    }
    drop(held);
    // A third of the memory is free now, and most of it is for everybody.
    let small: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &other, 900)).collect();
    let kept = accumulator.free() / UNIT;
    assert!(small.len() > 600 && (391..391 + 64 + 600).contains(&kept), "{} taken, {kept} kept", small.len());
}

#[test]
fn asks_of_one_broker_come_in_their_order_and_wait_for_no_other() {
    let (accumulator, mut drain, [stuck, other]) = two_brokers(4 << 20);
    let held: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &stuck, 10_000)).collect();
    let mut others: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &other, 900)).collect();
    let large = vec![3; 200_000];
    let [first, second, third] = [0; 3].map(|_| accumulator.ask(Refused::NoRun).unwrap());
    assert!(asking(&accumulator, &stuck, &large, &first).is_err());
    assert!(asking(&accumulator, &other, &large, &second).is_err());
    assert!(asking(&accumulator, &other, &large, &third).is_err());
    // All comes back but the last, so that the first window is not complete.
    let last = others.pop();
    while let Some(claimed) = others.pop() {
        drop(claimed);
        if asking(&accumulator, &other, &large, &second).is_ok() {
            break;
        }
    }
    assert!(!others.is_empty(), "the second asks behind the stuck one, and does not wait for it");
    drop(second);
    others.clear();
    asking(&accumulator, &other, &large, &third).unwrap();
    drop((first, third, last, held));
    drain_all(&mut drain, 1);
    assert_eq!(accumulator.free_in_pieces(), 4 << 20);
}

/// Somebody who asked and is not heard of any more keeps nothing. What was kept wakes those who wait.
#[test]
fn a_forgotten_ask_lapses() {
    let (accumulator, _drain, partition) =
        new(AccumulatorConfig { buffer_memory: 1 << 20, max_request_size: 2 << 20, ..AccumulatorConfig::default() });
    let mut claims: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &partition, 900)).collect();
    let large = vec![0; 900_000];
    let ask = accumulator.ask(Refused::NoRun).unwrap();
    assert!(asking(&accumulator, &partition, &large, &ask).is_err());
    assert!(accumulator.is_asked());
    claims.truncate(600);
    claims.extend(std::iter::from_fn(|| claim(&accumulator, &partition, 900)));
    assert!(claims.len() < 760, "the rest is kept: {}", claims.len());
    let (woken, mut slot) = (Arc::new(Woken(AtomicU32::new(0))), None);
    accumulator.wait_for_room(&mut slot, &Waker::from(woken.clone()));
    for _ in 0..4 {
        accumulator.tick();
    }
    // It is heard of, and so it lives on.
    assert!(asking(&accumulator, &partition, &large, &ask).is_err());
    for tick in 0..5 {
        assert_eq!((woken.0.load(Relaxed), accumulator.is_asked()), (0, true), "{tick}");
        accumulator.tick();
    }
    assert_eq!((woken.0.load(Relaxed), accumulator.is_asked()), (1, false));
    claims.push(claim(&accumulator, &partition, 900).unwrap());
    claims.clear();
    assert_eq!(accumulator.free_in_pieces(), 1 << 20);
    // It asks again, and gets what it asked for.
    asking(&accumulator, &partition, &large, &ask).unwrap();
}

/// One small run in the window never comes back: another window is found, if there is one.
#[test]
fn a_window_that_stalls_is_given_up() {
    let (accumulator, mut drain, partition) =
        new(AccumulatorConfig { buffer_memory: 1 << 20, ..AccumulatorConfig::default() });
    let claims: Vec<_> = std::iter::from_fn(|| claim(&accumulator, &partition, 900)).collect();
    let large = vec![0; 100_000];
    let ask = accumulator.ask(Refused::NoRun).unwrap();
    assert!(asking(&accumulator, &partition, &large, &ask).is_err());
    // One unit in every 64 KiB of the lower half stays taken, and what comes back in the upper half is taken again for a while.
    let mut kept = vec![];
    for (at, claimed) in claims.into_iter().enumerate() {
        if at % 64 == 5 || at >= 512 {
            kept.push(claimed);
        }
    }
    let mut ticks = 0;
    while asking(&accumulator, &partition, &large, &ask).is_err() {
        accumulator.tick();
        ticks += 1;
        if ticks == 10 {
            kept.truncate(8);
        }
        assert!(ticks < 500, "it waits for ever");
    }
    drop((ask, kept));
    drain_all(&mut drain, 0);
    assert_eq!(accumulator.free_in_pieces(), 1 << 20);
}

/// A record of several blocks collects blocks of any broker.
#[test]
fn a_record_of_many_blocks() {
    let (accumulator, mut drain, [first, second]) = {
        let config = AccumulatorConfig { buffer_memory: 4 << 20, max_request_size: 3 << 20, ..Default::default() };
        let (accumulator, mut drain, first) = new(config);
        let second = drain.add_partition(place(1));
        drain.set_leader(0, 1);
        drain.set_leader(1, 2);
        (accumulator, drain, [first, second])
    };
    let mut claims = vec![];
    while let (Some(a), Some(b)) = (claim(&accumulator, &first, 3000), claim(&accumulator, &second, 900)) {
        claims.extend([a, b]);
    }
    let large = vec![9; 2_000_000];
    let ask = accumulator.ask(Refused::NoRun).unwrap();
    let mut seed = 7_u64;
    let result = loop {
        match asking(&accumulator, &first, &large, &ask) {
            Err(Refused::NoRun) if !claims.is_empty() => {}
            result => break result,
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        claims.swap_remove((seed >> 33) as usize % claims.len());
        if claims.len() % 16 == 0 {
            accumulator.tick();
        }
    };
    result.unwrap();
    drop((ask, claims));
    drain_all(&mut drain, 0);
    assert_eq!((accumulator.free(), accumulator.free_in_pieces()), (4 << 20, 4 << 20));
}
