//! Producer settings from the command line and from `.properties` files.

use std::path::Path;

use crate::exit::{Exit, Failure};

/// Keys and values in the order given; of a key that comes twice the last one counts.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Sets a key, in place of what it had.
    pub fn set(&mut self, key: &str, value: &str) {
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
            let Some((key, value)) = option.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(Failure::new(Exit::Usage, format!("-X {option}: expected KEY=VALUE")));
            };
            self.set(key.trim(), value.trim());
        }
        Ok(())
    }

    /// Adds the lines of a file, as [`add_text`](Self::add_text) does.
    pub fn add_file(&mut self, path: &Path) -> Result<(), Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(Exit::Usage, format!("cannot read {}: {e}", path.display())))?;
        self.add_text(&path.display().to_string(), &text)
    }

    /// Adds lines of `KEY=VALUE`; empty lines and lines that begin with `#` or `!` are ignored. `name` is for errors.
    pub fn add_text(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                let at = format!("{name}:{}", number + 1);
                return Err(Failure::new(Exit::Usage, format!("{at}: expected KEY=VALUE, found: {line}")));
            };
            self.set(key.trim(), value.trim());
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
        std::fs::write(&path, "# comment\n\n acks = 1\n!x\nclient.id=a b=c\n").unwrap();
        let mut settings = Settings::default();
        settings.add_file(&path).unwrap();
        assert_eq!((settings.value("acks"), settings.value("client.id")), (Some("1"), Some("a b=c")));
        std::fs::write(&path, "acks=1\nlinger.ms\n").unwrap();
        let error = settings.add_file(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(error.text.ends_with(":2: expected KEY=VALUE, found: linger.ms"), "{}", error.text);
    }
}
