//! What may happen with every record is told once a minute, and how often it was.

use std::time::{Duration, Instant};

/// How often it is told.
const MINUTE: Duration = Duration::from_secs(60);

/// How often something happened since it was last told.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It happened. How often since it was last told, if it is to be told now: the first time, then once a minute.
    pub fn happened(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= MINUTE);
        due.then(|| {
            self.told = Some(now);
            self.untold()
        })
    }

    /// How often it happened and was not told. From now on that counts as told.
    pub fn untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_then_once_a_minute() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let told: Vec<_> = (0..150).map(|second| seldom.happened(start + Duration::from_secs(second))).collect();
        let expected = |second| match second {
            0 => Some(1),
            60 | 120 => Some(60),
            _ => None,
        };
        assert_eq!(told, (0..150).map(expected).collect::<Vec<_>>());
        assert_eq!((seldom.untold(), seldom.untold()), (29, 0));
    }
}
