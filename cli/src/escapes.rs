//! Separators as they are typed: `-K '\t'`, `-D '\r\n'`, `-D '\x1e'`.

/// What stands between records, or between key and value; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Separator(pub Vec<u8>);

/// Puts the bytes that `\n`, `\t`, `\r`, `\0`, `\\` and `\xHH` stand for, as kcat does for its `-D` and `-K`. A backslash
/// that is alone is one; before anything else it is a mistake (kcat takes it as it stands, and splits nothing then).
pub fn separator(text: &str) -> Result<Separator, String> {
    let bytes = match text {
        "" => return Err("it is empty (an equals sign is written apart, as -K '=' or -D '=')".to_string()),
        "\\" => b"\\".to_vec(),
        _ => unescape(text)?,
    };
    Ok(Separator(bytes))
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let (byte, length) = match escape.as_bytes() {
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'r', ..] => (b'\r', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (u8::from_str_radix(&escape[1..3], 16).unwrap_or_default(), 3)
            }
            _ => {
                let shown: String = rest[at..].chars().take(if escape.starts_with('x') { 4 } else { 2 }).collect();
                return Err(format!("{shown} is none of the escapes \\n, \\t, \\r, \\0, \\\\ and \\xHH"));
            }
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::separator;

    /// A text, what we make of it, and what kcat makes of it.
    type Otherwise = (&'static str, Result<&'static [u8], &'static str>, &'static [u8]);

    /// What kcat 1.7 reads alike (its `parse_delim`, with the rows of its own test).
    const AS_KCAT: &[(&str, &[u8])] = &[
        (":", b":"),
        ("::", b"::"),
        ("\t", b"\t"),
        ("\\t", b"\t"),
        ("\\n", b"\n"),
        ("\\t\\n\\n", b"\t\n\n"),
        ("\\x54!\\x45\\x53T", b"T!EST"),
        ("\\x30", b"0"),
        ("\\x1f", b"\x1f"),
        ("\\xFf", b"\xff"),
        ("ä", "ä".as_bytes()),
        ("\\", b"\\"),
    ];

    /// What kcat reads otherwise: it knows no `\r`, `\0` and `\\`, takes any number of digits, leaves as it stands what it does
    /// not know, and finds an empty separator nowhere.
    const OTHERWISE: &[Otherwise] = &[
        ("\\r\\n", Ok(b"\r\n"), b"\\r\n"),
        ("\\0", Ok(b"\0"), b"\\0"),
        ("\\\\", Ok(b"\\"), b"\\\\"),
        ("\\\\t", Ok(b"\\t"), b"\\\t"),
        ("\\x300", Ok(b"00"), b"\0"),
        ("\\x9", Err("\\x9 is none"), b"\t"),
        ("\\x", Err("\\x is none"), b""),
        ("\\xg0", Err("\\xg0 is none"), b""),
        ("\\x+1", Err("\\x+1 is none"), b"\x01"),
        ("\\ä", Err("\\ä is none"), "\\ä".as_bytes()),
        ("\\|", Err("\\| is none"), b"\\|"),
        ("|\\", Err("\\ is none"), b"|\\"),
        ("", Err("empty"), b""),
    ];

    #[test]
    fn escapes() {
        for (typed, expected) in AS_KCAT {
            assert_eq!(separator(typed).unwrap().0, *expected, "{typed}");
        }
        for (typed, expected, kcat) in OTHERWISE {
            match (separator(typed), expected) {
                (Ok(bytes), Ok(expected)) => assert_eq!(bytes.0, *expected, "{typed}"),
                (Err(why), Err(words)) => assert!(why.contains(words), "{typed}: {why}"),
                (got, _) => panic!("{typed}: {got:?}"),
            }
            assert_ne!(*expected, Ok(*kcat), "{typed}: it belongs into the other table");
        }
    }
}
