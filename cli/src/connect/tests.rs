//! What is said of every kind of server, however it is written, within any limit.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;

use ringmail::testing::{Broker, BrokerOptions, set_name};

use super::*;

/// Who is at a port of 127.0.0.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Host {
    /// Nothing listens.
    Nobody,
    /// Takes connections, and never answers.
    Silent,
    /// No packet comes back: its queue of connections is full.
    Swallows,
    /// Closes every connection.
    Closes,
    /// Answers as a web server does.
    Http,
    /// Answers as something that expects TLS does.
    Tls,
    /// A broker.
    Sound,
}

use Host::{Closes, Http, Nobody, Silent, Sound, Swallows, Tls};

impl Host {
    const ALL: [Self; 7] = [Nobody, Silent, Swallows, Closes, Http, Tls, Sound];

    /// What is true of it, in the library's words.
    fn truth(self) -> &'static str {
        match self {
            Nobody => "refused",
            Silent => "no answer to ApiVersions within",
            Swallows => "no TCP connection within",
            Closes => "while versions were negotiated",
            Http => "it answers as HTTP",
            Tls => "it speaks TLS",
            Sound => "it answered after",
        }
    }
}

/// It ends with the test.
struct Running {
    address: SocketAddr,
    _broker: Option<Broker>,
    _held: Vec<TcpStream>,
    _listener: Option<TcpListener>,
}

/// A listener whose queue is full, so that it answers no SYN.
fn swallow(ip: Ipv4Addr, port: u16) -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind((ip, port)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        held.push(stream);
        assert!(held.len() < 10_000, "its queue has no end");
    }
    (listener, held)
}

fn start(host: Host) -> Running {
    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
    if host == Sound {
        let broker = Broker::start(BrokerOptions::default()).unwrap();
        broker.create_topic("t", 1);
        return Running { address: broker.address(), _broker: Some(broker), _held: vec![], _listener: None };
    }
    if host == Swallows {
        let (listener, held) = swallow(LOCAL, 0);
        return Running {
            address: listener.local_addr().unwrap(),
            _broker: None,
            _held: held,
            _listener: Some(listener),
        };
    }
    let listener = TcpListener::bind((LOCAL, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answer: &[u8] = match host {
        Http => b"HTTP/1.1 400 Bad Request\r\n\r\n",
        Tls => &[0x15, 3, 3, 0, 2, 2, 70],
        _ => b"",
    };
    let mut kept = None;
    match host {
        Nobody => drop(listener),
        Silent => kept = Some(listener),
        _ => drop(std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(answer);
            }
        })),
    }
    Running { address, _broker: None, _held: vec![], _listener: kept }
}

/// How a server is written.
const FORMS: [&str; 4] =
    ["127.0.0.1:PORT", "PLAINTEXT://127.0.0.1:PORT", " plaintext://one.test:PORT , ", "[::ffff:127.0.0.1]:PORT"];

/// What comes of waiting for a broker, and how long that took.
fn wait_for(servers: &str, limit: Duration) -> (Result<(), String>, Duration) {
    let mut settings = Settings::default();
    settings.set("bootstrap.servers", servers);
    settings.set("max.block.ms", &limit.as_millis().to_string());
    settings.set("driver", "epoll");
    settings.set("close.timeout.ms", "0");
    let patience = patience(&mut settings);
    assert_eq!(patience, limit);
    let producer = start_without_listener(&settings);
    let began = Instant::now();
    let result = warm_up(&producer, "t", &settings, patience);
    (result.map_err(|failure| failure.text), began.elapsed())
}

fn start_without_listener(settings: &Settings) -> Producer {
    super::start(builder(settings)).unwrap()
}

/// Every server in each form at once. What is said must be true; within the limit, but for what a busy machine takes.
fn check(limit: Duration, slack: Duration, judge: impl Fn(Host, &str, Result<(), String>) -> Result<(), String>) {
    set_name("one.test", &[IpAddr::from(Ipv4Addr::LOCALHOST)]);
    let hosts = Host::ALL.map(|host| (host, start(host)));
    let (done, results) = channel();
    for (host, running) in &hosts {
        for form in FORMS {
            let servers = form.replace("PORT", &running.address.port().to_string());
            let (done, host) = (done.clone(), *host);
            std::thread::spawn(move || done.send((host, form, wait_for(&servers, limit))));
        }
    }
    drop(done);
    let mut findings = Vec::new();
    for (host, form, (result, took)) in results {
        let said = format!("{result:?}");
        if took > limit + slack {
            findings.push(format!("{host:?} as {form}: it took {took:?}"));
        }
        if let Err(why) = judge(host, form, result) {
            findings.push(format!("{host:?} as {form}: {why}: {said}"));
        }
    }
    assert!(findings.is_empty(), "{limit:?}:\n{}", findings.join("\n"));
}

