//! Where in an answer its counts stand: the answers' shapes, written down once more and read by a walker that shares
//! nothing with the decoders.

use std::ops::Range;

use crate::wire::header::ApiKey;

/// Fields of a response body: digits are fixed lengths in bytes, `u` a UUID, `s` a string, `[…]` an array, `T` tagged
/// fields.
fn shape(api: ApiKey, version: i16) -> String {
    let from = |first: i16, fields: &'static str| if version >= first { fields } else { "" };
    match api {
        ApiKey::API_VERSIONS => format!("2[222T]{}T", from(1, "4")),
        ApiKey::INIT_PRODUCER_ID => "4282T".to_owned(),
        ApiKey::METADATA => format!(
            "{}[4s4sT]{}4[2s{}1[244{}[4][4]{}T]{}T]{}{}T",
            from(3, "4"),
            from(2, "s"),
            from(10, "u"),
            from(7, "4"),
            from(5, "[4]"),
            from(8, "4"),
            if (8..=10).contains(&version) { "4" } else { "" },
            from(13, "2"),
        ),
        ApiKey::PRODUCE => {
            let topic = if version >= 13 { "u" } else { "s" };
            format!("[{topic}[4288{}{}T]T]4T", from(5, "8"), from(8, "[4sT]s"))
        }
        _ => String::new(),
    }
}

/// Offset of the body in an answer's frame, behind size, correlation id and the header's tagged fields (none is set).
pub fn body_at(api: i16, version: i16) -> usize {
    8 + usize::from(ApiKey(api).has_response_tags(version))
}

/// Where in the answer's frame, size included, each count of elements and of tagged fields stands, in order. `None`
/// when the frame is not what the shape says.
pub fn counts(api: i16, version: i16, frame: &[u8]) -> Option<Vec<Range<usize>>> {
    let api = ApiKey(api);
    let mut walk =
        Walk { bytes: frame, at: body_at(api.0, version), flexible: api.is_flexible(version), found: Vec::new() };
    walk.fields(shape(api, version).as_bytes())?;
    (walk.at == frame.len()).then_some(walk.found)
}

/// The frame with 2^31 - 1 as the count that stands at `place`, and its size corrected.
pub fn with_count(api: i16, version: i16, frame: &[u8], place: Range<usize>) -> Vec<u8> {
    // Compact counts are one higher than what they say.
    let huge: &[u8] =
        if ApiKey(api).is_flexible(version) { &[0x80, 0x80, 0x80, 0x80, 0x08] } else { &[0x7f, 0xff, 0xff, 0xff] };
    let mut out = [&frame[..place.start], huge, &frame[place.end..]].concat();
    let size = (out.len() as u32 - 4).to_be_bytes();
    out[..4].copy_from_slice(&size);
    out
}

/// The answer as often as it has counts, each time with another one of 2^31 - 1. Empty when the frame is not what the
/// shape says.
pub fn with_each_count(api: i16, version: i16, frame: &[u8]) -> Vec<Vec<u8>> {
    let places = counts(api, version, frame).unwrap_or_default();
    places.into_iter().map(|place| with_count(api, version, frame, place)).collect()
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    flexible: bool,
    found: Vec<Range<usize>>,
}

impl Walk<'_> {
    fn skip(&mut self, len: usize) -> Option<()> {
        self.at = self.at.checked_add(len).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn fixed(&mut self, len: usize) -> Option<u64> {
        let start = self.at;
        self.skip(len)?;
        Some(self.bytes[start..self.at].iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.fixed(1)?;
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A length or count; null counts as none.
    fn len(&mut self, bytes: usize) -> Option<usize> {
        if self.flexible {
            return usize::try_from(self.varint()?).ok()?.checked_sub(1).or(Some(0));
        }
        let value = self.fixed(bytes)?;
        Some(if value >> (8 * bytes - 1) == 1 { 0 } else { value as usize })
    }

    fn fields(&mut self, mut shape: &[u8]) -> Option<()> {
        while let [field, rest @ ..] = shape {
            shape = rest;
            match field {
                b'0'..=b'9' => self.skip(usize::from(field - b'0'))?,
                b'u' => self.skip(16)?,
                b's' => {
                    let len = self.len(2)?;
                    self.skip(len)?;
                }
                b'T' if self.flexible => self.tags()?,
                b'[' => {
                    let mut depth = 1;
                    let end = shape.iter().position(|byte| {
                        depth += i32::from(*byte == b'[') - i32::from(*byte == b']');
                        depth == 0
                    })?;
                    let (element, rest) = (&shape[..end], &shape[end + 1..]);
                    let start = self.at;
                    let count = self.len(4)?;
                    self.found.push(start..self.at);
                    for _ in 0..count {
                        self.fields(element)?;
                    }
                    shape = rest;
                }
                _ => {}
            }
        }
        Some(())
    }

    fn tags(&mut self) -> Option<()> {
        let start = self.at;
        let count = self.varint()?;
        self.found.push(start..self.at);
        for _ in 0..count {
            self.varint()?;
            let len = usize::try_from(self.varint()?).ok()?;
            self.skip(len)?;
        }
        Some(())
    }
}
