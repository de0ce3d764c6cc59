//! Says why no broker answers: asks each bootstrap server itself, as simply as can be, and reports in plain words.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// An ApiVersions v0 request, which every Kafka since 0.10 answers: size, key 18, version 0, correlation id, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, b'r', b'i', b'n', b'g', 0xff, 0xff];
const CORRELATION: [u8; 4] = *b"ring";

/// One line for each server of a `bootstrap.servers` list.
pub fn diagnose(servers: &str) -> String {
    let servers = servers.split(',').map(str::trim).filter(|server| !server.is_empty());
    let lines: Vec<String> = servers.map(|server| format!("  {server}: {}", ask(server))).collect();
    lines.join("\n")
}

fn ask(server: &str) -> String {
    let addresses: Vec<SocketAddr> = match server.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(e) => return format!("the name cannot be resolved ({e})"),
    };
    let mut answer = "the name has no address".to_string();
    for address in addresses {
        answer = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return talk(stream),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                "connection refused: nothing listens there (is the broker running, is the port right?)".to_string()
            }
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                format!("no connection within {} s (a firewall, or a wrong address?)", PATIENCE.as_secs())
            }
            Err(e) => format!("no connection: {e}"),
        };
    }
    answer
}

fn talk(mut stream: TcpStream) -> String {
    let tried = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(&API_VERSIONS));
    if let Err(e) = tried {
        return format!("connected, but sending failed: {e}");
    }
    let mut answer = Vec::new();
    match read_answer(&mut stream, &mut answer) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && answer.is_empty() => {
            format!("connected, but no answer within {} s: it is no Kafka, or it is stuck", PATIENCE.as_secs())
        }
        _ if answer.is_empty() => {
            "connected, but it closed the connection without an answer: no Kafka listener without TLS or SASL"
                .to_string()
        }
        _ => understand(&answer),
    }
}

/// Reads one frame, size included, or as much as comes of something else.
fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> std::io::Result<()> {
    stream.take(10).read_to_end(answer)?;
    let size = answer.get(..4).map_or(0, |size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]));
    if answer[4.min(answer.len())..].starts_with(&CORRELATION) && size < 1 << 16 {
        stream.take(u64::from(size).saturating_sub(6)).read_to_end(answer)?;
    }
    Ok(())
}

/// A frame: size, correlation id, error code, then for each API its number, least and greatest version.
fn understand(answer: &[u8]) -> String {
    if answer.len() >= 14 && answer[4..].starts_with(&CORRELATION) {
        let produces = answer[14..].chunks_exact(6).any(|api| api.starts_with(&[0, 0]));
        return match produces {
            true => "a Kafka broker answers here; the addresses that it advertises may not be reachable".to_string(),
            false => "a Kafka controller answers here, not a broker: use a broker's port".to_string(),
        };
    }
    if answer.starts_with(b"HTTP") {
        return "what answers there is no Kafka but a web server".to_string();
    }
    let shown: String = answer.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '.' }).collect();
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
        let said = diagnose(&address);
        server.join().unwrap();
        said
    }

    #[test]
    fn tells_what_answers() {
        assert!(said_of(b"HTTP/1.1 400 Bad Request\r\n").contains("web server"));
        assert!(said_of(b"SSH-2.0-OpenSSH_9.2\r\n").contains("SSH-2.0-Op"));
        assert!(said_of(b"").contains("closed the connection"));
        assert!(
            said_of(b"\0\0\0\x16ring\0\0\0\0\0\x02\0\x12\0\0\0\x04\0\0\0\x03\0\x0d").contains("a Kafka broker answers")
        );
        assert!(said_of(b"\0\0\0\x10ring\0\0\0\0\0\x01\0\x12\0\0\0\x04").contains("controller"));
        assert!(said_of(b"\0\0\0\x10ring").contains("no Kafka"));
    }

    #[test]
    fn tells_what_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(diagnose(&address).contains("refused"));
        assert!(diagnose("no-such-host.invalid:9092, x").lines().all(|line| line.contains("cannot be resolved")));
    }
}
