//! Where a broker is to be reached, and which of its addresses to try next.

use std::net::SocketAddr;
use std::time::Duration;

use super::backoff::{Backoff, Random};

/// A host and port with its resolved addresses. Every address is tried before the backoff starts; then the name is
/// resolved again, since it may have moved. So it is after a connection was lost or closed (KIP-602, KAFKA-12193).
///
/// Both families of addresses are tried, in the resolver's order (the Java client keeps to the family of the first).
#[derive(Debug)]
pub struct Endpoint {
    /// Name or address literal.
    pub host: String,
    /// TCP port.
    pub port: u16,
    addresses: Vec<SocketAddr>,
    /// Those of them that have failed since the look-up.
    tried: Vec<SocketAddr>,
    /// A connection to it was lost or closed: the next look-up's other addresses go first. It may be the one instance
    /// that is down.
    left: Option<SocketAddr>,
    /// Since when a look-up is under way.
    resolving: Option<Duration>,
    failures: u32,
    /// Connections that did not come up since one did.
    setups_failed: u32,
    retry_at: Duration,
    /// Why the last attempt failed, in words.
    pub trouble: Option<String>,
    /// How often it was asked on the control connection in vain since an answer was of use.
    pub asked_in_vain: u32,
    /// How many of its answers in a row did not help.
    pub lagging: u32,
    /// The broker wants no control requests before this time (KIP-219).
    pub spare_until: Duration,
    /// The broker had no InitProducerId when its versions were negotiated last.
    pub no_identity: bool,
}

