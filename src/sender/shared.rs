//! What application threads and the sender share: the accumulator, the topics, commands, and how things stand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_queue::SegQueue;

use super::outbox::Outbox;
use super::tally::{Stats, Tally};
use super::topic::TopicShared;
use crate::accumulator::Accumulator;
use crate::completion::ending::Ending;
use crate::config::ProducerConfig;
#[cfg(any(test, feature = "testing"))]
use crate::error::CloseReport;
use crate::metadata::ClusterName;
use crate::sync::WaitList;

/// Whether records are taken, and why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Life {
    /// Records are taken.
    Running = 0,
    /// `close` was called, or the last `Producer` was dropped.
    Closed = 1,
    /// The sender thread ended by a bug.
    Panicked = 2,
}

/// What application threads ask of the sender.
#[derive(Debug)]
pub enum Command {
    /// Metadata of this topic is wanted.
    Want(Arc<TopicShared>),
    /// Send what was accepted so far without linger, then tell the ticket.
    Flush(Arc<Ticket>),
    /// Take nothing more, send what was accepted, for so long; then end.
    Close(Duration),
    /// Connect to the leaders of this topic, as long as the caller keeps the ticket; then `Shared::changed` is woken.
    WarmUp(Arc<TopicShared>, Arc<Ticket>),
    /// A bug, for tests.
    #[cfg(test)]
    Panic,
}

/// Something that a caller waits for.
#[derive(Debug, Default)]
pub struct Ticket {
    done: AtomicBool,
    /// Woken once it is done.
    pub waiters: WaitList,
}

impl Ticket {
    /// It is done; nobody takes that back.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Tells everyone who waits.
    pub fn finish(&self) {
        self.done.store(true, Ordering::Release);
        self.waiters.wake_all();
    }
}

/// One per producer.
pub struct Shared {
    /// Rings, pool, doorbell.
    pub accumulator: Arc<Accumulator>,
    /// As validated.
    pub config: Arc<ProducerConfig>,
    /// Which cluster this is.
    pub cluster: ClusterName,
    /// Towards the sender; ring the accumulator's doorbell after a push.
    pub commands: SegQueue<Command>,
    /// Towards the thread that runs listeners and callbacks, once there is one.
    pub outbox: OnceLock<Arc<Outbox>>,
    /// What became of the records that left the rings.
    pub tally: Tally,
    /// Why no broker can be reached, in words; `None` while one can.
    pub trouble: Mutex<Option<String>>,
    /// Why there is no producer id, in words; `None` while one is there, or nothing went wrong yet.
    pub identity_trouble: Mutex<Option<String>>,
    /// A producer id is there, or none is needed.
    pub identified: AtomicBool,
    /// Woken when `identified` or `life` changes.
    pub changed: WaitList,
    life: AtomicU8,
    /// Who waits for the end, and until when.
    pub ending: Ending,
    /// The sender is gone.
    retired: AtomicBool,
    topics: Mutex<HashMap<Arc<str>, Arc<TopicShared>>>,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(accumulator: Arc<Accumulator>, config: Arc<ProducerConfig>) -> Self {
        Self {
            accumulator,
            cluster: ClusterName::new(&config.bootstrap_servers),
            config,
            commands: SegQueue::new(),
            outbox: OnceLock::new(),
            tally: Tally::default(),
            trouble: Mutex::new(None),
            identity_trouble: Mutex::new(None),
            identified: AtomicBool::new(false),
            changed: WaitList::default(),
            life: AtomicU8::new(Life::Running as u8),
            ending: Ending::default(),
            retired: AtomicBool::new(false),
            topics: Mutex::new(HashMap::new()),
        }
    }

    /// Whether records are taken.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Running,
            1 => Life::Closed,
            _ => Life::Panicked,
        }
    }

    /// Ends the producer's running life; true for whoever was first.
    pub fn end(&self, life: Life) -> bool {
        let ended =
            self.life.compare_exchange(Life::Running as u8, life as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !ended && life == Life::Panicked {
            self.life.store(life as u8, Ordering::Release);
        }
        ended
    }

    /// Wakes everyone who waits for anything, to look at `life` again.
    pub fn wake_everyone(&self) {
        self.ending.waiters.wake_all();
        self.changed.wake_all();
        self.accumulator.room.wake_all();
        for topic in self.all_topics() {
            topic.changed.wake_all();
        }
    }

    /// The topic of this name, known or not; asks for its metadata when it is new.
    pub fn topic(&self, name: &str) -> Arc<TopicShared> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return topic.clone();
        }
        let name: Arc<str> = Arc::from(name);
        let topic = Arc::new(TopicShared::new(name.clone()));
        topics.insert(name, topic.clone());
        drop(topics);
        self.want(&topic);
        topic
    }

    /// Asks for the topic's metadata, unless that was asked since the last answer.
    pub fn want(&self, topic: &Arc<TopicShared>) {
        if topic.ask() {
            self.command(Command::Want(topic.clone()));
        }
    }

    /// Hands a command to the sender; when there is none any more, the command is as good as carried out.
    pub fn command(&self, command: Command) {
        self.commands.push(command);
        // Against `retire`: one of the two sees what the other one did.
        fence(Ordering::SeqCst);
        if self.retired.load(Ordering::Relaxed) {
            self.drop_commands();
        } else {
            self.accumulator.doorbell.ring();
        }
    }

    /// The sender is going: nobody else will look at commands, or end a callback thread that is started from now on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.drop_commands();
    }

    /// The way to a callback thread that is being started.
    pub fn set_outbox(&self, outbox: Arc<Outbox>) {
        let _ = self.outbox.set(outbox.clone());
        // Against `retire`, as in `command`.
        fence(Ordering::SeqCst);
        if self.retired.load(Ordering::Relaxed) {
            outbox.end();
        }
    }

    fn drop_commands(&self) {
        while let Some(command) = self.commands.pop() {
            if let Command::Flush(ticket) = command {
                ticket.finish();
            }
        }
    }

    /// What the close left behind, once the sender knows.
    #[cfg(any(test, feature = "testing"))]
    pub fn report(&self) -> Option<CloseReport> {
        self.ending.report().cloned()
    }

    /// Every topic that was ever asked for.
    pub fn all_topics(&self) -> Vec<Arc<TopicShared>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Where the records are. From any thread, at any time.
    pub fn stats(&self) -> Stats {
        // What has ended before what was accepted: so never more seems to have ended.
        let mut stats = self.tally.read();
        for topic in self.all_topics() {
            // All that there ever were: one created again may have fewer, and what was accepted stays accepted.
            for partition in (0..).map_while(|at| topic.partition(at)) {
                let census = self.accumulator.census(partition);
                stats.accepted += census.accepted;
                stats.waiting += census.waiting;
            }
        }
        stats.buffer_total = self.accumulator.total();
        stats.buffer_used = stats.buffer_total.saturating_sub(self.accumulator.free());
        stats
    }

    /// Notes why no broker can be reached, or that one can.
    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Notes why there is no producer id, or that there is one.
    pub fn set_identity_trouble(&self, trouble: Option<String>) {
        *self.identity_trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why there is no producer id.
    pub fn identity_trouble(&self) -> Option<String> {
        self.identity_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why no broker can be reached.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("life", &self.life()).finish_non_exhaustive()
    }
}
