//! The threads that send: as fast as records are taken, or each record when it is due.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};
use std::thread::Builder;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringmail::{Delivery, Producer, SendError, Topic, WaitedFor};

use super::account::{Account, UNTIMED};
use super::load::Load;
use super::pace::{Pace, sleep_exactly};
use super::report::histogram;
use super::usage::{Usage, Used};
use crate::args::Handle;

/// Without a rate, one record in so many has its times taken. A prime, so as not to step in time with batches.
const SAMPLE: u32 = 61;
/// At a rate, the first record is due so long after the threads are let go.
const LEAD: Duration = Duration::from_millis(2);
/// How long answers are waited for once Ctrl-C came.
const GRACE: Duration = Duration::from_secs(5);

/// Deliveries that a thread may be ahead of the one that waits for them. When it is further, it waits.
const WAITED_FOR: usize = 16_384;

/// What every run has in common.
pub struct Sending<'a> {
    pub producer: &'a Producer,
    pub topic: &'a Topic,
    pub load: &'a Load,
    pub account: &'static Account,
    pub handle: Handle,
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
        let record = self.load.record(0);
        let mut deliveries = Vec::new();
        for partition in self.producer.partitions_for(self.topic.name())?.iter().filter(|p| p.leader.is_some()) {
            match self.topic.send(record.with_partition(partition.partition)) {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => self.account.refuse(&error),
            }
        }
        self.flush();
        for error in deliveries.iter().filter_map(|delivery| delivery.try_result()?.err()) {
            self.account.fail_uncounted(&error);
        }
        Ok(())
    }

    /// Sends so many records from all threads, and waits for the answers.
    pub fn run(&self, records: u64) -> Run {
        let up = AtomicUsize::new(0);
        let go = OnceLock::new();
        let threads = u64::from(self.threads);
        std::thread::scope(|scope| {
            let (up, go) = (&up, &go);
            let (mut senders, mut waiters) = (Vec::new(), Vec::new());
            for thread in 0..threads {
                let share = records / threads + u64::from(thread < records % threads);
                let ahead = if self.handle == Handle::Delivery { WAITED_FOR } else { 0 };
                let (waiter, waiting) = sync_channel(ahead);
                let mut own = Thread::new(self, waiter);
                let send = move || {
                    up.fetch_add(1, Ordering::Relaxed);
                    match (*go.wait(), self.rate) {
                        (None, _) => {}
                        (Some(_), None) => own.at_full_speed(thread, share),
                        (Some(start), Some(rate)) => {
                            own.when_due(thread, share, Pace::new(start, rate, thread, threads));
                        }
                    }
                    own.finish()
                };
                let wait = move || {
                    up.fetch_add(1, Ordering::Relaxed);
                    wait_for(&waiting, self.account);
                };
                senders.push(Builder::new().name(format!("send-{thread}")).spawn_scoped(scope, send));
                if self.handle == Handle::Delivery {
                    waiters.push(Builder::new().name(format!("wait-{thread}")).spawn_scoped(scope, wait));
                }
            }
            let errors = senders.iter().filter_map(|thread| thread.as_ref().err());
            if let Some(error) = errors.chain(waiters.iter().filter_map(|thread| thread.as_ref().err())).next() {
                let _ = go.set(None);
                self.account.give_up(format!("the system gives no thread: {error}"));
            }
            // What a thread does when it starts is not measured.
            while up.load(Ordering::Relaxed) < senders.iter().flatten().count() + waiters.iter().flatten().count() {
                std::thread::yield_now();
            }
            let (mut send, mut late) = (histogram(), histogram());
            let before = Usage::now();
            let _ = go.set(Some(Instant::now() + if self.rate.is_some() { LEAD } else { Duration::ZERO }));
            let ended: Vec<_> = senders.into_iter().flatten().map(|thread| thread.join()).collect();
            self.flush();
            waiters.into_iter().flatten().for_each(|thread| drop(thread.join()));
            let used = before.until_now();
            for (sends, lates) in ended.into_iter().flatten() {
                let _ = (send.add(sends), late.add(lates));
            }
            Run { used, send, late }
        })
    }

    /// Waits until every record has its answer and callbacks were called; after Ctrl-C a little only.
    fn flush(&self) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut flush = pin!(self.producer.flush_async());
        let mut stopped = None;
        while flush.as_mut().poll(&mut context).is_pending() {
            if self.account.stopped() && stopped.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                self.account.abandon();
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Hears of deliveries in the order in which they were sent.
fn wait_for(waiting: &Receiver<(u64, Delivery)>, account: &Account) {
    for (tag, mut delivery) in waiting {
        let result = loop {
            match delivery.wait_timeout(Duration::from_millis(100)) {
                Some(result) => break result,
                None if account.abandoned() => return,
                None => {}
            }
        };
        account.hear_from_any(tag, result.as_ref().map(drop));
    }
}

/// One thread's share.
struct Thread<'a> {
    topic: &'a Topic,
    load: &'a Load,
    account: &'static Account,
    handle: Handle,
    accepted: u64,
    /// Records whose `Delivery` was dropped, since the account was last told.
    unheard: u64,
    /// To the thread that waits for deliveries.
    waiter: SyncSender<(u64, Delivery)>,
    send: Histogram<u64>,
    late: Histogram<u64>,
}

