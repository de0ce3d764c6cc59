//! The sender's thread: one loop that puts a driver and a clock under a machine that has neither.
//!
//! A turn: carry out what the machine asks for, wait in the driver, hand over what happened, let it look at the ready
//! set and at its timers. In steady state a turn allocates nothing and reads the clock once or twice.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::Clock;
use super::doorbell::Doorbell;
use super::idle::{Idle, IdleStrategy};
use super::probe::{self, DriverChoice};
use super::resolver::Resolver;
use super::{Driver, Event, Setup, Waker};
use crate::sender::transmit::{Action, ConnectionId, Now, Transmit};

/// The sans-IO machine that the loop drives: the sender. `handle_*` tell it what happened, `poll_*` ask what it wants;
/// the loop polls until nothing is left after any number of `handle_*`.
pub trait Machine {
    /// The doorbell rang, or may have: look at the ready set and at commands.
    fn handle_wakeup(&mut self, now: Now);
    /// The time that [`poll_timeout`](Self::poll_timeout) named has come.
    fn handle_timeout(&mut self, now: Now);
    /// A connection stands.
    fn handle_connected(&mut self, now: Now, connection: ConnectionId);
    /// The kernel has taken the whole transmit.
    fn handle_sent(&mut self, now: Now, transmit: Transmit);
    /// Bytes came in.
    fn handle_received(&mut self, now: Now, connection: ConnectionId, bytes: &[u8]);
    /// A connection ended; `unsent` never left whole (see [`Event::Closed`]).
    fn handle_closed(&mut self, now: Now, connection: ConnectionId, reason: &io::Error, unsent: Vec<Transmit>);
    /// The answer to [`Action::Resolve`].
    fn handle_resolved(&mut self, now: Now, host: &str, port: u16, result: Result<Vec<SocketAddr>, String>);
    /// The next thing to be done for it.
    fn poll_action(&mut self) -> Option<Action>;
    /// The next request to be written.
    fn poll_transmit(&mut self) -> Option<Transmit>;
    /// When it wants [`handle_timeout`](Self::handle_timeout), in monotonic time; `None`: nothing is due.
    fn poll_timeout(&mut self) -> Option<Duration>;
    /// Whether its work is over and the thread may end.
    fn is_closed(&self) -> bool;
    /// The thread ends before its work was over: end everything outstanding as *possibly written*. The kernel holds
    /// nothing any more. The machine may be in any state that a panic left it in.
    fn abandon(&mut self);
}

/// On which cores senders run (`sender.cores`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Cores {
    /// Wherever the system puts them.
    #[default]
    None,
    /// Each sender of this process on a core of its own, from the last one down.
    Auto,
    /// On these; the first sender takes the first.
    List(Vec<usize>),
}

/// How to run a sender.
#[derive(Clone, Debug)]
pub struct Options {
    pub driver: DriverChoice,
    pub idle: IdleStrategy,
    pub cores: Cores,
    pub setup: Setup,
}

/// A running sender thread.
#[derive(Debug)]
pub struct Started {
    /// Ends when the machine is closed, or after `abandon`; never with a panic.
    pub thread: JoinHandle<()>,
    /// Rings the driver; the doorbell is already bound to it.
    pub waker: Waker,
    /// Which driver was chosen: `"io_uring"` or `"epoll"`.
    pub driver_name: &'static str,
}

/// Starts the thread `ringmail-sender`, makes a driver on it, binds the doorbell and runs the machine until it is
/// closed. Returns once the driver stands; an error when there can be no thread or no driver.
pub fn spawn<M>(options: Options, machine: M, doorbell: Arc<Doorbell>) -> io::Result<Started>
where
    M: Machine + Send + 'static,
{
    let (report, made) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("ringmail-sender".to_owned()).spawn(move || {
        pin(&options.cores);
        // Here and not in the caller, because a ring belongs to the thread that made it.
        match probe::choose(options.driver, &options.setup) {
            Ok(driver) => {
                let waker = driver.waker();
                let wake = waker.clone();
                doorbell.bind(Box::new(move || wake.wake()));
                // The caller waits for it.
                let _ = report.send(Ok((waker.clone(), driver.name())));
                run_to_end(driver, waker, machine, doorbell, options.idle);
            }
            Err(error) => {
                let _ = report.send(Err(error));
            }
        }
    })?;
    let (waker, driver_name) =
        made.recv().map_err(|_| io::Error::other("the sender thread ended while it started"))??;
    Ok(Started { thread, waker, driver_name })
}

/// Runs the loop; whatever ends it, the driver is gone before the machine's memory is.
fn run_to_end<M: Machine>(
    driver: Box<dyn Driver>,
    waker: Waker,
    mut machine: M,
    doorbell: Arc<Doorbell>,
    idle: IdleStrategy,
) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut turns = Turns {
            machine: &mut machine,
            driver,
            doorbell: &doorbell,
            resolver: Resolver::new(waker),
            clock: Clock::new(),
            idle: Idle::new(idle, cores),
        };
        turns.run()
        // The driver is dropped here, also by a panic: from now on the kernel reads nothing of the arena.
    }));
    match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => tracing::error!(%error, "the sender's driver failed; the producer ends"),
        Err(cause) => {
            let cause = cause.downcast_ref::<&str>().copied().or(cause.downcast_ref::<String>().map(String::as_str));
            tracing::error!(panic = cause.unwrap_or("?"), "the sender thread panicked; the producer ends");
        }
    }
    if catch_unwind(AssertUnwindSafe(|| machine.abandon())).is_err() {
        tracing::error!("the sender panicked again while it ended what was outstanding");
    }
}

