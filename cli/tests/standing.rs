//! What `ringmail produce` says while its input stays open, as under a service manager: `tail -F … | ringmail produce`.
//! (What the library says every minute is tried where a minute takes no time: `src/sender/tests/health.rs`.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, ErrorCode, Fault, TopicOptions};

/// Longer than anything here takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// The command, with its input open.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it said so far.
    said: Vec<String>,
}

impl Running {
    fn produce(servers: &str, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
        command.args(["produce", "-b", servers, "-t", "log"]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (line, lines) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Self { input: child.stdin.take(), child, lines, said: Vec::new() }
    }

    fn send(&mut self, lines: std::ops::Range<usize>) {
        let text: String = lines.map(|number| format!("{number}\n")).collect();
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for a line with these words.
    fn hear(&mut self, words: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let _ = self.child.kill();
                assert!(left.is_zero(), "it ended: {:#?}", self.said);
                assert_eq!(self.said, [words], "nobody said the latter");
                unreachable!()
            };
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Ends the input, and gives the exit code and all that was said.
    fn end(mut self) -> (i32, Vec<String>) {
        drop(self.input.take());
        self.said.extend(self.lines.iter());
        (self.child.wait().unwrap().code().unwrap(), self.said)
    }
}

fn broker(port: u16) -> Broker {
    let broker = Broker::start(BrokerOptions { port, auto_create: false, ..BrokerOptions::default() }).unwrap();
    assert!(broker.create_topic("log", 1));
    broker
}

fn wait_for(what: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !what() {
        assert!(Instant::now() < deadline, "it did not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const SHORT: [&str; 4] = ["-X", "delivery.timeout.ms=4000", "-X", "request.timeout.ms=2000"];

/// A killed broker: that it is lost, which lines fail and why, that it is back and how things stood; also with -q.
#[test]
fn a_broker_that_is_killed_and_comes_back() {
    std::thread::scope(|scope| {
        scope.spawn(|| kill_and_bring_back(&[]));
        scope.spawn(|| kill_and_bring_back(&["-q"]));
    });
}

fn kill_and_bring_back(quiet: &[&str]) {
    let first = broker(0);
    let address = first.address();
    let mut running = Running::produce(&address.to_string(), &[&SHORT[..], quiet].concat());
    running.send(0..10);
    wait_for(|| first.log("log", 0).len() == 10);
    first.shutdown();
    running.send(10..310);
    let lost = running.hear("is out of reach");
    assert!(lost.starts_with(&format!("ringmail: broker {address} is out of reach: ")), "{lost}");
    let failed = running.hear("failed");
    let expected = "ringmail: 300 records failed (lines 11-310): log-0: not sent within delivery.timeout.ms";
    assert!(failed.starts_with(expected) && failed.contains(&address.to_string()), "{failed}");

    let second = broker(address.port());
    running.hear(&format!("broker {address} answers again"));
    running.send(310..320);
    wait_for(|| second.log("log", 0).len() == 10);
    // Nothing else fails for a while.
    running.hear("all is well after");
    let (code, said) = running.end();
    assert_eq!(code, 1, "{said:#?}");
    let times = |words: &str| said.iter().filter(|line| line.contains(words) && !line.contains("all is well")).count();
    // Told once, and once in the report at the end.
    assert_eq!((times("is out of reach"), times("300 records failed"), times("answers again")), (1, 2, 1), "{said:#?}");
    assert!(said.len() <= 10, "{said:#?}");
}

#[test]
fn every_record_is_refused() {
    let options = BrokerOptions { auto_create: false, ..BrokerOptions::default() };
    let broker = Broker::start(options.on_produce(|_| Fault::Error(ErrorCode::TOPIC_AUTHORIZATION_FAILED))).unwrap();
    broker.create_topic_with("log", TopicOptions { partitions: 1, ..TopicOptions::default() });
    let mut running = Running::produce(&broker.bootstrap(), &["-q"]);
    running.send(0..50);
    let failed = running.hear("failed");
    assert!(failed.starts_with("ringmail: 50 records failed (lines 1-50): ") && failed.contains("(29)"), "{failed}");
    // More of the same waits for its minute.
    running.send(50..100);
    let (code, said) = running.end();
    assert_eq!(code, 1);
    let expected = [
        "ringmail: 50 records failed (lines 1-50)",
        "100 records failed: ",
        "  lines 1-100",
        "0 records delivered, 100 not",
    ];
    let as_expected = said.iter().zip(expected).filter(|(line, expected)| line.starts_with(expected)).count();
    assert!(as_expected == 4 && said.len() == 4, "{said:#?}");
}

/// One line is too long; the others go on.
#[test]
fn a_line_that_cannot_be_sent() {
    let broker = broker(0);
    let mut running = Running::produce(&broker.bootstrap(), &["-X", "max.request.size=2048", "-X", "batch.size=1024"]);
    running.input.as_mut().unwrap().write_all(&[&b"one\n"[..], &[b'x'; 3000], b"\nthree\n"].concat()).unwrap();
    let failed = running.hear("failed");
    assert!(
        failed.starts_with("ringmail: 1 record failed (line 2): ") && failed.contains("max.request.size"),
        "{failed}"
    );
    let (code, _) = running.end();
    assert_eq!((code, broker.log("log", 0).len()), (1, 2));
}

/// Nothing is said where nothing is wrong, nor twice why there is no broker at the start.
#[test]
fn silence_is_golden() {
    let first = broker(0);
    let mut running = Running::produce(&first.bootstrap(), &[]);
    running.send(0..10);
    wait_for(|| first.log("log", 0).len() == 10);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(running.end(), (0, vec![]));

    // It comes while it is waited for.
    let address = first.address();
    first.shutdown();
    let mut running = Running::produce(&address.to_string(), &["-X", "max.block.ms=60000"]);
    running.send(0..10);
    let waiting = running.hear("still waiting for a broker");
    let second = broker(address.port());
    wait_for(|| second.log("log", 0).len() == 10);
    let (code, said) = running.end();
    assert!(code == 0 && said == [&*waiting] && waiting.contains("refused"), "{said:#?}");
}