impl<'a> Thread<'a> {
    fn new(sending: &Sending<'a>, waiter: SyncSender<(u64, Delivery)>) -> Self {
        let Sending { topic, load, account, handle, .. } = *sending;
        let (send, late) = (histogram(), histogram());
        Self { topic, load, account, handle, accepted: 0, unheard: 0, waiter, send, late }
    }

    fn at_full_speed(&mut self, thread: u64, records: u64) {
        let mut until_sample = 0;
        // Threads begin with different values, keys and partitions.
        for number in thread..thread + records {
            if self.account.stopped() {
                break;
            }
            if until_sample == 0 {
                until_sample = SAMPLE;
                let began = Instant::now();
                self.send_timed(number, began, began);
            } else {
                self.send_untimed(number);
            }
            until_sample -= 1;
        }
    }

    fn when_due(&mut self, thread: u64, records: u64, pace: Pace) {
        sleep_exactly();
        for nth in 0..records {
            let due = pace.due(nth);
            let Some(began) = pace.wait(due, &self.account.stop) else { break };
            // The ack counts from when the record was due: what holds up this thread holds up records, and shows.
            self.send_timed(thread + nth, began, due);
            self.late.saturating_record(nanos(due, began));
        }
    }

    /// Sends a record whose times are taken: of the call from `began` on, of the answer from `since` on.
    #[inline]
    fn send_timed(&mut self, number: u64, began: Instant, since: Instant) {
        let tag = self.account.tag(since);
        let delivery = self.send(number, tag);
        self.send.saturating_record(nanos(began, Instant::now()));
        if let Some(delivery) = delivery {
            self.account.suppose(std::mem::take(&mut self.unheard));
            self.hand_over(tag, delivery);
        }
    }

    /// Sends a record whose times are not taken.
    #[inline]
    fn send_untimed(&mut self, number: u64) {
        if self.handle == Handle::Tag {
            // As a user would: no more than the call.
            match self.topic.send_tagged(self.load.record(number), UNTIMED) {
                Ok(()) => self.accepted += 1,
                Err(error) => drop(self.refused(number, UNTIMED, error)),
            }
        } else if self.send(number, UNTIMED).is_some() {
            self.unheard += 1;
        }
    }

    /// Gives a delivery to the thread that waits for them; after Ctrl-C it may be one that nobody waits for.
    fn hand_over(&self, tag: u64, delivery: Delivery) {
        let mut next = (tag, delivery);
        while let Err(TrySendError::Full(back)) = self.waiter.try_send(next) {
            if self.account.stopped() {
                return;
            }
            next = back;
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    #[inline]
    fn send(&mut self, number: u64, tag: u64) -> Option<Delivery> {
        match self.attempt(number, tag) {
            Ok(delivery) => {
                self.accepted += 1;
                delivery
            }
            Err(error) => self.refused(number, tag, error),
        }
    }

    #[inline]
    fn attempt(&self, number: u64, tag: u64) -> Result<Option<Delivery>, SendError> {
        let record = self.load.record(number);
        match self.handle {
            Handle::Tag => self.topic.send_tagged(record, tag).map(|()| None),
            Handle::Delivery => self.topic.send(record).map(Some),
            Handle::Callback => {
                let account = self.account;
                self.topic.send_with(record, move |result| account.hear(tag, result.as_ref().map(drop))).map(|()| None)
            }
        }
    }

    /// Goes on until there is room: what is ahead of the record is delivered or expires. What cannot help is an error.
    #[cold]
    fn refused(&mut self, number: u64, tag: u64, mut error: SendError) -> Option<Delivery> {
        while let SendError::Timeout { waited_for: WaitedFor::Memory | WaitedFor::Metadata { .. }, .. } = error {
            if self.account.stopped() {
                return None;
            }
            match self.attempt(number, tag) {
                Ok(delivery) => {
                    self.accepted += 1;
                    return delivery;
                }
                Err(next) => error = next,
            }
        }
        self.account.refuse(&error);
        if matches!(error, SendError::Closed | SendError::SenderPanicked | SendError::Forked) {
            self.account.stop();
        }
        None
    }

    fn finish(self) -> (Histogram<u64>, Histogram<u64>) {
        self.account.accept(self.accepted);
        self.account.suppose(self.unheard);
        (self.send, self.late)
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_nanos() as u64
}
