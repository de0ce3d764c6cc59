//! Close: what it waits for, what it gives up, and that it says so.

use std::sync::Arc;
use std::time::Duration;

use super::world::World;
use super::{MS, config, finish, options, pass, send_all};
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::{Command, Ticket};
use crate::testing::Fault;

/// A close that does not wait: what lies in the ring and what is on its way both end at once, told apart; the memory of
/// what the kernel may be reading comes back when the connection is gone, and not before.
#[test]
fn a_forced_close_ends_every_record_and_gives_all_memory_back() {
    let options = options(2).on_produce(|_| Fault::HangBefore);
    let mut world = World::new(90, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let free = world.accumulator.free();
    let mut deliveries = send_all(&mut world, &topic, 1, 0..3, Duration::ZERO);
    pass(&mut world, 20 * MS);
    assert_eq!(world.sender.partitions[0].unacked, 1, "on its way");
    // Behind it: before the first acknowledgement there is one in flight.
    deliveries.extend(send_all(&mut world, &topic, 1, 3..8, Duration::ZERO));
    pass(&mut world, 20 * MS);
    let ticket = Arc::new(Ticket::default());
    world.shared.command(Command::Close(ticket.clone(), Duration::ZERO));
    world.run_while(|_| !ticket.is_done());
    let outcomes = finish(&mut world, &deliveries);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        let written = if number < 3 { Written::Possibly } else { Written::No };
        assert_eq!((error.kind(), error.written()), (DeliveryErrorKind::Closed, written), "{number}: {error}");
    }
    let report = ticket.report();
    assert_eq!((report.records(), report.possibly_written()), (8, 3), "{report}");
    world.run_while(|world| !world.sender.is_closed());
    drop(deliveries);
    assert_eq!(world.accumulator.free(), free);
}
