//! An error that a broker answered with.

use std::fmt;

use super::ErrorCode;

/// A broker's answer that was not "done": its code, and its own words where it sent some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerError {
    code: ErrorCode,
    message: Option<Box<str>>,
}

impl BrokerError {
    /// From an answer's error code and its error message, which an empty string counts as not having.
    pub(crate) fn new(code: ErrorCode, message: Option<&str>) -> Self {
        Self { code, message: message.filter(|text| !text.is_empty()).map(Box::from) }
    }

    /// Kafka's error code, e.g. 6 for NOT_LEADER_OR_FOLLOWER.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What the broker wrote beside the code. Most answers come without.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.message() {
            Some(message) => write!(f, ": {message}"),
            None => write!(f, ": {}", self.code.describe()),
        }
    }
}

impl std::error::Error for BrokerError {}
