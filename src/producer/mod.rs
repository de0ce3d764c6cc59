//! Station 1, where records come in: [`Producer`], its builder, and [`Topic`], which takes records.

mod builder;
#[cfg(feature = "testing")]
pub(crate) mod by_hand;
mod claim;
mod ends;
mod futures;
mod placing;
mod refusal;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod topic;
mod waiting;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_utils::sync::Parker;

use crate::completion::callback_thread;
use crate::driver::callbacks;
use crate::driver::fork::Origin;
use crate::error::{SendError, Trouble, WaitedFor};
use crate::sender::{Command, Life, Outbox, Shared, Stats, Ticket, TopicShared};
use crate::sync::block_until;
use crate::wire::error_code::ErrorCode;

pub use builder::ProducerBuilder;
pub use claim::Claim;
pub use futures::{CloseFuture, FlushFuture, SendFuture};
pub use topic::Topic;

/// Sends records to Kafka. Cheap to clone, and usable from any number of threads.
///
/// `send` returning means that the record is in memory, no more: its [`Delivery`](crate::Delivery), a listener or a
/// callback tells what became of it.
///
/// Dropping the last clone closes the producer: it sends what was accepted for up to `close.timeout.ms` and blocks
/// meanwhile (not on the thread that runs listeners and callbacks: there it only starts the close). [`Producer::close`]
/// does the same and tells what was left. [`Topic`] handles do not keep a producer open. A drop, a flush or another close
/// while a close is under way waits for that one.
///
/// A child process made by `fork` has no sender thread: there every call fails with [`SendError::Forked`].
#[derive(Clone)]
pub struct Producer {
    open: Arc<Open>,
}

/// Closes the producer when the last clone is dropped.
struct Open {
    core: Arc<Core>,
    sender: Mutex<Option<JoinHandle<()>>>,
    driver_name: &'static str,
}

/// What producers and topics share on the application's side.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    origin: Origin,
    has_listener: bool,
    callbacks: Mutex<Callbacks>,
}

/// The thread that runs listeners and callbacks, once there is a need for it.
enum Callbacks {
    /// Nothing to run yet.
    Idle,
    /// Running.
    Running(JoinHandle<()>),
    /// Joined.
    Ended,
}

/// A partition of a topic and who leads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Its index, from 0.
    pub partition: i32,
    /// Node id of its leader; `None` while it has none.
    pub leader: Option<i32>,
}

impl Core {
    /// Why no call can succeed any more, if so.
    fn check_life(&self) -> Result<(), SendError> {
        if self.origin.is_elsewhere() {
            return Err(SendError::Forked);
        }
        match self.shared.life() {
            Life::Running => Ok(()),
            Life::Closed => Err(SendError::Closed),
            Life::Panicked => Err(SendError::SenderPanicked),
        }
    }

    /// A call that may wait: refused where it could wait for itself.
    fn check_may_block(&self) -> Result<(), SendError> {
        if callback_thread::is_current() { Err(SendError::WouldDeadlock) } else { Ok(()) }
    }

    /// Starts the thread that runs listeners and callbacks, unless it runs.
    fn start_callbacks(&self, told: callbacks::Told) -> std::io::Result<()> {
        let mut callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*callbacks, Callbacks::Idle) {
            // A sink alone needs no entries: it reads the records.
            let has_entries = told.listener.is_some() || told.sink.is_none();
            let (outbox, parker): (Arc<Outbox>, Parker) = Outbox::new(told.sink.is_some());
            *callbacks = Callbacks::Running(callbacks::spawn(self.shared.clone(), outbox.clone(), parker, told)?);
            self.shared.set_outbox(outbox);
            if has_entries {
                self.shared.accumulator.tag_records();
            }
        }
        Ok(())
    }

    /// Waits until the topic's partitions are known.
    fn block_for_topic(&self, topic: &Arc<TopicShared>, started: Instant) -> Result<(), SendError> {
        let deadline = started.checked_add(self.shared.config.max_block);
        block_until(&topic.changed, deadline, || self.topic_step(topic))
            .unwrap_or_else(|| Err(self.topic_timeout(topic, started)))
    }

    /// `None`: to be waited for. Asks for the topic's metadata as long as somebody waits.
    fn topic_step(&self, topic: &Arc<TopicShared>) -> Option<Result<(), SendError>> {
        if topic.count() > 0 {
            return Some(Ok(()));
        }
        if let Err(error) = self.check_life() {
            return Some(Err(error));
        }
        match topic.refusal().map(|error| error.code()) {
            Some(ErrorCode::INVALID_TOPIC_EXCEPTION) => {
                self.shared.want(topic);
                return Some(Err(SendError::InvalidTopic { topic: topic.name.clone() }));
            }
            Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
                // It may be granted by the next call.
                self.shared.want(topic);
                return Some(Err(SendError::TopicAuthorization { topic: topic.name.clone() }));
            }
            _ => {}
        }
        self.shared.want(topic);
        None
    }

    /// Waits until the topic has this partition.
    fn block_for_partition(&self, topic: &Arc<TopicShared>, partition: i32, started: Instant) -> Result<(), SendError> {
        let deadline = started.checked_add(self.shared.config.max_block);
        let step = || self.partition_step(topic, partition);
        block_until(&topic.changed, deadline, step).unwrap_or_else(|| Err(self.no_partition(topic, partition)))
    }

    /// `None`: to be waited for, as partitions may be added. Asks for the topic's metadata as long as somebody waits.
    fn partition_step(&self, topic: &Arc<TopicShared>, partition: i32) -> Option<Result<(), SendError>> {
        if u32::try_from(partition).is_ok_and(|partition| partition < topic.count()) {
            return Some(Ok(()));
        }
        if let Err(error) = self.check_life() {
            return Some(Err(error));
        }
        self.shared.want(topic);
        None
    }

    fn no_partition(&self, topic: &Arc<TopicShared>, partition: i32) -> SendError {
        let count = i32::try_from(topic.count()).unwrap_or(i32::MAX);
        SendError::InvalidPartition { topic: topic.name.clone(), partition, count }
    }

    fn topic_timeout(&self, topic: &Arc<TopicShared>, started: Instant) -> SendError {
        let (waited, name) = (started.elapsed(), topic.name.clone());
        let cause = topic.refusal().map(Box::new);
        match cause.as_ref().map(|error| error.code()) {
            Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => SendError::UnknownTopic { topic: name, waited, cause },
            _ => {
                let trouble = cause.map(|error| Trouble::Broker(*error));
                let trouble = trouble.or_else(|| self.shared.trouble().map(Trouble::Connection)).map(Box::new);
                SendError::Timeout { waited, waited_for: WaitedFor::Metadata { topic: name, trouble } }
            }
        }
    }
}

