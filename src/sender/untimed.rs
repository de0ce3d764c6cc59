//! What a simulation checks before time goes by: whatever the sender waits for, an event of the world will end the wait, or
//! a timer will. A wait with neither lasts until something else happens to wake the sender.

use std::time::Duration;

use super::Sender;
use super::connection::{Connection, State};
use super::endpoint::Step;
use super::idempotence::Identity;
use super::lagging::SLOW_SETUP;
use super::race::ATTEMPT_DELAY;
use super::timers::{Timer, Timers};
use super::transmit::ConnectionId;
use crate::config::MetadataRecovery;

/// What is due when, against the timers.
struct Check<'a> {
    now: Duration,
    timers: &'a Timers,
    found: Vec<String>,
}

impl Check<'_> {
    /// `what` is due at `at`: there is a timer at that time or before. What is due now was just looked at, and is looked
    /// at again within a millisecond at the earliest.
    fn due(&mut self, what: impl FnOnce() -> String, at: Duration, timer: Timer) {
        let at = at.max(self.now + Duration::from_millis(1));
        if at < Duration::MAX && !self.timers.is_armed(at, timer) {
            self.found.push(format!("{} is due at {at:?}, and {timer:?} is not armed for that", what()));
        }
    }

    fn wrong(&mut self, what: String) {
        self.found.push(what);
    }
}

impl Sender {
    /// Everything that waits and that nothing will wake, in words. To be called after a turn.
    pub fn untimed(&self) -> Vec<String> {
        let mut check = Check { now: self.now.monotonic, timers: &self.timers, found: Vec::new() };
        if !self.closed {
            self.check_control(&mut check);
            self.check_nodes(&mut check);
            self.check_partitions(&mut check);
        }
        for (id, connection) in &self.connections {
            self.check_deadlines(*id, connection, &mut check);
        }
        if let Some(at) = self.deadlines.next() {
            check.due(|| "a record's own limit".into(), at, Timer::Deadlines);
        }
        if let Some(closing) = &self.closing {
            check.due(|| "the end of the close".into(), closing.deadline(), Timer::Close);
        }
        if self.waits_for_a_look() {
            check.due(|| "a look at flushes and the close".into(), check.now, Timer::Close);
        }
        if self.watching_waiters {
            check.due(|| "a look at those who wait".into(), check.now + super::shutdown::WAITERS_EVERY, Timer::Waiters);
        }
        check.found
    }

    fn check_control(&self, check: &mut Check) {
        let control = &self.control;
        if !self.topics.is_empty() && !control.asked {
            let due = (control.last_answer + self.config.metadata_max_age).max(control.not_before);
            if due > check.now {
                check.due(|| "the next metadata refresh".into(), due, Timer::Control);
            } else if !control.wanted {
                check.wrong("metadata is older than metadata.max.age.ms, and not wanted".into());
            }
        }
        let recovers = self.config.metadata_recovery == MetadataRecovery::Rebootstrap;
        if recovers && (control.wanted || control.asked) {
            match control.wanting_since {
                Some(since) => {
                    let time = self.config.rebootstrap_trigger.max(self.config.request_timeout);
                    check.due(
                        || "a new start from the bootstrap servers".into(),
                        since.saturating_add(time),
                        Timer::Control,
                    );
                }
                None => check.wrong("metadata is wanted, and nobody counts for how long".into()),
            }
        }
        let metadata_due = (control.wanted && !control.asked).then_some(("metadata", control.not_before));
        let identity_due = match self.identity {
            Identity::Wanted { retry_at, .. } => Some(("a producer id", retry_at)),
            _ => None,
        };
        for (what, at) in metadata_due.into_iter().chain(identity_due) {
            if at > check.now {
                check.due(|| format!("the question for {what}"), at, Timer::Control);
            } else {
                self.check_questioner(what, check);
            }
        }
    }

