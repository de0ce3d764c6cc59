//! A producer that cannot be built leaves nothing behind, nor does one that was: no thread, no file, no listener. Alone
//! in its process, so that what is open is its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_os = "linux")]

use std::cell::Cell;
use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail::testing::{Broker, BrokerOptions};
use ringmail::{DeliveryError, DriverChoice, Producer, ProducerBuilder, Record, RecordMetadata, UndeliveredRecord};

/// How many threads and files this process has.
fn open() -> (usize, usize) {
    let count = |what| std::fs::read_dir(what).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// With a listener and a sink that hold `token`.
fn builder(servers: &str, driver: DriverChoice, token: &Arc<()>) -> ProducerBuilder {
    let (for_listener, for_sink) = (token.clone(), token.clone());
    Producer::builder()
        .bootstrap_servers(servers)
        .driver(driver)
        .listener(move |_: u64, _: Result<&RecordMetadata, &DeliveryError>| drop(for_listener.clone()))
        .on_undeliverable(move |_: UndeliveredRecord<'_>| drop(for_sink.clone()))
}

/// In a process that may open few files.
#[test]
fn what_was_not_built_and_what_has_ended_leaves_nothing_behind() {
    let script = "ulimit -n 200 && exec \"$0\" \"$@\"";
    let mut child = Command::new("sh");
    child.args(["-c", script]).arg(std::env::current_exe().unwrap());
    let output = child.args(["few_files_process", "--exact", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by the other test in a process of its own"]
fn few_files_process() {
    let broker = Broker::start(BrokerOptions::default()).unwrap();
    let servers = broker.bootstrap();
    let token = Arc::new(());
    let once = |driver| {
        let producer = builder(&servers, driver, &token).build().unwrap();
        producer.topic("t").unwrap().send_tagged(Record::value("x"), 1).unwrap();
        producer.flush().unwrap();
    };
    let drivers = [DriverChoice::IoUring, DriverChoice::Epoll];
    // What is made once per process is made now.
    drivers.into_iter().for_each(once);
    let wait_until = |done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    // The broker's ends of these connections end by themselves.
    let before = {
        let last = Cell::new(open());
        wait_until(&|| {
            std::thread::sleep(Duration::from_millis(300));
            last.replace(open()) == last.get()
        });
        last.get()
    };
    for driver in drivers {
        for (key, value) in
            [("linger.ms", "-1"), ("no.such.key", "1"), ("buffer.memory", "9000000000000000000"), ("acks", "1")]
        {
            let failing = builder(&servers, driver, &token).set("enable.idempotence", "true").set(key, value);
            assert!(failing.build().is_err(), "{key}={value}");
            assert_eq!(Arc::strong_count(&token), 1, "{key}={value}: its listener and its sink are gone");
        }
        // No file left: the configuration is fine, and the system refuses. (An end of the broker's that closes only now
        // would leave one.)
        wait_until(&|| open() == before);
        let used: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let error = builder(&servers, driver, &token).build().unwrap_err().to_string();
        drop(used);
        assert!(error.contains("the system refuses"), "{error}");
        once(driver);
        wait_until(&|| Arc::strong_count(&token) == 1);
        assert_eq!(Arc::strong_count(&token), 1, "{driver:?}: its listener and its sink are gone");
    }
    wait_until(&|| open() == before);
    assert_eq!(open(), before, "threads and files");
}
