//! Every call in every state of a producer's life, as one table: what comes back, and whether the call has waited for what
//! it should. ARCHITECTURE.md shows the same table.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use super::*;
use crate::driver::fork::Origin;
use crate::error::CloseReport;
use crate::producer::{Claim, Open};
use crate::{DeliveryError, RecordMetadata, UndeliverableSink, UndeliveredRecord};

/// No call takes longer, unless it takes for ever.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long the broker holds back its answer.
const ANSWER: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// One record is on its way; it will be answered.
    Running,
    /// The same, and a close is under way.
    Closing,
    /// A close has returned, and has left that record behind.
    Closed,
    /// The sender died with that record on its way.
    Panicked,
    /// In a child process: no thread of the producer runs there.
    Forked,
}

const STATES: [State; 5] = [State::Running, State::Closing, State::Closed, State::Panicked, State::Forked];

/// What each call comes to. "waits": it returns only once the record on its way has its end, and that was told; a close
/// also waits for the sink's last call.
const TABLE: &str = "\
| call | running | closing | closed | panicked | forked |
|---|---|---|---|---|---|
| `send`, `send_async`, `claim` | ok | Closed | Closed | SenderPanicked | Forked |
| `try_send`, `try_claim` | ok | Closed | Closed | SenderPanicked | Forked |
| `commit`, `try_commit` of an earlier claim | ok | Closed | Closed | SenderPanicked | Forked |
| `flush`, `flush_async` | waits, ok | waits, ok | ok | SenderPanicked | Forked |
| `close`, `close_async` | waits, clean | waits, clean | 1 left | waits, SenderPanicked | Forked |
| `close` by two threads | waits, clean | waits, clean | 1 left | waits, SenderPanicked | Forked |
| `flush` while another thread closes | waits, ok | waits, ok | ok | SenderPanicked | Forked |
| dropping the last producer | waits | waits | returns | waits | returns |
| in a callback or sink: `try_send` | ok | Closed | Closed | SenderPanicked | Forked |
| in a callback or sink: `flush`, `close` | WouldDeadlock | WouldDeadlock | WouldDeadlock | WouldDeadlock | WouldDeadlock |
| in a callback or sink: dropping the last producer | returns | returns | returns | returns | returns |
";

fn words(result: Result<(), SendError>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:?}").split([' ', '{', '(']).next().unwrap().to_owned(),
    }
}

fn report(result: Result<CloseReport, SendError>) -> String {
    match result {
        Ok(report) if report.is_clean() => "clean".to_owned(),
        Ok(report) => format!("{} left", report.records()),
        Err(error) => words(Err(error)),
    }
}

/// The same, or all of them.
fn one_of(results: impl IntoIterator<Item = String>) -> String {
    let mut all: Vec<String> = results.into_iter().collect();
    all.dedup();
    all.join(" / ")
}

fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = crate::sync::wait_list::thread_waker();
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// The sink's last call takes its time, so that whoever does not wait for it is seen.
struct Sink(Arc<AtomicBool>);

impl UndeliverableSink for Sink {
    fn undeliverable(&mut self, _: UndeliveredRecord<'_>) {}

    fn finish(&mut self, _: Duration) {
        std::thread::sleep(Duration::from_millis(30));
        self.0.store(true, Ordering::Release);
    }
}

/// A producer in one of the states.
struct Stage {
    state: State,
    producer: Option<Producer>,
    topic: Topic,
    /// Made before the state was entered, for the row that needs them: a close waits for a claim.
    claims: Vec<Claim>,
    /// The record that was on its way has its end, and its callback has run.
    told: Arc<AtomicBool>,
    finished: Arc<AtomicBool>,
    _broker: Broker,
}

impl Stage {
    fn new(state: State) -> Self {
        Self::with_claims(state, 0)
    }

