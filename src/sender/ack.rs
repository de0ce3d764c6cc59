//! Answers to Produce requests: what each partition's answer decides.

use std::sync::Arc;

use super::Sender;
use super::connection::Request;
use super::cut_out::{self, Refused};
use super::in_flight::{Batch, Reported};
use super::knowledge::Event;
use super::transmit::ConnectionId;
use crate::completion::Outcome;
use crate::error::{BrokerError, DeliveryErrorKind};
use crate::metadata::{BrokerAddress, Leader};
use crate::wire::error_code::ErrorCode;
use crate::wire::header::{ApiKey, response_header};
use crate::wire::produce::{self, PartitionAnswer, TopicRef};

/// One partition's answer, without borrowing from the frame.
#[derive(Debug)]
pub struct Answer {
    error: ErrorCode,
    base_offset: i64,
    log_append_time: i64,
    message: Option<String>,
    refused: Refused,
    leader: Option<Leader>,
}

/// acks=0: a batch of which the kernel has all bytes.
#[derive(Debug)]
pub struct Unconfirmed {
    connection: ConnectionId,
    /// The batch.
    pub batch: Batch,
    /// The driver had its chance to say that the connection is dead.
    polled: bool,
}

/// What an error decides for a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is in the log.
    Delivered,
    /// Send it again; `true`: at once, the leader is known to have moved.
    Retry,
    /// It is too large for the topic: send it in parts.
    Split,
    /// Nothing of it is stored because of the records that the answer names: send the others.
    CutOut,
    /// Its sequence is not the next one.
    OutOfSequence,
    /// It cannot be delivered.
    Fail,
}

/// What counts about a batch that was refused, besides the error.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// How many records it has: a single one cannot be split.
    pub records: u32,
    /// How many of them the answer names as being at fault.
    pub named: usize,
    /// It has sequence numbers.
    pub idempotent: bool,
}

impl Decision {
    /// The table of producer errors. Whether a copy was appended all the same makes no difference: what is sent again is
    /// known by its numbers then, and what fails has failed as possibly written. (There are brokers that put offset 0
    /// beside any error.)
    pub fn of(error: ErrorCode, asked: &Refusal) -> Self {
        let &Refusal { records, named, idempotent } = asked;
        match error {
            ErrorCode::NONE => Self::Delivered,
            // The broker has it already, under these very sequence numbers.
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER if idempotent => Self::Delivered,
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID if idempotent => {
                Self::OutOfSequence
            }
            error if error.is_retriable() => Self::Retry,
            ErrorCode::MESSAGE_TOO_LARGE if records > 1 => Self::Split,
            // Nothing else concerns single records.
            ErrorCode::INVALID_RECORD | ErrorCode::INVALID_TIMESTAMP if named > 0 => Self::CutOut,
            _ => Self::Fail,
        }
    }
}

/// With these errors a producer id is of no more use on a partition, under any epoch that we know of.
fn refuses_producer(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::INVALID_PRODUCER_ID_MAPPING | ErrorCode::PRODUCER_FENCED
    )
}

/// With these errors brokers name the leader.
fn names_leader(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH)
}

