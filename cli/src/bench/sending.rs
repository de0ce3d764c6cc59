//! The threads that send: as fast as records are taken, or each record when it is due.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringmail::{Producer, Record, SendError, Topic, WaitedFor};

use super::account::{Account, UNTIMED};
use super::load::Load;
use super::pace::{Pace, sleep_exactly};
use super::report::histogram;
use super::usage::{Usage, Used};

/// Without a rate, one record in so many has its times taken. A prime, so as not to step in time with batches.
const SAMPLE: u32 = 61;
/// At a rate, the first record is due so long after the threads are let go.
const LEAD: Duration = Duration::from_millis(2);
/// How long answers are waited for once Ctrl-C came.
const GRACE: Duration = Duration::from_secs(5);

/// What every run has in common.
pub struct Sending<'a> {
    pub producer: &'a Producer,
    pub topic: &'a Topic,
    pub load: &'a Load,
    pub account: &'a Account,
    pub threads: u16,
    /// Records per second of all threads; `None`: as fast as they are taken.
    pub rate: Option<f64>,
}

/// What a run took.
pub struct Run {
    pub used: Used,
    /// Times of send calls in nanoseconds.
    pub send: Histogram<u64>,
    /// At a rate: how long after it was due each record was sent, in nanoseconds.
    pub late: Histogram<u64>,
}

impl Sending<'_> {
    /// Sends one record to each partition, so that every connection is made and every partition's window open.
    pub fn touch(&self) -> Result<(), SendError> {
        let mut thread = Thread::new(self);
        for partition in self.producer.partitions_for(self.topic.name())?.iter().filter(|p| p.leader.is_some()) {
            thread.send(self.load.record(0).with_partition(partition.partition), UNTIMED);
        }
        thread.finish();
        self.flush();
        Ok(())
    }

    /// Sends so many records from all threads, and waits for the answers.
    pub fn run(&self, records: u64) -> Run {
        let up = AtomicU16::new(0);
        let go = OnceLock::new();
        let threads = u64::from(self.threads);
        std::thread::scope(|scope| {
            let (up, go) = (&up, &go);
            let spawned: Vec<_> = (0..threads)
                .map(|thread| {
                    let share = records / threads + u64::from(thread < records % threads);
                    let work = move || {
                        let own = Thread::new(self);
                        up.fetch_add(1, Ordering::Relaxed);
                        match (*go.wait(), self.rate) {
                            (None, _) => own,
                            (Some(_), None) => own.at_full_speed(thread, share),
                            (Some(start), Some(rate)) => {
                                own.when_due(thread, share, Pace::new(start, rate, thread, threads))
                            }
                        }
                        .finish()
                    };
                    std::thread::Builder::new().name(format!("send-{thread}")).spawn_scoped(scope, work)
                })
                .collect();
            if let Some(error) = spawned.iter().find_map(|thread| thread.as_ref().err()) {
                let _ = go.set(None);
                crate::log::say(&format!("ringmail: the system gives no thread: {error}"));
                self.account.stop();
            }
            // What a thread does when it starts is not measured.
            while up.load(Ordering::Relaxed) < spawned.iter().flatten().count() as u16 {
                std::thread::yield_now();
            }
            let (mut send, mut late) = (histogram(), histogram());
            let before = Usage::now();
            let _ = go.set(Some(Instant::now() + if self.rate.is_some() { LEAD } else { Duration::ZERO }));
            let ended: Vec<_> = spawned.into_iter().flatten().map(|thread| thread.join()).collect();
            self.flush();
            let used = before.until_now();
            for (sends, lates) in ended.into_iter().flatten() {
                let _ = (send.add(sends), late.add(lates));
            }
            Run { used, send, late }
        })
    }

    /// Waits until every record has its answer and the listener has heard of it; after Ctrl-C a little only.
    fn flush(&self) {
        let mut stopped = None;
        while let Err(SendError::Timeout { .. }) = self.producer.flush() {
            if self.account.stopped() && stopped.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                return;
            }
        }
    }
}

/// One thread's share.
struct Thread<'a> {
    topic: &'a Topic,
    load: &'a Load,
    account: &'a Account,
    accepted: u64,
    send: Histogram<u64>,
    late: Histogram<u64>,
}

impl<'a> Thread<'a> {
    fn new(sending: &Sending<'a>) -> Self {
        let Sending { topic, load, account, .. } = *sending;
        Self { topic, load, account, accepted: 0, send: histogram(), late: histogram() }
    }

    fn at_full_speed(mut self, thread: u64, records: u64) -> Self {
        let mut until_sample = 0;
        // Threads begin with different values, keys and partitions.
        for number in thread..thread + records {
            if self.account.stopped() {
                break;
            }
            let record = self.load.record(number);
            if until_sample == 0 {
                until_sample = SAMPLE;
                let began = Instant::now();
                self.send(record, self.account.tag(began));
                self.send.saturating_record(nanos(began, Instant::now()));
            } else {
                self.send(record, UNTIMED);
            }
            until_sample -= 1;
        }
        self
    }

    fn when_due(mut self, thread: u64, records: u64, pace: Pace) -> Self {
        sleep_exactly();
        for nth in 0..records {
            let due = pace.due(nth);
            let Some(began) = pace.wait(due, &self.account.stop) else { break };
            // The ack counts from when the record was due: what holds up this thread holds up records, and shows.
            self.send(self.load.record(thread + nth), self.account.tag(due));
            self.send.saturating_record(nanos(began, Instant::now()));
            self.late.saturating_record(nanos(due, began));
        }
        self
    }

    #[inline]
    fn send(&mut self, record: Record<'_>, tag: u64) {
        match self.topic.send_tagged(record, tag) {
            Ok(()) => self.accepted += 1,
            Err(error) => self.refused(record, tag, error),
        }
    }

    /// Goes on until there is room: what is ahead of the record is delivered or expires. What cannot help is an error.
    #[cold]
    fn refused(&mut self, record: Record<'_>, tag: u64, mut error: SendError) {
        while let SendError::Timeout { waited_for: WaitedFor::Memory | WaitedFor::Metadata { .. }, .. } = error {
            if self.account.stopped() {
                return;
            }
            match self.topic.send_tagged(record, tag) {
                Ok(()) => {
                    self.accepted += 1;
                    return;
                }
                Err(next) => error = next,
            }
        }
        self.account.refuse(&error);
        if matches!(error, SendError::Closed | SendError::SenderPanicked | SendError::Forked) {
            self.account.stop();
        }
    }

    fn finish(self) -> (Histogram<u64>, Histogram<u64>) {
        self.account.accept(self.accepted);
        (self.send, self.late)
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_nanos() as u64
}
