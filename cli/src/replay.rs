//! A line of a file of failed records, as the library's `FailedRecordsFile` writes them, back into a record.

use std::borrow::Cow;

use ringmail::{Header, Record};
use serde::{Deserialize, Deserializer};

/// Bytes: a string, or base64 where they are no UTF-8.
#[derive(Deserialize)]
#[serde(untagged)]
enum Bytes<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Base64(#[serde(borrow)] Base64<'a>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

#[derive(Deserialize, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Written {
    No,
    Possibly,
}

/// What the line says; what it says besides is for people.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: i32,
    timestamp: i64,
    #[serde(borrow, deserialize_with = "required")]
    key: Option<Bytes<'a>>,
    #[serde(borrow, deserialize_with = "required")]
    value: Option<Bytes<'a>>,
    #[serde(borrow)]
    headers: Vec<(Cow<'a, str>, Option<Bytes<'a>>)>,
    written: Written,
}

/// Null is a value, but nothing is not.
fn required<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Bytes<'a>>, D::Error> {
    Option::deserialize(from)
}

/// A record that once failed.
#[derive(PartialEq, Eq, Debug)]
pub struct Failed {
    pub topic: String,
    pub partition: i32,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    /// It may be in the log: to send it may be to send it twice.
    pub possibly_written: bool,
}

impl Failed {
    /// Reads a line. The error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|e| match e.is_eof() {
            true => "it ends too early".to_string(),
            // The position is within the line, and the line's own number is said by the caller.
            false => e.to_string().replace(" at line 1 column ", " at column "),
        })?;
        if line.topic.is_empty() || line.partition < 0 || line.timestamp < 0 {
            return Err("an empty topic, or a partition or timestamp below 0".to_string());
        }
        let header = |(key, value): (Cow<'_, str>, Option<Bytes<'_>>)| Ok((key.into_owned(), bytes(value)?));
        Ok(Self {
            topic: line.topic.into_owned(),
            partition: line.partition,
            timestamp: line.timestamp,
            key: bytes(line.key)?,
            value: bytes(line.value)?,
            headers: line.headers.into_iter().map(header).collect::<Result<_, String>>()?,
            possibly_written: line.written == Written::Possibly,
        })
    }

    /// Lends the record as it was: same partition, same timestamp.
    pub fn with<R>(&self, send: impl FnOnce(Record<'_>) -> R) -> R {
        let headers: Vec<Header<'_>> =
            self.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let mut record = Record::new().with_partition(self.partition).with_timestamp(self.timestamp);
        record = record.with_headers(&headers);
        if let Some(key) = &self.key {
            record = record.with_key(key);
        }
        if let Some(value) = &self.value {
            record = record.with_value(value);
        }
        send(record)
    }
}

fn bytes(bytes: Option<Bytes<'_>>) -> Result<Option<Vec<u8>>, String> {
    Ok(match bytes {
        None => None,
        Some(Bytes::Text(text)) => Some(text.into_owned().into_bytes()),
        Some(Bytes::Base64(Base64 { base64 })) => {
            Some(decode(base64.as_bytes()).ok_or_else(|| "what should be base64 is not".to_string())?)
        }
    })
}

/// Base64 of the usual alphabet, padded, and of no other form.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let chunks = text.len() / 4;
    for (at, chunk) in text.chunks(4).enumerate() {
        let padding = chunk.iter().rev().take_while(|byte| **byte == b'=').count();
        if chunk.len() < 4 || padding > 2 || (padding > 0 && at + 1 < chunks) {
            return None;
        }
        let mut bits = 0u32;
        for byte in &chunk[..4 - padding] {
            bits = bits << 6 | u32::from(digit(*byte)?);
        }
        bits <<= 6 * padding;
        let [_, bytes @ ..] = bits.to_be_bytes();
        let (kept, spare) = bytes.split_at(3 - padding);
        if spare.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_one_form_only() {
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in vectors.into_iter().enumerate() {
            assert_eq!(decode(text.as_bytes()).unwrap(), b"foobar"[..length]);
        }
        for wrong in ["Zg", "Zg=", "Zg===", "=Zg=", "====", "Zg==Zg==", "Zh==", "Zm9=", "Z g=", "Zm-v", "Zm9v\n"] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong}");
        }
    }

    const LINE: &str = r#"{"topic":"t","partition":2,"timestamp":5,"key":null,"value":{"base64":"/w=="},
        "headers":[["a","b"],["a",null]],"written":"no","attempts":1,"waited_ms":3,"error":"x"}"#;

    #[test]
    fn a_line_becomes_the_record_it_was() {
        let failed = Failed::parse(LINE.as_bytes()).unwrap();
        let expected = Failed {
            topic: "t".to_string(),
            partition: 2,
            timestamp: 5,
            key: None,
            value: Some(vec![0xff]),
            headers: vec![("a".to_string(), Some(b"b".to_vec())), ("a".to_string(), None)],
            possibly_written: false,
        };
        assert_eq!(failed, expected);
        assert!(Failed::parse(LINE.replace("\"no\"", "\"possibly\"").as_bytes()).unwrap().possibly_written);
    }

    #[test]
    fn what_is_not_such_a_line_is_refused() {
        for at in 0..LINE.len() {
            assert!(Failed::parse(&LINE.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        let changed = [
            ("\"key\":null,", ""),
            ("\"topic\":\"t\",", ""),
            ("\"topic\":\"t\"", "\"topic\":\"\""),
            ("\"partition\":2", "\"partition\":-1"),
            ("\"partition\":2", "\"partition\":3000000000"),
            ("\"timestamp\":5", "\"timestamp\":-5"),
            ("\"no\"", "\"maybe\""),
            ("/w==", "/w="),
            ("base64", "base32"),
            ("[\"a\",\"b\"]", "[\"a\"]"),
            ("[\"a\",\"b\"]", "[null,\"b\"]"),
            ("[\"a\",\"b\"]", "[\"a\",7]"),
        ];
        for (part, other) in changed {
            let line = LINE.replace(part, other);
            assert!(line != LINE && Failed::parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
