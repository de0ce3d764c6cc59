//! One TCP connection as a state machine: set-up, version negotiation, requests answered in the order they were sent.
//!
//! ```text
//!             Connected            Versions
//! Connecting ──────────► Negotiating ──────► Ready
//!     │ Close, Closed        │                 │
//!     └──────────────────────┴────────┬────────┘
//!                                     ▼  Closed
//!                                  Closing ───► Closed
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::in_flight::Batch;
use super::lagging::SLOW_SETUP;
use super::service::Service;
use super::timers::Armed;
use crate::wire::api_versions::ApiRange;
use crate::wire::frame::{FRAME_MAX, FrameReader};
use crate::wire::header::ApiKey;
use crate::wire::{init_producer_id, metadata, produce};

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// TCP set-up is under way.
    Connecting,
    /// ApiVersions is asked.
    Negotiating,
    /// Requests may be sent.
    Ready,
    /// We gave it up; the driver has yet to say that the kernel has let go.
    Closing,
    /// Gone.
    Closed,
}

/// What moves a connection on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// TCP is up.
    Connected,
    /// The broker told its versions, and we can talk.
    Versions,
    /// We give it up: timeout, broken protocol, not needed.
    Close,
    /// The driver says it is gone.
    Closed,
}

impl State {
    /// All of them, for the table.
    #[cfg(test)]
    const ALL: [Self; 5] = [Self::Connecting, Self::Negotiating, Self::Ready, Self::Closing, Self::Closed];

    /// The transition table. `None`: this event means nothing in this state.
    pub const fn on(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Connecting, Event::Connected) => Some(Self::Negotiating),
            (Self::Negotiating, Event::Versions) => Some(Self::Ready),
            (Self::Connecting | Self::Negotiating | Self::Ready, Event::Close) => Some(Self::Closing),
            (Self::Connecting | Self::Negotiating | Self::Ready | Self::Closing, Event::Closed) => Some(Self::Closed),
            _ => None,
        }
    }
}

/// What a connection is for. Control requests have one of their own, so that metadata never waits behind a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Metadata and producer ids.
    Control,
    /// Batches for the partitions that this broker leads.
    Lane,
}

/// Whom a connection leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// The entry of `bootstrap.servers` with this index.
    Bootstrap(usize),
    /// A broker by its node id.
    Node(i32),
}

/// The most bytes of an answer to a little question: one to ApiVersions has about a thousand.
pub const ANSWER_MAX: usize = 1 << 20;
/// An answer to Metadata: `PARTITIONS_MAX` partitions with some replicas each, and a few thousand brokers.
const METADATA_MAX: usize = 16 << 20;
/// Per record of a batch, an answer to Produce may say what was wrong with it (KIP-467).
const PER_RECORD_MAX: usize = 512;

/// Unanswered bytes beyond which nothing is added; the broker reads one request at a time anyway.
const UNANSWERED_MAX: usize = 16 << 20;

/// What was asked; the answer's meaning.
#[derive(Debug)]
pub enum Asked {
    /// Which versions the broker speaks.
    ApiVersions { version: i16 },
    /// Metadata.
    Metadata { version: i16 },
    /// A producer id.
    InitProducerId { version: i16 },
    /// Batches, one per partition at most; an answer takes its batch out.
    Produce { version: i16, batches: Vec<Option<Batch>> },
}

impl Asked {
    /// The most bytes that an answer to this can sensibly have. Nothing is allocated by what a frame announces, but a
    /// broker that keeps sending would be listened to for that long.
    pub fn answer_max(&self) -> usize {
        match self {
            Self::ApiVersions { .. } | Self::InitProducerId { .. } => ANSWER_MAX,
            Self::Metadata { .. } => METADATA_MAX,
            Self::Produce { batches, .. } => {
                let records: usize = batches.iter().flatten().map(|batch| batch.count as usize).sum();
                (ANSWER_MAX + records * PER_RECORD_MAX).min(FRAME_MAX)
            }
        }
    }
}

/// A request that is written or being written and not answered.
#[derive(Debug)]
pub struct Request {
    /// Answers carry it back.
    pub correlation: i32,
    /// What was asked.
    pub asked: Asked,
    /// The kernel has taken its last byte.
    pub sent: bool,
    /// Its length, for the bound on unanswered bytes.
    pub bytes: usize,
    /// When it was handed to the driver.
    pub at: Duration,
}

/// What brokers ask a KRaft controller (KIP-631), and nobody a broker.
const BROKER_HEARTBEAT: i16 = 63;

/// The version of each API to use on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Versions {
    /// Produce, 3 to 13.
    pub produce: i16,
    /// Metadata, 1 to 13.
    pub metadata: i16,
    /// InitProducerId, 0 to 5; `None` when the broker has none.
    pub init_producer_id: Option<i16>,
}

