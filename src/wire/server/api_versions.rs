//! ApiVersions (18), versions 0 to 4, as a broker sees it.

use crate::wire::api_versions::ApiVersionsResponse;
use crate::wire::codec::{Reader, WireError, Writer};

/// What a client says of itself, empty before version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ApiVersionsRequest<'a> {
    /// The client library's name.
    pub software_name: &'a str,
    /// The client library's version.
    pub software_version: &'a str,
}

/// Reads the body of a request.
pub fn decode_request(body: &[u8], version: i16) -> Result<ApiVersionsRequest<'_>, WireError> {
    let mut r = Reader::new(body, version >= 3);
    if version < 3 {
        return Ok(ApiVersionsRequest::default());
    }
    let software_name = r.string("client_software_name")?;
    let software_version = r.string("client_software_version")?;
    r.skip_tagged()?;
    Ok(ApiVersionsRequest { software_name, software_version })
}

/// Appends the body of a response. For a version that is not known, write version 0.
pub fn encode_response(out: &mut Vec<u8>, version: i16, response: &ApiVersionsResponse) {
    let mut w = Writer::new(out, version >= 3);
    w.i16(response.error.0);
    w.array(response.apis.len());
    for api in &response.apis {
        w.i16(api.key);
        w.i16(api.min);
        w.i16(api.max);
        w.no_tags();
    }
    if version >= 1 {
        w.i32(response.throttle_ms);
    }
    w.no_tags();
}
