//! Says why no broker answers: asks each bootstrap server itself, as simply as can be, and reports in plain words.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// An ApiVersions v0 request, which every Kafka since 0.10 answers: size, key 18, version 0, correlation 7, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

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
    let mut head = [0; 10];
    match stream.read_exact(&mut head) {
        Ok(()) => understand(&head),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof || e.kind() == ErrorKind::ConnectionReset => {
            "connected, but it closed the connection without an answer: no Kafka listener without TLS or SASL"
                .to_string()
        }
        Err(_) => {
            format!("connected, but no answer within {} s: it is no Kafka, or it is stuck", PATIENCE.as_secs())
        }
    }
}

/// Size, correlation id and error code, if Kafka sent them.
fn understand(head: &[u8; 10]) -> String {
    let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    match head[4..8] {
        [0, 0, 0, 7] if size < 1 << 20 => {
            "a Kafka broker answers here; the addresses that it advertises may not be reachable".to_string()
        }
        _ if head.starts_with(b"HTTP") => "what answers there is no Kafka but a web server".to_string(),
        _ => {
            let shown: String = head.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '.' }).collect();
            format!("what answers there is no Kafka (it says {shown:?})")
        }
    }
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
        assert!(said_of(&[0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]).contains("a Kafka broker answers"));
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