impl Versions {
    /// The highest version that both sides speak, or which API has none.
    pub fn negotiate(apis: &[ApiRange]) -> Result<Self, String> {
        let best = |key: ApiKey, ours: RangeInclusive<i16>| {
            let theirs = apis.iter().find(|api| api.key == key.0)?;
            let version = theirs.max.min(*ours.end());
            (version >= theirs.min && version >= *ours.start()).then_some(version)
        };
        let missing = |name: &str, ours: &str| {
            format!("it offers no version of {name} that this client speaks ({ours}): Kafka 0.11 or later is needed")
        };
        if apis.iter().all(|api| api.key != ApiKey::PRODUCE.0) && apis.iter().any(|api| api.key == BROKER_HEARTBEAT) {
            return Err("a Kafka controller answers here, not a broker: use a broker's port".into());
        }
        Ok(Self {
            produce: best(ApiKey::PRODUCE, produce::VERSIONS).ok_or_else(|| missing("Produce", "3 to 13"))?,
            metadata: best(ApiKey::METADATA, metadata::VERSIONS).ok_or_else(|| missing("Metadata", "1 to 13"))?,
            init_producer_id: best(ApiKey::INIT_PRODUCER_ID, init_producer_id::VERSIONS),
        })
    }
}

/// Why we gave a connection up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The oldest request was not answered in time.
    RequestTimeout,
    /// Nothing to do for `connections.max.idle.ms`.
    Idle,
    /// Another connection takes its place; nothing is wrong with this one.
    Replaced,
    /// Set-up failed, or the peer does not keep to the protocol.
    Broken,
    /// The producer closes.
    Shutdown,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// What it is for.
    pub role: Role,
    /// Whom it leads to.
    pub peer: Peer,
    /// Which of its addresses.
    pub address: SocketAddr,
    /// `host:port`, with the node's id on lanes, for messages.
    pub name: Arc<str>,
    /// Where it is in its life.
    pub state: State,
    /// It was Ready once.
    pub negotiated: bool,
    /// It gave an answer that was of use.
    pub proven: bool,
    /// Valid once Ready.
    pub versions: Versions,
    /// Collects answers.
    pub frames: FrameReader,
    /// Oldest first: answers come in this order.
    pub unanswered: VecDeque<Request>,
    /// A transmit is with the driver: one at a time.
    pub sending: bool,
    /// Bytes of `unanswered`.
    pub unanswered_bytes: usize,
    /// How fast the broker serves what it is asked here.
    pub service: Service,
    /// Since when the oldest request is at the head: a broker works on one at a time, so its time counts from here.
    pub head_since: Duration,
    /// How long set-up may take.
    pub setup_timeout: Duration,
    /// Set-up must be done by then.
    pub setup_deadline: Duration,
    /// If it is not up by then, another one is begun beside it.
    pub rival_at: Option<Duration>,
    /// The broker asked us to send nothing before this time (KIP-219).
    pub throttled_until: Duration,
    /// For how many milliseconds it last asked for that.
    pub throttle_ms: i32,
    /// When it was last of use.
    pub last_used: Duration,
    /// Its timer.
    pub armed: Armed,
    /// Why we closed it, when we did, and in words.
    pub closed_because: Option<(Cause, String)>,
    next_correlation: i32,
}

impl Connection {
    /// A connection whose TCP set-up starts now.
    pub fn new(
        role: Role,
        (peer, address): (Peer, SocketAddr),
        name: Arc<str>,
        now: Duration,
        setup_timeout: Duration,
    ) -> Self {
        Self {
            role,
            peer,
            address,
            name,
            state: State::Connecting,
            negotiated: false,
            proven: false,
            versions: Versions::default(),
            frames: FrameReader::default(),
            unanswered: VecDeque::new(),
            sending: false,
            unanswered_bytes: 0,
            service: Service::default(),
            head_since: now,
            setup_timeout,
            setup_deadline: now + setup_timeout,
            rival_at: None,
            throttled_until: Duration::ZERO,
            throttle_ms: 0,
            last_used: now,
            armed: Armed::default(),
            closed_because: None,
            next_correlation: 0,
        }
    }

    /// Takes the transition that `event` names; false when it means nothing in this state.
    pub fn on(&mut self, event: Event) -> bool {
        match self.state.on(event) {
            Some(next) => {
                super::steps::moved(self.state, event);
                self.state = next;
                true
            }
            None => false,
        }
    }

    /// When it was begun.
    pub fn begun(&self) -> Duration {
        self.setup_deadline.saturating_sub(self.setup_timeout)
    }

    /// Something was asked, and nothing of an answer has come.
    pub fn is_silent(&self) -> bool {
        !self.unanswered.is_empty() && self.frames.buffered() == 0
    }

    /// When it is to be ended if nothing happens: the oldest request's time is over, or, without one, its own.
    pub fn next_end(&self, request_timeout: Duration, max_idle: Duration) -> Duration {
        match self.unanswered.is_empty() {
            true => self.last_used.saturating_add(max_idle),
            false => self.head_since + request_timeout,
        }
    }

