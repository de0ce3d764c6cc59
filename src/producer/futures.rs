//! The waiting calls as futures: no runtime, no timer, nothing allocated but the waker's place in a list.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::Producer;
use super::ends::Flushing;
use super::refusal::Refusal;
use super::topic::Topic;
use crate::accumulator::{Ask, Attach, Refused as Full};
use crate::completion::Delivery;
use crate::error::{CloseReport, SendError, WaitedFor};
use crate::record::Record;
use crate::sync::WaitList;

/// [`Topic::send_async`]: ready once the record is in memory, or refused.
#[must_use = "a future does nothing unless it is polled"]
pub struct SendFuture<'a> {
    topic: &'a Topic,
    record: Record<'a>,
    started: Option<Instant>,
    /// Our places in the lists of those who wait for metadata and for room.
    for_topic: Option<u64>,
    for_room: Option<u64>,
    /// What it asks for, if it was woken in vain.
    ask: Option<Ask>,
    done: bool,
}

impl<'a> SendFuture<'a> {
    pub(super) fn new(topic: &'a Topic, record: Record<'a>) -> Self {
        Self { topic, record, started: None, for_topic: None, for_room: None, ask: None, done: false }
    }

    fn deregister(&mut self) {
        self.topic.shared().changed.deregister(&mut self.for_topic);
        self.topic.core().shared.accumulator.room.deregister(&mut self.for_room);
        self.ask = None;
    }

    fn attempt(&self) -> Result<Delivery, Refusal> {
        let appended = self.topic.append(&self.record, Attach::Delivery, self.ask.as_ref())?;
        appended.delivery.ok_or(Refusal::Life)
    }

    /// Why it waits no longer, if so.
    fn given_up(&self, refusal: &Refusal) -> Option<SendError> {
        let core = self.topic.core();
        if let Refusal::NotReady = refusal
            && let Some(Err(error)) = core.topic_step(self.topic.shared())
        {
            return Some(error);
        }
        if let Refusal::NoPartition(partition) = refusal
            && let Some(Err(error)) = core.partition_step(self.topic.shared(), *partition)
        {
            return Some(error);
        }
        let started = self.started?;
        if started.elapsed() < core.shared.config.max_block {
            return core.check_life().err();
        }
        Some(match refusal {
            Refusal::NotReady => core.topic_timeout(self.topic.shared(), started),
            Refusal::NoPartition(partition) => core.no_partition(self.topic.shared(), *partition),
            _ => SendError::Timeout { waited: started.elapsed(), waited_for: WaitedFor::Memory },
        })
    }
}

impl SendFuture<'_> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<Delivery, SendError>> {
        // Whoever has waited before and finds no room now was woken in vain.
        let in_vain = self.for_room.is_some();
        // Once without waiting, and once registered where it waits for what it lacks: what changes in between wakes us.
        let (mut in_topic, mut in_room) = (false, false);
        loop {
            let refusal = match self.attempt() {
                Ok(delivery) => return Poll::Ready(Ok(delivery)),
                Err(refusal) if !refusal.may_pass() => {
                    return Poll::Ready(Err(self.topic.error(&refusal, &self.record)));
                }
                Err(refusal) => refusal,
            };
            self.started.get_or_insert_with(Instant::now);
            if let Some(error) = self.given_up(&refusal) {
                return Poll::Ready(Err(error));
            }
            let accumulator = &self.topic.core().shared.accumulator;
            match refusal {
                Refusal::Full(why) if in_vain && self.ask.is_none() && why == Full::NoRun => {
                    self.ask = accumulator.ask(why);
                }
                Refusal::Full(_) if in_room => return Poll::Pending,
                Refusal::Full(_) => {
                    in_room = true;
                    accumulator.wait_for_room(&mut self.for_room, context.waker());
                }
                _ if in_topic => return Poll::Pending,
                _ => {
                    in_topic = true;
                    self.topic.shared().changed.register(&mut self.for_topic, context.waker());
                    // The sender keeps our time.
                    accumulator.doorbell.ring();
                }
            }
        }
    }
}

impl Future for SendFuture<'_> {
    type Output = Result<Delivery, SendError>;

    /// # Panics
    /// When it is polled again after it was ready: it would send the record again.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.done, "a SendFuture was polled again after it was ready");
        let polled = self.poll_send(context);
        if polled.is_ready() {
            self.done = true;
            self.deregister();
        }
        polled
    }
}

impl Drop for SendFuture<'_> {
    fn drop(&mut self) {
        self.deregister();
    }
}

impl fmt::Debug for SendFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").field("topic", &self.topic.name()).finish_non_exhaustive()
    }
}

/// A place in the list of callers that wait for a flush or for the end.
struct Waiting {
    producer: Producer,
    place: Option<u64>,
    waits: Result<Flushing, SendError>,
}

impl Waiting {
    fn list(&self) -> Option<&WaitList> {
        match &self.waits {
            Ok(Flushing::Ticket(ticket)) => Some(&ticket.waiters),
            Ok(Flushing::End) => Some(&self.producer.open.core.shared.ending.waiters),
            Err(_) => None,
        }
    }

    fn is_done(&self) -> bool {
        match &self.waits {
            Ok(Flushing::Ticket(ticket)) => ticket.is_done(),
            Ok(Flushing::End) => self.producer.open.core.is_over(),
            Err(_) => true,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut place = self.place.take();
        if !self.is_done() {
            if let Some(list) = self.list() {
                list.register(&mut place, context.waker());
            }
            if !self.is_done() {
                self.place = place;
                return Poll::Pending;
            }
        }
        if let Some(list) = self.list() {
            list.deregister(&mut place);
        }
        Poll::Ready(self.waits.as_ref().map(drop).map_err(Clone::clone))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut place = self.place.take();
        if let Some(list) = self.list() {
            list.deregister(&mut place);
        }
    }
}

/// [`Producer::flush_async`]. The flush goes on if it is dropped.
#[must_use = "a future does nothing unless it is polled"]
pub struct FlushFuture(Waiting);

impl FlushFuture {
    pub(super) fn new(producer: Producer, waits: Result<Flushing, SendError>) -> Self {
        Self(Waiting { producer, place: None, waits })
    }
}

impl Future for FlushFuture {
    type Output = Result<(), SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map(|result| result.and_then(|()| self.0.producer.open.core.flushed()))
    }
}

/// [`Producer::close_async`]. The close goes on if it is dropped.
#[must_use = "a future does nothing unless it is polled"]
pub struct CloseFuture(Waiting);

impl CloseFuture {
    pub(super) fn new(producer: Producer, started: Result<(), SendError>) -> Self {
        Self(Waiting { producer, place: None, waits: started.map(|()| Flushing::End) })
    }
}

impl Future for CloseFuture {
    type Output = Result<CloseReport, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context).map(|result| result.and_then(|()| self.0.producer.open.core.closed_with()))
    }
}

impl fmt::Debug for FlushFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushFuture").finish_non_exhaustive()
    }
}

impl fmt::Debug for CloseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloseFuture").finish_non_exhaustive()
    }
}
