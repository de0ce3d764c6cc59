//! The sender's thread: one loop that puts a driver and a clock under a machine that has neither.
//!
//! In steady state a [turn] allocates nothing and reads the clock once or twice.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::Clock;
use super::idle::Idle;
use super::probe;
use super::resolver::Resolver;
use super::{Driver, Event, Setup, Waker};
use crate::accumulator::Accumulator;
use crate::completion::callback_thread;
use crate::config::{Cores, DriverChoice, IdleStrategy};
use crate::sender::transmit::{Action, Now, Transmit};
use crate::sender::turn::{Machine, World, is_due, turn};
use crate::sync::Doorbell;

/// How wrong the sender's coarse clock may be.
const TICK: Duration = Duration::from_millis(1);

/// A deadline further away is looked at again after this: systems differ in what they make of very long timeouts.
const LONGEST_PARK: Duration = Duration::from_secs(3600);

/// How to run a sender.
#[derive(Clone, Debug)]
pub struct Options {
    pub driver: DriverChoice,
    pub idle: IdleStrategy,
    pub cores: Cores,
    pub setup: Setup,
}

/// Who owns the doorbell that wakes a sender.
pub trait Bell: Send + 'static {
    /// That doorbell.
    fn doorbell(&self) -> &Doorbell;

    /// The thread is about to sleep for longer than [`TICK`]: the coarse clock that the sender sets each turn stands
    /// still until `handle_wakeup` of the next turn.
    fn clock_stops(&self) {}

    /// The thread goes on spinning and the machine has no turn: what the coarse clock says from now on, Unix ms.
    fn clock_is(&self, unix_ms: i64) {
        let _ = unix_ms;
    }
}

impl Bell for Arc<Accumulator> {
    fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    fn clock_stops(&self) {
        self.stop_clock();
    }

    fn clock_is(&self, unix_ms: i64) {
        self.clock.store(unix_ms, Relaxed);
    }
}

/// A running sender thread.
#[derive(Debug)]
pub struct Started {
    /// Ends when the machine is closed, or after `abandon`; never with a panic.
    pub thread: JoinHandle<()>,
    /// Which driver was chosen: `"io_uring"` or `"epoll"`.
    pub driver_name: &'static str,
}

/// Starts the thread `ringmail-sender`, makes a driver on it, binds the doorbell and runs the machine until it is
/// closed. Returns once the driver stands; an error when there can be no thread or no driver.
pub fn spawn<M, B>(options: Options, machine: M, bell: B) -> io::Result<Started>
where
    M: Machine + Send + 'static,
    B: Bell,
{
    let Options { driver, idle, cores, setup } = options;
    let (report, made) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("ringmail-sender".to_owned()).spawn(move || {
        // The callers' wakers run here, and what they drop: nothing that would wait for this thread may do so on it.
        let _entered = callback_thread::enter();
        pin(&cores);
        // Here and not in the caller, because a ring belongs to the thread that made it.
        let driver = probe::choose(driver, &setup);
        drop(setup);
        match driver {
            Ok(driver) => {
                let waker = driver.waker();
                let wake = waker.clone();
                bell.doorbell().bind(Box::new(move || wake.wake()));
                // The caller waits for it.
                let _ = report.send(Ok(driver.name()));
                run_to_end(driver, waker, machine, &bell, idle);
            }
            Err(error) => {
                let _ = report.send(Err(error));
            }
        }
    })?;
    let driver_name = made.recv().map_err(|_| io::Error::other("the sender thread ended while it started"))??;
    Ok(Started { thread, driver_name })
}

/// Runs the loop; whatever ends it, the driver is gone before the machine's memory is.
fn run_to_end<M: Machine>(driver: Box<dyn Driver>, waker: Waker, mut machine: M, bell: &impl Bell, idle: IdleStrategy) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut clock = Clock::new();
        let mut thread = Thread {
            machine: &mut machine,
            driver,
            bell,
            resolver: Resolver::new(waker),
            now: clock.now(),
            clock,
            idle: Idle::new(idle, cores),
            quiet: false,
        };
        // The first turn does not wait.
        bell.doorbell().ring();
        while !thread.machine.is_closed() {
            turn(&mut thread)?;
        }
        io::Result::Ok(())
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
    // A writer that was preempted in the middle of its copy comes back some time.
    let abandon = || {
        while machine.abandon() {
            std::thread::sleep(TICK);
        }
    };
    if catch_unwind(AssertUnwindSafe(abandon)).is_err() {
        tracing::error!("the sender panicked again while it ended what was outstanding");
    }
}

