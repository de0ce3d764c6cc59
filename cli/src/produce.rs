//! `ringmail produce`: lines to records, and an account of every one.
//!
//! A thread reads, the main thread cuts lines and sends them, the producer's listener counts what became of them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use ringmail::{
    DeliveryError, DeliveryListener, Header, Producer, Record, RecordMetadata, SendError, Topic, WaitedFor,
};

use crate::args::ProduceArgs;
use crate::connect::{build, patience};
use crate::exit::{Exit, Failure};
use crate::failures::Failures;
use crate::herald::{Herald, Ledger};
use crate::input::Input;
use crate::lines::{Line, Splitter, split_key};
use crate::log::{names_records, print, say};
use crate::progress::{Progress, Shown, Unit};
use crate::replay::Failed;
use crate::settings::Settings;
use crate::topics::Topics;

/// Runs the command.
pub fn run(args: &ProduceArgs) -> Result<Exit, Failure> {
    if args.list_settings {
        list_settings();
        return Ok(Exit::Success);
    }
    // Not `requires` of the command line's: it does not count where `replay` is in conflict with another option.
    if args.replay_possibly_written && args.replay.is_none() {
        return Err(Failure::new(Exit::Usage, "--replay-possibly-written goes with --replay FILE"));
    }
    let mut settings = settings(args)?;
    if settings.value("bootstrap.servers").unwrap_or_default().is_empty() {
        return Err(Failure::new(Exit::Usage, "no broker given: use -b HOST:PORT"));
    }
    let patience = patience(&mut settings);
    let limit = settings.value("max.request.size").and_then(|size| size.parse().ok()).unwrap_or(1_048_576);
    let account = Arc::new(Account::default());
    let producer = build(&settings, Listener(account.clone()))?;
    let input = args.replay.as_deref().or(args.file.as_deref());
    let input = Input::open(input).map_err(|e| Failure::new(Exit::Input, e))?;
    let mut topics = Topics::new(producer.clone(), settings, patience);
    handle_signals(&account)?;
    let topic = match &args.replay {
        None => Some(topics.open(&args.topic, args.partition)?),
        Some(_) => None,
    };

    account.enter(Phase::Sending);
    names_records();
    let herald = Herald::start(account.ledger.clone());
    let progress = match args.quiet || input.is_terminal {
        true => Progress::hidden(),
        false => Progress::start(Unit::Bytes, input.size, account.clone()),
    };
    let started = Instant::now();
    let read = match topic {
        Some(topic) => send_all(args, &topic, input, limit, &account),
        None => replay_all(args, &mut topics, input, limit, &account),
    };
    account.advance(Phase::Flushing);
    flush(&producer);
    drop((progress, herald));
    report(args, &account, started.elapsed());
    let _ = producer.close(Duration::from_secs(5));
    match read {
        _ if account.lost() > 0 => Ok(Exit::RecordsFailed),
        Err(failure) => Err(failure),
        Ok(()) if account.skipped.load(Ordering::Relaxed) > 0 => Ok(Exit::RecordsFailed),
        Ok(()) if account.interrupted() => Ok(Exit::Interrupted),
        Ok(()) => Ok(Exit::Success),
    }
}

/// -F, then -X, then -b: the later one counts.
fn settings(args: &ProduceArgs) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    if let Some(path) = &args.config {
        settings.add_file(path)?;
    }
    settings.add_options(&args.settings)?;
    if let Some(brokers) = &args.brokers {
        settings.set("bootstrap.servers", brokers);
    }
    Ok(settings)
}

/// Sends every record of a file of failed records.
fn replay_all(
    args: &ProduceArgs,
    topics: &mut Topics,
    input: Input,
    limit: usize,
    account: &Account,
) -> Result<(), Failure> {
    let mut ended = Ok(());
    let mut number = 0;
    let mut send_line = |line: Line<'_>| {
        if account.interrupted() {
            return false;
        }
        number += 1;
        let failed = match line {
            // After a line that was cut off, say by a full disk.
            Line::Whole([]) => return true,
            Line::Whole(bytes) => Failed::parse(bytes),
            Line::TooLong(bytes) => {
                Err(format!("its {bytes} bytes are more than max.request.size ({limit}) could take"))
            }
        };
        let goes_on = match failed {
            Err(why) => {
                account.note(number, "not a failed record", || format!("not a line of failed records: {why}"));
                true
            }
            Ok(failed) if failed.possibly_written && !args.replay_possibly_written => {
                account.skipped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Ok(failed) => match topics.of(&failed.topic, failed.partition) {
                Ok(Ok(topic)) => match failed.with(|record| send(&topic, record, number, account)) {
                    Sent::GoOn => true,
                    Sent::Stop => false,
                    Sent::NoPartition => {
                        topics.lost_partition(&failed.topic);
                        true
                    }
                },
                Ok(Err(why)) => {
                    account.note(number, &failed.topic, || why);
                    true
                }
                Err(failure) => {
                    ended = Err(failure);
                    false
                }
            },
        };
        account.lines.fetch_add(u64::from(goes_on), Ordering::Relaxed);
        goes_on
    };
    // A byte of a record takes six at most.
    let longest = limit.saturating_mul(6).saturating_add(64 << 10);
    let read = cut(input, Splitter::new(b"\n", longest), account, &mut send_line);
    ended.and(read)
}

