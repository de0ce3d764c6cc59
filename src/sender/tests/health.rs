//! What people are told through `tracing` of how the producer stands: each kind of trouble when it begins, every minute
//! while it lasts, and when it is over; nothing twice, nothing too often, and nothing while all is well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::stage::{Host, Stage, address};
use crate::config::ProducerConfig;
use crate::sender::TopicShared;
use crate::testing::heard::Heard;
use crate::testing::{BrokerOptions, ErrorCode, Fault, TopicOptions};
use crate::wire::header::ApiKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(250);

/// A cluster, a client that sends a record every [`STEP`], and a switch for what goes wrong with batches.
struct Scene {
    stage: Stage,
    topic: Arc<TopicShared>,
    heard: Heard,
    spoilt: Arc<AtomicBool>,
    /// Callers that wait for room.
    waits: bool,
}

fn settings() -> ProducerConfig {
    ProducerConfig::new().linger(MS).buffer_memory(1 << 20)
}

impl Scene {
    /// Every batch gets this answer while the switch is on.
    fn new(brokers: usize, config: ProducerConfig, fault: fn() -> Fault) -> Self {
        let spoilt = Arc::new(AtomicBool::new(false));
        let is_spoilt = spoilt.clone();
        let topic = TopicOptions { partitions: brokers as i32, ..TopicOptions::default() };
        let options = BrokerOptions { brokers, topic, auto_create: false, ..BrokerOptions::default() };
        let options =
            options.on_produce(move |_| if is_spoilt.load(Ordering::Relaxed) { fault() } else { Fault::None });
        let heard = Heard::of("ringmail::health");
        let servers: Vec<String> = (0..brokers).map(|node| format!("127.0.0.1:{}", 1000 + node)).collect();
        let mut stage = Stage::new(options, config, &servers.join(","));
        stage.model.create_topic("t", TopicOptions { partitions: brokers as i32, ..TopicOptions::default() });
        let topic = stage.topic("t");
        Self { stage, topic, heard, spoilt, waits: false }
    }

    fn brokers(&self) -> Vec<SocketAddr> {
        (0..self.topic.count()).map(|node| address(1000 + node as u16)).collect()
    }

    fn spoil(&mut self, on: bool) {
        self.spoilt.store(on, Ordering::Relaxed);
    }

    /// Lets time go by, and sends meanwhile, where there is room.
    fn run(&mut self, time: Duration) {
        let end = self.stage.now + time;
        let mut next = 0;
        while self.stage.now < end {
            next = (next + 1) % self.topic.count();
            drop(self.stage.try_send(&self.topic, next));
            let mut waiting = None;
            if self.waits {
                self.stage.accumulator.room.register(&mut waiting, Waker::noop());
            }
            self.stage.run(STEP);
            self.stage.accumulator.room.deregister(&mut waiting);
        }
    }
}

/// Something that goes wrong and heals. The words are those of the first line, and of the one when it is over.
struct Case {
    name: &'static str,
    brokers: usize,
    config: fn() -> ProducerConfig,
    fault: fn() -> Fault,
    breaks: fn(&mut Scene),
    heals: fn(&mut Scene),
    /// When it must have been told.
    within: Duration,
    begins: &'static str,
    over: &'static str,
}

const NEVER: fn() -> Fault = || Fault::None;