    fn with_claims(state: State, claims: usize) -> Self {
        let flag = || Arc::new(AtomicBool::new(false));
        let (told, finished) = (flag(), flag());
        let (tell, arrived) = channel();
        let topic = TopicOptions { partitions: 1, ..TopicOptions::default() };
        let options = BrokerOptions { topic, ..BrokerOptions::default() };
        let hold = move |_: &ProduceContext<'_>| {
            let _ = tell.send(());
            if matches!(state, State::Closed | State::Panicked) { Fault::HangBefore } else { Fault::Delay(ANSWER) }
        };
        let broker = Broker::start(options.on_produce(hold)).unwrap();
        let producer = Producer::builder()
            .bootstrap_servers(&broker.bootstrap())
            .linger(Duration::ZERO)
            .max_block(PATIENCE)
            .close_timeout(PATIENCE)
            .on_undeliverable(Sink(finished.clone()))
            .build()
            .unwrap();
        let topic = producer.topic("t").unwrap();
        producer.warm_up(&["t"]).unwrap();
        let claims = (0..claims).map(|_| topic.claim(1, None, &[]).unwrap()).collect();
        let tell = told.clone();
        let callback = move |_: Result<RecordMetadata, DeliveryError>| {
            std::thread::sleep(Duration::from_millis(30));
            tell.store(true, Ordering::Release);
        };
        topic.send_with(Record::value("on its way"), callback).unwrap();
        arrived.recv_timeout(PATIENCE).unwrap();
        let mut stage = Self { state, producer: Some(producer), topic, claims, told, finished, _broker: broker };
        match state {
            State::Running => {}
            State::Closing => {
                drop(stage.producer().close_async(PATIENCE));
                // What comes before the sender knows is taken, and delivered.
                while stage.topic.try_send(Record::value("in between")).is_ok() {}
            }
            State::Closed => {
                assert_eq!(report(stage.producer().close(Duration::from_millis(10))), "1 left");
                assert!(stage.is_settled(true));
            }
            State::Panicked => {
                stage.topic.core().shared.command(Command::Panic);
                while stage.topic.core().check_life() != Err(SendError::SenderPanicked) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            State::Forked => stage.fork(),
        }
        stage
    }

    /// What a child has of it: no thread.
    fn fork(&mut self) {
        let builder = Producer::builder().bootstrap_servers("127.0.0.1:1").close_timeout(PATIENCE);
        let (mut core, ..) = builder.assemble(1).unwrap();
        Arc::get_mut(&mut core).unwrap().origin = Origin::elsewhere();
        let child = core.shared.topic("t");
        self.topic = Topic::new(core.clone(), child);
        self.claims = self.claims.drain(..).map(|claim| claim.at(self.topic.clone())).collect();
        let open = Open { core, sender: Mutex::new(None), driver_name: "none" };
        self.producer = Some(Producer { open: Arc::new(open) });
    }

    fn producer(&self) -> &Producer {
        self.producer.as_ref().unwrap()
    }

    fn is_settled(&self, closes: bool) -> bool {
        self.told.load(Ordering::Acquire) && (!closes || self.finished.load(Ordering::Acquire))
    }

    /// "waits", if the call came back only once everything was settled that was not before.
    fn waits(&mut self, closes: bool, call: impl FnOnce(&mut Self) -> String) -> String {
        let before = self.is_settled(closes);
        let came = call(self);
        let waited = !before && self.is_settled(closes) && self.state != State::Forked;
        match (waited, came.as_str()) {
            (true, "") => "waits".to_owned(),
            (false, "") => "returns".to_owned(),
            (true, came) => format!("waits, {came}"),
            (false, _) => came,
        }
    }

    /// On a thread that counts as that of callbacks and sinks.
    fn in_callback<R: Send>(&mut self, call: impl FnOnce(&mut Self) -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _entered = crate::completion::callback_thread::enter();
                call(self)
            });
            thread.join().unwrap()
        })
    }
}

type Call = fn(State) -> String;

