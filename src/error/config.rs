//! A configuration that cannot be used.

use std::borrow::Cow;
use std::fmt;

/// A configuration key with a value that cannot be used, and the rule that it breaks.
///
/// Its text names all three: `linger.ms=soon: a whole number of milliseconds, 0 or more`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    key: Cow<'static, str>,
    value: String,
    rule: Cow<'static, str>,
}

impl ConfigError {
    /// `rule` says what would be right, or what is in the way and what to do instead. The value of a key that holds a
    /// secret is not kept.
    pub(crate) fn new(
        key: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
        rule: impl Into<Cow<'static, str>>,
    ) -> Self {
        let key = key.into();
        let secret = ["password", "secret", "jaas", "private", "keystore.key"].iter().any(|part| key.contains(part));
        let value = if secret { "(hidden)".to_owned() } else { value.into() };
        Self { key, value, rule: rule.into() }
    }

    /// The key, in Kafka's spelling.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value as it was given; `(hidden)` for passwords and the like.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What the value breaks, and what would be right.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.key, self.value, self.rule)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_key_value_and_rule() {
        let error = ConfigError::new("linger.ms", "soon", "a whole number of milliseconds");
        assert_eq!(error.to_string(), "linger.ms=soon: a whole number of milliseconds");
    }

    #[test]
    fn secrets_are_not_repeated() {
        for key in ["ssl.key.password", "sasl.jaas.config", "sasl.oauthbearer.client.credentials.client.secret"] {
            let error = ConfigError::new(key, "hunter2", "not yet");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{key}");
        }
    }
}
