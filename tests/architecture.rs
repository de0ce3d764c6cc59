//! Reads the source tree and fails when a rule of ARCHITECTURE.md is broken. Each finding says how to mend it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms in the order of a record's way. A room may use rooms of its own row and of the rows above, never below.
const ROWS: &[&[&str]] = &[
    &["sync", "wire"],
    &["record", "error", "config"],
    &["metadata"],
    &["partitioner", "compression", "completion"],
    &["accumulator"],
    &["sender"],
    &["driver"],
    &["producer", "testing", "fuzzing"],
    &["fallback"],
];

/// The only files that may say `unsafe`.
const UNSAFE: &[&str] = &[
    "accumulator/arena.rs",
    "accumulator/lease.rs",
    "accumulator/private_claim.rs",
    "accumulator/ring.rs",
    "accumulator/segment.rs",
    "completion/callback.rs",
    "completion/slot.rs",
    "driver/callbacks.rs",
    "driver/fork.rs",
    "driver/gather.rs",
    "driver/socket.rs",
    "driver/uring/mod.rs",
    "driver/uring/ring.rs",
];

/// The same for the command, in `cli/src`.
const UNSAFE_CLI: &[&str] = &["allocations.rs"];

/// What a sans-IO room must not reach for, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("Instant", "take `now: Now` as a parameter; the driver reads the clock"),
    ("SystemTime", "take `now: Now` as a parameter; the driver reads the clock"),
    ("std::thread", "return an Action; the driver owns the threads"),
    ("std::fs", "the sender touches no file"),
    ("std::env", "read settings in config/"),
    ("TcpStream", "return an Action; the driver owns the sockets"),
    ("ToSocketAddrs", "return an Action; names are resolved by the driver's resolver"),
    ("mio::", "return an Action or a Transmit"),
    ("io_uring::", "return an Action or a Transmit"),
    ("libc::", "return an Action or a Transmit"),
];

/// Crates that know an operating system, which only the driver (and the embedded broker's TCP front) may.
const SYSTEM_CRATES: &[&str] = &["libc::", "io_uring::", "mio::", "core_affinity::"];

struct Source {
    /// Relative to `src/` (or `cli/src/`), with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// `accumulator` for `accumulator/arena.rs`, `producer` for `producer.rs`.
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Numbered lines of code, without comments and without what stands at the file's end for tests (and loom) only.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = |i: usize| {
            let marked = ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(loom)]"].iter().any(|cfg| lines[i].starts_with(cfg));
            marked && lines.get(i + 1).is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
        };
        let end = (0..lines.len()).find(|i| tests(*i)).unwrap_or(lines.len());
        lines.into_iter().take(end).enumerate().filter_map(|(i, line)| {
            let code = line.split("//").next().unwrap_or("");
            (!code.trim().is_empty()).then_some((i + 1, code))
        })
    }

    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap();
        matches!(name, "tests.rs" | "models.rs") || self.path.contains("/tests/")
    }
}

fn sources() -> Vec<Source> {
    sources_of("src")
}

fn sources_of(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let relative = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
    assert!(found.len() > 10, "no sources under {root:?}: this test would check nothing");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Fails with all findings at once.
fn report(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&room))
}

/// The rooms that code mentions as `crate::room`, also inside `use crate::{a::…, b::{…}}`, each with its line.
fn rooms_mentioned<'a>(code: impl Iterator<Item = (usize, &'a str)>) -> Vec<(usize, String)> {
    let mut rooms = Vec::new();
    // None: not in a `use crate::{` group. Some(depth): inside it; names at depth 1 are rooms.
    let mut group: Option<u32> = None;
    for (line, code) in code {
        let code = code.replace("crate::{", "crate::\u{1}");
        for token in code.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            let (word, end) = token.split_at(token.char_indices().next_back().map_or(0, |(at, _)| at));
            let word = if end.chars().all(|c| c.is_alphanumeric() || c == '_') { token } else { word };
            if let Some(path) = word.strip_prefix("crate::").or(word.strip_prefix("$crate::")) {
                rooms.push((line, path.split("::").next().unwrap().to_string()));
            } else if group == Some(1) {
                rooms.push((line, word.split("::").next().unwrap().to_string()));
            }
            group = match (group, end) {
                (None, "\u{1}") => Some(1),
                (Some(depth), "{") => Some(depth + 1),
                (Some(1), "}") => None,
                (Some(depth), "}") => Some(depth - 1),
                _ => group,
            };
        }
    }
    rooms.retain(|(_, room)| !room.is_empty());
    rooms
}

#[test]
fn imports_run_one_way() {
    let mentioned = |text: &'static str| rooms_mentioned(text.lines().map(|line| (1, line))).into_iter().map(|m| m.1);
    assert!(mentioned("use crate::wire::{varint, record};").eq(["wire"]));
    assert!(
        mentioned("use crate::{wire::{a, b}, error::X,\n    sync,\n};\nlet x = y{z};").eq(["wire", "error", "sync"])
    );
    assert!(mentioned("fn f(x: &crate::driver::X) -> crate::record::Y").eq(["driver", "record"]));
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.path != "lib.rs" && !s.is_test()) {
        let (at, from) = (&source.path, source.room());
        let Some(own) = row(from) else {
            findings.push(format!("src/{at}: place this room in ROWS of tests/architecture.rs"));
            continue;
        };
        for (line, room) in rooms_mentioned(source.code()) {
            if row(&room).is_some_and(|r| r > own || room == "testing" && !matches!(from, "testing" | "fuzzing")) {
                findings.push(format!(
                    "src/{at}:{line}: {from} uses {room}, which comes after it; move the shared type up, or pass it in"
                ));
            }
        }
    }
    report(findings);
}