    /// `what` could be asked for now: then somebody is at work for that.
    fn check_questioner(&self, what: &str, check: &mut Check) {
        if let Some(connection) = self.control.connection {
            match self.connections.get(&connection) {
                Some(connection) if connection.can_send(check.now) && connection.unanswered.is_empty() => {
                    check.wrong(format!("{what} could be asked for on {}, and is not", connection.name));
                }
                // Its own deadlines are checked.
                Some(_) => {}
                None => check.wrong("the control connection is none that there is".into()),
            }
            return;
        }
        let mut at = self.control.connect_at;
        if at <= check.now {
            let (mut earliest, mut looked_up, mut possible) = (None::<Duration>, None::<Duration>, None);
            let mut resolving = false;
            for endpoint in self.peers().into_iter().filter_map(|peer| self.known_endpoint(peer)) {
                let wait = match endpoint.peek(check.now) {
                    _ if endpoint.spare_until > check.now => endpoint.spare_until,
                    Step::Wait(until) => until,
                    Step::Resolving(since) => {
                        resolving = true;
                        looked_up = looked_up.max(Some(since + ATTEMPT_DELAY));
                        continue;
                    }
                    step => {
                        possible = Some(step);
                        continue;
                    }
                };
                earliest = Some(earliest.map_or(wait, |at| at.min(wait)));
            }
            let looked_up = looked_up.filter(|at| *at > check.now);
            at = match (possible, looked_up, earliest) {
                // A look-up is waited for first.
                (Some(_), Some(at), _) | (None, None, Some(at)) => at,
                (None, Some(looked_up), Some(at)) => at.max(looked_up),
                (Some(step), None, _) => {
                    return check.wrong(format!("{what} is wanted, {step:?} is possible, and nobody does it"));
                }
                // The answer to the look-up will tell.
                (None, _, None) if resolving => return,
                (None, _, None) => return check.wrong(format!("{what} is wanted, and there is nobody to be asked")),
            };
        }
        check.due(|| format!("a connection to ask for {what}"), at, Timer::Control);
    }

    fn check_nodes(&self, check: &mut Check) {
        for (id, node) in self.nodes.iter().filter(|(_, node)| !node.ready.is_empty() && node.lane.is_none()) {
            match node.endpoint.peek(check.now) {
                Step::Wait(until) => check.due(|| format!("a connection to broker {id}"), until, Timer::Node(*id)),
                Step::Resolving(since) if since + SLOW_SETUP > check.now => {
                    check.due(|| format!("a look at broker {id}'s name"), since + SLOW_SETUP, Timer::Node(*id));
                }
                Step::Resolving(_) => {}
                step => {
                    check.wrong(format!("partitions wait for broker {id}, {step:?} is possible, and nobody does it"))
                }
            }
        }
    }

    fn check_deadlines(&self, id: ConnectionId, connection: &Connection, check: &mut Check) {
        let now = check.now;
        let (what, at) = match connection.state {
            State::Connecting | State::Negotiating => ("set-up", connection.next_look(now)),
            State::Ready if connection.throttled_until > now => ("end of the throttle", connection.throttled_until),
            State::Ready if connection.unanswered.is_empty() => {
                ("idle end", connection.last_used.saturating_add(self.config.connections_max_idle))
            }
            State::Ready => {
                let since = connection.head_since.max(connection.throttled_until);
                let rival_at = connection.rival_at.filter(|at| *at > now).unwrap_or(Duration::MAX);
                ("answer", since.saturating_add(self.config.request_timeout).min(rival_at))
            }
            // The driver will tell.
            State::Closing | State::Closed => return,
        };
        check.due(|| format!("the {what} of {id:?} to {}", connection.name), at, Timer::Connection(id));
    }

    fn check_partitions(&self, check: &mut Check) {
        for (id, partition) in (0..).zip(&self.partitions) {
            let place = || format!("{} (leader {})", partition.ring.place, partition.leader);
            if let Some(at) = self.expiry_due(id) {
                check.due(|| format!("the expiry of {}", place()), at, Timer::Expiry(id));
            }
            let may_leave = self.may_leave_at(id);
            let waits = !partition.queue.is_empty() || partition.seen.first().is_some();
            let now = may_leave.is_none_or(|at| at <= check.now);
            let wanted = self.control.wanted || self.control.asked;
            if waits && now && !self.nodes.contains_key(&partition.leader) && !wanted {
                check.wrong(format!("{} has records and no leader to go to, and metadata is not wanted", place()));
            }
            match may_leave {
                // Its turn comes when its leader's lane can take a request.
                _ if partition.listed => {}
                Some(at) if at > check.now => {
                    check.due(|| format!("a batch of {}", place()), at, Timer::Partition(id));
                }
                Some(now) if self.nodes.contains_key(&partition.leader) => {
                    // Between a writer's claim and its commit, or when what was too little has become enough by itself (a
                    // limit went down), it leaves with its linger.
                    let at = now + self.config.linger;
                    check.due(|| format!("a batch of {}, which is not listed,", place()), at, Timer::Partition(id));
                }
                _ => {}
            }
        }
    }
}
