//! `ringmail verifiable-producer` as Kafka's system tests run it, against the embedded broker: the lines, what lies in
//! the log, signals, faults.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions, ErrorCode, Fault, ProduceContext, StoredRecord, partition_for_key};
use serde_json::Value;

const TIMEOUT: &str = "class org.apache.kafka.common.errors.TimeoutException";

/// A running command; killed when the test ends before it does.
struct Run {
    child: Child,
    out: Box<dyn BufRead>,
    lines: Vec<Value>,
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    /// Every line, parsed.
    lines: Vec<Value>,
    stderr: String,
}

impl Run {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
        command.arg("verifiable-producer").args(args).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Box::new(BufReader::new(child.stdout.take().unwrap()));
        Self { child, out, lines: Vec::new() }
    }

    /// Topic `t` of this broker.
    fn on(broker: &Broker, args: &[&str]) -> Self {
        Self::start(&[&["--bootstrap-server", &broker.bootstrap(), "--topic", "t"], args].concat())
    }

    /// The next line; it must be there while the command runs, not only at its end.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "no whole line: {line:?}");
        self.lines.push(serde_json::from_str(&line).unwrap());
        self.lines.last().unwrap().clone()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until standard error says something.
    fn hear(&mut self, words: &str) {
        let mut heard = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&heard).contains(words) {
            self.child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
            heard.push(byte[0]);
        }
    }

    /// Reads to the end.
    fn end(mut self) -> Ended {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let mut lines = std::mem::take(&mut self.lines);
        lines.extend(rest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        let mut stderr = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { code: self.child.wait().unwrap().code(), lines, stderr }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    fn named(&self, name: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["name"] == name).collect()
    }

    fn successes(&self) -> Vec<&Value> {
        self.named("producer_send_success")
    }

    fn errors(&self) -> Vec<&Value> {
        self.named("producer_send_error")
    }

    /// A run that ended as it should: the frame is there, every record has one line, the numbers add up. Returns how
    /// many were sent.
    fn assert_clean(&self) -> u64 {
        let names: Vec<&str> = self.lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(names[0], "startup_complete");
        assert_eq!(names[names.len() - 2..], ["shutdown_complete", "tool_data"]);
        let (acked, failed) = (self.successes().len(), self.errors().len());
        assert_eq!(acked + failed + 3, names.len(), "{names:?}");
        let data = self.lines.last().unwrap();
        let sent = data["sent"].as_u64().unwrap();
        assert_eq!((data["acked"].as_u64(), sent), (Some(acked as u64), (acked + failed) as u64));
        let mut values: Vec<u64> = self.lines.iter().filter_map(|line| number(&line["value"])).collect();
        values.sort_unstable();
        assert!(values.into_iter().eq(0..sent), "every value once");
        sent
    }

    /// Every acknowledged record lies where its line says, and nothing else lies in the log but what is possibly
    /// written. `partitions` is how many topic `t` has.
    fn assert_log(&self, broker: &Broker, partitions: i32) {
        let mut log: BTreeMap<(i32, i64), StoredRecord> = BTreeMap::new();
        for partition in 0..partitions {
            log.extend(broker.log("t", partition).into_iter().map(|record| ((partition, record.offset), record)));
        }
        for line in self.successes() {
            let place = (line["partition"].as_i64().unwrap() as i32, line["offset"].as_i64().unwrap());
            let record = log.remove(&place).unwrap_or_else(|| panic!("nothing at {place:?}: {line}"));
            assert_eq!((text(&record.key), text(&record.value)), (line["key"].clone(), line["value"].clone()));
            assert_eq!(line["topic"], "t");
        }
        let possible: Vec<&Value> =
            self.errors().into_iter().filter(|line| line["written"] == "possibly").map(|line| &line["value"]).collect();
        for (place, record) in log {
            assert!(possible.contains(&&text(&record.value)), "at {place:?}: {record:?}");
        }
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.rsplit('.').next().unwrap().parse().unwrap())
}

fn text(bytes: &Option<Vec<u8>>) -> Value {
    bytes.as_ref().map_or(Value::Null, |bytes| String::from_utf8_lossy(bytes).into())
}

/// A broker with topic `t`, and none that it makes by itself.
fn broker(partitions: i32, options: BrokerOptions) -> Broker {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..options }).unwrap();
    assert!(broker.create_topic("t", partitions));
    broker
}

/// A properties file that goes away with the value.
struct Properties(PathBuf);

