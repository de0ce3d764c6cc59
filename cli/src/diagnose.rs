//! Says why no broker answers: asks each bootstrap server itself, as simply as can be, and reports in plain words.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The longest that a diagnosis takes, but for names that the system looks up slowly.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer that is read; a broker's has some hundred bytes.
const ANSWER_MAX: usize = 1 << 16;

/// An ApiVersions v0 request, which every Kafka since 0.10 answers: size, key 18, version 0, correlation id, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, b'r', b'i', b'n', b'g', 0xff, 0xff];
const CORRELATION: [u8; 4] = *b"ring";

/// One line for each server of a `bootstrap.servers` list. All are asked at once, each for `patience` at most, however
/// its answer trickles.
pub fn diagnose(servers: &str, patience: Duration) -> String {
    let deadline = Instant::now() + patience;
    let servers = servers.split(',').map(str::trim).filter(|server| !server.is_empty());
    std::thread::scope(|scope| {
        let asked: Vec<_> = servers.map(|server| (server, scope.spawn(move || ask(server, deadline)))).collect();
        let line = |(server, answer): (&str, std::thread::ScopedJoinHandle<'_, String>)| {
            format!("  {server}: {}", answer.join().unwrap_or_default())
        };
        asked.into_iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

/// What is left; never nothing, which sockets do not take for a timeout.
fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
}

fn ask(server: &str, deadline: Instant) -> String {
    let addresses: Vec<SocketAddr> = match server.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(e) => return format!("the name cannot be resolved ({e})"),
    };
    let mut answer = "the name has no address".to_string();
    for address in addresses {
        answer = match TcpStream::connect_timeout(&address, until(deadline)) {
            Ok(stream) => return talk(stream, deadline),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                "connection refused: nothing listens there (is the broker running, is the port right?)".to_string()
            }
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                "no connection in time (a firewall, or a wrong address?)".to_string()
            }
            Err(e) => format!("no connection: {e}"),
        };
    }
    answer
}

fn talk(mut stream: TcpStream, deadline: Instant) -> String {
    let tried = stream.set_write_timeout(Some(until(deadline))).and_then(|()| stream.write_all(&API_VERSIONS));
    if let Err(e) = tried {
        return format!("connected, but sending failed: {e}");
    }
    let mut answer = Vec::new();
    match read_answer(&mut stream, &mut answer, deadline) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && answer.is_empty() => {
            "connected, but no answer came: it is no Kafka, or it is stuck".to_string()
        }
        _ if answer.is_empty() => {
            "connected, but it closed the connection without an answer: no Kafka listener without TLS or SASL"
                .to_string()
        }
        _ => understand(&answer),
    }
}

/// Reads one frame, size included, or enough of something else.
fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>, deadline: Instant) -> std::io::Result<()> {
    let mut chunk = [0; 4096];
    while !is_enough(answer) {
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(until(deadline)))?;
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            len => answer.extend_from_slice(&chunk[..len]),
        }
    }
    Ok(())
}

fn size(answer: &[u8]) -> Option<i32> {
    answer.first_chunk().map(|size| i32::from_be_bytes(*size))
}

fn is_enough(answer: &[u8]) -> bool {
    let Some(size) = size(answer) else { return false };
    let ours = answer[4..].starts_with(&CORRELATION);
    let whole = usize::try_from(size).is_ok_and(|size| answer.len() - 4 >= size);
    answer.len() >= 10 && (!ours || whole || !is_possible(size))
}

fn is_possible(size: i32) -> bool {
    (0..=ANSWER_MAX as i32).contains(&size)
}

