//! Producer settings from the command line and from `.properties` files.

use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::properties::{self, Property};

/// Keys and values in the order given; of a key that comes twice the last one counts.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Sets a key, in place of what it had. Blanks around either count for nothing, as with Kafka's.
    pub fn set(&mut self, key: &str, value: &str) {
        let (key, value) = (key.trim(), value.trim());
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_string(), value.to_string()));
    }

    /// The value of a key, if it was given.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Every key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Adds `KEY=VALUE` as given to `-X`.
    pub fn add_options(&mut self, options: &[String]) -> Result<(), Failure> {
        for option in options {
            let Some((key, value)) = option.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                return Err(Failure::new(Exit::Usage, format!("-X {option}: expected KEY=VALUE")));
            };
            self.set(key, value);
        }
        Ok(())
    }

    /// Adds the settings of a file in Java's format.
    pub fn add_file(&mut self, path: &Path) -> Result<(), Failure> {
        let name = path.display().to_string();
        match std::fs::read(path) {
            Ok(file) => self.add_properties(&name, &file),
            Err(error) => Err(Failure::new(Exit::Usage, format!("cannot read {name}: {error}"))),
        }
    }

    /// Adds those of a file that was read.
    pub fn add_properties(&mut self, name: &str, file: &[u8]) -> Result<(), Failure> {
        let wrong = |text: String| Failure { exit: Exit::Usage, text };
        let properties = properties::read(file).map_err(|(line, why)| wrong(format!("{name}:{line}: {why}")))?;
        for Property { line, key, value } in properties {
            match value {
                Some(value) if !key.trim().is_empty() => self.set(&key, &value),
                _ => return Err(wrong(format!("{name}:{line}: expected KEY=VALUE, found: {key}"))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_counts() {
        let mut settings = Settings::default();
        settings.add_options(&["acks=all".into(), "linger.ms = 5".into(), "acks=1".into(), "x=a=b".into()]).unwrap();
        let all: Vec<_> = settings.iter().collect();
        assert_eq!(all, [("linger.ms", "5"), ("acks", "1"), ("x", "a=b")]);
        assert_eq!(settings.add_options(&["acks".into()]).unwrap_err().text, "-X acks: expected KEY=VALUE");
        assert!(settings.add_options(&["=1".into()]).is_err());
    }

    #[test]
    fn properties_files() {
        let path = std::env::temp_dir().join(format!("ringmail-settings-{}", std::process::id()));
        std::fs::write(&path, "\u{feff}acks = 1 \n!x\nclient.id a b=c\n").unwrap();
        let mut settings = Settings::default();
        settings.add_file(&path).unwrap();
        assert_eq!((settings.value("acks"), settings.value("client.id")), (Some("1"), Some("a b=c")));
        for (file, words) in [
            ("acks=1\nlinger.ms\n", ":2: expected KEY=VALUE, found: linger.ms"),
            ("acks=1\n\n = 7\n", ":3: expected KEY=VALUE, found: "),
            ("a=\\u1\n", ":1: \\u1 is no character: four hexadecimal digits are needed"),
        ] {
            std::fs::write(&path, file).unwrap();
            let error = settings.add_file(&path).unwrap_err();
            assert!(error.text.ends_with(words), "{}", error.text);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
