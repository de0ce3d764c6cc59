//! Brokers that do everything wrong, over both drivers: nothing hangs or panics, and the error names broker and fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cases::{API_VERSIONS, Case, End, INIT_PRODUCER_ID, METADATA, PRODUCE, SETTINGS, TOPIC};
use ringmail::testing::hostile::{Asked, Deed, Occasion, with_each_count};
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

/// The answer cut after each byte, its size put right (and the connection goes on) or not (and it ends); then with each
/// of its counts at 2^31 - 1; then, at last, as it should be.
fn damaged(asked: &Asked) -> Deed {
    let answer = &asked.answer;
    let mut nth = asked.nth as usize;
    // A frame has at least its size.
    let cuts = 4..answer.len();
    if nth < cuts.len() {
        return Deed::Send(cases::sized(answer[..cuts.start + nth].to_vec()));
    }
    nth -= cuts.len();
    if nth < answer.len() {
        return Deed::SendAndClose(answer[..nth].to_vec());
    }
    nth -= answer.len();
    let counts = with_each_count(asked.api, asked.version, answer);
    Deed::Send(counts.get(nth).unwrap_or(answer).clone())
}

/// Every answer is damaged in every way, one after the other; when the broker is well again, everything is delivered,
/// once and in order.
fn every_damage_passes(driver: DriverChoice) {
    let well = Arc::new(Mutex::new(HashSet::new()));
    let seen = well.clone();
    let mut case = Case {
        name: "every damage",
        end: End::Delivered,
        hook: Box::new(move |occasion| match occasion {
            Occasion::Accepted => Deed::Send(Vec::new()),
            Occasion::Asked(asked) => {
                let deed = damaged(&asked);
                if deed == Deed::Send(asked.answer) {
                    seen.lock().unwrap().insert(asked.api);
                }
                deed
            }
        }),
    };
    let broker = cases::start(&mut case);
    let mut builder = Producer::builder().bootstrap_servers(&broker.address().to_string()).driver(driver);
    for key in ["retry.backoff.ms", "retry.backoff.max.ms", "reconnect.backoff.ms", "reconnect.backoff.max.ms"] {
        builder = builder.set(key, "1");
    }
    let producer = builder.build().unwrap();
    let topic = producer.topic(TOPIC).unwrap();
    let values: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    let sent: Vec<Delivery> = values.iter().map(|value| topic.send(Record::value(value)).unwrap()).collect();
    for (offset, delivery) in sent.into_iter().enumerate() {
        let delivered = delivery.wait().unwrap();
        assert!(delivered.offset().is_none_or(|at| at == offset as i64), "{offset}: {delivered}");
    }
    let log = broker.with_model(|model| model.records(TOPIC, 0));
    let stored: Vec<String> = log.into_iter().map(|r| String::from_utf8(r.value.unwrap()).unwrap()).collect();
    assert_eq!(stored, values);
    assert_eq!(*well.lock().unwrap(), HashSet::from([PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID]));
}

#[test]
fn every_damage_passes_over_io_uring() {
    every_damage_passes(DriverChoice::IoUring);
}

#[test]
fn every_damage_passes_over_epoll() {
    every_damage_passes(DriverChoice::Epoll);
}

/// `acks=0` gets no answers. A broker that answers all the same loses the connection, every record still ends, and the
/// next ones go out on another connection.
fn an_answer_to_acks_0(driver: DriverChoice) {
    let mut case = Case {
        name: "answers acks=0",
        end: End::Delivered,
        hook: Box::new(|occasion| match occasion {
            Occasion::Asked(asked) if asked.api == PRODUCE => Deed::Send(vec![0, 0, 0, 6, 0, 0, 0, 1, 0, 0]),
            Occasion::Asked(asked) => Deed::Send(asked.answer),
            Occasion::Accepted => Deed::Send(Vec::new()),
        }),
    };
    let broker = cases::start(&mut case);
    let servers = broker.address().to_string();
    let builder = Producer::builder().bootstrap_servers(&servers).driver(driver).set("linger.ms", "0");
    let producer = builder.set("acks", "0").set("enable.idempotence", "false").build().unwrap();
    let topic = producer.topic(TOPIC).unwrap();
    let started = Instant::now();
    // The first connection is for metadata.
    while broker.accepted() < 4 {
        assert!(started.elapsed() < PATIENCE, "no new connection");
        if let Err(error) = topic.send(Record::value("x")).unwrap().wait() {
            check_message(&error.to_string(), &servers, &["not asked"]).unwrap();
        }
    }
    assert!(producer.close(Duration::from_secs(5)).unwrap().is_clean());
    assert!(broker.accepted() <= cases::connections_max(started.elapsed()));
}

#[test]
fn an_answer_to_acks_0_over_io_uring() {
    an_answer_to_acks_0(DriverChoice::IoUring);
}

#[test]
fn an_answer_to_acks_0_over_epoll() {
    an_answer_to_acks_0(DriverChoice::Epoll);
}

/// A broker whose every answer is good and followed by rubbish: records get through, at the pace of the backoff.
fn broken_after_each_good_answer(driver: DriverChoice) {
    let mut case = cases::cases().into_iter().find(|case| case.name == "every Produce answer twice").unwrap();
    let broker = cases::start(&mut case);
    let builder = Producer::builder().bootstrap_servers(&broker.address().to_string()).driver(driver);
    let backoff = Duration::from_millis(200);
    let millis = backoff.as_millis().to_string();
    let builder = builder.set("reconnect.backoff.ms", &millis).set("reconnect.backoff.max.ms", &millis);
    let producer = builder.build().unwrap();
    let topic = producer.topic(TOPIC).unwrap();
    let started = Instant::now();
    // One connection for metadata, and four for batches: three of them after a backoff, which may be a fifth shorter.
    while broker.accepted() < 5 {
        topic.send(Record::value("x")).unwrap().wait().unwrap();
    }
    assert!(started.elapsed() >= 3 * backoff * 4 / 5, "{:?}", started.elapsed());
}

#[test]
fn broken_after_each_good_answer_over_io_uring() {
    broken_after_each_good_answer(DriverChoice::IoUring);
}

#[test]
fn broken_after_each_good_answer_over_epoll() {
    broken_after_each_good_answer(DriverChoice::Epoll);
}

/// No broker at all: the message names each server's host and port, and why it is of no use.
#[test]
fn servers_without_address_or_listener_are_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    for (servers, words) in [(&*closed, "refused"), ("no-such-host.invalid:9092", "address")] {
        let producer = producer(servers, DriverChoice::Auto);
        let error = producer.warm_up(&[TOPIC]).unwrap_err();
        check_message(&error.to_string(), servers, &[words]).unwrap();
    }
}