/// A row of the table: everything that it names, each on a stage of its own.
const ROWS: [Call; 11] = [
    |state| {
        let calls: [fn(&Topic) -> Result<(), SendError>; 3] = [
            |topic| topic.send(Record::value("x")).map(drop),
            |topic| wait(topic.send_async(Record::value("x"))).map(drop),
            |topic| topic.claim(1, None, &[]).map(drop),
        ];
        one_of(calls.map(|call| words(call(&Stage::new(state).topic))))
    },
    |state| {
        let calls: [fn(&Topic) -> Result<(), SendError>; 2] = [
            |topic| topic.try_send(Record::value("x")).map(drop).map_err(SendError::from),
            |topic| topic.try_claim(Record::new(), 1).map(drop),
        ];
        one_of(calls.map(|call| words(call(&Stage::new(state).topic))))
    },
    |state| {
        let mut stage = Stage::with_claims(state, 2);
        let (one, other) = (stage.claims.pop().unwrap(), stage.claims.pop().unwrap());
        one_of([words(one.commit().map(drop)), words(other.try_commit().map(drop).map_err(|(_, error)| error))])
    },
    |state| {
        let flush = Stage::new(state).waits(false, |stage| words(stage.producer().flush()));
        one_of([flush, Stage::new(state).waits(false, |stage| words(wait(stage.producer().flush_async())))])
    },
    |state| {
        let close = Stage::new(state).waits(true, |stage| report(stage.producer().close(PATIENCE)));
        one_of([close, Stage::new(state).waits(true, |stage| report(wait(stage.producer().close_async(PATIENCE))))])
    },
    |state| {
        Stage::new(state).waits(true, |stage| {
            let producer = stage.producer();
            std::thread::scope(|scope| {
                let threads = [0; 2].map(|_| scope.spawn(|| report(producer.close(PATIENCE))));
                one_of(threads.map(|thread| thread.join().unwrap()))
            })
        })
    },
    |state| {
        Stage::new(state).waits(false, |stage| {
            let producer = stage.producer();
            let closing = producer.close_async(PATIENCE);
            let flushed = words(producer.flush());
            drop(closing);
            flushed
        })
    },
    |state| {
        Stage::new(state).waits(true, |stage| {
            drop(stage.producer.take());
            String::new()
        })
    },
    |state| {
        let send =
            |stage: &mut Stage| words(stage.topic.try_send(Record::value("x")).map(drop).map_err(SendError::from));
        Stage::new(state).in_callback(send)
    },
    |state| {
        Stage::new(state)
            .in_callback(|stage| one_of([words(stage.producer().flush()), report(stage.producer().close(PATIENCE))]))
    },
    |state| {
        Stage::new(state).in_callback(|stage| {
            drop(stage.producer.take());
            if matches!(stage.state, State::Running | State::Closing) && stage.is_settled(true) {
                return "waits".to_owned();
            }
            "returns".to_owned()
        })
    },
];

#[test]
fn every_call_in_every_state() {
    let mut table: Vec<String> = TABLE.lines().take(2).map(str::to_owned).collect();
    for (row, line) in ROWS.iter().zip(TABLE.lines().skip(2)) {
        let name = line.split('|').nth(1).unwrap().trim();
        // Most of a cell's time is waiting.
        let cells = std::thread::scope(|scope| {
            STATES.map(|state| scope.spawn(move || row(state))).map(|cell| cell.join().unwrap())
        });
        table.push(format!("| {name} | {} |", cells.join(" | ")));
    }
    let table = table.join("\n") + "\n";
    println!("{table}");
    assert_eq!(table, TABLE);
    assert!(include_str!("../../../ARCHITECTURE.md").contains(TABLE), "ARCHITECTURE.md shows another table");
}

/// Two closes with different limits: the earlier one ends both, and both hear the same.
#[test]
fn the_earliest_close_counts_for_all() {
    let (broker, arrived) = silent();
    let (producer, topic) = producer(&broker);
    let _outstanding = topic.send(Record::value("x")).unwrap();
    arrived.recv_timeout(PATIENCE).unwrap();
    let patient = producer.close_async(PATIENCE);
    let hasty = producer.close(Duration::from_millis(20)).unwrap();
    assert_eq!((hasty.records(), hasty.possibly_written()), (1, 1));
    assert_eq!(wait(patient).unwrap(), hasty);
    assert_eq!(producer.close(PATIENCE).unwrap(), hasty, "the truth stays");
}

/// A callback that never returns: the close does, its timeout and a moment later.
#[test]
fn a_callback_that_hangs_does_not_hang_a_close() {
    let (broker, arrived) = silent();
    let (producer, topic) = producer(&broker);
    let (release, released) = channel::<()>();
    let held: Mutex<Sender<()>> = Mutex::new(release);
    let hang = move |_: Result<RecordMetadata, DeliveryError>| {
        let _ = released.recv_timeout(PATIENCE);
    };
    topic.send_with(Record::value("x"), hang).unwrap();
    arrived.recv_timeout(PATIENCE).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(report(producer.close(Duration::from_millis(50))), "1 left");
    assert_eq!(report(wait(producer.close_async(Duration::ZERO))), "1 left");
    drop(producer);
    assert!(began.elapsed() < PATIENCE, "not before the callback");
    drop(held);
}
