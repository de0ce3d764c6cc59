//! How fast a broker serves the requests of one connection, as its answers tell, and what follows for the next request.
//!
//! A broker works on one request of a connection at a time. Where one costs milliseconds, as replication does, a request
//! that is sent while two are unanswered makes nothing faster: it waits at the broker, with what it has, instead of here,
//! where more comes to it. And then it matters how much a request has: the broker takes about as long for many batches as
//! for one. So where answers are slow, no more requests are under way than keep the broker busy, and each has more.
//!
//! Pairs tell: of two requests sent at once, a broker that takes its time for each answers the second one so much later. A
//! long way, or a broker that works on several, answers it at once, and there nothing is held up.

use std::time::Duration;

/// From here on answers are slow. Below, requests as they are fill any network.
const SLOW: Duration = Duration::from_millis(1);

/// A larger request is to be served within this, as its connection goes: so a slow network carries none for long, and
/// whatever comes behind it does not wait for longer.
const LONGEST: Duration = Duration::from_millis(500);

/// One answer in so many, a request more may leave: else a pair would never be seen again.
const PROBE_EVERY: u32 = 32;

/// What the answers on one connection told. Averages are moving ones, over some four values.
///
/// A broker counts as slow when so many pairs in a row say so: one that did not get a processor for a while, or collected
/// its garbage, answers all that had come meanwhile at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// The shortest time from a request to its answer.
    round_trip: Option<Duration>,
    /// What a request takes of the broker's time, as the last pairs told.
    pairs: [Duration; 4],
    pair: usize,
    /// From one answer to the next one whose request was under way, and how many bytes that one had.
    apart: Duration,
    bytes: u64,
    answers: u32,
    asked_at: Duration,
    answered_at: Duration,
}

fn average(old: Duration, new: Duration) -> Duration {
    old - old / 4 + new / 4
}

impl Service {
    /// A request of so many bytes, handed over at `asked_at`, was answered.
    pub fn answered(&mut self, now: Duration, asked_at: Duration, bytes: usize) {
        let took = now.saturating_sub(asked_at);
        self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
        if self.answers > 0 && asked_at <= self.answered_at {
            let apart = now.saturating_sub(self.answered_at);
            self.apart = average(self.apart, apart);
            self.bytes = self.bytes - self.bytes / 4 + bytes as u64 / 4;
            // Of two that were sent as far apart as they are answered, nothing can be said.
            if asked_at.saturating_sub(self.asked_at) <= self.each().max(apart) / 2 {
                self.pairs[self.pair] = apart;
                self.pair = (self.pair + 1) % self.pairs.len();
            }
        }
        self.answers = self.answers.wrapping_add(1);
        (self.asked_at, self.answered_at) = (asked_at, now);
    }

    /// What a request takes of the broker's time, at least.
    fn each(&self) -> Duration {
        self.pairs.into_iter().min().unwrap_or_default()
    }

    fn is_slow(&self) -> bool {
        self.each() >= SLOW
    }

    /// With so many requests under way the next one would only wait at the broker: one is being served, one is next, and
    /// the others fill the way there and back.
    pub fn is_busy(&self, unanswered: usize) -> bool {
        if unanswered < 2 || !self.is_slow() {
            return false;
        }
        let each = self.each();
        let fill = (self.round_trip.unwrap_or_default() + each / 2).as_nanos() / each.as_nanos().max(1);
        let probe = u128::from(self.answers.is_multiple_of(PROBE_EVERY));
        unanswered as u128 >= fill.max(1) + 1 + probe
    }

