//! Java's `.properties` files, read as `java.util.Properties` reads them.
//!
//! | in the file | what it is |
//! |---|---|
//! | `key=value`, `key:value`, `key value` | the first `=`, `:` or blank ends the key; blanks around it belong to neither |
//! | blanks behind a value | a part of it (the producer's settings ignore them, as Kafka's do) |
//! | `#…`, `!…` | a comment, to the end of its line, whatever stands there |
//! | a `\` that ends a line | the next line goes on with it, without its leading blanks; but no comment goes on |
//! | `\t`, `\n`, `\r`, `\f`, `\uXXXX` | a tab, newline, carriage return, form feed, UTF-16 code unit |
//! | `\` and anything else | that character: `\:`, `\=`, `\#`, `\ ` and `\\` stand for themselves |
//! | the end of a line | `\n`, `\r`, or both |
//!
//! Kafka's tools take every byte of a file for a character (ISO-8859-1). Here a byte order mark decides (UTF-8 or UTF-16),
//! and is not a part of the first key; without one the text is UTF-8 if it is valid as such, else as with Kafka's tools.
//!
//! This is our own because the crate `java-properties` (2.0) takes comments for text: one with `\u` in it, as in a Windows
//! path, is an error there, and one that ends in `\` swallows the next line. It read 1,414 of 20,000 random files
//! otherwise than Java does; this one differs where the last line is a lone `\`, which Java takes for an empty key.

/// A key with its value, and the line on which it begins, counted from 1.
#[derive(PartialEq, Eq, Debug)]
pub struct Property {
    pub line: usize,
    pub key: String,
    /// `None`: there is nothing but the key, not even a `=`. (Java takes that for an empty value.)
    pub value: Option<String>,
}

/// Reads a whole file. The error says on which line, counted from 1, and what is wrong there.
pub fn read(file: &[u8]) -> Result<Vec<Property>, (usize, String)> {
    let property = |(line, text): (usize, Vec<char>)| property(line, &text).map_err(|why| (line, why));
    Lines { text: &decode(file), line: 1 }.map(property).collect()
}

/// Bytes to characters.
fn decode(file: &[u8]) -> Vec<char> {
    let utf16 = |file: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = file.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match file {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => match std::str::from_utf8(rest) {
            Ok(text) => text.chars().collect(),
            Err(_) => rest.iter().map(|byte| char::from(*byte)).collect(),
        },
    }
}

/// Unicode has more blanks, but they are text.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

fn is_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

/// A file's lines that say something, each with the lines that it goes on with, and the number of its first one.
struct Lines<'a> {
    text: &'a [char],
    line: usize,
}