/// Sends every line of the input. An error is the input's; what was read before it has been sent.
fn send_all(args: &ProduceArgs, topic: &Topic, input: Input, limit: usize, account: &Account) -> Result<(), Failure> {
    let headers: Vec<Header<'_>> = args.headers.iter().map(|text| header(text)).collect();
    let mut template = Record::new().with_headers(&headers);
    if let Some(partition) = args.partition {
        template = template.with_partition(partition);
    }
    let mut number = 0;
    let mut send_line = |line: Line<'_>| {
        if account.interrupted() {
            return false;
        }
        number += 1;
        let goes_on = match line {
            Line::Whole(bytes) => match send(topic, record(args, template, bytes), number, account) {
                Sent::GoOn => true,
                Sent::Stop => false,
                // With -p, and so would each further line.
                Sent::NoPartition => {
                    say(&format!(
                        "ringmail: no further line is read: line {number} has no partition to go to any more"
                    ));
                    false
                }
            },
            Line::TooLong(bytes) => {
                let text = || format!("the line alone has {bytes} bytes, more than max.request.size ({limit}) allows");
                account.note(number, "too long", text);
                true
            }
        };
        account.lines.fetch_add(u64::from(goes_on), Ordering::Relaxed);
        goes_on
    };
    cut(input, Splitter::new(&args.delimiter.0, limit), account, &mut send_line)
}

/// Cuts the input into lines until it ends, Ctrl-C comes, or a line says that it is no use to go on.
fn cut(
    input: Input,
    mut splitter: Splitter,
    account: &Account,
    send_line: &mut dyn FnMut(Line<'_>) -> bool,
) -> Result<(), Failure> {
    let chunks = input.chunks();
    loop {
        if account.interrupted() {
            return Ok(());
        }
        match chunks.recv_timeout(Duration::from_millis(100)) {
            Ok(chunk) => {
                let chunk = chunk.map_err(|text| Failure { exit: Exit::Input, text })?;
                if !splitter.push(&chunk, send_line) {
                    return Ok(());
                }
                account.read.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                splitter.finish(send_line);
                return Ok(());
            }
        }
    }
}

/// `key=value`; without `=` the value is null, as kcat has it.
fn header(text: &str) -> Header<'_> {
    match text.split_once('=') {
        Some((key, value)) => Header { key, value: Some(value.as_bytes()) },
        None => Header { key: text, value: None },
    }
}

fn record<'a>(args: &'a ProduceArgs, template: Record<'a>, line: &'a [u8]) -> Record<'a> {
    let (key, value) = match (&args.key, &args.key_separator) {
        (Some(key), _) => (Some(key.as_bytes()), line),
        (None, Some(separator)) => split_key(line, &separator.0),
        (None, None) => (None, line),
    };
    let mut record = template;
    if let Some(key) = key.filter(|key| !(args.null && key.is_empty())) {
        record = record.with_key(key);
    }
    if !(args.null && value.is_empty()) {
        record = record.with_value(value);
    }
    record
}

/// How it goes on after a record.
enum Sent {
    /// It was taken, or refused for its own sake.
    GoOn,
    /// It is no use to go on.
    Stop,
    /// Its topic has no such partition any more.
    NoPartition,
}

/// Sends one record, however long it takes until there is room: what is ahead of it is delivered or expires.
fn send(topic: &Topic, record: Record<'_>, line: u64, account: &Account) -> Sent {
    // Counted first, for its answer may be here before this thread goes on.
    account.accepted.fetch_add(1, Ordering::Relaxed);
    loop {
        let error = match topic.send_tagged(record, line) {
            Ok(()) => return Sent::GoOn,
            Err(error) => error,
        };
        let wait = matches!(
            error,
            SendError::BufferFull
                | SendError::NotReady { .. }
                | SendError::Timeout { waited_for: WaitedFor::Memory, .. }
        ) || matches!(error, SendError::Timeout { waited_for: WaitedFor::Metadata { .. }, .. });
        if wait && !account.interrupted() {
            continue;
        }
        account.accepted.fetch_sub(1, Ordering::Relaxed);
        if wait {
            return Sent::Stop;
        }
        account.note(line, &format!("{:?}", std::mem::discriminant(&error)), || error.to_string());
        return match error {
            SendError::Closed | SendError::SenderPanicked | SendError::Forked => Sent::Stop,
            SendError::InvalidPartition { .. } => Sent::NoPartition,
            _ => Sent::GoOn,
        };
    }
}

