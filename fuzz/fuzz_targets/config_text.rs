//! Properties files as the command reads them, then the configuration made of them: src/fuzzing/config.rs.
#![no_main]

#[allow(dead_code)]
#[path = "../../cli/src/exit.rs"]
mod exit;
#[allow(dead_code)]
#[path = "../../cli/src/properties.rs"]
mod properties;
#[allow(dead_code)]
#[path = "../../cli/src/settings.rs"]
mod settings;

use settings::Settings;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut settings = Settings::default();
    match settings.add_properties("file", data) {
        Ok(()) => {
            let pairs: Vec<_> = settings.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            ringmail::fuzzing::config(&pairs);
        }
        // It names the line.
        Err(failure) => {
            let line = failure.text.strip_prefix("file:").and_then(|rest| rest.split_once(':'));
            assert!(line.is_some_and(|(line, why)| line.parse::<u32>().is_ok_and(|line| line > 0) && !why.is_empty()));
        }
    }
});
