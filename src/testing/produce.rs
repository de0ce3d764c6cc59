//! Produce: who leads, what should go wrong, what is stored, and the answer.

use std::collections::HashMap;
use std::time::Duration;

use super::broker::{BrokerModel, Incoming, Reply};
use super::log::{AppendRules, Appended};
use super::options::{Fault, ProduceContext};
use super::validate::{Refusal, check_batch, check_for_partition, check_for_request};
use crate::wire::codec::WireError;
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::{NodeEndpoint, PartitionAnswer, ProduceTail, TopicRef, VERSIONS};
use crate::wire::server::produce::{ProduceRequest, decode_request, encode_response};

/// What the batches' faults come to for the whole request.
#[derive(Debug, Default)]
struct Mishap {
    close_before: bool,
    hang_before: bool,
    close_after: bool,
    hang_after: bool,
    delay: Duration,
    throttle: Duration,
}

/// One entry of the request.
#[derive(Clone, Copy)]
struct Arrived<'a> {
    topic: TopicRef<'a>,
    index: i32,
    /// `None` is null.
    records: Option<&'a [u8]>,
    fault: Fault,
}

/// What is to become of one partition.
struct Verdict<'a> {
    topic: TopicRef<'a>,
    index: i32,
    /// The last one that passed the first checks.
    batch: Option<(&'a [u8], Fault)>,
    /// Why an entry did not: the answer, even where another one is stored.
    refusal: Option<Refusal>,
}

