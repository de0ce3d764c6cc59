//! Station 6, the thread that runs listeners, callbacks and the sink of what could not be delivered: whatever they do,
//! sending goes on.
//!
//! *Why this is sound*: (a) a callback's word is taken out of a record's entry once: the sender reports each record
//! once.

#![allow(unsafe_code, reason = "argued above")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_utils::sync::Parker;

use super::seldom::Seldom;
use crate::accumulator::{Entry, Lease};
use crate::completion::ending::GRACE;
use crate::completion::{DeliveryListener, Outcome, UndeliverableSink, UndeliveredRecord, callback, callback_thread};
use crate::error::DeliveryError;
use crate::record::Place;
use crate::sender::{Outbox, Report, Shared};
use crate::wire::record_view::Records;

/// Who is called, besides callbacks.
#[derive(Default)]
pub struct Told {
    /// Hears of records with tags.
    pub listener: Option<Box<dyn DeliveryListener>>,
    /// Keeps what could not be delivered.
    pub sink: Option<Box<dyn UndeliverableSink>>,
    /// How these fared.
    pub panics: Panics,
}

/// Panics of the caller's code. Each record may bring one, and the log must not drown in them.
#[derive(Default)]
pub struct Panics {
    /// Of listeners and callbacks.
    told: Seldom,
    /// Of the sink.
    kept: Seldom,
}

impl Panics {
    fn of_listener(&mut self, place: &Place) {
        if let Some(times) = self.told.happened(Instant::now()) {
            tracing::error!(%place, times, "a delivery listener or callback panicked; the next ones are called all the same");
        }
    }

    fn of_sink(&mut self, place: &Place) {
        if let Some(times) = self.kept.happened(Instant::now()) {
            tracing::error!(%place, times, "the sink panicked at an undelivered record; it gets the next ones all the same");
        }
    }

    /// Nothing follows.
    fn end(&mut self) {
        let (told, kept) = (self.told.untold(), self.kept.untold());
        if told + kept > 0 {
            tracing::error!(
                told,
                kept,
                "listeners or callbacks (told) and the sink (kept) panicked as often since then"
            );
        }
    }
}

/// Such a part of the memory is released, while there is more to do, before callers that wait for room are woken.
const WORTH_A_WAKE: usize = 256;

/// Or they were woken so long ago.
const LONG: Duration = Duration::from_millis(1);

/// Tells those who wait for the thread's end, however it comes.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ending.callbacks_end();
        // The sender may be waiting for nothing else.
        self.0.accumulator.doorbell.ring();
    }
}

/// Starts the thread `ringmail-callbacks`; it ends after the sender's last report.
pub fn spawn(shared: Arc<Shared>, outbox: Arc<Outbox>, parker: Parker, mut told: Told) -> io::Result<JoinHandle<()>> {
    shared.ending.callbacks_begin();
    let ended = Ended(shared.clone());
    std::thread::Builder::new().name("ringmail-callbacks".to_owned()).spawn(move || {
        let _ended = ended;
        let _entered = callback_thread::enter();
        // When callers that wait for room were woken last, and how many bytes were released since.
        let (mut free, mut woken) = (0, Instant::now());
        let worth = shared.accumulator.total() / WORTH_A_WAKE;
        loop {
            let next = outbox.try_take();
            // What comes may be slow: who reads reports is the caller's code.
            if next.is_none() || free >= worth || (free > 0 && woken.elapsed() >= LONG) {
                (free, woken) = (0, Instant::now());
                shared.accumulator.made_room();
            }
            let report = next.unwrap_or_else(|| outbox.take(&parker, || shared.accumulator.doorbell.ring()));
            match carry_out(&shared, &mut told, report) {
                Some(released) => free += released,
                None => break,
            }
        }
        shared.accumulator.made_room();
        told.panics.end();
        if let Some(mut sink) = told.sink
            && catch_unwind(AssertUnwindSafe(|| {
                // A part of the grace is for it, too.
                let left = shared.ending.time_left().map(|left| left + GRACE / 2);
                sink.finish(left.unwrap_or(shared.config.close_timeout));
                drop(sink);
            }))
            .is_err()
        {
            tracing::error!("the sink of undelivered records panicked when it was to finish");
        }
    })
}

/// How many bytes of memory were released, for which callers that wait for room are to be woken. `None`: nothing follows.
pub fn carry_out(shared: &Shared, told: &mut Told, report: Report) -> Option<usize> {
    match report {
        Report::Records { place, mut lease, outcome, deliveries } => {
            if let (Some(sink), Outcome::Failed(error)) = (&mut told.sink, &outcome) {
                keep(shared, &mut **sink, &mut told.panics, &place, &lease, error);
            }
            if deliveries {
                lease.report(&place, outcome.clone());
            }
            tell(told, &place, &lease, &outcome);
            return Some(lease.end());
        }
        Report::Done(ticket) => ticket.finish(),
        Report::End => return None,
    }
    Some(0)
}

/// Lends the records of a run that failed to the sink.
fn keep(
    shared: &Shared,
    sink: &mut dyn UndeliverableSink,
    panics: &mut Panics,
    place: &Place,
    lease: &Lease,
    error: &DeliveryError,
) {
    let base_timestamp = lease.base_timestamp();
    let closes_in = shared.ending.time_left();
    let mut headers = Vec::new();
    for record in Records::bare(lease.bytes(), lease.count()) {
        let Ok(record) = record else {
            // Our own bytes: a bug, and nothing behind it can be read.
            tracing::error!(%place, "an undelivered record could not be read back; please report this bug");
            return;
        };
        headers.clear();
        headers.extend(record.headers());
        let record = UndeliveredRecord {
            topic: &place.topic,
            partition: place.partition,
            key: record.key,
            value: record.value,
            headers: &headers,
            timestamp: base_timestamp.wrapping_add(record.timestamp_delta),
            error,
            closes_in,
            cluster: &shared.cluster,
        };
        if catch_unwind(AssertUnwindSafe(|| sink.undeliverable(record))).is_err() {
            shared.tally.sink_panicked();
            panics.of_sink(place);
        }
    }
}

fn tell(told: &mut Told, place: &Arc<Place>, lease: &Lease, outcome: &Outcome) {
    let Told { listener, panics, .. } = told;
    let mut entries = (0..).zip(lease.entries());
    let mut lent = outcome.of_record(place, 0, 0);
    let mut go_on = || {
        for (nth, entry) in &mut entries {
            match entry {
                Entry::None => {}
                Entry::Tag { tag, timestamp } => {
                    if let Some(listener) = listener {
                        outcome.renew(&mut lent, nth, timestamp);
                        listener.on_delivery(tag, lent.as_ref());
                    }
                }
                Entry::Callback { value, timestamp } => {
                    // SAFETY: (a).
                    let callback = unsafe { callback::take(value) };
                    callback(outcome.of_record(place, nth, timestamp));
                }
            }
        }
    };
    while catch_unwind(AssertUnwindSafe(&mut go_on)).is_err() {
        panics.of_listener(place);
    }
}
