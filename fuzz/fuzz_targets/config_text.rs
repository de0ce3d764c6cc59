//! Properties files as the command reads them, then the configuration made of them: src/fuzzing/config.rs.
#![no_main]

#[allow(dead_code)]
#[path = "../../cli/src/exit.rs"]
mod exit;
#[allow(dead_code)]
#[path = "../../cli/src/settings.rs"]
mod settings;

use settings::Settings;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut settings = Settings::default();
    match settings.add_text("file", &text) {
        Ok(()) => {
            let pairs: Vec<_> = settings.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            ringmail::fuzzing::config(&pairs);
        }
        // It names the line.
        Err(failure) => assert!(failure.text.starts_with("file:") && failure.text.contains("KEY=VALUE")),
    }
});
