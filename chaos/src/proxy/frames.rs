//! Kafka's framing: a length of four bytes, then that many bytes.

use std::io::{self, Read};

/// No request or answer of a test is longer; whoever says so talks something else.
const LONGEST: i32 = 64 << 20;

/// Reads one frame, its length included, into `frame`. `Ok(false)`: the stream ended before it.
pub fn read(stream: &mut impl Read, frame: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        result => result?,
    }
    let size = match i32::from_be_bytes(length) {
        size @ 0..=LONGEST => size as usize,
        size => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {size} bytes"))),
    };
    frame.clear();
    frame.extend_from_slice(&length);
    frame.resize(4 + size, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(true)
}

/// What a request's header says, as far as an answer needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Which request; 0 is Produce.
    pub api: i16,
    /// Its version.
    pub version: i16,
    /// Comes back in the answer.
    pub correlation: i32,
}

impl Asked {
    /// From a whole request; `None` when it is too short to be one.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let i16_at = |at: usize| Some(i16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let correlation = i32::from_be_bytes(frame.get(8..12)?.try_into().ok()?);
        Some(Self { api: i16_at(4)?, version: i16_at(6)?, correlation })
    }

    /// It is a Produce request.
    pub fn is_produce(self) -> bool {
        self.api == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let mut frame = Vec::new();
        let mut stream = &[0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0][..];
        assert!(read(&mut stream, &mut frame).unwrap());
        assert_eq!(frame, [0, 0, 0, 2, 7, 8]);
        assert!(read(&mut stream, &mut frame).unwrap());
        assert_eq!(frame, [0, 0, 0, 0]);
        assert!(!read(&mut stream, &mut frame).unwrap(), "the end, in the middle of a length");
        assert!(read(&mut &[0, 0, 0, 2, 7][..], &mut frame).is_err(), "the end, in the middle of a frame");
        assert!(read(&mut &b"HTTP/1.1"[..], &mut frame).is_err());
    }

    #[test]
    fn a_request_says_what_it_is() {
        let frame = [0, 0, 0, 8, 0, 3, 0, 12, 0, 0, 1, 0];
        assert_eq!(Asked::of(&frame), Some(Asked { api: 3, version: 12, correlation: 256 }));
        assert_eq!(Asked::of(&frame[..11]), None);
    }
}
