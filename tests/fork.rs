//! A forked child has a copy of the producer but no sender thread: its calls fail at once, dropping waits for nobody,
//! and the parent's connection goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_os = "linux")]

use std::io::Read;
use std::net::TcpListener;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ringmail::{Producer, Record, SendError, Topic};

/// What a future says at once.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// What the child found wrong; its exit status.
fn in_child(producer: Producer, topic: Topic) -> i32 {
    let forked = |error: Option<SendError>| matches!(error, Some(SendError::Forked));
    let checks = [
        forked(topic.send(Record::value("x")).err()),
        forked(topic.try_send(Record::value("x")).err().map(SendError::from)),
        forked(topic.send_tagged(Record::value("x"), 1).err()),
        forked(topic.claim(1, None, &[]).err()),
        forked(topic.try_claim(Record::new(), 1).err()),
        forked(at_once(topic.send_async(Record::value("x"))).and_then(Result::err)),
        forked(at_once(producer.flush_async()).and_then(Result::err)),
        forked(at_once(producer.close_async(Duration::from_secs(60))).and_then(Result::err)),
        forked(producer.flush().err()),
        forked(producer.topic("other").err()),
        forked(producer.partitions_for("any").err()),
        forked(producer.warm_up(&["any"]).err()),
        forked(producer.close(Duration::from_secs(60)).err()),
    ];
    drop(topic);
    // Would wait for `close.timeout.ms` in the parent.
    drop(producer);
    checks.iter().position(|right| !right).map_or(0, |wrong| wrong as i32 + 1)
}

#[test]
fn a_child_fails_at_once_and_the_parent_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    for driver in ["auto", "epoll"] {
        let producer = Producer::builder()
            .set("bootstrap.servers", &address.to_string())
            .set("driver", driver)
            .listener(|_: u64, _: Result<&ringmail::RecordMetadata, &ringmail::DeliveryError>| {})
            .build()
            .expect("a producer");
        let topic = producer.topic("any").expect("a handle");
        let warm_up = std::thread::spawn({
            let producer = producer.clone();
            move || producer.warm_up(&["any"])
        });
        let mut stream = listener.accept().expect("a connection").0;
        let mut first = [0; 4];
        stream.read_exact(&mut first).expect("a request");
        // SAFETY: the child runs only this test's code and leaves by `_exit`; glibc keeps its allocator usable.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let wrong = in_child(producer, topic);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(wrong) };
        }
        assert!(child > 0, "no child");
        let (mut status, deadline) = (0, Instant::now() + Duration::from_secs(30));
        // SAFETY: our own child; the status is a local.
        while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
            if Instant::now() > deadline {
                // SAFETY: as above.
                unsafe { libc::kill(child, libc::SIGKILL) };
                panic!("the child hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(libc::WIFEXITED(status), "the child was killed");
        assert_eq!(libc::WEXITSTATUS(status), 0, "the number of the first check that failed");
        // The parent's connection is as it was: the rest of the request arrives, and the end only when it closes.
        let mut request = vec![0; u32::from_be_bytes(first) as usize];
        stream.read_exact(&mut request).expect("the rest of the request");
        let _ = producer.close(Duration::ZERO);
        let _ = warm_up.join();
        drop(stream);
    }
}
