//! InitProducerId (22), versions 0 to 5, as a broker sees it.

use crate::wire::codec::{Reader, WireError, Writer};
use crate::wire::init_producer_id::InitProducerIdResponse;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitProducerIdRequest<'a> {
    /// `None` for an idempotent producer.
    pub transactional_id: Option<&'a str>,
    /// After how long the coordinator ends an open transaction.
    pub timeout_ms: i32,
    /// The id that the client has, -1 if none; -1 before version 3.
    pub producer_id: i64,
    /// The epoch that the client has, -1 if none; -1 before version 3.
    pub epoch: i16,
}

/// Reads the body of a request.
pub fn decode_request(body: &[u8], version: i16) -> Result<InitProducerIdRequest<'_>, WireError> {
    let mut r = Reader::new(body, version >= 2);
    let request = InitProducerIdRequest {
        transactional_id: r.nullable_string("transactional_id")?,
        timeout_ms: r.i32("transaction_timeout_ms")?,
        producer_id: if version >= 3 { r.i64("producer_id")? } else { -1 },
        epoch: if version >= 3 { r.i16("producer_epoch")? } else { -1 },
    };
    r.skip_tagged()?;
    Ok(request)
}

/// Appends the body of a response.
pub fn encode_response(out: &mut Vec<u8>, version: i16, response: &InitProducerIdResponse) {
    let mut w = Writer::new(out, version >= 2);
    w.i32(response.throttle_ms);
    w.i16(response.error.0);
    w.i64(response.producer_id);
    w.i16(response.epoch);
    w.no_tags();
}
