//! ApiVersions (18), versions 0 to 4: which requests a broker understands. The first request on every connection.

use super::codec::{Reader, WireError, Writer};
use super::error_code::ErrorCode;

/// The highest version we send.
pub const VERSION_MAX: i16 = 4;

/// The range of versions in which a broker speaks one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    /// The API's number, see [`super::header::ApiKey`].
    pub key: i16,
    /// Lowest version.
    pub min: i16,
    /// Highest version.
    pub max: i16,
}

/// A broker's answer.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ApiVersionsResponse {
    /// UNSUPPORTED_VERSION means: ask again with a version from `apis`, on the same connection.
    pub error: ErrorCode,
    /// What the broker speaks. With UNSUPPORTED_VERSION it may hold ApiVersions alone, or nothing.
    pub apis: Vec<ApiRange>,
    /// Milliseconds for which the broker does not read this connection.
    pub throttle_ms: i32,
}

impl ApiVersionsResponse {
    /// The highest version of `key` that is at most `ours` and that the broker speaks too.
    pub fn common_max(&self, key: i16, ours_min: i16, ours_max: i16) -> Option<i16> {
        let theirs = self.apis.iter().find(|range| range.key == key)?;
        let version = ours_max.min(theirs.max);
        (version >= ours_min && version >= theirs.min).then_some(version)
    }
}

/// Appends the body of a request.
pub fn encode_request(out: &mut Vec<u8>, version: i16) {
    let mut w = Writer::new(out, version >= 3);
    if version >= 3 {
        w.string("ringmail");
        w.string(env!("CARGO_PKG_VERSION"));
    }
    w.no_tags();
}

/// Reads the body of the response to a request of `version`.
pub fn decode_response(body: &[u8], version: i16) -> Result<ApiVersionsResponse, WireError> {
    let mut r = Reader::new(body, version >= 3);
    let error = ErrorCode(r.i16("error_code")?);
    // A broker that does not know the version cannot answer in it: it uses version 0.
    let version = if error == ErrorCode::UNSUPPORTED_VERSION { 0 } else { version };
    r.set_flexible(version >= 3);
    match rest(&mut r, version) {
        Ok((apis, throttle_ms)) => Ok(ApiVersionsResponse { error, apis, throttle_ms }),
        // librdkafka's mock cluster answers in a shape of its own here. The error says enough: ask in version 0.
        Err(_) if error == ErrorCode::UNSUPPORTED_VERSION => {
            Ok(ApiVersionsResponse { error, ..ApiVersionsResponse::default() })
        }
        Err(malformed) => Err(malformed),
    }
}

fn rest(r: &mut Reader<'_>, version: i16) -> Result<(Vec<ApiRange>, i32), WireError> {
    let mut apis = Vec::new();
    for _ in 0..r.array("api_keys")? {
        apis.push(ApiRange { key: r.i16("api_key")?, min: r.i16("min_version")?, max: r.i16("max_version")? });
        r.skip_tagged()?;
    }
    let throttle_ms = if version >= 1 { r.i32("throttle_time_ms")? } else { 0 };
    r.skip_tagged()?;
    Ok((apis, throttle_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_version_is_answered_in_version_0() {
        // What a 4.3.1 broker sends after the size, for any version it does not know (correlation id 1).
        let frame = super::super::record_batch::tests::hex("00000001 0023 00000001 0012 0000 0004");
        let response = decode_response(&frame[4..], 4).unwrap();
        assert_eq!(response.error, ErrorCode::UNSUPPORTED_VERSION);
        assert_eq!(response.apis, [ApiRange { key: 18, min: 0, max: 4 }]);
        assert_eq!(response.common_max(18, 0, 5), Some(4));
    }

    #[test]
    fn a_refusal_in_a_shape_that_nobody_knows_is_a_refusal() {
        // What librdkafka 2.12's mock cluster sends to version 4, behind the correlation id.
        let answer = super::super::record_batch::tests::hex("0023 01 0012 0000 0002 00000000");
        let response = decode_response(&answer, 4).unwrap();
        assert_eq!((response.error, response.apis.len()), (ErrorCode::UNSUPPORTED_VERSION, 0));
        assert!(decode_response(&[&[0, 0], &answer[2..]].concat(), 0).is_err(), "without the error it is garbage");
    }

    #[test]
    fn the_common_version_is_inside_both_ranges() {
        let range = |min, max| ApiVersionsResponse { apis: vec![ApiRange { key: 0, min, max }], ..Default::default() };
        assert_eq!(range(0, 13).common_max(0, 3, 13), Some(13));
        assert_eq!(range(0, 9).common_max(0, 3, 13), Some(9));
        assert_eq!(range(14, 20).common_max(0, 3, 13), None);
        assert_eq!(range(0, 2).common_max(0, 3, 13), None);
        assert_eq!(range(0, 2).common_max(1, 3, 13), None);
    }
}
