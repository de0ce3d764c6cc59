//! What the user is told on standard error: messages, and the library's log when asked for.
//!
//! The library's warnings are shown always, and so is what it says of how it stands (target `ringmail::health`): that a
//! broker is lost or back, and every minute how it is while it is bad. Two things the command says better and leaves out
//! there: why there is no broker at the start (`diagnose`), and which records failed (`produce` knows their lines).

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::diagnose;

/// What the library says of how it stands.
const HEALTH: &str = "ringmail::health";
/// Of this, that records fail.
const RECORDS: &str = "ringmail::health::records";

/// The broker was met: how the library stands is worth telling.
static HEARD: AtomicBool = AtomicBool::new(false);
/// This command says itself which records failed.
static NAMES_RECORDS: AtomicBool = AtomicBool::new(false);
/// The progress bar, if one is drawn.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows the library's warnings; with `-v` also what it does, with `-vv` every detail.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 | 1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let detailed = tracing_subscriber::fmt::format().with_target(false).without_time();
    tracing_subscriber::fmt()
        .with_max_level(level)
        .event_format(Lines { verbose: verbose > 0, detailed })
        .with_writer(Above)
        .init();
}

/// From now on the user hears how the library stands.
pub fn hear_library() {
    HEARD.store(true, Ordering::Relaxed);
}

/// Whoever calls this says which records failed, and why.
pub fn names_records() {
    NAMES_RECORDS.store(true, Ordering::Relaxed);
}

/// Messages are written above this bar, from now on until there is none.
pub fn draw(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// One line on standard error. A closed standard error is no reason to stop.
pub fn say(text: &str) {
    let _ = Above.write_all(format!("{text}\n").as_bytes());
}

/// One line on standard output. A reader that went away (`| head`) is no reason to stop.
pub fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Standard error, above the progress bar.
struct Above;

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner);
        let write = || io::stderr().write_all(bytes).map(|()| bytes.len());
        match &*bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Above {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// `ringmail: ` and what there is to say; with `-v` as the library's users would see it.
struct Lines {
    verbose: bool,
    detailed: Format<tracing_subscriber::fmt::format::Full, ()>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, at: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &tracing::Event<'_>) -> fmt::Result {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let mut said = Said::default();
        event.record(&mut said);
        if said.client == diagnose::CLIENT {
            return Ok(());
        }
        if self.verbose {
            return self.detailed.format_event(at, to, event);
        }
        let shown = if target.starts_with(HEALTH) {
            HEARD.load(Ordering::Relaxed) && (target != RECORDS || !NAMES_RECORDS.load(Ordering::Relaxed))
        } else {
            *level <= tracing::Level::WARN
        };
        if shown { writeln!(to, "ringmail: {}{}", said.message, said.fields) } else { Ok(()) }
    }
}

/// An event, taken apart.
#[derive(Default)]
struct Said {
    message: String,
    client: String,
    fields: String,
}

impl tracing::field::Visit for Said {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "client" => write!(self.client, "{value:?}"),
            name => write!(self.fields, ", {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
