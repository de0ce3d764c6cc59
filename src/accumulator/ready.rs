//! Which partitions the sender must look at: an intrusive list, so that nothing is allocated.

use crate::sync::{AcqRel, Acquire, AtomicBool, AtomicU32, Relaxed, Release, order};

/// A partition's place in the list. `next` belongs to whoever turned `queued` on, then to the sender.
#[derive(Debug)]
pub struct ReadyLink {
    queued: AtomicBool,
    next: AtomicU32,
}

impl Default for ReadyLink {
    fn default() -> Self {
        Self { queued: AtomicBool::new(false), next: AtomicU32::new(0) }
    }
}

/// The list's head: partition id + 1, or 0.
#[derive(Debug)]
pub struct ReadySet {
    head: AtomicU32,
}

impl Default for ReadySet {
    fn default() -> Self {
        Self { head: AtomicU32::new(0) }
    }
}

impl ReadySet {
    /// True: the partition was not queued, so the doorbell must ring.
    #[must_use]
    pub fn push(&self, link: &ReadyLink, id: u32) -> bool {
        if link.queued.swap(true, order("queued_set", AcqRel)) {
            return false;
        }
        let mut head = self.head.load(Relaxed);
        loop {
            link.next.store(head, Relaxed);
            match self.head.compare_exchange(head, id + 1, order("ready_push", Release), Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
    }

    /// Names what is queued now. A partition's flag goes out before it is named, hence before its ring is read: what
    /// becomes ready from then on queues it again.
    pub fn visit<'a>(&self, link: impl Fn(u32) -> &'a ReadyLink, mut visit: impl FnMut(u32)) {
        let mut at = self.head.swap(0, order("ready_take", Acquire));
        while at != 0 {
            let id = at - 1;
            let link = link(id);
            // `next` first: once the flag is out, the link belongs to the next pusher.
            at = link.next.load(Relaxed);
            // An RMW: it reads from, hence synchronises with, a writer that found the flag already on.
            link.queued.swap(false, order("queued_clear", AcqRel));
            visit(id);
        }
    }
}
