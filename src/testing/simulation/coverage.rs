//! What a run of seeds has seen: every fault, every error code, every transition of the sender's tables.

use std::fmt;

use crate::sender::{Taken, take_counts};

macro_rules! sights {
    ($($name:ident $text:literal,)*) => {
        /// What can go wrong, and what callers do.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Sight { $(#[doc = $text] $name,)* }

        impl Sight {
            const NAMES: &'static [&'static str] = &[$($text,)*];
        }
    };
}

sights! {
    CutRequest "network: a connection ends within a request",
    CutAnswer "network: it ends after the broker acted",
    HalfAnswer "network: it ends within an answer",
    ShortWrite "network: the kernel takes a part of a request",
    Drip "network: an answer comes in pieces",
    DeafLink "network: requests vanish",
    MuteLink "network: answers vanish",
    SlowLink "network: slow",
    ConnectRefused "network: connection refused",
    ConnectSilent "network: no answer to a connect",
    LateCopy "network: a request arrives after its connection's end",
    Restart "broker: restarted, one batch remembered",
    LongOutage "broker: away for long",
    Freeze "broker: stands still, then goes on",
    Forget "broker: producer ids forgotten",
    CutOff "broker: cut off from its controller",
    CutOffForGood "broker: cut off, while all else is healed",
    LeaderMove "broker: leader moved",
    Leaderless "broker: no leader",
    TopicDeleted "broker: topic deleted",
    TopicShrank "broker: topic created again with fewer partitions",
    TopicRecreated "broker: topic created again",
    TopicLate "broker: topic created late",
    TopicGrown "broker: partitions added",
    LimitChanged "broker: max.message.bytes changed",
    StaleMetadata "broker: stale metadata",
    IdentityRefused "broker: no producer id",
    WithoutIdentity "broker: without InitProducerId",
    CloseBefore "broker: closes before it acts",
    CloseAfter "broker: acts, closes",
    HangBefore "broker: hangs before it acts",
    HangAfter "broker: acts, hangs",
    Delay "broker: slow answer",
    Throttle "broker: throttles",
    RequestRefused "broker: closes on a request above its limit",
    Shuffled "broker: partitions answered in another order",
    BadRecord "broker: a record refused by itself",
    FirstInNewLog "broker: a new log refuses a first sequence that is not 0",
    FirstOfUnknown "broker: refuses a first sequence that is not 0",
    ClockBack "clock: jumps back",
    ClockForth "clock: jumps forth",
    SmallRecord "caller: a record",
    LargeRecord "caller: a record larger than batch.size",
    Refused "caller: no room",
    ClaimCommitted "caller: a claim committed",
    ClaimDropped "caller: a claim dropped",
    ClaimKept "caller: a claim kept open for a while",
    DeliveryDropped "caller: a delivery dropped",
    OwnLimit "caller: a record with a limit of its own",
    Flush "caller: flush",
    CloseEarly "caller: close with records outstanding",
    Delivered "outcome: delivered, with an offset",
    DeliveredBlind "outcome: delivered, offset unknown",
    NotWritten "outcome: not written",
    PossiblyWritten "outcome: possibly written",
    Expired "outcome: expired",
    LeftByClose "outcome: left by close",
    SequenceWrap "sequence numbers wrapped",
}

/// The error codes that are answered to Produce. -1 and so on as Kafka numbers them.
pub const CODES: [i16; 37] = [
    -1, 2, 3, 5, 6, 7, 9, 10, 13, 14, 15, 16, 17, 18, 19, 20, 21, 29, 31, 32, 35, 43, 44, 45, 46, 47, 48, 51, 53, 56,
    59, 72, 74, 75, 76, 87, 89,
];

/// More of them.
pub const CODES_HIGH: [i16; 5] = [49, 90, 100, 103, 120];

const STATES: [&str; 5] = ["Connecting", "Negotiating", "Ready", "Closing", "Closed"];
const EVENTS: [&str; 4] = ["Connected", "Versions", "Close", "Closed"];
/// Which events mean something in which state; `Closed` is an end.
const MEANT: [[bool; 4]; 5] = [
    [true, false, true, true],
    [false, true, true, true],
    [false, false, true, true],
    [false, false, false, true],
    [false; 4],
];
const DECISIONS: [&str; 6] = ["Delivered", "Retry", "Split", "CutOut", "OutOfSequence", "Fail"];
const STEPS: [&str; 15] = [
    "search for what is stored",
    "search goes further back",
    "search in vain",
    "search finds it",
    "new epoch",
    "new producer id",
    "told batch comes back",
    "doubtful batch given up",
    "record told before its batch",
    "record taken out of its batch in time",
    "batch waits to grow",
    "rival of a slow connection",
    "rival is up first",
    "broker left for its old metadata",
    "batch cut for its broker",
];
const IDENTITY: [&str; 4] = ["Off", "Wanted", "Asked", "Known"];
const IDENTITY_MOVES: [(usize, usize); 4] = [(1, 2), (2, 1), (2, 3), (3, 1)];

