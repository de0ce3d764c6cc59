//! What to say of a peer whose bytes are no frames of Kafka's protocol.

use crate::wire::frame::FRAME_MIN;

/// In words, from the first bytes of what should be a frame of at most `most` bytes. Fit to be shown.
pub fn describe(head: &[u8], most: usize) -> String {
    const ASK: &str = "is this a Kafka broker's port?";
    let first_line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or(head);
    let shown: String =
        first_line.iter().take(60).map(|b| if b.is_ascii_graphic() || *b == b' ' { *b as char } else { '.' }).collect();
    if head.starts_with(b"HTTP") {
        return format!("it answers as HTTP ({shown:?}), so it is a web server; {ASK}");
    }
    // A record's type (alert, handshake, data), then version 3.x.
    if matches!(head, [0x14..=0x17, 3, ..]) {
        let what = if head[0] == 0x15 { "an alert" } else { "a record" };
        return format!("it speaks TLS (it sent {what}), and ringmail does not yet; use a listener without TLS");
    }
    if head.len() >= 4 && head[..4].iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return format!("it says {shown:?}, which is no Kafka; {ASK}");
    }
    let size = head.first_chunk::<4>().map_or(0, |size| i32::from_be_bytes(*size));
    format!("it sent frame length {size} where {FRAME_MIN} to {most} are possible; {ASK}")
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn names_what_answers() {
        let said = |head: &[u8]| describe(head, 1000);
        assert!(said(b"HTTP/1.1 400 Bad Request\r\nX: y").contains("answers as HTTP (\"HTTP/1.1 400 Bad Request\")"));
        assert!(said(b"HTTP").contains("HTTP"));
        assert!(said(&[0x15, 3, 3, 0, 2, 2, 70]).contains("speaks TLS (it sent an alert)"));
        assert!(said(&[0x16, 3, 1, 2]).contains("speaks TLS (it sent a record)"));
        assert!(said(b"220 mail \x1b[2J ready\r\n").contains("says \"220 mail .[2J ready\""));
        assert!(said(&[0xff, 0xff, 0xff, 0xfb]).contains("frame length -5 where 4 to 1000"));
        assert!(said(&[0, 0, 0, 0]).contains("frame length 0 "));
        assert!(said(&[]).contains("frame length 0 "));
    }
}
