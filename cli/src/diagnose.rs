//! Says why no broker is of use: a producer for each bootstrap server asks that one alone what the command's own producer
//! asks, and what the library says of it is the line.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringmail::{ProducerConfig, SendError, WaitedFor};

use crate::connect::builder;
use crate::settings::Settings;

/// The longest that a server is asked.
pub const LONGEST: Duration = Duration::from_secs(3);
/// In less time than this nobody could be expected to answer.
const SHORTEST: Duration = Duration::from_millis(100);
/// So many servers are asked, each by threads of its own.
const MOST: usize = 8;
/// Of the time that a server has, what an address may take to be connected to, and a request to be answered: of two
/// addresses of which one swallows everything, the other has its turn.
const SHARE: u32 = 3;

/// The name under which servers are asked.
pub const CLIENT: &str = "ringmail-diagnosis";

/// Servers that are being asked.
pub struct Diagnosis {
    /// With the answer, once it is there.
    servers: Vec<(String, Option<String>)>,
    /// Further ones, which are not asked.
    others: usize,
    answers: Receiver<(usize, String)>,
    began: Instant,
    until: Instant,
}

impl Diagnosis {
    /// Begins to ask every server of `bootstrap.servers` for this topic, all at once, until that time. `None`: there is no
    /// time for that.
    pub fn begin(settings: &Settings, topic: &str, until: Instant) -> Option<Self> {
        let time = until.saturating_duration_since(Instant::now());
        if time < SHORTEST {
            return None;
        }
        let config = ProducerConfig::new().bootstrap_servers(settings.value("bootstrap.servers").unwrap_or_default());
        let (answer, answers) = channel();
        for (at, (host, port)) in config.servers().take(MOST).enumerate() {
            let server = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let (settings, topic) = (asking(settings, &server, time), topic.to_owned());
            let answer = answer.clone();
            // It ends by itself: nobody waits for what it asks the system's resolver.
            std::thread::spawn(move || ask(&settings, &topic, |said| drop(answer.send((at, said)))));
        }
        // By the names that the library has for them.
        let named = |(host, port): (&str, u16)| (format!("{host}:{port}"), None);
        let servers = config.servers().take(MOST).map(named).collect();
        let others = config.servers().count().saturating_sub(MOST);
        Some(Self { servers, others, answers, began: Instant::now(), until })
    }

    /// What was found out, a line for each server, once all have answered or their time is over.
    pub fn poll(&mut self) -> Option<String> {
        while let Ok((at, said)) = self.answers.try_recv() {
            self.servers[at].1 = Some(said);
        }
        let done = Instant::now() >= self.until || self.servers.iter().all(|(_, said)| said.is_some());
        done.then(|| self.lines())
    }

    /// The same, waited for.
    pub fn finish(mut self) -> String {
        while self.servers.iter().any(|(_, said)| said.is_none()) {
            let left = self.until.saturating_duration_since(Instant::now());
            let Ok((at, said)) = self.answers.recv_timeout(left) else { break };
            self.servers[at].1 = Some(said);
        }
        self.lines()
    }

    fn lines(&self) -> String {
        let asked = self.began.elapsed();
        let line = |(server, said): &(String, Option<String>)| match said {
            Some(said) if said.starts_with(&**server) => format!("  {said}"),
            Some(said) => format!("  {server}: {said}"),
            None => format!("  {server}: nothing came of it within {}", millis(asked)),
        };
        let mut lines: Vec<String> = self.servers.iter().map(line).collect();
        if self.others > 0 {
            lines.push(format!("  and {} more servers, which were not asked", self.others));
        }
        lines.join("\n")
    }
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// The user's settings, but for one server, and everything within `time`.
fn asking(settings: &Settings, server: &str, time: Duration) -> Settings {
    // What it takes to end and to say so.
    let time = time - time / 10;
    let share = time / SHARE;
    let least = |key: &str, most: Duration| {
        let given = settings.value(key).and_then(|text| text.parse().ok()).map_or(most, Duration::from_millis);
        given.min(most).as_millis().max(1).to_string()
    };
    let mut asking = settings.clone();
    for (key, value) in [
        ("bootstrap.servers", server.to_owned()),
        ("max.block.ms", time.as_millis().to_string()),
        ("socket.connection.setup.timeout.ms", least("socket.connection.setup.timeout.ms", share)),
        ("socket.connection.setup.timeout.max.ms", share.as_millis().max(1).to_string()),
        ("request.timeout.ms", least("request.timeout.ms", share)),
        ("linger.ms", "0".to_owned()),
        ("delivery.timeout.ms", time.as_millis().to_string()),
        ("close.timeout.ms", "0".to_owned()),
        ("sender.cores", "none".to_owned()),
        ("idle.strategy", "park".to_owned()),
        ("driver", "epoll".to_owned()),
        ("client.id", CLIENT.to_owned()),
    ] {
        asking.set(key, &value);
    }
    asking
}

/// Asks one server, and calls back with what came of it.
fn ask(settings: &Settings, topic: &str, tell: impl FnOnce(String)) {
    let producer = match builder(settings).build() {
        Ok(producer) => producer,
        Err(error) => return tell(error.to_string()),
    };
    let began = Instant::now();
    let said = producer.warm_up(&[topic]);
    let took = millis(began.elapsed());
    tell(match said {
        Ok(()) => format!("asked by itself, it answered after {took}; allow more time (max.block.ms)"),
        Err(SendError::Timeout { waited_for, .. }) => match waited_for {
            WaitedFor::Metadata { trouble: Some(trouble), .. } | WaitedFor::ProducerId { trouble: Some(trouble) } => {
                trouble.to_string()
            }
            _ => format!("nothing came of it within {took}"),
        },
        Err(error) => error.to_string(),
    });
}
