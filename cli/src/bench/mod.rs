//! `ringmail bench`: how many records per second, or how long they take at a fixed rate, and what that costs.
//!
//! - `load`: the records, made beforehand. `pace`: when each is due. `sending`: the threads that send them.
//! - `account`: what the listener hears. `usage`: processor time, memory, allocations. `report`: the result.
//! - `broker`: the embedded broker, in a process of its own.
//!
//! What is measured is the client: a broker on the same machine takes its share of the processors, not of `cpu_s`.

mod account;
mod broker;
mod load;
mod pace;
mod report;
mod sending;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmail::{DeliveryError, Producer, RecordMetadata};

use crate::args::{BenchArgs, Handle};
use crate::connect::{self, patience};
use crate::exit::{Exit, Failure};
use crate::log::{print, say};
use crate::progress::{Progress, Unit};
use crate::settings::Settings;
use account::{Account, Totals};
use broker::BrokerProcess;
use load::Load;
use report::{Figures, grouped};
use sending::Sending;

pub use broker::run as run_broker;

/// Bytes that a record takes in memory beside its key and value, about.
const OVERHEAD: u64 = 30;

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<Exit, Failure> {
    let mut settings = settings(args)?;
    let broker = embedded_broker(args, &mut settings)?;
    let memory = settings.value("buffer.memory").and_then(|bytes| bytes.parse().ok()).unwrap_or(32 << 20);
    let patience = patience(&mut settings);
    let account = Account::new();
    let ready = handle_signals(account)?;
    let producer = producer(args, &settings, account)?;
    let topic = producer.topic(&args.topic).map_err(|e| Failure::new(Exit::NotReady, e))?;
    connect::warm_up(&producer, &args.topic, &settings, patience)?;
    ready.store(true, Ordering::Relaxed);

    let mut load = Load::new(args.size as usize, args.key_size.map(|size| size as usize));
    if broker.is_none() {
        load.partitions = args.partitions.map(|count| some_partitions(&producer, args, count)).transpose()?;
    }
    let threads = u64::from(args.threads).min(args.records) as u16;
    let sending = Sending {
        producer: &producer,
        topic: &topic,
        load: &load,
        account,
        handle: args.handle,
        threads,
        rate: args.rate,
    };
    let warm_up = args.warm_up.unwrap_or_else(|| default_warm_up(args, memory, load.record_bytes()));
    sending.touch().map_err(|e| Failure::new(Exit::NotReady, e))?;
    if warm_up > 0 && !account.stopped() && account.failures().count() == 0 {
        sending.run(warm_up);
    }
    if account.interrupted() {
        say("ringmail: interrupted in the warm-up: nothing was measured");
        let _ = producer.close(Duration::ZERO);
        return Ok(Exit::Interrupted);
    }
    account.begin();
    let figures = measure(args, &sending, warm_up);
    if !args.json {
        print(&heading(args, threads, figures.driver));
    }
    print(if args.json { figures.json() } else { figures.table() }.trim_end());
    let _ = producer.close(if account.interrupted() { Duration::ZERO } else { Duration::from_secs(5) });
    Ok(match figures.errors {
        _ if account.interrupted() => Exit::Interrupted,
        0 => Exit::Success,
        _ => Exit::RecordsFailed,
    })
}

/// The run that counts. When the warm-up failed, that is the result.
fn measure(args: &BenchArgs, sending: &Sending<'_>, warm_up: u64) -> Figures {
    let account = sending.account;
    let warm_up_failed = account.failures().count() > 0;
    let records = if warm_up_failed { 0 } else { args.records };
    let timer_ns = usage::timer_ns();
    let progress = match args.json || args.quiet {
        true => Progress::hidden(),
        false => Progress::start(Unit::Records, Some(records), Arc::new(account)),
    };
    let run = sending.run(records);
    drop(progress);
    let totals = account.totals();
    let figures = Figures {
        records: totals.delivered,
        errors: totals.errors,
        record_bytes: sending.load.record_bytes(),
        used: run.used,
        max_rss_kib: usage::max_rss_kib(),
        send: run.send,
        ack: account.acks().clone(),
        late: args.rate.is_some().then_some(run.late),
        timer_ns,
        warm_up,
        driver: sending.producer.driver_name(),
    };
    explain(account, &totals, warm_up_failed);
    if args.json && !args.quiet {
        say(&format!("ringmail: {}", figures.beside_json()));
    }
    figures
}

