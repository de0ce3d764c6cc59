//! Station 6, the thread that runs listeners and callbacks: whatever they do, sending goes on.
//!
//! *Why this is sound*: (a) a callback's word is taken out of a record's entry once: the sender reports each record
//! once.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_utils::sync::Parker;

use crate::accumulator::Entry;
use crate::completion::{DeliveryListener, Outcome, callback, callback_thread};
use crate::record::Place;
use crate::sender::{Outbox, Report, Run, Shared};

/// Starts the thread `ringmail-callbacks`; it ends after the sender's last report.
pub fn spawn(
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    parker: Parker,
    mut listener: Option<Box<dyn DeliveryListener>>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ringmail-callbacks".to_owned()).spawn(move || {
        let _entered = callback_thread::enter();
        loop {
            let report = outbox.take(&parker, || shared.accumulator.doorbell.ring());
            if !carry_out(&shared, &mut listener, report) {
                return;
            }
        }
    })
}

/// False: nothing follows.
pub fn carry_out(shared: &Shared, listener: &mut Option<Box<dyn DeliveryListener>>, report: Report) -> bool {
    match report {
        Report::Records { place, run, outcome } => tell(shared, listener, &place, run, &outcome),
        Report::Release(segment) => shared.accumulator.release(segment),
        Report::Done(ticket) => ticket.finish(),
        Report::End => return false,
    }
    true
}

fn tell(
    shared: &Shared,
    listener: &mut Option<Box<dyn DeliveryListener>>,
    place: &Arc<Place>,
    run: Run,
    outcome: &Outcome,
) {
    for nth in 0..run.count {
        let told = match shared.accumulator.entry(run.segment, run.first + nth) {
            Entry::None => continue,
            Entry::Tag { tag, timestamp } => {
                let Some(listener) = listener else { continue };
                let result = outcome.of_record(place, nth, timestamp);
                catch_unwind(AssertUnwindSafe(|| listener.on_delivery(tag, result.as_ref())))
            }
            Entry::Callback { value, timestamp } => {
                // SAFETY: (a).
                let callback = unsafe { callback::take(value) };
                let result = outcome.of_record(place, nth, timestamp);
                catch_unwind(AssertUnwindSafe(|| callback(result)))
            }
        };
        if told.is_err() {
            tracing::error!(%place, "a delivery listener or callback panicked; the next ones are called all the same");
        }
    }
}
