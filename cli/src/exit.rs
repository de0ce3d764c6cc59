//! Exit codes, and errors that end the command.

use std::process::ExitCode;

/// How the command ended. The numbers are part of its interface; `--help` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything was delivered (demo: and verified).
    Success = 0,
    /// At least one record was not delivered, or it is not known whether it was.
    RecordsFailed = 1,
    /// Wrong options or configuration; clap ends with the same number.
    Usage = 2,
    /// No broker answered, or the topic cannot be used; nothing was sent.
    NotReady = 3,
    /// The input could not be read.
    Input = 4,
    /// Ended by Ctrl-C or SIGTERM; what had been accepted was delivered.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends the command: what to tell the user, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub text: String,
}

impl Failure {
    /// The error's own words are the message.
    pub fn new(exit: Exit, text: impl ToString) -> Self {
        Self { exit, text: text.to_string() }
    }
}
