//! What the oracle reads in answers, and what is changed in them on their way.

use super::coverage::Sight;
use super::deck::bit;
use super::ledger::PARTITIONS_MAX;
use super::world::World;
use crate::sender::transmit::ConnectionId;
use crate::testing::FirstSequence;
use crate::wire::error_code::ErrorCode;
use crate::wire::header::ApiKey;
use crate::wire::init_producer_id;
use crate::wire::metadata::{self, MetadataResponse};
use crate::wire::produce::{self, PartitionAnswer, TopicRef};
use crate::wire::server::{self, RequestHeader, shape::body_at};

/// Changes the answer if it is one to Metadata.
pub fn metadata(request: &[u8], answer: &mut Vec<u8>, spoil: &mut dyn FnMut(&mut MetadataResponse)) {
    let (header, _) = server::request_header(request).unwrap();
    if header.api == ApiKey::METADATA {
        change_metadata(&header, answer, spoil);
    }
}

fn change_metadata(header: &RequestHeader<'_>, answer: &mut Vec<u8>, change: &mut dyn FnMut(&mut MetadataResponse)) {
    let at = body_at(header.api.0, header.version);
    let mut response = metadata::decode_response(&answer[at..], header.version).unwrap();
    change(&mut response);
    answer.truncate(at);
    server::metadata::encode_response(answer, header.version, &response);
    server::end_response(answer, 0);
}

/// The number in a topic's name, `t0` to `t9`.
pub fn topic_number(name: &str) -> Option<usize> {
    let digit = name.strip_prefix('t')?;
    digit.parse().ok()
}

impl World {
    /// Learns the ids of the topics that there are.
    pub fn note_topics(&mut self) {
        for (name, topic) in &self.model.topics {
            if let Some(number) = topic_number(name)
                && !self.topic_ids.contains(&(topic.id, number))
            {
                self.topic_ids.push((topic.id, number));
            }
        }
    }