/// One machine over one driver.
struct Thread<'a, M, B> {
    machine: &'a mut M,
    driver: Box<dyn Driver>,
    bell: &'a B,
    resolver: Resolver,
    clock: Clock,
    /// Of this turn.
    now: Now,
    idle: Idle,
    /// The last park ended with nothing but its timeout.
    quiet: bool,
}

impl<M: Machine, B: Bell> World for Thread<'_, M, B> {
    type Machine = M;
    type Error = io::Error;

    fn machine(&mut self) -> &mut M {
        self.machine
    }

    fn wait(&mut self) -> io::Result<Now> {
        self.now = self.wait_since(self.now)?;
        while let Some(answer) = self.resolver.answer() {
            self.machine.handle_resolved(self.now, &answer.host, answer.port, answer.result);
        }
        Ok(self.now)
    }

    fn awake(&mut self) {
        self.bell.doorbell().awake();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { connection, address } => self.driver.connect(connection, address),
            Action::Close { connection } => self.driver.close(connection),
            Action::Resolve { host, port } => self.resolver.ask(host, port),
        }
    }

    fn send(&mut self, transmit: Transmit) {
        self.driver.send(transmit);
    }
}

impl<M: Machine, B: Bell> Thread<'_, M, B> {
    /// Waits in the driver, which reports what happened. Returns the time after the wait.
    fn wait_since(&mut self, before: Now) -> io::Result<Now> {
        let deadline = self.machine.poll_timeout();
        if is_due(deadline, before) || self.is_called() {
            self.quiet = false;
            return Ok(self.pass(Some(Duration::ZERO))?.0);
        }
        let spin = self.idle.spin();
        if spin != Some(Duration::ZERO) {
            let until = spin.map(|spin| before.monotonic + spin);
            let (now, found) = self.spin(until, deadline)?;
            self.idle.spun(found);
            self.quiet &= !found;
            if found || is_due(deadline, now) {
                return Ok(now);
            }
        }
        let timeout = if self.bell.doorbell().try_park() {
            // What the machine did since `before` may have taken long; a park is worth a second look at the clock.
            let timeout =
                deadline.map(|deadline| deadline.saturating_sub(self.clock.now().monotonic).min(LONGEST_PARK));
            match timeout {
                Some(timeout) if timeout <= TICK => Some(timeout),
                // Callers at work would read the system's clock for each record: one more tick for them.
                _ if !self.quiet => Some(TICK),
                _ => {
                    self.bell.clock_stops();
                    timeout
                }
            }
        } else {
            Some(Duration::ZERO)
        };
        let (now, events) = self.pass(timeout)?;
        self.quiet = !events && !self.is_called();
        Ok(now)
    }

    /// Polls without blocking until something happens, the machine is called or time is over. True: not the latter.
    fn spin(&mut self, until: Option<Duration>, deadline: Option<Duration>) -> io::Result<(Now, bool)> {
        let mut told = i64::MIN;
        loop {
            let (now, events) = self.pass(Some(Duration::ZERO))?;
            if events || self.is_called() {
                return Ok((now, true));
            }
            if is_due(until, now) || is_due(deadline, now) {
                return Ok((now, false));
            }
            if now.unix_ms != told {
                told = now.unix_ms;
                self.bell.clock_is(told);
            }
            std::hint::spin_loop();
        }
    }

    /// Whether the machine should look although the driver has nothing to tell.
    fn is_called(&self) -> bool {
        self.bell.doorbell().is_rung() || self.resolver.is_answered()
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
    let all = core_affinity::get_core_ids().unwrap_or_default();
    let next = |count: usize| PINNED.fetch_add(1, Relaxed) % count;
    let id = match cores {
        Cores::None => return,
        Cores::List(list) if list.is_empty() => return,
        Cores::List(list) => list[next(list.len())],
        Cores::Auto if all.is_empty() => {
            return tracing::warn!("the sender thread is not pinned: the system does not tell its cores");
        }
        Cores::Auto => all[all.len() - 1 - next(all.len())].id,
    };
    // Only cores that the system named: core_affinity panics at numbers that no core can have.
    let core = all.into_iter().find(|core| core.id == id);
    if core.is_some_and(core_affinity::set_for_current) {
        tracing::debug!(core = id, "sender thread pinned");
    } else {
        tracing::warn!(core = id, "the sender thread could not be pinned: there is no such core, or it is not allowed");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::accumulator::arena::Arena;
    use crate::driver::SocketOptions;
    use crate::sender::transmit::{ConnectionId, Piece, Transmit};

    /// No answer takes longer, unless a wake-up is lost.
    const PATIENCE: Duration = Duration::from_secs(30);

    impl Bell for Arc<Doorbell> {
        fn doorbell(&self) -> &Doorbell {
            self
        }
    }

    /// What the scripted machine is told to do, at its next look.
    enum Order {
        Do(Action),
        Send(Transmit),
        /// Wants `handle_timeout` so much later.
        Timer(Duration),
        Panic,
        End,
    }

    /// What it was told by the loop.
    #[derive(PartialEq, Eq, Debug)]
    enum Saw {
        Look,
        Connected,
        Sent(Transmit),
        Received(Vec<u8>),
        Closed(io::ErrorKind),
        Resolved(String, Result<Vec<SocketAddr>, String>),
        /// The timer fired so much after its time; never before it.
        Fired(Duration),
        /// Abandoned; the driver had let go of the arena.
        Abandoned(bool),
    }

    /// A machine that does what it is told and reports all that it sees.
    struct Script {
        orders: Receiver<Order>,
        reports: Sender<Saw>,
        arena: Arc<Arena>,
        actions: Vec<Action>,
        transmits: Vec<Transmit>,
        deadline: Option<Duration>,
        ended: bool,
    }

    impl Script {
        fn saw(&self, saw: Saw) {
            self.reports.send(saw).expect("the test listens");
        }
    }

    impl Machine for Script {
        fn handle_connected(&mut self, _: Now, _: ConnectionId) {
            self.saw(Saw::Connected);
        }
        fn handle_sent(&mut self, _: Now, transmit: Transmit) {
            self.saw(Saw::Sent(transmit));
        }
        fn handle_received(&mut self, _: Now, _: ConnectionId, bytes: &[u8]) {
            self.saw(Saw::Received(bytes.to_vec()));
        }
        fn handle_closed(&mut self, _: Now, _: ConnectionId, reason: &io::Error, _: Vec<Transmit>) {
            self.saw(Saw::Closed(reason.kind()));
        }
        fn handle_resolved(&mut self, _: Now, host: &str, _: u16, result: Result<Vec<SocketAddr>, String>) {
            self.saw(Saw::Resolved(host.to_owned(), result));
        }
        fn handle_timeout(&mut self, now: Now) {
            let deadline = self.deadline.take().expect("only when one was named");
            self.saw(Saw::Fired(now.monotonic.checked_sub(deadline).expect("not before its time")));
        }
        fn handle_wakeup(&mut self, now: Now) {
            self.saw(Saw::Look);
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Do(action) => self.actions.push(action),
                    Order::Send(transmit) => self.transmits.push(transmit),
                    Order::Timer(after) => self.deadline = Some(now.monotonic + after),
                    Order::Panic => panic!("as ordered"),
                    Order::End => self.ended = true,
                }
            }
        }
        fn poll_action(&mut self) -> Option<Action> {
            self.actions.pop()
        }
        fn poll_transmit(&mut self) -> Option<Transmit> {
            self.transmits.pop()
        }
        fn poll_timeout(&self) -> Option<Duration> {
            self.deadline
        }
        fn is_closed(&self) -> bool {
            self.ended
        }
        fn abandon(&mut self) -> bool {
            // The machine's own and the test's.
            self.saw(Saw::Abandoned(Arc::strong_count(&self.arena) == 2));
            panic!("even this does not leave the thread");
        }
    }

    /// A running thread and both ends of its script.
    struct Running {
        started: Started,
        bell: Arc<Doorbell>,
        orders: Sender<Order>,
        reports: Receiver<Saw>,
        _arena: Arc<Arena>,
    }

    fn start(driver: DriverChoice, idle: IdleStrategy, cores: Cores) -> Running {
        let arena = Arc::new(Arena::new(4096).expect("an arena"));
        let ((orders, receiver), (sender, reports)) = (channel(), channel());
        let machine = Script {
            orders: receiver,
            reports: sender,
            arena: arena.clone(),
            actions: Vec::new(),
            transmits: Vec::new(),
            deadline: None,
            ended: false,
        };
        let bell = Arc::new(Doorbell::default());
        let setup = Setup { arena: arena.clone(), sockets: SocketOptions::default() };
        let started = spawn(Options { driver, idle, cores, setup }, machine, bell.clone()).expect("started");
        Running { started, bell, orders, reports, _arena: arena }
    }

    impl Running {
        fn order(&self, order: Order) {
            self.orders.send(order).expect("it runs");
            self.bell.ring();
        }

        /// What it saw next, looks left out.
        fn next(&self) -> Saw {
            loop {
                match self.reports.recv_timeout(PATIENCE).expect("a wake-up was lost") {
                    Saw::Look => {}
                    saw => return saw,
                }
            }
        }

        fn end(self) {
            self.order(Order::End);
            self.started.thread.join().expect("no panic leaves the thread");
        }
    }

    const CHOICES: [DriverChoice; 2] = [DriverChoice::Auto, DriverChoice::Epoll];

    #[test]
    fn carries_out_and_tells() {
        for choice in CHOICES {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            let address = listener.local_addr().expect("an address");
            let peer = std::thread::spawn(move || {
                let mut stream = listener.accept().expect("a connection").0;
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).expect("a request");
                stream.write_all(b"pong").expect("written");
                stream.read(&mut bytes).expect("the end")
            });
            let running = start(choice, IdleStrategy::SpinThenPark, Cores::None);
            let connection = ConnectionId(3);
            running.order(Order::Do(Action::Connect { connection, address }));
            assert_eq!(running.next(), Saw::Connected);
            let transmit = || Transmit {
                connection,
                head: b"ping".into(),
                pieces: vec![Piece::Head { start: 0, len: 4 }],
                ..Transmit::default()
            };
            running.order(Order::Send(transmit()));
            assert_eq!(running.next(), Saw::Sent(transmit()));
            assert_eq!(running.next(), Saw::Received(b"pong".into()));
            running.order(Order::Do(Action::Close { connection }));
            assert_eq!(running.next(), Saw::Closed(io::ErrorKind::ConnectionAborted));
            running.end();
            assert_eq!(peer.join().expect("no panic"), 0);
        }
    }

    #[test]
    fn resolves_names() {
        let running = start(DriverChoice::Auto, IdleStrategy::Park, Cores::None);
        for host in ["127.0.0.1", "localhost", "no such name"] {
            running.order(Order::Do(Action::Resolve { host: host.to_owned(), port: 1 }));
            let Saw::Resolved(asked, result) = running.next() else { panic!("an answer") };
            assert_eq!(asked, host);
            assert_eq!(result.is_ok(), host != "no such name");
        }
        running.end();
    }

    #[test]
    fn a_timer_fires_at_its_time_or_after() {
        for choice in CHOICES {
            for idle in [IdleStrategy::Park, IdleStrategy::SpinThenPark, IdleStrategy::Spin] {
                let running = start(choice, idle, Cores::None);
                for micros in [0, 10, 500, 3000] {
                    running.order(Order::Timer(Duration::from_micros(micros)));
                    assert!(matches!(running.next(), Saw::Fired(_)));
                }
                running.end();
            }
        }
    }

    #[test]
    fn sleeps_until_it_is_rung() {
        for choice in CHOICES {
            let running = start(choice, IdleStrategy::Park, Cores::None);
            let mut looks = 0;
            for _ in 0..300 {
                // A timer that is due at once answers this ring; without a wake-up it would never.
                running.order(Order::Timer(Duration::ZERO));
                while matches!(running.reports.recv_timeout(PATIENCE).expect("a wake-up was lost"), Saw::Look) {
                    looks += 1;
                }
            }
            assert!(looks < 300 * 6, "{looks} looks for 300 rings: it does not sleep");
            running.end();
        }
    }

    #[test]
    fn a_panic_ends_in_abandon() {
        for choice in CHOICES {
            let running = start(choice, IdleStrategy::Park, Cores::None);
            running.order(Order::Panic);
            assert_eq!(running.next(), Saw::Abandoned(true));
            running.started.thread.join().expect("no panic leaves the thread");
        }
    }

    #[test]
    fn runs_on_the_core_asked_for() {
        let all = core_affinity::get_core_ids().expect("cores");
        for (cores, pinned) in [(Cores::List(vec![all[0].id]), true), (Cores::Auto, true), (Cores::List(vec![]), false)]
        {
            std::thread::spawn(move || {
                pin(&cores);
                let now = core_affinity::get_core_ids().expect("cores").len();
                assert_eq!(now == 1, pinned || core_affinity::get_core_ids().is_some_and(|all| all.len() == 1));
            })
            .join()
            .expect("pinned");
        }
        // A core that does not exist is a warning.
        start(DriverChoice::Auto, IdleStrategy::Park, Cores::List(vec![100_000])).end();
    }
}
