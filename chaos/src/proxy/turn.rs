//! A good Produce answer, turned into one that says that the records may not stay although they do.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ProduceResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use crate::faults::Fault;
use crate::frames::Asked;

/// The answer with `fault` in every partition's place, or `None` when it is none, or not all good. With `keep` it still
/// says at which offset the records lie, else -1.
pub fn turned(asked: Asked, frame: &[u8], fault: Fault, keep: bool) -> Option<Vec<u8>> {
    let code = match fault {
        Fault::TurnedTimedOut => 7,
        Fault::TurnedNotEnough => 20,
        _ => return None,
    };
    let header_version = ProduceResponse::header_version(asked.version);
    let mut body = Bytes::copy_from_slice(frame.get(4..)?);
    let header = ResponseHeader::decode(&mut body, header_version).ok()?;
    let mut answer = ProduceResponse::decode(&mut body, asked.version).ok()?;
    let mut partitions = answer.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses).peekable();
    partitions.peek()?;
    for partition in partitions {
        if partition.error_code != 0 {
            return None;
        }
        partition.error_code = code;
        if !keep {
            partition.base_offset = -1;
        }
    }
    let mut out = BytesMut::from(&[0; 4][..]);
    header.encode(&mut out, header_version).ok()?;
    answer.encode(&mut out, asked.version).ok()?;
    let length = i32::try_from(out.len() - 4).ok()?;
    out.get_mut(..4)?.copy_from_slice(&length.to_be_bytes());
    Some(out.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

    fn frame(version: i16, errors: &[i16]) -> Vec<u8> {
        let partition = |error: &i16| {
            PartitionProduceResponse::default().with_base_offset(41).with_error_code(*error).with_log_start_offset(3)
        };
        let topic = TopicProduceResponse::default().with_partition_responses(errors.iter().map(partition).collect());
        let mut out = BytesMut::from(&[0; 4][..]);
        let header = ResponseHeader::default().with_correlation_id(77);
        header.encode(&mut out, ProduceResponse::header_version(version)).unwrap();
        ProduceResponse::default().with_responses(vec![topic]).encode(&mut out, version).unwrap();
        let length = out.len() as i32 - 4;
        out[..4].copy_from_slice(&length.to_be_bytes());
        out.to_vec()
    }

    #[test]
    fn only_error_and_offset_change() {
        for version in 3..=13 {
            let asked = Asked { api: 0, version, correlation: 77 };
            let good = frame(version, &[0, 0]);
            for (fault, keep, code, offset) in
                [(Fault::TurnedTimedOut, true, 7, 41), (Fault::TurnedNotEnough, false, 20, -1)]
            {
                let turned = turned(asked, &good, fault, keep).unwrap();
                assert_eq!(turned.len(), good.len(), "version {version}");
                let mut body = Bytes::copy_from_slice(&turned[4..]);
                let header = ResponseHeader::decode(&mut body, ProduceResponse::header_version(version)).unwrap();
                let answer = ProduceResponse::decode(&mut body, version).unwrap();
                assert_eq!(header.correlation_id, 77);
                for partition in &answer.responses[0].partition_responses {
                    assert_eq!((partition.error_code, partition.base_offset), (code, offset));
                }
            }
            assert_eq!(turned(asked, &frame(version, &[0, 6]), Fault::TurnedTimedOut, true), None);
            assert_eq!(turned(asked, &frame(version, &[]), Fault::TurnedTimedOut, true), None);
        }
    }
}