    /// Enters what the broker says of each batch into the books. Nothing may be wrong with a batch that nobody has
    /// planned.
    pub(super) fn note_results(&mut self, id: ConnectionId, request: &[u8], answer: &[u8], injected: u128) {
        let (header, _) = server::request_header(request).unwrap();
        if header.api != ApiKey::PRODUCE || answer.is_empty() {
            return;
        }
        self.note_topics();
        let topics = &self.topic_ids;
        let body = &answer[body_at(header.api.0, header.version)..];
        let mut answers: Vec<(usize, i16, i64)> = Vec::new();
        let mut visit = |answer: PartitionAnswer<'_>| {
            let topic = match answer.topic {
                TopicRef::Name(name) => topic_number(name),
                TopicRef::Id(id) => topics.iter().find(|(known, _)| *known == id).map(|(_, number)| *number),
            };
            let place = topic.map_or(usize::MAX, |topic| topic * PARTITIONS_MAX + answer.index as usize);
            answers.push((place, answer.error.0, answer.base_offset));
        };
        produce::decode_response(body, header.version, &mut visit).unwrap();
        for (place, code, base_offset) in answers {
            self.tell(|| format!("  broker, connection {}: place {place}: {} at {base_offset}", id.0, ErrorCode(code)));
            if code != 0 {
                self.coverage.saw_code(code, base_offset >= 0);
            }
            let by_chance = injected & bit(code) != 0;
            let rule = self.model.options.first_sequence;
            let planned = by_chance
                || matches!(code, 0 | 3 | 6 | 10 | 19 | 45 | 47 | 100)
                || code == 59 && rule == FirstSequence::Zero;
            // Of late copies the books know nothing.
            let mut bad = self.next_acted(id).is_none();
            let mut producer = None;
            let ledger = self.ledger.take();
            if let (Some(ledger), Some(frame)) = (&ledger, self.next_acted(id))
                && let Some(copy) = frame.copies.iter().position(|copy| copy.place == place)
            {
                frame.results[copy] = Some((code, base_offset));
                producer = Some(frame.copies[copy].producer());
                bad = ledger.has_bad(frame, copy);
            }
            self.ledger = ledger;
            if code == 87 && bad {
                self.coverage.saw(Sight::BadRecord);
            }
            if matches!(code, 45 | 59) && !by_chance && !self.is_known(place, producer) {
                self.coverage.saw(if code == 45 { Sight::FirstInNewLog } else { Sight::FirstOfUnknown });
            }
            assert!(planned || (code == 87 && bad), "the broker finds fault with a batch: {}", ErrorCode(code));
        }
    }

    /// Whether a partition's log knows this producer; true also when there is no such log or no producer id.
    fn is_known(&self, place: usize, producer: Option<i64>) -> bool {
        let name = NAMES.get(place / PARTITIONS_MAX);
        let log = name.and_then(|name| self.model.log(name, (place % PARTITIONS_MAX) as i32));
        producer.zip(log).is_none_or(|(producer, log)| producer < 0 || log.knows_producer(producer))
    }

    /// What becomes of an answer on its way.
    pub(super) fn spoil_answer(&mut self, request: &[u8], answer: &mut Vec<u8>) {
        let (header, _) = server::request_header(request).unwrap();
        match header.api {
            ApiKey::PRODUCE if self.chance(self.storm.shuffle) => self.shuffle(&header, answer),
            ApiKey::METADATA => self.age_metadata(&header, answer),
            ApiKey::INIT_PRODUCER_ID => self.refuse_identity(&header, answer),
            _ => {}
        }
    }

    fn shuffle(&mut self, header: &RequestHeader<'_>, answer: &mut Vec<u8>) {
        let at = body_at(header.api.0, header.version);
        let body = answer[at..].to_vec();
        let mut topics: Vec<(TopicRef<'_>, Vec<PartitionAnswer<'_>>)> = Vec::new();
        // The visitor may not keep what it borrows: the topics are named again from the body's owner.
        let mut plain: Vec<(Option<usize>, [u8; 16], PartitionAnswer<'static>)> = Vec::new();
        let tail = produce::decode_response(&body, header.version, &mut |answer| {
            let (number, id) = match answer.topic {
                TopicRef::Name(name) => (topic_number(name), [0; 16]),
                TopicRef::Id(id) => (None, id),
            };
            let error_message = answer.error_message.map(|_| "One or more records have been rejected");
            plain.push((number, id, PartitionAnswer { topic: TopicRef::Id([0; 16]), error_message, ..answer }));
        })
        .unwrap();
        for at in (1..plain.len()).rev() {
            let other = (self.random.next() as usize) % (at + 1);
            plain.swap(at, other);
        }
        for (number, id, answer) in plain {
            let topic = match number {
                Some(number) => TopicRef::Name(NAMES[number]),
                None => TopicRef::Id(id),
            };
            let answer = PartitionAnswer { topic, ..answer };
            match topics.last_mut() {
                Some((last, answers)) if *last == topic => answers.push(answer),
                _ => topics.push((topic, vec![answer])),
            }
        }
        answer.truncate(at);
        server::produce::encode_response(answer, header.version, &topics, &tail);
        server::end_response(answer, 0);
        self.coverage.saw(Sight::Shuffled);
    }

    fn age_metadata(&mut self, header: &RequestHeader<'_>, answer: &mut Vec<u8>) {
        let (stale, leaderless) = (self.chance(self.storm.stale), self.chance(self.storm.leaderless));
        let draw = self.random.next() as usize;
        if stale && !self.old_leaders.is_empty() {
            let old = std::mem::take(&mut self.old_leaders);
            change_metadata(header, answer, &mut |response| {
                let topics = response.topics.iter_mut();
                for (topic, number) in topics.filter_map(|t| topic_number(t.name.as_deref()?).map(|n| (t, n))) {
                    for partition in &mut topic.partitions {
                        let place = number * PARTITIONS_MAX + partition.index as usize;
                        if let Some((_, leader, epoch)) = old.iter().find(|(of, ..)| *of == place) {
                            (partition.leader_id, partition.leader_epoch) = (*leader, *epoch);
                        }
                    }
                }
            });
            self.old_leaders = old;
            self.coverage.saw(Sight::StaleMetadata);
        }
        if leaderless {
            change_metadata(header, answer, &mut |response| {
                let count = response.topics.len().max(1);
                let partitions = response.topics.get_mut(draw % count).map(|topic| &mut topic.partitions);
                if let Some(partition) = partitions.and_then(|all| all.first_mut()) {
                    (partition.leader_id, partition.error) = (-1, ErrorCode::LEADER_NOT_AVAILABLE);
                }
            });
            self.coverage.saw(Sight::Leaderless);
        }
    }

    fn refuse_identity(&mut self, header: &RequestHeader<'_>, answer: &mut Vec<u8>) {
        let refused = self.chance(self.storm.identity);
        if !refused && self.storm.epoch == 0 {
            return;
        }
        let at = body_at(header.api.0, header.version);
        let mut response = init_producer_id::decode_response(&answer[at..], header.version).unwrap();
        response.epoch = self.storm.epoch;
        if refused {
            let code = self.storm.identity_code;
            (response.error, response.producer_id, response.epoch) = (ErrorCode(code), -1, -1);
            self.coverage.saw(Sight::IdentityRefused);
            if let Some(ledger) = &mut self.ledger {
                ledger.identity_codes |= bit(code);
            }
        }
        answer.truncate(at);
        server::init_producer_id::encode_response(answer, header.version, &response);
        server::end_response(answer, 0);
    }
}

/// Names of topics.
pub const NAMES: [&str; 4] = ["t0", "t1", "t2", "t3"];
