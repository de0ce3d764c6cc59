//! `ringmail bench` as a user runs it: what it counts, how it ends, and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringmail::ErrorCode;
use ringmail::testing::{Broker, BrokerOptions, Fault, ProduceContext};
use serde_json::Value;

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
    command.arg("bench").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn bench(args: &[&str]) -> Output {
    start(args).wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output: one object on one line.
fn json(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{output:?}");
    serde_json::from_str(&text).unwrap()
}

fn broker(hook: impl FnMut(&ProduceContext<'_>) -> Fault + Send + 'static) -> Broker {
    let broker = Broker::start(BrokerOptions::default().on_produce(hook)).unwrap();
    assert!(broker.create_topic("t", 3));
    broker
}

/// Presses Ctrl-C once.
fn press_ctrl_c(child: &Child) {
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap().success());
}

fn interrupted(child: Child) -> Output {
    press_ctrl_c(&child);
    child.wait_with_output().unwrap()
}

/// Waits for something that another process does.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process is gone; one that nobody has waited for yet (`Z`) counts as gone.
fn is_gone(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

/// Address and process id of the embedded broker, from what is said of it.
fn embedded(said: &str) -> (String, String) {
    let after = |words: &str| said.split(words).nth(1).unwrap_or_else(|| panic!("{said}"));
    let address = after("embedded broker at ").split(',').next().unwrap();
    let id = after("process of its own (").split(')').next().unwrap();
    (address.to_string(), id.to_string())
}

#[test]
fn json_has_exactly_its_keys_in_order() {
    for more in [&["--threads", "2"][..], &["--rate", "50000", "--driver", "epoll"]] {
        let output = bench(&[&["-n", "3000", "--json"], more].concat());
        let said = stderr(&output);
        assert_eq!(code(&output), 0, "{said}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let keys: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        let quantiles = ["p50", "p99", "p999", "max"];
        let expected = [
            &["records", "errors", "seconds", "records_per_s", "mb_per_s", "cpu_s", "cpu_s_per_million", "max_rss_kib"],
            &["send_ns"][..],
            &quantiles,
            &["ack_us"],
            &quantiles,
            &["allocations_per_record", "driver"],
        ]
        .concat();
        // The driver's name is the last string.
        assert_eq!(keys[..keys.len() - 1], expected, "{text}");

        let figures = json(&output);
        assert_eq!((figures["records"].as_u64(), figures["errors"].as_u64()), (Some(3000), Some(0)));
        let driver = figures["driver"].as_str().unwrap();
        assert!(if more.contains(&"epoll") { driver == "epoll" } else { ["io_uring", "epoll"].contains(&driver) });
        for key in ["seconds", "records_per_s", "mb_per_s", "cpu_s", "cpu_s_per_million", "max_rss_kib"] {
            assert!(figures[key].as_f64().unwrap() > 0.0, "{key} in {text}");
        }
        for name in ["send_ns", "ack_us"] {
            let values: Vec<f64> = quantiles.iter().map(|q| figures[name][q].as_f64().unwrap()).collect();
            assert!(values.is_sorted() && values[3] > 0.0, "{name} in {text}");
        }
        let rate = figures["records"].as_f64().unwrap() / figures["seconds"].as_f64().unwrap();
        assert!((figures["records_per_s"].as_f64().unwrap() / rate - 1.0).abs() < 0.01, "{text}");
        assert!((figures["mb_per_s"].as_f64().unwrap() / (rate * 1e-4) - 1.0).abs() < 0.01, "{text}");
        assert_eq!(said.contains("after they were due"), more.contains(&"--rate"), "{said}");
        assert!(said.contains("reading the clock takes") && said.contains("embedded broker"), "{said}");
    }
}

#[test]
fn what_is_sent_is_what_was_asked_for() {
    let broker = broker(|_| Fault::None);
    let args = ["-b", &broker.bootstrap(), "-t", "t", "-n", "1001", "--size", "77", "--key-size", "5"];
    let output = bench(&[&args[..], &["--threads", "3", "--partitions", "2", "--warm-up", "10", "-q"]].concat());
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["values of 77 bytes, keys of 5 bytes", "3 threads", "records/s", "1,001", "send (ns)", "ack (µs)"] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let logs: Vec<_> = (0..3).map(|partition| broker.log("t", partition)).collect();
    // One record to each partition, the warm-up's ten, and what is measured: in turn to the first two.
    assert_eq!(logs.iter().map(Vec::len).sum::<usize>(), 3 + 10 + 1001);
    assert_eq!(logs[2].len(), 1);
    assert!(logs[0].len().abs_diff(logs[1].len()) <= 8, "{} and {}", logs[0].len(), logs[1].len());
    let right = |r: &ringmail::testing::StoredRecord| {
        r.value.as_ref().is_some_and(|v| v.len() == 77) && r.key.as_ref().is_some_and(|k| k.len() == 5)
    };
    assert!(logs.iter().flatten().all(right));
}

/// A broker that is too slow for the rate: each batch holds 16 records at most and takes 25 ms, and only about 64
/// records fit into memory. All records are due within 7 ms, so half of them wait for 20 batches or more. Were their
/// time counted from when there was room for them, none would seem to wait for more than about 5.
#[test]
fn a_stall_shows_in_every_record_that_was_due() {
    let broker = broker(|_| Fault::Delay(Duration::from_millis(25)));
    let args = ["-b", &broker.bootstrap(), "-t", "t", "--partitions", "1", "-n", "640", "--size", "1000", "--json"];
    let limits = ["-X", "buffer.memory=65536", "-X", "max.request.size=16384", "-X", "batch.size=16384"];
    let output = bench(&[&args[..], &limits, &["--rate", "100000", "--warm-up", "1"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let figures = json(&output);
    assert_eq!(figures["records"].as_u64(), Some(640));
    assert!(figures["seconds"].as_f64().unwrap() >= 40.0 * 0.025, "{figures}");
    assert!(figures["ack_us"]["p50"].as_f64().unwrap() >= 400_000.0, "{figures}");
}

#[test]
fn records_that_fail_are_counted_and_explained() {
    // One record to each of three partitions and a warm-up of 100 go through, then about 500 of those that count.
    let mut seen = 0;
    let broker = broker(move |batch| {
        seen += batch.count;
        if seen <= 600 { Fault::None } else { Fault::Error(ErrorCode::INVALID_RECORD) }
    });
    let args = ["-b", &broker.bootstrap(), "-t", "t", "--json", "--warm-up", "100", "-n", "20000", "--rate", "20000"];
    let output = bench(&args);
    let (figures, said) = (json(&output), stderr(&output));
    assert_eq!(code(&output), 1, "{said}");
    let (records, errors) = (figures["records"].as_u64().unwrap(), figures["errors"].as_u64().unwrap());
    assert!(records + errors == 20_000 && errors > 0, "{figures}");
    let stored: usize = (0..3).map(|partition| broker.log("t", partition).len()).sum();
    assert_eq!(records as usize, stored - 103, "{figures}");
    assert!(said.contains(&format!("{errors} records failed: ")) && said.contains("INVALID_RECORD"), "{said}");
}

#[test]
fn a_warm_up_that_fails_is_the_result() {
    let broker = broker(|_| Fault::Error(ErrorCode::INVALID_RECORD));
    let output = bench(&["-b", &broker.bootstrap(), "-t", "t", "--json", "-n", "1000"]);
    let (figures, said) = (json(&output), stderr(&output));
    assert_eq!((code(&output), figures["records"].as_u64(), figures["errors"].as_u64()), (1, Some(0), Some(3)));
    assert!(said.contains("INVALID_RECORD") && said.contains("nothing was measured"), "{said}");
    let output = bench(&["--size", "2000000", "-n", "10", "--json"]);
    assert!(code(&output) == 1 && stderr(&output).contains("max.request.size"), "{output:?}");
}

/// At a rate every record's answer is heard, however the caller hears.
#[test]
fn every_way_to_hear_counts_what_failed() {
    for handle in ["tag", "delivery", "callback"] {
        for rate in [None, Some("20000")] {
            let mut seen = 0;
            let broker = broker(move |batch| {
                seen += batch.count;
                if seen <= 1100 { Fault::None } else { Fault::Error(ErrorCode::INVALID_RECORD) }
            });
            let servers = broker.bootstrap();
            let args = ["-b", &servers, "-t", "t", "--json", "--handle", handle, "--warm-up", "100", "-n", "5000"];
            let output = bench(&[&args[..], &rate.map_or(vec![], |rate| vec!["--rate", rate])].concat());
            let (figures, said) = (json(&output), stderr(&output));
            assert!(code(&output) == 1 && said.contains("INVALID_RECORD"), "{handle} {rate:?}: {output:?}");
            let (records, errors) = (figures["records"].as_u64().unwrap(), figures["errors"].as_u64().unwrap());
            assert_eq!(records + errors, 5000, "{handle} {rate:?}");
            let stored: u64 = (0..3).map(|partition| broker.log("t", partition).len() as u64).sum();
            if handle == "delivery" && rate.is_none() {
                assert!(records >= stored - 103 && errors > 0, "{figures}");
            } else {
                assert_eq!(records, stored - 103, "{handle} {rate:?}");
            }
            // Where the first batch took more than it may, nothing was delivered.
            let acks = figures["ack_us"]["p50"].as_f64().unwrap() > 0.0;
            assert_eq!(acks, stored > 103, "{handle} {rate:?}: {figures}");
        }
    }
}

/// With a broker that stops to answer, the first Ctrl-C waits a little and tells what nobody knows.
#[test]
fn ctrl_c_does_not_wait_for_ever() {
    let interrupt = |handle: &str| {
        let mut seen = 0;
        let broker = broker(move |batch| {
            seen += batch.count;
            if seen <= 200 { Fault::None } else { Fault::HangBefore }
        });
        let args = ["--rate", "500", "-n", "1000000", "--warm-up", "10", "--json", "--handle", handle];
        let child = start(&[&["-b", &broker.bootstrap(), "-t", "t"], &args[..]].concat());
        wait_for("the run does not begin", || broker.stats().records > 100);
        std::thread::sleep(Duration::from_millis(500));
        let output = interrupted(child);
        let figures = json(&output);
        assert!(code(&output) == 130 && figures["errors"].as_u64().unwrap() > 0, "{output:?}");
        let stored: u64 = (0..3).map(|partition| broker.log("t", partition).len() as u64).sum();
        assert_eq!(figures["records"].as_u64(), Some(stored - 13));
        assert!(stderr(&output).contains("never got an answer"), "{output:?}");
    };
    std::thread::scope(|scope| {
        ["tag", "delivery", "callback"].map(|handle| scope.spawn(move || interrupt(handle))).len()
    });
}

#[test]
fn ctrl_c_in_the_warm_up_ends_the_command() {
    let (came, comes) = channel();
    let broker = broker(move |_| {
        let _ = came.send(());
        Fault::HangBefore
    });
    let child = start(&["-b", &broker.bootstrap(), "-t", "t", "--json"]);
    comes.recv_timeout(Duration::from_secs(30)).unwrap();
    let output = interrupted(child);
    assert!(code(&output) == 130 && output.stdout.is_empty(), "{output:?}");
    assert!(stderr(&output).contains("nothing was measured"), "{output:?}");
}

#[test]
fn a_second_ctrl_c_does_not_wait() {
    let (came, comes) = channel();
    let broker = broker(move |_| {
        let _ = came.send(());
        Fault::HangBefore
    });
    let mut child = start(&["-b", &broker.bootstrap(), "-t", "t", "-q"]);
    comes.recv_timeout(Duration::from_secs(30)).unwrap();
    press_ctrl_c(&child);
    let mut said = String::new();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    reader.read_line(&mut said).unwrap();
    assert!(said.contains("again: do not wait"), "{said}");
    press_ctrl_c(&child);
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().code() == Some(130) && !said.contains("nothing was measured"), "{said}");
}

#[test]
fn ctrl_c_shows_what_was_measured() {
    let broker = broker(|_| Fault::None);
    let child = start(&["-b", &broker.bootstrap(), "-t", "t", "--rate", "500", "-n", "1000000", "--json"]);
    // One to each partition, a second's worth of warm-up, and some that count.
    wait_for("the run does not begin", || broker.stats().records > 3 + 500 + 50);
    let output = interrupted(child);
    let figures = json(&output);
    assert_eq!((code(&output), figures["errors"].as_u64()), (130, Some(0)), "{output:?}");
    let stored: u64 = (0..3).map(|partition| broker.log("t", partition).len() as u64).sum();
    assert_eq!(figures["records"].as_u64(), Some(stored - 503));
}

#[test]
fn the_brokers_process_ends_with_the_command() {
    let output = bench(&["-n", "1000"]);
    let (address, id) = embedded(&stderr(&output));
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(is_gone(&id) && TcpStream::connect(address).is_err());
}

#[test]
fn the_brokers_process_ends_when_the_command_is_killed() {
    let mut child = start(&["--rate", "10", "-n", "100000"]);
    let mut said = String::new();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    reader.by_ref().read_line(&mut said).unwrap();
    let (address, id) = embedded(&said);
    assert!(!is_gone(&id) && TcpStream::connect(&address).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the broker's process outlives its parent", || is_gone(&id));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn mistakes_have_words_and_codes_of_their_own() {
    let broker = broker(|_| Fault::None);
    let servers = broker.bootstrap();
    let at = ["-b", &servers, "-t", "t", "-n", "10"];
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--rate", "0"], 2, "records per second"),
        (&["--rate", "NaN"], 2, "records per second"),
        (&["--threads", "0"], 2, "--threads"),
        (&["--partitions", "4"], 2, "has only 3"),
        (&["-X", "linger.msec=5"], 2, "did you mean linger.ms"),
        (&["-F", "/no/such/file"], 2, "/no/such/file"),
    ];
    for (args, expected, words) in cases {
        let output = bench(&[&at[..], args].concat());
        assert!(code(&output) == expected && stderr(&output).contains(words), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    drop(broker);
    let output = bench(&[&at[..], &["-X", "max.block.ms=700", "--json"]].concat());
    assert!(code(&output) == 3 && stderr(&output).contains("efused"), "{output:?}");
}
