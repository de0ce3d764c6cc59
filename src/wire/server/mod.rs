//! The broker's half of the protocol: requests are decoded, responses encoded. For the embedded broker and for tests.

pub mod api_versions;
pub mod fetch;
pub mod find_coordinator;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod produce;
pub mod shape;

use super::codec::{Reader, WireError, Writer};
use super::header::{ApiKey, end_request};

/// What stands before a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API asked for.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// Repeated in the answer.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<&'a str>,
}

/// Reads a request's header: it and the body.
pub fn request_header(frame: &[u8]) -> Result<(RequestHeader<'_>, &[u8]), WireError> {
    let mut r = Reader::new(frame, false);
    let api = ApiKey(r.i16("request_api_key")?);
    let version = r.i16("request_api_version")?;
    let correlation_id = r.i32("correlation_id")?;
    // Any negative length is null here, as Kafka reads it.
    let len = usize::try_from(r.i16("client_id")?).ok();
    let client_id = len.map(|len| r.take(len, "client_id")).transpose()?.map(std::str::from_utf8).transpose();
    let client_id = client_id.map_err(|_| r.error("client_id"))?;
    r.set_flexible(api.is_flexible(version));
    r.skip_tagged()?;
    Ok((RequestHeader { api, version, correlation_id, client_id }, &frame[r.position()..]))
}

/// Begins a response: appends four bytes for the size, to be filled by [`end_response`], and the header.
pub fn begin_response(out: &mut Vec<u8>, api: ApiKey, version: i16, correlation_id: i32) -> usize {
    let start = out.len();
    let mut w = Writer::new(out, api.has_response_tags(version));
    w.i32(0);
    w.i32(correlation_id);
    w.no_tags();
    start
}

/// Fills in the size of the response that began at `start`.
pub fn end_response(out: &mut [u8], start: usize) {
    end_request(out, start, 0);
}

/// Ends a structure with one tagged field, whose bytes `put` writes.
fn one_tag(w: &mut Writer<'_>, tag: u32, put: impl FnOnce(&mut Writer<'_>)) {
    let mut field = Vec::new();
    put(&mut Writer::new(&mut field, true));
    w.uvarint(1);
    w.uvarint(tag);
    w.uvarint(field.len() as u32);
    w.raw(&field);
}

#[cfg(all(test, not(loom)))]
mod tests;
