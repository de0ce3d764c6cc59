//! The ring itself: made with the best flags the kernel takes, filled without limit, entered once per poll.
//!
//! *Why this is sound*: (a) whoever pushes an operation promises that what it points to stays where it is, and unused by
//! anybody else where the kernel writes, until the operation's completion was taken or the ring is gone; (b) `enter`
//! with no argument or with a timespec that is a local reads nothing else of ours.

#![allow(unsafe_code, reason = "argued above")]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{Builder, EnterFlags, IoUring, Probe, opcode};

/// Submission slots; more operations wait in the backlog.
const ENTRIES: u32 = 256;

/// Ways to set a ring up, the best one first: Linux 6.1, 5.19, any.
pub const STEPS: [fn(&mut Builder) -> &mut Builder; 3] = [
    |ring| ring.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
    |ring| ring.setup_coop_taskrun().setup_taskrun_flag(),
    |ring| ring,
];

/// Operations that the driver needs, with their names for the error.
const NEEDED: [(u8, &str); 5] = [
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Read::CODE, "READ"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// A ring and the operations that wait for a place in it.
pub struct Ring {
    ring: IoUring,
    backlog: VecDeque<Entry>,
    /// Operations pushed whose completion was not taken.
    outstanding: usize,
    /// Made with DEFER_TASKRUN (Linux 6.1).
    deferred: bool,
}

impl Ring {
    /// A ring for the calling thread, or why the kernel or its sandbox refuses one.
    pub fn new() -> io::Result<Self> {
        let mut step = 0;
        loop {
            match Self::at_step(step) {
                // Flags that this kernel does not know. Anything else would meet the next step as well.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && step + 1 < STEPS.len() => step += 1,
                result => return result.map_err(explain),
            }
        }
    }

    /// A ring with the flags of one of [`STEPS`].
    pub fn at_step(step: usize) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        // A forked child must not share the rings.
        builder.dontfork().setup_clamp();
        let ring = STEPS[step](&mut builder).build(ENTRIES)?;
        check(&ring)?;
        tracing::debug!(step, "io_uring set up");
        Ok(Self { ring, backlog: VecDeque::new(), outstanding: 0, deferred: step == 0 })
    }

    /// Whether the kernel is at least Linux 6.1 and the ring made with all that it offers.
    pub fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// How many operations the kernel has or will get, and whose completion was not taken.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Adds an operation; it starts with the next [`enter`](Self::enter).
    ///
    /// # Safety
    /// Clause (a).
    pub unsafe fn push(&mut self, entry: Entry) {
        self.outstanding += 1;
        self.backlog.push_back(entry);
    }

    /// The next completion: user data and result.
    pub fn completion(&mut self) -> Option<(u64, i32)> {
        let completion = self.ring.completion().next()?;
        self.outstanding -= 1;
        Some((completion.user_data(), completion.result()))
    }

    /// Starts what was pushed and waits until a completion is there, for at most `timeout`. Zero does not wait, and
    /// makes no system call when there is nothing to start and nothing to fetch.
    pub fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        while self.fill() {
            // More than the ring holds: start these first.
            match self.ring.submit() {
                // The kernel takes none now: later.
                Ok(0) => return Ok(()),
                Err(error) if is_passing(&error) => return Ok(()),
                result => result?,
            };
        }
        let result = match timeout {
            Some(Duration::ZERO) => {
                let queue = self.ring.submission();
                let (len, quiet) = (queue.len() as u32, !queue.taskrun() && !queue.cq_overflow());
                drop(queue);
                if len == 0 && quiet {
                    return Ok(());
                }
                // GETEVENTS also without anything to wait for: deferred work runs only then.
                // SAFETY: clause (b).
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(len, 0, EnterFlags::GETEVENTS.bits(), None) }
            }
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
            None => self.ring.submit_and_wait(1),
        };
        match result {
            Err(error) if is_passing(&error) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Moves operations from the backlog into the ring; true when not all had room.
    fn fill(&mut self) -> bool {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: clause (a), promised by who pushed it.
            if unsafe { queue.push(entry) }.is_err() {
                return true;
            }
            self.backlog.pop_front();
        }
        false
    }
}

/// Errors of `enter` that say "later": time is over, a signal came, or completions must be taken first.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

/// Whether this kernel's ring can do all that the driver needs.
fn check(ring: &IoUring) -> io::Result<()> {
    let params = ring.params();
    let features = [
        (params.is_feature_nodrop(), "NODROP"),
        (params.is_feature_submit_stable(), "SUBMIT_STABLE"),
        (params.is_feature_fast_poll(), "FAST_POLL"),
        (params.is_feature_ext_arg(), "EXT_ARG"),
    ];
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let operations = NEEDED.map(|(code, name)| (probe.is_supported(code), name));
    match features.iter().chain(&operations).find(|(supported, _)| !supported) {
        Some((_, name)) => Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel lacks {name}"))),
        None => Ok(()),
    }
}

/// The usual reasons in words.
fn explain(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring, or the sandbox hides it",
        Some(libc::EPERM | libc::EACCES) => "forbidden by seccomp or by kernel.io_uring_disabled",
        Some(libc::ENOMEM) => "not enough lockable memory (RLIMIT_MEMLOCK)",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{why}: {error}"))
}
