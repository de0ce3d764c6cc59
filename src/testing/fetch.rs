//! Reading back: Fetch and ListOffsets, as far as a consumer needs them that assigns its partitions itself.

use std::time::Duration;

use super::broker::{BrokerModel, Incoming, PartitionState, Reply};
use crate::wire::codec::WireError;
use crate::wire::error_code::ErrorCode;
use crate::wire::server::fetch::{self, FetchPartition, FetchedPartition};
use crate::wire::server::list_offsets::{self, EARLIEST, LATEST, MAX_TIMESTAMP, OffsetAnswer, OffsetQuery};

impl BrokerModel {
    /// Carries out a Fetch request: appends the answer's body, or says to wait for records.
    pub(super) fn fetch(
        &self,
        incoming: &Incoming<'_>,
        version: i16,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Reply, WireError> {
        let request = fetch::decode_request(body, version)?;
        let mut room = usize::try_from(request.max_bytes).unwrap_or(0);
        let mut found = 0;
        let mut failed = false;
        let mut topics = Vec::new();
        for (topic, partitions) in &request.topics {
            let mut answers = Vec::new();
            for partition in partitions {
                let answer = self.fetch_partition(incoming.node, topic, partition, room, found == 0);
                room = room.saturating_sub(answer.records.len());
                found += answer.records.len();
                failed |= !answer.error.is_none();
                answers.push(answer);
            }
            topics.push((*topic, answers));
        }
        let enough = usize::try_from(request.min_bytes).unwrap_or(0);
        if incoming.may_wait && found < enough && !failed && request.max_wait_ms > 0 {
            return Ok(Reply::Wait(Duration::from_millis(request.max_wait_ms as u64)));
        }
        fetch::encode_response(out, version, &topics);
        Ok(Reply::AT_ONCE)
    }

    fn fetch_partition(
        &self,
        node: i32,
        topic: &str,
        query: &FetchPartition,
        room: usize,
        first: bool,
    ) -> FetchedPartition {
        let mut answer = FetchedPartition {
            index: query.index,
            error: ErrorCode::NONE,
            high_watermark: -1,
            log_start_offset: -1,
            records: Vec::new(),
        };
        let log = match self.led(node, topic, query.index, query.current_leader_epoch) {
            Ok(partition) => &partition.log,
            Err(error) => {
                answer.error = error;
                return answer;
            }
        };
        if !(log.start_offset..=log.next_offset).contains(&query.fetch_offset) {
            answer.error = ErrorCode::OFFSET_OUT_OF_RANGE;
            return answer;
        }
        answer.high_watermark = log.next_offset;
        answer.log_start_offset = log.start_offset;
        let room = room.min(usize::try_from(query.max_bytes).unwrap_or(0));
        for batch in log.batches_from(query.fetch_offset) {
            // The first batch goes even if it is too large, or a consumer would never get past it.
            let must = first && answer.records.is_empty();
            if !must && answer.records.len() + batch.bytes.len() > room {
                break;
            }
            answer.records.extend_from_slice(&batch.bytes);
        }
        answer
    }

    /// Carries out a ListOffsets request and appends the answer's body.
    pub(super) fn list_offsets(
        &self,
        node: i32,
        version: i16,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let request = list_offsets::decode_request(body, version)?;
        let answer = |topic: &str, queries: &[OffsetQuery]| -> Vec<OffsetAnswer> {
            queries.iter().map(|query| self.list_partition(node, topic, query)).collect()
        };
        let topics: Vec<_> = request.iter().map(|(topic, queries)| (*topic, answer(topic, queries))).collect();
        list_offsets::encode_response(out, version, &topics);
        Ok(())
    }

    fn list_partition(&self, node: i32, topic: &str, query: &OffsetQuery) -> OffsetAnswer {
        let answer = |error, (offset, timestamp), leader_epoch| OffsetAnswer {
            index: query.index,
            error,
            timestamp,
            offset,
            leader_epoch,
        };
        let partition = match self.led(node, topic, query.index, query.current_leader_epoch) {
            Ok(partition) => partition,
            Err(error) => return answer(error, (-1, -1), -1),
        };
        let log = &partition.log;
        let found = match query.timestamp {
            LATEST => (log.next_offset, -1),
            EARLIEST => (log.start_offset, -1),
            MAX_TIMESTAMP => log.find_max_timestamp().unwrap_or((-1, -1)),
            at_least => log.find_timestamp(at_least).unwrap_or((-1, -1)),
        };
        let leader_epoch = if found.0 < 0 { -1 } else { partition.leader_epoch };
        answer(ErrorCode::NONE, found, leader_epoch)
    }

    /// The partition, if this node leads it and the client's idea of the leader epoch is right (-1: it has none).
    fn led(&self, node: i32, topic: &str, index: i32, leader_epoch: i32) -> Result<&PartitionState, ErrorCode> {
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let topic = self.topics.get(topic).ok_or(unknown)?;
        let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index)).ok_or(unknown)?;
        if partition.leader != node {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        match leader_epoch {
            -1 => Ok(partition),
            epoch if epoch < partition.leader_epoch => Err(ErrorCode::FENCED_LEADER_EPOCH),
            epoch if epoch > partition.leader_epoch => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => Ok(partition),
        }
    }
}