/// How often everything was seen.
#[derive(Clone, Debug)]
pub struct Coverage {
    sights: Vec<u64>,
    codes: Vec<u64>,
    /// Answered although the batch is stored.
    codes_stored: u64,
    identity: [[u64; 4]; 4],
    taken: Taken,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            sights: vec![0; Sight::NAMES.len()],
            codes: vec![0; 256],
            codes_stored: 0,
            identity: Default::default(),
            taken: Taken::default(),
        }
    }
}

impl Coverage {
    pub(super) fn saw(&mut self, sight: Sight) {
        self.sights[sight as usize] += 1;
    }

    pub(super) fn add_sights(&mut self, sight: Sight, count: u64) {
        self.sights[sight as usize] += count;
    }

    pub(super) fn nth(&self, sight: usize) -> u64 {
        self.sights[sight]
    }

    /// How many batches were answered with an error.
    pub(super) fn codes(&self) -> u64 {
        self.codes.iter().sum()
    }

    pub(super) fn saw_code(&mut self, code: i16, stored: bool) {
        self.codes[(code + 1).clamp(0, 255) as usize] += 1;
        self.codes_stored += u64::from(stored);
    }

    pub(super) fn saw_identity(&mut self, from: usize, to: usize) {
        self.identity[from][to] += 1;
    }

    /// Takes over what the sender counted on this thread.
    pub(super) fn take_steps(&mut self) {
        add_taken(&mut self.taken, &take_counts());
    }

    /// Adds another run's numbers.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.sights.iter_mut().zip(&other.sights).chain(self.codes.iter_mut().zip(&other.codes));
        pairs.for_each(|(sum, more)| *sum += more);
        self.codes_stored += other.codes_stored;
        let cells = self.identity.as_flattened_mut().iter_mut().zip(other.identity.as_flattened());
        cells.for_each(|(sum, more)| *sum += more);
        add_taken(&mut self.taken, &other.taken);
    }

    /// Name and number of everything that a long run must have seen.
    pub fn rows(&self) -> Vec<(String, u64)> {
        let mut rows: Vec<(String, u64)> =
            Sight::NAMES.iter().zip(&self.sights).map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let mut codes: Vec<i16> = CODES.into_iter().chain(CODES_HIGH).collect();
        codes.sort_unstable();
        let code = |code: i16| (format!("answer: {}", crate::ErrorCode(code)), self.codes[(code + 1) as usize]);
        rows.extend(codes.into_iter().map(code));
        rows.push(("answer: an error although stored".to_owned(), self.codes_stored));
        for (state, events) in MEANT.iter().enumerate() {
            let meant = (0..4).filter(|event| events[*event]);
            let count = |event| self.taken.connection[state][event];
            rows.extend(meant.map(|event| (format!("connection: {} {}", STATES[state], EVENTS[event]), count(event))));
        }
        let moves = IDENTITY_MOVES.iter();
        rows.extend(moves.map(|&(from, to)| {
            (format!("producer id: {} to {}", IDENTITY[from], IDENTITY[to]), self.identity[from][to])
        }));
        let decisions = DECISIONS.iter().zip(self.taken.decision);
        rows.extend(decisions.map(|(name, count)| (format!("decision: {name}"), count)));
        rows.extend(STEPS.iter().zip(self.taken.step).map(|(name, count)| (format!("step: {name}"), count)));
        rows
    }
}

fn add_taken(sum: &mut Taken, more: &Taken) {
    let cells = sum.connection.as_flattened_mut().iter_mut().zip(more.connection.as_flattened());
    let cells = cells.chain(sum.decision.iter_mut().zip(&more.decision));
    cells.chain(sum.step.iter_mut().zip(&more.step)).for_each(|(sum, more)| *sum += more);
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows().iter().try_for_each(|(name, count)| writeln!(f, "{count:>12}  {name}"))
    }
}
