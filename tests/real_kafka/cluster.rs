//! A real Kafka, run by `ci/kafka.sh` and stopped when dropped; and the reader that is not ours.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringmail::{DeliveryError, RecordMetadata, Written};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Brokers of a test's own, in a folder of their own.
pub struct Cluster {
    dir: PathBuf,
    pub bootstrap: String,
    /// Started here.
    own: bool,
}

impl Cluster {
    /// `kind` is `one` or `three`; `properties` are set on every broker.
    pub fn start(name: &str, kind: &str, properties: &[&str]) -> Self {
        let base = std::env::var_os("RINGMAIL_WORK").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = base.join(format!("{name}-{}", std::process::id()));
        // Made before the start, so that a start that fails is cleaned up as well.
        let mut cluster = Self { dir, bootstrap: String::new(), own: true };
        let dir = cluster.dir.to_str().unwrap();
        run("ci/kafka.sh", &[&["start", kind, dir], properties].concat());
        cluster.bootstrap = fs::read_to_string(cluster.dir.join("bootstrap")).unwrap().trim().to_string();
        cluster
    }

    /// The broker that `RINGMAIL_BOOTSTRAP` names, for a test that leaves it as it is; else one of its own.
    pub fn shared(name: &str) -> Self {
        match std::env::var("RINGMAIL_BOOTSTRAP") {
            Ok(bootstrap) => Self { dir: PathBuf::new(), bootstrap, own: false },
            Err(_) => Self::start(name, "one", &[]),
        }
    }

    /// Makes a topic; `options` as `ci/foreign_reader.py create` has them.
    pub fn topic(&self, name: &str, partitions: u32, options: &[&str]) {
        let partitions = partitions.to_string();
        foreign_reader(&[&[&self.bootstrap, name, "create", "--partitions", &partitions], options].concat());
    }

    pub fn kill9(&self, node: u32) {
        run("ci/kafka.sh", &["kill9", &node.to_string(), self.dir.to_str().unwrap()]);
    }

    pub fn restart(&self, node: u32) {
        run("ci/kafka.sh", &["restart", &node.to_string(), self.dir.to_str().unwrap()]);
    }

    /// Sends a signal (`STOP`, `CONT`) to a node.
    pub fn signal(&self, node: u32, signal: &str) {
        let pid = fs::read_to_string(self.dir.join(format!("node{node}.pid"))).unwrap();
        run("kill", &[&format!("-{signal}"), pid.trim()]);
    }

    /// What the foreign reader prints of a topic: one JSON object per record.
    pub fn dump(&self, topic: &str) -> String {
        foreign_reader(&[&self.bootstrap, topic, "dump"])
    }

    /// Has the foreign reader compare what is believed of the records with what lies in the log.
    pub fn check(&self, topic: &str, beliefs: &Beliefs, options: &[&str]) {
        let file = self.dir.join(format!("{topic}.beliefs"));
        fs::write(&file, &beliefs.text).unwrap();
        let said = foreign_reader(&[&[&self.bootstrap, topic, "outcomes", file.to_str().unwrap()], options].concat());
        println!("{}", said.trim());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.own {
            return;
        }
        if self.dir.join("bootstrap").exists() {
            let dir = self.dir.to_str().unwrap_or_default();
            let _ = Command::new(Path::new(ROOT).join("ci/kafka.sh")).args(["stop", dir]).status();
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// What a producer says of its records, as the foreign reader takes it.
#[derive(Default)]
pub struct Beliefs {
    text: String,
    pub delivered: usize,
    pub failed: usize,
}

impl Beliefs {
    /// Notes one record's end. Values must differ, and have no newline.
    pub fn note(&mut self, key: Option<&str>, value: &str, result: &Result<RecordMetadata, DeliveryError>) {
        let (state, place) = match result {
            Ok(metadata) => {
                self.delivered += 1;
                match metadata.offset() {
                    Some(offset) => ("delivered", format!("{}\t{offset}", metadata.partition())),
                    None => ("sent", "-\t-".to_string()),
                }
            }
            Err(error) => {
                self.failed += 1;
                let written = match error.written() {
                    Written::No => "not-written",
                    Written::Possibly => "possibly-written",
                };
                (written, "-\t-".to_string())
            }
        };
        writeln!(self.text, "{state}\t{place}\t{}\t{value}", key.unwrap_or("-")).unwrap();
    }
}

fn foreign_reader(args: &[&str]) -> String {
    let python =
        std::env::var("RINGMAIL_PYTHON").unwrap_or_else(|_| run("ci/kafka.sh", &["python"]).trim().to_string());
    run(&python, &[&["ci/foreign_reader.py"], args].concat())
}

/// Runs a command in the repository, and returns what it printed. Fails with all it said when it fails.
pub fn run(command: &str, args: &[&str]) -> String {
    let path = Path::new(ROOT).join(command);
    let program = if path.exists() { path } else { PathBuf::from(command) };
    let output = Command::new(program).args(args).current_dir(ROOT).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command} {args:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}
