//! Splits input into lines: a line and its delimiter may span chunks, and none takes more memory than a record may.

use memchr::memmem::Finder;

/// A line of the input, without its delimiter.
#[derive(PartialEq, Eq, Debug)]
pub enum Line<'a> {
    Whole(&'a [u8]),
    /// Longer than the limit, so it was not kept. Its length in bytes.
    TooLong(u64),
}

/// Cuts chunks at a delimiter of one byte or more. What is left of a chunk waits for the next one.
pub struct Splitter {
    delimiter: Finder<'static>,
    limit: usize,
    /// The start of a line whose end has not come yet; at most `limit` bytes.
    partial: Vec<u8>,
    /// Bytes of the line that were not kept, beyond `partial`. Not zero: the line is too long.
    dropped: u64,
    /// The last bytes of what came, where they may be the start of a delimiter: fewer than it has.
    held: Vec<u8>,
}

impl Splitter {
    /// Lines of up to `limit` bytes are kept. The delimiter must not be empty.
    pub fn new(delimiter: &[u8], limit: usize) -> Self {
        let delimiter = Finder::new(delimiter).into_owned();
        Self { delimiter, limit, partial: Vec::new(), dropped: 0, held: Vec::new() }
    }

    /// Calls `each` for every line that ends in this chunk. Stops when it returns false, and returns false then.
    pub fn push(&mut self, mut chunk: &[u8], each: &mut dyn FnMut(Line<'_>) -> bool) -> bool {
        if !self.held.is_empty() {
            match self.bridge(chunk) {
                Bridge::Delimiter(rest) => {
                    chunk = rest;
                    if !self.end_line(each) {
                        return false;
                    }
                }
                Bridge::Text => {}
                Bridge::Open => return true,
            }
        }
        while let Some(end) = self.delimiter.find(chunk) {
            let (line, rest) = (&chunk[..end], &chunk[end + self.delimiter.needle().len()..]);
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
        let (text, held) = chunk.split_at(chunk.len() - self.begun(chunk));
        self.keep(text);
        self.held.extend_from_slice(held);
        true
    }

    /// The end of the input: a last line without delimiter counts, unless it is empty.
    pub fn finish(&mut self, each: &mut dyn FnMut(Line<'_>) -> bool) -> bool {
        let held = std::mem::take(&mut self.held);
        self.keep(&held);
        if self.partial.is_empty() && self.dropped == 0 { true } else { self.end_line(each) }
    }

    /// What becomes of the bytes that were held back, now that `chunk` follows them.
    fn bridge<'a>(&mut self, chunk: &'a [u8]) -> Bridge<'a> {
        let length = self.delimiter.needle().len();
        let mut joined = std::mem::take(&mut self.held);
        let held = joined.len();
        // A delimiter that begins in what was held ends in these.
        joined.extend_from_slice(&chunk[..chunk.len().min(length - 1)]);
        if let Some(at) = self.delimiter.find(&joined) {
            self.keep(&joined[..at]);
            return Bridge::Delimiter(&chunk[at + length - held..]);
        }
        if chunk.len() >= length - 1 {
            self.keep(&joined[..held]);
            return Bridge::Text;
        }
        let text = joined.len() - self.begun(&joined);
        self.keep(&joined[..text]);
        self.held.extend_from_slice(&joined[text..]);
        Bridge::Open
    }

    /// How many bytes at the end of `text` may be the start of a delimiter.
    fn begun(&self, text: &[u8]) -> usize {
        let delimiter = self.delimiter.needle();
        let most = text.len().min(delimiter.len() - 1);
        (1..=most).rev().find(|length| text.ends_with(&delimiter[..*length])).unwrap_or(0)
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

/// Held back were the first bytes of…
enum Bridge<'a> {
    /// …a delimiter; behind it comes this.
    Delimiter(&'a [u8]),
    /// …nothing but the line.
    Text,
    /// …nobody knows yet: the chunk was too short, and is used up.
    Open,
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
        split_at(b"\n", input, chunk, limit)
    }

    fn split_at(delimiter: &[u8], input: &[u8], chunk: usize, limit: usize) -> Vec<Result<Vec<u8>, u64>> {
        let mut lines = Vec::new();
        let mut each = |line: Line<'_>| {
            lines.push(match line {
                Line::Whole(bytes) => Ok(bytes.to_vec()),
                Line::TooLong(length) => Err(length),
            });
            true
        };
        let mut splitter = Splitter::new(delimiter, limit);
        for part in input.chunks(chunk) {
            assert!(splitter.push(part, &mut each));
            assert!(splitter.partial.len() <= limit && splitter.held.len() < delimiter.len());
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
        let goes_on = Splitter::new(b"\n", 9).push(b"a\nb\nc\n", &mut |_| {
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

    /// Every text over the delimiter's letters and another one, in chunks of every size, against the standard library.
    #[test]
    fn a_delimiter_may_have_several_bytes_and_span_chunks() {
        for delimiter in ["ab", "aa", "aab", "aba", "abab"] {
            for number in 0..3usize.pow(8) {
                let input: String = (0..8).map(|place| ["a", "b", "c"][number / 3usize.pow(place) % 3]).collect();
                let mut whole: Vec<_> = input.split(delimiter).map(|line| Ok(line.as_bytes().to_vec())).collect();
                whole.pop_if(|last| last.as_ref().is_ok_and(Vec::is_empty));
                for chunk in [1, 2, 3, 5, 8] {
                    assert_eq!(split_at(delimiter.as_bytes(), input.as_bytes(), chunk, 100), whole, "{input}, {chunk}");
                }
            }
        }
        assert_eq!(
            split_at(b"\r\n", b"1234\r\n12345\r\n\r\r\n", 3, 4),
            [Ok(b"1234".to_vec()), Err(5), Ok(b"\r".to_vec())]
        );
    }
}