/// -F, then -X, then -b and --driver: the later one counts.
fn settings(args: &BenchArgs) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    if let Some(path) = &args.config {
        settings.add_file(path)?;
    }
    settings.add_options(&args.settings)?;
    if let Some(brokers) = &args.brokers {
        settings.set("bootstrap.servers", brokers);
    }
    if let Some(driver) = &args.driver {
        settings.set("driver", driver);
    }
    Ok(settings)
}

/// Started when no broker was named, and then set as the one to use.
fn embedded_broker(args: &BenchArgs, settings: &mut Settings) -> Result<Option<BrokerProcess>, Failure> {
    if settings.value("bootstrap.servers").is_some() {
        return Ok(None);
    }
    let broker = BrokerProcess::start(args.partitions.unwrap_or(1))
        .map_err(|e| Failure::new(Exit::NotReady, format!("the embedded broker does not start: {e}")))?;
    settings.set("bootstrap.servers", &broker.bootstrap);
    if !args.quiet {
        let (at, id) = (&broker.bootstrap, broker.id());
        say(&format!("ringmail: no -b given: using an embedded broker at {at}, in a process of its own ({id})"));
    }
    Ok(Some(broker))
}

/// The listener is there only if it is to be told: without one, records carry no tags.
fn producer(args: &BenchArgs, settings: &Settings, account: &'static Account) -> Result<Producer, Failure> {
    let builder = connect::builder(settings);
    connect::start(match args.handle {
        Handle::Delivery | Handle::Callback => builder,
        Handle::Tag => builder.listener(|tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            account.hear(tag, result.map(drop));
        }),
    })
}

/// The first `count` partitions, if there are so many.
fn some_partitions(producer: &Producer, args: &BenchArgs, count: u16) -> Result<u32, Failure> {
    let known = producer.partitions_for(&args.topic).map_err(|e| Failure::new(Exit::NotReady, e))?.len();
    match usize::from(count) <= known {
        true => Ok(u32::from(count)),
        false => {
            let text = format!("--partitions {count}: topic '{}' has only {known}", args.topic);
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

/// Enough that every part of the buffer was used, or those of a second.
fn default_warm_up(args: &BenchArgs, buffer_memory: u64, record_bytes: u64) -> u64 {
    let enough = match args.rate {
        Some(rate) => rate.ceil() as u64,
        None => 2 * buffer_memory / (record_bytes + OVERHEAD),
    };
    enough.clamp(1, args.records)
}

fn explain(account: &Account, totals: &Totals, warm_up_failed: bool) {
    let failures = account.failures().report();
    if !failures.is_empty() {
        say(failures.trim_end());
    }
    if warm_up_failed {
        say("that was the warm-up; nothing was measured");
    }
    if totals.unanswered > 0 {
        say(&format!("{} records are possibly written: they never got an answer", totals.unanswered));
    }
}

fn heading(args: &BenchArgs, threads: u16, driver: &str) -> String {
    let key = args.key_size.map(|size| format!(", keys of {size} bytes")).unwrap_or_default();
    let rate = match args.rate {
        Some(rate) => format!("{} per second", grouped(rate, usize::from(rate.fract() != 0.0))),
        None => "as fast as they are taken".to_string(),
    };
    let told = match args.handle {
        Handle::Tag => "a listener with tags",
        Handle::Delivery => "a Delivery each",
        Handle::Callback => "a callback each",
    };
    let plural = if threads == 1 { "" } else { "s" };
    format!("values of {} bytes{key}, {rate}; {threads} thread{plural}, {told}, driver {driver}", args.size)
}

/// The first Ctrl-C ends the run, the next one the process. So does one that comes before there is anything to end:
/// until the flag is set that is returned.
fn handle_signals(account: &'static Account) -> Result<Arc<AtomicBool>, Failure> {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = ready.clone();
    let handler = move || {
        if !is_ready.load(Ordering::Relaxed) || !account.interrupt() {
            std::process::exit(Exit::Interrupted as i32);
        }
        say("ringmail: interrupted; waiting for the answers to what was sent (again: do not wait)");
    };
    ctrlc::set_handler(handler).map_err(|e| Failure::new(Exit::Usage, format!("cannot handle signals: {e}")))?;
    Ok(ready)
}
