//! `ringmail produce` against brokers that do everything wrong: it ends in its time, says who and what, with an exit
//! code that tells, in bounded memory, without spinning and without a storm of connections.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../tests/hostile/cases.rs"]
mod cases;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use cases::{Case, End, SETTINGS, TOPIC};

/// Much longer than any case takes, for machines that are busy otherwise.
const PATIENCE: Duration = Duration::from_secs(90);
/// Beyond `buffer.memory`: the program itself, its threads' stacks, and an answer of some MB, read and taken apart.
const MEMORY_BEYOND: u64 = 64 << 20;
/// More than the library's test has, for sixty commands run at once, and a busy machine takes its time for 100,000 topics;
/// less than delivery.timeout.ms, after which no throttle counts.
const LIMIT: &str = "max.block.ms=3000";
/// Half of it: so long before it ends, a client of its own asks why there is no broker.
const DIAGNOSIS: Duration = Duration::from_millis(1500);

/// How a child ended, and what it took.
struct Ended {
    code: Option<i32>,
    stderr: String,
    took: Duration,
    /// The most memory it ever had, in bytes, and its CPU time; as last seen, some milliseconds before its end.
    memory: u64,
    cpu: Duration,
}

/// Peak memory and CPU time of a process that runs.
fn look(id: u32) -> Option<(u64, Duration)> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // After the name, which may hold anything: state is field 3, utime 14, stime 15, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
    Some((kib << 10, Duration::from_millis(ticks * 10)))
}

/// Runs `ringmail produce` to its end; one that does not end is killed.
fn produce(servers: &str, input: &[u8]) -> Result<Ended, String> {
    let settings = SETTINGS.iter().flat_map(|(key, value)| ["-X".to_owned(), format!("{key}={value}")]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
    command.args(["produce", "-b", servers, "-t", TOPIC]).args(settings).args(["-X", LIMIT]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child: Child = command.spawn().unwrap();
    // It may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    let (mut memory, mut cpu) = (0, Duration::ZERO);
    let status = loop {
        (memory, cpu) = look(child.id()).unwrap_or((memory, cpu));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err("it hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let took = started.elapsed();
    let mut stderr = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    Ok(Ended { code: status.code(), stderr: String::from_utf8_lossy(&stderr).into_owned(), took, memory, cpu })
}

/// Runs one case, and tells what was wrong with it.
fn run(mut case: Case) -> Result<(), String> {
    let broker = cases::start(&mut case);
    let address = broker.address().to_string();
    let lines: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let ended = produce(&address, (lines.join("\n") + "\n").as_bytes())?;
    let said = &ended.stderr;
    let (code, words) = match case.end {
        End::Delivered => (0, &[][..]),
        End::NotReady(words) | End::NotReadyYet(words) => (3, words),
        End::Failed(words) => (1, words),
    };
    if ended.code != Some(code) {
        return Err(format!("exit code {:?}, not {code}: {said}", ended.code));
    }
    // A leader elsewhere is named in place of the broker.
    let elsewhere = code == 0 || words.iter().any(|word| word.contains(':'));
    let names = words.iter().copied().chain((!elsewhere).then_some(&*address));
    if let Some(word) = names.into_iter().find(|word| !said.contains(word)) {
        return Err(format!("'{word}' is not in: {said}"));
    }
    if said.contains("panicked") || said.len() > 4000 || said.contains(|c: char| c.is_control() && c != '\n') {
        return Err(format!("unfit to be shown: {:?}", said.chars().take(5000).collect::<String>()));
    }
    if code == 0 {
        let log = broker.with_model(|model| model.records(TOPIC, 0));
        let stored: Vec<String> = log.into_iter().map(|r| String::from_utf8(r.value.unwrap()).unwrap()).collect();
        if stored != lines {
            return Err(format!("the log has {stored:?}"));
        }
    }
    let (connections, most) =
        (broker.accepted(), cases::connections_max(ended.took) + cases::connections_max(DIAGNOSIS));
    if connections > most {
        return Err(format!("{connections} connections in {:?}, backoffs allow {most}", ended.took));
    }
    let buffer = SETTINGS.iter().find(|(key, _)| *key == "buffer.memory").unwrap().1;
    if ended.memory > buffer.parse::<u64>().unwrap() + MEMORY_BEYOND {
        return Err(format!("it took {} MiB", ended.memory >> 20));
    }
    // No judgement of speed: whoever spins uses all of the wall clock's time, whoever waits almost nothing.
    if ended.cpu > ended.took / 4 + Duration::from_secs(2) {
        return Err(format!("{:?} of CPU in {:?}", ended.cpu, ended.took));
    }
    Ok(())
}

/// All cases at once: most of their time they wait.
#[test]
fn every_case() {
    let only = std::env::var("CASE").unwrap_or_default();
    let (done, results) = channel();
    let mut running = 0;
    for case in cases::cases().into_iter().filter(|case| case.name.contains(&only)) {
        let done = done.clone();
        running += 1;
        std::thread::spawn(move || {
            let name = case.name;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case)));
            let _ = done.send((name, result.unwrap_or_else(|_| Err("a panic of the test".to_owned()))));
        });
    }
    let results: Vec<_> = (0..running).map(|_| results.recv().unwrap()).collect();
    let findings: Vec<String> =
        results.into_iter().filter_map(|(name, result)| Some(format!("{name}: {}", result.err()?))).collect();
    assert!(findings.is_empty(), "{} findings:\n{}\n", findings.len(), findings.join("\n"));
}

/// The two commonest mistakes in `bootstrap.servers`.
#[test]
fn nobody_there_and_no_such_host() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    for (servers, words) in [(&*closed, "refused"), ("no-such-host.invalid:9092", "lookup")] {
        let ended = produce(servers, b"line\n").unwrap();
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        // The library has said it all, so that nothing is said twice.
        assert_eq!(ended.stderr.matches(servers).count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(words) && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    // A server that is there helps out.
    let mut case = cases::cases().into_iter().find(|case| case.name == "answers byte by byte").unwrap();
    let broker = cases::start(&mut case);
    let ended = produce(&format!("{closed},no-such-host.invalid:9092,{}", broker.address()), b"line\n").unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
