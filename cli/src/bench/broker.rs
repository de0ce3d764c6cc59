//! The embedded broker in a process of its own, so that what is measured is the client alone.
//!
//! The process is this executable again. It ends when its standard input does, and that is a pipe whose other end only
//! the client has: however the client ends, also by `kill -9`, the broker ends with it.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use ringmail::testing::{Broker, BrokerOptions, TopicOptions};

use crate::args::BenchBrokerArgs;
use crate::exit::{Exit, Failure};
use crate::log::print;

/// A running broker process. Dropping it ends it.
pub struct BrokerProcess {
    child: Child,
    /// Where it listens.
    pub bootstrap: String,
}

impl BrokerProcess {
    /// Starts it; its topics have so many partitions.
    pub fn start(partitions: u16) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench-broker", "--partitions", &partitions.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C is for the client, which still wants answers.
            .process_group(0)
            .spawn()?;
        let mut bootstrap = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut bootstrap)?;
        }
        let process = Self { child, bootstrap: bootstrap.trim().to_string() };
        match process.bootstrap.is_empty() {
            true => Err(io::Error::other("it ended at once")),
            false => Ok(process),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What the process does.
pub fn run(args: &BenchBrokerArgs) -> Result<Exit, Failure> {
    let topic = TopicOptions { partitions: i32::from(args.partitions), ..TopicOptions::default() };
    let broker = Broker::start(BrokerOptions { topic, discard: true, ..BrokerOptions::default() })
        .map_err(|e| Failure::new(Exit::NotReady, format!("the embedded broker does not start: {e}")))?;
    print(&broker.bootstrap());
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    Ok(Exit::Success)
}
