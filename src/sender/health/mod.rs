//! How the producer stands, for people: what goes on for long and keeps records from their brokers is told through
//! `tracing`, when it begins, every minute while it lasts, and when it is over. (`feed` hears of it, `words` says it.)
//!
//! | what goes on ([`Kind`]) | it begins when | and is told | it is over when |
//! |---|---|---|---|
//! | a broker is out of reach | it could not be connected to after it was lost, or twice (each time at every address of its name), or took all the time that it may for that or for an answer | after 1 s | it gave an answer of use, or there is metadata and it is none of the cluster's |
//! | its connections end again and again | it happened three times within a minute | after 1 s | not for a minute |
//! | records fail | one did, not because of `close` | at once | others are delivered, or none is left, and none failed for 10 s |
//! | records of a partition wait | the oldest has for 10 s (a quarter of `delivery.timeout.ms` if that is less) beyond `linger.ms` | at once | none has |
//! | a topic cannot be used | metadata says so of one that is asked for | after 10 s | metadata has it |
//! | there is no metadata | it is wanted and does not come | after 10 s | it comes |
//! | there is no producer id | it was asked for in vain | after 5 s | it is there |
//! | a broker throttles this client | it asks for a pause, again within 10 s | after 10 s of that | it asked for none for 10 s |
//! | callers find no room | some waited for it, and nothing was delivered or failed for 10 s | at once | something was |
//!
//! What else a person should hear of is told where it happens: a topic that was created again, a new start from
//! `bootstrap.servers`, a thread that could not be pinned, a broker that may take smaller requests only;
//! listeners, callbacks and sinks that panic, by `driver::callbacks`.
//!
//! A cluster in trouble must not flood a log: a beginning is told once a minute at most for each subject, and three times for
//! each kind; and what names a broker as its reason is not told beside that broker's own trouble.
//! Nothing here is on a record's way: it is fed by what failed, and looks again by a timer that is armed while something is
//! wrong.

mod feed;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::error::DeliveryError;
use words::Standing;

pub use feed::Feed;
pub use words::smaller_requests;

/// How often it is told that things are bad.
const MINUTE: Duration = Duration::from_secs(60);
/// What has not gone wrong for so long is over.
const QUIET: Duration = Duration::from_secs(10);
/// How often to look whether what has no event of its own is over.
const LOOK: Duration = Duration::from_secs(5);
/// Of a kind, so many beginnings are told in a minute.
const TOLD_AT_ONCE: usize = 3;
/// So many subjects of a kind are kept apart.
const SUBJECTS: usize = 1000;
/// What was not heard of for so long is forgotten: nobody asks for it any more.
const FORGOTTEN: Duration = Duration::from_secs(180);

const KINDS: usize = 8;

/// What may go on for long. The first ones come first where there is not room for all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A broker is out of reach, or its connections end again and again. Its subject: `host:port`.
    Broker,
    /// A topic cannot be used. Its subject: the name.
    Topic,
    /// A broker asks this client for pauses. Its subject: `host:port`.
    Throttle,
    /// There is no producer id.
    Identity,
    /// There is no metadata.
    Metadata,
    /// Records of a partition wait.
    Partition,
    /// Callers find no room.
    Room,
    /// Records fail.
    Records,
}

impl Kind {
    const ALL: [Self; KINDS] = [
        Self::Broker,
        Self::Topic,
        Self::Throttle,
        Self::Identity,
        Self::Metadata,
        Self::Partition,
        Self::Room,
        Self::Records,
    ];

    /// How long it must go on before it is told.
    fn patience(self) -> Duration {
        match self {
            Self::Records | Self::Partition | Self::Room => Duration::ZERO,
            Self::Broker => Duration::from_secs(1),
            Self::Identity => Duration::from_secs(5),
            Self::Topic | Self::Throttle | Self::Metadata => Duration::from_secs(10),
        }
    }

    /// As often as not it follows from a broker's trouble, and says nothing new beside that.
    fn follows(self) -> bool {
        matches!(self, Self::Identity | Self::Metadata | Self::Partition | Self::Room)
    }
}