fn cases() -> Vec<Case> {
    let case = |name, begins, over, breaks: fn(&mut Scene), heals: fn(&mut Scene)| Case {
        name,
        brokers: 1,
        config: settings,
        fault: NEVER,
        breaks,
        heals,
        within: 15 * SECOND,
        begins,
        over,
    };
    let on: fn(&mut Scene) = |scene| scene.spoil(true);
    let off: fn(&mut Scene) = |scene| scene.spoil(false);
    let back: fn(&mut Scene) = |scene| {
        for (node, at) in scene.brokers().into_iter().enumerate() {
            scene.stage.hosts.insert(at, Host::Node(node as i32));
        }
    };
    vec![
        Case {
            within: 2 * SECOND,
            ..case(
                "a broker is killed",
                "broker 127.0.0.1:1000 is out of reach: connection refused",
                "broker 127.0.0.1:1000 answers again",
                |scene| scene.stage.kill(&[address(1000)]),
                back,
            )
        },
        case(
            "a broker falls silent",
            "broker 127.0.0.1:1000 is out of reach: no TCP connection within 10000 ms",
            "broker 127.0.0.1:1000 answers again",
            |scene| {
                scene.stage.hosts.insert(address(1000), Host::Silence);
                scene.stage.cut(&[address(1000)]);
            },
            back,
        ),
        Case {
            within: 40 * SECOND,
            ..case(
                "a broker takes requests and never answers",
                "broker 127.0.0.1:1000 does not answer in time: no answer within request.timeout.ms (30000 ms)",
                "broker 127.0.0.1:1000 answers again",
                |scene| scene.stage.mute.extend([(0, ApiKey::PRODUCE), (0, ApiKey::METADATA)]),
                |scene| scene.stage.mute.clear(),
            )
        },
        Case {
            fault: || Fault::CloseAfter,
            config: || settings().enable_idempotence(false),
            ..case(
                "a broker closes the connection on every batch",
                "broker 127.0.0.1:1000 is of little use, its connections end again and again (",
                "broker 127.0.0.1:1000 answers again",
                on,
                off,
            )
        },
        Case {
            fault: || Fault::Error(ErrorCode::INVALID_RECORD),
            within: SECOND,
            ..case(
                "every record is refused",
                "records fail: t-0: refused by the broker",
                "no more records fail",
                on,
                off,
            )
        },
        Case {
            fault: || Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
            ..case(
                "a partition has not enough replicas",
                "records wait, for 10 s now: t-0: the last answer was NOT_ENOUGH_REPLICAS",
                "no records wait for long any more",
                on,
                off,
            )
        },
        Case {
            within: 20 * SECOND,
            ..case(
                "a partition has no leader",
                "records wait, for 15 s now: t-0: 127.0.0.1:1000: it names no leader",
                "no records wait for long any more",
                |scene| {
                    scene.stage.spoil = Some(Box::new(|_, response| {
                        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                            (partition.leader_id, partition.error) = (-1, ErrorCode::LEADER_NOT_AVAILABLE);
                        }
                    }));
                    scene.stage.shared.want(&scene.topic);
                },
                |scene| scene.stage.spoil = None,
            )
        },
        Case {
            config: || settings().metadata_max_age(SECOND),
            ..case(
                "a topic is not there",
                "topic 'absent' cannot be used: UNKNOWN_TOPIC_OR_PARTITION",
                "topic 'absent' can be used",
                |scene| drop(scene.stage.shared.topic("absent")),
                |scene| {
                    let options = TopicOptions { partitions: 1, ..TopicOptions::default() };
                    assert!(scene.stage.model.create_topic("absent", options));
                },
            )
        },
        Case {
            fault: NEVER,
            config: || settings().metadata_max_age(SECOND),
            ..case(
                "metadata is answered with an error",
                "broker 127.0.0.1:1000 is of little use, its connections end again and again (",
                "broker 127.0.0.1:1000 answers again",
                |scene| {
                    scene.stage.spoil = Some(Box::new(|_, response| response.error = ErrorCode::UNKNOWN_SERVER_ERROR));
                },
                |scene| scene.stage.spoil = None,
            )
        },
        Case {
            config: || settings().metadata_max_age(SECOND).request_timeout(1000 * SECOND),
            ..case(
                "metadata is asked for and not answered",
                "no metadata for 10 s",
                "there is metadata again",
                |scene| scene.stage.mute.extend([(0, ApiKey::METADATA)]),
                |scene| {
                    scene.stage.mute.clear();
                    scene.stage.cut(&scene.brokers());
                },
            )
        },
        Case {
            fault: || Fault::Throttle(Duration::from_millis(700)),
            ..case(
                "a broker throttles",
                "broker 127.0.0.1:1000 throttles this client: it asked for no requests for 700 ms",
                "broker 127.0.0.1:1000 throttles this client no more",
                on,
                off,
            )
        },
        Case {
            config: || {
                settings().buffer_memory(64 << 10).request_timeout(1000 * SECOND).delivery_timeout(2000 * SECOND)
            },
            within: 80 * SECOND,
            ..case(
                "callers find no room",
                "callers have found no room in buffer.memory for 10 s: no record was delivered",
                "callers find room again",
                |scene| {
                    scene.stage.mute.insert((0, ApiKey::PRODUCE));
                    scene.waits = true;
                },
                |scene| {
                    scene.stage.mute.clear();
                    scene.waits = false;
                    scene.stage.cut(&scene.brokers());
                },
            )
        },
    ]
}

