//! Where a broker is to be reached, and which of its addresses to try next.

use std::net::SocketAddr;
use std::time::Duration;

use super::backoff::{Backoff, Random};

/// A host and port with its resolved addresses. Every address is tried before the backoff starts; then the name is
/// resolved again, since it may have moved (producer-side of KIP-602).
#[derive(Debug)]
pub struct Endpoint {
    /// Name or address literal.
    pub host: String,
    /// TCP port.
    pub port: u16,
    addresses: Vec<SocketAddr>,
    next: usize,
    resolving: bool,
    failures: u32,
    retry_at: Duration,
    /// Why the last attempt failed, in words.
    pub trouble: Option<String>,
}

/// What to do to reach an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time.
    Wait(Duration),
    /// A name look-up is under way.
    Resolving,
    /// Start a name look-up.
    Resolve,
    /// Connect to this address.
    Connect(SocketAddr),
}

impl Endpoint {
    /// Not tried yet.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            addresses: Vec::new(),
            next: 0,
            resolving: false,
            failures: 0,
            retry_at: Duration::ZERO,
            trouble: None,
        }
    }

    /// The next step towards a connection.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.resolving {
            Step::Resolving
        } else if now < self.retry_at {
            Step::Wait(self.retry_at)
        } else if let Some(address) = self.addresses.get(self.next) {
            self.next += 1;
            Step::Connect(*address)
        } else {
            self.resolving = true;
            Step::Resolve
        }
    }

    /// The look-up's answer.
    pub fn resolved(
        &mut self,
        now: Duration,
        answer: Result<Vec<SocketAddr>, String>,
        backoff: Backoff,
        random: &mut Random,
    ) {
        self.resolving = false;
        self.next = 0;
        match answer {
            Ok(addresses) if !addresses.is_empty() => self.addresses = addresses,
            Ok(_) => self.give_up(now, "the name has no address".into(), backoff, random),
            Err(why) => self.give_up(now, why, backoff, random),
        }
    }

    /// The connection is up and speaks Kafka.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.retry_at = Duration::ZERO;
        self.trouble = None;
        self.next = 0;
    }

    /// An attempt failed, or an established connection was lost.
    pub fn failed(&mut self, now: Duration, why: String, established: bool, backoff: Backoff, random: &mut Random) {
        if established || self.next >= self.addresses.len() {
            self.give_up(now, why, backoff, random);
        } else {
            self.trouble = Some(why);
        }
    }

    fn give_up(&mut self, now: Duration, why: String, backoff: Backoff, random: &mut Random) {
        self.trouble = Some(why);
        self.addresses.clear();
        self.next = 0;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + backoff.after(self.failures, random.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_then_backoff_then_a_new_look_up() {
        let backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) };
        let mut random = Random::new(1);
        let mut endpoint = Endpoint::new("broker", 9092);
        let addresses: Vec<SocketAddr> = vec!["127.0.0.1:9092".parse().unwrap(), "127.0.0.2:9092".parse().unwrap()];
        let now = Duration::from_secs(1);
        assert_eq!(endpoint.step(now), Step::Resolve);
        assert_eq!(endpoint.step(now), Step::Resolving);
        endpoint.resolved(now, Ok(addresses.clone()), backoff, &mut random);
        assert_eq!(endpoint.step(now), Step::Connect(addresses[0]));
        endpoint.failed(now, "refused".into(), false, backoff, &mut random);
        assert_eq!(endpoint.step(now), Step::Connect(addresses[1]), "the second address at once");
        endpoint.failed(now, "refused".into(), false, backoff, &mut random);
        let Step::Wait(until) = endpoint.step(now) else { panic!("no backoff") };
        assert!(until > now);
        assert_eq!(endpoint.step(until), Step::Resolve);
        endpoint.resolved(until, Err("no such host".into()), backoff, &mut random);
        let Step::Wait(later) = endpoint.step(until) else { panic!("no backoff") };
        assert!(later - until > until - now, "it grows");
    }
}