/// Words that accuse a server of something that is not so.
fn is_lie(host: Host, text: &str) -> bool {
    let all = Host::ALL.iter().filter(|other| **other != host).map(|other| other.truth());
    all.chain(["resolved", "lookup", "look up", "never", "stuck"]).any(|words| text.contains(words))
}

#[test]
fn no_time_to_ask_accuses_nobody() {
    check(Duration::ZERO, Duration::from_secs(2), |host, _, result| match result {
        Ok(()) => Err("without waiting".into()),
        Err(text) if is_lie(host, &text) && host != Nobody => Err("a lie".into()),
        Err(text) if !text.starts_with("gave up after ") => Err("not the library's words".into()),
        Err(text) if text.contains("asked") => Err("nobody had the time to ask".into()),
        Err(_) => Ok(()),
    });
}

#[test]
fn a_short_limit_is_kept_to() {
    check(Duration::from_millis(900), Duration::from_millis(2500), |host, _, result| match result {
        // A busy machine may need longer.
        Ok(()) if host == Sound => Ok(()),
        Err(_) if host == Sound => Ok(()),
        Ok(()) => Err("a broker?".into()),
        Err(text) if is_lie(host, &text) => Err("a lie".into()),
        // Where the machine is busy, not even a name may have been looked up.
        Err(text) if text.contains("nothing came of it within") => Ok(()),
        Err(text) if !text.contains(host.truth()) => Err("not the truth".into()),
        Err(_) => Ok(()),
    });
}

#[test]
fn a_long_limit_is_kept_to() {
    check(Duration::from_secs(5), Duration::from_millis(2500), |host, form, result| match result {
        Ok(()) if host == Sound => Ok(()),
        Ok(()) => Err("a broker?".into()),
        Err(text) if is_lie(host, &text) => Err("a lie".into()),
        Err(text) if !text.contains(host.truth()) => Err("not the truth".into()),
        // By the name that the library knows it by.
        Err(text) if !text.contains(if form.contains("one.test") { "one.test:" } else { "127.0.0.1" }) => {
            Err("who?".into())
        }
        // One server, and one sentence about it.
        Err(text) if matches!(host, Nobody | Http | Tls) && text.matches(host.truth()).count() > 1 => {
            Err("said twice".into())
        }
        Err(_) => Ok(()),
    });
}

/// The first address of a name swallows everything: the second one is asked within the same limit.
#[test]
fn a_second_address_has_its_turn() {
    let broker = Broker::start(BrokerOptions::default()).unwrap();
    broker.create_topic("t", 1);
    let silent = Ipv4Addr::new(127, 0, 0, 2);
    let _held = swallow(silent, broker.address().port());
    set_name("two.test", &[IpAddr::from(silent), IpAddr::from(Ipv4Addr::LOCALHOST)]);
    let servers = format!("two.test:{}", broker.address().port());
    let (result, _) = wait_for(&servers, Duration::from_secs(5));
    // The producer itself gives each address socket.connection.setup.timeout.ms, which is longer than it may wait.
    if let Err(text) = result {
        let truth = format!("{servers}: asked by itself, it answered after");
        assert!(text.contains(&truth) && !text.contains("no TCP connection"), "{text}");
    }
}

/// Each server has a line of its own, in the order given, and none is asked for longer than the limit.
#[test]
fn every_server_has_its_line() {
    let hosts = [Nobody, Silent, Http];
    let running = hosts.map(start);
    let servers: Vec<String> = running.iter().map(|running| running.address.to_string()).collect();
    let (result, _) = wait_for(&servers.join(","), Duration::from_secs(4));
    let text = result.unwrap_err();
    let lines: Vec<&str> = text.lines().skip_while(|line| *line != "asked one by one:").skip(1).collect();
    assert_eq!(lines.len(), hosts.len(), "{text}");
    for ((line, server), host) in lines.iter().zip(&servers).zip(hosts) {
        assert!(line.starts_with(&format!("  {server}: ")) && line.contains(host.truth()), "{host:?}: {text}");
    }
}

#[test]
fn the_slices_add_up_to_the_limit() {
    for (limit, slice) in [("0", "0"), ("1", "1"), ("400", "200"), ("700", "350"), ("1200", "400"), ("15000", "500")] {
        let mut settings = Settings::default();
        settings.set("max.block.ms", limit);
        assert_eq!(patience(&mut settings).as_millis().to_string(), limit);
        assert_eq!(settings.value("max.block.ms"), Some(slice), "{limit}");
    }
    let mut settings = Settings::default();
    settings.set("max.block.ms", "soon");
    assert_eq!((patience(&mut settings), settings.value("max.block.ms")), (PATIENCE, Some("soon")));
}