impl BrokerModel {
    /// Carries out a Produce request and appends the answer's body.
    pub(super) fn produce(
        &mut self,
        incoming: &Incoming<'_>,
        version: i16,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Reply, WireError> {
        if version < *VERSIONS.start() {
            return Ok(Reply::Close);
        }
        let request = decode_request(body, version)?;
        let mut arrived = arrived(&request);
        let mishap = self.ask_for_faults(incoming, version, &request, &mut arrived);
        if mishap.close_before {
            return Ok(Reply::Close);
        }
        if mishap.hang_before {
            return Ok(Reply::Hang);
        }
        let Some(verdicts) = self.judge(version, &request, &arrived) else { return Ok(Reply::Hang) };
        self.produce_requests += 1;

        let mut tail = ProduceTail { throttle_ms: mishap.throttle.as_millis() as i32, node_endpoints: Vec::new() };
        let mut topics: Vec<(TopicRef<'_>, Vec<PartitionAnswer<'_>>)> = Vec::new();
        let mut failed = false;
        // Backwards, since no client may count on the order.
        for verdict in verdicts.into_iter().rev() {
            let topic = verdict.topic;
            let nameless = matches!(verdict.batch, Some((_, Fault::NamesLeader { address: false, .. })));
            let mut answer = self.answer(incoming, request.acks, verdict);
            failed |= !answer.error.is_none();
            if !nameless {
                self.add_hint(&mut answer, &mut tail);
            }
            match topics.last_mut() {
                Some((of, answers)) if *of == topic => answers.push(answer),
                _ => topics.push((topic, vec![answer])),
            }
        }
        if mishap.close_after || request.acks == 0 && failed {
            return Ok(Reply::Close);
        }
        if mishap.hang_after {
            return Ok(Reply::Hang);
        }
        if request.acks == 0 {
            return Ok(Reply::Nothing);
        }
        encode_response(out, version, &topics, &tail);
        Ok(Reply::Answer { delay: self.options.ack_delay + mishap.delay, mute: mishap.throttle })
    }

    fn ask_for_faults(
        &mut self,
        incoming: &Incoming<'_>,
        version: i16,
        request: &ProduceRequest<'_>,
        batches: &mut [Arrived<'_>],
    ) -> Mishap {
        let mut mishap = Mishap::default();
        let Some(hook) = self.options.on_produce.as_mut() else { return mishap };
        for batch in batches {
            let name = match batch.topic {
                TopicRef::Name(name) => name,
                TopicRef::Id(id) => self.topic_names.get(&id).map_or("", String::as_str),
            };
            let head = batch.records.and_then(|records| records.get(43..61));
            let number = |at: usize, len: usize| {
                let bytes = head.and_then(|head| head.get(at - 43..at - 43 + len));
                bytes.map_or(-1, |bytes| bytes.iter().fold(-i64::from(bytes[0] >> 7), |n, &b| n << 8 | i64::from(b)))
            };
            let context = ProduceContext {
                nth: self.batches_seen,
                node: incoming.node,
                connection: incoming.connection,
                version,
                acks: request.acks,
                topic: name,
                partition: batch.index,
                producer_id: number(43, 8),
                producer_epoch: number(51, 2) as i16,
                base_sequence: number(53, 4) as i32,
                count: number(57, 4) as i32,
            };
            self.batches_seen += 1;
            batch.fault = hook(&context);
            match batch.fault {
                Fault::None
                | Fault::Error(_)
                | Fault::RecordErrors(..)
                | Fault::NamesLeader { .. }
                | Fault::StoredThenError(_) => {}
                Fault::CloseBefore => mishap.close_before = true,
                Fault::CloseAfter => mishap.close_after = true,
                Fault::HangBefore => mishap.hang_before = true,
                Fault::HangAfter => mishap.hang_after = true,
                Fault::Delay(delay) => mishap.delay = mishap.delay.max(delay),
                Fault::Throttle(throttle) => mishap.throttle = mishap.throttle.max(throttle),
            }
        }
        mishap
    }

    /// The checks before anything is stored, in Kafka's order. Of a partition that stands in the request twice only the
    /// last entry counts. `None` for null records, which a real broker never answers.
    fn judge<'a>(
        &self,
        version: i16,
        request: &ProduceRequest<'a>,
        arrived: &[Arrived<'a>],
    ) -> Option<Vec<Verdict<'a>>> {
        let transactional = request.transactional_id.is_some();
        let mut first_looks =
            arrived.iter().map(|entry| check_for_request(entry.records.unwrap_or(&[]), transactional));
        let spoiled = first_looks.find_map(Result::err);
        let mut verdicts: Vec<Verdict<'a>> = Vec::new();
        let mut places = HashMap::new();
        for &Arrived { topic, index, records, fault } in arrived {
            let place = *places.entry((topic, index)).or_insert(verdicts.len());
            if place == verdicts.len() {
                verdicts.push(Verdict { topic, index, batch: None, refusal: spoiled.clone() });
            }
            let verdict = &mut verdicts[place];
            if spoiled.is_some() {
                continue;
            }
            if let Err(error) = self.find(topic, index) {
                verdict.refusal = Some(error.into());
                continue;
            }
            let records = records?;
            match check_for_partition(records, version) {
                Ok(()) => verdict.batch = Some((records, fault)),
                Err(error) => verdict.refusal = Some(error.into()),
            }
        }
        Some(verdicts)
    }

    /// Whether there is such a partition.
    fn find(&self, topic: TopicRef<'_>, index: i32) -> Result<(), ErrorCode> {
        let name = match topic {
            TopicRef::Name(name) => name,
            TopicRef::Id(id) => self.topic_names.get(&id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?,
        };
        let found = self.log(name, index);
        found.map(drop).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Stores what is to be stored, and says what became of it.
    fn answer<'a>(&mut self, incoming: &Incoming<'_>, acks: i16, verdict: Verdict<'a>) -> PartitionAnswer<'a> {
        let mut answer = PartitionAnswer {
            topic: verdict.topic,
            index: verdict.index,
            error: ErrorCode::NONE,
            base_offset: -1,
            log_append_time: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        };
        let refuse = |answer: &mut PartitionAnswer<'a>, refusal: Refusal| {
            answer.error = refusal.error;
            answer.error_message = refusal.message;
            answer.record_errors = refusal.record_errors;
        };
        let mut stored = answer.clone();
        if let Some((records, fault)) = verdict.batch {
            match self.append(incoming, acks, records, fault, &mut stored) {
                Ok(appended) => {
                    stored.base_offset = appended.base_offset;
                    stored.log_append_time = appended.log_append_time;
                    if let Fault::StoredThenError(error) = fault {
                        stored.error = error;
                        stored.log_append_time = -1;
                    }
                }
                Err(refusal) => refuse(&mut stored, refusal),
            }
        }
        let Some(refusal) = verdict.refusal else { return stored };
        refuse(&mut answer, refusal);
        answer
    }

    /// The checks in Kafka's order; a fault that refuses the batch stands where NOT_ENOUGH_REPLICAS does, one that names a
    /// leader where leaders are looked at.
    fn append(
        &mut self,
        incoming: &Incoming<'_>,
        acks: i16,
        records: &[u8],
        fault: Fault,
        answer: &mut PartitionAnswer<'_>,
    ) -> Result<Appended, Refusal> {
        if !(-1..=1).contains(&acks) {
            return Err(ErrorCode::INVALID_REQUIRED_ACKS.into());
        }
        let unknown = || Refusal::from(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let name = match answer.topic {
            TopicRef::Name(name) => name,
            TopicRef::Id(id) => self.topic_names.get(&id).ok_or_else(unknown)?,
        };
        let topic = self.topics.get_mut(name).ok_or_else(unknown)?;
        let place = usize::try_from(answer.index).map_err(|_| unknown())?;
        let partition = topic.partitions.get_mut(place).ok_or_else(unknown)?;
        if let Fault::NamesLeader { error, leader, epoch, .. } = fault {
            answer.current_leader = Some((leader, epoch));
            return Err(error.into());
        }
        let leader = (partition.leader, partition.leader_epoch);
        let view = self.views.get(&incoming.node);
        if let Err((error, believed)) =
            Self::believed_leader(view, (incoming.node, acks), (answer.topic, answer.index), leader)
        {
            answer.current_leader = believed;
            return Err(error.into());
        }
        if let Fault::Error(error) = fault {
            return Err(error.into());
        }
        if let Fault::RecordErrors(error, places) = fault {
            let record_errors = places.iter().map(|place| (*place, Some(format!("not record {place}")))).collect();
            return Err(Refusal { record_errors, ..error.into() });
        }
        let checked = check_batch(records, &topic.options, self.options.any_offset_deltas, incoming.unix_ms);
        // From here on the request has reached the log.
        let reached = !matches!(&checked, Err(refusal) if matches!(refusal.error.0, 2 | 10));
        let rules = AppendRules { discard: self.options.discard, first_sequence: self.options.first_sequence };
        let timestamp_type = topic.options.timestamp_type;
        let result = checked.and_then(|checked| {
            let log = &mut partition.log;
            log.append(&checked, timestamp_type, partition.leader_epoch, incoming.unix_ms, rules).map_err(Refusal::from)
        });
        if reached {
            answer.log_start_offset = partition.log.start_offset;
        }
        result
    }

    /// KIP-951: where the leader is known, its address goes along, each node once.
    fn add_hint(&self, answer: &mut PartitionAnswer<'_>, tail: &mut ProduceTail) {
        let Some((leader, _)) = answer.current_leader else { return };
        let address = usize::try_from(leader).ok().and_then(|node| self.addresses.get(node));
        let Some(address) = address else { return };
        if tail.node_endpoints.iter().all(|endpoint| endpoint.node_id != leader) {
            tail.node_endpoints.push(NodeEndpoint {
                node_id: leader,
                host: address.ip().to_string(),
                port: i32::from(address.port()),
                rack: None,
            });
        }
    }
}

/// The entries of a request, in order.
fn arrived<'a>(request: &ProduceRequest<'a>) -> Vec<Arrived<'a>> {
    let entries = request.topics.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|entry| Arrived {
            topic: *topic,
            index: entry.index,
            records: entry.records,
            fault: Fault::None,
        })
    });
    entries.collect()
}
