//! How fast writers fill a partition's ring, and from that how large its next batch is to become before it leaves.

use std::time::Duration;

/// While a partition has something unacknowledged, fewer bytes than this wait for the ack or for linger: small
/// batches cost a system call, an answer and a wake-up each (PERF.md).
pub const GROW_TO: u32 = 256 << 10;

/// Where writers do not wait for answers, what a batch will have so long after the one before it left, as they are going
/// now, takes the place of `batch.size`.
const GROW_FOR: Duration = Duration::from_micros(250);

/// See the module.
#[derive(Debug, Default)]
pub struct Pace {
    /// When writers began the batch that they are at, at the earliest.
    begun: Duration,
    /// When the partition's last batch was taken out of the ring, and how many bytes the ring had beside that one.
    drained_at: Duration,
    left_over: u64,
    /// When the last of the batches in flight was answered or lost.
    answered_at: Option<Duration>,
    /// Writers began the batch that they are at before that: they do not wait for answers.
    ahead: bool,
    /// The open batch may grow beyond `batch.size`, to so many bytes.
    grows_to: Option<u32>,
}

impl Pace {
    /// The ring was empty, and writers begin a batch; `in_flight`: while others are.
    pub fn begin(&mut self, now: Duration, in_flight: bool) {
        self.begun = now;
        self.ahead = in_flight || self.answered_at == Some(now);
    }

    /// The batch that writers were at takes no more: they begin another one.
    pub fn end(&mut self, now: Duration) {
        self.begun = now;
    }

    /// When writers began the batch that they are at, at the earliest.
    pub fn begun(&self) -> Duration {
        self.begun
    }

    /// A batch was taken out of the ring, in which so many bytes are left; `None`: nothing is.
    pub fn drain(&mut self, now: Duration, left: Option<u64>) {
        self.drained_at = now;
        (self.ahead, self.left_over) = (left.is_some(), left.unwrap_or(0));
    }

    /// The last of the batches in flight was answered or lost.
    pub fn answer(&mut self, now: Duration) {
        self.answered_at = Some(now);
    }

    /// How many bytes the open batch has `GROW_FOR` after the last one left, if it goes on as it came to these: `most` at
    /// most. Where writers may be waiting for answers, and of a few bytes, nothing can be said: they are enough.
    pub fn comes_to(&self, now: Duration, bytes: u64, most: u64) -> u64 {
        if !self.ahead || bytes < most / 16 {
            return bytes;
        }
        let elapsed = now.saturating_sub(self.drained_at);
        let came = u128::from(bytes.saturating_sub(self.left_over));
        let comes = came * GROW_FOR.saturating_sub(elapsed).as_nanos() / elapsed.as_nanos().max(1);
        most.min(bytes.saturating_add(u64::try_from(comes).unwrap_or(u64::MAX)))
    }

    /// Until when it waits for them.
    pub fn grows_until(&self) -> Duration {
        self.drained_at + GROW_FOR
    }

    /// Lets the open batch grow to so many bytes, or to `batch.size` only. False: that is so already.
    pub fn let_grow(&mut self, to: Option<u32>) -> bool {
        std::mem::replace(&mut self.grows_to, to) != to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);
    const MOST: u64 = 256 << 10;

    /// Drained at 1000 us with 10,000 bytes left over.
    fn ahead() -> Pace {
        let mut pace = Pace::default();
        pace.begin(900 * US, true);
        pace.drain(1000 * US, Some(10_000));
        pace
    }

    #[test]
    fn a_batch_comes_to_what_its_pace_promises() {
        let pace = ahead();
        assert_eq!(pace.comes_to(1050 * US, 20_000, MOST), 60_000, "10,000 in 50 us, so 40,000 more in 200");
        assert_eq!(pace.comes_to(1250 * US, 20_000, MOST), 20_000, "its time is over");
        assert_eq!(pace.comes_to(1050 * US, 60_000, MOST), 260_000);
        assert_eq!(pace.comes_to(1050 * US, 90_000, MOST), MOST, "and no more than that");
        assert_eq!(pace.comes_to(1000 * US, 20_000, MOST), MOST, "in no time at all");
        assert_eq!(pace.grows_until(), 1250 * US);
    }

    #[test]
    fn writers_who_may_wait_for_answers_are_not_waited_for() {
        assert_eq!(ahead().comes_to(1050 * US, 16_000, MOST), 16_000, "too few to tell");
        let mut pace = ahead();
        pace.drain(1000 * US, None);
        assert_eq!(pace.comes_to(1050 * US, 20_000, MOST), 20_000, "the ring was empty");
        for (in_flight, answered, waits) in [(true, 0, true), (false, 2000, true), (false, 1999, false)] {
            pace.drain(1950 * US, None);
            pace.answer(answered * US);
            pace.begin(2000 * US, in_flight);
            assert_eq!(pace.comes_to(2050 * US, 20_000, MOST) > 20_000, waits, "{in_flight} {answered}");
            assert_eq!(pace.comes_to(2250 * US, 20_000, MOST), 20_000, "long after the last batch left");
        }
    }

    #[test]
    fn growth_is_announced_once() {
        let mut pace = Pace::default();
        assert!(!pace.let_grow(None) && pace.let_grow(Some(5)) && !pace.let_grow(Some(5)) && pace.let_grow(None));
    }
}
