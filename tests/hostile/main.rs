//! Brokers that do everything wrong, over both drivers: nothing hangs or panics, and the error names broker and fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cases::{Case, End, SETTINGS, TOPIC};
use ringmail::{Delivery, DriverChoice, Producer, Record};

/// Much longer than any case takes, for machines that are busy otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
const RECORDS: usize = 20;

fn producer(servers: &str, driver: DriverChoice) -> Producer {
    let mut builder = Producer::builder().bootstrap_servers(servers).driver(driver);
    for (key, value) in SETTINGS {
        builder = builder.set(key, value);
    }
    builder.build().unwrap()
}

/// A message that a user can be shown: it names the broker and the fault, and is fit for a terminal and a log line.
fn check_message(message: &str, broker: &str, words: &[&str]) -> Result<(), String> {
    let missing = words.iter().chain([&broker]).find(|word| !message.contains(**word));
    if let Some(word) = missing {
        return Err(format!("'{word}' is not in: {message}"));
    }
    if message.len() > 2000 || message.contains(|c: char| c.is_control()) {
        return Err(format!("unfit to be shown: {:?}", message.chars().take(3000).collect::<String>()));
    }
    Ok(())
}

/// Runs one case to its end, and tells what was wrong with it.
fn run(mut case: Case, driver: DriverChoice) -> Result<(), String> {
    let broker = cases::start(&mut case);
    let address = broker.address().to_string();
    let started = Instant::now();
    let producer = producer(&address, driver);
    let topic = producer.topic(TOPIC).unwrap();
    let warm = producer.warm_up(&[TOPIC]);
    match (&case.end, warm) {
        (End::NotReady(words) | End::NotReadyYet(words), Err(error)) => {
            check_message(&error.to_string(), &address, words)?
        }
        (End::NotReady(_) | End::NotReadyYet(_), Ok(())) => return Err("it got ready".to_owned()),
        (_, Err(error)) => return Err(format!("it did not get ready: {error}")),
        (_, Ok(())) => {}
    }
    let values: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    let mut accepted: Vec<Delivery> = Vec::new();
    for value in values.iter().filter(|_| !matches!(case.end, End::NotReadyYet(_))) {
        match topic.send(Record::value(value)) {
            Ok(delivery) => accepted.push(delivery),
            Err(error) => {
                let End::NotReady(words) = case.end else { return Err(format!("refused: {error}")) };
                check_message(&error.to_string(), &address, words)?;
                // One is enough: each waits for max.block.ms.
                break;
            }
        }
    }
    for (number, delivery) in accepted.into_iter().enumerate() {
        match (case.end, delivery.wait()) {
            (End::Delivered, Ok(_)) => {}
            (End::Delivered, Err(error)) => return Err(format!("record {number} failed: {error}")),
            (_, Ok(metadata)) => return Err(format!("record {number} was delivered: {metadata}")),
            (End::NotReady(words) | End::NotReadyYet(words) | End::Failed(words), Err(error)) => {
                // A leader elsewhere is named in place of the broker.
                let broker = if words.iter().any(|word| word.contains(':')) { "" } else { &address };
                check_message(&error.to_string(), broker, words)?;
            }
        }
    }
    producer.flush().map_err(|error| error.to_string())?;
    let report = producer.close(Duration::from_secs(5)).map_err(|error| error.to_string())?;
    if !report.is_clean() {
        return Err(format!("after a flush: {report}"));
    }
    if matches!(case.end, End::Delivered) {
        let log = broker.with_model(|model| model.records(TOPIC, 0));
        let stored: Vec<String> = log.into_iter().map(|r| String::from_utf8(r.value.unwrap()).unwrap()).collect();
        if stored != values {
            return Err(format!("the log has {stored:?}"));
        }
    }
    let (connections, most) = (broker.accepted(), cases::connections_max(started.elapsed()));
    if connections > most {
        return Err(format!("{connections} connections in {:?}, backoffs allow {most}", started.elapsed()));
    }
    Ok(())
}

/// All cases at once: most of their time they wait. Not so both drivers, for the sake of small machines.
fn all_cases(driver: DriverChoice) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let only = std::env::var("CASE").unwrap_or_default();
    let (done, results) = channel();
    let mut running = Vec::new();
    for case in cases::cases().into_iter().filter(|case| case.name.contains(&only)) {
        let (name, done) = (case.name, done.clone());
        running.push(name);
        std::thread::Builder::new()
            .spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case, driver)));
                let result = result.unwrap_or_else(|_| Err("a panic".to_owned()));
                let _ = done.send((name, result));
            })
            .unwrap();
    }
    let mut findings = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !running.is_empty() {
        match results.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((name, result)) => {
                running.retain(|other| *other != name);
                findings.extend(result.err().map(|what| format!("{name}: {what}")));
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                findings.push(format!("these hang: {running:?}"));
                break;
            }
        }
    }
    assert!(findings.is_empty(), "{} findings:\n{}\n", findings.len(), findings.join("\n"));
}

#[test]
fn every_case_over_io_uring() {
    all_cases(DriverChoice::IoUring);
}

#[test]
fn every_case_over_epoll() {
    all_cases(DriverChoice::Epoll);
}