/// Every kind of trouble: told when it begins, once; every minute; and when it is over. Then it is quiet.
#[test]
fn every_trouble_is_told_from_beginning_to_end() {
    for case in cases() {
        let mut scene = Scene::new(case.brokers, (case.config)(), case.fault);
        scene.run(MINUTE);
        assert_eq!(scene.heard.take(), [""; 0], "{}: while all was well", case.name);
        (case.breaks)(&mut scene);
        scene.run(case.within);
        let said = scene.heard.take();
        println!("{}:\n  {}", case.name, said.join("\n  "));
        let told = said.iter().filter(|line| line.starts_with("WARN ") && line[5..].starts_with(case.begins)).count();
        assert_eq!(told, 1, "{}: '{}' is to be told once: {said:#?}", case.name, case.begins);
        scene.run(3 * MINUTE);
        let said = scene.heard.take();
        println!("  {}", said.join("\n  "));
        let standing: Vec<_> = said.iter().filter(|line| line.starts_with("WARN for ")).collect();
        assert!((2..=3).contains(&standing.len()), "{}: every minute: {said:#?}", case.name);
        let subject = case.begins.split(|c: char| c.is_ascii_digit() || ":(".contains(c)).next().unwrap();
        assert!(
            standing.iter().all(|line| line.contains(subject) && line.contains("wait")),
            "{}: {said:#?}",
            case.name
        );
        assert!(!said.iter().any(|line| line.contains("all is well")), "{}: {said:#?}", case.name);
        (case.heals)(&mut scene);
        scene.run(2 * MINUTE);
        let said = scene.heard.take();
        println!("  {}", said.join("\n  "));
        let over = said.iter().filter(|line| line.starts_with("INFO ") && line[5..].starts_with(case.over)).count();
        assert_eq!(over, 1, "{}: '{}' is to be told once: {said:#?}", case.name, case.over);
        let well = said.iter().filter(|line| line.contains("; all is well after ")).count();
        assert!(well == 1 && said.last().unwrap().contains("all is well"), "{}: {said:#?}", case.name);
        scene.run(5 * MINUTE);
        assert_eq!(scene.heard.take(), [""; 0], "{}: after all was well", case.name);
    }
}

/// Nobody gives out a producer id: told after a few seconds, as long as it lasts.
#[test]
fn a_producer_id_that_cannot_be_had_is_told() {
    let heard = Heard::of("ringmail::health");
    let options = BrokerOptions { denied_apis: vec![ApiKey::INIT_PRODUCER_ID.0], ..BrokerOptions::default() };
    let mut stage = Stage::new(options, settings(), "127.0.0.1:1000");
    let topic = stage.topic("t");
    stage.run(4 * SECOND);
    assert_eq!(heard.take(), [""; 0]);
    let waits = stage.send(&topic, 0);
    stage.run(70 * SECOND);
    let said = heard.take();
    assert!(
        said[0].starts_with("WARN no producer id for 5.0 s: 127.0.0.1:1000: it has no InitProducerId"),
        "{said:#?}"
    );
    assert!(said.iter().any(|line| line.starts_with("WARN for 65 s now: 0 records failed")), "{said:#?}");
    assert!(said.len() <= 3 && waits.try_result().is_none(), "{said:#?}");
}

