//! Several connections on their way to one place: a lane, or the control connection. A connection that is not up soon gets a
//! rival, to another address of its broker or, for control, to another broker; the first that has negotiated takes the
//! place, and the others are given up. So an address that swallows packets, or a server that accepts and says nothing,
//! costs a fraction of a second (as in RFC 8305), and not `socket.connection.setup.timeout.ms`. A question on the control
//! connection that is not answered for long is raced for in the same way: a broker that stands still costs seconds, and not
//! `request.timeout.ms`.
//!
//! Each rival waits twice as long as the one before, so that what nobody answers is not stormed. Without other addresses and
//! other brokers there is no rival, and all is as without a race.

use std::net::SocketAddr;
use std::time::Duration;

use super::Sender;
use super::connection::{Cause, Peer, Role, State};
use super::endpoint;
use super::steps::{Step, stepped};
use super::timers::Timer;
use super::transmit::{Action, ConnectionId};

/// A connection gets its first rival when TCP is not up after this (RFC 8305: Connection Attempt Delay), or a quarter of
/// `socket.connection.setup.timeout.ms` if that is less. So long a look-up is waited for, too, where there are other brokers.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// And when it is up and ApiVersions is not answered for so long.
const NEGOTIATION_DELAY: Duration = Duration::from_secs(1);

/// And when a question is not answered for this part of `request.timeout.ms`; the next one has twice as long, so that a broker
/// that needs its time gets it.
const ANSWER_PART: u32 = 8;

/// The longest time from one rival to the next.
const DELAY_MAX: Duration = Duration::from_secs(2);

/// So many on their way to one place.
const RIVALS_MAX: usize = 8;

impl Sender {
    /// The connection that has the place which one of this role and peer is for, and its rivals.
    fn place(&mut self, role: Role, peer: Peer) -> Option<(&mut Option<ConnectionId>, &mut Vec<ConnectionId>)> {
        match (role, peer) {
            (Role::Lane, Peer::Node(node)) => self.nodes.get_mut(&node).map(|node| (&mut node.lane, &mut node.rivals)),
            _ => Some((&mut self.control.connection, &mut self.control.rivals)),
        }
    }

    /// All that are on their way to that place, or have it.
    fn contestants(&mut self, role: Role, peer: Peer) -> Vec<ConnectionId> {
        let place = self.place(role, peer);
        place.into_iter().flat_map(|(holder, rivals)| holder.iter().chain(rivals.iter()).copied()).collect()
    }

    /// How long the next connection to that place is waited for before it gets a rival.
    pub(super) fn rival_delay(&mut self, role: Role, peer: Peer, setup_timeout: Duration) -> Duration {
        let before = self.contestants(role, peer).len() as u32;
        ATTEMPT_DELAY.saturating_mul(1 << before.min(8)).min(DELAY_MAX).min(setup_timeout / 4)
    }

    /// TCP is up: now the broker has its time to answer.
    pub(super) fn expect_versions(&mut self, id: ConnectionId) {
        let now = self.now.monotonic;
        if let Some(connection) = self.connections.get_mut(&id) {
            let at = now + NEGOTIATION_DELAY.min(connection.setup_timeout / 4);
            connection.rival_at = Some(at);
            connection.armed.at(&mut self.timers, at, Timer::Connection(id));
        }
    }

    /// Something was asked on the control connection.
    pub(super) fn expect_answer(&mut self, id: ConnectionId) {
        let now = self.now.monotonic;
        let patience = self.answer_patience();
        if let Some(connection) = self.connections.get_mut(&id).filter(|c| c.role == Role::Control && c.negotiated) {
            connection.rival_at = Some(now + patience);
            connection.armed.at(&mut self.timers, now + patience, Timer::Connection(id));
        }
    }

    fn answer_patience(&self) -> Duration {
        let request = self.config.request_timeout;
        (request / ANSWER_PART).saturating_mul(1 << self.control.overtaken.min(8)).min(request)
    }

    /// A question on the control connection was answered.
    pub(super) fn end_race(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.rival_at = None;
        self.control.overtaken = 0;
        for rival in std::mem::take(&mut self.control.rivals) {
            self.give_up_race(rival);
        }
    }

    /// The connection has taken long, or one beside it has failed: another one is begun, where there is one to be begun.
    pub(super) fn begin_rival(&mut self, id: ConnectionId) {
        let now = self.now.monotonic;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.rival_at = None;
        let (role, peer) = (connection.role, connection.peer);
        let contestants = self.contestants(role, peer);
        if contestants.len() >= RIVALS_MAX || !contestants.contains(&id) {
            return;
        }
        let of = |id: &ConnectionId| self.connections.get(id).map(|connection| (connection.peer, connection.address));
        let taken: Vec<(Peer, SocketAddr)> = contestants.iter().filter_map(of).collect();
        let next = match (role, peer) {
            (Role::Lane, Peer::Node(node)) => self.other_address(node, &taken),
            _ => self.other_peer(id, &taken),
        };
        if let Some((peer, address, name)) = next {
            let rival = self.connect(role, peer, address, name);
            if let Some((_, rivals)) = self.place(role, peer) {
                stepped(Step::BeginsRival);
                rivals.push(rival);
            }
        } else if let Some(connection) = self.connections.get_mut(&id) {
            // A backoff may end, or a name be known.
            let at = now + DELAY_MAX;
            connection.rival_at = Some(at);
            connection.armed.at(&mut self.timers, at, Timer::Connection(id));
        }
    }

