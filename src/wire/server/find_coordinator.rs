//! FindCoordinator (10), versions 0 to 3, as a broker sees it that has no coordinator: there are no groups and no
//! transactions here, and a consumer that assigns its partitions itself gets along without.

use crate::wire::codec::{Reader, WireError, Writer};
use crate::wire::error_code::ErrorCode;

/// The highest version that is understood.
pub const VERSION_MAX: i16 = 3;

/// Reads the body of a request away.
pub fn decode_request(body: &[u8], version: i16) -> Result<(), WireError> {
    let mut r = Reader::new(body, version >= 3);
    r.string("key")?;
    if version >= 1 {
        r.i8("key_type")?;
    }
    r.skip_tagged()
}

/// Appends the body of a response that says no.
pub fn encode_response(out: &mut Vec<u8>, version: i16, error: ErrorCode) {
    let mut w = Writer::new(out, version >= 3);
    if version >= 1 {
        w.i32(0); // throttle_time_ms
    }
    w.i16(error.0);
    if version >= 1 {
        w.nullable_string(Some("the embedded broker has no groups and no transactions"));
    }
    w.i32(-1);
    w.string("");
    w.i32(-1);
    w.no_tags();
}
