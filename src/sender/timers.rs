//! When something must be looked at again. Each owner keeps one entry at a time; a late or double look does no harm.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::transmit::ConnectionId;

/// What is due. Looking at one of these is always safe: the look itself finds out whether anything is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// A partition's linger or retry backoff.
    Partition(u32),
    /// A partition's delivery timeout, or the end of the batch that writers are at.
    Expiry(u32),
    /// A connection's setup, request timeout, throttle or idle time.
    Connection(ConnectionId),
    /// A broker's reconnect backoff.
    Node(i32),
    /// The control connection's backoff, or metadata that is due.
    Control,
    /// A record's own time is over.
    Deadlines,
    /// `close` has waited long enough.
    Close,
    /// Callers wait for room: what is open leaves.
    Pressure,
    /// Callers that wait for room or metadata get a chance to look at their own clocks.
    Waiters,
    /// Something is wrong: is it to be told, or over?
    Health,
}

/// The deadlines, earliest first.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Duration, Timer)>>);

impl Timers {
    /// Asks for a look at `timer` at `at`.
    pub fn arm(&mut self, at: Duration, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a look at `timer` was asked for at `at` or before.
    #[cfg(feature = "testing")]
    pub fn is_armed(&self, at: Duration, timer: Timer) -> bool {
        self.0.iter().any(|Reverse((armed, of))| *armed <= at && *of == timer)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Duration> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The next timer that is due.
    pub fn due(&mut self, now: Duration) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, timer))| timer)
    }
}

/// The one deadline that an owner has armed. Keeps the heap short: a later wish is folded into the earlier entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Armed(Option<Duration>);

impl Armed {
    /// Arms `timer` unless an earlier look is due anyway.
    pub fn at(&mut self, timers: &mut Timers, at: Duration, timer: Timer) {
        if self.0.is_none_or(|armed| at < armed) {
            self.0 = Some(at);
            timers.arm(at, timer);
        }
    }

    /// To be called when the timer fires.
    pub fn fired(&mut self, now: Duration) {
        if self.0.is_some_and(|armed| armed <= now) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_nothing_early() {
        let mut timers = Timers::default();
        let ms = Duration::from_millis;
        timers.arm(ms(20), Timer::Control);
        timers.arm(ms(10), Timer::Partition(3));
        assert_eq!(timers.next(), Some(ms(10)));
        assert_eq!(timers.due(ms(9)), None);
        assert_eq!(timers.due(ms(10)), Some(Timer::Partition(3)));
        assert_eq!(timers.due(ms(19)), None);
        assert_eq!(timers.due(ms(30)), Some(Timer::Control));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn an_owner_keeps_its_earliest_look() {
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        let ms = Duration::from_millis;
        armed.at(&mut timers, ms(10), Timer::Control);
        armed.at(&mut timers, ms(15), Timer::Control);
        armed.at(&mut timers, ms(5), Timer::Control);
        assert_eq!(timers.due(ms(20)), Some(Timer::Control));
        armed.fired(ms(5));
        armed.at(&mut timers, ms(15), Timer::Control);
        assert_eq!(timers.due(ms(20)), Some(Timer::Control));
        assert_eq!(timers.due(ms(20)), Some(Timer::Control));
        assert_eq!(timers.due(ms(20)), None);
    }
}
