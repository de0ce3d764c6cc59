//! Connections' deadlines: set-up, answers, throttles, idle times.

use super::Sender;
use super::connection::{Cause, Role, State};
use super::lagging::SLOW_SETUP;
use super::timers::Timer;
use super::transmit::ConnectionId;

impl Sender {
    /// A look when the oldest request's time is over, or, without one, the connection's own.
    pub(super) fn arm_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let at = connection.next_end(self.config.request_timeout, self.config.connections_max_idle);
        connection.armed.at(&mut self.timers, at, Timer::Connection(id));
    }

    /// A connection's timer fired: which of its deadlines is it, if any?
    pub(super) fn check_connection(&mut self, id: ConnectionId) {
        let now = self.now.monotonic;
        let (request, idle) = (self.config.request_timeout, self.config.connections_max_idle);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.armed.fired(now);
        let (mut next, mut is_slow, mut is_late) = (None, false, false);
        match connection.state {
            State::Connecting | State::Negotiating if now >= connection.setup_deadline => {
                let what = if connection.state == State::Connecting {
                    "no TCP connection"
                } else {
                    "no answer to ApiVersions"
                };
                let progress = connection.progress();
                let within = connection.setup_timeout.as_millis();
                let why = format!("{what} within {within} ms{progress}; is this a Kafka broker's port?");
                return self.give_up(id, Cause::Broken, why);
            }
            State::Connecting | State::Negotiating => {
                is_slow = connection.role == Role::Lane && now >= connection.begun() + SLOW_SETUP;
                is_late = connection.rival_at.is_some_and(|at| now >= at);
                next = Some(connection.next_look(now));
            }
            State::Ready => {
                // Throttle time does not count.
                let since = connection.head_since.max(connection.throttled_until.min(now));
                if connection.unanswered.is_empty() {
                    if now >= connection.last_used.saturating_add(idle) {
                        return self.give_up(id, Cause::Idle, "idle for connections.max.idle.ms".into());
                    }
                    next = Some(connection.last_used.saturating_add(idle));
                } else if now >= since + request {
                    let progress = connection.progress();
                    let why = format!("no answer within request.timeout.ms ({} ms){progress}", request.as_millis());
                    return self.give_up(id, Cause::RequestTimeout, why);
                } else {
                    is_late = connection.rival_at.is_some_and(|at| now >= at) && connection.is_silent();
                    let rival_at = connection.rival_at.filter(|at| *at > now);
                    next = rival_at.into_iter().chain([since + request]).min();
                }
                if connection.throttled_until > now {
                    next = Some(connection.throttled_until);
                }
            }
            State::Closing | State::Closed => {}
        }
        if let Some(next) = next {
            connection.armed.at(&mut self.timers, next, Timer::Connection(id));
        }
        if is_late {
            self.begin_rival(id);
        }
        if is_slow && self.needs_news() {
            self.want_metadata();
        }
        self.list_waiting_node(id);
        self.step_control();
    }
}
