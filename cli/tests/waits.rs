//! What is missing is waited for once, within max.block.ms, and never again for each line; and why it is missing is told
//! truly. (`topics.rs` has the table, `connect/tests.rs` every kind of server in every form.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, TopicOptions};

/// So many lines that a wait for each of them would take minutes.
const LINES: usize = 400;
/// Longer than any run takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs `ringmail ARGS…` with this input to its end; one that does not end in time is killed.
fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = start(args);
    let _ = child.stdin.take().unwrap().write_all(input);
    end(child)
}

fn end(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > LONG {
            let _ = child.kill();
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code().is_some(), "it did not end in {LONG:?}: {output:?}");
    output
}

fn broker() -> Broker {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    assert!(broker.create_topic("t", 1));
    broker
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines() -> Vec<u8> {
    (0..LINES).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

const SHORT: [&str; 2] = ["-X", "max.block.ms=1000"];

#[test]
fn a_partition_that_is_not_there_is_waited_for_once() {
    let broker = broker();
    let servers = broker.bootstrap();
    let output = run(&[&["produce", "-b", &servers, "-t", "t", "-p", "99"], &SHORT[..]].concat(), &lines());
    assert_eq!(
        (code(&output), &*stderr(&output)),
        (3, "ringmail: topic 't' has no partition 99: it has 1, counted from 0\n")
    );
    assert!(broker.log("t", 0).is_empty());
}

#[test]
fn a_partition_that_is_about_to_be_made_is_waited_for() {
    let broker = broker();
    let servers = broker.bootstrap();
    let mut child = start(&["produce", "-b", &servers, "-t", "t", "-p", "2"]);
    child.stdin.take().unwrap().write_all(b"one\n").unwrap();
    // Longer than it takes to ask for what is there now; if not, there is nothing to wait for.
    std::thread::sleep(Duration::from_millis(1000));
    assert!(broker.with_model(|model| model.grow_topic("t", 3)));
    let output = end(child);
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    assert_eq!(broker.log("t", 2).len(), 1);
}

#[test]
fn a_partition_that_is_lost_ends_the_run() {
    let broker = broker();
    assert!(broker.with_model(|model| model.grow_topic("t", 3)));
    let servers = broker.bootstrap();
    let args = ["produce", "-b", &servers, "-t", "t", "-p", "2"];
    // What was accepted before the partition was known to be gone has that long.
    let settings = ["metadata.max.age.ms=100", "delivery.timeout.ms=3000", "request.timeout.ms=1000"];
    let mut child = start(&[&args[..], &settings.map(|setting| ["-X", setting]).concat()].concat());
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    while broker.log("t", 2).is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    broker.with_model(|model| {
        model.delete_topic("t");
        model.create_topic("t", TopicOptions { partitions: 1, ..TopicOptions::default() });
    });
    // The input stays open: it ends because it is of no use to go on.
    std::thread::spawn(move || {
        while input.write_all(b"more\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let output = end(child);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("no further line is read") && said.contains("no partition 2: it has 1"), "{said}");
}

/// Removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file of failed records: the topics and partitions they are for.
fn failed(name: &str, places: &[(&str, usize)]) -> Scratch {
    let path = std::env::temp_dir().join(format!("ringmail-waits-{name}-{}", std::process::id()));
    let line = |(topic, partition): &(&str, usize)| {
        format!(
            "{{\"topic\":\"{topic}\",\"partition\":{partition},\"timestamp\":1700000000000,\"key\":null,\"value\":\"v\",\
             \"headers\":[],\"written\":\"no\",\"attempts\":1,\"waited_ms\":3,\"error\":\"x\"}}\n"
        )
    };
    std::fs::write(&path, places.iter().map(line).collect::<String>()).unwrap();
    Scratch(path)
}

#[test]
fn records_to_be_sent_again_wait_once_for_each_topic() {
    let broker = broker();
    let servers = broker.bootstrap();
    let replay = |name: &str, places: &[(&str, usize)]| {
        let file = failed(name, places);
        run(&[&["produce", "-b", &servers, "--replay", file.0.to_str().unwrap()], &SHORT[..]].concat(), b"")
    };
    // Partitions that are not there, all different, between some that are.
    let places: Vec<_> = (0..LINES).map(|number| ("t", if number % 2 == 0 { 0 } else { number })).collect();
    let output = replay("partitions", &places);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("200 records delivered, 200 not") && said.contains("no partition 1"), "{said}");
    // Topics that are not there.
    let places: Vec<_> = (0..LINES).map(|number| (["t", "absent", "gone", "lost"][number % 4], 0)).collect();
    let output = replay("topics", &places);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("100 records delivered, 300 not") && said.contains("'absent' does not exist"), "{said}");
    // The first one's.
    let output = replay("first", &[("absent", 0), ("t", 0)]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
}

/// As they were reported: nobody there under a name with a protocol, no time at all for a sound broker, and no time
/// beyond the limit for one that is silent.
#[test]
fn why_there_is_no_broker() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let sound = broker();
    let produce = |servers: &str, limit: &str| {
        let limit = format!("max.block.ms={limit}");
        let began = Instant::now();
        let output = run(&["produce", "-b", servers, "-t", "t", "-X", &limit], b"line\n");
        assert_eq!(code(&output), 3, "{output:?}");
        (stderr(&output), began.elapsed())
    };
    let (said, _) = produce(&format!("PLAINTEXT://{gone}"), "1000");
    assert!(said.contains("refused") && !said.contains("resolved") && !said.contains("lookup"), "{said}");
    let (said, _) = produce(&sound.bootstrap(), "0");
    assert!(said.contains("gave up after 0 ms (max.block.ms)") && !said.contains("no answer"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let (said, took) = produce(&silent, "4000");
    assert!(said.contains("no answer to ApiVersions") && took < Duration::from_secs(6), "{took:?}: {said}");
}
