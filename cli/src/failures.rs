//! Which lines failed and why, in bounded memory.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// Different reasons that are kept apart; further ones are counted together.
const REASONS: usize = 10;
/// Runs of line numbers kept for each reason; further ones are only counted.
const RUNS: usize = 1000;
/// Runs shown in the report.
const SHOWN: usize = 20;
/// How often there are news of one reason.
const NEWS: Duration = Duration::from_secs(60);

/// Failed lines, grouped by reason.
#[derive(Default, Debug)]
pub struct Failures {
    groups: Vec<Group>,
    /// Lines whose reason found no room in `groups`.
    others: u64,
    others_told: Told,
}

/// What was told before the report.
#[derive(Default, Debug)]
struct Told {
    /// So many.
    count: u64,
    at: Option<Instant>,
    /// First and last of the lines that failed since then.
    since: Option<(u64, u64)>,
}

impl Told {
    /// When there are news, if so many failed by now.
    fn next(&self, count: u64, now: Instant) -> Option<Instant> {
        (count > self.count).then(|| self.at.map_or(now, |at| at + NEWS))
    }

    /// How many failed, and which lines, since it was told last. From now on that is told.
    fn news(&mut self, count: u64, now: Instant) -> String {
        let new = count - self.count;
        let (more, plural) = (if self.count > 0 { " more" } else { "" }, if new == 1 { "" } else { "s" });
        let lines = match self.since {
            None => String::new(),
            Some((first, last)) if first == last => format!(" (line {first})"),
            Some((first, last)) if last - first + 1 == new => format!(" (lines {first}-{last})"),
            Some((first, last)) => format!(" (between lines {first} and {last})"),
        };
        *self = Self { count, at: Some(now), since: None };
        format!("{new}{more} record{plural} failed{lines}")
    }
}

#[derive(Debug)]
struct Group {
    /// What the reason is compared by; messages may differ in times and offsets.
    kind: String,
    /// The first message of this kind.
    text: String,
    count: u64,
    /// First and last line of each run, in the order in which they failed.
    runs: Vec<(u64, u64)>,
    /// Lines in runs that found no room.
    not_kept: u64,
    told: Told,
}

impl Failures {
    /// Notes that a line failed. Failures of one `kind` are reported together under the first one's text.
    pub fn note(&mut self, line: u64, kind: &str, text: impl FnOnce() -> String) {
        let Some(group) = self.count_one(kind, text) else { return };
        group.told.since =
            Some(group.told.since.map_or((line, line), |(first, last)| (first.min(line), last.max(line))));
        // Lines of a partition fail in order, so the run that a line continues is among the last ones.
        let touches = |(first, last): &(u64, u64)| line + 1 == *first || *last + 1 == line;
        match group.runs.iter().rev().take(64).position(touches) {
            Some(from_end) => {
                let at = group.runs.len() - 1 - from_end;
                let (first, last) = group.runs[at];
                group.runs[at] = (first.min(line), last.max(line));
            }
            None if group.runs.len() < RUNS => group.runs.push((line, line)),
            None => group.not_kept += 1,
        }
    }

    /// Notes that a record failed which is no line of anything.
    pub fn note_record(&mut self, kind: &str, text: impl FnOnce() -> String) {
        self.count_one(kind, text);
    }

    /// Counts a failure in its group; `None`: there are too many groups.
    fn count_one(&mut self, kind: &str, text: impl FnOnce() -> String) -> Option<&mut Group> {
        let at = match self.groups.iter().position(|g| g.kind == kind) {
            Some(at) => at,
            None if self.groups.len() < REASONS => {
                self.groups.push(Group {
                    kind: kind.to_string(),
                    text: text(),
                    count: 0,
                    runs: Vec::new(),
                    not_kept: 0,
                    told: Told::default(),
                });
                self.groups.len() - 1
            }
            None => {
                self.others += 1;
                return None;
            }
        };
        let group = &mut self.groups[at];
        group.count += 1;
        Some(group)
    }

    /// Lines that failed.
    pub fn count(&self) -> u64 {
        self.groups.iter().map(|g| g.count).sum::<u64>() + self.others
    }

    /// When there is something to tell before the report, if anything failed that was not told: of each reason at once, then
    /// once a minute.
    pub fn next_news(&self, now: Instant) -> Option<Instant> {
        let groups = self.groups.iter().map(|group| group.told.next(group.count, now));
        groups.chain([self.others_told.next(self.others, now)]).flatten().min()
    }

