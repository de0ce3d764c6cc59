//! What the user is told on standard error: messages, and the library's log when asked for.

use std::io::Write;

use tracing_subscriber::filter::LevelFilter;

/// Shows the library's warnings; with `-v` also what it does, with `-vv` every detail.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .init();
}

/// One line on standard error. A closed standard error is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One line on standard output. A reader that went away (`| head`) is no reason to stop.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
