//! What was measured, for people and for programs.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::usage::Used;

/// From a nanosecond to an hour, three digits. Every page is touched, so that recording meets no page fault.
pub fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap_or_else(|_| unreachable!());
    histogram.reset();
    histogram
}

/// The result of a run.
pub struct Figures {
    /// Delivered.
    pub records: u64,
    /// Not delivered, or nobody knows.
    pub errors: u64,
    /// Value and key bytes of each record.
    pub record_bytes: u64,
    pub used: Used,
    pub max_rss_kib: u64,
    /// Times of the send calls as taken, in nanoseconds; `timer_ns` is to be taken off.
    pub send: Histogram<u64>,
    /// From the send call, or from when the record was due, to the listener; in nanoseconds.
    pub ack: Histogram<u64>,
    /// How long after they were due records were sent, in nanoseconds; `None` without a rate.
    pub late: Option<Histogram<u64>>,
    pub timer_ns: u64,
    /// Records sent before.
    pub warm_up: u64,
    pub driver: &'static str,
}

/// p50, p99, p99.9 and the longest.
struct Quantiles([f64; 4]);

impl Quantiles {
    fn of(histogram: &Histogram<u64>, shown: impl Fn(u64) -> f64) -> Self {
        let at = |quantile| shown(histogram.value_at_quantile(quantile));
        Self([at(0.5), at(0.99), at(0.999), shown(histogram.max())])
    }

    fn json(&self, decimals: usize) -> String {
        let [p50, p99, p999, max] = self.0;
        format!(
            r#"{{"p50": {p50:.decimals$}, "p99": {p99:.decimals$}, "p999": {p999:.decimals$}, "max": {max:.decimals$}}}"#
        )
    }

    fn row(&self, name: &str, decimals: usize) -> String {
        let shown: String = self.0.iter().map(|value| format!("{:>14}", grouped(*value, decimals))).collect();
        format!("{name:<12}{shown}\n")
    }
}

impl Figures {
    /// What taking the time takes is no part of the call.
    fn send_ns(&self) -> Quantiles {
        Quantiles::of(&self.send, |nanos| nanos.saturating_sub(self.timer_ns) as f64)
    }

    fn ack_us(&self) -> Quantiles {
        Quantiles::of(&self.ack, |nanos| nanos as f64 / 1e3)
    }

    fn records_per_s(&self) -> f64 {
        ratio(self.records as f64, self.used.seconds)
    }

    fn mb_per_s(&self) -> f64 {
        self.records_per_s() * self.record_bytes as f64 / 1e6
    }

    fn cpu_s_per_million(&self) -> f64 {
        ratio(self.used.cpu_s * 1e6, self.records as f64)
    }

    fn allocations_per_record(&self) -> f64 {
        ratio(self.used.allocations as f64, self.records as f64)
    }

    /// One object on one line.
    pub fn json(&self) -> String {
        format!(
            r#"{{"records": {}, "errors": {}, "seconds": {:.6}, "records_per_s": {:.1}, "mb_per_s": {:.3}, "cpu_s": {:.6}, "cpu_s_per_million": {:.6}, "max_rss_kib": {}, "send_ns": {}, "ack_us": {}, "allocations_per_record": {:.6}, "driver": "{}"}}"#,
            self.records,
            self.errors,
            self.used.seconds,
            self.records_per_s(),
            self.mb_per_s(),
            self.used.cpu_s,
            self.cpu_s_per_million(),
            self.max_rss_kib,
            self.send_ns().json(0),
            self.ack_us().json(1),
            self.allocations_per_record(),
            self.driver
        )
    }

    /// What the table says and the object has no key for.
    pub fn beside_json(&self) -> String {
        let timer = format!("reading the clock takes {} ns (p50), which send_ns leaves out", self.timer_ns);
        let Some(late) = &self.late else { return timer };
        let [p50, p99, ..] = Quantiles::of(late, |nanos| nanos as f64 / 1e3).0;
        format!("{timer}; records were sent {p50:.1} µs (p50) and {p99:.1} µs (p99) after they were due")
    }