    /// What there is to tell now, a line for each reason.
    pub fn news(&mut self, now: Instant) -> Vec<String> {
        let due = |told: &Told, count| told.next(count, now).is_some_and(|at| at <= now);
        let groups = self.groups.iter_mut().filter(|group| due(&group.told, group.count));
        let mut news: Vec<String> =
            groups.map(|group| format!("{}: {}", group.told.news(group.count, now), group.text)).collect();
        if due(&self.others_told, self.others) {
            news.push(format!("{} for other reasons", self.others_told.news(self.others, now)));
        }
        news
    }

    /// For the user: a paragraph for each reason, with the numbers of the lines.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for group in &self.groups {
            let plural = if group.count == 1 { "" } else { "s" };
            let _ = writeln!(report, "{} record{plural} failed: {}", group.count, group.text);
            if group.runs.is_empty() {
                continue;
            }
            let mut runs = group.runs.clone();
            runs.sort_unstable();
            let runs = join(&runs);
            let shown: Vec<String> = runs.iter().take(SHOWN).map(|run| show(*run)).collect();
            let more = runs.iter().skip(SHOWN).map(|(first, last)| last - first + 1).sum::<u64>() + group.not_kept;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = writeln!(report, "  line{plural} {}{more}", shown.join(", "));
        }
        if self.others > 0 {
            let _ = writeln!(report, "{} more records failed for other reasons", self.others);
        }
        report
    }
}

/// Joins runs that touch; they are sorted.
fn join(runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(last) if last.1 + 1 >= run.0 => last.1 = last.1.max(run.1),
            _ => joined.push(*run),
        }
    }
    joined
}

fn show((first, last): (u64, u64)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_in_runs() {
        let mut failures = Failures::default();
        for line in [7, 8, 3, 9, 1, 2] {
            failures.note(line, "expired", || "too late".to_string());
        }
        failures.note(20, "large", || "too large".to_string());
        assert_eq!(failures.count(), 7);
        assert_eq!(
            failures.report(),
            "6 records failed: too late\n  lines 1-3, 7-9\n1 record failed: too large\n  line 20\n"
        );
    }

    #[test]
    fn news_come_at_once_and_then_once_a_minute() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(failures.next_news(start), None);
        for line in 1..=300 {
            failures.note(line, "expired", || "too late".to_string());
        }
        assert_eq!(failures.next_news(at(1)), Some(at(1)));
        assert_eq!(failures.news(at(1)), ["300 records failed (lines 1-300): too late"]);
        assert_eq!((failures.next_news(at(2)), failures.news(at(2))), (None, vec![]));
        failures.note(305, "expired", || unreachable!());
        failures.note(309, "expired", || unreachable!());
        failures.note(310, "large", || "too large".to_string());
        assert_eq!(failures.next_news(at(3)), Some(at(3)));
        assert_eq!(failures.news(at(3)), ["1 record failed (line 310): too large"]);
        assert_eq!(failures.next_news(at(4)), Some(at(61)));
        assert_eq!(failures.news(at(60)), [""; 0]);
        assert_eq!(failures.news(at(61)), ["2 more records failed (between lines 305 and 309): too late"]);
        for kind in 0..100 {
            failures.note(400, &kind.to_string(), || "odd".to_string());
        }
        let news = failures.news(at(62));
        assert!(news.len() == 9 && news[8] == "92 records failed for other reasons", "{news:?}");
        assert!(failures.report().contains("302 records failed: too late\n  lines 1-300, 305, 309\n"));
    }

    #[test]
    fn records_without_a_line_are_counted() {
        let mut failures = Failures::default();
        failures.note_record("expired", || "too late".to_string());
        failures.note_record("expired", || unreachable!());
        assert_eq!((failures.count(), failures.report().as_str()), (2, "2 records failed: too late\n"));
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_miscounted() {
        let mut failures = Failures::default();
        for line in 0..50_000 {
            failures.note(line * 2, "expired", || "too late".to_string());
        }
        for kind in 0..100 {
            failures.note(kind, &kind.to_string(), || kind.to_string());
        }
        assert_eq!(failures.count(), 50_100);
        assert!(failures.groups.len() <= REASONS && failures.groups.iter().all(|g| g.runs.len() <= RUNS));
        assert!(failures.report().contains("lines 0, 2, 4,"));
        assert!(failures.report().contains(&format!("and {} more", 50_000 - SHOWN)));
        assert!(failures.report().contains("91 more records failed for other reasons"));
    }
}