/// One machine over one driver.
struct Turns<'a, M> {
    machine: &'a mut M,
    driver: Box<dyn Driver>,
    doorbell: &'a Doorbell,
    resolver: Resolver,
    clock: Clock,
    idle: Idle,
}

impl<M: Machine> Turns<'_, M> {
    /// Turns until the machine is closed. An error when the driver is of no use any more.
    fn run(&mut self) -> io::Result<()> {
        let mut now = self.clock.now();
        self.machine.handle_wakeup(now);
        loop {
            self.carry_out();
            if self.machine.is_closed() {
                return Ok(());
            }
            now = self.wait(now)?;
            while let Some(answer) = self.resolver.answer() {
                self.machine.handle_resolved(now, &answer.host, answer.port, answer.result);
            }
            if self.machine.poll_timeout().is_some_and(|deadline| deadline <= now.monotonic) {
                self.machine.handle_timeout(now);
            }
        }
    }

    /// Does what the machine asks for.
    fn carry_out(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Connect { connection, address } => self.driver.connect(connection, address),
                Action::Close { connection } => self.driver.close(connection),
                Action::Resolve { host, port } => self.resolver.ask(host, port),
            }
        }
        while let Some(transmit) = self.machine.poll_transmit() {
            self.driver.send(transmit);
        }
    }

    /// Waits until something happens or the machine's time has come, hands over what happened, and tells the machine
    /// to look if the doorbell rang. Returns the time after the wait.
    fn wait(&mut self, before: Now) -> io::Result<Now> {
        let deadline = self.machine.poll_timeout();
        let mut now = before;
        if self.resolver.is_answered() {
            return self.pass(Some(Duration::ZERO)).map(|(now, _)| now);
        }
        if !self.doorbell.is_rung() {
            let spin = self.idle.spin();
            if spin != Some(Duration::ZERO) {
                let until = spin.map(|spin| before.monotonic + spin);
                let found;
                (now, found) = self.spin(until, deadline)?;
                if spin.is_some() {
                    self.idle.spun(found);
                }
                if found || deadline.is_some_and(|deadline| deadline <= now.monotonic) {
                    return Ok(self.look_if_rung(now));
                }
            }
        }
        if !self.doorbell.try_park() {
            (now, _) = self.pass(Some(Duration::ZERO))?;
            return Ok(self.look_if_rung(now));
        }
        // What the machine did since `now` may have taken long; a park is worth a second look at the clock.
        let timeout = deadline.map(|deadline| deadline.saturating_sub(self.clock.now().monotonic));
        (now, _) = self.pass(timeout)?;
        self.doorbell.awake();
        self.machine.handle_wakeup(now);
        Ok(now)
    }

    /// Polls without blocking until something happens, the doorbell rings or time is over. True: something happened.
    fn spin(&mut self, until: Option<Duration>, deadline: Option<Duration>) -> io::Result<(Now, bool)> {
        loop {
            let (now, events) = self.pass(Some(Duration::ZERO))?;
            if events || self.doorbell.is_rung() || self.resolver.is_answered() {
                return Ok((now, true));
            }
            if [until, deadline].into_iter().flatten().any(|end| end <= now.monotonic) {
                return Ok((now, false));
            }
            std::hint::spin_loop();
        }
    }

    /// If the doorbell rang: answers it, and tells the machine to look.
    fn look_if_rung(&mut self, now: Now) -> Now {
        if self.doorbell.is_rung() {
            self.doorbell.awake();
            self.machine.handle_wakeup(now);
        }
        now
    }

    /// One poll of the driver. The clock is read once, when the wait is over. True: something happened.
    fn pass(&mut self, timeout: Option<Duration>) -> io::Result<(Now, bool)> {
        let Self { machine, driver, clock, .. } = self;
        let mut read = None;
        driver.poll(timeout, &mut |event| {
            let now = *read.get_or_insert_with(|| clock.now());
            match event {
                Event::Connected(connection) => machine.handle_connected(now, connection),
                Event::Sent(transmit) => machine.handle_sent(now, transmit),
                Event::Received(connection, bytes) => machine.handle_received(now, connection, bytes),
                Event::Closed { connection, reason, unsent } => {
                    machine.handle_closed(now, connection, &reason, unsent);
                }
            }
        })?;
        Ok((read.unwrap_or_else(|| clock.now()), read.is_some()))
    }
}

/// Puts the calling thread on the core that the user chose. Failure costs speed only, so it is a warning.
fn pin(cores: &Cores) {
    /// Senders pinned in this process so far: each takes the next core.
    static PINNED: AtomicUsize = AtomicUsize::new(0);
    let core = match cores {
        Cores::None => return,
        Cores::List(list) if list.is_empty() => return,
        Cores::List(list) => Some(core_affinity::CoreId { id: list[PINNED.fetch_add(1, Relaxed) % list.len()] }),
        Cores::Auto => core_affinity::get_core_ids().filter(|all| !all.is_empty()).map(|all| {
            let taken = PINNED.fetch_add(1, Relaxed) % all.len();
            all[all.len() - 1 - taken]
        }),
    };
    match core {
        Some(core) if core_affinity::set_for_current(core) => tracing::debug!(core = core.id, "sender thread pinned"),
        Some(core) => tracing::warn!(core = core.id, "the sender thread could not be pinned to its core"),
        None => tracing::warn!("the sender thread is not pinned: the system does not tell its cores"),
    }
}
