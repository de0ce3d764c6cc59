//! InitProducerId (22), versions 0 to 5: a producer id and epoch for an idempotent producer.

use std::ops::RangeInclusive;

use super::codec::{Reader, WireError, Writer};
use super::error_code::ErrorCode;

/// The versions we send.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// A broker's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    /// Milliseconds for which the broker does not read this connection.
    pub throttle_ms: i32,
    /// Retriable while the broker starts (COORDINATOR_LOAD_IN_PROGRESS).
    pub error: ErrorCode,
    /// -1 with an error.
    pub producer_id: i64,
    /// The first epoch is 0; -1 with an error.
    pub epoch: i16,
}

/// Appends the body of a request. `producer_id` and `epoch` are -1 unless an id is to be kept and its epoch raised
/// (versions below 3 do not carry them).
pub fn encode_request(
    out: &mut Vec<u8>,
    version: i16,
    transactional_id: Option<&str>,
    timeout_ms: i32,
    producer_id: i64,
    epoch: i16,
) {
    let mut w = Writer::new(out, version >= 2);
    w.nullable_string(transactional_id);
    w.i32(timeout_ms);
    if version >= 3 {
        w.i64(producer_id);
        w.i16(epoch);
    }
    w.no_tags();
}

/// Reads the body of the response to a request of `version`.
pub fn decode_response(body: &[u8], version: i16) -> Result<InitProducerIdResponse, WireError> {
    let mut r = Reader::new(body, version >= 2);
    let response = InitProducerIdResponse {
        throttle_ms: r.i32("throttle_time_ms")?,
        error: ErrorCode(r.i16("error_code")?),
        producer_id: r.i64("producer_id")?,
        epoch: r.i16("producer_epoch")?,
    };
    r.skip_tagged()?;
    Ok(response)
}
