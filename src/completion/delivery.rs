//! What a caller holds of a record that was accepted.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
#[cfg(not(loom))]
use std::time::Duration;
use std::time::Instant;

use super::primitives::thread;
use super::slot::Hold;
use super::{RecordMetadata, callback_thread};
use crate::error::{DeliveryError, DeliveryErrorKind};

/// A record on its way: to be waited for, awaited, polled or dropped. Dropping it does not stop the record.
///
/// It holds no buffer, but the completion of its batch: keep deliveries as long as you need their answers, and no
/// longer. Leaking one (`mem::forget`) leaks the completion with it.
///
/// As a future it may be polled by any runtime or none, and again after it was ready.
#[must_use = "without it nobody hears whether the record was delivered; `drop` it to say that this is meant"]
pub struct Delivery {
    hold: Hold,
    index: u32,
    /// A waker of ours may be registered.
    waiting: bool,
    timestamp: i64,
}

type Done = Result<RecordMetadata, DeliveryError>;

impl Delivery {
    pub(super) fn from_parts(hold: Hold, index: u32, timestamp: i64) -> Self {
        Self { hold, index, waiting: false, timestamp }
    }

    /// Blocks until the record is delivered or has failed, at most for about `delivery.timeout.ms`.
    ///
    /// # Errors
    /// Why it was not delivered, and whether it may have been written all the same. On the thread that runs listeners
    /// and callbacks: `WouldDeadlock`, unless the record is done already.
    pub fn wait(mut self) -> Result<RecordMetadata, DeliveryError> {
        self.block_for_ever()
    }

    /// Like [`wait`](Self::wait), for `timeout` at most. `None`: still on its way.
    ///
    /// # Errors
    /// As with [`wait`](Self::wait).
    #[cfg(not(loom))]
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<RecordMetadata, DeliveryError>> {
        // A time too far away to be expressed is not a limit.
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.block(Some(deadline)),
            None => Some(self.block_for_ever()),
        }
    }

    /// The result, if the record is done. Never blocks.
    pub fn try_result(&self) -> Option<Result<RecordMetadata, DeliveryError>> {
        self.hold.look(self.index, self.timestamp)
    }

    /// The record's timestamp as it was sent, in milliseconds since the Unix epoch.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    fn block_for_ever(&mut self) -> Done {
        loop {
            if let Some(done) = self.block(None) {
                return done;
            }
        }
    }

    /// `None` only past the deadline.
    fn block(&mut self, deadline: Option<Instant>) -> Option<Done> {
        if let Some(done) = self.try_result() {
            return Some(done);
        }
        if callback_thread::is_current() {
            return Some(Err(DeliveryError::placeless(DeliveryErrorKind::WouldDeadlock)));
        }
        let waker = thread_waker();
        loop {
            if let Poll::Ready(done) = self.poll_with(&waker) {
                return Some(done);
            }
            if !park_until(deadline) {
                self.stop_waiting();
                return self.try_result();
            }
        }
    }

    fn poll_with(&mut self, waker: &Waker) -> Poll<Done> {
        loop {
            if let Some(done) = self.try_result() {
                // A waker registered before was taken, or is about to be, by whoever made it done.
                self.waiting = false;
                return Poll::Ready(done);
            }
            self.waiting = true;
            if self.hold.register(self.index, waker) {
                return Poll::Pending;
            }
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.hold.deregister(self.index);
        }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx.waker())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("result", &self.try_result()).finish_non_exhaustive()
    }
}

/// Unparks the thread it was made on.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(not(loom))]
fn thread_waker() -> Waker {
    thread_local! {
        static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
    }
    // Late in a thread's life its locals are gone.
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| Waker::from(Arc::new(Unpark(thread::current()))))
}

#[cfg(loom)]
fn thread_waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Sleeps until unparked or past the deadline; `false`: past it.
fn park_until(deadline: Option<Instant>) -> bool {
    #[cfg(not(loom))]
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return false;
        }
        thread::park_timeout(left);
        return true;
    }
    let _ = deadline;
    thread::park();
    true
}