/// What to do to reach an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time.
    Wait(Duration),
    /// A name look-up is under way, since this time.
    Resolving(Duration),
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
            tried: Vec::new(),
            left: None,
            resolving: None,
            failures: 0,
            setups_failed: 0,
            retry_at: Duration::ZERO,
            trouble: None,
            asked_in_vain: 0,
            lagging: 0,
            spare_until: Duration::ZERO,
            no_identity: false,
        }
    }

    /// The next step towards a connection.
    pub fn step(&mut self, now: Duration) -> Step {
        let step = self.peek(now);
        if step == Step::Resolve {
            self.resolving = Some(now);
        }
        step
    }

    /// What [`Endpoint::step`] would say.
    pub fn peek(&self, now: Duration) -> Step {
        if let Some(since) = self.resolving {
            Step::Resolving(since)
        } else if now < self.retry_at {
            Step::Wait(self.retry_at)
        } else {
            self.untried().next().map_or(Step::Resolve, Step::Connect)
        }
    }

    fn untried(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().filter(|address| !self.tried.contains(address)).copied()
    }

    /// An address to connect to beside those that are `taken`.
    pub fn other_address(&self, now: Duration, taken: impl Fn(&SocketAddr) -> bool) -> Option<SocketAddr> {
        if self.resolving.is_some() || now < self.retry_at {
            return None;
        }
        self.untried().find(|address| !taken(address))
    }

    /// This address is a good one: until the next look-up it comes first.
    pub fn prefer(&mut self, address: SocketAddr) {
        if let Some(at) = self.addresses.iter().position(|known| *known == address) {
            self.addresses.swap(0, at);
        }
    }

    /// A look-up's answer; it changes nothing when none is awaited.
    pub fn resolved(
        &mut self,
        now: Duration,
        answer: Result<Vec<SocketAddr>, String>,
        backoff: Backoff,
        random: &mut Random,
    ) {
        if self.resolving.take().is_none() {
            return;
        }
        self.tried.clear();
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                self.addresses = addresses;
                if self.left.take() == self.addresses.first().copied() {
                    self.addresses.rotate_left(1);
                }
            }
            Ok(_) => self.give_up(now, "the name has no address".into(), backoff, random),
            Err(why) => self.give_up(now, why, backoff, random),
        }
    }

    /// How long the next connection may take to come up: `setup` is `socket.connection.setup.timeout.ms` and its max.
    pub fn setup_timeout(&self, setup: Backoff, random: &mut Random) -> Duration {
        if self.setups_failed == 0 { setup.base } else { setup.after(self.setups_failed + 1, random.next()) }
    }

    /// The connection gave an answer that was of use.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.setups_failed = 0;
        self.retry_at = Duration::ZERO;
        self.trouble = None;
    }

    /// An attempt at `address` failed, or an established connection to it was lost.
    pub fn failed(
        &mut self,
        now: Duration,
        address: SocketAddr,
        why: String,
        established: bool,
        backoff: Backoff,
        random: &mut Random,
    ) {
        if established {
            self.left = Some(address);
            return self.give_up(now, why, backoff, random);
        }
        self.setups_failed = self.setups_failed.saturating_add(1);
        // Two connections may have been on their way to the same one.
        if !self.tried.contains(&address) {
            self.tried.push(address);
        }
        if self.untried().next().is_none() {
            self.give_up(now, why, backoff, random);
        } else {
            self.trouble = Some(why);
        }
    }

    /// How often it was asked without being of use, since it was.
    pub fn in_vain(&self) -> u32 {
        self.asked_in_vain.saturating_add(self.lagging)
    }

    /// Whether this is one of its addresses, as far as is known.
    pub fn leads_to(&self, address: SocketAddr) -> bool {
        let literal = || self.host.parse() == Ok(address.ip()) && self.port == address.port();
        self.addresses.contains(&address) || literal()
    }

    /// The name will be looked up before it is connected to again.
    pub fn forget(&mut self) {
        self.addresses.clear();
        self.tried.clear();
    }

    fn give_up(&mut self, now: Duration, why: String, backoff: Backoff, random: &mut Random) {
        self.trouble = Some(why);
        self.forget();
        self.failures = self.failures.saturating_add(1);
        // Two connections may fail in one backoff: who waits for its end has a timer for that.
        self.retry_at = self.retry_at.max(now + backoff.after(self.failures, random.next()));
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
        assert_eq!(endpoint.step(now), Step::Resolving(now));
        endpoint.resolved(now, Ok(addresses.clone()), backoff, &mut random);
        assert_eq!(endpoint.step(now), Step::Connect(addresses[0]));
        endpoint.failed(now, addresses[0], "refused".into(), false, backoff, &mut random);
        assert_eq!(endpoint.step(now), Step::Connect(addresses[1]), "the second address at once");
        endpoint.failed(now, addresses[1], "refused".into(), false, backoff, &mut random);
        let Step::Wait(until) = endpoint.step(now) else { panic!("no backoff") };
        assert!(until > now);
        assert_eq!(endpoint.step(until), Step::Resolve);
        endpoint.resolved(until, Err("no such host".into()), backoff, &mut random);
        let Step::Wait(later) = endpoint.step(until) else { panic!("no backoff") };
        assert!(later - until > until - now, "it grows");
    }

    #[test]
    fn the_address_that_was_lost_comes_last() {
        let backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) };
        let mut random = Random::new(1);
        let addresses: Vec<SocketAddr> =
            ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"].map(|a| a.parse().unwrap()).into();
        let mut endpoint = Endpoint::new("broker", 1);
        let now = Duration::from_secs(1);
        assert_eq!(endpoint.step(now), Step::Resolve);
        endpoint.resolved(now, Ok(addresses.clone()), backoff, &mut random);
        assert_eq!(endpoint.step(now), Step::Connect(addresses[0]));
        assert_eq!(endpoint.step(now), Step::Connect(addresses[0]), "the lane's and the control connection's");
        endpoint.failed(now, addresses[0], "lost".into(), true, backoff, &mut random);
        endpoint.failed(now, addresses[0], "lost".into(), true, backoff, &mut random);
        let later = now + Duration::from_secs(2);
        assert_eq!(endpoint.step(later), Step::Resolve);
        endpoint.resolved(later, Ok(addresses.clone()), backoff, &mut random);
        for at in [1, 2, 0] {
            assert_eq!(endpoint.step(later), Step::Connect(addresses[at]));
            endpoint.failed(later, addresses[at], "refused".into(), false, backoff, &mut random);
        }
        // An answer that nobody waits for any more.
        endpoint.resolved(later, Ok(addresses), backoff, &mut random);
        assert!(matches!(endpoint.step(later), Step::Wait(_)));
    }

    #[test]
    fn the_time_for_set_up_doubles() {
        let backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) };
        let setup = Backoff { base: Duration::from_secs(10), max: Duration::from_secs(30) };
        let mut random = Random::new(1);
        let mut endpoint = Endpoint::new("broker", 1);
        let address = "127.0.0.1:1".parse().unwrap();
        for (plain, most) in [(10, 10), (20, 24), (30, 30), (30, 30)] {
            let timeout = endpoint.setup_timeout(setup, &mut random).as_secs_f64();
            assert!((f64::from(plain) * 0.8..=f64::from(most)).contains(&timeout), "{timeout}");
            endpoint.failed(Duration::ZERO, address, "no".into(), false, backoff, &mut random);
        }
        endpoint.succeeded();
        assert_eq!(endpoint.setup_timeout(setup, &mut random), setup.base);
    }
}
