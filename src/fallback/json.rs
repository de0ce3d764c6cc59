//! A record as one line of JSON, without loss: bytes that are UTF-8 are a string, others `{"base64": "…"}`, null is
//! null; headers are pairs in their order.

use std::io::Write;

use crate::completion::UndeliveredRecord;
use crate::error::Written;

/// Appends the record as a line, with its newline.
pub fn put_line(out: &mut Vec<u8>, record: &UndeliveredRecord<'_>) {
    out.extend_from_slice(b"{\"topic\":");
    put_text(out, record.topic());
    // Writing into a vector cannot fail.
    let _ = write!(out, ",\"partition\":{},\"timestamp\":{},\"key\":", record.partition(), record.timestamp());
    put_bytes(out, record.key());
    out.extend_from_slice(b",\"value\":");
    put_bytes(out, record.value());
    out.extend_from_slice(b",\"headers\":[");
    for (i, header) in record.headers().iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",[" } else { b"[" });
        put_text(out, header.key);
        out.push(b',');
        put_bytes(out, header.value);
        out.push(b']');
    }
    let written = match record.written() {
        Written::No => "no",
        Written::Possibly => "possibly",
    };
    let _ = write!(out, "],\"written\":\"{written}\",\"attempts\":{},\"waited_ms\":", record.attempts());
    let _ = write!(out, "{},\"error\":", record.waited().as_millis());
    put_text(out, &record.error().to_string());
    out.extend_from_slice(b"}\n");
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.extend_from_slice(b"null"),
        Some((_, Ok(text))) => put_text(out, text),
        Some((bytes, Err(_))) => {
            out.extend_from_slice(b"{\"base64\":\"");
            put_base64(out, bytes);
            out.extend_from_slice(b"\"}");
        }
    }
}

/// A JSON string. Control characters are escaped, so a line never ends early.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 | 0x7f => {
                let _ = write!(out, "\\u{byte:04x}");
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// RFC 4648, the usual alphabet, padded.
fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::error::{DeliveryError, DeliveryErrorKind, Failure};
    use crate::record::{Header, Place};

    #[test]
    fn base64_as_the_rfc_has_it() {
        let encoded = |text: &str| {
            let mut out = Vec::new();
            put_base64(&mut out, text.as_bytes());
            String::from_utf8(out).unwrap()
        };
        let vectors = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(encoded);
        assert_eq!(vectors, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        let mut out = Vec::new();
        put_base64(&mut out, &[0xfb, 0xff, 0xfe]);
        assert_eq!(out, b"+//+");
    }

    #[test]
    fn a_line_says_everything() {
        let place = Arc::new(Place { topic: "orders".into(), partition: 3 });
        let failure = Failure {
            trouble: None,
            kind: DeliveryErrorKind::Closed,
            written: Written::Possibly,
            waited: Duration::from_millis(1234),
            attempts: 2,
            broker: None,
        };
        let error = DeliveryError::new(&place, failure);
        let headers = [
            Header { key: "a\"\\", value: Some(&[0xff]) },
            Header { key: "", value: None },
            Header { key: "", value: Some(b"") },
        ];
        let record = UndeliveredRecord {
            topic: "orders",
            partition: 3,
            key: Some(b"l\n\x00\x7f\xc3\xa4"),
            value: None,
            headers: &headers,
            timestamp: 1_700_000_000_000,
            error: &error,
            closes_in: None,
            cluster: &crate::metadata::ClusterName::new(&[]),
        };
        let mut out = Vec::new();
        put_line(&mut out, &record);
        let line = String::from_utf8(out).unwrap();
        let start = concat!(
            r#"{"topic":"orders","partition":3,"timestamp":1700000000000,"key":"l\n\u0000\u007fä","value":null,"#,
            r#""headers":[["a\"\\",{"base64":"/w=="}],["",null],["",""]],"written":"possibly","attempts":2,"#,
            r#""waited_ms":1234,"error":"orders-3: the producer was closed first"#
        );
        assert!(line.starts_with(start) && line.ends_with("\"}\n"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }
}
