//! What a user types, beyond what the command line's parser can tell: separators, headers, servers, settings and the
//! files they come from. (`args.rs` lists every option with what it takes.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ringmail::testing::{Broker, BrokerOptions, StoredRecord};

/// Runs `ringmail ARGS…` with this input to its end.
fn run(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmail"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// A broker with topic `t` of one partition, and none that it makes by itself.
fn broker() -> Broker {
    let broker = Broker::start(BrokerOptions { auto_create: false, ..BrokerOptions::default() }).unwrap();
    assert!(broker.create_topic("t", 1));
    broker
}

/// Removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ringmail-typed-{name}-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// It ends with this code, and says these words (none: it says nothing at all).
fn check(case: &dyn std::fmt::Debug, output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{case:?}: {said}");
    assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{case:?}: '{words}' is not in: {said}");
}

/// A key and a value, as bytes.
type Pair<'a> = (Option<&'a [u8]>, &'a [u8]);
/// What is typed, the input, and the records; or what is said, with exit code 2.
type Case<'a> = (&'a [&'a str], &'a [u8], Result<&'a [Pair<'a>], &'a str>);

#[test]
fn separators() {
    let refused = "invalid value";
    let cases: &[Case<'_>] = &[
        (&["-K", "\\t"], b"k\tv:w\n\\tx\n", Ok(&[(Some(b"k"), b"v:w"), (None, b"\\tx")])),
        (&["-K\\t"], b"k\tv\n", Ok(&[(Some(b"k"), b"v")])),
        (&["-K", "\t"], b"k\tv\n", Ok(&[(Some(b"k"), b"v")])),
        (&["-K", "\\x3d\\x3d"], b"k==v=w\n", Ok(&[(Some(b"k"), b"v=w")])),
        (&["-K", "="], b"k=v\n", Ok(&[(Some(b"k"), b"v")])),
        (&["-K", "-"], b"k-v\n", Ok(&[(Some(b"k"), b"v")])),
        (&["-K", "\\"], b"k\\v\n", Ok(&[(Some(b"k"), b"v")])),
        (&["-K", " "], b"k v w\n", Ok(&[(Some(b"k"), b"v w")])),
        (&["-K", ""], b"k\n", Err("it is empty")),
        (&["-K="], b"k=v\n", Err("-K '='")),
        (&["-K", "\\q"], b"k\\qv\n", Err("\\q is none of the escapes")),
        (&["-k", "\\t"], b"v\n", Ok(&[(Some(b"\\t"), b"v")])),
        (&["-k", ""], b"v\n", Ok(&[(Some(b""), b"v")])),
        (&["-D", "\\0"], b"a\nb\0c\0", Ok(&[(None, b"a\nb"), (None, b"c")])),
        (&["-D", "\\r\\n"], b"a\nb\r\nc\rd\r\n", Ok(&[(None, b"a\nb"), (None, b"c\rd")])),
        (&["-D", "--"], b"a-b--c", Ok(&[(None, b"a-b"), (None, b"c")])),
        (&["-D", ""], b"a\n", Err("it is empty")),
        (&["-D", "\\x"], b"a\n", Err(refused)),
    ];
    for (typed, input, expected) in cases {
        let broker = broker();
        let servers = broker.bootstrap();
        let output = run(&[&["produce", "-b", &servers, "-t", "t"], *typed].concat(), input);
        let records: Vec<StoredRecord> = broker.log("t", 0);
        match expected {
            Ok(expected) => {
                check(typed, &output, 0, "");
                let pairs: Vec<_> = records.iter().map(|r| (r.key.as_deref(), r.value.as_deref().unwrap())).collect();
                assert_eq!(pairs, *expected, "{typed:?}");
            }
            Err(words) => {
                check(typed, &output, 2, words);
                assert!(records.is_empty(), "{typed:?}");
            }
        }
    }
}

#[test]
fn headers() {
    for (typed, expected) in [
        ("a=b", Ok(("a", Some("b")))),
        ("a=b=c", Ok(("a", Some("b=c")))),
        (" a = b ", Ok((" a ", Some(" b ")))),
        ("a=", Ok(("a", Some("")))),
        ("a", Ok(("a", None))),
        ("a\\t=\\t", Ok(("a\\t", Some("\\t")))),
        ("=b", Err("a header needs a name")),
        ("=", Err("a header needs a name")),
        ("", Err("a header needs a name")),
    ] {
        let broker = broker();
        let output = run(&["produce", "-b", &broker.bootstrap(), "-t", "t", "-H", typed], b"v\n");
        match expected {
            Ok((name, value)) => {
                check(&typed, &output, 0, "");
                let headers = [(name.to_owned(), value.map(|value| value.as_bytes().to_vec()))];
                assert_eq!(broker.log("t", 0)[0].headers, headers, "{typed}");
            }
            Err(words) => check(&typed, &output, 2, words),
        }
    }
}

/// Every way to write the servers, by every way to give them: they are read alike.
#[test]
fn servers() {
    let broker = broker();
    let at = broker.bootstrap();
    let cases = [
        (at.clone(), 0, ""),
        (format!(" {at} , "), 0, ""),
        (format!("PLAINTEXT://{at}"), 0, ""),
        (format!("plaintext://{at},,{at}"), 0, ""),
        (String::new(), 2, "no broker given"),
        (" ".to_owned(), 2, "no broker given"),
        (",".to_owned(), 2, "at least one host:port"),
        ("127.0.0.1".to_owned(), 2, "has no port"),
        (format!("SSL://{at}"), 2, "not built yet"),
        (format!("{at};{at}"), 2, "IPv6"),
    ];
    for (typed, code, words) in &cases {
        let file = Scratch::new("servers", format!("bootstrap.servers = {typed}").as_bytes());
        let setting = format!("bootstrap.servers={typed}");
        for given in [["-b", typed], ["-X", &setting], ["-F", file.0.to_str().unwrap()]] {
            let output = run(&[&["produce", "-t", "t"], &given[..]].concat(), b"v\n");
            check(&given, &output, *code, words);
        }
    }
}

#[test]
fn settings_and_their_files() {
    let broker = broker();
    let at = broker.bootstrap();
    let (host, port) = at.rsplit_once(':').unwrap();
    // A file, and whether it can be used.
    let files: &[(&str, Result<(), &str>)] = &[
        ("bootstrap.servers=AT", Ok(())),
        ("\u{feff}bootstrap.servers=AT", Ok(())),
        ("\u{feff}# saved by an editor\r\nbootstrap.servers=AT\r\nacks=all\r\n", Ok(())),
        ("bootstrap.servers: AT", Ok(())),
        ("bootstrap.servers AT", Ok(())),
        ("bootstrap.servers=HOST\\:PORT", Ok(())),
        ("bootstrap.servers=\\\n  AT,\\\n  AT\nlinger.ms=0  ", Ok(())),
        ("! C:\\users\\u\nclient.id=a#b\nbootstrap.servers=AT\n", Ok(())),
        ("bootstrap.servers=AT\nlinger.ms\n", Err(":2: expected KEY=VALUE, found: linger.ms")),
        ("bootstrap.servers=AT\n=5\n", Err(":2: expected KEY=VALUE, found: ")),
        ("bootstrap.servers=AT\nclient.id=\\u00\n", Err(":2: \\u00 is no character")),
        ("bootstrap.servers=AT\nlinger.msec=5\n", Err("did you mean linger.ms")),
        ("# nothing", Err("no broker given")),
    ];
    for (file, expected) in files {
        let text = file.replace("AT", &at).replace("HOST", host).replace("PORT", port);
        let file = Scratch::new("settings", text.as_bytes());
        let path = file.0.to_str().unwrap();
        let output = run(&["produce", "-t", "t", "-F", path], b"v\n");
        check(&text, &output, if expected.is_ok() { 0 } else { 2 }, expected.err().unwrap_or_default());
        if expected.is_ok() {
            let output = run(&["bench", "-t", "t", "-F", path, "-n", "10", "--warm-up", "0", "-q"], b"");
            check(&text, &output, 0, "");
        }
    }
    // Java's bytes, and those of Windows' editors.
    let utf16: Vec<u8> =
        format!("\u{feff}bootstrap.servers={at}\r\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin1 = [b"client.id=caf\xe9\nbootstrap.servers=", at.as_bytes()].concat();
    for (name, file) in [("utf16", utf16), ("latin1", latin1)] {
        let file = Scratch::new(name, &file);
        check(&name, &run(&["produce", "-t", "t", "-F", file.0.to_str().unwrap()], b"v\n"), 0, "");
    }
    for (setting, words) in [
        ("acks", "-X acks: expected KEY=VALUE"),
        ("=1", "-X =1: expected KEY=VALUE"),
        (" =1", "-X  =1: expected KEY=VALUE"),
        ("", "-X : expected KEY=VALUE"),
        ("acks=", "acks"),
        ("acks=two", "acks"),
    ] {
        check(&setting, &run(&["produce", "-b", &at, "-t", "t", "-X", setting], b"v\n"), 2, words);
    }
    check(&"blanks", &run(&["produce", "-b", &at, "-t", "t", "-X", " acks = all "], b"v\n"), 0, "");
}

#[test]
fn topics() {
    let broker = broker();
    for topic in ["", " ", "t ", "a/b", "..", &"x".repeat(250)] {
        let output = run(&["produce", "-b", &broker.bootstrap(), "-t", topic], b"v\n");
        check(&topic, &output, 3, "topic");
    }
}
