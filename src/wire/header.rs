//! What stands before every request and response: which API, which version, which question an answer belongs to.

use super::codec::{Reader, WireError, Writer};

/// An API of Kafka's protocol, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Store record batches.
    pub const PRODUCE: Self = Self(0);
    /// Read record batches.
    pub const FETCH: Self = Self(1);
    /// Offsets by time, and a log's ends.
    pub const LIST_OFFSETS: Self = Self(2);
    /// Brokers, topics, partitions and their leaders.
    pub const METADATA: Self = Self(3);
    /// The broker that looks after a group or a transactional id.
    pub const FIND_COORDINATOR: Self = Self(10);
    /// Which APIs and versions a broker speaks.
    pub const API_VERSIONS: Self = Self(18);
    /// A producer id and epoch.
    pub const INIT_PRODUCER_ID: Self = Self(22);

    /// Whether this version of the API uses compact lengths and tagged fields (KIP-482). False for APIs not named here.
    pub const fn is_flexible(self, version: i16) -> bool {
        let first = match self {
            Self::PRODUCE | Self::METADATA => 9,
            Self::FETCH => 12,
            Self::LIST_OFFSETS => 6,
            Self::FIND_COORDINATOR | Self::API_VERSIONS => 3,
            Self::INIT_PRODUCER_ID => 2,
            _ => return false,
        };
        version >= first
    }

    /// Whether the response header ends in tagged fields (header v1). ApiVersions never has them, so that a client can
    /// read the answer before it knows the broker.
    pub const fn has_response_tags(self, version: i16) -> bool {
        self.is_flexible(version) && self.0 != Self::API_VERSIONS.0
    }
}

/// Begins a request: appends four bytes for the size, to be filled by [`end_request`], and the header (v2 when the
/// version is flexible, else v1). Returns where the size stands.
pub fn begin_request(out: &mut Vec<u8>, api: ApiKey, version: i16, correlation_id: i32, client_id: &str) -> usize {
    let start = out.len();
    // The client id keeps its two-byte length in the flexible header as well.
    let mut w = Writer::new(out, false);
    w.i32(0);
    w.i16(api.0);
    w.i16(version);
    w.i32(correlation_id);
    w.string(client_id);
    if api.is_flexible(version) {
        w.i8(0);
    }
    start
}

/// Fills in the size of the request that [`begin_request`] began at `start` and that ends `beyond` bytes after `out`
/// (those are sent from elsewhere).
pub fn end_request(out: &mut [u8], start: usize, beyond: usize) {
    let size = i32::try_from(out.len() - start - 4 + beyond);
    assert!(size.is_ok(), "a request beyond 2 GiB");
    out[start..start + 4].copy_from_slice(&size.unwrap_or(0).to_be_bytes());
}

/// Reads the header of a response to a request of this API and version: the correlation id and the body.
pub fn response_header(frame: &[u8], api: ApiKey, version: i16) -> Result<(i32, &[u8]), WireError> {
    let mut r = Reader::new(frame, api.has_response_tags(version));
    let correlation_id = r.i32("correlation_id")?;
    r.skip_tagged()?;
    Ok((correlation_id, &frame[r.position()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flexible_header_ends_in_a_tag_byte() {
        let mut out = vec![9, 9];
        let start = begin_request(&mut out, ApiKey::METADATA, 9, 7, "cli");
        assert_eq!(start, 2);
        end_request(&mut out, start, 100);
        assert_eq!(out, [9, 9, 0, 0, 0, 114, 0, 3, 0, 9, 0, 0, 0, 7, 0, 3, b'c', b'l', b'i', 0]);
        let mut out = Vec::new();
        let start = begin_request(&mut out, ApiKey::METADATA, 8, 7, "");
        end_request(&mut out, start, 0);
        assert_eq!(out, [0, 0, 0, 10, 0, 3, 0, 8, 0, 0, 0, 7, 0, 0]);
    }

    #[test]
    fn the_response_header_of_api_versions_has_no_tags() {
        assert_eq!(response_header(&[0, 0, 0, 5, 1], ApiKey::API_VERSIONS, 4), Ok((5, &[1][..])));
        assert_eq!(response_header(&[0, 0, 0, 5, 0, 1], ApiKey::PRODUCE, 9), Ok((5, &[1][..])));
        assert_eq!(response_header(&[0, 0, 0, 5, 1], ApiKey::PRODUCE, 8), Ok((5, &[1][..])));
        assert!(response_header(&[0, 0, 0], ApiKey::PRODUCE, 8).is_err());
        assert!(response_header(&[0, 0, 0, 5], ApiKey::PRODUCE, 9).is_err());
    }
}
