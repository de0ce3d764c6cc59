//! When what is known is wrong, and who is believed then.
//!
//! Leader epochs only grow, topic ids and cluster ids stay: so one answer that has them too high, or others, would hold
//! for ever. It holds only while it is of use. What is of no use gives way to what other answers say, once several of them
//! have said it and [`BELIEVED`] is over: a broker that lags behind is soon followed by one that does not.

use std::net::SocketAddr;
use std::time::Duration;

use super::Leader;

/// How long something must have been of no use before what contradicts it is believed.
pub const BELIEVED: Duration = Duration::from_secs(5);

/// So many answers must contradict it.
const ANSWERS: u32 = 2;

/// Leader epochs that are further ahead than this of what several answers say make no sense: a partition that changes its
/// leader once a minute takes 17 hours for so many.
const SENSIBLE: i32 = 1000;

/// A leader that refuses, or that nobody can connect to.
#[derive(Debug)]
pub struct Doubt {
    leader: Leader,
    since: Duration,
    /// Answers since then that name it again, and answers with an earlier epoch.
    confirmed: u32,
    contradicted: u32,
    /// The latest of the earlier ones.
    best: Option<Leader>,
}

impl Doubt {
    /// From now on.
    pub fn new(leader: Leader, now: Duration) -> Self {
        Self { leader, since: now, confirmed: 0, contradicted: 0, best: None }
    }

    /// It is this leader that is doubted.
    pub fn is_of(&self, leader: Leader) -> bool {
        self.leader == leader
    }

    /// Since when.
    #[cfg(feature = "testing")]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// An answer names it again.
    pub fn confirm(&mut self) {
        self.confirmed = self.confirmed.saturating_add(1);
    }

    /// An answer names `heard`, whose epoch is earlier. The leader that is to be believed in its place, if by now it is.
    /// `any`: however near the epochs are.
    pub fn contradict(&mut self, heard: Leader, now: Duration, any: bool) -> Option<Leader> {
        self.contradicted = self.contradicted.saturating_add(1);
        if heard.node >= 0 && self.best.is_none_or(|best| heard.epoch >= best.epoch) {
            self.best = Some(heard);
        }
        let best = self.best?;
        let sensible = self.leader.epoch.saturating_sub(best.epoch) <= SENSIBLE;
        let enough = self.contradicted >= ANSWERS && self.contradicted > self.confirmed;
        (enough && now >= self.since + BELIEVED && (any || !sensible)).then_some(best)
    }
}

/// An answer: when it came, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Monotonic.
    pub now: Duration,
    /// The broker's address.
    pub from: SocketAddr,
}

/// Another id than the one that is known, which answers in a row have told.
#[derive(Debug)]
pub struct Another<T> {
    id: T,
    told: u32,
    first: Heard,
    several: bool,
}

impl<T: PartialEq> Another<T> {
    /// An answer tells `id`.
    pub fn hear(slot: &mut Option<Self>, id: T, heard: Heard) -> &Self {
        let another = match slot.take().filter(|another| another.id == id) {
            Some(another) => Self {
                told: another.told.saturating_add(1),
                several: another.several || another.first.from != heard.from,
                ..another
            },
            None => Self { id, told: 1, first: heard, several: false },
        };
        slot.insert(another)
    }

    /// It is no slip: more than one answer has told it, for long.
    pub fn is_told_for_long(&self, now: Duration) -> bool {
        self.told >= ANSWERS && now >= self.first.now + BELIEVED
    }

    /// Nor is it one broker's alone.
    pub fn is_told_by_several(&self) -> bool {
        self.several
    }
}
