//! Where io_uring is forbidden the producer runs on epoll, and says so once. A real seccomp filter forbids it, in a
//! process of its own, because a filter cannot be taken off again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_os = "linux")]

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use ringmail::{DriverChoice, Producer};

/// Set in the process that gets the filter: the driver to ask for.
const ASK_FOR: &str = "RINGMAIL_TEST_ASK_FOR";
/// What the forbidding process prints before its findings.
const FOUND: &str = "found: ";

/// How often the log said that epoll is used instead.
static SAID: AtomicUsize = AtomicUsize::new(0);

/// Counts that sentence.
struct Log;

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Sentence;
        impl tracing::field::Visit for Sentence {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if format!("{value:?}").contains("epoll is used instead") {
                    SAID.fetch_add(1, SeqCst);
                }
            }
        }
        event.record(&mut Sentence);
    }
}

/// Forbids io_uring to this thread and all that it starts: `io_uring_setup` fails with EPERM.
fn forbid_io_uring() {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers only; then a program that is a local and is copied by the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// Not a test of its own: what the forbidding process does.
#[test]
#[ignore = "run by the other test, in a process of its own"]
fn in_a_process_without_io_uring() {
    let Ok(ask_for) = std::env::var(ASK_FOR) else { return };
    tracing::subscriber::set_global_default(Log).expect("no other subscriber");
    forbid_io_uring();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let producer = Producer::builder()
        .set("bootstrap.servers", &listener.local_addr().expect("an address").to_string())
        .set("driver", &ask_for)
        .build()
        .expect("a producer");
    let _topic = producer.topic("any").expect("a handle");
    let mut first = [0; 4];
    // It connects, and what comes first is a request's length: the driver works.
    let warm_up = std::thread::spawn({
        let producer = producer.clone();
        move || producer.warm_up(&["any"])
    });
    listener.accept().expect("a connection").0.read_exact(&mut first).expect("a request");
    assert_eq!(first[0], 0, "a request of a sensible length");
    println!("{FOUND}{} {}", producer.driver_name(), SAID.load(SeqCst));
    drop(listener);
    let _ = producer.close(Duration::ZERO);
    let _ = warm_up.join();
}

/// Runs that in a new process; gives the driver's name and how often the log told of the fallback.
fn without_io_uring(ask_for: DriverChoice) -> (String, usize) {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "in_a_process_without_io_uring", "--ignored", "--nocapture", "--test-threads", "1"])
        .env(ASK_FOR, ask_for.name())
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let found = text.split_once(FOUND).unwrap_or_else(|| panic!("nothing found: {text}")).1;
    let mut words = found.split_whitespace();
    (words.next().expect("a name").to_owned(), words.next().expect("a count").parse().expect("a number"))
}

#[test]
fn it_falls_back_to_epoll_and_says_so_once() {
    assert_eq!(without_io_uring(DriverChoice::Auto), ("epoll".to_owned(), 1));
    assert_eq!(without_io_uring(DriverChoice::IoUring), ("epoll".to_owned(), 1));
    assert_eq!(without_io_uring(DriverChoice::Epoll), ("epoll".to_owned(), 0), "nothing to fall back from");
}
