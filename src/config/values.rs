//! How values are written: each reader says, when it fails, what would be right.

use std::borrow::Cow;
use std::fmt;
use std::num::IntErrorKind;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What would have been right.
pub(super) type Rule = Cow<'static, str>;

/// The longest time that Kafka can say, 2^31 - 1 ms: more than 24 days. Longer ones count as this.
pub(super) const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// Stands for "never": can be added to any clock, and nobody sees its end.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Who must have a record before it counts as delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// Nobody: it counts once it is sent, and has no offset.
    None = 0,
    /// The partition's leader. Lost when the leader is, before others have it.
    Leader = 1,
    /// All replicas in sync.
    All = -1,
}

/// Where the sender thread runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cores {
    /// Wherever the operating system likes.
    None,
    /// Pinned to a core that ringmail chooses.
    Auto,
    /// Pinned to one of these, counted as the operating system does.
    List(Vec<usize>),
}

/// What the sender thread does while there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleStrategy {
    /// Looks again and again: the shortest latency, one core always busy.
    Spin,
    /// Looks for a moment, then sleeps until it is woken.
    SpinThenPark,
    /// Sleeps at once.
    Park,
}

/// How the sender thread talks to the operating system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverChoice {
    /// The best that works here.
    Auto,
    /// Linux's io_uring; where it is not allowed, as `Epoll`, with a warning.
    IoUring,
    /// Readiness: epoll on Linux, its like elsewhere.
    Epoll,
}

/// What the producer does when no broker that it knows is of use (`metadata.recovery.strategy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataRecovery {
    /// Goes on trying these.
    None,
    /// Starts again from `bootstrap.servers`.
    Rebootstrap,
}

/// `name`, `Display` and a reader for enums whose values are plain words.
macro_rules! words {
    ($type:ident, $rule:literal, $($word:literal $(| $other:literal)* => $variant:ident),*) => {
        impl $type {
            /// As it is written in a configuration.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            pub(super) fn read(text: &str) -> Result<Self, Rule> {
                match text.to_ascii_lowercase().as_str() {
                    $($word $(| $other)* => Ok(Self::$variant),)*
                    _ => Err($rule.into()),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words!(Acks, "all (or -1), 1 or 0", "all" | "-1" => All, "1" => Leader, "0" => None);
words!(IdleStrategy, "spin, spin-then-park or park", "spin" => Spin, "spin-then-park" => SpinThenPark, "park" => Park);
words!(MetadataRecovery, "rebootstrap or none", "rebootstrap" => Rebootstrap, "none" => None);
words!(DriverChoice, "auto, io_uring or epoll", "auto" => Auto, "io_uring" => IoUring, "epoll" => Epoll);

impl Cores {
    pub(super) fn read(text: &str) -> Result<Self, Rule> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            list => list
                .split(',')
                .map(|core| core.trim().parse())
                .collect::<Result<Vec<usize>, _>>()
                .map(Self::List)
                .map_err(|_| "none, auto, or cores by number with commas between them, e.g. 2,3".into()),
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Auto => f.write_str("auto"),
            Self::List(cores) => f.write_str(&cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

pub(super) fn read_bool(text: &str) -> Result<bool, Rule> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false".into()),
    }
}

pub(super) fn show_bool(on: bool) -> &'static str {
    if on { "true" } else { "false" }
}

/// A whole number in `range`.
pub(super) fn read_number(text: &str, range: RangeInclusive<i64>) -> Result<i64, Rule> {
    match text.parse::<i64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("a whole number from {} to {}", range.start(), range.end()).into()),
    }
}

/// Milliseconds, `least` or more; more than [`LONGEST`] counts as that.
pub(super) fn read_millis(text: &str, least: u64) -> Result<Duration, Rule> {
    let millis = match text.parse::<u64>() {
        Ok(millis) => Some(millis),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(u64::MAX),
        Err(_) => None,
    };
    match millis {
        Some(millis) if millis >= least => Ok(Duration::from_millis(millis).min(LONGEST)),
        _ => Err(format!("a whole number of milliseconds, {least} or more").into()),
    }
}

/// As [`read_millis`], or -1 for never.
pub(super) fn read_millis_or_never(text: &str) -> Result<Duration, Rule> {
    match text {
        "-1" => Ok(NEVER),
        _ => read_millis(text, 0).map_err(|rule| format!("{rule}, or -1 for never").into()),
    }
}

/// Whole milliseconds, which is all that a key can say.
pub(super) fn show_millis(duration: Duration) -> String {
    if duration == NEVER { "-1".to_owned() } else { duration.as_millis().to_string() }
}

/// A socket buffer in bytes; -1: the operating system decides.
pub(super) fn read_socket_buffer(text: &str) -> Result<Option<usize>, Rule> {
    match read_number(text, -1..=i64::from(i32::MAX)) {
        Ok(bytes) => Ok(usize::try_from(bytes).ok()),
        Err(_) => Err("bytes, or -1 to leave it to the operating system".into()),
    }
}

pub(super) fn show_socket_buffer(bytes: Option<usize>) -> String {
    bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())
}

/// `host:port` entries with commas between them, each once.
pub(super) fn read_servers(text: &str) -> Result<Vec<(String, u16)>, Rule> {
    let mut servers = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let server = read_server(entry).map_err(|what| format!("'{entry}' {what}"))?;
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    if servers.is_empty() { Err("at least one host:port, e.g. localhost:9092".into()) } else { Ok(servers) }
}

fn read_server(entry: &str) -> Result<(String, u16), &'static str> {
    const PORT: &str = "needs a port from 1 to 65535 at its end";
    let address = match entry.split_once("://") {
        Some((protocol, address)) if protocol.eq_ignore_ascii_case("plaintext") => address,
        Some(_) => return Err("asks for a protocol other than PLAINTEXT, which is not built yet"),
        None => entry,
    };
    let (host, port) = match address.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, rest))) => {
            let port = rest.strip_prefix(':').ok_or("has no port: write [address]:port, e.g. [::1]:9092")?;
            (host, port)
        }
        Some(None) => return Err("has no closing bracket"),
        None => {
            let (host, port) = address.rsplit_once(':').ok_or("has no port: write host:port, e.g. localhost:9092")?;
            if host.contains(':') {
                return Err("looks like an IPv6 address: write it in brackets, e.g. [::1]:9092");
            }
            (host, port)
        }
    };
    if host.is_empty() {
        return Err("has no host: write host:port, e.g. localhost:9092");
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c)) {
        return Err("has a character in its host that no host name has");
    }
    // `parse` alone would take a plus sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok((host.to_owned(), port)),
        _ => Err(PORT),
    }
}

pub(super) fn show_servers(servers: &[(String, u16)]) -> String {
    let show = |(host, port): &(String, u16)| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    servers.iter().map(show).collect::<Vec<_>>().join(",")
}