/// These errors say that this copy may have been appended.
fn may_be_appended(error: ErrorCode, base_offset: i64) -> bool {
    base_offset >= 0 || matches!(error, ErrorCode::REQUEST_TIMED_OUT | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
}

impl Sender {
    /// Reads a Produce answer. Each partition is matched by name or id and index: they come in any order.
    pub(super) fn read_produce(
        &mut self,
        id: ConnectionId,
        version: i16,
        mut batches: Vec<Option<Batch>>,
        frame: &[u8],
    ) -> Result<(), String> {
        let mut answers = std::mem::take(&mut self.spare_answers);
        let (mut strays, mut next) = (0, 0);
        let mut visit = |answer: PartitionAnswer<'_>| {
            let is_meant = |at: &usize| {
                let Some(batch) = &batches[*at] else { return false };
                let partition = &self.partitions[batch.partition as usize];
                let topic = &partition.ring.place.topic;
                partition.ring.place.partition == answer.index
                    && match answer.topic {
                        TopicRef::Name(name) => name == &**topic,
                        TopicRef::Id(id) => batch.topic_id == id,
                    }
            };
            // Mostly they do come in the order of the request.
            let place = (next..batches.len()).chain(0..next).find(is_meant);
            match place.and_then(|at| batches[at].take()) {
                Some(batch) => answers.push((batch, Answer::from(answer))),
                None => strays += 1,
            }
            next = place.map_or(next, |at| at + 1);
        };
        let tail = response_header(frame, ApiKey::PRODUCE, version)
            .and_then(|(_, body)| produce::decode_response(body, version, &mut visit));
        let result = match tail {
            Ok(tail) => {
                if strays > 0 {
                    Err("it answered for partitions that were not asked".to_owned())
                } else {
                    self.throttle(id, tail.throttle_ms);
                    let leads = |node| answers.iter().any(|(_, a)| a.leader.is_some_and(|leader| leader.node == node));
                    for endpoint in tail.node_endpoints.iter().filter(|endpoint| leads(endpoint.node_id)) {
                        self.learn_broker(endpoint);
                    }
                    Ok(())
                }
            }
            Err(error) => Err(format!("its answer to Produce cannot be read: {error}")),
        };
        let name = self.connections.get(&id).map_or_else(|| Arc::from(""), |connection| connection.name.clone());
        if result.is_ok() {
            self.prove(id);
            for (batch, answer) in answers.drain(..) {
                self.settle(batch, answer, &name);
            }
        }
        // Without an answer, or with one that cannot be trusted, nothing is known of a batch.
        batches.extend(answers.drain(..).map(|(batch, _)| Some(batch)));
        self.spare_answers = answers;
        let unanswered = batches.iter().any(Option::is_some);
        let result = match result {
            Ok(()) if unanswered => Err("it did not answer for all partitions".to_owned()),
            result => result,
        };
        let trouble: Option<Arc<str>> = result.as_ref().err().map(|why| format!("{name}: {why}").into());
        self.lose_batches(batches, true, DeliveryErrorKind::BadAnswer, &trouble.unwrap_or(name));
        result
    }

    fn settle(&mut self, mut batch: Batch, mut answer: Answer, name: &Arc<str>) {
        self.book_out(&mut batch);
        let id = batch.partition;
        let error = answer.error;
        let first_attempt = batch.attempts == 1;
        if error != ErrorCode::NONE {
            batch.last_error = Some(BrokerError::new(error, answer.message.as_deref()).from(name.clone()));
            (batch.trouble, batch.died_alone) = (None, 0);
            if may_be_appended(error, answer.base_offset) {
                batch.known.learn(Event::LeftOpen);
            }
        }
        if error.is_invalid_metadata() {
            self.want_metadata();
            self.note_refusal(&batch, error);
        }
        let hint = answer.leader.filter(|_| names_leader(error));
        cut_out::tidy(&mut answer.refused, batch.count);
        let refusal = Refusal { records: batch.count, named: answer.refused.len(), idempotent: batch.stamp.is_some() };
        let decision = Decision::of(error, &refusal);
        super::steps::decided(decision);
        match decision {
            Decision::Delivered => {
                let topic = self.partitions[id as usize].topic as usize;
                // A duplicate's answer carries a time on CreateTime topics too: trust it only where it belongs.
                if first_attempt && error == ErrorCode::NONE {
                    self.topics[topic].log_append_time = answer.log_append_time >= 0;
                }
                let trusted = self.topics[topic].log_append_time;
                let outcome = Outcome::Delivered {
                    // The last record's offset must be one, too.
                    base_offset: (answer.base_offset >= 0
                        && answer.base_offset.checked_add(i64::from(batch.count)).is_some())
                    .then_some(answer.base_offset),
                    log_append_time: (trusted && answer.log_append_time >= 0).then_some(answer.log_append_time),
                };
                self.delivered(batch, outcome);
            }
            Decision::Retry => {
                let node = batch.node;
                self.retry(batch, DeliveryErrorKind::Broker(error));
                // Not before: a new leader is a reason to look at the partition, which must have all of its batches then.
                if error.is_invalid_metadata() {
                    self.doubt_hint(id, node);
                }
                if let Some(leader) = hint {
                    self.take_hint(id, node, leader);
                }
            }
            // What was told is left out first: it is not to be written again.
            Decision::Split if batch.reported() != Reported::Nobody => {
                self.cut_out(batch, DeliveryErrorKind::Broker(error), &Vec::new())
            }
            Decision::Split => self.split(batch),
            Decision::CutOut => self.cut_out(batch, DeliveryErrorKind::Broker(error), &answer.refused),
            Decision::OutOfSequence => self.out_of_sequence(batch, error),
            Decision::Fail if error == ErrorCode::MESSAGE_TOO_LARGE => self.fail(batch, DeliveryErrorKind::TooLarge),
            Decision::Fail if error == ErrorCode::UNSUPPORTED_VERSION => {
                self.fail(batch, DeliveryErrorKind::UnsupportedVersion);
            }
            Decision::Fail => {
                if refuses_producer(error) {
                    self.partitions[id as usize].sequences.give_up_producer();
                }
                self.fail(batch, DeliveryErrorKind::Broker(error));
            }
        }
        self.consider(id);
    }

    fn learn_broker(&mut self, endpoint: &produce::NodeEndpoint) {
        let Ok(address) = BrokerAddress::new(&endpoint.host, endpoint.port) else { return };
        self.nodes.entry(endpoint.node_id).or_insert_with(|| super::Node::new(&address.host, address.port));
        self.cluster.brokers.insert(endpoint.node_id, address);
    }

    /// acks=0: the kernel has taken the request. Before that counts, the turn's other events get a chance to say that
    /// the connection is dead.
    pub(super) fn hold_unacknowledged(&mut self, id: ConnectionId, request: Request) {
        if let super::connection::Asked::Produce { mut batches, .. } = request.asked {
            let held = batches.drain(..).flatten().map(|batch| Unconfirmed { connection: id, batch, polled: false });
            self.unconfirmed.extend(held);
            self.spare_batches.push(batches);
        }
    }

    /// acks=0: what the kernel took is as good as it gets, once the driver was asked again and its connection lives.
    pub(super) fn confirm_unacknowledged(&mut self) {
        if self.unconfirmed.is_empty() {
            return;
        }
        let mut confirmed: Vec<_> = self.unconfirmed.extract_if(.., |held| held.polled).collect();
        for held in &mut self.unconfirmed {
            held.polled = true;
        }
        for Unconfirmed { mut batch, connection, .. } in confirmed.drain(..) {
            self.book_out(&mut batch);
            self.prove(connection);
            let id = batch.partition;
            self.delivered(batch, Outcome::Delivered { base_offset: None, log_append_time: None });
            self.consider(id);
        }
    }

    /// acks=0: the connection died with records in the kernel's hands. Nobody can tell whether they arrived, and
    /// sending them again could store them twice.
    pub(super) fn lose_unacknowledged(&mut self, id: ConnectionId, trouble: &Arc<str>) {
        let lost: Vec<_> = self.unconfirmed.extract_if(.., |held| held.connection == id).collect();
        for Unconfirmed { mut batch, .. } in lost {
            self.book_out(&mut batch);
            batch.known.learn(Event::Lost);
            batch.trouble = Some(trouble.clone());
            let partition = batch.partition;
            self.fail(batch, DeliveryErrorKind::Disconnected);
            self.consider(partition);
        }
    }
}