    /// How many bytes the next request may have: `least`, or as far as answers are slow up to `most`.
    pub fn request_bytes(&self, least: u64, most: u64) -> u64 {
        if !self.is_slow() || most <= least {
            return least;
        }
        let served = u128::from(self.bytes) * LONGEST.as_nanos() / self.apart.as_nanos().max(1);
        u64::try_from(served).unwrap_or(u64::MAX).clamp(least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);
    const MIB: u64 = 1 << 20;

    /// A broker that serves one request after the other, `service` each (and as long as the way takes for so many bytes), at
    /// the end of a way of `way` there and back. A client that always has something sends as long as it may.
    struct Line {
        service: Duration,
        way: Duration,
        bytes_per_ms: u64,
        now: Duration,
        free_at: Duration,
        pub pace: Service,
        under_way: VecDeque<(Duration, Duration, u64)>,
        most_under_way: usize,
        served: u64,
    }

    impl Line {
        fn new(service: Duration, way: Duration) -> Self {
            Self {
                service,
                way,
                bytes_per_ms: 1_000_000,
                now: way,
                free_at: Duration::ZERO,
                pace: Service::default(),
                under_way: VecDeque::new(),
                most_under_way: 0,
                served: 0,
            }
        }

        /// Sends `every` so often, as long as `cap` allows; what comes back is noted.
        fn run(&mut self, time: Duration, every: Duration, cap: usize) {
            let end = self.now + time;
            self.most_under_way = 0;
            self.served = 0;
            let mut next = self.now;
            while self.now < end {
                let arrives = self.under_way.front().map_or(Duration::MAX, |(_, at, _)| *at);
                if arrives <= next {
                    self.now = arrives;
                    let (asked, _, bytes) = self.under_way.pop_front().unwrap();
                    self.pace.answered(self.now, asked, bytes as usize);
                    self.served += bytes;
                } else {
                    self.now = next;
                    next += every;
                    if self.under_way.len() < cap && !self.pace.is_busy(self.under_way.len()) {
                        self.send();
                    }
                }
            }
        }

        fn send(&mut self) {
            let bytes = self.pace.request_bytes(MIB, 8 * MIB);
            let wire = Duration::from_nanos(bytes * 1_000_000 / self.bytes_per_ms);
            self.free_at = self.free_at.max(self.now + self.way / 2) + self.service + wire;
            self.under_way.push_back((self.now, self.free_at + self.way / 2, bytes));
            self.most_under_way = self.most_under_way.max(self.under_way.len());
        }
    }

    #[test]
    fn a_slow_broker_gets_larger_requests_and_no_more_than_keep_it_busy() {
        for (service, way) in [(5 * MS, 100 * US), (20 * MS, 100 * US), (5 * MS, 20 * MS), (100 * MS, MS)] {
            let mut line = Line::new(service, way);
            line.run(Duration::from_secs(10), 50 * US, 16);
            line.run(Duration::from_secs(10), 50 * US, 16);
            let fill = (way.as_nanos() / service.as_nanos()) as usize;
            assert!((2..=4 + fill).contains(&line.most_under_way), "{service:?} {way:?}: {}", line.most_under_way);
            // 8 MiB each take 8 ms on the way, one after the other.
            let ideal = 10_000 * 8 * MIB / (service.as_millis() as u64 + 9);
            assert!(line.served > ideal * 8 / 10, "{service:?} {way:?}: {} of {ideal}", line.served);
        }
    }

    #[test]
    fn a_fast_broker_changes_nothing() {
        for service in [US, 100 * US, 500 * US] {
            let mut line = Line::new(service, 50 * US);
            line.bytes_per_ms = 1 << 30;
            line.run(Duration::from_secs(1), 20 * US, 16);
            assert_eq!(line.pace.request_bytes(MIB, 8 * MIB), MIB);
            assert!(line.most_under_way == 16 || service < 100 * US, "{service:?}: {}", line.most_under_way);
        }
    }

    /// 50 ms away, and fast: whatever the rate, requests are not kept from leaving for longer than the time between two.
    #[test]
    fn a_long_way_is_kept_full() {
        for every in [100 * US, MS, 3 * MS, 10 * MS, 40 * MS] {
            let mut line = Line::new(10 * US, 50 * MS);
            line.bytes_per_ms = 1 << 30;
            line.run(Duration::from_secs(5), every, usize::MAX);
            let of_way = (50 * MS).div_duration_f64(every) as usize;
            assert!(line.most_under_way >= of_way, "{every:?}: {} of {of_way}", line.most_under_way);
            // And ten times as often.
            line.run(Duration::from_secs(5), every / 10, usize::MAX);
            assert!(line.most_under_way >= of_way * 9, "{every:?}: {} of {}", line.most_under_way, of_way * 10);
        }
    }

    #[test]
    fn a_slow_network_carries_no_larger_ones() {
        let mut line = Line::new(100 * US, MS);
        // 16 Mbit/s.
        line.bytes_per_ms = 2_000;
        line.run(Duration::from_secs(60), MS, 16);
        assert_eq!(line.pace.request_bytes(MIB, 8 * MIB), MIB);
    }

    #[test]
    fn one_slow_answer_is_soon_forgotten() {
        let mut line = Line::new(200 * US, 100 * US);
        line.bytes_per_ms = 1 << 30;
        line.run(Duration::from_secs(1), 50 * US, 16);
        line.free_at += 200 * MS;
        line.run(Duration::from_secs(1), 50 * US, 16);
        assert!(!line.pace.is_slow());
    }

    #[test]
    fn limits_are_kept_whatever_was_seen() {
        let mut pace = Service::default();
        for (least, most) in [(0, 0), (5, 3), (3, 5)] {
            assert_eq!(pace.request_bytes(least, most), least);
        }
        pace.answered(Duration::MAX, Duration::ZERO, usize::MAX);
        pace.answered(Duration::MAX, Duration::ZERO, usize::MAX);
        assert!((3..=5).contains(&pace.request_bytes(3, 5)));
        assert_eq!(pace.request_bytes(5, 3), 5);
        pace.is_busy(usize::MAX);
    }
}
