//! Splits input into lines: a line may span chunks, and none takes more memory than a record may.

/// A line of the input, without its delimiter.
#[derive(PartialEq, Eq, Debug)]
pub enum Line<'a> {
    Whole(&'a [u8]),
    /// Longer than the limit, so it was not kept. Its length in bytes.
    TooLong(u64),
}

/// Cuts chunks at a delimiter byte. What is left of a chunk waits for the next one.
pub struct Splitter {
    delimiter: u8,
    limit: usize,
    /// The start of a line whose end has not come yet; at most `limit` bytes.
    partial: Vec<u8>,
    /// Bytes of the line that were not kept, beyond `partial`. Not zero: the line is too long.
    dropped: u64,
}

impl Splitter {
    /// Lines of up to `limit` bytes are kept.
    pub fn new(delimiter: u8, limit: usize) -> Self {
        Self { delimiter, limit, partial: Vec::new(), dropped: 0 }
    }

    /// Calls `each` for every line that ends in this chunk. Stops when it returns false, and returns false then.
    pub fn push(&mut self, mut chunk: &[u8], each: &mut dyn FnMut(Line<'_>) -> bool) -> bool {
        while let Some(end) = memchr::memchr(self.delimiter, chunk) {
            let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
            chunk = rest;
            let whole = self.partial.is_empty() && self.dropped == 0 && line.len() <= self.limit;
            let goes_on = if whole {
                each(Line::Whole(line))
            } else {
                self.keep(line);
                self.end_line(each)
            };
            if !goes_on {
                return false;
            }
        }
        self.keep(chunk);
        true
    }

    /// The end of the input: a last line without delimiter counts, unless it is empty.
    pub fn finish(&mut self, each: &mut dyn FnMut(Line<'_>) -> bool) -> bool {
        if self.partial.is_empty() && self.dropped == 0 { true } else { self.end_line(each) }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = if self.dropped > 0 { 0 } else { self.limit - self.partial.len() };
        let (kept, dropped) = bytes.split_at(room.min(bytes.len()));
        self.partial.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
    }

    fn end_line(&mut self, each: &mut dyn FnMut(Line<'_>) -> bool) -> bool {
        let line = match self.dropped {
            0 => Line::Whole(&self.partial),
            dropped => Line::TooLong(self.partial.len() as u64 + dropped),
        };
        let goes_on = each(line);
        self.partial.clear();
        self.dropped = 0;
        goes_on
    }
}

/// Parses the value of `-D`: one byte, or an escape for one.
pub fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        b"\\n" => Ok(b'\n'),
        b"\\t" => Ok(b'\t'),
        b"\\r" => Ok(b'\r'),
        b"\\0" => Ok(0),
        [b'\\', b'x', hex @ ..] if hex.len() == 2 => {
            u8::from_str_radix(&text[2..], 16).map_err(|_| format!("{text}: not two hexadecimal digits"))
        }
        _ => Err("one byte is needed: a character, or \\n, \\t, \\r, \\0, \\xHH".to_string()),
    }
}

/// Cuts a line at the first separator into key and value. Without separator there is no key.
pub fn split_key<'a>(line: &'a [u8], separator: &[u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    match memchr::memmem::find(line, separator) {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(input: &[u8], chunk: usize, limit: usize) -> Vec<Result<Vec<u8>, u64>> {
        let mut lines = Vec::new();
        let mut each = |line: Line<'_>| {
            lines.push(match line {
                Line::Whole(bytes) => Ok(bytes.to_vec()),
                Line::TooLong(length) => Err(length),
            });
            true
        };
        let mut splitter = Splitter::new(b'\n', limit);
        for part in input.chunks(chunk) {
            assert!(splitter.push(part, &mut each));
            assert!(splitter.partial.len() <= limit);
        }
        splitter.finish(&mut each);
        lines
    }

    #[test]
    fn chunks_do_not_matter() {
        let input = b"one\n\ntwo\r\nthree is longer\n\nlast without newline";
        let whole: Vec<_> = input.split(|b| *b == b'\n').map(|line| Ok(line.to_vec())).collect();
        for chunk in 1..=input.len() {
            assert_eq!(split(input, chunk, 100), whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_final_newline_ends_the_last_line() {
        assert_eq!(split(b"a\n", 10, 10), [Ok(b"a".to_vec())]);
        assert_eq!(split(b"\n", 10, 10), [Ok(b"".to_vec())]);
        assert_eq!(split(b"", 10, 10), []);
    }

    #[test]
    fn a_line_over_the_limit_is_measured_and_not_kept() {
        for chunk in 1..20 {
            assert_eq!(
                split(b"12345\n123456\n\n1234567", chunk, 5),
                [Ok(b"12345".to_vec()), Err(6), Ok(b"".to_vec()), Err(7)]
            );
        }
    }

    #[test]
    fn stopping_stops() {
        let mut calls = 0;
        let goes_on = Splitter::new(b'\n', 9).push(b"a\nb\nc\n", &mut |_| {
            calls += 1;
            calls < 2
        });
        assert_eq!((goes_on, calls), (false, 2));
    }

    #[test]
    fn keys() {
        assert_eq!(split_key(b"k:v:w", b":"), (Some(&b"k"[..]), &b"v:w"[..]));
        assert_eq!(split_key(b":v", b":"), (Some(&b""[..]), &b"v"[..]));
        assert_eq!(split_key(b"none", b"::"), (None, &b"none"[..]));
    }

    #[test]
    fn delimiters() {
        assert_eq!(delimiter("\\x1f"), Ok(0x1f));
        assert_eq!(delimiter(";"), Ok(b';'));
        assert!(delimiter("ab").is_err());
        assert!(delimiter("\\xg0").is_err());
        assert!(delimiter("").is_err());
    }
}