impl From<PartitionAnswer<'_>> for Answer {
    fn from(answer: PartitionAnswer<'_>) -> Self {
        let message = answer.error_message.map(str::to_owned).or_else(|| {
            let (index, message) = answer.record_errors.first()?;
            Some(format!("record {index} of the batch: {}", message.as_ref()?))
        });
        Self {
            error: answer.error,
            base_offset: answer.base_offset,
            log_append_time: answer.log_append_time,
            message,
            refused: answer.record_errors,
            leader: answer.current_leader.map(|(node, epoch)| Leader { node, epoch }).filter(|leader| leader.node >= 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka's table: codes, without and with idempotence. Of a batch of ten of which no record is named.
    const TABLE: &[(&[i16], Decision, Decision)] = &[
        (&[0], Decision::Delivered, Decision::Delivered),
        (&[2, 7, 14, 15, 16, 19, 20, 51, 75, 89], Decision::Retry, Decision::Retry),
        // Those that ask for metadata, too.
        (&[3, 5, 6, 9, 13, 56, 72, 74, 80, 83, 84, 100, 103], Decision::Retry, Decision::Retry),
        (&[10], Decision::Split, Decision::Split),
        (&[-1, 17, 18, 21, 29, 31, 32, 35, 43, 44, 53, 76, 87], Decision::Fail, Decision::Fail),
        (&[47, 48, 49, 90, 120], Decision::Fail, Decision::Fail),
        (&[45, 59], Decision::Fail, Decision::OutOfSequence),
        (&[46], Decision::Fail, Decision::Delivered),
        // Not Produce's, or nobody's.
        (&[1, 4, 8, 25, 129, 130, 12_345, -2, i16::MIN, i16::MAX], Decision::Fail, Decision::Fail),
    ];

    #[test]
    fn what_each_error_decides() {
        for (codes, plain, idempotent) in TABLE {
            for code in *codes {
                let of = |idempotent| Decision::of(ErrorCode(*code), &Refusal { records: 10, named: 0, idempotent });
                assert_eq!((of(false), of(true)), (*plain, *idempotent), "{code}");
                // An offset beside an error: appended and not confirmed. Two errors say so without.
                assert_eq!(may_be_appended(ErrorCode(*code), -1), matches!(code, 7 | 20), "{code}");
                assert!(may_be_appended(ErrorCode(*code), 0) && may_be_appended(ErrorCode(*code), 9), "{code}");
            }
        }
        let listed: Vec<i16> = TABLE.iter().flat_map(|(codes, ..)| codes.iter().copied()).collect();
        let metadata: Vec<i16> = listed.iter().copied().filter(|code| ErrorCode(*code).is_invalid_metadata()).collect();
        assert_eq!(metadata, [3, 5, 6, 9, 13, 56, 72, 74, 80, 83, 84, 100, 103]);
    }

    #[test]
    fn what_depends_on_the_records() {
        let of = |code, records, named| Decision::of(ErrorCode(code), &Refusal { records, named, idempotent: true });
        assert_eq!((of(10, 2, 0), of(10, 1, 0)), (Decision::Split, Decision::Fail));
        for code in [32, 87] {
            assert_eq!(
                (of(code, 10, 1), of(code, 1, 1), of(code, 10, 0)),
                (Decision::CutOut, Decision::CutOut, Decision::Fail)
            );
        }
        assert_eq!((of(44, 10, 1), of(19, 10, 1), of(10, 10, 1)), (Decision::Fail, Decision::Retry, Decision::Split));
    }
}
