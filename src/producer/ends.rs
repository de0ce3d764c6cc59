//! Flush, close and drop: waiting for what was accepted, and for the end. Whoever comes while a close is under way waits
//! for that one and hears the same.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::futures::{CloseFuture, FlushFuture};
use super::{Callbacks, Core, Open, Producer};
use crate::completion::callback_thread;
use crate::error::{CloseReport, SendError};
use crate::metadata::ClusterName;
use crate::sender::{Command, Life, Ticket};
use crate::sync::block_until;

/// What a flush waits for.
pub(super) enum Flushing {
    /// The records before it.
    Ticket(Arc<Ticket>),
    /// All records: the producer is closing, or closed.
    End,
}

impl Producer {
    /// Sends everything accepted before this call without waiting for `linger.ms`, and blocks until each of these
    /// records is delivered or has failed and its listener, callback or sink has run. While the producer closes, it waits for
    /// the end of that.
    ///
    /// It has no limit of its own: `delivery.timeout.ms` ends every record.
    ///
    /// # Errors
    /// [`SendError::WouldDeadlock`] on the thread that runs listeners and callbacks, [`SendError::SenderPanicked`],
    /// [`SendError::Forked`]. Not [`SendError::Closed`]: then there is nothing left to flush.
    pub fn flush(&self) -> Result<(), SendError> {
        let core = &self.open.core;
        core.check_may_block()?;
        match core.start_flush()? {
            Flushing::Ticket(ticket) => {
                block_until(&ticket.waiters, None, || ticket.is_done().then_some(()));
            }
            Flushing::End => core.wait_until_over(),
        }
        core.flushed()
    }

    /// [`Producer::flush`] as a future, for any runtime or none.
    pub fn flush_async(&self) -> FlushFuture {
        FlushFuture::new(self.clone(), self.open.core.start_flush())
    }

    /// Takes no more records, sends what was accepted for up to `timeout`, and ends. What is not delivered by then
    /// fails, and the report lists it by partition. Records that other threads hand over meanwhile are refused with
    /// [`SendError::Closed`].
    ///
    /// It returns once listeners, callbacks and the sink have run, and the sink has finished; but what they have not done a
    /// second after `timeout` they do behind the caller's back. A close while another one is under way joins it: the
    /// earlier deadline counts, and both get the same report. So does one after it, at once.
    ///
    /// # Errors
    /// [`SendError::WouldDeadlock`] on the thread that runs listeners and callbacks (use [`Producer::close_async`] or
    /// drop the producer there), [`SendError::SenderPanicked`], [`SendError::Forked`].
    pub fn close(&self, timeout: Duration) -> Result<CloseReport, SendError> {
        self.open.core.check_may_block()?;
        self.open.core.start_close(timeout)?;
        self.open.wait_for_end();
        self.open.core.closed_with()
    }

    /// [`Producer::close`] as a future, for any runtime or none. The close goes on if the future is dropped.
    pub fn close_async(&self, timeout: Duration) -> CloseFuture {
        CloseFuture::new(self.clone(), self.open.core.start_close(timeout))
    }

    /// This is the cluster that it sends to.
    pub(crate) fn is_in(&self, cluster: &ClusterName) -> bool {
        self.open.core.shared.cluster.is_same(cluster)
    }

    /// Closes it on another producer's callback thread, where `close` itself would not know that waiting is safe.
    pub(crate) fn close_for_another(&self, timeout: Duration) {
        if self.open.core.start_close(timeout.min(self.open.core.shared.config.close_timeout)).is_ok() {
            self.open.wait_for_end();
        }
    }
}

impl Core {
    fn start_flush(&self) -> Result<Flushing, SendError> {
        match self.check_life() {
            Err(SendError::Closed) => Ok(Flushing::End),
            Err(error) => Err(error),
            Ok(()) => {
                let ticket = Arc::new(Ticket::default());
                self.shared.command(Command::Flush(ticket.clone()));
                Ok(Flushing::Ticket(ticket))
            }
        }
    }

    pub(super) fn flushed(&self) -> Result<(), SendError> {
        match self.shared.life() {
            Life::Panicked => Err(SendError::SenderPanicked),
            _ => Ok(()),
        }
    }

    /// From here on nothing is accepted.
    fn start_close(&self, timeout: Duration) -> Result<(), SendError> {
        if self.origin.is_elsewhere() {
            return Err(SendError::Forked);
        }
        self.shared.ending.set_timeout(timeout);
        self.shared.end(Life::Closed);
        self.shared.command(Command::Close(timeout));
        Ok(())
    }

    /// The sender is gone, and the callback thread has had its time.
    pub(super) fn is_over(&self) -> bool {
        let ending = &self.shared.ending;
        let late = || ending.last_moment().is_some_and(|at| std::time::Instant::now() >= at);
        ending.is_over() && (ending.callbacks_ended() || late())
    }

    fn wait_until_over(&self) {
        let ending = &self.shared.ending;
        // The sender ends in time, whatever brokers and callbacks do.
        let died = || self.shared.life() == Life::Panicked;
        block_until(&ending.waiters, None, || (ending.is_over() || died()).then_some(()));
        // Unless it died: then nobody has waited for the callback thread.
        let ended = || ending.is_over() && ending.callbacks_ended();
        block_until(&ending.waiters, ending.last_moment(), || ended().then_some(()));
    }

    pub(super) fn closed_with(&self) -> Result<CloseReport, SendError> {
        self.flushed()?;
        Ok(self.shared.ending.report().cloned().unwrap_or_default())
    }
}

impl Open {
    fn wait_for_end(&self) {
        self.core.wait_until_over();
        let ending = &self.core.shared.ending;
        // Threads that are still at work end by themselves.
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender.filter(|_| ending.is_over()) {
            let _ = sender.join();
        }
        let callbacks = {
            let mut callbacks = self.core.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *callbacks, Callbacks::Ended)
        };
        if let Callbacks::Running(callbacks) = callbacks
            && ending.callbacks_ended()
        {
            let _ = callbacks.join();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let timeout = self.core.shared.config.close_timeout;
        if self.core.start_close(timeout).is_ok() && !callback_thread::is_current() {
            self.wait_for_end();
        }
    }
}