impl Lines<'_> {
    /// The next character. `\r\n` ends one line.
    fn next_char(&mut self) -> Option<char> {
        let (c, rest) = self.text.split_first()?;
        self.text = rest;
        self.line += usize::from(*c == '\n' || (*c == '\r' && rest.first() != Some(&'\n')));
        Some(*c)
    }

    fn skip(&mut self, what: impl Fn(char) -> bool) {
        while self.text.first().is_some_and(|c| what(*c)) {
            self.next_char();
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = (usize, Vec<char>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut logical = Vec::new();
        let (mut first, mut escaped) = (self.line, false);
        loop {
            if logical.is_empty() {
                self.skip(|c| is_blank(c) || is_end(c));
                if matches!(self.text.first(), Some('#' | '!')) {
                    self.skip(|c| !is_end(c));
                    continue;
                }
                first = self.line;
            }
            match self.next_char() {
                None if logical.is_empty() => return None,
                Some(c) if !is_end(c) => {
                    escaped = c == '\\' && !escaped;
                    logical.push(c);
                }
                end if escaped => {
                    logical.pop();
                    if end.is_none() {
                        return Some((first, logical));
                    }
                    if end == Some('\r') && self.text.first() == Some(&'\n') {
                        self.next_char();
                    }
                    self.skip(is_blank);
                    escaped = false;
                }
                _ => return Some((first, logical)),
            }
        }
    }
}

/// Takes a line apart.
fn property(line: usize, text: &[char]) -> Result<Property, String> {
    let mut escaped = false;
    let ends_key = |c: &char| {
        let ends = !escaped && (is_blank(*c) || matches!(c, '=' | ':'));
        escaped = *c == '\\' && !escaped;
        ends
    };
    let (key, rest) = text.split_at(text.iter().position(ends_key).unwrap_or(text.len()));
    let without_blanks = |text: &'_ [char]| text.iter().take_while(|c| is_blank(**c)).count();
    let mut value = &rest[without_blanks(rest)..];
    let separated = matches!(value, ['=' | ':', ..]);
    if separated {
        value = &value[1..];
        value = &value[without_blanks(value)..];
    }
    let value = (separated || !value.is_empty()).then(|| unescape(value)).transpose()?;
    Ok(Property { line, key: unescape(key)?, value })
}

/// Puts the characters that escapes stand for.
fn unescape(text: &[char]) -> Result<String, String> {
    let mut units = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(c) = rest.next() {
        let c = match (c, if *c == '\\' { rest.next() } else { None }) {
            (_, Some('u')) => {
                let digits: String = rest.by_ref().take(4).collect();
                let unit = Some(&digits).filter(|digits| digits.len() == 4 && !digits.starts_with('+'));
                let unit = unit.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                units.push(
                    unit.ok_or_else(|| format!("\\u{digits} is no character: four hexadecimal digits are needed"))?,
                );
                continue;
            }
            (_, Some('t')) => '\t',
            (_, Some('n')) => '\n',
            (_, Some('r')) => '\r',
            (_, Some('f')) => '\u{c}',
            (_, Some(other)) => *other,
            (c, None) => *c,
        };
        units.extend(c.encode_utf16(&mut [0; 2]).iter());
    }
    String::from_utf16(&units).map_err(|_| "half of a surrogate pair stands alone (\\uD800 to \\uDFFF)".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(file: impl AsRef<[u8]>) -> Vec<(String, Option<String>)> {
        read(file.as_ref()).unwrap().into_iter().map(|property| (property.key, property.value)).collect()
    }

    /// What `java.util.Properties` of OpenJDK 17 reads: the file, and its pairs.
    const JAVA: &[(&str, &[(&str, &str)])] = &[
        ("acks=all", &[("acks", "all")]),
        ("acks:all", &[("acks", "all")]),
        ("acks all", &[("acks", "all")]),
        ("acks\tall", &[("acks", "all")]),
        ("  acks \t = \u{c} all", &[("acks", "all")]),
        ("acks = = all", &[("acks", "= all")]),
        ("acks: =all", &[("acks", "=all")]),
        ("acks all=1", &[("acks", "all=1")]),
        ("a=b=c:d e", &[("a", "b=c:d e")]),
        ("bootstrap.servers=a:9092,b:9092", &[("bootstrap.servers", "a:9092,b:9092")]),
        ("bootstrap.servers a:9092", &[("bootstrap.servers", "a:9092")]),
        ("trailing = blanks \t ", &[("trailing", "blanks \t ")]),
        ("empty=", &[("empty", "")]),
        ("empty:", &[("empty", "")]),
        ("empty = ", &[("empty", "")]),
        ("a\\ b=1", &[("a b", "1")]),
        ("a\\=b\\:c=1", &[("a=b:c", "1")]),
        ("url=https\\://host\\:1/", &[("url", "https://host:1/")]),
        ("\\#a=#b", &[("#a", "#b")]),
        ("a=b#c", &[("a", "b#c")]),
        ("a=b!c", &[("a", "b!c")]),
        ("a=\\tb\\nc\\rd\\fe", &[("a", "\tb\nc\rd\u{c}e")]),
        ("a=\\q\\\\\\\"\\0", &[("a", "q\\\"0")]),
        ("a=\\u0041\\u00e4\\u20AC", &[("a", "Aä€")]),
        ("a=\\ud83d\\ude00", &[("a", "😀")]),
        ("\\u0061=1", &[("a", "1")]),
        ("a=C:\\\\temp\\\\x", &[("a", "C:\\temp\\x")]),
        ("a=1\\\n  ,2\\\r\n\t,3\\\r,4", &[("a", "1,2,3,4")]),
        ("a\\\n  b=1", &[("ab", "1")]),
        ("a=1\\\n# no comment", &[("a", "1# no comment")]),
        ("a=1\\\\\nb=2", &[("a", "1\\"), ("b", "2")]),
        ("a=1\\\n\nb=2", &[("a", "1"), ("b", "2")]),
        ("a=1\\", &[("a", "1")]),
        ("a=1\\\n", &[("a", "1")]),
        ("a=\\u00\\\n41", &[("a", "A")]),
        ("# C:\\users\\u1\n! a=1\n  # b\na=1", &[("a", "1")]),
        ("# it does not go on \\\na=1", &[("a", "1")]),
        ("#\n#\n\n \t\u{c}\n", &[]),
        ("a=1\r\nb=2\r\n\r\nc=3\rd=4\n\re=5", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]),
        ("a=1\na=2", &[("a", "1"), ("a", "2")]),
        ("=1", &[("", "1")]),
        (":1", &[("", "1")]),
        ("a=\u{a0}1\u{85}", &[("a", "\u{a0}1\u{85}")]),
    ];

    #[test]
    fn as_java_reads_it() {
        for (file, expected) in JAVA {
            let expected: Vec<_> =
                expected.iter().map(|(key, value)| (key.to_string(), Some(value.to_string()))).collect();
            assert_eq!(pairs(file), expected, "{file:?}");
        }
    }

    #[test]
    fn a_key_alone_is_told_from_an_empty_value() {
        for file in ["acks", "acks ", "\nacks\n", "acks\\\n", "\\\nacks"] {
            assert_eq!(pairs(file), [("acks".to_string(), None)], "{file:?}");
        }
    }

    #[test]
    fn whatever_the_file_is_encoded_in() {
        let expected = [("acks".to_string(), Some("ä€".to_string()))];
        let text = "acks=ä€\r\n";
        let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let files = [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [b"\xff\xfe", &utf16(u16::to_le_bytes)[..]].concat(),
            [b"\xfe\xff", &utf16(u16::to_be_bytes)[..]].concat(),
        ];
        for file in files {
            assert_eq!(pairs(&file), expected, "{file:?}");
        }
        // No UTF-8: a character for each byte, as Java has it.
        assert_eq!(pairs(b"acks=\xe4"), [("acks".to_string(), Some("ä".to_string()))]);
        assert_eq!(pairs(b"\xef\xbb\xbf"), []);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (wrong, why) in
            [("\\u12", "\\u12 "), ("\\u+123", "\\u+123 "), ("\\u12g4", "\\u12g4"), ("\\ud800", "surrogate")]
        {
            let (line, text) = read(format!("# one\r\ntwo=2\\\n  2\na={wrong}\nb=1").as_bytes()).unwrap_err();
            assert!(line == 4 && text.contains(why), "{line}: {text}");
        }
        let lines: Vec<usize> = read(b"\r\na\\\r\nb=1\r\rc=1").unwrap().iter().map(|property| property.line).collect();
        assert_eq!(lines, [2, 5]);
    }
}
