//! An error that a broker answered with.

use std::fmt;
use std::sync::Arc;

use super::ErrorCode;

/// A broker's answer that was not "done": its code, and its own words where it sent some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerError {
    code: ErrorCode,
    message: Option<Box<str>>,
    from: Option<Arc<str>>,
}

/// Most characters of a broker's own words that are kept.
const WORDS_MAX: usize = 500;

impl BrokerError {
    /// From an answer's error code and its error message, which an empty string counts as not having. What is kept of
    /// the message is fit to be shown.
    pub(crate) fn new(code: ErrorCode, message: Option<&str>) -> Self {
        let fit = |text: &str| -> Box<str> {
            let mut fit: String = text.chars().take(WORDS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
            if text.chars().nth(WORDS_MAX).is_some() {
                fit.push('…');
            }
            fit.into()
        };
        Self { code, message: message.filter(|text| !text.is_empty()).map(fit), from: None }
    }

    /// The same error of a single record, of which the broker said this.
    pub(crate) fn with_message(&self, message: &str) -> Self {
        Self { from: self.from.clone(), ..Self::new(self.code, Some(message)) }
    }

    /// The broker that sent it, as `host:port`.
    pub(crate) fn from(self, broker: Arc<str>) -> Self {
        Self { from: Some(broker), ..self }
    }

    /// Kafka's error code, e.g. 6 for NOT_LEADER_OR_FOLLOWER.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Who answered so: `host:port`, with the node's id where it is known. `None` for what was said of a whole topic.
    pub fn broker(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// What the broker wrote beside the code, at most 500 characters. Most answers come without.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.message() {
            Some(message) => write!(f, ": {message}")?,
            None => write!(f, ": {}", self.code.describe())?,
        }
        match self.broker() {
            Some(broker) => write!(f, ", says {broker}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for BrokerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brokers_words_are_made_fit_to_be_shown() {
        let error = BrokerError::new(ErrorCode(-1), Some(&"\x1b[2J\nno ".repeat(1000))).from("b:1".into());
        let text = error.to_string();
        assert!(!text.contains(|c: char| c.is_control()) && text.len() < 700, "{text}");
        assert!(text.ends_with("…, says b:1"), "{text}");
        assert_eq!(BrokerError::new(ErrorCode(-1), Some("")).message(), None);
    }
}
