//! The progress bar: only on a terminal, drawn by a thread of its own.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::log;

/// What the bar shows, asked for ten times a second.
pub trait Shown: Send + Sync + 'static {
    /// How far it is, in the unit of the bar's length.
    fn position(&self) -> u64;
    /// A few words beside the bar.
    fn words(&self) -> String;
}

/// A bar on standard error; nothing at all when that is no terminal. Ends, and clears its line, when dropped.
pub struct Progress {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

/// What the bar's length counts.
#[derive(Clone, Copy)]
pub enum Unit {
    Bytes,
    Records,
}

impl Progress {
    /// Nothing is drawn.
    pub fn hidden() -> Self {
        Self { running: None }
    }

    /// Draws `shown`, with a bar when the length is known.
    pub fn start(unit: Unit, length: Option<u64>, shown: Arc<impl Shown>) -> Self {
        if !stderr().is_terminal() {
            return Self::hidden();
        }
        let position = match (unit, length) {
            (Unit::Bytes, Some(_)) => "{bytes} of {total_bytes}, {bytes_per_sec}",
            (Unit::Bytes, None) => "{bytes}, {bytes_per_sec}",
            (Unit::Records, Some(_)) => "{human_pos} of {human_len}, {per_sec}",
            (Unit::Records, None) => "{human_pos}, {per_sec}",
        };
        let template = match length {
            Some(_) => format!("{{bar:30}} {position}  {{msg}}"),
            None => format!("{{spinner}} {position}  {{msg}}"),
        };
        let bar = match length {
            Some(length) => ProgressBar::new(length),
            None => ProgressBar::new_spinner(),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let (stop, stopped) = channel();
        log::draw(Some(bar.clone()));
        let drawer = std::thread::spawn(move || draw(&bar, &stopped, &*shown));
        Self { running: Some((stop, drawer)) }
    }
}

fn draw(bar: &ProgressBar, stopped: &Receiver<()>, shown: &impl Shown) {
    crate::allocations::leave_out_this_thread();
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(100)) {
        bar.set_message(shown.words());
        bar.set_position(shown.position());
        bar.tick();
    }
    bar.finish_and_clear();
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, drawer)) = self.running.take() {
            drop(stop);
            let _ = drawer.join();
            log::draw(None);
        }
    }
}