/// The numbers are those of what happened meanwhile.
#[test]
fn what_became_of_records_is_counted_from_the_beginning_of_the_trouble() {
    let mut scene = Scene::new(1, settings(), || Fault::Error(ErrorCode::INVALID_RECORD));
    scene.run(MINUTE);
    scene.spoil(true);
    scene.run(30 * SECOND);
    scene.spoil(false);
    scene.run(40 * SECOND);
    let said = scene.heard.take();
    assert_eq!(said.len(), 2, "{said:#?}");
    let stats = scene.stage.shared.stats();
    let failed = stats.failed();
    assert!((116..=120).contains(&failed), "{stats:?}");
    // Ten seconds of quiet, and up to five until somebody looks.
    let delivered: u64 = said[1].split_once("failed and ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!((36..=64).contains(&delivered), "{said:#?}");
    assert!(said[1].contains(&format!("in which {failed} records failed and ")), "{failed}: {said:#?}");
}

/// A cluster that is gone is told of in a few lines, and what follows from that in none of its own.
#[test]
fn many_brokers_are_told_of_in_few_lines() {
    let mut scene = Scene::new(20, settings(), NEVER);
    scene.run(10 * SECOND);
    assert_eq!(scene.heard.take(), [""; 0]);
    let all = scene.brokers();
    scene.stage.kill(&all);
    scene.run(50 * SECOND);
    let said = scene.heard.take();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said.iter().all(|line| line.contains("is out of reach")), "{said:#?}");
    scene.run(5 * MINUTE);
    let said = scene.heard.take();
    let standing = said.iter().filter(|line| line.starts_with("WARN for ")).count();
    assert!((4..=6).contains(&standing) && said.len() <= 4 * standing + 4, "{} lines: {said:#?}", said.len());
    assert!(said.iter().all(|line| line.len() < 1000), "{said:#?}");
    for (node, at) in all.into_iter().enumerate() {
        scene.stage.hosts.insert(at, Host::Node(node as i32));
    }
    scene.run(2 * MINUTE);
    let said = scene.heard.take();
    assert_eq!(said.iter().filter(|line| line.contains("all is well")).count(), 1, "{said:#?}");
}

/// What comes and goes all the time is told a few times a minute at most, and never forgotten for long.
#[test]
fn what_comes_and_goes_is_no_flood() {
    let mut scene = Scene::new(1, settings(), || Fault::Error(ErrorCode::INVALID_RECORD));
    for _ in 0..40 {
        scene.run(20 * SECOND);
        scene.spoil(true);
        scene.run(STEP);
        scene.spoil(false);
    }
    let said = scene.heard.take();
    let begun = said.iter().filter(|line| line.starts_with("WARN records fail")).count();
    assert!((9..=16).contains(&begun), "{begun} in 13 minutes: {said:#?}");
    assert!(said.len() <= 45, "{said:#?}");
}

/// One connection that is lost and made again is nothing to tell of.
#[test]
fn a_hiccup_is_not_told() {
    let mut scene = Scene::new(2, settings(), || Fault::CloseAfter);
    scene.run(10 * SECOND);
    for _ in 0..5 {
        scene.spoil(true);
        scene.run(STEP);
        scene.spoil(false);
        scene.run(2 * MINUTE);
    }
    assert_eq!(scene.heard.take(), [""; 0]);
}

/// A broker that is out of reach and that nobody asks any more is forgotten.
#[test]
fn what_nobody_tries_any_more_is_forgotten() {
    let mut scene = Scene::new(3, settings(), NEVER);
    scene.run(10 * SECOND);
    scene.stage.kill(&[address(1002)]);
    scene.run(10 * SECOND);
    assert_eq!(scene.heard.take().len(), 1);
    // The others lead everything from now on.
    assert!(scene.stage.model.move_leader("t", 2, 0));
    scene.stage.spoil = Some(Box::new(|_, response| response.brokers.retain(|broker| broker.node_id != 2)));
    scene.run(5 * MINUTE);
    let said = scene.heard.take();
    assert!(said.len() <= 5, "{said:#?}");
    scene.run(5 * MINUTE);
    assert_eq!(scene.heard.take(), [""; 0]);
}

/// A bootstrap server that is gone for ever is told of while the cluster is gone, too, and not for another moment after it
/// is back: nobody asks that one any more.
#[test]
fn a_stale_bootstrap_server_leaves_nothing_behind() {
    let heard = Heard::of("ringmail::health");
    let mut stage = Stage::new(BrokerOptions::default(), settings(), "127.0.0.1:1000,127.0.0.1:1999");
    let topic = stage.topic("t");
    stage.run(10 * SECOND);
    stage.kill(&[address(1000)]);
    let waits = stage.send(&topic, 0);
    stage.run(30 * SECOND);
    let said = heard.take();
    assert!(said.len() == 2 && ["1000", "1999"].iter().all(|port| said.concat().contains(port)), "{said:#?}");
    stage.hosts.insert(address(1000), Host::Node(0));
    stage.run(5 * SECOND);
    assert!(waits.try_result().is_some_and(|result| result.is_ok()));
    let said = heard.take();
    assert!(said.iter().any(|line| line.contains("127.0.0.1:1999 is not asked any more")), "{said:#?}");
    assert!(said.len() == 2 && said[1].contains("all is well"), "{said:#?}");
    stage.run(5 * MINUTE);
    assert_eq!(heard.take(), [""; 0]);
}

/// What `close` gives up is in its report, and no trouble.
#[test]
fn a_close_is_no_trouble() {
    let mut scene = Scene::new(1, settings(), NEVER);
    scene.run(10 * SECOND);
    scene.stage.mute.insert((0, ApiKey::PRODUCE));
    scene.run(SECOND);
    scene.stage.shared.command(crate::sender::Command::Close(SECOND));
    scene.stage.run(10 * SECOND);
    assert!(scene.stage.shared.report().is_some());
    assert_eq!(scene.heard.take(), [""; 0]);
}