/// A frame: size, correlation id, error code, count, then for each API its number, least and greatest version.
fn understand(answer: &[u8]) -> String {
    let number = |at: usize| answer.get(at..at + 2).map_or(0, |bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
    match size(answer) {
        Some(size) if answer[4..].starts_with(&CORRELATION) && !is_possible(size) => {
            return format!("what answers there is no Kafka broker (it sent frame length {size})");
        }
        Some(size) if answer[4..].starts_with(&CORRELATION) && answer.len() - 4 < size as usize => {
            let (came, all) = (answer.len(), size as usize + 4);
            return format!("half an answer came ({came} of {all} bytes): no Kafka broker, or it is stuck");
        }
        Some(_) if answer.len() >= 14 && answer[4..].starts_with(&CORRELATION) => {
            let produce = answer[14..].chunks_exact(6).find(|api| api.starts_with(&[0, 0]));
            return match (number(8), produce) {
                (0, Some([.., 0, 0..=2])) => {
                    "a Kafka broker of before 0.11 answers here, which is too old for ringmail".to_string()
                }
                (0, Some(_)) => "it answers a first question as a Kafka broker does; what goes wrong comes after \
                                 that (perhaps the addresses that it advertises cannot be reached)"
                    .to_string(),
                (0, None) => "a Kafka controller answers here, not a broker: use a broker's port".to_string(),
                (error, _) => format!("it answers ApiVersions with error {error}"),
            };
        }
        _ => {}
    }
    if answer.starts_with(b"HTTP") {
        return "what answers there is no Kafka but a web server".to_string();
    }
    // A TLS record: its type, then version 3.x.
    if matches!(answer, [0x14..=0x17, 3, ..]) {
        return "what answers there speaks TLS, which ringmail does not yet: use a listener without TLS".to_string();
    }
    let shown: String = answer.iter().take(60).map(|b| if b.is_ascii_graphic() { *b as char } else { '.' }).collect();
    format!("what answers there is no Kafka (it says {shown:?})")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is said of a server that sends these bytes after it was asked, and closes.
    fn said_of(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; API_VERSIONS.len()];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(answer).unwrap();
        });
        let said = diagnose(&address, PATIENCE);
        server.join().unwrap();
        said
    }

    #[test]
    fn tells_what_answers() {
        assert!(said_of(b"HTTP/1.1 400 Bad Request\r\n").contains("web server"));
        assert!(said_of(b"\x15\x03\x03\0\x02\x02\x46").contains("speaks TLS"));
        assert!(said_of(b"SSH-2.0-OpenSSH_9.2\r\n").contains("SSH-2.0-Op"));
        assert!(said_of(b"").contains("closed the connection"));
        let good = "as a Kafka broker does";
        assert!(said_of(b"\0\0\0\x16ring\0\0\0\0\0\x02\0\x12\0\0\0\x04\0\0\0\x03\0\x0d").contains(good));
        assert!(said_of(b"\0\0\0\x10ring\0\0\0\0\0\x01\0\0\0\0\0\x02").contains("before 0.11"));
        assert!(said_of(b"\0\0\0\x10ring\0\0\0\0\0\x01\0\x12\0\0\0\x04").contains("controller"));
        assert!(said_of(b"\0\0\0\x0aring\0\x23\0\0\0\0").contains("error 35"));
        assert!(said_of(b"\0\0\0\x10ring").contains("(8 of 20 bytes)"));
        assert!(said_of(b"\x7f\xff\xff\xffring\0\0").contains("frame length 2147483647"));
        assert!(said_of(b"\xff\xff\xff\xfbring\0\0").contains("frame length -5"));
    }

    #[test]
    fn a_trickle_does_not_hold_it_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Until the other side has had enough, of an answer that would take an hour.
            for byte in b"\0\0\xff\xffring".iter().chain(std::iter::repeat(&0)) {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        assert!(diagnose(&address, Duration::from_millis(700)).contains("half an answer"));
        server.join().unwrap();
    }

    #[test]
    fn tells_what_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(diagnose(&address, PATIENCE).contains("refused"));
        assert!(
            diagnose("no-such-host.invalid:9092, x", PATIENCE).lines().all(|line| line.contains("cannot be resolved"))
        );
    }
}
