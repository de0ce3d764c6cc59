//! The command as a user runs it, against the embedded broker: what lies in the log, what is said, the exit code.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, StoredRecord, TopicOptions};

/// Starts `ringmail ARGS…` with its standard input open.
fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs `ringmail ARGS…` with this input to its end.
fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = start(args);
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn produce(broker: &Broker, more: &[&str], input: &[u8]) -> Output {
    run(&[&["produce", "-b", &broker.bootstrap(), "-t", "t"], more].concat(), input)
}

/// A broker with topic `t`, and none that it makes by itself.
fn broker(partitions: i32) -> Broker {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    assert!(broker.create_topic("t", partitions));
    broker
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Keys and values of partition 0, as text.
fn log(broker: &Broker) -> Vec<(Option<String>, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = |r: &StoredRecord| (r.key.as_deref().map(text), r.value.as_deref().map(text));
    broker.log("t", 0).iter().map(fields).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}

#[test]
fn lines_become_records() {
    let broker = broker(1);
    let output = produce(&broker, &["-K:"], b"k:v:w\n:empty key\nno key\n\ncarriage\r\nno newline");
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    let expected = [
        (some("k"), some("v:w")),
        (some(""), some("empty key")),
        (None, some("no key")),
        (None, some("")),
        (None, some("carriage\r")),
        (None, some("no newline")),
    ];
    assert_eq!(log(&broker), expected);
}

#[test]
fn empty_can_mean_null_and_headers_are_kept() {
    let broker = broker(1);
    let output = produce(&broker, &["-Z", "-K:", "-H", "b=1=2", "--header", "a", "-H", "b="], b"k:\n:v\n");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(log(&broker), [(some("k"), None), (None, some("v"))]);
    let record = &broker.log("t", 0)[0];
    let headers: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
    assert_eq!(format!("{headers:?}"), format!("{:?}", [("b", Some(&b"1=2"[..])), ("a", None), ("b", Some(b""))]));
}

#[test]
fn a_line_goes_out_while_the_input_is_open() {
    let broker = broker(1);
    let mut child = start(&["produce", "-b", &broker.bootstrap(), "-t", "t"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"first\nsecond without newline").unwrap();
    let began = Instant::now();
    while log(&broker).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "the line waits for the end of the input");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(log(&broker), [(None, some("first"))]);
    drop(input);
    assert_eq!(code(&child.wait_with_output().unwrap()), 0);
    assert_eq!(log(&broker).len(), 2);
}

#[test]
fn failed_lines_are_named() {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    broker.create_topic_with("t", TopicOptions { partitions: 1, max_message_bytes: 1000, ..TopicOptions::default() });
    let input =
        [&b"one\n"[..], &[b'x'; 2000], b"\nthree\n", &[b'y'; 3000], b"\nfive\n", &vec![b'z'; 2_000_000]].concat();
    let output = produce(&broker, &[], &input);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    for part in ["max.message.bytes", "lines 2, 4", "max.request.size", "line 6", "3 records delivered, 3 not"] {
        assert!(said.contains(part), "{part} in: {said}");
    }
    assert_eq!(log(&broker), [(None, some("one")), (None, some("three")), (None, some("five"))]);
}

/// A broker with `socket.request.max.bytes=65536` closes the connection of a larger request without a word: all lines arrive,
/// once and in order, but for one that is larger by itself, which is named with its reason.
#[test]
fn a_broker_that_takes_small_requests_only() {
    for (long, exit) in [(None, 0), (Some(10_000), 1)] {
        let options =
            BrokerOptions { auto_create: false, socket_request_max_bytes: 65_536, ..BrokerOptions::default() };
        let broker = Broker::start(options).unwrap();
        assert!(broker.create_topic("t", 3));
        let line =
            |number: usize| format!("{number:07} {}\n", ".".repeat(if long == Some(number) { 80_000 } else { 91 }));
        let input: String = (0..20_000).map(line).collect();
        let output = produce(&broker, &[], input.as_bytes());
        let said = stderr(&output);
        assert_eq!(code(&output), exit, "{said}");
        assert!(said.contains("socket.request.max.bytes") && said.len() < 5_000, "{said}");
        assert!(exit == 0 || said.contains("line 10001") && said.contains("19999 records delivered, 1 not"), "{said}");
        let number = |record: &StoredRecord| std::str::from_utf8(&record.value.as_ref().unwrap()[..7]).unwrap().parse();
        let logs: Vec<Vec<usize>> = (0..3)
            .map(|partition| broker.log("t", partition).iter().map(|record| number(record).unwrap()).collect())
            .collect();
        assert!(logs.iter().all(|log| log.is_sorted_by(|a, b| a < b)), "in order, once");
        let mut all = logs.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq((0..20_000).filter(|number| long != Some(*number))));
    }
}

#[test]
fn mistakes_have_words_and_codes_of_their_own() {
    let broker = broker(1);
    let cases: [(&[&str], i32, &str); 6] = [
        (&["-X", "linger.msec=5"], 2, "did you mean linger.ms"),
        (&["-X", "compression.type=gzip"], 2, "not yet"),
        (&["-X", "acks"], 2, "KEY=VALUE"),
        (&["-F", "/no/such/file"], 2, "/no/such/file"),
        (&["/no/such/input"], 4, "/no/such/input"),
        (&["-p", "7", "-X", "max.block.ms=700"], 3, "no partition 7"),
    ];
    for (args, expected, words) in cases {
        let output = produce(&broker, args, b"line\n");
        assert!(code(&output) == expected && stderr(&output).contains(words), "{args:?}: {output:?}");
    }
    let servers = broker.bootstrap();
    let output = run(&["produce", "-b", &servers, "-t", "absent", "-X", "max.block.ms=700"], b"");
    assert!(code(&output) == 3 && stderr(&output).contains("'absent' does not exist"), "{output:?}");
    drop(broker);
    let output = run(&["produce", "-b", &servers, "-t", "t", "-X", "max.block.ms=700"], b"");
    assert!(code(&output) == 3 && stderr(&output).contains("efused"), "{output:?}");
    let output = run(&["produce", "-t", "t"], b"");
    assert!(code(&output) == 2 && stderr(&output).contains("-b"), "{output:?}");
}

#[test]
fn the_demo_verifies_itself() {
    for driver in ["auto", "epoll"] {
        let output = run(&["demo", "-n", "20000", "--threads", "3", "--driver", driver], b"");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(code(&output), 0, "{said}{}", stderr(&output));
        assert!(
            said.contains("read back") && said.contains("20,000 records; 0 lost") && said.contains("verified"),
            "{said}"
        );
    }
}

#[test]
fn every_setting_is_listed() {
    let output = run(&["produce", "--settings"], b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(code(&output) == 0 && said.contains("linger.ms (milliseconds; default 5)"), "{said}");
}