impl Properties {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringmail-verifiable-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Properties {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Standard output to its end, with the numbers that differ from run to run made equal.
fn masked(mut run: Run) -> String {
    let mut said = String::new();
    run.out.read_to_string(&mut said).unwrap();
    assert_eq!(run.child.wait().unwrap().code(), Some(0));
    for key in ["\"timestamp\":", "\"avg_throughput\":"] {
        let mut parts = said.split(key);
        let mut shown = parts.next().unwrap().to_string();
        for part in parts {
            let end = part.find([',', '}']).unwrap();
            assert!(part[..end].parse::<f64>().unwrap() > 0.0, "{part}");
            shown = shown + key + "#" + &part[end..];
        }
        said = shown;
    }
    said
}

#[test]
fn the_lines_are_those_of_kafka_4_3_1() {
    let broker = broker(1, BrokerOptions::default());
    let said = masked(Run::on(&broker, &["--max-messages", "3", "--value-prefix", "7", "--repeating-keys", "2"]));
    let expected = r##"{"timestamp":#,"name":"startup_complete"}
{"timestamp":#,"name":"producer_send_success","key":"0","value":"7.0","offset":0,"topic":"t","partition":0}
{"timestamp":#,"name":"producer_send_success","key":"1","value":"7.1","offset":1,"topic":"t","partition":0}
{"timestamp":#,"name":"producer_send_success","key":"0","value":"7.2","offset":2,"topic":"t","partition":0}
{"timestamp":#,"name":"shutdown_complete"}
{"timestamp":#,"name":"tool_data","sent":3,"acked":3,"target_throughput":-1,"avg_throughput":#}
"##;
    assert_eq!(said, expected);
}

#[test]
fn an_error_line_is_kafkas_and_says_whether_it_was_written() {
    let broker = broker(1, BrokerOptions::default().on_produce(|_| Fault::Error(ErrorCode::INVALID_RECORD)));
    let ended = Run::on(&broker, &["--max-messages", "1"]).end();
    ended.assert_clean();
    let line = ended.errors()[0].as_object().unwrap();
    assert_eq!(line["exception"], "class org.apache.kafka.common.InvalidRecordException");
    assert!(line["message"].as_str().unwrap().contains("INVALID_RECORD (87)"), "{line:?}");
    assert_eq!((&line["topic"], &line["key"], &line["value"]), (&"t".into(), &Value::Null, &"0".into()));
    assert_eq!(line["written"], "no");
    let line = unparsed_error(&broker);
    let order = ["timestamp", "name", "topic", "key", "value", "exception", "message", "written"];
    let places: Vec<usize> = order.iter().map(|key| line.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{line}");
    assert!(broker.log("t", 0).is_empty());
}

/// The second line as it was printed: parsed objects have no order.
fn unparsed_error(broker: &Broker) -> String {
    let mut run = Run::on(broker, &["--max-messages", "1"]);
    run.line();
    let mut line = String::new();
    run.out.read_line(&mut line).unwrap();
    line
}

#[test]
fn older_names_of_the_options_work() {
    let broker = broker(1, BrokerOptions::default());
    let file = Properties::new("old", "# from a template\nrequest.timeout.ms=30000\n\nacks=1\n");
    let servers = broker.bootstrap();
    let args = ["--topic", "t", "--broker-list", &servers, "--max-messages", "5", "--producer.config", file.path()];
    let ended = Run::start(&args).end();
    assert_eq!(ended.assert_clean(), 5);
    assert!(ended.successes().iter().all(|line| line["key"].is_null()));
    ended.assert_log(&broker, 1);
    // acks=1 of the file counts, and turns idempotence off.
    assert!(broker.log("t", 0).iter().all(|record| record.producer_id == -1));
}

#[test]
fn acks() {
    for (acks, idempotent) in [("-1", true), ("all", true), ("1", false), ("0", false)] {
        let broker = broker(1, BrokerOptions::default());
        let ended = Run::on(&broker, &["--max-messages", "20", "--acks", acks]).end();
        assert_eq!((ended.assert_clean(), ended.errors().len()), (20, 0), "{acks}");
        let offsets: Vec<i64> = ended.successes().iter().map(|line| line["offset"].as_i64().unwrap()).collect();
        match acks {
            "0" => assert_eq!(offsets, [-1; 20]),
            _ => assert!(offsets.into_iter().eq(0..20), "{acks}"),
        }
        assert!(broker.log("t", 0).iter().all(|record| (record.producer_id >= 0) == idempotent), "{acks}");
    }
    let broker = broker(1, BrokerOptions::default());
    assert_eq!(Run::on(&broker, &["--max-messages", "0"]).end().assert_clean(), 0);
}

#[test]
fn create_times_move_on_as_javas_do() {
    let broker = broker(1, BrokerOptions::default());
    let args = ["--max-messages", "10", "--throughput", "100", "--message-create-time", "1000000"];
    Run::on(&broker, &args).end().assert_clean();
    let times: Vec<i64> = broker.log("t", 0).iter().map(|record| record.timestamp).collect();
    assert_eq!((times.len(), times[0]), (10, 1_000_000));
    // Each adds the time since the start, at least 10 ms per record before it, less what the throttle may skip.
    let steps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.is_sorted(), "{steps:?}");
    assert!(steps.iter().zip(0..).all(|(step, n)| *step >= 10 * n - 3), "{steps:?}");
    Run::on(&broker, &["--max-messages", "1", "--message-create-time", "-1"]).end().assert_clean();
    assert!(broker.log("t", 0)[10].timestamp > 1_600_000_000_000);
}

#[test]
fn keys_repeat_and_choose_the_partition() {
    let broker = broker(3, BrokerOptions::default());
    let ended = Run::on(&broker, &["--max-messages", "3000", "--repeating-keys", "7"]).end();
    assert_eq!((ended.assert_clean(), ended.errors().len()), (3000, 0));
    ended.assert_log(&broker, 3);
    for line in ended.successes() {
        let key = line["key"].as_str().unwrap();
        assert_eq!(key.parse::<u64>().unwrap(), number(&line["value"]).unwrap() % 7);
        let partition = partition_for_key(key.as_bytes(), 3);
        assert_eq!(line["partition"], partition);
    }
}

#[test]
fn a_signal_ends_an_endless_run_and_nothing_is_lost() {
    for signal in ["TERM", "INT"] {
        let broker = broker(3, BrokerOptions::default());
        let mut run = Run::on(&broker, &[]);
        assert_eq!(run.line()["name"], "startup_complete");
        for _ in 0..3000 {
            assert_eq!(run.line()["name"], "producer_send_success");
        }
        run.signal(signal);
        let ended = run.end();
        assert!(ended.assert_clean() >= 3000, "{signal}");
        assert_eq!(ended.errors().len(), 0, "{signal}");
        ended.assert_log(&broker, 3);
    }
}

#[test]
fn a_line_comes_at_once_and_a_signal_wakes_the_throttle() {
    let broker = broker(1, BrokerOptions::default());
    for (throughput, target) in [("0", 0), ("1", 1)] {
        let mut run = Run::on(&broker, &["--throughput", throughput]);
        run.line();
        assert_eq!(run.line()["value"], "0");
        run.signal("TERM");
        let ended = run.end();
        assert!(ended.assert_clean() >= 1);
        assert_eq!(ended.lines.last().unwrap()["target_throughput"], target);
    }
}

#[test]
fn the_throughput_holds() {
    let broker = broker(1, BrokerOptions::default());
    let started = Instant::now();
    let ended = Run::on(&broker, &["--throughput", "200", "--max-messages", "100"]).end();
    assert_eq!(ended.assert_clean(), 100);
    assert!(started.elapsed() >= Duration::from_millis(490), "100 records at 200/s came too fast");
    let average = ended.lines.last().unwrap()["avg_throughput"].as_f64().unwrap();
    assert!(average > 0.0 && average < 210.0, "{average}");
}

#[test]
fn lost_answers_are_possibly_written() {
    // The first batch is stored, and nobody says so.
    let fault = |batch: &ProduceContext<'_>| match batch.nth {
        0 => Fault::CloseAfter,
        _ => Fault::None,
    };
    let broker = broker(1, BrokerOptions::default().on_produce(fault));
    let file = Properties::new("lost", "retries=0\n");
    let mut run = Run::on(&broker, &["--throughput", "100", "--command-config", file.path()]);
    while run.line()["name"] != "producer_send_success" {}
    run.signal("TERM");
    let ended = run.end();
    ended.assert_clean();
    let line = ended.errors()[0];
    assert_eq!(line["exception"], "class org.apache.kafka.common.errors.NetworkException", "{line}");
    assert_eq!((&line["value"], &line["written"]), (&"0".into(), &"possibly".into()));
    assert_eq!(text(&broker.log("t", 0)[0].value), "0", "possibly was: indeed");
    ended.assert_log(&broker, 1);
}

#[test]
fn our_own_defaults_retry_without_duplicates() {
    let fault = |batch: &ProduceContext<'_>| match batch.nth % 3 {
        0 => Fault::CloseAfter,
        1 => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
        _ => Fault::None,
    };
    let broker = broker(2, BrokerOptions::default().on_produce(fault));
    let ended = Run::on(&broker, &["--max-messages", "500", "--repeating-keys", "5"]).end();
    assert_eq!((ended.assert_clean(), ended.errors().len()), (500, 0), "{:?}", ended.errors());
    ended.assert_log(&broker, 2);
}

#[test]
fn a_silent_broker_ends_the_wait_of_a_signal_by_delivery_timeout() {
    let broker = broker(1, BrokerOptions::default().on_produce(|_| Fault::HangBefore));
    let timeouts = "delivery.timeout.ms=900\nrequest.timeout.ms=800\nlinger.ms=0\n";
    let file = Properties::new("silent", timeouts);
    let mut run = Run::on(&broker, &["--throughput", "500", "--command-config", file.path()]);
    run.line();
    run.signal("TERM");
    let ended = run.end();
    ended.assert_clean();
    for line in ended.errors() {
        assert_eq!(line["exception"], TIMEOUT, "{line}");
        assert!(["no", "possibly"].contains(&line["written"].as_str().unwrap()), "{line}");
    }
    assert!(ended.successes().is_empty());
}

#[test]
fn a_second_signal_does_not_wait() {
    let broker = broker(1, BrokerOptions::default().on_produce(|_| Fault::HangAfter));
    let mut run = Run::on(&broker, &["--throughput", "100"]);
    run.line();
    while broker.log("t", 0).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    run.signal("TERM");
    run.hear("again: do not wait");
    run.signal("TERM");
    let ended = run.end();
    assert_eq!(ended.code, Some(130));
    assert!(ended.stderr.contains("possibly written"), "{}", ended.stderr);
    assert_eq!(ended.lines.len(), 1, "{:?}", ended.lines);
}

#[test]
fn records_refused_at_the_door_have_their_line_too() {
    let broker = broker(1, BrokerOptions::default());
    let file = Properties::new("door", "max.block.ms=1000\n");
    let servers = broker.bootstrap();
    let args = ["--bootstrap-server", &servers, "--topic", "absent", "--command-config", file.path()];
    let ended = Run::start(&[&args[..], &["--max-messages", "2"]].concat()).end();
    assert_eq!(ended.assert_clean(), 2);
    let errors = ended.errors();
    for (line, value) in errors.iter().zip(["0", "1"]) {
        assert_eq!((&line["exception"], &line["written"]), (&TIMEOUT.into(), &"no".into()));
        assert_eq!((&line["topic"], &line["value"]), (&"absent".into(), &value.into()));
    }
    assert!(errors[1]["message"].as_str().unwrap().contains("'absent' does not exist"), "{}", errors[1]);
}

#[test]
fn a_signal_wakes_a_send_that_waits_for_a_broker() {
    let broker = broker(1, BrokerOptions::default());
    let servers = broker.bootstrap();
    broker.shutdown();
    let mut run = Run::start(&["--bootstrap-server", &servers, "--topic", "t"]);
    assert_eq!(run.line()["name"], "startup_complete");
    run.signal("TERM");
    let ended = run.end();
    assert_eq!(ended.assert_clean(), 0, "what was never taken is not counted");
    assert_eq!(ended.lines.last().unwrap()["avg_throughput"], 0.0);
}

#[test]
fn a_closed_output_ends_the_run() {
    let broker = broker(1, BrokerOptions::default());
    let mut run = Run::on(&broker, &[]);
    run.line();
    run.line();
    run.out = Box::new(std::io::empty());
    let ended = run.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("standard output was closed"), "{}", ended.stderr);
}

#[test]
fn mistakes_are_told_before_anything_is_sent() {
    let broker = broker(1, BrokerOptions::default());
    let servers = broker.bootstrap();
    let [misspelt, contradiction] = [("bad", "linger.msec=5\n"), ("contra", "acks=1\nenable.idempotence=true\n")]
        .map(|(name, content)| Properties::new(name, content));
    let cases: [(&[&str], &str); 9] = [
        (&["--command-config", misspelt.path()], "did you mean linger.ms"),
        (&["--command-config", contradiction.path()], "enable.idempotence=true needs acks=all"),
        (&["--command-config", "/no/such/file"], "/no/such/file"),
        (&["--acks", "2"], "--acks"),
        (&["--repeating-keys", "0"], "--repeating-keys"),
        (&["--value-prefix", "a"], "--value-prefix"),
        (&["--message-create-time", "-5"], "--message-create-time"),
        (&["--throughput", "fast"], "--throughput"),
        (&["--no-such-option"], "--no-such-option"),
    ];
    for (args, words) in cases {
        let ended = Run::on(&broker, args).end();
        assert!(ended.code == Some(2) && ended.stderr.contains(words), "{args:?}: {:?} {}", ended.code, ended.stderr);
        assert!(ended.lines.is_empty(), "{args:?}");
    }
    let ended = Run::start(&["--bootstrap-server", &servers, "--topic", "a b", "--max-messages", "1"]).end();
    assert!(ended.code == Some(2) && ended.stderr.contains("a b"), "{}", ended.stderr);
    for missing in [["--topic", "t"], ["--bootstrap-server", &servers]] {
        assert_eq!(Run::start(&missing).end().code, Some(2));
    }
    assert!(broker.log("t", 0).is_empty());
}
