//! Cuts the bytes of a connection into frames: four bytes of size, then so many bytes.

use bytes::{Buf, Bytes, BytesMut};

use super::codec::WireError;

/// The largest frame that is accepted: what a broker accepts by default (`socket.request.max.bytes`).
pub const FRAME_MAX: usize = 100 * 1024 * 1024;
/// The smallest: a correlation id.
pub const FRAME_MIN: usize = 4;

/// Collects bytes as they arrive. It grows with what has arrived, never by what a size announces.
#[derive(Debug, Default)]
pub struct FrameReader {
    buf: BytesMut,
}

impl FrameReader {
    /// Bytes that have arrived and are not yet part of a frame handed out.
    pub fn buffered(&self) -> usize {
        self.buf.len()
    }

    /// The first of those bytes, to tell what a peer is that sends no frames.
    pub fn head(&self) -> &[u8] {
        &self.buf[..self.buf.len().min(128)]
    }

    /// The size that the next frame announces, whatever that is; `None` when its four bytes are not there.
    pub fn announced(&self) -> Option<i32> {
        self.buf.first_chunk::<4>().map(|size| i32::from_be_bytes(*size))
    }

    /// Adds bytes from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole frame, without its size; `None` when more bytes are needed. After an error the connection is of
    /// no use: where the next frame begins is not known.
    pub fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(size) = self.buf.first_chunk::<4>() else { return Ok(None) };
        let size = usize::try_from(i32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        if !(FRAME_MIN..=FRAME_MAX).contains(&size) {
            return Err(WireError { what: "frame size", at: 0 });
        }
        if self.buf.len() < 4 + size {
            return Ok(None);
        }
        self.buf.advance(4);
        Ok(Some(self.buf.split_to(size).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_however_the_bytes_arrive() {
        let stream = [0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 5, 5, 6, 7, 8, 9];
        for step in 1..=stream.len() {
            let mut reader = FrameReader::default();
            let mut frames = Vec::new();
            for chunk in stream.chunks(step) {
                reader.push(chunk);
                while let Some(frame) = reader.next().unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames, [vec![1, 2, 3, 4], vec![5, 6, 7, 8, 9]]);
            assert!(reader.buf.is_empty());
        }
    }

    #[test]
    fn a_size_outside_the_limits_is_an_error_and_reserves_nothing() {
        for size in [0, 3, -1, i32::MIN, i32::MAX, 104_857_601] {
            let mut reader = FrameReader::default();
            reader.push(&size.to_be_bytes());
            assert_eq!(reader.next(), Err(WireError { what: "frame size", at: 0 }), "{size}");
        }
        let mut reader = FrameReader::default();
        reader.push(&104_857_600_i32.to_be_bytes());
        assert_eq!(reader.next(), Ok(None));
        assert!(reader.buf.capacity() < 4096);
    }
}