/// Why it is so. Put into words only when it is told.
#[derive(Clone, Debug)]
pub enum Why {
    /// In words.
    Words(Arc<str>),
    /// The last record's error.
    Error(DeliveryError),
}

/// Something that goes on, or did a moment ago.
#[derive(Clone, Debug)]
struct State {
    since: Duration,
    /// When it was last heard of.
    heard: Duration,
    why: Why,
    /// It is over, and kept for a while so that it is not told too often.
    over: bool,
    /// Its beginning was told, and its end was not.
    open: bool,
    /// When its beginning was last told.
    told: Option<Duration>,
}

/// What became of records, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// So far.
    pub delivered: u64,
    /// So far.
    pub failed: u64,
    /// Accepted, and neither.
    pub waiting: u64,
}

/// A line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// It is bad news.
    pub bad: bool,
    /// What it is about; `None`: how it stands in all.
    pub kind: Option<Kind>,
    pub text: String,
}

/// Things are bad.
#[derive(Clone, Copy, Debug)]
struct Bad {
    since: Duration,
    /// What had become of records when that was first told.
    counts: Counts,
    /// When it is told next.
    next: Duration,
}

/// What goes on, and what is to be told of it.
#[derive(Debug, Default)]
pub struct Health {
    /// By kind and subject.
    states: [BTreeMap<Arc<str>, State>; KINDS],
    /// By kind, when beginnings were told within the last minute.
    told: [Vec<Duration>; KINDS],
    bad: Option<Bad>,
    /// A broker answers again: until then, what follows from its absence may pass by itself.
    passes_until: Duration,
    /// When to look again; `None`: at once.
    next: Option<Duration>,
    lines: Vec<Line>,
}

impl Health {
    /// This goes on since then, because of that. Said again, it goes on, perhaps for another reason.
    pub fn begin(&mut self, now: Duration, kind: Kind, subject: &str, since: Duration, why: Why) {
        let states = &mut self.states[kind as usize];
        let has_room = states.len() < SUBJECTS;
        match states.get_mut(subject) {
            Some(state) => {
                if state.over {
                    (state.over, state.since, self.next) = (false, since, None);
                }
                (state.heard, state.why) = (now, why);
            }
            None if has_room => {
                let state = State { since, heard: now, why, over: false, open: false, told: None };
                states.insert(subject.into(), state);
                self.next = None;
            }
            None => {}
        }
    }

    /// This still goes on.
    pub fn hear(&mut self, now: Duration, kind: Kind, subject: &str) {
        if let Some(state) = self.states[kind as usize].get_mut(subject) {
            state.heard = now;
        }
    }

    /// This is over: `how`, in words.
    pub fn end(&mut self, now: Duration, kind: Kind, subject: &str, how: &str, counts: impl FnOnce() -> Counts) {
        let states = &mut self.states[kind as usize];
        let Some(state) = states.get_mut(subject).filter(|state| !state.over) else { return };
        (state.over, self.next) = (true, None);
        if std::mem::take(&mut state.open) {
            if kind == Kind::Broker {
                self.passes_until = now + QUIET;
            }
            let bad = if self.is_bad() { None } else { self.bad.take() };
            let all_well = bad.map(|bad| Standing::of(&bad, now, counts()));
            self.lines.push(Line { bad: false, kind: Some(kind), text: words::over(how, all_well) });
        }
    }

    /// Since when this goes on.
    pub fn since(&self, kind: Kind, subject: &str) -> Option<Duration> {
        self.states[kind as usize].get(subject).filter(|state| !state.over).map(|state| state.since)
    }

    /// Those of a kind that go on, and when each was last heard of.
    pub fn on(&self, kind: Kind) -> Vec<(Arc<str>, Duration)> {
        let on = self.states[kind as usize].iter().filter(|(_, state)| !state.over);
        on.map(|(subject, state)| (subject.clone(), state.heard)).collect()
    }