    fn other_address(&self, node: i32, taken: &[(Peer, SocketAddr)]) -> Option<(Peer, SocketAddr, String)> {
        let endpoint = &self.nodes.get(&node)?.endpoint;
        let address =
            endpoint.other_address(self.now.monotonic, |address| taken.iter().any(|(_, at)| at == address))?;
        Some((Peer::Node(node), address, format!("{}:{} (broker {node})", endpoint.host, endpoint.port)))
    }

    /// Other brokers first, and then other addresses of those that are on their way.
    fn other_peer(&mut self, id: ConnectionId, taken: &[(Peer, SocketAddr)]) -> Option<(Peer, SocketAddr, String)> {
        let now = self.now.monotonic;
        if now < self.control.connect_at {
            return None;
        }
        let mut peers = self.peers();
        peers.sort_by_key(|peer| taken.iter().any(|(of, _)| of == peer));
        for peer in peers {
            let Some(endpoint) = self.endpoint(peer).filter(|endpoint| now >= endpoint.spare_until) else { continue };
            if let endpoint::Step::Resolve = endpoint.peek(now) {
                endpoint.step(now);
                let (host, port) = (endpoint.host.clone(), endpoint.port);
                self.control.rival_looked_up = Some(id);
                self.actions.push_back(Action::Resolve { host, port });
                return None;
            }
            let is_taken = |address: &SocketAddr| taken.iter().any(|(_, at)| at == address);
            if let Some(address) = endpoint.other_address(now, is_taken) {
                let name = format!("{}:{}", endpoint.host, endpoint.port);
                return Some((peer, address, name));
            }
        }
        None
    }

    /// A name is known that a rival of the control connection is to go to.
    pub(super) fn go_on_racing(&mut self) {
        let asked = self.control.rival_looked_up.take();
        if asked.is_some_and(|id| self.connections.contains_key(&id)) {
            asked.into_iter().for_each(|id| self.begin_rival(id));
        }
    }

    /// The connection is up, and the first: it takes the place, and its rivals are not needed.
    pub(super) fn win(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.rival_at = None;
        let (role, peer, address) = (connection.role, connection.peer, connection.address);
        if let Some(endpoint) = self.endpoint(peer) {
            endpoint.prefer(address);
        }
        let others: Vec<_> = self.contestants(role, peer).into_iter().filter(|other| *other != id).collect();
        if let Some((holder, rivals)) = self.place(role, peer) {
            if holder.replace(id) != Some(id) {
                stepped(Step::RivalWins);
            }
            rivals.clear();
        }
        for other in others {
            if self.connections.get(&other).is_some_and(|other| other.role == Role::Control && other.negotiated) {
                self.ask_elsewhere(other);
            }
            self.give_up_race(other);
        }
    }

    /// What was asked on this connection is asked again on the one that has taken its place.
    fn ask_elsewhere(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let waited = self.now.monotonic.saturating_sub(connection.head_since).as_millis();
        let trouble = format!("{}: no answer for {waited} ms", connection.name);
        self.control.overtaken = self.control.overtaken.saturating_add(1);
        self.lose_identity_request(&trouble);
        if std::mem::take(&mut self.control.asked) {
            self.want_metadata();
        }
    }

    fn give_up_race(&mut self, id: ConnectionId) {
        let peer = self.connections.get(&id).map(|connection| (connection.role, connection.peer));
        if let Some((Role::Control, peer)) = peer
            && let Some(endpoint) = self.endpoint(peer)
        {
            // The next time another one goes first.
            endpoint.asked_in_vain = endpoint.asked_in_vain.max(1);
        }
        self.give_up(id, Cause::Replaced, "another connection was up first".into());
    }

    /// The connection is gone, and with it its claim to a place: a rival takes it. True: it had the place.
    pub(super) fn leave_place(&mut self, role: Role, peer: Peer, id: ConnectionId) -> bool {
        let Some((holder, rivals)) = self.place(role, peer) else { return false };
        rivals.retain(|rival| *rival != id);
        let had = *holder == Some(id);
        if had {
            *holder = if rivals.is_empty() { None } else { Some(rivals.remove(0)) };
        }
        had
    }

    /// One of them has failed: the next is begun at once, if none is up.
    pub(super) fn replace_contestant(&mut self, role: Role, peer: Peer) {
        let (now, patience) = (self.now.monotonic, self.answer_patience());
        let Some(id) = self.place(role, peer).and_then(|(holder, _)| *holder) else { return };
        let races = self.connections.get(&id).is_some_and(|holder| match holder.state {
            State::Connecting | State::Negotiating => true,
            State::Ready => holder.is_silent() && role == Role::Control && now >= holder.head_since + patience,
            State::Closing | State::Closed => false,
        });
        if races {
            self.begin_rival(id);
        }
    }
}