    /// As long as it is not up: when it is to be looked at next.
    pub fn next_look(&self, now: Duration) -> Duration {
        let slow = self.begun() + SLOW_SETUP;
        let looks = [self.rival_at, Some(slow)].into_iter().flatten().filter(|at| *at > now);
        looks.chain([self.setup_deadline]).min().unwrap_or(self.setup_deadline)
    }

    /// A correlation id for the next request; wraps.
    pub fn correlate(&mut self) -> i32 {
        let id = self.next_correlation;
        self.next_correlation = self.next_correlation.wrapping_add(1) & i32::MAX;
        id
    }

    /// Books a request that was just handed to the driver.
    pub fn asked(&mut self, now: Duration, request: Request) {
        if self.unanswered.is_empty() {
            self.head_since = now;
        }
        self.last_used = now;
        self.sending = true;
        self.unanswered_bytes += request.bytes;
        self.unanswered.push_back(request);
    }

    /// The oldest request, answered with this correlation id. `Err` tells what was wrong.
    pub fn answered(&mut self, now: Duration, correlation: i32) -> Result<Request, String> {
        let Some(request) = self.unanswered.pop_front() else {
            return Err("it answered what was not asked".into());
        };
        if request.correlation != correlation {
            let expected = request.correlation;
            self.unanswered.push_front(request);
            return Err(format!("it answered request {correlation} when {expected} was next"));
        }
        self.unanswered_bytes -= request.bytes;
        if matches!(request.asked, Asked::Produce { .. }) {
            self.service.answered(now, request.at, request.bytes);
        }
        self.head_since = now;
        self.last_used = now;
        Ok(request)
    }

    /// How much came of an answer that is not whole, in words; nothing when none did.
    pub fn progress(&self) -> String {
        match (self.frames.buffered(), self.frames.announced()) {
            (0, _) => String::new(),
            (came, Some(size)) => format!(", after {came} of an answer's {} bytes", i64::from(size) + 4),
            (came, None) => format!(", after {came} bytes of an answer's size"),
        }
    }

    /// What a broker wants that keeps us from sending, in words.
    pub fn throttle_words(&self) -> String {
        format!("it asked for no requests for {} ms (throttle_time_ms)", self.throttle_ms)
    }

    /// True when a request may be handed to the driver.
    pub fn can_send(&self, now: Duration) -> bool {
        self.state == State::Ready && !self.sending && now >= self.throttled_until
    }

    /// True when batches may, too: more of them would not only wait.
    pub fn takes_batches(&self, now: Duration) -> bool {
        let full = self.unanswered_bytes >= UNANSWERED_MAX || self.service.is_busy(self.unanswered.len());
        self.can_send(now) && !full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_matrix() {
        let mut matrix = String::new();
        for state in State::ALL {
            for event in [Event::Connected, Event::Versions, Event::Close, Event::Closed] {
                let next = state.on(event).map_or("-".into(), |next| format!("{next:?}"));
                matrix += &format!("{state:?} {event:?} {next}\n");
            }
        }
        println!("{matrix}");
        let expected = "Connecting Connected Negotiating\nConnecting Versions -\nConnecting Close Closing\nConnecting Closed Closed\n\
             Negotiating Connected -\nNegotiating Versions Ready\nNegotiating Close Closing\nNegotiating Closed Closed\n\
             Ready Connected -\nReady Versions -\nReady Close Closing\nReady Closed Closed\n\
             Closing Connected -\nClosing Versions -\nClosing Close -\nClosing Closed Closed\n\
             Closed Connected -\nClosed Versions -\nClosed Close -\nClosed Closed -\n";
        assert_eq!(matrix, expected);
    }

    #[test]
    fn the_best_common_version() {
        let api = |key: ApiKey, min, max| ApiRange { key: key.0, min, max };
        let all = [api(ApiKey::PRODUCE, 0, 11), api(ApiKey::METADATA, 0, 99), api(ApiKey::INIT_PRODUCER_ID, 0, 1)];
        let versions = Versions::negotiate(&all).unwrap();
        assert_eq!(versions, Versions { produce: 11, metadata: 13, init_producer_id: Some(1) });
        let ancient = [api(ApiKey::PRODUCE, 0, 2), api(ApiKey::METADATA, 0, 1)];
        assert!(Versions::negotiate(&ancient).unwrap_err().contains("Produce"));
        let controller = [api(ApiKey::API_VERSIONS, 0, 4), api(ApiKey(BROKER_HEARTBEAT), 0, 1)];
        assert!(Versions::negotiate(&controller).unwrap_err().contains("controller"));
        let future = [api(ApiKey::PRODUCE, 14, 20), api(ApiKey::METADATA, 0, 1)];
        assert!(Versions::negotiate(&future).is_err());
        assert!(Versions::negotiate(&[]).is_err());
    }
}
