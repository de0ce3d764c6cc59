//! ApiVersions (18), versions 0 to 5, as a broker sees it.

use crate::wire::api_versions::ApiVersionsResponse;
use crate::wire::codec::{Reader, WireError, Writer};

/// The highest version that a broker reads. The client's stays below: it does not say whom it thinks that it talks to.
pub const VERSION_MAX: i16 = 5;

/// What a client says of itself, and whom it thinks that it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersionsRequest<'a> {
    /// The client library's name; empty before version 3.
    pub software_name: &'a str,
    /// The client library's version; empty before version 3.
    pub software_version: &'a str,
    /// The cluster, as it names itself in Metadata (KIP-1242); `None` before version 5 or if any will do.
    pub cluster_id: Option<&'a str>,
    /// The node id; -1 before version 5 or if any will do.
    pub node_id: i32,
}

/// Reads the body of a request.
pub fn decode_request(body: &[u8], version: i16) -> Result<ApiVersionsRequest<'_>, WireError> {
    let mut r = Reader::new(body, version >= 3);
    let mut request = ApiVersionsRequest { software_name: "", software_version: "", cluster_id: None, node_id: -1 };
    if version >= 3 {
        request.software_name = r.string("client_software_name")?;
        request.software_version = r.string("client_software_version")?;
    }
    if version >= 5 {
        request.cluster_id = r.nullable_string("cluster_id")?;
        request.node_id = r.i32("node_id")?;
    }
    r.skip_tagged()?;
    Ok(request)
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
