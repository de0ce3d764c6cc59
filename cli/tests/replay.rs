//! `ringmail produce --replay`: what a producer could not deliver and wrote to a file, sent again by the command.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ringmail::testing::{Broker, BrokerOptions, ErrorCode, Fault, StoredRecord};
use ringmail::{FailedRecordsFile, Header, Producer, Record};

/// Removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ringmail-replay-{name}-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn replay(broker: &Broker, file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
    command.args(["produce", "-b", &broker.bootstrap(), "--replay"]).arg(file).args(more);
    command.stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

type Shape = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>, i64);

fn shape(record: &StoredRecord) -> Shape {
    (record.key.clone(), record.value.clone(), record.headers.clone(), record.timestamp)
}

#[test]
fn what_failed_is_sent_again_as_it_was() {
    let file = Scratch::new("round-trip");
    // The first broker takes nothing.
    let options = BrokerOptions::default().on_produce(|_| Fault::Error(ErrorCode::INVALID_RECORD));
    let refusing = Broker::start(options).unwrap();
    let producer = Producer::builder()
        .bootstrap_servers(&refusing.bootstrap())
        .on_undeliverable(FailedRecordsFile::append(&file.0).unwrap())
        .build()
        .unwrap();
    let all: Vec<u8> = (0..=255).collect();
    let headers = [
        Header { key: "a", value: Some(&all) },
        Header { key: "\"ä\n\u{0}\"", value: None },
        Header { key: "a", value: Some(b"") },
    ];
    let mut sent: Vec<(&str, i32, Shape)> = Vec::new();
    let mut timestamp = 1_700_000_000_000;
    let mut send = |topic: &'static str, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]| {
        timestamp += 1;
        let partition = (timestamp % 3) as i32;
        let mut record = Record::new().with_partition(partition).with_timestamp(timestamp).with_headers(headers);
        if let Some(key) = &key {
            record = record.with_key(key);
        }
        if let Some(value) = &value {
            record = record.with_value(value);
        }
        drop(producer.topic(topic).unwrap().send(record).unwrap());
        let headers = headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
        sent.push((topic, partition, (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec), headers, timestamp)));
    };
    send("one", Some(&all), Some(&all), &headers);
    send("one", None, None, &[]);
    send("one", Some(b""), Some(b""), &[]);
    for byte in 0..=255 {
        send("two", Some(&[byte]), Some(&[b'"', byte, b'\\']), &headers[..usize::from(byte) % 4 % 3]);
        send("two", Some(&[b'k', byte]), None, &[]);
    }
    send("one", None, Some("a line\nand another \u{2028} \u{10ffff}".as_bytes()), &[]);
    assert_eq!(producer.close(Duration::from_secs(10)).unwrap().records(), 0);

    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    for topic in ["one", "two"] {
        assert!(broker.create_topic(topic, 3));
    }
    let output = replay(&broker, &file.0, &[]);
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    let mut found = 0;
    for topic in ["one", "two"] {
        for partition in 0..3 {
            let log: Vec<Shape> = broker.log(topic, partition).iter().map(shape).collect();
            let here = sent.iter().filter(|(t, p, _)| *t == topic && *p == partition);
            let expected: Vec<Shape> = here.map(|(.., shape)| shape.clone()).collect();
            found += log.len();
            assert!(log == expected, "{topic}-{partition}: {log:?}");
        }
    }
    assert_eq!((found, sent.len()), (516, 516));
}

const LINE: &str = r#"{"topic":"t","partition":0,"timestamp":5,"key":null,"value":"VALUE","headers":[],"written":"no","attempts":1,"waited_ms":3,"error":"x"}"#;

#[test]
fn what_cannot_be_sent_again_is_named_and_left_out() {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    assert!(broker.create_topic("t", 1));
    let values = || -> Vec<String> {
        broker.log("t", 0).into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
    };
    let line = |value: &str| LINE.replace("VALUE", value);
    let file = Scratch::new("left-out");
    let lines = [
        line("1"),
        "{\"topic\":\"t\",\"part".to_owned(),
        String::new(),
        line("4").replace("\"no\"", "\"possibly\""),
        line("5").replace("\"partition\":0", "\"partition\":7"),
        line("6").replace("\"topic\":\"t\"", "\"topic\":\"absent\""),
        line("7"),
        line("8").replace("\"key\":null,", ""),
    ];
    std::fs::write(&file.0, lines.join("\n")).unwrap();
    let output = replay(&broker, &file.0, &["-X", "max.block.ms=500"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert_eq!(values(), ["1", "7"]);
    for part in [
        "2 records failed: not a line of failed records",
        "lines 2, 8",
        "no partition 7",
        "line 5",
        "'absent' does not exist",
        "line 6",
        "1 records were left out",
        "--replay-possibly-written",
        "2 records delivered, 4 not",
    ] {
        assert!(said.contains(part), "{part} in: {said}");
    }

    // A record that is possibly written is sent again only when that is asked for; left out, it is not success.
    std::fs::write(&file.0, line("4").replace("\"no\"", "\"possibly\"")).unwrap();
    let output = replay(&broker, &file.0, &[]);
    assert!(code(&output) == 1 && stderr(&output).contains("1 records were left out"), "{output:?}");
    assert_eq!(values(), ["1", "7"]);
    let output = replay(&broker, &file.0, &["--replay-possibly-written"]);
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    assert_eq!(values(), ["1", "7", "4"]);
}

#[test]
fn mistakes_have_produces_exit_codes() {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    let file = Scratch::new("codes");
    let output = replay(&broker, &file.0, &[]);
    assert!(code(&output) == 4 && stderr(&output).contains("cannot open"), "{output:?}");
    std::fs::write(&file.0, LINE).unwrap();
    let output = replay(&broker, &file.0, &["-X", "max.block.ms=500"]);
    assert!(code(&output) == 3 && stderr(&output).contains("'t' does not exist"), "{output:?}");
    for other in [&["-t", "t"][..], &["-K:"], &["-p", "0"], &["-H", "a=b"], &["-Z"], &["-k", "k"], &["input"]] {
        let output = replay(&broker, &file.0, other);
        assert!(code(&output) == 2 && stderr(&output).contains("cannot be used with"), "{other:?}: {output:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ringmail"))
        .args(["produce", "-b", &broker.bootstrap(), "-t", "t", "--replay-possibly-written"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(code(&output) == 2 && stderr(&output).contains("--replay FILE"), "{output:?}");
    std::fs::write(&file.0, "").unwrap();
    let output = replay(&broker, &file.0, &[]);
    assert_eq!(code(&output), 0, "nothing to do: {output:?}");
}
