//! The embedded broker beside a real one: one script of requests, right and wrong ones, and one transcript of the
//! answers, which was taken from Apache Kafka 4.3.1. `cargo test` compares the embedded broker with it; `ci/real_kafka.sh
//! script` compares Kafka with it, so that the transcript stays true. With `TAKE=1` it is taken anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod batch;
mod client;
#[path = "../real_kafka/cluster.rs"]
#[allow(dead_code, reason = "the script needs less than its other user")]
mod cluster;
mod script;
mod steps;
mod world;

use std::path::PathBuf;

use script::Script;
use world::{Embedded, Real, World};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/model_script").join(name)
}

fn play(world: &dyn World) -> Vec<String> {
    let mut script = Script::new(world);
    steps::all(&mut script);
    script.lines.iter().flat_map(|line| line.split('\n')).map(str::to_owned).collect()
}

/// Where the embedded broker differs on purpose, see `ringmail::testing`: Kafka's line and its own.
const ON_PURPOSE: [(&str, &str); 2] = [
    // One of the five is a batch that says it is gzip: what is compressed is refused unread.
    ("byte 22: +1 -1, -1 53, ^80 0 (+3), 00 0 (+3), ff 53", "byte 22: +1 76, -1 53, ^80 0 (+3), 00 0 (+3), ff 53"),
    // Kafka looks for a coordinator that is not there yet; here are no transactions, which 53 says for good.
    ("a transactional id: 16 -1 epoch -1", "a transactional id: 53 -1 epoch -1"),
];

/// Lines that differ, under their chapters; empty when there is none.
fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    let chapters =
        |lines: &[String]| -> Vec<Vec<String>> { lines.split(String::is_empty).map(<[String]>::to_vec).collect() };
    let (expected, found) = (chapters(expected), chapters(found));
    let mut all = Vec::new();
    for i in 0..expected.len().max(found.len()) {
        let (kafka, here) = (expected.get(i).cloned().unwrap_or_default(), found.get(i).cloned().unwrap_or_default());
        let title = kafka.first().or(here.first()).cloned().unwrap_or_default();
        for line in 0..kafka.len().max(here.len()) {
            let (kafka, here) = (kafka.get(line).map_or("", String::as_str), here.get(line).map_or("", String::as_str));
            if kafka != here {
                all.push(format!("{title}\n  transcript  {kafka}\n  here        {here}"));
            }
        }
    }
    all
}

fn transcript() -> Vec<String> {
    let text = std::fs::read_to_string(file("transcript.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_embedded_broker_answers_as_kafka_does() {
    let mut expected = transcript();
    for (kafka, here) in ON_PURPOSE {
        let line = expected.iter_mut().find(|line| *line == kafka);
        *line.expect("this difference is in the transcript") = here.to_owned();
    }
    let differences = differences(&expected, &play(&Embedded::start()));
    assert!(differences.is_empty(), "{} lines differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh script"]
fn kafka_answers_as_the_transcript_says() {
    let lines = play(&Real::start());
    if std::env::var_os("TAKE").is_some() {
        std::fs::write(file("transcript.txt"), lines.join("\n") + "\n").unwrap();
    }
    let differences = differences(&transcript(), &lines);
    assert!(differences.is_empty(), "{} lines differ:\n{}", differences.len(), differences.join("\n"));
    println!("{} answers as in the transcript", lines.len());
}
