//! The producer id: asked for on the control connection, in turn with metadata, until there is one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Sender;
use super::connection::{Asked, Cause};
use super::idempotence::{Identity, ProducerEpoch, ProducerId};
use super::timers::Timer;
use super::transmit::ConnectionId;
use crate::error::BrokerError;
use crate::wire::error_code::ErrorCode;
use crate::wire::header::ApiKey;
use crate::wire::init_producer_id;

impl Sender {
    /// A producer id is to be asked for.
    pub(super) fn want_producer_id(&mut self) {
        if !matches!(self.identity, Identity::Wanted { .. } | Identity::Asked { .. }) {
            self.identity = Identity::Wanted { retry_at: Duration::ZERO, failures: 0 };
            // This turn's look at the control connection may be over.
            self.control.armed.at(&mut self.timers, self.now.monotonic, Timer::Control);
        }
    }

    pub(super) fn ask_producer_id(&mut self, id: ConnectionId, version: i16) {
        let Identity::Wanted { failures, .. } = self.identity else { return };
        self.identity = Identity::Asked { failures };
        self.control.identity_next = false;
        self.ask(id, ApiKey::INIT_PRODUCER_ID, version, Asked::InitProducerId { version }, |out| {
            init_producer_id::encode_request(out, version, None, i32::MAX, -1, -1);
        });
    }

    /// Reads the answer to InitProducerId.
    pub(super) fn read_producer_id(&mut self, id: ConnectionId, version: i16, body: &[u8]) -> Result<(), String> {
        let response = init_producer_id::decode_response(body, version)
            .map_err(|error| format!("its producer id cannot be read: {error}"))?;
        let (producer, epoch) = (response.producer_id, response.epoch);
        if response.error == ErrorCode::NONE && (producer < 0 || epoch < 0) {
            return Err(format!("it gave producer id {producer} with epoch {epoch}, and no error"));
        }
        self.prove(id);
        let peer = self.connections.get(&id).map(|connection| connection.peer);
        if let Some(endpoint) = peer.and_then(|peer| self.endpoint(peer)) {
            endpoint.asked_in_vain = 0;
        }
        self.throttle(id, response.throttle_ms);
        if response.error == ErrorCode::NONE {
            self.identity = Identity::Known(ProducerId(producer), ProducerEpoch(epoch));
            self.shared.set_identity_trouble(None);
            self.note_identity(None);
            self.shared.identified.store(true, Ordering::Release);
            self.shared.changed.wake_all();
            self.consider_active();
            return Ok(());
        }
        let mut error = BrokerError::new(response.error, None);
        if let Some(connection) = self.connections.get(&id) {
            error = error.from(connection.name.clone());
        }
        self.lose_identity_request(&format!("the last answer was {error}"));
        if !response.error.is_retriable() {
            self.fail_everything_queued(&error);
        }
        self.step_control();
        Ok(())
    }

    /// The producer id must be asked for again, because of that.
    pub(super) fn lose_identity_request(&mut self, trouble: &str) {
        if let Identity::Asked { failures } = self.identity {
            self.put_off_identity(failures, trouble);
        }
    }

    /// The broker has no InitProducerId: another one is asked, if there is one that may have it.
    pub(super) fn miss_identity(&mut self, id: ConnectionId) {
        let (Identity::Wanted { failures, .. }, Some(connection)) = (self.identity, self.connections.get(&id)) else {
            return;
        };
        let why = "it has no InitProducerId, which idempotence needs; set enable.idempotence=false for brokers without";
        self.put_off_identity(failures, &format!("{}: {why}", connection.name));
        if self.has_other_peer(id, |other| !other.no_identity) {
            self.give_up(id, Cause::Replaced, "it has no InitProducerId: another broker is asked".into());
        }
    }

    /// Not now; again when the backoff is over.
    fn put_off_identity(&mut self, failures: u32, trouble: &str) {
        self.shared.set_identity_trouble(Some(trouble.to_owned()));
        self.note_identity(Some(trouble));
        let failures = failures.saturating_add(1);
        let retry_at = self.now.monotonic + self.retry_backoff().after(failures, self.random.next());
        self.identity = Identity::Wanted { retry_at, failures };
        self.control.armed.at(&mut self.timers, retry_at, Timer::Control);
    }
}
