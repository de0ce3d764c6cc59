//! Reads a partition back from a broker with Fetch requests of its own (version 4), sharing nothing with the library.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::decoder::{Stored, decode};

/// Bytes asked for at a time. A broker sends one whole batch even if it is larger.
const CHUNK: i32 = 8 << 20;

/// A connection to the broker that leads the partitions to be read.
pub struct Reader {
    stream: TcpStream,
    correlation: i32,
}

impl Reader {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, correlation: 0 })
    }

    /// Calls `each` for every record of a partition, from offset 0 up to the high watermark. Returns that.
    pub fn read(&mut self, topic: &str, partition: i32, each: &mut dyn FnMut(Stored<'_>)) -> Result<i64, String> {
        let mut offset = 0;
        loop {
            let answer = self.fetch(topic, partition, offset).map_err(|e| format!("cannot read back: {e}"))?;
            let (high_watermark, log) = records(&answer).ok_or("cannot understand the broker's Fetch answer")?;
            let from = offset;
            let mut each_wanted = |record: Stored<'_>| {
                if record.offset >= from {
                    each(record);
                }
            };
            let next = decode(log, &mut each_wanted).map_err(|e| format!("{topic}-{partition}: {e}"))?;
            if offset >= high_watermark {
                return Ok(high_watermark);
            }
            match next {
                Some(next) if next > offset => offset = next,
                _ => return Err(format!("{topic}-{partition}: nothing to read at {offset} of {high_watermark}")),
            }
        }
    }

    fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> io::Result<Vec<u8>> {
        self.correlation += 1;
        let mut request = vec![0; 4];
        request.extend([0, 1, 0, 4]);
        request.extend(self.correlation.to_be_bytes());
        string(&mut request, "read-back");
        // Replica -1: a consumer. Wait 0 ms for 0 bytes; isolation 0: everything.
        for field in [-1, 0, 0, CHUNK] {
            request.extend(field.to_be_bytes());
        }
        request.push(0);
        request.extend(1i32.to_be_bytes());
        string(&mut request, topic);
        request.extend(1i32.to_be_bytes());
        request.extend(partition.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(CHUNK.to_be_bytes());
        let size = request.len() as u32 - 4;
        request[..4].copy_from_slice(&size.to_be_bytes());
        self.stream.write_all(&request)?;

        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = u64::from(u32::from_be_bytes(size));
        let mut answer = Vec::new();
        if (&mut self.stream).take(size).read_to_end(&mut answer)? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// High watermark and records of an answer with one partition in it. `None`: not understood, or an error code.
fn records(answer: &[u8]) -> Option<(i64, &[u8])> {
    fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(n)?;
        *rest = left;
        Some(taken)
    }
    fn number(rest: &mut &[u8], n: usize) -> Option<i64> {
        let bytes = take(rest, n)?;
        let sign = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
        Some(bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
    }
    let mut rest = answer;
    let (_correlation, _throttle, topics) = (number(&mut rest, 4)?, number(&mut rest, 4)?, number(&mut rest, 4)?);
    let name = number(&mut rest, 2)?;
    take(&mut rest, usize::try_from(name).ok()?)?;
    let (partitions, _index, error) = (number(&mut rest, 4)?, number(&mut rest, 4)?, number(&mut rest, 2)?);
    let (high_watermark, _last_stable) = (number(&mut rest, 8)?, number(&mut rest, 8)?);
    let aborted = number(&mut rest, 4)?.max(0);
    take(&mut rest, usize::try_from(aborted).ok()?.checked_mul(16)?)?;
    let length = number(&mut rest, 4)?.max(0);
    let records = take(&mut rest, usize::try_from(length).ok()?)?;
    (topics == 1 && partitions == 1 && error == 0).then_some((high_watermark, records))
}
