//! `ringmail demo`: a broker in this process, a million records, and a check of every one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringmail::testing::{Broker, BrokerOptions, TopicOptions};
use ringmail::{DeliveryError, DeliveryListener, Producer, RecordMetadata, SendError, Stats, Topic};

use crate::args::DemoArgs;
use crate::exit::{Exit, Failure};
use crate::failures::Failures;
use crate::log::{print, say};
use crate::progress::{Progress, Shown, Unit};
use crate::reader::Reader;
use crate::settings::Settings;
use crate::verify::{Findings, Verifier};
use crate::workload::{Buffers, Workload};

const TOPIC: &str = "demo";
/// One record in so many has its time taken: the clock costs a sizeable part of a record.
const SAMPLE: u64 = 16;

/// Runs the command.
pub fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let threads = args.threads.map_or_else(default_threads, usize::from).min(args.records as usize);
    let topic = TopicOptions { partitions: i32::from(args.partitions), ..TopicOptions::default() };
    let options = BrokerOptions { topic, ..BrokerOptions::default() };
    let broker = Broker::start(options)
        .map_err(|e| Failure::new(Exit::NotReady, format!("the embedded broker does not start: {e}")))?;
    let workloads: Vec<Workload> = (0..threads).map(|t| Workload::new(t as u16, args.size as usize)).collect();
    let account = Arc::new(Account::new(args.records, threads));
    let producer = build(args, &broker, Listener(account.clone()))?;
    producer.warm_up(&[TOPIC]).map_err(|e| Failure::new(Exit::NotReady, e))?;
    print(&format!(
        "{} records of {} bytes, {threads} threads, {} partitions; embedded broker at {}, driver {}",
        count(args.records),
        args.size,
        args.partitions,
        broker.bootstrap(),
        producer.driver_name()
    ));

    let progress = Progress::start(Unit::Records, Some(args.records), account.clone());
    let took = send_all(&producer, &workloads, &account)?;
    drop(progress);
    let _ = producer.close(Duration::from_secs(10));
    let bytes = args.records * u64::from(args.size);
    print(&format!(
        "delivered in {:.2} s: {} records/s, {:.1} MB/s",
        took.as_secs_f64(),
        count((args.records as f64 / took.as_secs_f64()) as u64),
        bytes as f64 / took.as_secs_f64() / 1e6
    ));
    print(&account.latencies());
    let findings = read_back(args, &broker, &workloads, &account)?;
    Ok(conclude(&findings, &account, &producer.stats()))
}

/// One core is left to the sender and the broker.
fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (cores - 1).clamp(2, 8)
}

fn build(args: &DemoArgs, broker: &Broker, listener: Listener) -> Result<Producer, Failure> {
    let mut settings = Settings::default();
    settings.set("driver", &args.driver);
    settings.add_options(&args.settings)?;
    settings.set("bootstrap.servers", &broker.bootstrap());
    let mut builder = Producer::builder().listener(listener);
    for (key, value) in settings.iter() {
        builder = builder.set(key, value);
    }
    builder.build().map_err(|e| Failure::new(Exit::Usage, e))
}

/// Sends from all threads at once and waits for every answer. Returns how long that took.
fn send_all(producer: &Producer, workloads: &[Workload], account: &Arc<Account>) -> Result<Duration, Failure> {
    let topic = producer.topic(TOPIC).map_err(|e| Failure::new(Exit::NotReady, e))?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..workloads.len() {
            let topic = topic.clone();
            scope.spawn(move || send_thread(&topic, workloads, thread, account));
        }
    });
    while let Err(error) = producer.flush() {
        if !matches!(error, SendError::Timeout { .. }) {
            return Err(Failure::new(Exit::RecordsFailed, error));
        }
    }
    Ok(started.elapsed())
}

fn send_thread(topic: &Topic, workloads: &[Workload], thread: usize, account: &Account) {
    let mut buffers = Buffers::default();
    let own = &account.threads[thread];
    for number in 0..own.outcomes.len() as u64 {
        let tag = (thread as u64) << 48 | number;
        if number.is_multiple_of(SAMPLE) {
            own.sent[(number / SAMPLE) as usize].store(account.nanos(), Ordering::Relaxed);
        }
        let sent = workloads[thread].with(number, &mut buffers, |record| topic.send_tagged(record, tag));
        if let Err(error) = sent {
            account.fail(number, &error);
        }
    }
}

fn read_back(args: &DemoArgs, broker: &Broker, workloads: &[Workload], account: &Account) -> Result<Findings, Failure> {
    let started = Instant::now();
    let reported = account.reported();
    let partitions = i32::from(args.partitions);
    let mut verifier = Verifier::new(workloads, &reported, partitions);
    let failed = |text: String| Failure { exit: Exit::RecordsFailed, text };
    let mut reader = Reader::connect(&broker.bootstrap()).map_err(|e| failed(format!("cannot read back: {e}")))?;
    for partition in 0..partitions {
        reader.read(TOPIC, partition, &mut |record| verifier.check(partition, &record)).map_err(failed)?;
    }
    let findings = verifier.finish();
    print(&format!(
        "read back in {:.2} s: {} records; {} lost, {} twice, {} changed, {} never sent, {} out of order, {} on a \
         wrong partition, {} not at the reported offset",
        started.elapsed().as_secs_f64(),
        count(findings.found),
        findings.lost,
        findings.twice,
        findings.changed,
        findings.unknown,
        findings.out_of_order,
        findings.wrong_partition,
        findings.wrong_offset
    ));
    Ok(findings)
}