    /// A table, with units.
    pub fn table(&self) -> String {
        let mut table = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(table, "{name:<12}{value}");
        };
        line(
            "throughput",
            format!("{} records/s, {} MB/s", grouped(self.records_per_s(), 0), grouped(self.mb_per_s(), 1)),
        );
        line("time", format!("{:.3} s", self.used.seconds));
        line("CPU", format!("{:.3} s, {:.3} s per million records", self.used.cpu_s, self.cpu_s_per_million()));
        line("memory", format!("{} KiB at most", grouped(self.max_rss_kib as f64, 0)));
        line("allocations", format!("{:.6} per record", self.allocations_per_record()));
        line("delivered", format!("{}, not delivered {}", grouped(self.records as f64, 0), self.errors));
        let _ = writeln!(table, "{:<12}{:>14}{:>14}{:>14}{:>14}", "", "p50", "p99", "p99.9", "max");
        table += &self.send_ns().row("send (ns)", 0);
        table += &self.ack_us().row("ack (µs)", 1);
        if let Some(late) = &self.late {
            table += &Quantiles::of(late, |nanos| nanos as f64 / 1e3).row("late (µs)", 1);
        }
        let [timed, warm_up] = [self.send.len(), self.warm_up].map(|records| grouped(records as f64, 0));
        let clock = self.timer_ns;
        let _ =
            writeln!(table, "{timed} timed, after a warm-up of {warm_up}; reading the clock takes {clock} ns (p50)");
        table
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// A number with its thousands apart.
pub fn grouped(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut shown = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let (mut send, mut ack) = (histogram(), histogram());
        for (nanos, count) in [(90, 980), (290, 18), (1_090, 1), (5_040, 1)] {
            send.record_n(nanos, count).unwrap();
            ack.record_n(nanos * 100, count).unwrap();
        }
        let used = Used { seconds: 2.0, cpu_s: 0.5, allocations: 3 };
        Figures {
            records: 1_000,
            errors: 2,
            record_bytes: 500,
            used,
            max_rss_kib: 40_000,
            send,
            ack,
            late: None,
            timer_ns: 40,
            warm_up: 7_000,
            driver: "epoll",
        }
    }

    #[test]
    fn json_has_every_figure_in_its_unit() {
        assert_eq!(
            figures().json(),
            concat!(
                r#"{"records": 1000, "errors": 2, "seconds": 2.000000, "records_per_s": 500.0, "mb_per_s": 0.250, "#,
                r#""cpu_s": 0.500000, "cpu_s_per_million": 500.000000, "max_rss_kib": 40000, "#,
                r#""send_ns": {"p50": 50, "p99": 250, "p999": 1050, "max": 5003}, "#,
                r#""ack_us": {"p50": 9.0, "p99": 29.0, "p999": 109.1, "max": 504.1}, "#,
                r#""allocations_per_record": 0.003000, "driver": "epoll"}"#
            )
        );
    }

    #[test]
    fn nothing_delivered_is_still_a_result() {
        let used = Used { seconds: 0.0, cpu_s: 0.0, allocations: 7 };
        let json = Figures { records: 0, used, send: histogram(), ack: histogram(), ..figures() }.json();
        assert!(!json.contains("NaN") && !json.contains("inf"), "{json}");
    }

    #[test]
    fn the_table_says_its_units() {
        let table = Figures { late: Some(histogram()), records: 1_234_567, ..figures() }.table();
        for part in [
            "617,284 records/s",
            "MB/s",
            "40,000 KiB",
            "send (ns)",
            "ack (µs)",
            "late (µs)",
            "40 ns",
            "warm-up of 7,000",
            "1,234,567",
        ] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
    }

    #[test]
    fn a_call_is_never_shorter_than_nothing() {
        assert_eq!(Figures { timer_ns: 100, ..figures() }.send_ns().0[0], 0.0);
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([grouped(7.0, 0), grouped(1_000.04, 1), grouped(1_234_567.0, 0)], ["7", "1,000.0", "1,234,567"]);
    }
}