/// Waits until every record has its answer. The wait ends: delivery.timeout.ms bounds it.
fn flush(producer: &Producer) {
    while let Err(SendError::Timeout { .. }) = producer.flush() {}
}

fn report(args: &ProduceArgs, account: &Account, took: Duration) {
    let failures = account.failures();
    let failed = failures.report();
    if !failed.is_empty() {
        say(failed.trim_end());
    }
    if account.interrupted() {
        say(&format!("interrupted after line {}; later ones were not sent", account.lines.load(Ordering::Relaxed)));
    }
    let unanswered = account.unanswered();
    if unanswered > 0 {
        say(&format!("{unanswered} records are possibly written: they never got an answer"));
    }
    let skipped = account.skipped.load(Ordering::Relaxed);
    if skipped > 0 {
        say(&format!(
            "{skipped} records were left out: they are possibly written already; --replay-possibly-written sends them, too"
        ));
    }
    let delivered = account.delivered.load(Ordering::Relaxed);
    let lost = failures.count() + unanswered;
    if lost + skipped > 0 || (!args.quiet && std::io::IsTerminal::is_terminal(&std::io::stderr())) {
        let seconds = took.as_secs_f64().max(0.001);
        let rate = delivered as f64 / seconds;
        say(&format!("{delivered} records delivered, {lost} not, in {seconds:.1} s ({rate:.0} records/s)"));
    }
}

fn list_settings() {
    for key in ringmail::ProducerConfig::keys() {
        let default = key.default().map_or_else(|| "none".to_string(), |value| value.to_string());
        print(&format!("{} ({}; default {default})\n    {}\n", key.name(), key.values(), key.about()));
    }
}

/// What happens at the moment, for whoever handles a signal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Phase {
    /// Nothing was sent yet.
    WarmingUp,
    Sending,
    /// Ctrl-C came: no more input is read.
    Interrupted,
    Flushing,
}

/// The first Ctrl-C ends the input; the next one, or one that comes when there is no input to end, ends the process.
fn handle_signals(account: &Arc<Account>) -> Result<(), Failure> {
    let account = account.clone();
    let handler = move || {
        let sending = account.phase.compare_exchange(
            Phase::Sending as u8,
            Phase::Interrupted as u8,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        account.signals.fetch_add(1, Ordering::Relaxed);
        match sending {
            Ok(_) => say("ringmail: interrupted; waiting for the answers to what was sent (again: do not wait)"),
            Err(phase) => {
                let unanswered = account.unanswered();
                if phase != Phase::WarmingUp as u8 && unanswered > 0 {
                    say(&format!("ringmail: interrupted; {unanswered} records are possibly written"));
                }
                std::process::exit(Exit::Interrupted as i32);
            }
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Failure::new(Exit::Usage, format!("cannot handle signals: {e}")))
}

/// What became of the records so far.
#[derive(Default)]
struct Account {
    phase: AtomicU8,
    signals: AtomicU64,
    /// Bytes of input read and handed over.
    read: AtomicU64,
    /// Lines that were accepted, or refused for good.
    lines: AtomicU64,
    /// Records that the producer took.
    accepted: AtomicU64,
    delivered: AtomicU64,
    /// Accepted records that failed later.
    failed: AtomicU64,
    /// Possibly written records that were not sent again.
    skipped: AtomicU64,
    ledger: Arc<Ledger>,
}

impl Account {
    fn note(&self, line: u64, kind: &str, text: impl FnOnce() -> String) {
        self.ledger.note(line, kind, text);
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.ledger.failures()
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// As `enter`, but never back.
    fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    fn interrupted(&self) -> bool {
        self.signals.load(Ordering::Relaxed) > 0
    }

    /// Accepted records that nobody has said anything of.
    fn unanswered(&self) -> u64 {
        let answered = self.delivered.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed);
        self.accepted.load(Ordering::Relaxed).saturating_sub(answered)
    }

    /// Records that are not known to be delivered.
    fn lost(&self) -> u64 {
        self.failures().count() + self.unanswered()
    }
}

impl Shown for Account {
    fn position(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn words(&self) -> String {
        let (accepted, delivered) = (self.accepted.load(Ordering::Relaxed), self.delivered.load(Ordering::Relaxed));
        let failed = match self.failures().count() {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        format!("{delivered} of {accepted} records delivered{failed}")
    }
}

struct Listener(Arc<Account>);

impl DeliveryListener for Listener {
    fn on_delivery(&mut self, line: u64, result: Result<&RecordMetadata, &DeliveryError>) {
        match result {
            Ok(_) => {
                self.0.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let kind = format!("{:?} {:?}", error.kind(), error.written());
                self.0.note(line, &kind, || error.to_string());
                self.0.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
