//! The embedded broker beside a real one: one script of requests, right and wrong ones, and one transcript of the
//! answers, which was taken from Apache Kafka 4.4.0. `cargo test` compares the embedded broker with it; `ci/real_kafka.sh
//! script` compares Kafka with it, so that the transcript stays true. What other versions decide otherwise lies beside it
//! in `otherwise/VERSION.txt`, and `ci/real_kafka.sh --kafka VERSION script` holds them to that. With `TAKE=1` either is
//! taken anew.
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

/// The version that the transcript was taken of.
const TRANSCRIPT_OF: &str = "4.4.0";

/// What both answered to one line of the script, and in which chapter.
struct Pair<'a> {
    chapter: &'a str,
    expected: &'a str,
    found: &'a str,
}

/// The lines that are not the same. A script that ends a chapter early leaves out what comes behind.
fn differences<'a>(expected: &'a [String], found: &'a [String]) -> Vec<Pair<'a>> {
    let chapters = |lines: &'a [String]| -> Vec<&'a [String]> { lines.split(String::is_empty).collect() };
    let (expected, found) = (chapters(expected), chapters(found));
    let line = |chapters: &[&'a [String]], chapter: usize, line: usize| -> &'a str {
        chapters.get(chapter).and_then(|lines| lines.get(line)).map_or("", String::as_str)
    };
    let len = |chapters: &[&[String]], chapter: usize| chapters.get(chapter).map_or(0, |lines| lines.len());
    let mut all = Vec::new();
    for chapter in 0..expected.len().max(found.len()) {
        for at in 0..len(&expected, chapter).max(len(&found, chapter)) {
            let pair = Pair {
                chapter: line(&expected, chapter, 0),
                expected: line(&expected, chapter, at),
                found: line(&found, chapter, at),
            };
            if pair.expected != pair.found {
                all.push(pair);
            }
        }
    }
    all
}

fn must_be_the_same(expected: &[String], found: &[String]) {
    let differences = differences(expected, found);
    let told: Vec<String> = differences
        .iter()
        .map(|pair| format!("{}\n  transcript  {}\n  here        {}", pair.chapter, pair.expected, pair.found))
        .collect();
    assert!(told.is_empty(), "{} lines differ:\n{}", told.len(), told.join("\n"));
}

/// What another version decides otherwise: not that it does not speak a version of an API, and not where a batch lies,
/// because one that only one of them stored moves all that come after it. Over null records, which nobody sends, older
/// versions stumble in one way or another.
fn decided_otherwise(version: &str, lines: &[String]) -> String {
    let transcript = transcript();
    let mut told = String::new();
    let mut chapter = "";
    for pair in differences(&transcript, lines) {
        let [ours, theirs] = [pair.expected, pair.found].map(without_places);
        let untold = theirs.is_empty() || theirs.ends_with(script::UNOFFERED) || theirs.starts_with("null records");
        if ours == theirs || untold {
            continue;
        }
        if std::mem::replace(&mut chapter, pair.chapter) != pair.chapter {
            told += &format!("{}{}\n", if told.is_empty() { "" } else { "\n" }, pair.chapter);
        }
        let (what, ours) = ours.split_once(": ").unwrap_or((&ours, ""));
        let theirs = theirs.strip_prefix(what).map_or(&*theirs, |answer| answer.trim_start_matches(": "));
        told += &format!("{what}\n    {TRANSCRIPT_OF}: {ours}\n    {version}: {theirs}\n");
    }
    told
}

fn without_places(line: &str) -> String {
    let line = line.split(" | end ").next().unwrap_or_default();
    let mut is_offset = false;
    let words = line.split(' ').map(|word| {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let is_place = std::mem::replace(&mut is_offset, word == "offset") && is_number;
        if is_place { "#" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
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
    must_be_the_same(&expected, &play(&Embedded::start()));
}

#[test]
#[ignore = "needs a real Kafka: ci/real_kafka.sh script"]
fn kafka_answers_as_the_transcript_says() {
    let version = cluster::run("ci/kafka.sh", &["version"]).trim().to_owned();
    let lines = play(&Real::start());
    let take = std::env::var_os("TAKE").is_some();
    if version == TRANSCRIPT_OF {
        if take {
            std::fs::write(file("transcript.txt"), lines.join("\n") + "\n").unwrap();
        }
        must_be_the_same(&transcript(), &lines);
        return println!("{} answers as in the transcript", lines.len());
    }
    let otherwise = decided_otherwise(&version, &lines);
    let known = file(&format!("otherwise/{version}.txt"));
    if take {
        std::fs::write(&known, &otherwise).unwrap();
    }
    let known = std::fs::read_to_string(known).unwrap_or_default();
    assert!(
        otherwise == known,
        "Kafka {version} is not known to decide this otherwise than {TRANSCRIPT_OF}:\n{otherwise}"
    );
    let differ = otherwise.lines().filter(|line| line.starts_with(&format!("    {version}: "))).count();
    println!("{} answers as in the transcript but for {differ}, as is known of {version}", lines.len());
}