impl Producer {
    /// Starts a configuration; [`ProducerBuilder::build`] makes the producer.
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::default()
    }

    /// A handle to a topic, resolved once and then used for any number of records. Returns at once: the topic's
    /// partitions are looked up in the background.
    ///
    /// # Errors
    /// [`SendError::InvalidTopic`] for a name that Kafka does not allow; [`SendError::Closed`] and its like.
    pub fn topic(&self, name: &str) -> Result<Topic, SendError> {
        let core = &self.open.core;
        core.check_life()?;
        if !topic::is_valid_name(name) {
            return Err(SendError::InvalidTopic { topic: name.into() });
        }
        Ok(Topic::new(core.clone(), core.shared.topic(name)))
    }

    /// The topic's partitions, once they are known.
    ///
    /// # Errors
    /// Those of [`Topic::send`] that concern the topic, after `max.block.ms` at most.
    pub fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>, SendError> {
        let topic = self.topic(topic)?;
        let core = &self.open.core;
        if topic.shared().count() == 0 {
            core.check_may_block()?;
            core.block_for_topic(topic.shared(), Instant::now())?;
        }
        let partitions = (0..topic.shared().count()).filter_map(|at| topic.shared().partition(at));
        Ok(partitions
            .map(|partition| {
                let leader = partition.leader.load(Ordering::Relaxed);
                PartitionInfo { partition: partition.place.partition, leader: (leader >= 0).then_some(leader) }
            })
            .collect())
    }

    /// Does ahead of the first record what it would wait for: looks the topics up, gets a producer id, and connects to the
    /// partitions' leaders. A leader that cannot be reached is waited for 1 s, or `max.block.ms` if that is less, and is no
    /// error: records for other leaders do not wait for it.
    ///
    /// # Errors
    /// Those of [`Topic::send`] that concern the topics, after `max.block.ms` at most.
    pub fn warm_up(&self, topics: &[&str]) -> Result<(), SendError> {
        let core = &self.open.core;
        core.check_may_block()?;
        let started = Instant::now();
        let topics = topics.iter().map(|name| self.topic(name)).collect::<Result<Vec<_>, _>>()?;
        let mut tickets = Vec::with_capacity(topics.len());
        for topic in &topics {
            core.block_for_topic(topic.shared(), started)?;
            let ticket = Arc::<Ticket>::default();
            core.shared.command(Command::WarmUp(topic.shared().clone(), ticket.clone()));
            tickets.push(ticket);
        }
        let shared = &core.shared;
        let identified = || shared.identified.load(Ordering::Acquire);
        let connected = || tickets.iter().all(|ticket| ticket.is_done());
        let step = || match core.check_life() {
            Ok(()) => (identified() && connected()).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        };
        block_until(&shared.changed, started.checked_add(shared.config.max_block), step).unwrap_or_else(|| {
            if identified() {
                return Ok(());
            }
            let why = shared.identity_trouble().or_else(|| shared.trouble());
            let trouble = why.map(|why| Box::new(Trouble::Connection(why)));
            Err(SendError::Timeout { waited: started.elapsed(), waited_for: WaitedFor::ProducerId { trouble } })
        })
    }

    /// How many records were accepted, delivered, have failed, or are still on their way. It looks at
    /// every partition's ring and costs those who send nothing. At any time, from any thread, also after
    /// [`Producer::close`].
    pub fn stats(&self) -> Stats {
        self.open.core.shared.stats()
    }

    /// How bytes reach the network: `"io_uring"` or `"epoll"`.
    pub fn driver_name(&self) -> &'static str {
        self.open.driver_name
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("driver", &self.open.driver_name)
            .field("life", &self.open.core.shared.life())
            .finish_non_exhaustive()
    }
}