#[test]
fn the_sender_is_sans_io() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| matches!(s.room(), "sender" | "transaction") && !s.is_test()) {
        for (line, code) in source.code() {
            for (word, instead) in IMPURE.iter().filter(|(word, _)| code.contains(word)) {
                findings.push(format!("src/{}:{line}: {word} in a sans-IO room; {instead}", source.path));
            }
        }
    }
    report(findings);
}

#[test]
fn only_the_driver_knows_an_operating_system() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| !matches!(s.room(), "driver" | "testing") && !s.is_test()) {
        for (line, code) in source.code() {
            for word in SYSTEM_CRATES.iter().filter(|word| code.contains(*word)) {
                findings.push(format!("src/{}:{line}: {word} outside driver/; move the call there", source.path));
            }
        }
    }
    report(findings);
}

#[test]
fn unsafe_code_is_confined_and_argued() {
    let mut findings = unsafe_findings("src", UNSAFE);
    for source in sources().iter().filter(|s| !s.is_test() && s.path != "accumulator/completions.rs") {
        if source.text.contains("allow(unsafe_code") != UNSAFE.contains(&source.path.as_str()) {
            findings.push(format!("src/{}: `allow(unsafe_code)` and the list here must agree", source.path));
        }
        if source.path == "lib.rs" && !source.text.contains("#![deny(unsafe_code)]") {
            findings.push("src/lib.rs: no `#![deny(unsafe_code)]`".to_owned());
        }
    }
    findings.extend(unsafe_findings("cli/src", UNSAFE_CLI));
    report(findings);
}

fn unsafe_findings(root: &str, allowed: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    let sources = sources_of(root);
    for name in allowed {
        if !sources.iter().any(|s| s.path == *name && s.code().any(|(_, code)| says_unsafe(code))) {
            findings.push(format!("{root}/{name}: no unsafe code any more; take it off the list here"));
        }
    }
    for source in sources.iter().filter(|s| !s.is_test()) {
        let at = &source.path;
        let lines: Vec<&str> = source.text.lines().collect();
        let mut any = false;
        for (line, code) in source.code().filter(|(_, code)| says_unsafe(code)) {
            any = true;
            let is_signature = code.contains("unsafe fn") || code.contains("unsafe trait");
            let wanted = if is_signature { "# Safety" } else { "SAFETY:" };
            if !argued(&lines, line - 1, wanted) && !code.contains("unsafe extern") && !is_pointer_type(code) {
                findings.push(format!("{root}/{at}:{line}: no `{wanted}` above it; name the clause that it leans on"));
            }
        }
        if any && !allowed.contains(&at.as_str()) {
            findings.push(format!(
                "{root}/{at}: unsafe code in a new file; do without, or argue it and add it to the list here"
            ));
        }
        if any && !source.text.contains("Why this is sound") {
            findings.push(format!("{root}/{at}: unsafe code without a *Why this is sound* in its header"));
        }
    }
    findings
}

fn says_unsafe(code: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

/// `unsafe fn` as a type (a field, a parameter) needs no argument of its own.
fn is_pointer_type(code: &str) -> bool {
    code.contains(": unsafe fn") || code.contains("<unsafe fn")
}

/// Whether the comment block right above line `at` (attributes and the statement's first lines may lie between), or
/// the line itself, holds the words.
fn argued(lines: &[&str], at: usize, words: &str) -> bool {
    if lines[at].contains(words) {
        return true;
    }
    let mut statement_lines = 0;
    for line in lines[..at].iter().rev().map(|line| line.trim()) {
        if line.starts_with("//") {
            if line.contains(words) {
                return true;
            }
        } else if line.ends_with([';', '}', '{']) || line.is_empty() {
            return false;
        } else if !line.starts_with('#') {
            statement_lines += 1;
            if statement_lines > 4 {
                return false;
            }
        }
    }
    false
}

#[test]
fn every_module_opens_with_what_it_is() {
    let silent = sources().into_iter().filter(|s| !s.text.starts_with("//!"));
    report(silent.map(|s| format!("src/{}: open the module with a few lines of `//!`", s.path)).collect());
}

/// The list of what a producer must do is whole, and each test that it names is there.
#[test]
fn the_tests_that_the_list_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("tests/README.md")).unwrap();
    let numbers = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse::<u32>().ok();
    let listed: Vec<u32> = list.lines().filter_map(numbers).collect();
    assert!(listed.iter().copied().eq((1..=72).chain(89..=122)), "{listed:?}");
    let mut findings = Vec::new();
    for (row, number) in list.lines().filter_map(|line| Some((line, numbers(line)?))) {
        let mut named = row.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")).peekable();
        if named.peek().is_none() && !row.contains("not built") {
            findings.push(format!("tests/README.md, {number}: name a test, or say what is not built"));
        }
        for (path, name) in named {
            let text = fs::read_to_string(root.join(path)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
            let at = lines.iter().position(|line| line.starts_with(&format!("fn {name}(")));
            // A test, or one of a list that is run over each driver.
            let runs = at.is_some_and(|at| {
                let marked = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
                let listed = || text.contains("macro_rules! ") && lines.contains(&name);
                marked.into_iter().any(|line| *line == "#[test]") || listed()
            });
            if !runs {
                findings.push(format!("tests/README.md, {number}: {path} has no test {name}"));
            }
        }
    }
    report(findings);
}