/// `stats`: of the closed producer, whose own count must agree with what came back.
fn conclude(findings: &Findings, account: &Account, stats: &Stats) -> Exit {
    let failures = account.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let unanswered = account.unanswered();
    if failures.count() > 0 {
        say(failures.report().trim_end());
    }
    if unanswered > 0 {
        say(&format!("{unanswered} records never got an answer"));
    }
    let agrees = stats.adds_up() && stats.outstanding() == 0 && stats.delivered == findings.found;
    if !agrees {
        say(&format!("the producer counts otherwise: {stats:?}"));
    }
    if findings.is_clean() && failures.count() == 0 && unanswered == 0 && agrees {
        print("verified: every record is there once, unchanged and in order");
        Exit::Success
    } else {
        say("NOT verified");
        Exit::RecordsFailed
    }
}

/// A number with its thousands apart.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What became of the records, by thread and number.
struct Account {
    started: Instant,
    threads: Vec<Thread>,
    answered: AtomicU64,
    histogram: Mutex<Histogram<u64>>,
    failures: Mutex<Failures>,
}

struct Thread {
    /// When every `SAMPLE`-th record was handed over, in nanoseconds since the start.
    sent: Vec<AtomicU64>,
    /// 0: no answer yet; `FAILED`; else partition and offset as `at` packs them.
    outcomes: Vec<AtomicU64>,
}

const FAILED: u64 = u64::MAX;

/// Partition and offset in one word that is never 0 nor `FAILED`.
fn at(partition: i32, offset: i64) -> u64 {
    (partition as u64) << 48 | (offset as u64 + 1)
}

impl Account {
    fn new(records: u64, threads: usize) -> Self {
        let zeros = |n: u64| (0..n).map(|_| AtomicU64::new(0)).collect();
        let thread = |t: u64| {
            let own = records / threads as u64 + u64::from(t < records % threads as u64);
            Thread { sent: zeros(own.div_ceil(SAMPLE)), outcomes: zeros(own) }
        };
        Self {
            started: Instant::now(),
            threads: (0..threads as u64).map(thread).collect(),
            answered: AtomicU64::new(0),
            histogram: Mutex::new(
                Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap_or_else(|_| unreachable!()),
            ),
            failures: Mutex::default(),
        }
    }

    fn nanos(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn fail(&self, number: u64, error: &SendError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.note(number + 1, &format!("{:?}", std::mem::discriminant(error)), || error.to_string());
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn unanswered(&self) -> u64 {
        let sent: usize = self.threads.iter().map(|t| t.outcomes.len()).sum();
        (sent as u64).saturating_sub(self.answered.load(Ordering::Relaxed))
    }

    fn reported(&self) -> Vec<Vec<Option<(i32, i64)>>> {
        let place = |outcome: &AtomicU64| match outcome.load(Ordering::Relaxed) {
            0 | FAILED => None,
            word => Some(((word >> 48) as i32, (word & 0xffff_ffff_ffff) as i64 - 1)),
        };
        self.threads.iter().map(|t| t.outcomes.iter().map(place).collect()).collect()
    }

    fn latencies(&self) -> String {
        let histogram = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        let quantile = |q: f64| format!("{}% {}", q * 100.0, nanos_shown(histogram.value_at_quantile(q)));
        let quantiles: Vec<String> = [0.5, 0.9, 0.99, 0.999].map(quantile).into();
        let longest = nanos_shown(histogram.max());
        format!("from send to answer, as fast as it goes: {}, longest {longest}", quantiles.join(", "))
    }
}

fn nanos_shown(nanos: u64) -> String {
    match nanos {
        0..1_000_000 => format!("{} µs", nanos / 1000),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

impl Shown for Account {
    fn position(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn words(&self) -> String {
        "delivered".to_string()
    }
}

struct Listener(Arc<Account>);

impl DeliveryListener for Listener {
    fn on_delivery(&mut self, tag: u64, result: Result<&RecordMetadata, &DeliveryError>) {
        let account = &*self.0;
        let (thread, number) = ((tag >> 48) as usize, tag & 0xffff_ffff_ffff);
        let outcome = match result {
            Ok(metadata) => metadata.offset().map_or(FAILED, |offset| at(metadata.partition(), offset)),
            Err(error) => {
                let mut failures = account.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.note(number + 1, &format!("{:?}", error.kind()), || error.to_string());
                FAILED
            }
        };
        let own = &account.threads[thread];
        own.outcomes[number as usize].store(outcome, Ordering::Relaxed);
        if number.is_multiple_of(SAMPLE) {
            let sent = own.sent[(number / SAMPLE) as usize].load(Ordering::Relaxed);
            let mut histogram = account.histogram.lock().unwrap_or_else(PoisonError::into_inner);
            histogram.saturating_record(account.nanos().saturating_sub(sent));
        }
        account.answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([count(7), count(1_000), count(1_234_567)], ["7", "1,000", "1,234,567"]);
    }

    #[test]
    fn places_are_packed_and_unpacked() {
        let account = Account::new(3, 2);
        let outcomes = &account.threads[0].outcomes;
        outcomes[0].store(at(999, 0), Ordering::Relaxed);
        outcomes[1].store(FAILED, Ordering::Relaxed);
        assert_eq!(account.reported(), [vec![Some((999, 0)), None], vec![None]]);
    }
}
