//! Whom the control connection goes to: the order of the brokers that are known and of the bootstrap servers, and when
//! everything starts again from these (`metadata.recovery.strategy`).

use std::time::Duration;

use super::Sender;
use super::connection::{Cause, Peer, Role, State};
use super::endpoint::{Endpoint, Step};
use super::race::ATTEMPT_DELAY;
use super::timers::Timer;
use super::transmit::{Action, ConnectionId};
use crate::config::MetadataRecovery;

impl Sender {
    /// Connects to the peer that is likely to answer soonest. As long as there is no producer id, those that have none to
    /// give come last. First come those that were asked in vain least often; of these, brokers whose lane is up, the one
    /// with the fewest unanswered requests first; then brokers not spoken to; then brokers whose lane is still coming up;
    /// then the bootstrap servers; and among equals, each in turn. Who is throttled or in its backoff is passed over.
    /// (KIP-19's least loaded node, but for one connection that stays.)
    pub(super) fn connect_control(&mut self) {
        let now = self.now.monotonic;
        if now < self.control.connect_at {
            return self.control.armed.at(&mut self.timers, self.control.connect_at, Timer::Control);
        }
        let mut earliest: Option<Duration> = None;
        for peer in self.peers() {
            let Some(endpoint) = self.endpoint(peer) else { continue };
            let step = if now < endpoint.spare_until { Step::Wait(endpoint.spare_until) } else { endpoint.step(now) };
            match step {
                Step::Connect(address) => {
                    let name = format!("{}:{}", endpoint.host, endpoint.port);
                    self.control.turn = self.control.turn.wrapping_add(1);
                    self.control.connection = Some(self.connect(Role::Control, peer, address, name));
                    return;
                }
                Step::Resolve => {
                    let (host, port) = (endpoint.host.clone(), endpoint.port);
                    self.actions.push_back(Action::Resolve { host, port });
                    return self.control.armed.at(&mut self.timers, now + ATTEMPT_DELAY, Timer::Control);
                }
                // Not for long, if there are others.
                Step::Resolving(since) if now < since + ATTEMPT_DELAY => {
                    return self.control.armed.at(&mut self.timers, since + ATTEMPT_DELAY, Timer::Control);
                }
                Step::Resolving(_) => {}
                Step::Wait(until) => earliest = Some(earliest.map_or(until, |at| at.min(until))),
            }
        }
        if let Some(until) = earliest {
            self.control.armed.at(&mut self.timers, until, Timer::Control);
        }
    }

    /// Whom to ask, best first.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let recovers = self.config.metadata_recovery == MetadataRecovery::Rebootstrap;
        let mut nodes: Vec<i32> = self.nodes.keys().copied().collect();
        nodes.sort_unstable();
        let bootstrap = if recovers || self.nodes.is_empty() { self.bootstrap.len() } else { 0 };
        let turn = self.control.turn;
        let rotated = |len: usize| (0..len).map(move |at| (at + turn) % len);
        let wants_identity = !self.identity.ready();
        let rank = |endpoint: &Endpoint| (wants_identity && endpoint.no_identity, endpoint.in_vain());
        let mut peers = Vec::with_capacity(nodes.len() + bootstrap);
        for id in rotated(nodes.len()).map(|at| nodes[at]) {
            let Some(node) = self.nodes.get(&id) else { continue };
            let (class, load) = match node.lane.and_then(|lane| self.connections.get(&lane)) {
                Some(lane) if lane.state == State::Ready => (0, lane.unanswered.len()),
                Some(_) => (2, 0),
                None => (1, 0),
            };
            peers.push((rank(&node.endpoint), class, load, Peer::Node(id)));
        }
        peers.extend(rotated(bootstrap).map(|at| (rank(&self.bootstrap[at]), 3, 0, Peer::Bootstrap(at))));
        // While it starts again, the bootstrap servers come first. The others are not forgotten: if those cannot be
        // reached either, whoever comes back first will do. Stable: among equals the turn decides.
        let later = |peer: &Peer| self.control.bootstrapping && matches!(peer, Peer::Node(_));
        peers.sort_by_key(|(rank, class, load, peer)| (later(peer), *rank, *class, *load));
        peers.into_iter().map(|(.., peer)| peer).collect()
    }

    /// There is a peer besides the one that connection `id` leads to that could be asked now and that `may` takes.
    pub(super) fn has_other_peer(&self, id: ConnectionId, may: impl Fn(&Endpoint) -> bool) -> bool {
        let now = self.now.monotonic;
        let Some(connection) = self.connections.get(&id) else { return false };
        self.peers().into_iter().filter(|peer| *peer != connection.peer).any(|peer| {
            self.known_endpoint(peer).is_some_and(|endpoint| {
                let ready = now >= endpoint.spare_until && !matches!(endpoint.peek(now), Step::Wait(_));
                ready && !endpoint.leads_to(connection.address) && may(endpoint)
            })
        })
    }

    pub(super) fn known_endpoint(&self, peer: Peer) -> Option<&Endpoint> {
        match peer {
            Peer::Bootstrap(at) => self.bootstrap.get(at),
            Peer::Node(id) => self.nodes.get(&id).map(|node| &node.endpoint),
        }
    }

    /// Starts again when there was no metadata for too long (KIP-1102): for `metadata.recovery.rebootstrap.trigger.ms`, but
    /// every question has its `request.timeout.ms`.
    pub(super) fn watch_recovery(&mut self) {
        let now = self.now.monotonic;
        if !self.control.wanted && !self.control.asked {
            return;
        }
        let since = *self.control.wanting_since.get_or_insert(now);
        self.note_metadata(Some(since.max(self.control.last_answer)));
        if self.config.metadata_recovery != MetadataRecovery::Rebootstrap {
            return;
        }
        let at = since.saturating_add(self.config.rebootstrap_trigger.max(self.config.request_timeout));
        if now < at {
            return self.control.recovery_armed.at(&mut self.timers, at, Timer::Control);
        }
        let why = format!("no metadata of use for {} ms", (now - since).as_millis());
        // If brokers did answer, only what they could not help with is in doubt.
        self.start_again(&why, self.control.lacking == 0);
        if let Some(id) = self.control.connection {
            self.give_up(id, Cause::Broken, why);
        }
    }

    /// Trusts nothing that is known of the cluster's brokers any more: the bootstrap servers come first when metadata is
    /// asked for, their names looked up afresh, and whatever is answered of leaders is believed. The Java client closes
    /// all its connections at this point and forgets the brokers; here batches go on where they are acknowledged, until
    /// the answer names other addresses (KIP-899, KIP-1102).
    pub(super) fn start_again(&mut self, why: &str, doubts_all: bool) {
        self.control.wanting_since = Some(self.now.monotonic);
        if self.config.metadata_recovery == MetadataRecovery::None {
            return;
        }
        if !std::mem::replace(&mut self.control.bootstrapping, true) {
            tracing::warn!(why, "starting again from bootstrap.servers");
        }
        if doubts_all {
            self.cluster.forget_epochs();
        } else {
            self.cluster.forget_doubted_epochs();
        }
        self.bootstrap.iter_mut().for_each(Endpoint::forget);
    }
}