    /// Tells what is due, and says when to look again, if there is anything to look at.
    pub fn look(&mut self, now: Duration, counts: impl Fn() -> Counts) -> Option<Duration> {
        if self.next.is_some_and(|next| now < next) {
            return self.next;
        }
        self.forget(now);
        for kind in Kind::ALL {
            let subjects: Vec<Arc<str>> = self.states[kind as usize].keys().cloned().collect();
            subjects.iter().for_each(|subject| self.tell_beginning(now, kind, subject, &counts));
        }
        if self.bad.is_some_and(|bad| now >= bad.next) {
            self.tell_standing(now, counts());
        }
        self.next = self.next_look(now);
        self.next
    }

    /// The lines since the last call.
    pub fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// Something that was told goes on.
    fn is_bad(&self) -> bool {
        self.states.iter().flat_map(BTreeMap::values).any(|state| state.open)
    }

    fn forget(&mut self, now: Duration) {
        for told in &mut self.told {
            told.retain(|at| now < *at + MINUTE);
        }
        for states in &mut self.states {
            states.retain(|_, state| match state.over {
                true => state.told.is_some_and(|told| now < told + MINUTE),
                false => now < state.heard + FORGOTTEN,
            });
        }
        if !self.is_bad() {
            self.bad = None;
        }
    }

    /// When the beginning of this may be told, if nothing keeps it back.
    fn due(&self, kind: Kind, state: &State) -> Duration {
        let again = state.told.map_or(Duration::ZERO, |told| told + MINUTE);
        let others = match &*self.told[kind as usize] {
            [first, ..] if self.told[kind as usize].len() >= TOLD_AT_ONCE => *first + MINUTE,
            _ => Duration::ZERO,
        };
        (state.since + kind.patience()).max(again).max(others)
    }

    /// Its reason is a broker that has a line of its own; or it was, and this may be over in a moment, too.
    fn is_kept_back(&self, now: Duration, kind: Kind, state: &State) -> bool {
        let Why::Words(why) = &state.why else { return false };
        let brokers = &self.states[Kind::Broker as usize];
        let has_reason = || brokers.iter().any(|(name, broker)| !broker.over && why.contains(&**name));
        kind.follows() && (now < self.passes_until || has_reason())
    }

    fn tell_beginning(&mut self, now: Duration, kind: Kind, subject: &str, counts: &impl Fn() -> Counts) {
        let Some(state) = self.states[kind as usize].get(subject) else { return };
        if state.over || state.open || now < self.due(kind, state) || self.is_kept_back(now, kind, state) {
            return;
        }
        let since = state.since;
        let text = words::begun(kind, subject, &state.why, now.saturating_sub(since));
        self.lines.push(Line { bad: true, kind: Some(kind), text });
        self.told[kind as usize].push(now);
        if let Some(state) = self.states[kind as usize].get_mut(subject) {
            (state.open, state.told) = (true, Some(now));
        }
        self.bad.get_or_insert_with(|| Bad { since, counts: counts(), next: now + MINUTE });
    }

    fn tell_standing(&mut self, now: Duration, counts: Counts) {
        let Some(bad) = &mut self.bad else { return };
        bad.next = now + MINUTE;
        let standing = Standing::of(bad, now, counts);
        let mut on = Vec::new();
        for (kind, states) in Kind::ALL.into_iter().zip(&self.states) {
            for (subject, state) in states {
                let long = now >= state.since + kind.patience();
                if long && !state.over && !self.is_kept_back(now, kind, state) {
                    on.push(words::begun(kind, subject, &state.why, now.saturating_sub(state.since)));
                }
            }
        }
        self.lines.push(Line { bad: true, kind: None, text: standing.with(&on) });
    }

    fn next_look(&self, now: Duration) -> Option<Duration> {
        let mut next = self.bad.map(|bad| bad.next);
        for (kind, states) in Kind::ALL.into_iter().zip(&self.states) {
            for state in states.values() {
                let at = match state.told {
                    Some(told) if state.over => told + MINUTE,
                    _ if state.open || self.is_kept_back(now, kind, state) => now + LOOK,
                    _ => self.due(kind, state).min(now + LOOK),
                };
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        next.map(|at| at.max(now + Duration::from_millis(1)))
    }
}
